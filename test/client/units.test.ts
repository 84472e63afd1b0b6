// The parts of the client: captured output, jobs and their names on disk, directories that others
// could change, the program in its place, and the journal.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs, {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { startOf } from '../../cli/processes.ts';
import { quote } from '../../cli/shell.ts';
import { decodeUtf8, percentDecode, percentEncode } from '../../client/bytes.ts';
import { Capture, hashCaptured, readCaptured, takeLength } from '../../client/captured.ts';
import { writeJournal } from '../../client/journal.ts';
import { takeLock } from '../../client/lock.ts';
import { checkProgramName, PlacedProgram } from '../../client/program.ts';
import { delaySeconds } from '../../client/retry.ts';
import { findWeakness } from '../../client/safe-directory.ts';
import type { ClientSettings } from '../../client/settings.ts';
import {
  findFreeJobs,
  findLeftovers,
  flushCommand,
  folderBytes,
  isFree,
  JobFolder,
  jobName,
  openJobFile,
  openSpool,
  readKeptFacts,
  removeSent,
  spoolBytes,
} from '../../client/spool.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-units-'));
after(() => rmSync(root, { recursive: true }));
const isRoot = process.getuid?.() === 0;
const needsRoot = { skip: !isRoot && 'owners need root' };
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder, { mode: 0o755 });
});
const at = (name: string): string => join(folder, name);
const openFiles = (): number => readdirSync('/proc/self/fd').length;

/** Replaces functions of node:fs during a call. */
function withCalls<Type>(replace: object, work: () => Type): Type {
  const originals = Object.fromEntries(Object.keys(replace).map((name) => [name, fs[name as keyof typeof fs]]));
  Object.assign(fs, replace);
  syncBuiltinESMExports();
  try {
    return work();
  } finally {
    Object.assign(fs, originals);
    syncBuiltinESMExports();
  }
}

const fail =
  (code: string, syscall = 'write') =>
  () => {
    throw Object.assign(new Error(code), { code, syscall });
  };
/** Writes three bytes at a time. */
const short = (fd: number, bytes: Uint8Array, from = 0): number => {
  const part = Buffer.from(bytes).subarray(from, from + 3);
  return original(fd, part, 0, part.length);
};
const original = fs.writeSync as (fd: number, bytes: Uint8Array, from: number, length: number) => number;

/** The paths that `work` syncs. */
function syncedBy(work: () => void): string[] {
  const synced: string[] = [];
  const { fsyncSync } = fs;
  const sync = (fd: number): void => {
    synced.push(fs.readlinkSync(`/proc/self/fd/${fd}`));
    fsyncSync(fd);
  };
  withCalls({ fsyncSync: sync }, work);
  return synced;
}

