// What prune and pack select, without a site: rules, holds, the contents of a locker, and how files
// of it are removed.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { findHold, type Hold, isHoldId, readHolds, writeHolds } from '../../admin/retention/holds.ts';
import { recoverParts } from '../../admin/retention/pack-making.ts';
import { describeGroup, finishRemoval, removeDescribed } from '../../admin/retention/removal.ts';
import { formatRule, type Rule, selectGroups } from '../../admin/retention/rule.ts';
import { dayOf, readJobId, type Scanned, scanLocker } from '../../admin/retention/scan.ts';
import { openUploadLocks } from '../../admin/retention/upload-locks.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-rules-'));
after(() => rmSync(root, { recursive: true }));
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
});

const NOW = 1_000_000_000_000;
const NAMES = { has: new Set(['rdy'] as const), jobId: undefined, clients: [] };
const group = (name: string, secondsAgo: number, more: Partial<Scanned> = {}): Scanned => {
  const owner = { clientId: 'client1', command: 'x.sh' };
  return { name, ...NAMES, isComplete: true, isLocked: false, at: NOW - secondsAgo * 1000, bytes: 10, owner, ...more };
};

describe('a prune rule', () => {
  function select(groups: Scanned[], rule: Rule, held: string[] = []) {
    const found = selectGroups(groups, rule, NOW, ({ name }) => held.includes(name));
    const names = (list: Scanned[]): string => list.map(({ name }) => name).join(' ');
    return [names(found.selected), names(found.held), names(found.locked), found.excessBytes];
  }

  it('selects older uploads, the oldest first, then by name', () => {
    const groups = [group('c', 101), group('b', 102), group('a', 102), group('even', 100), group('young', 99)];
    assert.deepEqual(select(groups, { olderThanSeconds: 100 }), ['a b c', '', '', 0]);
  });

  it('keeps the newest of every client and command, and uploads without an owner', () => {
    const owner = (clientId: string, command: string) => ({ owner: { clientId, command } });
    const groups = [
      ...[group('1', 10), group('2', 40), group('3', 20), group('4', 30)],
      ...[group('o1', 50, owner('client2', 'x.sh')), group('o2', 60, owner('client1', 'y.sh'))],
      group('nobody', 99, { owner: undefined }),
      group('broken', 1, { isComplete: false }),
    ];
    assert.deepEqual(select(groups, { keep: 1 }), ['2 4 3', '', '', 0]);
    assert.deepEqual(select(groups, { keep: 2 }), ['2 4', '', '', 0]);
    assert.deepEqual(select(groups, { keep: 4 }), ['', '', '', 0]);
    assert.deepEqual(select(groups, { keep: 1, olderThanSeconds: 25 }), ['2 4', '', '', 0]);
    assert.deepEqual(select(groups, { keep: 1, incomplete: true }), ['2 4 3 broken', '', '', 0]);
  });

  it('makes room from the oldest on, and counts what stays', () => {
    const groups = [group('a', 40), group('b', 30), group('c', 20), group('broken', 50, { isComplete: false })];
    assert.deepEqual(select(groups, { maxBytes: 40 }), ['', '', '', 0]);
    assert.deepEqual(select(groups, { maxBytes: 39 }), ['a', '', '', 0]);
    assert.deepEqual(select(groups, { maxBytes: 30 }), ['a', '', '', 0]);
    assert.deepEqual(select(groups, { maxBytes: 29 }), ['a b', '', '', 0]);
    assert.deepEqual(select(groups, { maxBytes: 5 }), ['a b c', '', '', 5]);
    assert.deepEqual(select(groups, { maxBytes: 0, incomplete: true }), ['broken a b c', '', '', 0]);
    assert.deepEqual(select(groups, { maxBytes: 30 }, ['a', 'c']), ['b', 'a', '', 0]);
  });

  it('selects nothing that is on hold or being written', () => {
    const groups = [
      group('a', 40, { isLocked: true }),
      group('b', 30),
      group('c', 20, { isLocked: true }),
      group('d', 1),
    ];
    assert.deepEqual(select(groups, { olderThanSeconds: 10 }, ['b', 'c', 'd']), ['', 'b c', 'a', 0]);
    assert.deepEqual(select(groups, { olderThanSeconds: 10, maxBytes: 0 }), ['b', '', 'a c', 30]);
  });

  it('is recorded as it was given', () => {
    assert.equal(formatRule({ olderThanSeconds: 0 }), '--older-than 0s');
    assert.equal(
      formatRule({ olderThanSeconds: 60, keep: 2, maxBytes: 0, incomplete: true }),
      '--older-than 60s --keep 2 --max-bytes 0 --incomplete',
    );
  });
});

