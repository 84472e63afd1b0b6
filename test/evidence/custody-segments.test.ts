// A custody record in several segments: whatever processes write it, and wherever a writer is
// killed, every record that was reported as on disk is there once, before the seal of its segment,
// and each segment is bound to the one before.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  appendCustody,
  custodyPath,
  listCustodyFiles,
  readCustodyEnd,
  segmentFolder,
  segmentPath,
} from '../../cgi/locker/index.ts';
import { Evidence } from '../../evidence/evidence.ts';
import { CustodyRecords } from '../../evidence/records.ts';
import { verifySite } from '../../evidence/verify.ts';
import { walk } from '../support/custody-record.ts';
import { plantGroup } from '../support/verify-site.ts';

const WRITER = join(import.meta.dirname, '..', 'support', 'custody-writer.ts');
const LIMIT = 2000;
const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'webjob-segments-'));
after(() => rmSync(root, { recursive: true }));

let path: string;
let made = 0;
beforeEach(() => {
  const folder = join(root, String(made++));
  mkdirSync(folder);
  path = custodyPath(folder, 'server_1');
});

const growth = { mayCreate: true, segmentLimit: LIMIT };
const append = (name: string, more = growth): void => appendCustody(path, { event: 'deposit', name }, more);
const segment = (number: number): string => segmentPath(path, number);
const segments = (): string[] => listCustodyFiles(dirname(path)).map(({ file }) => file);

/** Appends until there are this many segments; returns the names. */
function fill(count: number): string[] {
  const names: string[] = [];
  while (segments().length < count) {
    names.push(`name_${names.length}`);
    append(names.at(-1) ?? '');
  }
  return names;
}

const sizeOf = (file: string): number => readFileSync(file).length;
/** The next record exceeds the limit. */
const full = (): typeof growth => ({ mayCreate: true, segmentLimit: sizeOf(segment(segments().length)) + 1 });

interface Read {
  /** Names of deposits up to the first seal of each segment. */
  names: string[];
  /** Names of deposits after a seal. */
  late: string[];
  faults: string[];
}

/** What the reader finds, and what the segments contain. */
function read(): Read {
  const folder = dirname(path);
  const records = new CustodyRecords([folder]);
  const found: Read = { names: [], late: [], faults: [] };
  try {
    records.refresh();
    found.faults = records.findFaults().map(({ kind, place }) => `${kind} ${place}`);
  } finally {
    records.close();
  }
  for (const { file } of listCustodyFiles(folder)) {
    let isSealed = false;
    for (const { event, name } of walk(join(folder, file)).records) {
      if (event === 'deposit') found[isSealed ? 'late' : 'names'].push(String(name));
      if (event === 'seal') isSealed = true;
    }
  }
  return found;
}

const whole = (names: string[]): Read => ({ names, late: [], faults: [] });

/** Replaces functions of node:fs during a call. */
function withCalls<Type>(replace: Partial<typeof fs>, work: () => Type): Type {
  const originals = Object.fromEntries(Object.keys(replace).map((name) => [name, fs[name as keyof typeof fs]]));
  try {
    Object.assign(fs, replace);
    syncBuiltinESMExports();
    return work();
  } finally {
    Object.assign(fs, originals);
    syncBuiltinESMExports();
  }
}

/** The system calls of a writer, except lookups. */
const CALLS = ['openSync', 'mkdirSync', 'writeSync', 'fsyncSync', 'symlinkSync', 'renameSync', 'rmSync'] as const;

/** Calls `work` with the nth of these calls failing; false when there was none. */
function failAt(nth: number, error: () => Error, work: () => void, only: readonly string[] = CALLS): boolean {
  let count = 0;
  let isReached = false;
  const failing = Object.fromEntries(
    only.map((name) => {
      const original = fs[name as (typeof CALLS)[number]] as (...args: unknown[]) => unknown;
      const call = (...args: unknown[]): unknown => {
        count++;
        if (count < nth) return original(...args);
        isReached = true;
        throw error();
      };
      return [name, call];
    }),
  );
  withCalls(failing as Partial<typeof fs>, work);
  return isReached;
}