describe('the output of a program', () => {
  const digest = (text: string): string => createHash('sha1').update(text).digest('hex');
  const capture = (onFailure: (code: string) => boolean = () => false): Capture =>
    new Capture('stdout', at('out'), { hashType: 'SHA1', isSigned: false, onFailure });
  const textOf = (captured: Parameters<typeof readCaptured>[0]): string =>
    Buffer.concat([...readCaptured(captured)].map((piece) => Buffer.from(piece))).toString();

  it('is kept to its last byte, however short the writes are', () => {
    const before = openFiles();
    const one = capture();
    withCalls({ writeSync: short }, () => {
      for (const piece of ['hello ', '', 'world']) one.take(Buffer.from(piece));
    });
    one.finish(true);
    one.finish(true);
    assert.deepEqual(
      [textOf(one.captured), one.digest, one.trouble],
      ['hello world', digest('hello world'), undefined],
    );
    one.close();
    assert.equal(openFiles(), before);
  });

  it('is counted beyond what fit on the disk, and the digest covers what is there', () => {
    const one = capture();
    one.take(Buffer.from('kept'));
    withCalls({ writeSync: fail('ENOSPC') }, () => one.take(Buffer.from('lost')));
    one.take(Buffer.from('more'));
    one.finish(false);
    assert.deepEqual([textOf(one.captured), one.digest], ['kept', digest('kept')]);
    assert.equal(one.trouble, 'printed 12 bytes to stdout, of which 4 were kept: ENOSPC');
    one.close();
  });

  it('is what the file holds when that was truncated before it was on disk', () => {
    for (const [bytes, kept] of [
      [2, 'ke'],
      [9, 'kept'],
    ] as const) {
      const one = capture();
      one.take(Buffer.from('kept'));
      const shorten = (): void => {
        truncateSync(at('out'), bytes);
        fail('EIO', 'fsync')();
      };
      withCalls({ fsyncSync: shorten }, () => one.finish(true));
      assert.deepEqual([textOf(one.captured), one.digest], [kept, digest(kept)]);
      assert.match(one.trouble ?? '', new RegExp(`of which ${kept.length} were kept: EIO in fsync`));
      one.close();
      rmSync(at('out'));
    }
  });

  it('continues in another file, with everything kept so far', () => {
    const before = openFiles();
    const one: Capture = capture(() => {
      one.copyTo(at('copy')).use();
      return true;
    });
    one.take(Buffer.from('first '));
    let isFull = true;
    const once = (fd: number, bytes: Uint8Array, from = 0): number => {
      if (isFull) {
        isFull = false;
        return fail('ENOSPC')();
      }
      return short(fd, bytes, from);
    };
    withCalls({ writeSync: once }, () => one.take(Buffer.from('second')));
    one.finish(false);
    assert.deepEqual(
      [readFileSync(at('copy'), 'utf8'), textOf(one.captured), one.digest, one.trouble],
      [...['first second', 'first second', digest('first second'), undefined]],
    );
    one.copyTo(at('unused')).close();
    assert.throws(() => one.copyTo(at('copy')), { code: 'EEXIST' });
    one.close();
    assert.equal(openFiles(), before);
  });

  it('is read up to the recorded length, and no further', () => {
    writeFileSync(at('file'), 'x'.repeat(200_000));
    const fd = openSync(at('file'), 'r');
    const taken = takeLength(fd);
    fs.appendFileSync(at('file'), 'more');
    assert.deepEqual([taken.length, textOf(taken).length], [200_000, 200_000]);
    assert.equal(hashCaptured('MD5', { fd, length: 0 }), createHash('md5').digest('hex'));
    truncateSync(at('file'), 10);
    assert.throws(() => textOf(taken), /became shorter/);
    closeSync(fd);
  });
});

