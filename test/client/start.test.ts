// Programs that the system does not start: each has its reason in plain words, in the message and
// in the run record.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { machine } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { PlacedProgram } from '../../client/program.ts';
import { runProgram } from '../../client/run.ts';
import { readConnection } from '../../client/settings.ts';
import { explainStartFailure } from '../../client/start-failure.ts';
import { noteMount } from '../../scripts/test-leftovers.ts';
import { makeClient } from '../support/client-job.ts';
import { type FakeServer, serve, splitRequest, startFake } from '../support/client-server.ts';
import { findMountObstacle, unmountTmpfs } from '../support/locker-tmpfs.ts';

const client = makeClient();
let fake: FakeServer;
before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => client.configure({ URLGetURL: fake.url, URLPutURL: fake.url }));

/** Fetches a program that cannot be started; returns the message and the run record. */
async function fail(program: string | Buffer, command = ['job.sh']): Promise<string> {
  fake.get = serve(program);
  const earlier = fake.requests().length;
  const { code, stdout, stderr } = await client.execute(command);
  const { fields } = parseRecord(splitRequest(fake.requests()[earlier + 1] ?? Buffer.of()).body.toString());
  const why = fields.RunError.replace(/^cannot be run: /, '');
  assert.deepEqual([code, stdout, stderr], [4, '', `webjob: error: ${command[0]} cannot be run: ${why}\n`]);
  assert.deepEqual([fields.KidPid, fields.KidReason], ['NA', 'The kid could not be started.']);
  assert.deepEqual(client.left(), []);
  return why;
}

describe('a script', () => {
  it('is reported with a remedy that works when a line ends with CR LF', async () => {
    for (const line of ['#!/bin/sh', '#! /bin/sh', '#!/usr/bin/perl']) {
      const script = `${line}\r\necho it runs\r\n`;
      const why = await fail(script);
      const interpreter = line.replace(/^#! ?/, '');
      const [, remedy = ''] =
        /^its first line ends in CR LF, so its interpreter is "(?:.*)\\r"; on the server: (.*)$/.exec(why) ?? [];
      assert.ok(why.includes(`"${interpreter}\\r"`), why);
      const fixed = join(client.root, 'job.sh');
      writeFileSync(fixed, script);
      assert.equal(spawnSync('sh', ['-c', remedy], { cwd: client.root }).status, 0, remedy);
      assert.equal(readFileSync(fixed, 'latin1'), `${line}\necho it runs\n`);
      rmSync(fixed);
    }
  });

  it('is reported by interpreter when that is missing, without terminal sequences', async () => {
    assert.equal(await fail('#!/usr/bin/none -x\n'), 'its interpreter /usr/bin/none does not exist');
    assert.equal(await fail('#!none'), 'its interpreter none does not exist');
    assert.equal(await fail('#!/etc/passwd/none\n'), 'its interpreter /etc/passwd/none does not exist');
    assert.equal(await fail('#!/\x1b[2Jnone\n'), 'its interpreter /?[2Jnone does not exist');
  });

  it('is reported by interpreter when that is not executable', async () => {
    assert.equal(await fail('#!/etc/passwd\n'), 'its interpreter /etc/passwd may not be executed (EACCES)');
    assert.equal(await fail('#!/etc\n'), 'its interpreter /etc may not be executed (EACCES)');
  });

  it('is run by a shell without #!, as before', async () => {
    for (const program of ['exit 3\n', '', 'exit 3\n\0 what it carries \xff\0']) {
      fake.get = serve(Buffer.from(program, 'latin1'));
      const earlier = fake.requests().length;
      assert.equal((await client.execute(['job.sh'])).code, 0);
      const { fields } = parseRecord(splitRequest(fake.requests()[earlier + 1] ?? Buffer.of()).body.toString());
      assert.equal(fields.KidStatus, program === '' ? '0' : '3');
    }
  });
});

describe('a binary', { skip: process.platform !== 'linux' && 'for ELF' }, () => {
  const own = readFileSync('/bin/true');

  it('is not given to a shell when it is for another machine', async () => {
    for (const [number, bits, endian] of [
      [243, 2, 1],
      [8, 1, 2],
      [22, 2, 2],
    ] as const) {
      const head = Buffer.alloc(200);
      head.write('\x7fELF', 'latin1');
      head[4] = bits;
      head[5] = endian;
      endian === 1 ? head.writeUInt16LE(number, 18) : head.writeUInt16BE(number, 18);
      const expected = `it is for another machine: ELF machine ${number}, and this is ${machine()} (ENOEXEC)`;
      assert.equal(await fail(head), expected);
    }
  });

  it('is not given to a shell when it is for no machine', async () => {
    const expected = 'it is neither a script with #! nor a program for this machine (ENOEXEC)';
    for (const bytes of ['\x1f\x8b\x08\x00\x00', 'MZ\x90\x00\x03', '\x00', 'PK\x03\x04\x14\x00\nx'])
      assert.equal(await fail(Buffer.from(bytes, 'latin1')), expected);
  });

  it('is reported by loader when that is missing', async () => {
    const path = /\/[\w/.-]*ld[\w.-]*\.so\.\d(?=\0)/.exec(own.toString('latin1'))?.[0] ?? '';
    const other = `${path.slice(0, -1)}7`;
    const patched = Buffer.from(own.toString('latin1').replace(path, other), 'latin1');
    assert.equal(await fail(patched), `its loader ${other} does not exist`);
  });

  it('runs when it is for this machine', async () => {
    fake.get = serve(own);
    assert.equal((await client.execute(['true'])).code, 0);
  });
});

describe('TempDirectory mounted noexec', { skip: findMountObstacle() }, () => {
  it('is reported with its mount point and a remedy, for scripts and binaries', async () => {
    const disk = join(client.root, 'disk');
    mkdirSync(disk);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'noexec,mode=755,size=4m', 'none', disk]);
    assert.equal(mounted.status, 0);
    noteMount(disk);
    try {
      mkdirSync(join(disk, 'below'), { mode: 0o755 });
      client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, TempDirectory: join(disk, 'below') });
      const expected = `TempDirectory is on ${disk}, mounted noexec: set TempDirectory to a directory elsewhere (EACCES)`;
      for (const program of ['#!/bin/sh\n', readFileSync('/bin/true')]) assert.equal(await fail(program), expected);
      assert.deepEqual(readdirSync(join(disk, 'below')), []);
    } finally {
      unmountTmpfs(disk);
    }
  });
});

