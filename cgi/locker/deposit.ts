// Stores one upload in the locker. The process may be killed between any two lines, and the disk
// may fill up at any of them: there is never a `.rdy` beside streams that are not complete and on
// disk (docs/protocol.md, section 5).
import { closeSync, fstatSync, futimesSync, lstatSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { appendCustody } from './custody.ts';
import { makeFolder, openFolder, openNew, writeAll } from './durable.ts';
import { failureOf, LockerFailure } from './failure.ts';
import {
  formatReady,
  type GroupPaths,
  groupPaths,
  MAX_NUMBER,
  numberedBase,
  STREAMS,
  type StreamName,
  successorPath,
} from './layout.ts';
import { isHeld, type Lock, releaseLock, takeLock } from './lock.ts';
import { compareUpload, isOfJob } from './repeat.ts';
import { drive, type OpenFolder, type Step, type Steps, syncAlone, syncStep } from './steps.ts';

/** The upload to store, and its place. */
export interface DepositPlan {
  /** The absolute path of the upload without an extension. Missing directories are created. */
  base: string;
  jobId: string;
  /** The size of each stream in bytes. */
  lengths: Readonly<Record<StreamName, number>>;
  /** Whether a name that is in use may be taken; if not, the upload fails with `exists`. */
  overwrite: boolean;
  /**
   * With `overwrite`: whether an existing complete upload is kept and the new one numbered, instead
   * of replacing it.
   */
  keepDiffering?: boolean;
  /**
   * Returns a function when some of these announced uploads of the same job are known to have
   * arrived with other bytes than they have now. That function is called when every byte of this
   * upload has arrived, and returns the base of the upload that arrived with the same bytes.
   */
  findChanged?: ((bases: readonly string[]) => FindRepeated | undefined) | undefined;
  /**
   * Called, possibly twice, before anything is created for an upload that is not known to be stored
   * already. Its errors are passed on.
   */
  beforeStoring?: (() => void) | undefined;
}

/** Returns the base of the upload that arrived with the same bytes. */
type FindRepeated = () => string | undefined;

/** Where an upload is stored. */
export interface StoredUpload {
  paths: GroupPaths;
  /**
   * Whether the same bytes were already announced under the same job id: this is a retry, and
   * nothing was stored.
   */
  isRepeat: boolean;
}

/**
 * Runs on the complete files before they are announced. `differsFrom` is the base of the first
 * upload of that name, when this one is numbered.
 */
type BeforeReady = (paths: GroupPaths, differsFrom: string | undefined) => Steps<void>;

/** Runs when a complete upload is about to be replaced by one whose streams are on disk. */
type BeforeReplacing = (paths: GroupPaths) => Steps<void>;

/**
 * The source of the bytes: fills the beginning of `buffer` and returns how many bytes it put there;
 * 0 is the end, early or not.
 */
export interface ByteSource {
  read(buffer: Uint8Array): number;
}

interface Deposit {
  plan: DepositPlan;
  paths: GroupPaths;
  /**
   * The directory of the upload, opened before anything is created in it, so that none of its write
   * errors is lost.
   */
  folder: OpenFolder & { path: string };
  lock: Lock;
  /**
   * Whether an upload of that name exists: the new streams are written beside it until they are
   * complete.
   */
  replaces: boolean;
  /**
   * Streams to remove when the disk is full: those created so far, until the upload that they
   * replace has been given up.
   */
  created: string[];
  findRepeated?: FindRepeated | undefined;
}

/**
 * Bytes that must stay free on the file system for the web server, its logs and the small files of
 * an upload.
 */
const RESERVE_BYTES = 1024 * 1024;
const RESERVE_INODES = 8;
const CHUNK_BYTES = 256 * 1024;
/** The maximum number of announced uploads of one name that a new one is compared with. */
const MAX_COMPARED = 8;

/**
 * Stores one upload: takes the name, receives the three streams, puts them on disk, and announces
 * them with `.rdy`. When it returns, everything is on disk. Announced uploads of that name with the
 * same job id are compared with it byte by byte (of many, the first and the newest ones), and the
 * same bytes are not stored again. An error of a callback ends the upload and is passed on. Throws
 * LockerFailure:
 * - `exists`: nothing was changed;
 * - `name`: the file system does not allow a name this long; nothing of this upload is left;
 * - `short`, `failed`: the bytes that arrived stay under their names, without `.rdy`;
 * - `full`: nothing of this upload is left, so that its space is free again. Only when an upload
 *   that it replaces has already lost its `.rdy` do the streams of both stay.
 */
export function storeUpload(
  plan: DepositPlan,
  source: ByteSource,
  beforeReady?: (paths: GroupPaths, differsFrom: string | undefined) => void,
  beforeReplacing?: (paths: GroupPaths) => void,
): StoredUpload {
  const steps = storeSteps(
    plan,
    source,
    // biome-ignore lint/correctness/useYield: a caller without steps; the driver wants a generator.
    function* (paths, differsFrom) {
      beforeReady?.(paths, differsFrom);
    },
    // biome-ignore lint/correctness/useYield: a caller without steps; the driver wants a generator.
    function* (paths) {
      beforeReplacing?.(paths);
    },
  );
  return runAlone(steps);
}

/**
 * Runs all steps in order without interruption, because no other upload is in progress in this
 * process.
 */
export function runAlone<Result>(steps: Steps<Result>): Result {
  return drive(steps, (step: Step) => {
    if (step.kind === 'sync') syncAlone(step);
    else if (step.kind === 'record')
      appendCustody(step.path, step.facts, { mayCreate: true, segmentLimit: step.segmentLimit });
  });
}

/** The steps of storeUpload(), for a driver that runs them. */
export function* storeSteps(
  plan: DepositPlan,
  source: ByteSource,
  beforeReady?: BeforeReady,
  beforeReplacing?: BeforeReplacing,
): Steps<StoredUpload> {
  const paths = groupPaths(plan.base);
  const folder = openGroupFolder(dirname(plan.base), plan.beforeStoring);
  try {
    return yield* underLock(paths, plan.jobId, function* (lock) {
      const count = countComplete(plan.base);
      if (count === 0) {
        const replaces = isAnyTaken(paths);
        if (replaces && !plan.overwrite) throw takenName();
        return yield* deposit({ plan, paths, folder, lock, replaces, created: [] }, source, beforeReady);
      }
      const bases = listCompared(plan.base, count);
      const { repeated, rest, close } = compareUpload(bases, plan, source);
      try {
        if (repeated) return yield* confirm(repeated, folder);
        const findRepeated = plan.findChanged?.(bases.filter((base) => isOfJob(base, plan.jobId)));
        if (!plan.overwrite) return yield* confirm(readRepeated(plan, rest, findRepeated) ?? refuseName(), folder);
        if (plan.keepDiffering) return yield* depositNumbered(plan, folder, count + 1, rest, findRepeated, beforeReady);
        const replacing = { plan, paths, folder, lock, replaces: true, created: [], findRepeated };
        return yield* deposit(replacing, rest, beforeReady, beforeReplacing);
      } finally {
        close();
      }
    });
  } catch (error) {
    throw failureOf(error);
  } finally {
    closeSync(folder.fd);
  }
}

function takenName(): LockerFailure {
  return new LockerFailure('exists', 'a file of this name exists');
}

function refuseName(): never {
  throw takenName();
}

/** Reads an upload without storing it, when the same upload may already be stored. */
function readRepeated(
  plan: DepositPlan,
  source: ByteSource,
  findRepeated: FindRepeated | undefined,
): string | undefined {
  if (!findRepeated) return undefined;
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (const name of STREAMS) copyExactly(source, undefined, plan.lengths[name], buffer);
  return findRepeated();
}

let openedFolders = 0;

function openGroupFolder(path: string, beforeStoring: DepositPlan['beforeStoring']): Deposit['folder'] {
  openedFolders += 1;
  const openedAs = openedFolders;
  try {
    return { path, fd: openFolder(path), openedAs };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw failureOf(error);
  }
  beforeStoring?.();
  try {
    makeFolder(path);
    return { path, fd: openFolder(path), openedAs };
  } catch (error) {
    throw failureOf(error);
  }
}

function* underLock<Result>(paths: GroupPaths, jobId: string, work: (lock: Lock) => Steps<Result>): Steps<Result> {
  const lock = takeLock(paths, formatReady(jobId));
  try {
    return yield* work(lock);
  } finally {
    releaseLock(lock);
  }
}

/**
 * Finds the number before the first free one: the count of announced uploads of a name, unless one
 * in between was removed. It needs only a few lookups however many there are, so that a client
 * cannot slow its own or other uploads down.
 */
function countComplete(base: string): number {
  const isComplete = (number: number): boolean => isTaken(groupPaths(numberedBase(base, number)).rdy);
  let [taken, free] = [0, 1];
  while (free <= MAX_NUMBER && isComplete(free)) [taken, free] = [free, free * 2];
  for (free = Math.min(free, MAX_NUMBER + 1); free - taken > 1; ) {
    const middle = Math.floor((taken + free) / 2);
    if (isComplete(middle)) taken = middle;
    else free = middle;
  }
  return taken;
}

/**
 * The first upload of a name and the newest ones, because a client repeats the upload that it has
 * just sent.
 */
function listCompared(base: string, count: number): string[] {
  const newest = Math.max(2, count - MAX_COMPARED + 2);
  const numbers = [1, ...Array.from({ length: Math.max(0, count - newest + 1) }, (_, index) => newest + index)];
  return numbers.map((number) => numberedBase(base, number));
}

/**
 * Puts the name of an announced upload on disk: the process that announced it may have been killed
 * before it did so and answered the client.
 */
function* confirm(base: string, folder: OpenFolder): Steps<StoredUpload> {
  yield syncStep([], [folder]);
  return { paths: groupPaths(base), isRepeat: true };
}

/**
 * Stores an upload under the next number. No other process takes a number while the lock of the
 * unnumbered name is held.
 */
function* depositNumbered(
  plan: DepositPlan,
  folder: Deposit['folder'],
  number: number,
  source: ByteSource,
  findRepeated: FindRepeated | undefined,
  beforeReady: BeforeReady | undefined,
): Steps<StoredUpload> {
  if (number > MAX_NUMBER) throw takenName();
  const paths = groupPaths(numberedBase(plan.base, number));
  return yield* underLock(paths, plan.jobId, (lock) =>
    deposit(
      { plan, paths, folder, lock, replaces: isAnyTaken(paths), created: [], findRepeated },
      source,
      beforeReady && ((placed) => beforeReady(placed, plan.base)),
    ),
  );
}

function* deposit(
  deposit: Deposit,
  source: ByteSource,
  beforeReady?: BeforeReady,
  beforeReplacing?: BeforeReplacing,
): Steps<StoredUpload> {
  const { plan, paths, folder } = deposit;
  try {
    plan.beforeStoring?.();
    checkRoom(folder.path, plan.lengths);
    yield* receiveStreams(deposit, source);
    const repeated = deposit.findRepeated?.();
    if (repeated !== undefined) {
      removeStreams(deposit);
      return yield* confirm(repeated, folder);
    }
    if (deposit.replaces) {
      if (beforeReplacing && isTaken(paths.rdy)) yield* beforeReplacing(paths);
      yield* placeStreams(deposit);
    }
    if (beforeReady) yield* beforeReady(paths, undefined);
    yield* announce(deposit);
    return { paths, isRepeat: false };
  } catch (error) {
    const failure = failureOf(error);
    if (failure.kind === 'full' || failure.kind === 'name') removeStreams(deposit);
    throw failure;
  }
}

/** Refuses an upload that cannot fit before its first byte is stored. */
function checkRoom(folder: string, lengths: DepositPlan['lengths']): void {
  const disk = statfsSync(folder);
  const needed = lengths.out + lengths.err + lengths.env + RESERVE_BYTES;
  if (disk.bavail * disk.bsize < needed) throw new LockerFailure('full', 'not enough space');
  // File systems that allocate inodes on demand report 0 in total.
  if (disk.files > 0 && disk.ffree < RESERVE_INODES) throw new LockerFailure('full', 'no inodes left');
}

/** Receives the streams. Also puts their names on disk, unless they get their final names later. */
function* receiveStreams(deposit: Deposit, source: ByteSource): Steps<void> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  const opened: number[] = [];
  try {
    for (const name of STREAMS) {
      const path = streamPath(deposit, name);
      if (deposit.replaces) rmSync(path, { force: true });
      const fd = openNew(path);
      opened.push(fd);
      deposit.created.push(path);
      copyExactly(source, fd, deposit.plan.lengths[name], buffer);
    }
    // One sync for all of them at the end: a journal writes the new files in one go, where each
    // alone would wait for it.
    yield syncStep([deposit.lock.fd, ...opened], deposit.replaces ? [] : [deposit.folder]);
  } finally {
    closeAll(opened);
  }
}