describe('jobs on disk', () => {
  const ours = `${process.pid}-${startOf(process.pid)}`;

  it('are told apart by their names', () => {
    const gone = '999999999-5';
    const names = [
      ...[
        'job-100-1',
        'job-99-1',
        `sending-${gone}-job-50-1`,
        'sending-1-1-job-70-1',
        'over-job-5-1',
        'job-x-1',
        `run-${gone}-AbC123`,
      ],
      ...['run-AbC123', 'run-1-99-AbC123', `sent-${gone}-job-3-1`, 'run-AbC12', 'job-1-1x', 'over-job-5-1x', 'notes'],
    ];
    for (const name of names) mkdirSync(at(name));
    writeFileSync(at('job-100-1/out'), 'x'.repeat(10));
    writeFileSync(at('job-99-1/out'), 'x'.repeat(5));
    writeFileSync(at('over-job-5-1/out'), 'x'.repeat(100));
    assert.deepEqual([spoolBytes(folder), folderBytes(at('none'))], [15, 0]);
    const free = findFreeJobs(folder);
    assert.deepEqual(
      free.filter((name) => !name.startsWith('sending-1-')),
      [`sending-${gone}-job-50-1`, 'job-99-1', 'job-100-1'],
    );
    assert.deepEqual(
      findLeftovers(folder)
        .filter((name) => !name.startsWith('run-1-'))
        .sort(),
      ['over-job-5-1', `run-${gone}-AbC123`, 'run-AbC123'].sort(),
    );
    assert.deepEqual(
      ['job-1-1', 'over-job-1-1', 'sending-1-2-job-1-1', 'sent-1-2-job-1-1'].map(jobName),
      Array(4).fill('job-1-1'),
    );
    const [pid, start] = ours.split('-');
    assert.ok(isFree(`run-${pid}-${start}-x`) && isFree('job-1-1') && isFree(`run-1-${Number(startOf(1)) + 1}-x`));
    assert.ok(!isFree(`run-${process.ppid}-${startOf(process.ppid)}-x`));
    removeSent(folder);
    assert.ok(!existsSync(at(`sent-${gone}-job-3-1`)) && existsSync(at('notes')));
  });

  it('consist of the latest files only, and are on disk when they are reported to be', () => {
    const job = new JobFolder(folder, 'job');
    mkdirSync(at('job'));
    for (const name of ['out', 'err']) writeFileSync(at(`job/${name}`), '');
    withCalls({ writeSync: short }, () => {
      job.write('env', Buffer.from('longer than that'));
      job.write('env', Buffer.from('short'));
      job.write('parcel.json', Buffer.from('{}'));
    });
    assert.deepEqual([readFileSync(at('job/env'), 'utf8'), statSync(at('job/env')).mode & 0o777], ['short', 0o600]);
    assert.equal(syncedBy(() => job.sync()).length, 5);
    withCalls({ fsyncSync: fail('EINVAL', 'fsync') }, () => job.sync());
    assert.throws(() => withCalls({ fsyncSync: fail('EIO', 'fsync') }, () => job.sync()), { code: 'EIO' });
    assert.equal(job.path, at('job'));
    job.rename('job');
    job.remove();
    assert.deepEqual(readdirSync(folder), []);
  });

  it('are files, not links to files and not pipes', () => {
    writeFileSync(at('file'), 'x');
    symlinkSync('file', at('link'));
    spawnSync('mkfifo', [at('fifo')]);
    const before = openFiles();
    closeSync(openJobFile(folder, 'file'));
    assert.throws(() => openJobFile(folder, 'link'), { code: 'ELOOP' });
    assert.throws(() => openJobFile(folder, 'fifo'), { code: 'EFTYPE' });
    assert.equal(openFiles(), before);
  });

  it('describe themselves, or are not jobs', () => {
    const good = { version: 'v', system: 's', clientId: 'c', fileName: 'x.sh', runType: 'snapshot', jobId: 'job' };
    const read = (parcel: object | string): void => {
      writeFileSync(at('parcel.json'), typeof parcel === 'string' ? parcel : JSON.stringify(parcel));
      readKeptFacts(folder, folder);
    };
    read(good);
    read({ ...good, jobId: undefined, runType: 'linktest' });
    for (const bad of [
      ...[
        { version: 1 },
        { system: undefined },
        { clientId: 'a b' },
        { fileName: '../x' },
        { runType: 'snapshots' },
        { jobId: 'a b' },
      ],
      ...[{ jobId: '' }],
    ])
      assert.throws(() => read({ ...good, ...bad }), { kind: 'put' }, JSON.stringify(bad));
    for (const bad of ['', 'null', '{']) assert.throws(() => read(bad), { kind: 'put' });
  });

  it('are delivered by a command that can be pasted', () => {
    assert.deepEqual(
      [quote('a/b-c_d.e=f'), quote('a b'), quote("a'b"), quote('')],
      ['a/b-c_d.e=f', "'a b'", "'a'\\''b'", "''"],
    );
    assert.equal(flushCommand('/a.conf,/b c.conf', '/x y'), "webjob --flush '/x y' --file '/a.conf,/b c.conf'");
    assert.equal(flushCommand('/a.conf'), 'webjob --flush --file /a.conf');
  });

  it('are in directories whose names are all on disk', () => {
    const make = (): string[] => syncedBy(() => openSpool(at('a/b/c'))).sort();
    assert.deepEqual(make(), [folder, at('a'), at('a/b')].sort());
    assert.equal(statSync(at('a/b/c')).mode & 0o777, 0o700);
    assert.deepEqual(make(), []);
  });
});

describe('a directory that decides what runs', needsRoot, () => {
  it('is unsafe if another user could replace a directory in the path', () => {
    mkdirSync(at('a/b'), { recursive: true });
    const weak = (path = at('a/b')): string | undefined => findWeakness(path);
    assert.equal(weak(), undefined);
    chmodSync(at('a'), 0o775);
    assert.equal(weak(), undefined, 'a group was given that on purpose');
    chmodSync(at('a'), 0o777);
    assert.equal(weak(), `others can replace files in ${at('a')}`);
    chmodSync(at('a'), 0o1777);
    assert.equal(weak(), undefined);
    chownSync(at('a'), 12_345, 0);
    assert.equal(weak(), `${at('a')} belongs to another user`);
    chownSync(at('a'), 0, 0);
    symlinkSync('a/b', at('link'));
    assert.equal(weak(at('link')), undefined);
    fs.lchownSync(at('link'), 12_345, 0);
    assert.equal(weak(at('link')), `${at('link')} belongs to another user`);
    symlinkSync(at('link'), at('second'));
    assert.equal(weak(at('second')), `${at('link')} belongs to another user`);
  });
});

