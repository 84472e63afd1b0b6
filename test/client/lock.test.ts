// LockFile, jobs that run webjob themselves, and obstacles that other users may put into
// TempDirectory.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { type Ended, makeClient, until, WEBJOB } from '../support/client-job.ts';
import { type FakeServer, serve, splitRequest, startFake } from '../support/client-server.ts';
import { endSwapper } from '../support/hooks-link-race.ts';
import { NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import { findWebUser } from '../support/tree.ts';

const DONE: Ended = { code: 0, signal: null, stdout: '', stderr: '' };
const client = makeClient();
const lock = join(client.root, 'lock');
const USER = findWebUser();
const NEEDS_ROOT = { skip: USER === undefined && 'only root can start processes of somebody else' };
let fake: FakeServer;

before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  for (const name of readdirSync(client.root).filter((name) => name.startsWith('lock')))
    rmSync(join(client.root, name), { recursive: true });
  rmSync(client.temp, { recursive: true });
  mkdirSync(client.temp, { mode: 0o755 });
  fake.get = serve('#!/bin/sh\n');
  configure();
});

function configure(more: Record<string, string> = {}): void {
  client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, LockFile: lock, ...more });
}

const locks = (): string[] => readdirSync(client.root).filter((name) => name.startsWith('lock'));

/** The process id of a process that has ended. */
function deadPid(): number {
  return spawnSync('/bin/true').pid;
}

