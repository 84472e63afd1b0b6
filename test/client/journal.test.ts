// JournalFile: a chained line for every delivery, whatever its result; a journal that cannot be
// written does not affect jobs.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { Chain, type Link } from 'webjob-locker';
import { type Ended, makeClient, runWebjob } from '../support/client-job.ts';
import { afterBody, type FakeServer, formatAnswer, serve, splitRequest, startFake } from '../support/client-server.ts';
import { fillBytes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';

const SECRET = 'pAss-w0rd-7291';
const client = makeClient();
const journal = join(client.root, 'journal.jsonl');
const spool = join(client.root, 'spool');
let fake: FakeServer;
before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  for (const path of [journal, spool]) rmSync(path, { recursive: true, force: true });
  fake.get = serve('#!/bin/sh\nprintf "out of $1"\nprintf err >&2\n');
  fake.put = afterBody(formatAnswer());
  configure();
});

function configure(more: Record<string, string> = {}): void {
  const url = fake.url.replace('//', `//client1:${SECRET}@`);
  client.configure({ URLGetURL: url, URLPutURL: url, JournalFile: journal, ...more });
}

/** The result of the custody record's chain reader. */
function walk(): Link[] {
  const fd = openSync(journal, 'r');
  try {
    const chain = new Chain(fd);
    return [...chain.walk(), ...chain.findTorn()];
  } finally {
    closeSync(fd);
  }
}

/** The facts of every line of a chain without a fault. */
function readLines(): Record<string, unknown>[] {
  return walk().map(({ facts, fault }) => {
    assert.equal(fault, undefined);
    return facts ?? assert.fail('a line without a record');
  });
}

const sha256 = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');
const run = (...args: string[]): Promise<Ended> => client.execute(['host.sh', ...args]);

describe('the journal', () => {
  it('lists what was sent and what came back, without a password', async () => {
    assert.deepEqual(await run('x'), { code: 0, signal: null, stdout: '', stderr: '' });
    const [line = {}, ...more] = readLines();
    const body = splitRequest(fake.requests().at(-1) ?? Buffer.of()).body.toString('latin1');
    const env = body.slice('out of xerr'.length);
    const { time, startedAt, epochs, pid, covers, prev, sum, ...rest } = line;
    assert.deepEqual(rest, {
      event: 'put',
      jobId: 'server_1_1085355126_00723',
      clientId: 'client1',
      fileName: 'host.sh',
      runType: 'snapshot',
      bytes: { out: 8, err: 3, env: env.length },
      sha256: { out: sha256('out of x'), err: sha256('err'), env: sha256(env) },
      url: fake.url,
      tries: 1,
      status: 200,
      reason: 'OK',
      isAcknowledged: true,
    });
    assert.deepEqual([more, covers, prev], [[], [0, 0], sha256('')]);
    assert.ok(Date.parse(String(startedAt)) <= Date.parse(String(time)) && sum);
    assert.ok(env.includes(`\nPid=${pid}\n`), 'the process of the run record');
    for (const [stage, at] of Object.entries(epochs as Record<string, string>))
      assert.ok(env.includes(`${stage.replace(/^./, (c) => c.toUpperCase())}Epoch=${at}\n`));
    assert.equal(statSync(journal).mode & 0o777, 0o600);
    const text = readFileSync(journal, 'latin1');
    for (const secret of [SECRET, Buffer.from(`client1:${SECRET}`).toString('base64'), 'client1:'])
      assert.ok(!text.includes(secret));
  });

  it('has a line for a delivery with several tries, and one for each spooled job', async () => {
    configure({ SpoolDirectory: spool, RetryLimit: '1', RetryDelay: '0' });
    const page = afterBody(Buffer.from('HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n'));
    const busy = afterBody(formatAnswer('', '503 Busy'));
    const answers = [busy, page, busy];
    fake.put = (socket, received) => (answers.shift() ?? ((s) => s.destroy()))(socket, received);
    assert.equal((await run('x')).code, 5);
    assert.equal((await runWebjob(['--flush', '-f', client.conf])).code, 5);
    fake.put = afterBody(formatAnswer());
    assert.equal((await runWebjob(['--flush', '-f', client.conf])).code, 0);
    const lines = readLines();
    assert.deepEqual(
      lines.map(({ tries, status, isAcknowledged }) => [tries, status, isAcknowledged]),
      [
        [2, 200, false],
        [2, undefined, false],
        [1, 200, true],
      ],
    );
    assert.match(String(lines[0]?.error), /^the answer is not an acknowledgement .*text\/html/);
    assert.match(String(lines[1]?.error), /broke off/);
    assert.equal(lines[2]?.error, undefined);
    const bytes = lines.map(({ sha256: digests, jobId }) => JSON.stringify([digests, jobId]));
    assert.equal(new Set(bytes).size, 1, 'the same bytes each time');
  });

  it('has the report of a GET that failed, and nothing without a PUT', async () => {
    configure({ UploadOnGetFailure: 'Y' });
    fake.get = afterBody(formatAnswer('', '404 Not Found'));
    assert.equal((await run()).code, 3);
    const [line = {}] = readLines();
    assert.deepEqual([line.jobId, (line.bytes as { out: number }).out], ['NA', 0]);
    rmSync(journal);
    configure({ URLPutURL: '' });
    await run();
    configure({ JournalFile: '' });
    assert.equal((await run()).code, 3);
    assert.equal(existsSync(journal), false);
  });

  it('is one unbroken chain when many clients write at once', async () => {
    const ended = await Promise.all(Array.from({ length: 6 }, (_, n) => run(String(n))));
    assert.deepEqual(
      ended.map(({ code, stderr }) => `${code}${stderr}`),
      Array(6).fill('0'),
    );
    const digests = readLines().map((line) => (line.sha256 as { out: string }).out);
    assert.deepEqual(digests.sort(), Array.from({ length: 6 }, (_, n) => sha256(`out of ${n}`)).sort());
  });

  it('continues after a torn line, and shows changes', async () => {
    await run('1');
    await run('2');
    truncateSync(journal, statSync(journal).size - 20);
    await run('3');
    await run('4');
    assert.equal(walk().filter(({ record }) => record).length, 3);
    assert.deepEqual(
      walk().flatMap(({ fault }) => fault ?? []),
      [],
    );
    const text = readFileSync(journal, 'latin1');
    writeFileSync(journal, text.replace('"status":200', '"status":500'));
    assert.ok(walk().some(({ fault }) => fault === 'edited'));
  });
});