describe('a placed program', () => {
  it('has a name that can be kept, stored and fetched', () => {
    const settings = (more: object) =>
      ({ getHookEnable: false, getHookSuffix: '.gpg', put: undefined, ...more }) as ClientSettings;
    const longest = (more: object): number => {
      for (let length = 255; length > 0; length--)
        try {
          checkProgramName(settings(more), 'x'.repeat(length));
          return length;
        } catch (error) {
          assert.equal((error as { kind: string }).kind, 'usage');
        }
      return 0;
    };
    assert.deepEqual(
      [longest({}), longest({ getHookEnable: true }), longest({ put: {} }), longest({ put: {}, getHookEnable: true })],
      [255, 251, 247, 247],
    );
  });

  it('is restored when another run removed it, and is removed when it is unchanged', () => {
    const before = openFiles();
    writeFileSync(at('fetched'), 'program '.repeat(20_000));
    const program = new PlacedProgram(at('fetched'), at('x.sh'), true);
    assert.deepEqual([program.path, statSync(at('x.sh')).mode & 0o777, program.restore()], [at('x.sh'), 0o700, false]);
    assert.deepEqual(program.argumentsOf([`${folder}/%payload`]), [`${folder}/%payload`]);
    rmSync(at('x.sh'));
    const many = (fd: number, bytes: Uint8Array, from: number, length: number): number =>
      original(fd, bytes, from, Math.min(length, 1000));
    assert.ok(withCalls({ writeSync: many }, () => program.restore()));
    assert.equal(readFileSync(at('x.sh'), 'utf8'), 'program '.repeat(20_000));
    assert.equal(statSync(at('x.sh')).mode & 0o777, 0o700);
    renameSync(at('x.sh'), at('kept'));
    writeFileSync(at('x.sh'), 'of another run');
    program.remove();
    assert.ok(existsSync(at('x.sh')));
    rmSync(at('x.sh'));
    renameSync(at('kept'), at('x.sh'));
    program.remove();
    assert.ok(!existsSync(at('x.sh')));
    closeSync(program.fd);
    assert.equal(openFiles(), before);
    writeFileSync(at('fetched'), '');
    writeFileSync(at('x.sh'), 'mine');
    assert.throws(() => new PlacedProgram(at('fetched'), at('x.sh'), false), { kind: 'run' });
    assert.equal(readFileSync(at('x.sh'), 'utf8'), 'mine');
  });
});

describe('the journal', () => {
  const delivery = {
    facts: { version: 'v', system: 's', clientId: 'c', fileName: 'x.sh', runType: 'snapshot', jobId: undefined },
    url: new URL('http://u:p@h/x?y'),
    startedAt: new Date(),
    tries: 1,
    answer: { status: 200, reason: 'OK' },
    error: undefined,
  } as const;
  const write = (path = at('journal')): number => {
    writeFileSync(at('empty'), '');
    const fd = openSync(at('empty'), 'r');
    const streams = { out: takeLength(fd), err: takeLength(fd), env: Buffer.from('env') };
    const before = existsSync(path) ? statSync(path).size : 0;
    // A warning for each that cannot be written.
    withCalls({}, () => writeJournal(path, delivery, streams));
    closeSync(fd);
    return existsSync(path) ? statSync(path).size - before : 0;
  };

  it('is a file with one owner and one name', () => {
    assert.ok(write() > 0 && write() > 0);
    assert.equal(statSync(at('journal')).mode & 0o777, 0o600);
    const line = JSON.parse(readFileSync(at('journal'), 'utf8').split('\n')[0] ?? '');
    assert.deepEqual([line.url, line.isAcknowledged, line.jobId, line.status], ['http://h/x', true, 'NA', 200]);
    for (const mode of [0o660, 0o602, 0o620]) {
      chmodSync(at('journal'), mode);
      assert.equal(write(), 0, mode.toString(8));
    }
    chmodSync(at('journal'), 0o644);
    assert.ok(write() > 0);
    linkSync(at('journal'), at('second'));
    assert.equal(write(), 0);
    rmSync(at('second'));
    symlinkSync('journal', at('link'));
    assert.equal(write(at('link')), 0);
    if (!isRoot) return;
    chownSync(at('journal'), 12_345, 0);
    assert.equal(write(), 0);
  });

  it('is on disk line by line, and its name with the first line', () => {
    const count = (): number => syncedBy(() => void write()).length;
    assert.deepEqual([count(), count()], [2, 1]);
  });
});