/** Closes all descriptors, even when closing one of them fails. */
function closeAll([fd, ...others]: number[]): void {
  if (fd === undefined) return;
  try {
    closeSync(fd);
  } finally {
    closeAll(others);
  }
}

/** Copies exactly `length` bytes. Without a descriptor the bytes are read and discarded. */
function copyExactly(source: ByteSource, fd: number | undefined, length: number, buffer: Buffer): void {
  for (let left = length; left > 0; ) {
    const count = source.read(left < buffer.length ? buffer.subarray(0, left) : buffer);
    if (count === 0) throw new LockerFailure('short', 'the body ended early');
    if (fd !== undefined) writeAll(fd, buffer.subarray(0, count));
    left -= count;
  }
}

/**
 * Gives the complete streams the names of the upload that they replace. The `.rdy` of that upload
 * is removed first, on disk, and then its streams.
 */
function* placeStreams(deposit: Deposit): Steps<void> {
  const { paths, folder } = deposit;
  rmSync(paths.rdy, { force: true });
  deposit.created = [];
  yield syncStep([], [folder]);
  for (const name of STREAMS) renameSync(streamPath(deposit, name), paths[name]);
  yield syncStep([], [folder]);
}

/**
 * Turns the lock into the `.rdy` file: both contain the same line, so one rename ends the lock and
 * announces the upload.
 */