describe('a hold', () => {
  const hold = (kind: Hold['kind'], id: string): Hold => ({
    kind,
    id,
    reason: 'r',
    by: 'me',
    at: '2026-11-01T00:00:00Z',
  });
  const claims = { name: 'x', jobId: undefined, clients: [] };

  it('is for the client that log or record name, or that the name contains as a word', () => {
    const isHeld = (more: object): boolean =>
      findHold([hold('job', 'j'), hold('client', 'held')], { ...claims, ...more }) !== undefined;
    assert.ok(isHeld({ clients: ['other', 'held'] }));
    assert.ok(!isHeld({ clients: ['held2', 'other'] }));
    for (const name of ['held', 'held_x', 'a/held', 'x-held.sh', 'a_held_b']) assert.ok(isHeld({ name }), name);
    for (const name of ['unheld', 'held1', 'Held', 'xheldx', '']) assert.ok(!isHeld({ name }), name);
  });

  it('is for the job as its .rdy file has it, or as the log writes it', () => {
    const find = (id: string, jobId: string | undefined): boolean =>
      findHold([hold('job', id)], { ...claims, jobId }) !== undefined;
    assert.ok(find('job', 'job'));
    assert.ok(find('a%25b', 'a%b'));
    assert.ok(!find('job', undefined));
    assert.ok(!find('job', 'job2'));
    assert.ok(!findHold([hold('client', 'job')], { ...claims, jobId: 'job' }));
    assert.ok(isHoldId('client', 'a') && !isHoldId('client', 'a b') && isHoldId('job', 'a.b') && !isHoldId('job', ''));
  });

  it('is in a file that counts only as a whole', () => {
    const settings = { configDirectory: folder } as ServerSettings;
    const path = join(folder, 'nph-webjob', 'holds.jsonl');
    assert.deepEqual(readHolds(settings), []);
    mkdirSync(join(folder, 'nph-webjob'));
    const holds = [hold('client', 'b'), hold('job', 'a')];
    writeHolds(settings, holds);
    assert.deepEqual([readHolds(settings), statSync(path).mode & 0o777], [holds, 0o600]);
    const text = readFileSync(path, 'utf8');
    for (const bad of [
      text.slice(0, -1),
      `${text}{}\n`,
      `${text}\n`,
      text.replace('"b"', '"b b"'),
      text.replace('"client"', '"toString"'),
      text.replace('"me"', '7'),
      `null\n${text}`,
    ]) {
      writeFileSync(path, bad);
      assert.throws(() => readHolds(settings), { kind: 'failed' }, JSON.stringify(bad));
    }
    rmSync(path);
    mkdirSync(path);
    assert.throws(() => readHolds(settings), /cannot be read: EISDIR/);
  });
});

/** Writes files of an upload, each this many seconds old. */
function put(name: string, ages: Record<string, number>): void {
  for (const [extension, seconds] of Object.entries(ages)) {
    const path = join(folder, `${name}.${extension}`);
    writeFileSync(path, extension === 'rdy' || extension === 'lck' ? `Jid=${name}\n` : extension);
    const at = new Date(NOW - seconds * 1000);
    utimesSync(path, at, at);
  }
}

