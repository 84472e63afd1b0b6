// kill -9 at any moment: at many random moments of real uploads, then at every system call. In
// whatever state that leaves the locker, there is never a .rdy beside incomplete streams, a 200 was
// only sent for a complete upload, and the locker continues to work.
import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it, type TestContext } from 'node:test';
import {
  formatReady,
  groupPaths,
  numberedBase,
  STREAMS,
  type StreamName,
  successorPath,
} from '../../cgi/locker/index.ts';
import { configure, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { inParallel, type KillMoment, type Life, randomNumbers, uploadInPieces } from '../support/locker-kills.ts';
import { inject, NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import {
  age,
  bareOptions,
  baseOf,
  digest,
  holds,
  isAnnounced,
  isWhole,
  judgeGroup,
  makeLockerSite,
  makeScratch,
  makeUpload,
  type Progress,
  rawPut,
  statusOf,
  type Upload,
} from '../support/locker-upload.ts';
import { askWorker } from '../support/locker-worker.ts';
import { many, part } from '../support/thorough.ts';
import { readLog } from '../support/tree.ts';

/** More for a long run, which also kills replacements at every single call. */
const KILLS = Number(process.env.WEBJOB_TEST_KILLS ?? 24);
const IS_LONG = KILLS > 24;
/** The most lives; one that is killed after its end does not count. */
const LIVES = 2 * KILLS;
const WIDTH = 4;
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);

const NAMING = { PutNameFormat: '%cid_%cmd' };
const REPLACING = { ...NAMING, OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' };

const KEEPING = { ...NAMING, OverwriteExistingFiles: 'Y' };

/** Requests after a kill need no process that can be killed. */
async function put(site: Site, upload: Upload): Promise<number | undefined> {
  return (await askWorker(rawPut(upload), site.propertiesFile)).status;
}

/**
 * The name of a killed upload: refused while its lock is fresh, usable after an hour; streams that
 * arrived stay until they are replaced.
 */
async function assertNameRecovers(site: Site, name: string): Promise<void> {
  const base = baseOf(site, name);
  const paths = groupPaths(base);
  const upload = makeUpload(name, { out: 3000, err: 200, env: 100 });
  if (existsSync(paths.lck)) {
    assert.equal(await put(site, upload), 451, `${name}: the lock is fresh`);
    age([paths.lck, ...STREAMS.flatMap((stream) => [paths[stream], successorPath(paths[stream])])]);
  }
  const isTaken = [...STREAMS.map((stream) => paths[stream]), paths.rdy].some((path) => existsSync(path));
  if (isTaken) assert.equal(await put(site, upload), 451, `${name}: evidence is not replaced`);
  if (isTaken) configure(site, REPLACING);
  assert.equal(await put(site, upload), 200, name);
  configure(site, NAMING);
  assert.ok(isWhole(base, upload), name);
}

describe(`a server that is killed at ${KILLS} random moments (seed ${SEED})`, () => {
  let site: Site;
  before(() => {
    site = makeLockerSite();
  });
  after(() => site.remove());

  it('leaves no .rdy beside incomplete streams, and has answered no 200 for such uploads', async (t) => {
    const random = randomNumbers(SEED);
    const usual = await measure(site);
    const counts: Partial<Record<Progress | 'answered', number>> = {};
    const examples = new Map<Progress, string>();
    let kills = 0;
    await inParallel(
      Array.from({ length: LIVES }, (_, index) => index),
      WIDTH,
      async (index) => {
        // Decided before anything is awaited, because the seed determines the life.
        const { upload, pieces, pauseMilliseconds, moment } = drawLife(index, random, usual);
        if (kills >= KILLS) return;
        const life = await uploadInPieces(site, upload, { pieces, pauseMilliseconds }, moment);
        const progress = judgeGroup(baseOf(site, upload.name), upload);
        assertHonest(life, progress, upload.name);
        if (!life.killed) return;
        kills += 1;
        const reached = life.status === 200 ? 'answered' : progress;
        counts[reached] = (counts[reached] ?? 0) + 1;
        examples.set(progress, upload.name);
      },
    );
    report(t, kills, counts);
    assertLogHonest(site);
    assertRecorded(site);
    for (const [progress, name] of examples) if (progress !== 'complete') await assertNameRecovers(site, name);
    const next = makeUpload('next', { out: 100_000, err: 1000, env: 400 });
    assert.equal(await put(site, next), 200);
    assert.ok(isWhole(baseOf(site, 'next'), next));
  });
});

interface Usual {
  /** The duration in milliseconds of lives that were not killed. */
  start: number;
  tail: number;
}

/** The duration of the start and end of a life on this machine, with as many processes as later. */
async function measure(site: Site): Promise<Usual> {
  const lives: Life[] = [];
  await inParallel([0, 1, 2, 3, 4, 5, 6, 7], WIDTH, async (index) => {
    const upload = makeUpload(`alive${index}`, { out: 1_000_000, err: 50_000, env: 500 });
    const life = await uploadInPieces(site, upload, { pieces: 5, pauseMilliseconds: 1 }, undefined);
    assertHonest(life, judgeGroup(baseOf(site, upload.name), upload), upload.name);
    lives.push(life);
  });
  const middle = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  return { start: middle(lives.map((life) => life.start)), tail: middle(lives.map((life) => life.tail)) };
}

/**
 * Bodies grow from about 1 kB to 2 MB; a quarter of the kills happen at any time, the others after
 * a certain piece, often the last.
 */
function drawLife(index: number, random: () => number, usual: Usual) {
  const total = Math.round(1000 * 2000 ** Math.min(1, index / KILLS));
  const [a, b] = [random(), random()].sort((x, y) => x - y) as [number, number];
  const cuts = [0, Math.round(a * total), Math.round(b * total), total] as const;
  const sizes = { out: cuts[1], err: cuts[2] - cuts[1], env: cuts[3] - cuts[2] };
  const pieces = 2 + Math.floor(random() * 8);
  const kind = random();
  const where = random();
  const when = random();
  const moment: KillMoment =
    kind < 0.25
      ? { afterPiece: 0, milliseconds: when * usual.start * 1.2 }
      : kind < 0.55
        ? { afterPiece: 1 + Math.floor(where * (pieces - 1)), milliseconds: when * 5 }
        : { afterPiece: pieces, milliseconds: when * usual.tail };
  return { upload: makeUpload(`kill${index}`, sizes), pieces, pauseMilliseconds: random() * 4, moment };
}

function assertHonest({ status, killed, stderr }: Life, progress: Progress, name: string): void {
  assert.notEqual(progress, 'broken', `${name}: .rdy beside streams that are not what was sent`);
  assert.ok(status === undefined || status === 200, `${name}: ${status} ${stderr}`);
  if (status === 200) assert.equal(progress, 'complete', `${name}: 200 for a group that is not complete`);
  if (!killed) assert.equal(status, 200, `${name}: ${stderr}`);
}

/** Only successes are logged, and each of them is complete: its .rdy was checked above. */
function assertLogHonest(site: Site): void {
  for (const line of readLog(site.base)) {
    const name = / PUT client1 (\S+) .* 200 -- Success$/.exec(line)?.[1];
    assert.ok(name, line);
    assert.ok(existsSync(`${baseOf(site, name)}.rdy`), line);
  }
}

/**
 * Whatever was announced is in the custody record, and the kills left nothing in it that the next
 * record does not cover.
 */
function assertRecorded(site: Site): void {
  const digests = new Map(readRecords(custodyOf(site)).map(({ name, sha256 }) => [name, sha256]));
  const announced = readdirSync(site.incoming).filter((name) => name.endsWith('.rdy'));
  for (const name of announced.map((file) => file.slice(0, -4))) {
    const streams = STREAMS.map((stream) => [stream, digest(readFileSync(join(site.incoming, `${name}.${stream}`)))]);
    assert.deepEqual(digests.get(name), Object.fromEntries(streams), name);
  }
}

function report(t: TestContext, kills: number, counts: Partial<Record<Progress | 'answered', number>>): void {
  const { nothing = 0, complete = 0, answered = 0, ...during } = counts;
  const inside = Object.values(during).reduce((sum, count) => sum + count, 0);
  t.diagnostic(
    `${kills} killed: ${nothing} before, ${inside} during, ${complete + answered} after the group was complete`,
  );
  t.diagnostic(JSON.stringify(counts));
  assert.ok(kills >= KILLS, `only ${kills} kills in ${LIVES} lives`);
  for (const [phase, count] of Object.entries({ before: nothing, during: inside, after: complete + answered })) {
    assert.ok(count > 0, `no kill hit the phase ${phase}`);
  }
}

describe('a server that is killed at any system call', { skip: NO_STRACE }, () => {
  let site: Site;
  beforeEach(() => {
    site = makeLockerSite();
  });
  afterEach(() => site.remove());

  it('announces an upload exactly from the rename on', async (t) => {
    const points = await findPoints(site, 'plain', false);
    const announcing = points.findIndex((point) => point.call.startsWith('rename'));
    t.diagnostic(`${points.length} system calls`);
    assert.ok(points.length >= 25 && announcing > 15, `${points.length} ${announcing}`);
    const tried = pickPoints(points, announcing);
    await inParallel(tried, WIDTH, async ([index, point]) => {
      const upload = makeUpload(`point${index}`, EXACT_SIZES);
      const status = await putKilled(site, upload, point);
      const progress = judgeGroup(baseOf(site, upload.name), upload);
      assert.equal(status, undefined, `${point.call}: answered`);
      assert.equal(progress === 'complete', index > announcing, `${point.call} ${point.nth}: ${progress}`);
      assert.notEqual(progress, 'broken', point.call);
      const next = makeUpload(`next${index}`, EXACT_SIZES);
      assert.equal(await put(site, next), 200, `after ${point.call} ${point.nth}`);
    });
    assertRecorded(site);
    for (const [index] of part(tried, 6)) await assertNameRecovers(site, `point${index}`);
  });

  it('announces the complete old or new upload of a replacement, and loses no new stream', async (t) => {
    configure(site, REPLACING);
    const points = await findPoints(site, 'again', true);
    const withdrawing = points.findIndex((point) => point.call.startsWith('unlink'));
    const announcing = points.findLastIndex((point) => point.call.startsWith('rename'));
    t.diagnostic(`${points.length} system calls`);
    assert.ok(withdrawing > 15 && announcing > withdrawing, `${points.length} ${withdrawing} ${announcing}`);
    await inParallel(pickPoints(points, withdrawing, announcing), WIDTH, async ([index, point]) => {
      const base = baseOf(site, `point${index}`);
      const old = makeUpload(`point${index}`, { out: 3000, err: 0, env: 10 });
      plant(base, old);
      const upload = { ...makeUpload(`point${index}`, EXACT_SIZES), jobId: 'server_1_1085355127_00724' };
      assert.equal(await putKilled(site, upload, point), undefined, `${point.call}: answered`);
      const where = `${point.call} ${point.nth}`;
      assert.equal(isAnnounced(base, old), index <= withdrawing, where);
      assert.equal(isWhole(base, upload), index > announcing, where);
      assert.equal(existsSync(`${base}.rdy`), index <= withdrawing || index > announcing, where);
      if (index > withdrawing) for (const stream of STREAMS) assert.ok(standsSomewhere(base, stream, upload), where);
      age([`${base}.lck`, ...STREAMS.flatMap((stream) => [`${base}.${stream}`, successorPath(`${base}.${stream}`)])]);
      assert.equal(await put(site, upload), 200, `after ${where}`);
      assert.ok(isWhole(base, upload), where);
    });
  });

  it('never changes the first of two differing uploads, and a retry leaves the second once', async (t) => {
    configure(site, KEEPING);
    const points = await findPoints(site, 'beside', true);
    const announcing = points.findLastIndex((point) => point.call.startsWith('rename'));
    t.diagnostic(`${points.length} system calls`);
    assert.ok(announcing > 15, `${points.length} ${announcing}`);
    await inParallel(pickPoints(points, announcing), WIDTH, async ([index, point]) => {
      const base = baseOf(site, `point${index}`);
      const second = numberedBase(base, 2);
      const old = makeUpload(`point${index}`, { out: 3000, err: 0, env: 10 });
      plant(base, old);
      const upload = { ...makeUpload(`point${index}`, EXACT_SIZES), jobId: 'server_1_1085355127_00724' };
      assert.equal(await putKilled(site, upload, point), undefined, `${point.call}: answered`);
      const where = `${point.call} ${point.nth}`;
      assert.ok(isAnnounced(base, old), where);
      assert.equal(isAnnounced(second, upload), index > announcing, where);
      assert.equal(existsSync(`${second}.rdy`), index > announcing, where);
      age([base, second].flatMap((place) => [`${place}.lck`, ...STREAMS.map((stream) => `${place}.${stream}`)]));
      assert.equal(await put(site, upload), 200, `after ${where}`);
      assert.ok(isWhole(base, old) && isWhole(second, upload), where);
      assert.ok(!existsSync(`${numberedBase(base, 3)}.out`), where);
    });
    for (const { name } of readRecords(custodyOf(site))) assert.match(String(name), /~2$/);
  });
});

/** Small enough that a stream arrives in one piece: every upload makes the same calls. */
const EXACT_SIZES = { out: 20_000, err: 3000, env: 400 };

/** A system call of an upload: the nth of its kind on one of the upload's paths. */
interface Point {
  call: string;
  nth: number;
}

/**
 * Every file that an upload touches, and its answer, which goes to a file so that strace can
 * distinguish it from other writes.
 */
function touchedBy(site: Site, name: string): string[] {
  const base = baseOf(site, name);
  const { out, err, env, lck, rdy } = groupPaths(base);
  const successors = [out, err, env].map(successorPath);
  const numbered = Object.values(groupPaths(numberedBase(base, 2)));
  const logs = [custodyOf(site), site.logFile, answerOf(site, name)];
  return [site.incoming, out, err, env, lck, rdy, ...successors, ...numbered, ...logs];
}

function answerOf(site: Site, name: string): string {
  return join(makeScratch(site, 'scratch'), `${name}.answer`);
}

/** Runs an upload under strace; resolves with the status of its answer. */
async function putTraced(site: Site, upload: Upload, wrapper: readonly string[]): Promise<number | undefined> {
  const answer = answerOf(site, upload.name);
  const stdout = openSync(answer, 'w');
  try {
    await runBare(rawPut(upload), bareOptions(site, { wrapper, stdout, timeLimitSeconds: 60 }));
  } finally {
    closeSync(stdout);
  }
  return statusOf(readFileSync(answer));
}

/**
 * The first call of each kind, those around locks, and every few of the others, beginning with
 * another one in every run.
 */
function pickPoints(points: readonly Point[], ...turns: number[]): [number, Point][] {
  const step = many(3, 6);
  const from = Math.floor(Math.random() * step);
  return [...points.entries()].filter(
    ([index, { nth }]) =>
      IS_LONG || nth === 1 || index % step === from || turns.some((turn) => Math.abs(index - turn) <= 1),
  );
}

/** The system calls of an upload that is not killed, in order. */
async function findPoints(site: Site, name: string, replaces: boolean): Promise<Point[]> {
  const trace = join(makeScratch(site, 'scratch'), 'points.trace');
  const base = baseOf(site, name);
  if (replaces) plant(base, makeUpload(name, { out: 3000, err: 0, env: 10 }));
  // Another job than the existing one, which would be compared.
  const upload = { ...makeUpload(name, EXACT_SIZES), jobId: 'server_1_1085355127_00724' };
  assert.equal(await putTraced(site, upload, traceTo(trace, touchedBy(site, name))), 200);
  assert.ok([base, numberedBase(base, 2)].some((place) => isWhole(place, upload)));
  const seen = new Map<string, number>();
  return readTrace(trace).map(({ name: call }) => {
    const nth = (seen.get(call) ?? 0) + 1;
    seen.set(call, nth);
    return { call, nth };
  });
}

/** Kills an upload as it enters a system call, which is then not made. */
async function putKilled(site: Site, upload: Upload, { call, nth }: Point): Promise<number | undefined> {
  const trace = join(makeScratch(site, 'scratch'), `${upload.name}.trace`);
  const wrapper = inject(trace, `${call}:signal=SIGKILL:when=${nth}`, touchedBy(site, upload.name));
  const status = await putTraced(site, upload, wrapper);
  assert.match(readFileSync(trace, 'latin1'), /killed by SIGKILL/, `${call} ${nth} was not met`);
  return status;
}

/** Writes a complete upload there. */
function plant(base: string, { streams, jobId }: Upload): void {
  for (const stream of STREAMS) writeFileSync(`${base}.${stream}`, streams[stream]);
  writeFileSync(`${base}.rdy`, formatReady(jobId));
}

function standsSomewhere(base: string, stream: StreamName, { streams }: Upload): boolean {
  const path = groupPaths(base)[stream];
  return [path, successorPath(path)].some((candidate) => holds(candidate, streams[stream]));
}