describe('other reasons for a failed start', () => {
  const path = join(client.root, 'program');

  /** Why the program is not started, when `prepare` has made that impossible. */
  async function reasonOf(prepare: (path: string) => (() => void) | undefined, args: string[] = []): Promise<string> {
    const fetched = join(client.root, 'fetched');
    writeFileSync(fetched, '#!/bin/sh\n', { mode: 0o600 });
    const placed = new PlacedProgram(fetched, path, true);
    const end = prepare(path);
    const ending = await runProgram(
      { settings: readConnection(undefined), args, runner: undefined, jobId: undefined },
      placed,
      'inherit',
    );
    end?.();
    placed.remove();
    return ending.error?.replace(/^cannot be run: /, '') ?? 'it ran';
  }

  it('are described in plain words: an argument too long, a file open for writing', async () => {
    const long = await reasonOf(() => undefined, ['x'.repeat(200_000)]);
    assert.equal(long, 'its arguments and the environment are larger than this system accepts (E2BIG)');
    const busy = await reasonOf((path) => {
      const fd = openSync(path, 'r+');
      return () => closeSync(fd);
    });
    assert.equal(busy, 'another process has it open for writing (ETXTBSY)');
    assert.equal(await reasonOf(() => undefined), 'it ran');
  });

  it('are told apart by their system error', () => {
    writeFileSync(path, '#!/bin/sh\n');
    const fd = openSync(path, 'r');
    const explain = (code: string): string =>
      explainStartFailure(Object.assign(new Error('spawn'), { code }), { path, fd });
    assert.equal(explain('EAGAIN'), 'this user cannot start another process (EAGAIN)');
    assert.equal(explain('EPERM'), 'a security policy of this system forbids it (EPERM)');
    assert.equal(explain('ENFILE'), 'too many files are open (ENFILE)');
    assert.equal(explain('EIO'), 'EIO');
    unlinkSync(path);
    closeSync(fd);
    writeFileSync(path, 'text');
    const gone = openSync(path, 'r');
    unlinkSync(path);
    const error = Object.assign(new Error('spawn'), { code: 'ENOENT' });
    assert.equal(explainStartFailure(error, { path, fd: gone }), 'it was removed before it was started');
    closeSync(gone);
  });
});