describe('an upload in a locker', () => {
  const survey = (options = {}): Record<string, string> =>
    Object.fromEntries(
      [...scanLocker(folder, options)].map(({ name, isComplete, isLocked, at, bytes }) => [
        name,
        `${isComplete ? 'complete' : 'broken'}${isLocked ? ' locked' : ''} ${(NOW - at) / 1000} ${bytes}`,
      ]),
    );
  const deadLock = `webjobctl 999999999 ${hostname()} 1\n`;

  it('is as old as its .rdy file, or without one as its newest file', () => {
    put('a', { out: 1, err: 2, env: 3, rdy: 50 });
    put('b', { out: 10, err: 30, env: 20 });
    put('c', { out: 30, err: 10, lck: 20 });
    put('d', { out: 30, err: 30, env: 30, rdy: 40, lck: 1 });
    assert.deepEqual(survey(), {
      a: 'complete 50 15',
      b: 'broken 10 9',
      c: 'broken locked 10 12',
      d: 'complete locked 40 21',
    });
    assert.deepEqual(survey({ isUnmeasured: true }).a, 'complete 50 6');
    const before = (seconds: number): string => Object.keys(survey({ before: NOW - seconds * 1000 })).join('');
    assert.deepEqual([before(45), before(40), before(39.999), before(50)], ['abc', 'abc', 'abcd', 'bc']);
    const [found] = [...scanLocker(folder)].filter(({ name }) => name === 'a');
    assert.ok(found);
    assert.deepEqual(
      [readJobId(folder, found), readJobId(folder, { ...found, name: 'c', isComplete: false })],
      ['a', 'c'],
    );
    assert.equal(readJobId(folder, { ...found, name: 'b' }), undefined);
  });

  it('is not locked by a killed webjobctl, whose lock the next one removes', () => {
    put('a', { out: 1, rdy: 2 });
    writeFileSync(join(folder, 'a.lck'), deadLock);
    writeFileSync(join(folder, 'a.lck.123'), deadLock);
    writeFileSync(join(folder, 'b.lck.123'), 'Jid=b\n');
    put('c', { out: 1, rdy: 2 });
    // One that was killed before it wrote its name.
    writeFileSync(join(folder, 'c.lck'), '', { mode: 0o444 });
    put('d', { out: 1, rdy: 2 });
    writeFileSync(join(folder, 'd.lck'), '');
    const found = { a: 'complete 2 9', c: 'complete 2 9', d: 'complete locked 2 9' };
    assert.deepEqual(survey(), found);
    assert.equal(readdirSync(folder).length, 11);
    assert.deepEqual(survey({ isTidying: true }), found);
    assert.deepEqual(readdirSync(folder).sort(), [
      'a.out',
      'a.rdy',
      'b.lck.123',
      'c.out',
      'c.rdy',
      'd.lck',
      'd.out',
      'd.rdy',
    ]);
  });

  it('belongs to a day in the time zone of the site', () => {
    const at = Date.parse('2026-11-01T00:30:00Z');
    const local = new Date(at);
    assert.equal(dayOf(at, { useGMT: true } as ServerSettings), '2026-11-01');
    const day = [local.getFullYear(), local.getMonth() + 1, local.getDate()].map((part) =>
      String(part).padStart(2, '0'),
    );
    assert.equal(dayOf(at, { useGMT: false } as ServerSettings), day.join('-'));
  });
});