describe('a custody record over its limit', () => {
  it('continues in the next segment, which commits to the end of the one before', () => {
    const names = fill(4);
    assert.deepEqual(segments(), [
      'nph-webjob-custody.server_1.jsonl',
      ...['000002', '000003', '000004'].map((number) => `nph-webjob-custody.server_1.d/${number}.jsonl`),
    ]);
    assert.deepEqual(read(), whole(names));
    for (const number of [1, 2, 3]) {
      const { records } = walk(segment(number));
      const [seal, next] = [records.at(-1), walk(segment(number + 1)).records[0]];
      assert.ok(next);
      assert.deepEqual([seal?.event, seal?.next], ['seal', segments()[number]]);
      const { file, covers } = next.follows as { file: string; covers: number[] };
      assert.deepEqual(
        [next.event, file, covers[1]],
        ['segment', segments()[number - 1], readFileSync(segment(number)).length],
      );
    }
    assert.equal(readlinkSync(join(segmentFolder(path), 'newest')), '000004.jsonl');
  });

  it('needs no conversion when it has one file from before there were segments', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
    for (const name of names) append(name, { mayCreate: true, segmentLimit: Number.POSITIVE_INFINITY });
    assert.deepEqual([segments().length, read()], [1, whole(names)]);
    append('k');
    append('l');
    assert.deepEqual([segments().length, read()], [2, whole([...names, 'k', 'l'])]);
  });

  it('continues where the note of the newest segment is missing, behind, ahead or invalid', () => {
    const names = fill(4);
    const note = join(segmentFolder(path), 'newest');
    for (const target of [undefined, '000002.jsonl', '000009.jsonl', '../x', '000000.jsonl']) {
      rmSync(note);
      if (target !== undefined) symlinkSync(target, note);
      const name = `noted ${target}`;
      append(name, { mayCreate: true, segmentLimit: 1_000_000 });
      names.push(name);
      assert.deepEqual([read(), segments().length], [whole(names), 4], name);
      assert.equal(readlinkSync(note), '000004.jsonl');
    }
  });

  it('continues in its first file when the next was made and noted, but the first never sealed', () => {
    append('first');
    mkdirSync(segmentFolder(path));
    writeFileSync(segment(2), '');
    symlinkSync('000002.jsonl', join(segmentFolder(path), 'newest'));
    append('second', { mayCreate: true, segmentLimit: 1_000_000 });
    assert.deepEqual(
      walk(segment(1)).records.map(({ name }) => name),
      ['first', 'second'],
    );
    assert.equal(sizeOf(segment(2)), 0);
    append('third', full());
    append('fourth');
    assert.deepEqual(read(), whole(['first', 'second', 'third', 'fourth']));
  });

  it('keeps growing where no file can be made', () => {
    const names = Array.from({ length: 20 }, (_, index) => `name_${index}`);
    writeFileSync(segmentFolder(path), 'in the way');
    for (const name of names) append(name);
    assert.deepEqual(read(), whole(names));
    rmSync(segmentFolder(path));
    append('i');
    append('j');
    assert.deepEqual([read(), segments().length], [whole([...names, 'i', 'j']), 2]);
    // Without the right to create files, what root appends to the record of a server stays in its
    // last segment.
    const size = segments().length;
    for (let count = 0; count < 20; count++) appendCustody(path, { event: 'genesis' }, { segmentLimit: LIMIT });
    assert.equal(segments().length, size);
    assert.deepEqual(read(), whole([...names, 'i', 'j']));
  });

  it('appends an entry again when others write between the check and the seal', () => {
    for (const name of ['a', 'b', 'c']) append(name);
    const { names } = read();
    const limit = full();
    let isSlow = true;
    const writeSync = fs.writeSync as (...args: unknown[]) => number;
    const slow = (...args: unknown[]): number => {
      if (isSlow) {
        isSlow = false;
        append('faster', limit);
        append('in the next');
      }
      return writeSync(...args);
    };
    withCalls({ writeSync: slow as typeof fs.writeSync }, () => append('slow', limit));
    assert.deepEqual(read(), { names: [...names, 'faster', 'in the next', 'slow'], late: ['slow'], faults: [] });
    append('after');
    assert.deepEqual(read().faults, []);
  });

  it('counts entries that arrived before a seal whose writer had not seen them', () => {
    append('first');
    const limit = full();
    const writeSync = fs.writeSync as (...args: unknown[]) => number;
    let writes = 0;
    const slow = (...args: unknown[]): number => {
      writes++;
      // The second write is that of the seal.
      if (writes === 2)
        appendCustody(path, { event: 'deposit', name: 'between' }, { mayCreate: true, segmentLimit: 1e9 });
      return writeSync(...args);
    };
    withCalls({ writeSync: slow as typeof fs.writeSync }, () => append('last', limit));
    append('next');
    const { names, late, faults } = read();
    assert.deepEqual([names.slice(-3), late, faults], [['last', 'between', 'next'], [], []]);
    const text = readFileSync(path, 'latin1');
    writeFileSync(path, text.replace('"between"', '"BETWEEN"'), 'latin1');
    assert.ok(read().faults.includes(`custody-broken ${segments()[1]}`));
  });
});