function* announce(deposit: Deposit): Steps<void> {
  const { lock, paths, folder } = deposit;
  // An original server that wants this name truncates the lock before it notices that the name is
  // taken.
  if (fstatSync(lock.fd).size === 0) {
    writeSync(lock.fd, formatReady(deposit.plan.jobId), 0);
    yield syncStep([lock.fd]);
  }
  if (!isHeld(lock)) throw new LockerFailure('failed', 'the lock was removed');
  touch(lock.fd);
  renameSync(lock.path, paths.rdy);
  try {
    yield syncStep([], [folder]);
  } catch (error) {
    // The client is told that the upload failed, so the upload must not look complete.
    rmSync(paths.rdy, { force: true });
    throw error;
  }
}

/** Gives `.rdy` the time of the announcement instead of the time at which the upload began. */
function touch(fd: number): void {
  try {
    const now = new Date();
    futimesSync(fd, now, now);
  } catch {
    // Some file systems cannot set times. The upload is still complete.
  }
}

function streamPath(deposit: Deposit, name: StreamName): string {
  return deposit.replaces ? successorPath(deposit.paths[name]) : deposit.paths[name];
}

function removeStreams(deposit: Deposit): void {
  for (const path of deposit.created) rmSync(path, { force: true });
}

function isAnyTaken({ out, err, env, rdy }: GroupPaths): boolean {
  return [out, err, env, rdy].some(isTaken);
}

/** Whether a name is taken; a dangling symbolic link takes it too. */
function isTaken(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
