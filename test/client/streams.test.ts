// Unexpected errors, and standard streams that are closed or full: the right exit code, nothing
// lost, no stack trace in cron's mail.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, beforeEach, describe, it } from 'node:test';
import { EXIT_CODES as COMMON_CODES } from '../../cli/failure.ts';
import { EXIT_CODES } from '../../client/failure.ts';
import { makeClient, runWebjob, WEBJOB } from '../support/client-job.ts';
import { afterBody, type FakeServer, formatAnswer, reply, serve, startFake } from '../support/client-server.ts';

const PROGRAMS = ['webjob', 'webjob-sign', 'pad-make-script'];
const pathOf = (name: string): string => join(import.meta.dirname, '..', '..', 'dist', name);
const client = makeClient();
let fake: FakeServer;
before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  for (const name of readdirSync(client.temp)) rmSync(join(client.temp, name), { recursive: true });
  client.configure({ URLGetURL: fake.url, URLPutURL: fake.url });
  fake.get = serve('#!/bin/sh\necho done\n');
  fake.put = afterBody(formatAnswer());
});

async function exitCode(child: ChildProcess): Promise<number | null> {
  return await new Promise((resolve) => child.on('close', resolve));
}

describe('an unexpected error', () => {
  /** What Node runs before the program. */
  function inject(code: string): Record<string, string> {
    const file = join(client.root, 'inject.cjs');
    writeFileSync(file, code);
    return { NODE_OPTIONS: `--require ${file}` };
  }
  const HINT =
    'webjob: hint: this is a bug; with WEBJOB_DEBUG=1 in the environment webjob says where: please report it\n';
  const WAYS: Record<string, string> = {
    'in a call': "require('node:os').hostname = () => { throw new TypeError('boom \\x1b[31m\\nsecond line'); };",
    'in an event': "setTimeout(() => { throw new TypeError('boom \\x1b[31m\\nsecond line'); }, 400);",
    'in a promise that nobody waits for': "setTimeout(() => Promise.reject(new TypeError('boom \\x1b[31m')), 400);",
  };
  for (const [where, code] of Object.entries(WAYS)) {
    it(`${where} prints one line with exit code 70, and the job's program is removed`, async () => {
      if (where !== 'in a call') fake.get = () => {};
      const environment = inject(code);
      const { code: exit, stdout, stderr } = await client.execute(['x'], { environment });
      assert.deepEqual([exit, stdout], [70, '']);
      assert.equal(stderr, `webjob: error: internal error: boom ?[31m\n${HINT}`);
      assert.deepEqual(
        client.left().filter((name) => !name.startsWith('webjob-')),
        [],
      );
      if (where !== 'in a call') assert.deepEqual(client.left(), []);
      const debugged = await client.execute(['x'], { environment: { ...environment, WEBJOB_DEBUG: '1' } });
      assert.equal(debugged.code, 70);
      assert.match(debugged.stderr, /\n {4}at .*inject\.cjs:1/);
    });
  }

  it('is not reported as a wrong command line when it leaves nothing to wait for', async () => {
    const silent = "Object.assign(new (require('node:events').EventEmitter)(), { destroy() {} })";
    const environment = inject(`require('node:net').connect = () => ${silent};`);
    assert.equal((await client.execute(['x'], { environment })).code, 70);
    assert.deepEqual(client.left(), []);
  });

  for (const name of [...PROGRAMS, 'webjobctl']) {
    it(`ends ${name} with 70`, async () => {
      const env = { ...process.env, ...inject("process.nextTick(() => { throw new Error('boom'); });") };
      const child = spawn(process.execPath, [pathOf(name), '--help'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
      const said = text(child.stderr as NodeJS.ReadableStream);
      assert.equal(await exitCode(child), 70);
      assert.ok((await said).startsWith(`${name}: error: internal error: boom\n${name}: hint: `));
    });
  }
});

describe('a stderr without a reader', () => {
  it('ends no job, however much is printed', async () => {
    client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, RetryLimit: '3', RetryDelay: '0' });
    let failures = 2;
    fake.get = (socket, received) =>
      (failures-- > 0 ? reply(formatAnswer('', '503 Busy')) : serve('#!/bin/sh\necho done\n'))(socket, received);
    const before = fake.requests().length;
    const child = spawn(process.execPath, [WEBJOB, '-e', '-f', client.conf, 'x'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stderr?.destroy();
    assert.equal(await exitCode(child), 0);
    assert.equal(fake.requests().length - before, 4, 'three times GET, one PUT');
    assert.deepEqual(client.left(), []);
  });

  it('changes no exit code, closed or full', { skip: !existsSync('/dev/full') && 'no /dev/full' }, async () => {
    for (const [words, code] of [
      [[], 1],
      [['--nonsense'], 1],
      [['-e', '-f', '/nowhere', 'x'], 2],
    ] as const) {
      const full = openSync('/dev/full', 'w');
      const onFull = spawn(process.execPath, [WEBJOB, ...words], { stdio: ['ignore', 'ignore', full] });
      closeSync(full);
      const closed = spawn(process.execPath, [WEBJOB, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
      closed.stderr?.destroy();
      assert.deepEqual(await Promise.all([exitCode(onFull), exitCode(closed)]), [code, code], words.join(' '));
    }
  });
});

describe('stdout', () => {
  const MODES: [name: string, words: string[]][] = [
    ...PROGRAMS.flatMap((name): [string, string[]][] => [
      [name, ['--help']],
      [name, ['--version']],
    ]),
    ['webjob', ['--hashsum', '--type', 'SHA256', WEBJOB]],
    ['webjob', ['--get-url', 'URL']],
  ];
  const start = (name: string, words: string[], stdout: 'pipe' | number): ChildProcess => {
    fake.get = reply(formatAnswer(Buffer.alloc(5_000_000, 'x')));
    return spawn(process.execPath, [pathOf(name), ...words.map((word) => word.replace('URL', fake.url))], {
      stdio: ['ignore', stdout, 'pipe'],
    });
  };
  for (const [name, words] of MODES) {
    it(`ends ${name} ${words[0]} silently when it is closed`, async () => {
      const child = start(name, words, 'pipe');
      child.stdout?.destroy();
      const [code, stderr] = await Promise.all([exitCode(child), text(child.stderr as NodeJS.ReadableStream)]);
      assert.deepEqual([code, stderr], [0, '']);
    });

    it(`is an error of ${name} ${words[0]} when it is full`, {
      skip: !existsSync('/dev/full') && 'no /dev/full',
    }, async () => {
      const full = openSync('/dev/full', 'w');
      const child = start(name, words, full);
      closeSync(full);
      const [code, stderr] = await Promise.all([exitCode(child), text(child.stderr as NodeJS.ReadableStream)]);
      assert.equal(stderr, `${name}: error: standard output cannot be written: ENOSPC\n`);
      assert.equal(code, name === 'webjob' ? EXIT_CODES.output : COMMON_CODES.failed);
    });
  }

  it('ends the program when its reader leaves', async () => {
    const child = start('webjob', ['--get-url', 'URL'], 'pipe');
    child.stdout?.once('data', () => child.stdout?.destroy());
    assert.equal(await exitCode(child), 0);
    const { stdout } = await runWebjob(['--get-url', fake.url]);
    assert.equal(stdout.length, 5_000_000);
  });
});