describe('the way to the next segment', () => {
  /** What a call writes or syncs, in order: `write seal`, `fsync 000002.jsonl`. */
  function trace(work: () => void): string[] {
    const steps: string[] = [];
    const nameOf = (fd: number): string => basename(readlinkSync(`/proc/self/fd/${fd}`));
    const { writeSync, fsyncSync, renameSync: rename } = fs;
    const replace = {
      writeSync: (fd: number, bytes: Buffer): number => {
        const [, event] = /,"event":"(\w+)"/.exec(bytes.toString('latin1')) ?? [];
        steps.push(`write ${event} ${nameOf(fd)}`);
        return writeSync(fd, bytes);
      },
      fsyncSync: (fd: number): void => {
        steps.push(`fsync ${nameOf(fd)}`);
        fsyncSync(fd);
      },
      renameSync: (from: string, to: string): void => {
        steps.push(`rename ${basename(to)}`);
        rename(from, to);
      },
    };
    withCalls(replace as Partial<typeof fs>, work);
    return steps;
  }
  const logs = (): string => basename(dirname(path));
  const [one, two, folder] = ['nph-webjob-custody.server_1.jsonl', '000002.jsonl', 'nph-webjob-custody.server_1.d'];

  it('syncs each step before the next relies on it, and leaves nothing open', () => {
    append('first');
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    const limit = full();
    assert.deepEqual(
      trace(() => append('last', limit)),
      [
        ...[`write deposit ${one}`, `fsync ${one}`],
        ...[`fsync ${logs()}`, `fsync ${folder}`, `fsync ${logs()}`, `fsync ${folder}`],
        ...[`write seal ${one}`, `fsync ${one}`, `fsync ${one}`, `write segment ${two}`, `fsync ${two}`],
        'rename newest',
      ],
    );
    assert.equal(open(), before);
  });

  it('is completed by any writer that finds it begun: the seal is synced first', () => {
    append('first');
    append('last', full());
    writeFileSync(segment(2), '');
    rmSync(join(segmentFolder(path), 'newest'));
    assert.deepEqual(
      trace(() => append('next')),
      [
        ...[`fsync ${one}`, `write segment ${two}`, `fsync ${two}`, `write deposit ${two}`, `fsync ${two}`],
        'rename newest',
      ],
    );
    assert.deepEqual(read(), whole(['first', 'last', 'next']));
  });

  it('is found by a writer that read half of the seal', () => {
    append('first');
    const limit = full();
    const writeSync = fs.writeSync as (fd: number, bytes: Buffer) => number;
    let writes = 0;
    let rest: (() => void) | undefined;
    const slow = (fd: number, bytes: Buffer): number => {
      writes++;
      rest?.();
      rest = undefined;
      // The seal follows the last record.
      if (writes !== 2) return writeSync(fd, bytes);
      const done = writeSync(fd, bytes.subarray(0, 200));
      let left = 0;
      rest = () => {
        left = writeSync(fd, bytes.subarray(200));
      };
      append('saw half', limit);
      return done + left;
    };
    withCalls({ writeSync: slow as typeof fs.writeSync }, () => append('last', limit));
    const found = read();
    assert.deepEqual([found.names, found.late, found.faults], [['first', 'last', 'saw half'], ['saw half'], []]);
  });
});

