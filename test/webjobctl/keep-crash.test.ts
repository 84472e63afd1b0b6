// prune, pack and unpack, killed by SIGKILL: at random moments, and with strace at one system call
// after the other. After each kill nothing is lost that had to stay; run again, they end as if they
// had not been killed.
import assert from 'node:assert/strict';
import { cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  filesOf,
  groupNames,
  makeOldLocker,
  makeScratch,
  type OldLocker,
  readCustody,
  readTimes,
  runKilled,
  unpackByTar,
} from '../support/keep-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { many, part } from '../support/thorough.ts';
import { readFiles } from '../support/tree.ts';

const PAST = [
  { days: 40 },
  { days: 41 },
  { days: 41, clientId: 'client2' },
  { days: 1 },
  { days: 42, clientId: 'held' },
];
const CALLS = '?fsync,?rename,?renameat,?renameat2,?unlink,?unlinkat,?link,?linkat';

/**
 * Each run is killed at the nth call of its kind; the next run continues from there and makes
 * others.
 */
const CALL_ORDERS = [
  [2, 5, 3, 8],
  [3, 2, 7, 4],
  [4, 9, 6, 12],
  [1, 13, 5, 2],
];

interface Kill {
  milliseconds?: number;
  wrapper?: readonly string[];
}

interface Trial {
  args: string[];
  /** What must be true after every kill. */
  check(locker: OldLocker, was: Map<string, string>): void;
  /** What must be true at the end. */
  checkEnd(locker: OldLocker, was: Map<string, string>): void;
}

const old = ({ names }: OldLocker): string[] => names.slice(0, 3);
const kept = ({ names }: OldLocker): string[] => names.slice(3);

/** How often each command is killed at random moments. */
const RUNS = Number(process.env.WEBJOB_TEST_RUNS ?? 1);

/** Moments spread over the life of a process, after the start of Node. */
function randomMoments(longest: number): Kill[] {
  return Array.from({ length: 4 }, () => ({ milliseconds: longest * (0.3 + 0.7 * Math.random()) }));
}

function withoutLock(files: ReadonlyMap<string, string>, name: string): Record<string, string> {
  return Object.fromEntries(Object.entries(filesOf(files, name)).filter(([path]) => !path.endsWith('.lck')));
}

function assertStays(locker: OldLocker, was: Map<string, string>): void {
  const now = readFiles(locker.site.incoming);
  for (const name of kept(locker)) assert.deepEqual(filesOf(now, name), filesOf(was, name), `${name} had to stay`);
}

/**
 * Of the files that were removed; the lock of a killed run stays until its age tells the next
 * writer.
 */
function assertNothingElse(locker: OldLocker): void {
  const rest = [...readFiles(locker.site.incoming).keys()].filter(
    (path) => !path.endsWith('.lck') && !kept(locker).some((name) => path.startsWith(`${name}.`)),
  );
  assert.deepEqual(rest, [], 'nothing else is left');
}

const prune: Trial = {
  args: ['prune', '--older-than', '30d', '--yes'],
  check(locker, was) {
    assertStays(locker, was);
    const now = readFiles(locker.site.incoming);
    const recorded = readCustody(locker.site).flatMap(({ groups }) => groups ?? []);
    for (const name of old(locker)) {
      if (Object.keys(withoutLock(now, name)).length === 4) continue;
      assert.ok(
        recorded.some((group) => group.name === name),
        `${name} is gone and not on record`,
      );
      assert.ok(!now.has(`${name}.rdy`), `${name} is announced and not whole`);
    }
  },
  checkEnd(locker, was) {
    assertStays(locker, was);
    assertNothingElse(locker);
  },
};