describe('a lock', () => {
  it('is released by removing it, unless another is in its place', () => {
    const before = openFiles();
    takeLock('')();
    const release = takeLock(at('lock'));
    assert.deepEqual(
      [readFileSync(at('lock'), 'utf8'), statSync(at('lock')).mode & 0o777],
      [`${process.pid}\n`, 0o400],
    );
    release();
    assert.deepEqual(readdirSync(folder), []);
    const another = takeLock(at('lock'));
    rmSync(at('lock'));
    writeFileSync(at('lock'), '1\n');
    another();
    assert.ok(existsSync(at('lock')));
    rmSync(at('lock'));
    for (const [what, content] of [
      ['a long file', 'x'.repeat(65)],
      ['a folder', undefined],
    ] as const) {
      if (content === undefined) mkdirSync(at('lock'));
      else writeFileSync(at('lock'), content);
      assert.throws(() => takeLock(at('lock')), { kind: 'settings' }, what);
      rmSync(at('lock'), { recursive: true });
    }
    for (const stale of ['', 'x'.repeat(64), '999999999\n', '0\n', '12', `${process.pid}\n`]) {
      writeFileSync(at('lock'), stale);
      takeLock(at('lock'))();
      assert.deepEqual(readdirSync(folder), [], JSON.stringify(stale));
    }
    assert.equal(openFiles(), before);
  });

  it('is not removed when another run took it during the check of an abandoned one', () => {
    const sleeper = spawn('sleep', ['60'], { stdio: 'ignore' });
    const own = `${sleeper.pid}\n`;
    try {
      writeFileSync(at('lock'), own, { mode: 0o400 });
      const listFolder = fs.readdirSync as (path: string) => string[];
      let looks = 0;
      const readAndReplace = (path: string): string[] => {
        const found = listFolder(path);
        // The second look happens under the guard.
        if (path === `/proc/${sleeper.pid}/fd` && ++looks === 2) {
          rmSync(at('lock'));
          writeFileSync(at('lock'), own, { mode: 0o400 });
        }
        return found;
      };
      assert.throws(() => withCalls({ readdirSync: readAndReplace }, () => takeLock(at('lock'))), { kind: 'lock' });
      assert.equal(looks, 2);
      assert.deepEqual(readdirSync(folder), ['lock']);
      assert.equal(readFileSync(at('lock'), 'utf8'), own);
    } finally {
      sleeper.kill('SIGKILL');
    }
  });
});

describe('the wait before another try', () => {
  it('doubles up to an hour, is at least what was asked for, and grows by chance', () => {
    assert.deepEqual(
      [delaySeconds(10, 0, 0, 0), delaySeconds(10, 3, 0, 0), delaySeconds(10, 20, 0, 0)],
      [10, 80, 3600],
    );
    assert.deepEqual([delaySeconds(10, 0, 30, 0), delaySeconds(10, 0, 30, 1), delaySeconds(10, 0, 0, 1)], [30, 45, 15]);
  });
});

describe('bytes', () => {
  it('are text when they are valid UTF-8, and %hh in a URL', () => {
    assert.deepEqual(['abc', '\xc3\xa4', '\xe4', '\xc3', '\xc0\x80'].map(decodeUtf8), [
      'abc',
      '\u00e4',
      undefined,
      undefined,
      undefined,
    ]);
    assert.deepEqual(
      [percentEncode('a\x7f\x80\xff%'), percentDecode('%41%e4b'), percentDecode('%4'), percentDecode('%zz')],
      ['a\x7f%80%FF%', 'A\xe4b', undefined, undefined],
    );
  });
});