describe('the reader of segments', () => {
  it('accepts no removal on the word of a server, and reports its record', () => {
    append('kept');
    appendCustody(path, { event: 'prune', names: ['kept'] }, growth);
    const records = new CustodyRecords([dirname(path)]);
    records.refresh();
    assert.ok(records.isExpected('kept'));
    records.close();
    assert.deepEqual(read().faults, ['custody-foreign nph-webjob-custody.server_1.jsonl']);
  });

  it('reports the swapped files of two servers, each complete in itself', () => {
    const other = custodyPath(dirname(path), 'server_2');
    for (const [file, serverId] of [
      [path, 'server_1'],
      [other, 'server_2'],
    ] as const)
      appendCustody(file, { event: 'deposit', name: serverId, serverId }, growth);
    assert.deepEqual(read().faults, []);
    renameSync(path, `${path}.x`);
    renameSync(other, path);
    renameSync(`${path}.x`, other);
    const places = ['server_1', 'server_2'].map((id) => `custody-foreign nph-webjob-custody.${id}.jsonl`);
    assert.deepEqual(read().faults, places);
  });

  it('gives the same for one name, whether the record is searched or walked', () => {
    const sha256 = { out: 'a', err: 'b', env: 'c' };
    const deposit = (name: string, jobId: string): void =>
      appendCustody(
        path,
        { event: 'deposit', time: new Date(), name, jobId, bytes: { out: 1, err: 2, env: 3 }, sha256 },
        growth,
      );
    for (let count = 0; count < 12; count++) deposit(`name_${count % 6}`, `job_${count}`);
    assert.ok(segments().length > 2);
    let round = 0;
    const find = (only?: string[]): (string | undefined)[] => {
      const records = new CustodyRecords([dirname(path)], { only });
      records.refresh();
      // More than fits into a segment.
      for (let count = 0; count < 6; count++) deposit(`more_${count}`, 'more');
      deposit('name_later', `later_${++round}`);
      records.refresh();
      assert.equal(records.find('name_later')?.jobId, `later_${round}`);
      const found = ['name_1', 'name_4', 'none'].map((name) => records.find(name)?.jobId);
      records.close();
      return found;
    };
    const names = ['name_1', 'name_4', 'name_later', 'none'];
    const expected = ['job_7', 'job_10', undefined];
    assert.deepEqual([find(), find(names)], [expected, expected]);
    for (const { file } of listCustodyFiles(dirname(path))) {
      const text = readFileSync(join(dirname(path), file), 'latin1');
      writeFileSync(join(dirname(path), file), text.replace('"jobId":"job_7"', '"jobId":"job_8"'), 'latin1');
    }
    assert.deepEqual([find()[0], find(names)[0]], ['job_1', 'job_1'], 'an edited record says nothing');
  });

  it('treats the two newest segments as the end, even when the first of them is torn', () => {
    fill(4);
    const [older, newest] = [3, 4].map((number) => readFileSync(segment(number), 'latin1'));
    assert.deepEqual(readCustodyEnd(path, 1e6).split('\n').filter(Boolean), `${older}${newest}`.trim().split('\n'));
    appendFileSync(segment(3), '{"covers":[');
    const lines = readCustodyEnd(path, 1e6).split('\n');
    for (const line of newest?.trim().split('\n') ?? []) assert.ok(lines.includes(line), line);
  });

  it('finds uploads in any order in more segments than stay open', () => {
    const base = dirname(path);
    const incomingDirectory = join(base, 'incoming');
    mkdirSync(incomingDirectory);
    const names = Array.from({ length: 80 }, (_, index) => `upload_${index}`);
    const places = { incomingDirectory, logfilesDirectory: base, out: '', err: '', segmentLimit: 1 };
    for (const name of names) plantGroup({ ...places, name, jobId: `job of ${name}` });
    assert.ok(segments().length > 40);
    const evidence = new Evidence({ incomingDirectory, servers: [{ logfilesDirectory: base }] });
    try {
      for (const order of [names, names.toReversed(), names])
        for (const name of order) assert.equal(evidence.records.find(name)?.jobId, `job of ${name}`);
    } finally {
      evidence.close();
    }
  });

  it('skips what root has seen and nobody changed since, until it is asked for', {
    skip: process.getuid?.() !== 0,
  }, () => {
    const base = dirname(path);
    const incomingDirectory = join(base, 'incoming');
    mkdirSync(incomingDirectory);
    const plant = (name: string): void =>
      plantGroup({ incomingDirectory, logfilesDirectory: base, name, out: name, err: '', segmentLimit: 1000 });
    for (let count = 0; count < 9; count++) plant(`old_${count}`);
    const site = { incomingDirectory, servers: [{ logfilesDirectory: base, witnessFolder: join(base, 'config') }] };
    const open = (since?: Date): Evidence => new Evidence(site, { since });
    const all = open();
    all.tellWitness();
    const total = all.records.count;
    all.close();
    const since = new Date(Date.now() + 1);
    while (Date.now() <= since.getTime());
    plant('new');
    const some = open(since);
    assert.ok(some.records.count < 6 && total > 12, `${some.records.count} of ${total} records`);
    assert.deepEqual(
      [...some.records.since(since.getTime())].map(({ name }) => name),
      ['new'],
    );
    assert.deepEqual(some.judge('new', { contents: true }).findings, []);
    assert.ok(some.records.count < 6);
    assert.deepEqual(some.judge('old_0', { contents: true }).findings, []);
    assert.ok(some.records.count > total);
    some.close();
    const early = open(new Date(0));
    assert.equal([...early.records.since(0)].length, 10, 'all of them came since');
    early.close();
    const text = readFileSync(segment(2), 'latin1');
    writeFileSync(segment(2), text.replace('"event":"deposit"', '"event":"DEPOSIT"'), 'latin1');
    const changed = open(since);
    assert.ok(changed.findFaults().some(({ kind }) => kind === 'witness-changed'));
    changed.close();
  });
});