const pack: Trial = {
  args: ['pack', '--older-than', '30d'],
  check(locker, was) {
    assertStays(locker, was);
    const now = readFiles(locker.site.incoming);
    const missing = old(locker).filter((name) => {
      const there = Object.entries(withoutLock(now, name));
      assert.ok(there.every(([path, text]) => text === was.get(path)));
      return there.length < 4;
    });
    const unpacked = missing.length > 0 ? unpackByTar(locker.site) : new Map<string, string>();
    for (const name of missing) assert.deepEqual(filesOf(unpacked, name), filesOf(was, name), `${name} is lost`);
  },
  checkEnd(locker, was) {
    assertStays(locker, was);
    assertNothingElse(locker);
    const unpacked = unpackByTar(locker.site);
    for (const name of old(locker)) assert.deepEqual(filesOf(unpacked, name), filesOf(was, name));
    const files = readdirSync(join(locker.site.base, 'packed'));
    const packs = files.flatMap((file) => /^(.+)\.jsonl$/.exec(file)?.[1] ?? []);
    assert.equal(files.length, 2 * packs.length, `no rest is left: ${files}`);
    const recorded = readCustody(locker.site).flatMap(({ event, pack: name }) => (event === 'pack' ? name : []));
    for (const name of packs) assert.ok(recorded.includes(name), `${name} is not on record`);
  },
};

describe('webjobctl killed by SIGKILL', () => {
  let locker: OldLocker;
  let was: Map<string, string>;
  before(async () => {
    locker = await makeOldLocker(PAST);
    await locker.webjobctl('hold', 'add', '--client', 'held', '--reason', 'case 4711');
    was = readFiles(locker.site.incoming);
    cpSync(locker.site.base, `${locker.site.base}.was`, { recursive: true, preserveTimestamps: true });
  });
  after(() => locker.close());

  /** Kills, checks and runs again until the command finishes; returns how often it was killed. */
  async function runTrial(trial: Trial, kills: Iterable<Kill>): Promise<number> {
    rmSync(locker.site.base, { recursive: true });
    cpSync(`${locker.site.base}.was`, locker.site.base, { recursive: true, preserveTimestamps: true });
    let count = 0;
    for (const { milliseconds, wrapper } of kills) {
      if (!(await runKilled(locker.site, trial.args, milliseconds, wrapper))) break;
      trial.check(locker, was);
      count++;
    }
    const { exitCode, stderr } = await locker.webjobctl(...trial.args);
    assert.equal(exitCode, 0, stderr);
    trial.checkEnd(locker, was);
    return count;
  }

  for (const [name, trial] of Object.entries({ prune, pack })) {
    it(`loses nothing in ${name} at random moments, and can be run again`, async () => {
      const started = performance.now();
      await runTrial(trial, []);
      const life = performance.now() - started;
      for (let round = 0; round < RUNS; round++) await runTrial(trial, randomMoments(life));
    });

    it(`loses nothing in ${name} at one call after the other, and can be run again`, { skip: NO_STRACE }, async () => {
      const trace = join(makeScratch(locker.site), 'trace');
      let count = 0;
      for (const order of part(CALL_ORDERS, 2)) {
        const kills = order.map((when) => ({ wrapper: inject(trace, `${CALLS}:signal=SIGKILL:when=${when}`, []) }));
        count += await runTrial(trial, kills);
      }
      assert.ok(count >= many(5, 3), `killed ${count} times only`);
    });
  }
});

describe('webjobctl unpack that is killed', () => {
  it('leaves every upload in the archive, and completes on the next run', { skip: NO_STRACE }, async () => {
    const locker = await makeOldLocker([{ days: 40 }, { days: 40 }]);
    try {
      const was = readFiles(locker.site.incoming);
      const times = readTimes(locker.site);
      const [{ pack: day } = { pack: '' }] = await locker.readJson<{ pack: string }>('pack', '--older-than', '30d');
      for (const step of [2, 3, 5, 8]) {
        const fault = `${CALLS}:signal=SIGKILL:when=${step}`;
        const wrapper = inject(join(makeScratch(locker.site), 'trace'), fault, []);
        await runKilled(locker.site, ['unpack', day], undefined, wrapper);
        const now = readFiles(locker.site.incoming);
        for (const name of groupNames(locker.site)) assert.deepEqual(withoutLock(now, name), filesOf(was, name));
        assert.equal(unpackByTar(locker.site).size, 8, 'the pack stays until all is back');
      }
      const { exitCode, stderr } = await locker.webjobctl('unpack', day);
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(readFiles(locker.site.incoming), was);
      assert.deepEqual(readTimes(locker.site), times);
      assert.ok(!existsSync(join(locker.site.base, 'packed', `${day}.tar.gz`)));
    } finally {
      locker.close();
    }
  });
});
