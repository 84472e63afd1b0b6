// SIGUSR1 opens Node's debugger to every user of the machine. Our programs must ignore it.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeSite, type Site } from '../../scripts/site.ts';
import { parseRawRequest, spawnBare } from '../support/bare.ts';
import { makeClient, until } from '../support/client-job.ts';
import { type FakeServer, formatAnswer, startFake } from '../support/client-server.ts';
import { useResidentSite } from '../support/resident-site.ts';
import { untilAsleep } from '../support/target.ts';
import { findWebUser } from '../support/tree.ts';

const dist = join(import.meta.dirname, '..', '..', 'dist');
const program = (name: string): string => join(dist, name);
const skip = process.platform === 'win32' && 'no such signal';

/** Started without the variables that the test runner sets. */
function start(name: string, args: string[], input: 'pipe' | 'ignore' = 'ignore'): ChildProcess {
  return spawn(process.execPath, [program(name), ...args], { stdio: [input, 'pipe', 'pipe'] });
}

/** Whether it has a listening TCP socket. */
function listens(pid: number): boolean {
  const inodes = readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
    } catch {
      return [];
    }
  });
  const open = ['tcp', 'tcp6'].flatMap((name) =>
    readFileSync(`/proc/${pid}/net/${name}`, 'latin1').split('\n').slice(1),
  );
  return open
    .map((line) => line.trim().split(/\s+/))
    .some((field) => field[3] === '0A' && inodes.includes(field[9] ?? ''));
}

/** Sends the signal to a waiting process several times, and leaves the debugger time to open. */
async function disturb(pid: number | undefined): Promise<void> {
  assert.ok(pid);
  await untilAsleep(pid);
  for (let n = 0; n < 3; n += 1) {
    process.kill(pid, 'SIGUSR1');
    await sleep(150);
  }
  if (process.platform === 'linux') assert.equal(listens(pid), false, 'a debugger listens');
}

async function ended(child: ChildProcess): Promise<{ code: number | string | null; stdout: string; stderr: string }> {
  const code = new Promise<number | string | null>((resolve) =>
    child.on('exit', (status, signal) => resolve(signal ?? status)),
  );
  const read = (stream: NodeJS.ReadableStream | null): Promise<string> => (stream ? text(stream) : Promise.resolve(''));
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr)]);
  return { code: await code, stdout, stderr };
}

describe('SIGUSR1', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-sigusr1-'));
  const client = makeClient();
  let fake: FakeServer;
  let site: Site;
  before(async () => {
    fake = await startFake();
    site = makeSite();
  });
  after(async () => {
    await fake.close();
    client.remove();
    site.remove();
    rmSync(folder, { recursive: true });
  });

  it('does not affect webjob', async () => {
    client.configure({ URLGetURL: fake.url });
    let answer = (): void => {};
    fake.get = (socket) => {
      answer = () => socket.end(formatAnswer('#!/bin/sh\necho done\n'));
    };
    const requests = fake.requests().length;
    const child = start('webjob', ['-e', '-f', client.conf, 'x']);
    const result = ended(child);
    await until(() => fake.requests().length > requests, 'it asks');
    await disturb(child.pid);
    answer();
    assert.deepEqual(await result, { code: 0, stdout: 'done\n', stderr: '' });
  });

  it('does not affect webjobctl', async () => {
    const child = start('webjobctl', ['tail', '-f', '-c', site.propertiesFile]);
    const result = ended(child);
    await disturb(child.pid);
    child.kill('SIGTERM');
    const { stderr } = await result;
    assert.equal(stderr, '');
  });

  it('does not affect webjob-sign and pad-make-script, which wait for a file', async () => {
    execFileSync(process.execPath, [program('webjob-sign'), '--make-key', join(folder, 'key')]);
    const key = readFileSync(join(folder, 'key.key'));
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    writeFileSync(join(folder, 'program'), 'program');
    const signing = start('webjob-sign', ['--key', fifo, join(folder, 'program')]);
    const signed = ended(signing);
    await disturb(signing.pid);
    writeFileSync(fifo, key);
    assert.deepEqual(await signed, { code: 0, stdout: '', stderr: '' });
    // Its reader is slow: more than a pipe holds is waiting.
    writeFileSync(join(folder, 'large'), Buffer.alloc(4 * 1024 * 1024, 'x'));
    const making = start('pad-make-script', [join(folder, 'large')]);
    await disturb(making.pid);
    const { code, stderr } = await ended(making);
    assert.deepEqual([code, stderr], [0, '']);
  });

  it('does not affect the CGI script, which continues its upload', async (t) => {
    const query = 'VERSION=webjob+1.4.0&SYSTEM=x&CLIENTID=client1&FILENAME=x&RUNTYPE=linktest';
    const lengths = '&STDOUT_LENGTH=4&STDERR_LENGTH=0&STDENV_LENGTH=0';
    const raw = `PUT /open/nph-webjob.cgi?${query}${lengths} HTTP/1.1\r\nContent-Length: 4\r\n\r\n`;
    const options = {
      settingsFile: site.propertiesFile,
      user: findWebUser(),
      environment: [
        ['REMOTE_USER', 'client1'],
        ['AUTH_TYPE', 'Basic'],
      ] as const,
    };
    const child = spawnBare(parseRawRequest(Buffer.from(raw)), options);
    t.after(() => child.kill('SIGKILL'));
    const result = ended(child);
    child.stdin?.write('ab');
    await disturb(child.pid);
    child.stdin?.end('cd');
    const { code, stdout, stderr } = await result;
    assert.match(stdout, /^HTTP\/1\.1 251 Link Test OK\r\n/);
    assert.deepEqual([code, stderr], [0, '']);
  });

  describe('SIGUSR1 with a persistent worker', () => {
    const { start: startResident } = useResidentSite();
    it('has no effect on one alone, on the primary and on workers', async () => {
      for (const args of [[], ['--processes', '2']]) {
        const resident = await startResident(args);
        const pids = [resident.pid, ...childrenOf(resident.pid)];
        assert.equal(pids.length, args.length === 0 ? 1 : 3);
        for (const pid of pids) await disturb(pid);
        assert.deepEqual([resident.pid, ...childrenOf(resident.pid)], pids, 'all of them are still there');
        assert.equal(resident.complaints(), '');
        assert.equal(await resident.stop(), 0);
      }
    });
  });
});

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
}