describe('verify --since', { skip: process.getuid?.() !== 0 }, () => {
  /** How often files are opened. */
  function countOpens(work: () => void): number {
    const { openSync } = fs;
    let count = 0;
    fs.openSync = (...args) => {
      count++;
      return openSync(...args);
    };
    syncBuiltinESMExports();
    try {
      work();
    } finally {
      fs.openSync = openSync;
      syncBuiltinESMExports();
    }
    return count;
  }

  it('reads entries that root has seen once, whatever their size, in one turn or in many', () => {
    const logfilesDirectory = dirname(path);
    const incomingDirectory = join(logfilesDirectory, 'incoming');
    mkdirSync(incomingDirectory);
    const plant = (name: string, rest: Partial<Parameters<typeof plantGroup>[0]> = {}): void =>
      plantGroup({ incomingDirectory, logfilesDirectory, name, out: name, err: '', segmentLimit: 5000, ...rest });
    const server = { logfilesDirectory, serverId: 'server_1', witnessFolder: join(logfilesDirectory, 'config') };
    const site = { incomingDirectory, servers: [server], contents: true };
    for (let count = 0; count < 60; count++) plant(`old_${count}`);
    const whole = verifySite({ ...site, done: (evidence) => evidence.tellWitness() });
    assert.deepEqual([...whole], []);
    const since = new Date(Date.now() + 1);
    while (Date.now() <= since.getTime());
    for (const name of ['good', 'changed', 'gone']) plant(name);
    writeFileSync(join(incomingDirectory, 'changed.out'), 'CHANGED');
    for (const extension of ['out', 'err', 'env', 'rdy']) rmSync(join(incomingDirectory, `gone.${extension}`));
    const verify = (turnBytes?: number): { found: string[]; groups: number; opens: number } => {
      const found: string[] = [];
      let groups = 0;
      const opens = countOpens(() => {
        const findings = verifySite({ ...site, since, turnBytes });
        let step = findings.next();
        for (; !step.done; step = findings.next()) found.push(`${step.value.kind} ${step.value.place}`);
        groups = step.value.groups;
      });
      return { found: found.sort(), groups, opens };
    };
    const wrong = ['digest-changed changed.out', 'group-missing gone', 'hash-wrong changed.out'];
    const one = verify();
    assert.deepEqual([one.found, one.groups], [wrong, 2]);
    assert.deepEqual(verify(10_000), one, 'ten times as large, and read once');
    // A pass may keep two uploads in memory, and there are three.
    const many = verify(1000);
    assert.deepEqual([many.found, many.groups], [wrong, 2]);
    assert.ok(many.opens > 3 * one.opens, `${many.opens} files opened, ${one.opens} in one turn`);
    // For an upload without a record, all records are read.
    plant('slipped', { custody: false });
    const more = [...wrong, 'unrecorded slipped'];
    for (const turnBytes of [undefined, 10_000, 1000]) {
      const { found, groups } = verify(turnBytes);
      assert.deepEqual([found, groups], [more, 3], `${turnBytes}`);
    }
  });
});