describe('LockFile', () => {
  it('ends the second of two runs with 6, and admits a third when the first is over', async () => {
    const mayEnd = join(client.root, 'lock-may-end');
    fake.get = serve(`#!/bin/sh\nwhile [ ! -e '${mayEnd}' ]; do sleep 0.05; done\n`);
    const first = client.start(['host.sh']);
    await until(() => existsSync(join(client.temp, 'host.sh')), 'the first runs');
    const asked = fake.requests().length;
    const { code, stdout, stderr } = await client.execute(['host.sh']);
    const why = `webjob: error: another run holds LockFile ${lock} (process ${first.child.pid})\n`;
    assert.deepEqual([code, stdout, stderr], [6, '', why]);
    assert.equal(fake.requests().length, asked, 'it does not even ask');
    assert.equal(readFileSync(lock, 'utf8'), `${first.child.pid}\n`);
    writeFileSync(mayEnd, '');
    assert.deepEqual(await first.ended, DONE);
    assert.deepEqual(await client.execute(['host.sh']), DONE);
    assert.deepEqual(locks(), ['lock-may-end']);
  });

  it('is taken over when a dead process left it, or when it names no process', async () => {
    for (const content of [`${deadPid()}\n`, '', 'x\n', '0\n', '99999999999\n']) {
      writeFileSync(lock, content);
      assert.deepEqual(await client.execute(['host.sh']), DONE, content);
      assert.deepEqual(locks(), []);
    }
  });

  it('is taken over even if another process died while taking it over', async () => {
    writeFileSync(lock, `${deadPid()}\n`);
    writeFileSync(`${lock}.next`, `${deadPid()}\n`);
    assert.deepEqual(await client.execute(['host.sh']), DONE);
    assert.deepEqual(locks(), []);
  });

  it('is released after a failure and a signal, and left by SIGKILL for the next run', async () => {
    fake.get = (socket) => socket.destroy();
    assert.equal((await client.execute(['host.sh'])).code, 3);
    assert.deepEqual(locks(), []);
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      let isAsked = false;
      fake.get = () => {
        isAsked = true;
      };
      const { child, ended } = client.start(['host.sh']);
      await until(() => isAsked, 'it asks');
      child.kill(signal);
      await ended;
      assert.deepEqual(locks(), signal === 'SIGTERM' ? [] : ['lock']);
    }
    fake.get = serve('#!/bin/sh\n');
    assert.deepEqual(await client.execute(['host.sh']), DONE);
  });

  it('is taken over after its run ended, even if another process has its process id', async () => {
    let isAsked = false;
    fake.get = () => {
      isAsked = true;
    };
    const { child, ended } = client.start(['host.sh']);
    await until(() => isAsked, 'it asks');
    child.kill('SIGKILL');
    await ended;
    const content = readFileSync(lock, 'utf8');
    const other = makeClient({ URLGetURL: fake.url, URLPutURL: fake.url });
    isAsked = false;
    const running = other.start(['host.sh']);
    await until(() => isAsked, 'the other one asks');
    fake.get = serve('#!/bin/sh\n');
    for (const pid of [process.pid, running.child.pid]) {
      writeFileSync(lock, content.replace(String(child.pid), String(pid)));
      assert.deepEqual(await client.execute(['host.sh']), DONE, `process ${pid}`);
      assert.deepEqual(locks(), []);
      writeFileSync(lock, content, { mode: 0o400 });
    }
    running.child.kill('SIGKILL');
    await running.ended;
    other.remove();
  });

  it('counts while a webjob of an earlier version runs, which writes only a process id', async () => {
    const sleep = (...args: string[]): ChildProcess =>
      spawn(process.execPath, ['--eval', 'setTimeout(() => {}, 60_000)', '--', ...args], { stdio: 'ignore' });
    const cases: [process: ChildProcess, code: number][] = [
      [sleep('--execute', '--file', 'x', 'host.sh'), 6],
      [sleep('-ef', 'x', 'host.sh'), 6],
      [sleep('--flush', '--file', 'x'), 0],
      [spawn('sleep', ['60'], { stdio: 'ignore' }), 0],
    ];
    try {
      for (const [{ pid, spawnargs }, code] of cases) {
        writeFileSync(lock, `${pid}\n`, { mode: 0o600 });
        const ended = await client.execute(['host.sh']);
        assert.equal(ended.code, code, `${spawnargs.join(' ')}: ${ended.stderr}`);
        rmSync(lock, { force: true });
      }
    } finally {
      for (const [child] of cases) child.kill('SIGKILL');
    }
  });

  it('no longer counts for a run that ended and was not waited for', {
    skip: process.platform !== 'linux',
  }, async () => {
    // exec keeps the child and never waits for it.
    const parent = spawn('sh', ['-c', 'sleep 0.5 & echo $!; exec sleep 60'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [said] = await once(parent.stdout, 'data');
    const isZombie = (): boolean => / Z /.test(readFileSync(`/proc/${Number(said)}/stat`, 'latin1'));
    await until(isZombie, 'the child is a zombie');
    writeFileSync(lock, String(said), { mode: 0o400 });
    assert.deepEqual(await client.execute(['host.sh']), DONE);
    parent.kill('SIGKILL');
  });

  it('stays when it belongs to another run by the end of the run', async () => {
    const [entered, mayEnd] = [join(client.root, 'lock-entered'), join(client.root, 'lock-may-end')];
    fake.get = serve(`#!/bin/sh\n: > '${entered}'\nwhile [ ! -e '${mayEnd}' ]; do sleep 0.05; done\n`);
    const run = client.start(['host.sh']);
    await until(() => existsSync(entered), 'it runs');
    rmSync(lock);
    // A lock of another run stays, even if it contains the process id of this run.
    writeFileSync(lock, `${run.child.pid}\n`, { mode: 0o400 });
    writeFileSync(mayEnd, '');
    assert.deepEqual(await run.ended, DONE);
    assert.equal(readFileSync(lock, 'utf8'), `${run.child.pid}\n`);
  });

  it('never replaces anything but a lock file, and the message says what is there', async () => {
    const target = join(client.root, 'lock-target');
    const things: [what: string, make: () => void, message: string][] = [
      ['directory', () => mkdirSync(lock), 'is a directory, not a file'],
      ['link to nowhere', () => symlinkSync(target, lock), 'is a symbolic link, not a file'],
      ['link', () => symlinkSync(client.conf, lock), 'is a symbolic link, not a file'],
      ['FIFO', () => spawnSync('mkfifo', [lock]), 'is a FIFO, not a file'],
      ['device', () => spawnSync('mknod', [lock, 'c', '1', '3']), 'is a device or a socket, not a file'],
      [
        'other file',
        () => writeFileSync(lock, `root:x:0:0::/root:/bin/sh\n`.repeat(3)),
        'contains more than a process id',
      ],
    ];
    for (const [what, make, message] of things) {
      make();
      if (what === 'device' && !existsSync(lock)) continue;
      const asked = fake.requests().length;
      const { code, stdout, stderr } = await client.execute(['host.sh'], { timeLimitMs: 20_000 });
      const expected = `webjob: error: LockFile: ${lock} ${message}\nwebjob: hint: name a file of its own\n`;
      assert.deepEqual([code, stdout, stderr], [2, '', expected], what);
      assert.equal(fake.requests().length, asked);
      assert.ok(lstatSync(lock), `${what} stays`);
      rmSync(lock, { recursive: true });
    }
  });

  it('is a settings error when another user owns it or its directory', NEEDS_ROOT, async () => {
    chmodSync(client.root, 0o755);
    const shared = join(client.root, 'lock-shared');
    mkdirSync(shared, { mode: 0o755 });
    const path = join(shared, 'webjob.lock');
    const source = `
      // The checkout itself may be in a directory that this user cannot enter.
      const { takeLock } = await import('${join(import.meta.dirname, '..', '..', 'client', 'lock.ts')}');
      process.setgid(${USER?.gid}); process.setuid(${USER?.uid});
      try { takeLock('${path}'); console.log('taken'); } catch (error) { console.log(error.kind + ' ' + error.message); }`;
    const tryAsUser = (): string =>
      spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' }).stdout;
    assert.equal(tryAsUser(), `settings LockFile: ${path} cannot be made: EACCES\n`);
    chmodSync(shared, 0o1777);
    writeFileSync(path, `${deadPid()}\n`, { mode: 0o400 });
    assert.equal(tryAsUser(), `settings LockFile: ${path} cannot be read: EACCES\n`);
    chmodSync(path, 0o444);
    assert.equal(tryAsUser(), `settings LockFile: ${path} cannot be made: EPERM\n`);
    chmodSync(client.root, 0o700);
  });

  it('also counts for a user who may not signal its run', NEEDS_ROOT, async () => {
    chmodSync(client.root, 0o1777);
    const run = spawn(process.execPath, ['--eval', 'setTimeout(() => {}, 60_000)', '--', '--execute'], {
      stdio: 'ignore',
    });
    writeFileSync(lock, `${run.pid}\n`, { mode: 0o644 });
    const source = `
      process.setgid(${USER?.gid}); process.setuid(${USER?.uid});
      const { takeLock } = await import('${join(import.meta.dirname, '..', '..', 'client', 'lock.ts')}');
      try { takeLock('${lock}'); } catch (error) { console.log(error.kind); }`;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
    run.kill('SIGKILL');
    chmodSync(client.root, 0o700);
    assert.equal(stdout, 'lock\n');
  });

  it('is a settings error when it cannot be made', async () => {
    configure({ LockFile: join(client.root, 'none', 'lock') });
    const { code, stderr } = await client.execute(['host.sh']);
    assert.match(stderr, /^webjob: error: LockFile: \S+ cannot be made: ENOENT\n$/);
    assert.equal(code, 2);
  });

  it('is removed before it is closed, or another run would consider it abandoned', { skip: NO_STRACE }, () => {
    const trace = join(client.root, 'lock-trace');
    const source = `
      const { takeLock } = await import('${join(import.meta.dirname, '..', '..', 'client', 'lock.ts')}');
      takeLock('${lock}')();`;
    const words = [...traceTo(trace), process.execPath, '--input-type=module', '-e', source];
    const { status, stderr } = spawnSync(words[0] ?? '', words.slice(1), { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const calls = readTrace(trace).map(({ text }) => text);
    const lastIndexOf = (pattern: RegExp): number => calls.findLastIndex((text) => pattern.test(text));
    const [removed, closed] = [
      lastIndexOf(/^unlink(?:at)?\(.*\/lock"/),
      lastIndexOf(/^close\(\d+<.*\/lock(?:\.\d+)?[> ]/),
    ];
    assert.ok(removed >= 0 && closed > removed, calls.slice(-20).join('\n'));
  });

  it('goes to one of eight runs that find it abandoned at the same moment', async () => {
    const [inside, overlaps] = [join(client.root, 'lock-inside'), join(client.root, 'lock-overlaps')];
    const source = `
      const { takeLock } = await import('${join(import.meta.dirname, '..', '..', 'client', 'lock.ts')}');
      const { mkdirSync, rmdirSync, appendFileSync, writeFileSync } = await import('node:fs');
      let taken = 0;
      for (const deadline = Date.now() + 1500; Date.now() < deadline; ) {
        let release;
        try { release = takeLock('${lock}'); } catch (error) { if (error.kind !== 'lock') throw error; continue; }
        taken += 1;
        try { mkdirSync('${inside}'); rmdirSync('${inside}'); }
        catch (error) { appendFileSync('${overlaps}', error.code + '\\n'); }
        // The lock of a killed run, or of one that has ended.
        if (Math.random() < 0.5) writeFileSync('${lock}', '${deadPid()}\\n'); else release();
      }
      console.log(taken);`;
    const racers = Array.from({ length: 8 }, () =>
      spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'inherit'] }),
    );
    const taken = await Promise.all(
      racers.map(async (racer) => {
        let said = '';
        racer.stdout.on('data', (chunk) => {
          said += chunk;
        });
        const [code] = await once(racer, 'close');
        assert.equal(code, 0);
        return Number(said);
      }),
    );
    assert.ok(!existsSync(overlaps), 'never two at once');
    assert.ok(taken.filter((count) => count > 0).length > 1, `took it: ${taken}`);
  });
});

describe('a job that runs webjob itself', () => {
  it('uses its own lock, without Splay, and names the outer job in the inner run record', async () => {
    configure({ RunTimeLimit: '50', GetTimeLimit: '20', PutTimeLimit: '20' });
    const inner = join(client.root, 'inner.conf');
    writeFileSync(inner, `${readFileSync(client.conf, 'utf8')}Splay=99999\n`, { mode: 0o600 });
    const call = `'${process.execPath}' '${WEBJOB}' --execute --file '${inner}' inner.sh`;
    let asked = 0;
    fake.get = (socket, received) =>
      serve(asked++ === 0 ? `#!/bin/sh\n${call} && echo nested\n` : '#!/bin/sh\necho inside\n')(socket, received);
    const earlier = fake.requests().length;
    assert.deepEqual(await client.execute(['outer.sh']), DONE);
    const puts = fake
      .requests()
      .slice(earlier)
      .map(splitRequest)
      .filter(({ head }) => head.startsWith('PUT'));
    const [first = '', second = ''] = puts.map(({ body }) => body.toString());
    assert.ok(first.startsWith('inside\n') && second.startsWith('nested\n'));
    const [innerRecord, outerRecord] = [parseRecord(first.slice(7)), parseRecord(second.slice(7))];
    assert.deepEqual([innerRecord.extra, outerRecord.extra], [[['OuterJid', outerRecord.fields.Jid]], []]);
    assert.deepEqual([locks(), client.left()], [[], []]);
  });
});

describe('a job in an environment with WEBJOB_LOCK', () => {
  it('skips its own lock only where that one is held already', async () => {
    fake.get = serve(`#!/bin/sh\n[ -e '${lock}' ] && echo locked\n`);
    for (const [held, out] of [[lock, ''] as const, [`${lock}-other`, 'locked\n'] as const]) {
      assert.deepEqual(await client.execute(['job.sh'], { environment: { WEBJOB_LOCK: held } }), DONE);
      const put = splitRequest(fake.requests().at(-1) ?? Buffer.of());
      assert.ok(put.head.startsWith('PUT') && put.body.toString().startsWith(`${out}Version=`), put.body.toString());
    }
  });
});

describe('a job in an environment with WEBJOB_JID', () => {
  it('names the outer job only by a valid job id', async () => {
    configure({ LockFile: '' });
    const cases: [value: string, extra: [string, string][]][] = [
      ['server_1_1085355126_00723', [['OuterJid', 'server_1_1085355126_00723']]],
      ['', []],
      ['a b', []],
      ['x\nRunError=NA', []],
      ['jöb', []],
      ['j'.repeat(256), []],
    ];
    for (const [value, extra] of cases) {
      const earlier = fake.requests().length;
      assert.deepEqual(await client.execute(['host.sh'], { environment: { WEBJOB_JID: value } }), DONE);
      const { body } = splitRequest(fake.requests()[earlier + 1] ?? Buffer.of());
      assert.deepEqual(parseRecord(body.toString()).extra, extra, value);
    }
  });
});

describe('another user in TempDirectory', () => {
  const VICTIM = 'untouched';

  /** Plants a link at a name repeatedly until it is ended. */
  async function startPlanter(name: string, target: string): Promise<ChildProcess> {
    const source = `
      const { rmSync, symlinkSync, renameSync, writeFileSync } = require('node:fs');
      process.stdout.write('planting\\n');
      for (let n = 0; ; n++) {
        const next = process.argv[1] + '.' + process.pid;
        try { rmSync(next, { force: true }); n % 2 ? symlinkSync(process.argv[2], next) : writeFileSync(next, '#!/bin/sh\\necho attacked\\n', { mode: 0o755 }); renameSync(next, process.argv[1]); } catch {}
      }`;
    const planter = spawn(process.execPath, ['-e', source, name, target], {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: '/',
      ...USER,
    });
    await once(planter.stdout, 'data');
    return planter;
  }

  it('gains nothing by swapping files and links at the name of the program during a run', NEEDS_ROOT, async () => {
    chmodSync(client.root, 0o755);
    chmodSync(client.temp, 0o1777);
    const victim = join(client.root, 'victim');
    writeFileSync(victim, VICTIM, { mode: 0o600 });
    const planter = await startPlanter(join(client.temp, 'host.sh'), victim);
    try {
      fake.get = serve('#!/bin/sh\necho genuine\n');
      for (let run = 0; run < 12; run++) {
        const earlier = fake.requests().length;
        const ended = await client.execute(['host.sh']);
        assert.deepEqual(ended, DONE);
        const put = splitRequest(fake.requests()[earlier + 1] ?? Buffer.of()).body.toString();
        assert.ok(put.startsWith('genuine\n'), put.slice(0, 40));
        assert.equal(readFileSync(victim, 'utf8'), VICTIM);
      }
      const names = (): string[] => readdirSync(client.temp).filter((name) => name.startsWith('webjob-'));
      assert.deepEqual(names(), []);
    } finally {
      await endSwapper(planter);
      chmodSync(client.root, 0o700);
    }
  });

  it('cannot replace the program where nothing prevents it: such a directory is refused', async () => {
    chmodSync(client.temp, 0o777);
    const earlier = fake.requests().length;
    const { code, stderr } = await client.execute(['host.sh']);
    assert.match(stderr, /^webjob: error: TempDirectory: others can replace files in \S+\nwebjob: hint: [^\n]+\n$/);
    assert.deepEqual([code, fake.requests().length - earlier, client.left()], [4, 0, []]);
    chmodSync(client.temp, 0o1777);
    assert.deepEqual(await client.execute(['host.sh']), DONE);
  });
});