describe('an archive that was interrupted', () => {
  const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
  const packed = (): string => join(folder, 'packed');
  const lay = (archive: string | undefined, manifest: string): void => {
    rmSync(packed(), { recursive: true, force: true });
    mkdirSync(packed());
    if (archive !== undefined) writeFileSync(join(packed(), '2026-10-01.tar.gz'), archive);
    writeFileSync(join(packed(), '2026-10-01.jsonl.part'), manifest);
    writeFileSync(join(packed(), '2026-10-02.tar.gz.part'), 'half');
    writeFileSync(join(packed(), 'notes.part'), 'kept');
  };
  const head = { format: 1, day: '2026-10-01', archive: '2026-10-01.tar.gz' };
  const manifest = `${JSON.stringify(head)}\n${JSON.stringify({ groups: 0, archiveBytes: 3, archiveSha256: sha256('abc') })}\n`;

  it('is finished, on disk, when it matches its manifest, and otherwise discarded', async () => {
    const steps: string[] = [];
    const { fsyncSync, renameSync } = fs;
    const recover = async (): Promise<void> => {
      Object.assign(fs, {
        fsyncSync: (fd: number): void => {
          steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`))}`);
          fsyncSync(fd);
        },
        renameSync: (from: string, to: string): void => {
          steps.push(`name ${basename(to)}`);
          renameSync(from, to);
        },
      });
      syncBuiltinESMExports();
      try {
        await recoverParts({ baseDirectory: folder } as ServerSettings);
      } finally {
        Object.assign(fs, { fsyncSync, renameSync });
        syncBuiltinESMExports();
      }
    };
    lay('abc', manifest);
    await recover();
    assert.deepEqual(steps, ['name 2026-10-01.jsonl', 'fsync packed']);
    assert.deepEqual(readdirSync(packed()).sort(), ['2026-10-01.jsonl', '2026-10-01.tar.gz', 'notes.part']);
    for (const archive of ['abd', 'abcd', 'ab', undefined]) {
      lay(archive, manifest);
      await recover();
      const left = archive === undefined ? ['notes.part'] : ['2026-10-01.tar.gz', 'notes.part'];
      assert.deepEqual(readdirSync(packed()).sort(), left, String(archive));
    }
    lay('abc', manifest);
    writeFileSync(join(packed(), '2026-10-01.jsonl'), 'another');
    await recover();
    assert.equal(readFileSync(join(packed(), '2026-10-01.jsonl'), 'utf8'), 'another');
  });
});