describe('a writer that is killed', () => {
  class Killed extends Error {}

  it('leaves at any system call between segments a record that the next writer continues', () => {
    fill(2);
    append('x');
    const pristine = join(root, 'pristine');
    cpSync(dirname(path), pristine, { recursive: true, verbatimSymlinks: true });
    for (const wanted of ['first', 'third']) {
      let nth = 1;
      for (; ; nth++) {
        rmSync(dirname(path), { recursive: true });
        cpSync(pristine, dirname(path), { recursive: true, verbatimSymlinks: true });
        if (wanted === 'first') {
          rmSync(segmentFolder(path), { recursive: true });
          truncateSync(path, readFileSync(path, 'latin1').lastIndexOf('\n', readFileSync(path).length - 2) + 1);
        }
        const { names } = read();
        const limit = full();
        const isReached = failAt(
          nth,
          () => new Killed(),
          () => {
            try {
              append('killed', limit);
            } catch (error) {
              assert.ok(error instanceof Killed);
            }
          },
        );
        const { faults } = read();
        assert.deepEqual(faults, [], `${wanted}, killed at call ${nth}`);
        append('next');
        append('after');
        const found = read();
        assert.deepEqual(found.faults, [], `${wanted}, killed at call ${nth}, and others went on`);
        assert.deepEqual(
          found.names.filter((name) => name !== 'killed'),
          [...names, 'next', 'after'],
          `${wanted}, call ${nth}`,
        );
        if (!isReached) break;
      }
      assert.ok(nth > 12, `${nth} calls`);
    }
    rmSync(pristine, { recursive: true });
  });

  it('leaves in the middle of a write a torn line that the next one covers', () => {
    const writeSync = fs.writeSync as (...args: unknown[]) => number;
    for (const wanted of [1, 2, 3]) {
      rmSync(dirname(path), { recursive: true });
      mkdirSync(dirname(path));
      append('first');
      const limit = full();
      let writes = 0;
      const torn = (fd: number, bytes: Buffer): number => {
        writes++;
        return writes === wanted ? writeSync(fd, bytes.subarray(0, 40)) : writeSync(fd, bytes);
      };
      withCalls({ writeSync: torn as typeof fs.writeSync }, () => {
        try {
          append('cut', limit);
        } catch (error) {
          assert.match(String(error), /truncated/);
        }
      });
      assert.equal(writes >= wanted, true);
      const { names } = read();
      assert.equal(names.includes('cut'), wanted > 1);
      append('next');
      append('after');
      assert.deepEqual([read().names, read().faults], [[...names, 'next', 'after'], []], `write ${wanted}`);
    }
  });
});

describe('a full disk', () => {
  it('fails the upload or keeps its entry at any call, and the next writer continues', () => {
    const noSpace = (): Error => Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', syscall: 'write', errno: -28 });
    for (let nth = 1; ; nth++) {
      rmSync(dirname(path), { recursive: true });
      mkdirSync(dirname(path));
      append('first');
      const limit = full();
      let isKept = true;
      const openFiles = readdirSync('/proc/self/fd').length;
      const isReached = failAt(nth, noSpace, () => {
        try {
          append('on a full disk', limit);
        } catch (error) {
          assert.match(String(error), /ENOSPC/);
          isKept = false;
        }
      });
      const { names, faults } = read();
      assert.deepEqual(faults, [], `call ${nth}`);
      if (isKept) assert.ok(names.includes('on a full disk'), `call ${nth}`);
      assert.equal(readdirSync('/proc/self/fd').length, openFiles, `descriptors after call ${nth}`);
      append('next');
      append('after');
      assert.deepEqual([read().names, read().faults], [[...names, 'next', 'after'], []], `call ${nth}`);
      if (!isReached) break;
    }
  });
});