const obstacle = findMountObstacle();
describe('a journal on a full disk', { skip: obstacle && `no tmpfs: ${obstacle}` }, () => {
  it('causes a warning, and continues as an intact chain once there is space', async () => {
    const disk = join(client.root, 'disk');
    mkdirSync(disk);
    mountTmpfs(disk, 'size=64k');
    try {
      const onDisk = join(disk, 'journal.jsonl');
      configure({ JournalFile: onDisk });
      await run('first');
      fillBytes(join(disk, 'filler'));
      const warnings: string[] = [];
      // The last block has space for the beginning of a line only.
      for (let n = 0; n < 8; n += 1) {
        const { code, stderr } = await run(String(n));
        assert.equal(code, 0);
        warnings.push(stderr);
      }
      const [, ...after] = warnings.filter((said) => said !== '');
      assert.ok(after.length > 1, 'it was full');
      for (const said of after)
        assert.match(said, /^webjob: warning: JournalFile: [^\n]+: (?:ENOSPC|the disk is full)\n$/);
      rmSync(join(disk, 'filler'));
      for (const word of ['next', 'last'])
        assert.deepEqual(await run(word), { code: 0, signal: null, stdout: '', stderr: '' });
      writeFileSync(journal, readFileSync(onDisk));
      const digests = readLines().map((line) => (line.sha256 as { out: string }).out);
      assert.equal(digests.at(0), sha256('out of first'));
      assert.equal(digests.at(-1), sha256('out of last'));
    } finally {
      unmountTmpfs(disk);
    }
  });
});

describe('a journal that cannot be written', () => {
  const other = join(client.root, 'other');
  const WAYS: Record<string, [prepare: () => void, why: string]> = {
    'because its folder is not there': [() => configure({ JournalFile: join(client.root, 'none', 'j') }), 'ENOENT'],
    'because it is a link': [() => symlinkSync(other, journal), 'ELOOP'],
    'because it has another name': [() => linkSync(other, journal), 'it is not a file, or has several links'],
    'because others can write to it': [
      () => {
        writeFileSync(journal, '');
        chmodSync(journal, 0o622);
      },
      'others can write to it',
    ],
    'because it is a device': [() => configure({ JournalFile: '/dev/full' }), 'it is not a file, or has several links'],
  };
  for (const [why, [prepare, message]] of Object.entries(WAYS)) {
    it(`${why} draws a warning, and the job succeeds`, { skip: process.platform === 'win32' }, async () => {
      writeFileSync(other, 'other');
      prepare();
      const { code, stdout, stderr } = await run('x');
      assert.deepEqual([code, stdout, client.left()], [0, '', []]);
      assert.match(
        stderr,
        new RegExp(`^webjob: warning: JournalFile: \\S+ has no line of this delivery: ${message}\n$`),
      );
      assert.equal(readFileSync(other, 'utf8'), 'other');
      rmSync(journal, { force: true });
    });
  }
});