describe('uploads that are removed', () => {
  const left = (): string => readdirSync(folder).sort().join(' ');
  const ALL = { out: 1, err: 1, env: 1, rdy: 1 };

  it('lose .rdy first, on disk, and only then their streams', async () => {
    put('a', ALL);
    put('b', ALL);
    const groups = [await describeGroup(folder, 'a'), await describeGroup(folder, 'b')];
    const steps: string[] = [];
    const { fsyncSync, unlinkSync } = fs;
    Object.assign(fs, {
      fsyncSync: (fd: number): void => {
        steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`)) === basename(folder) ? 'folder' : 'other'}`);
        fsyncSync(fd);
      },
      unlinkSync: (path: string): void => {
        steps.push(basename(path));
        unlinkSync(path);
      },
    });
    syncBuiltinESMExports();
    try {
      assert.deepEqual(removeDescribed(folder, groups), []);
    } finally {
      Object.assign(fs, { fsyncSync, unlinkSync });
      syncBuiltinESMExports();
    }
    const streams = ['a', 'b'].flatMap((name) => ['out', 'err', 'env'].map((stream) => `${name}.${stream}`));
    assert.deepEqual(
      steps.filter((step) => !step.endsWith('.lck') && step !== 'fsync other'),
      ['a.rdy', 'b.rdy', 'fsync folder', ...streams, 'fsync folder'],
    );
    assert.equal(left(), '');
  });

  it('are removed with a lock beside them, which is not one of their files', async () => {
    put('a', ALL);
    writeFileSync(join(folder, 'a.lck'), '');
    const { files, marks } = await describeGroup(folder, 'a');
    for (const known of [files, marks]) assert.deepEqual(Object.keys(known).sort(), ['env', 'err', 'out', 'rdy']);
    rmSync(join(folder, 'a.lck'));
    assert.deepEqual(removeDescribed(folder, [{ name: 'a', files, marks }]), []);
    assert.equal(left(), '');
  });

  it('are removed one by one with room for one lock, and stay without any', async () => {
    put('a', ALL);
    put('b', ALL);
    const groups = [await describeGroup(folder, 'a'), await describeGroup(folder, 'b')];
    const { openSync, linkSync } = fs;
    const full = (): never => {
      throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    };
    let room = 0;
    Object.assign(fs, {
      linkSync: full,
      openSync: (...args: Parameters<typeof openSync>): number => {
        const isLock = String(args[0]).endsWith('.lck') && args[1] === 'wx';
        if (isLock && readdirSync(folder).filter((name) => name.endsWith('.lck')).length >= room) full();
        return openSync(...args);
      },
    });
    syncBuiltinESMExports();
    try {
      const before = left();
      assert.throws(() => removeDescribed(folder, groups), /: no space for the lock of an upload$/);
      assert.equal(left(), before);
      room = 1;
      assert.deepEqual(removeDescribed(folder, groups), []);
    } finally {
      Object.assign(fs, { openSync, linkSync });
      syncBuiltinESMExports();
    }
    assert.equal(left(), '');
  });

  it('are removed although one of them has become a directory meanwhile', async () => {
    put('a', ALL);
    put('b', ALL);
    const groups = [await describeGroup(folder, 'a'), await describeGroup(folder, 'b')];
    const { unlinkSync } = fs;
    Object.assign(fs, {
      unlinkSync: (path: string): void => {
        unlinkSync(path);
        if (basename(path) !== 'a.rdy') return;
        renameSync(join(folder, 'a.out'), join(folder, 'a.err'));
        mkdirSync(join(folder, 'a.out'));
      },
    });
    syncBuiltinESMExports();
    try {
      assert.deepEqual(removeDescribed(folder, groups), []);
    } finally {
      Object.assign(fs, { unlinkSync });
      syncBuiltinESMExports();
    }
    assert.deepEqual(readdirSync(folder), ['a.out']);
    rmdirSync(join(folder, 'a.out'));
  });

  it('stay when they were replaced, or while they are being written', async () => {
    for (const [what, change] of [
      ['a stream was changed', () => put('a', { err: 2 })],
      ['a stream is gone', () => rmSync(join(folder, 'a.env'))],
      ['.rdy is gone', () => rmSync(join(folder, 'a.rdy'))],
      ['another writer is there', () => writeFileSync(join(folder, 'a.lck'), 'Jid=a\n')],
    ] as const) {
      for (const name of readdirSync(folder)) rmSync(join(folder, name));
      put('a', ALL);
      put('b', ALL);
      const groups = [await describeGroup(folder, 'a'), await describeGroup(folder, 'b')];
      change();
      const before = left().replace(/ b\.\w+/g, '');
      assert.deepEqual(removeDescribed(folder, groups), ['a'], what);
      assert.equal(left(), before, what);
    }
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
    put('a', { out: 1, rdy: 1 });
    const [described] = [await describeGroup(folder, 'a')];
    put('a', { env: 1 });
    assert.deepEqual(removeDescribed(folder, [described]), ['a']);
  });

  it('are removed further when each remaining file is the recorded one', async () => {
    put('a', ALL);
    const { files } = await describeGroup(folder, 'a');
    const { err: _err, ...others } = files;
    assert.equal(await finishRemoval(folder, 'a', files), false, 'it is announced');
    rmSync(join(folder, 'a.rdy'));
    writeFileSync(join(folder, 'a.err'), 'ErR');
    assert.equal(await finishRemoval(folder, 'a', files), false, 'another content');
    assert.equal(await finishRemoval(folder, 'a', others), false, 'a file that is not on record');
    assert.equal(left(), 'a.env a.err a.out');
    writeFileSync(join(folder, 'a.err'), 'err');
    assert.equal(await finishRemoval(folder, 'a', files), true);
    assert.equal(left(), '');
    assert.ok(!existsSync(join(folder, 'a.lck')));
  });
});

describe('the locks of a batch of uploads', () => {
  it('are one file, unless another process replaced it', () => {
    const locker = mkdtempSync(join(tmpdir(), 'webjob-locks-'));
    const lockOf = (name: string): string => join(locker, `${name}.lck`);
    try {
      const locks = openUploadLocks(locker);
      writeFileSync(lockOf('held'), 'Jid=server_1_1085355126_00723\n');
      assert.deepEqual(
        ['a', 'b', 'held'].map((name) => locks.take(name)),
        [true, true, false],
      );
      assert.equal(statSync(lockOf('a')).ino, statSync(lockOf('b')).ino);
      writeFileSync(join(locker, 'other'), 'anything');
      renameSync(join(locker, 'other'), lockOf('a'));
      assert.equal(locks.take('c'), true);
      assert.match(readFileSync(lockOf('c'), 'latin1'), /^webjobctl /);
      locks.release();
      assert.deepEqual(readdirSync(locker).sort(), ['a.lck', 'held.lck']);
    } finally {
      rmSync(locker, { recursive: true });
    }
  });
});