describe('a change to segments', () => {
  const changes: [string, (files: string[]) => void, RegExp][] = [
    ['a bit of the first', ([a = '']) => flip(a, 100), /^custody-\w+ \S+server_1\.jsonl$/],
    ['the seal taken away', ([a = '']) => dropLast(a), /^custody-broken \S+000002\.jsonl$/],
    ['the first record of the next taken away', ([, b = '']) => dropFirst(b), /^custody-broken \S+000002\.jsonl$/],
    ['the offsets in the first record of the next', ([, b = '']) => turn(b), /^custody-broken \S+000002\.jsonl$/],
    ['a segment in the middle', ([, b = '']) => rmSync(b), /^custody-missing \S+000002\.jsonl$/],
    ['the first', ([a = '']) => rmSync(a), /^custody-missing \S+server_1\.jsonl$/],
    ['the last', ([, , , d = '']) => rmSync(d), /^custody-missing \S+000004\.jsonl$/],
    ['two for each other', ([, b = '', c = '']) => swap(b, c), /^custody-broken \S+000003\.jsonl$/],
    ['one for a copy of another', ([, b = '', c = '']) => copyFileSync(b, c), /^custody-broken \S+000003\.jsonl$/],
    ['a byte behind a seal', ([, b = '']) => appendFileSync(b, 'x'), /^custody-torn \S+000002\.jsonl$/],
    ['a line behind a seal', ([, b = '']) => appendFileSync(b, 'x\n'), /^custody-torn \S+000002\.jsonl$/],
    ['an empty line behind a seal', ([, b = '']) => appendFileSync(b, '\n'), /^custody-torn \S+000002\.jsonl$/],
    ['a copy of a record behind a seal', ([, b = '']) => repeat(b), /^custody-broken \S+000002\.jsonl$/],
  ];
  const dropLast = (file: string): void =>
    writeFileSync(file, readFileSync(file, 'latin1').replace(/[^\n]*\n$/, ''), 'latin1');
  const dropFirst = (file: string): void =>
    writeFileSync(file, readFileSync(file, 'latin1').replace(/^[^\n]*\n/, ''), 'latin1');
  const repeat = (file: string): void =>
    appendFileSync(file, `${readFileSync(file, 'latin1').split('\n')[2]}\n`, 'latin1');
  const turn = (file: string): void => {
    const text = readFileSync(file, 'latin1');
    writeFileSync(file, text.replace(/("follows":[^[]+\[)(\d+),(\d+)/, '$1$3,$2'), 'latin1');
  };
  const flip = (file: string, at: number): void => {
    const bytes = readFileSync(file);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(file, bytes);
  };
  const swap = (one: string, other: string): void => {
    renameSync(one, `${one}.x`);
    renameSync(other, one);
    renameSync(`${one}.x`, other);
  };
  for (const [what, change, expected] of changes) {
    it(`is found: ${what}`, () => {
      fill(4);
      change([1, 2, 3, 4].map(segment));
      const { faults } = read();
      assert.ok(
        faults.some((fault) => expected.test(fault)),
        faults.join(),
      );
    });
  }

  it("is found when two servers' records are swapped, file by file and with their directories", () => {
    fill(3);
    const other = custodyPath(dirname(path), 'server_2');
    for (let count = 0; count < 20; count++) appendCustody(other, { event: 'deposit', name: `other_${count}` }, growth);
    assert.deepEqual(read().faults, []);
    swap(path, other);
    assert.ok(read().faults.length > 0);
    swap(segmentFolder(path), segmentFolder(other));
    const { faults } = read();
    for (const server of ['server_1', 'server_2'])
      assert.ok(faults.includes(`custody-broken nph-webjob-custody.${server}.d/000002.jsonl`));
  });
});

describe('many concurrent writers', () => {
  const children: { kill(): void }[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill();
  });

  it('keep what they reported as on disk before a seal when some of them are killed', async () => {
    const told = await Promise.all(
      Array.from({ length: 8 }, async (_, writer) => {
        const args = [WRITER, path, String(writer), '60', '9000'];
        const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
        children.push({ kill: () => child.kill('SIGKILL') });
        let said = '';
        child.stdout.on('data', (chunk) => {
          said += chunk;
        });
        const closed = once(child, 'close');
        if (writer >= 5) {
          await Promise.race([once(child.stdout, 'data'), closed]);
          await sleep((writer * 7919) % 200);
          child.kill('SIGKILL');
        }
        const [code] = await closed;
        if (writer < 5) assert.equal(code, 0);
        return said.split('\n').slice(0, -1);
      }),
    );
    append('last', { mayCreate: true, segmentLimit: 9000 });
    const { names, late, faults } = read();
    assert.deepEqual(faults, []);
    const missing = [...told.flat(), 'last'].filter((name) => !names.includes(name));
    assert.deepEqual(missing, []);
    for (let writer = 0; writer < 5; writer++) {
      const own = [...new Set(names.filter((name) => name.startsWith(`${writer}_`)))];
      assert.equal(own.length, 60);
    }
    assert.ok(segments().length > 10, `${segments().length}, ${late.length} late`);
    const left = readdirSync(segmentFolder(path)).filter((name) => !/^(?:\d{6}\.jsonl|newest(?:\.\d+)?)$/.test(name));
    assert.deepEqual(left, [], basename(path));
  });
});
