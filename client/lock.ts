// LockFile: one run at a time. The file holds the process id of its run, which keeps it open to its end: a process id comes again, after
// a reboot too, but a process that has only the number does not have the file open.
import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  rmSync,
  type Stats,
  writeSync,
} from 'node:fs';
import { resolve } from 'node:path';
import { isAlive } from '../cli/processes.ts';
import { codeOf, Failure } from './failure.ts';
import { hasArgument, hasOpen } from './processes.ts';

/** A program that runs webjob itself does so under the lock that its own run holds. */
export const LOCK_VARIABLE = 'WEBJOB_LOCK';

/** Earlier versions made theirs with 0600 and did not keep them open. */
const KEPT_OPEN_MODE = 0o400;
/** A larger file is not a lock, and not ours to remove. */
const MAX_LOCK_BYTES = 64;

/** Takes the lock and returns what gives it back. Throws Failure `lock` when another run holds it, `settings` when it is no lock. */
export function takeLock(lockFile: string): () => void {
  if (lockFile === '') return () => {};
  const path = resolve(lockFile);
  if (process.env[LOCK_VARIABLE] === path) return () => {};
  try {
    const fd = acquire(path);
    return () => release(path, fd);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('settings', `LockFile: ${path} cannot be made: ${codeOf(error)}`);
  }
}

/**
 * Removes the lock, unless another has taken its place. Closes it only then: once it is closed it counts as abandoned, another run
 * replaces it, and we would remove the lock of that run.
 */
function release(path: string, fd: number): void {
  if (isSame(fstatSync(fd), lstatSync(path, { throwIfNoEntry: false }))) rmSync(path, { force: true });
  closeSync(fd);
}

/**
 * Makes the lock, or the guard beside it, after removing one that nobody holds, and returns it open. Throws Failure, or the error of the
 * system call that failed.
 */
function acquire(path: string, lockFile = path): number {
  const fd = create(path);
  if (fd !== undefined) return fd;
  checkFree(path, lockFile);
  // Of runs that find the same abandoned lock only one may remove it: the next one would remove the lock of the first.
  const guard = `${path}.next`;
  const guardFd = acquire(guard, lockFile);
  try {
    removeAbandoned(path, lockFile);
    const taken = create(path);
    if (taken === undefined) throw busy(lockFile, readPid(path));
    return taken;
  } finally {
    release(guard, guardFd);
  }
}

/** The file appears with the process id in it, never empty: an empty one would look abandoned. Undefined when there is one already. */
function create(path: string): number | undefined {
  const own = `${path}.${process.pid}`;
  rmSync(own, { force: true });
  const fd = openSync(own, 'wx', KEPT_OPEN_MODE);
  let isTaken = false;
  try {
    writeSync(fd, `${process.pid}\n`);
    linkSync(own, path);
    isTaken = true;
    return hold(path, fd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return undefined;
  } finally {
    if (!isTaken) closeSync(fd);
    rmSync(own, { force: true });
  }
}

/** The lock, open under the name that others look at: on FUSE the second name of a file has another number. */
function hold(path: string, fd: number): number {
  if (lstatSync(path).ino === fstatSync(fd).ino) return fd;
  const held = openSync(path, 'r');
  closeSync(fd);
  return held;
}

/** Throws Failure `lock` for a lock that is held. */
function checkFree(path: string, lockFile: string): void {
  look(path, (found) => {
    if (isHeld(found)) throw busy(lockFile, found.pid);
  });
}

/**
 * Removes the lock when nobody holds it; the caller holds the guard. What was given back while we looked at it may be held by another
 * run now, under the same name: only the file that we looked at is removed. It stays open until then, so that no new file gets its
 * number.
 */
function removeAbandoned(path: string, lockFile: string): void {
  look(path, (found) => {
    if (isHeld(found)) throw busy(lockFile, found.pid);
    if (isSame(found.stats, lstatSync(path, { throwIfNoEntry: false }))) rmSync(path, { force: true });
  });
}

/** Node 22.12 to 22.16 and 24.0 to 24.1 on Windows name no device of a file that is asked for by its path. */
function isSame({ ino, dev }: Stats, other: Stats | undefined): boolean {
  return other?.ino === ino && (other.dev === dev || process.platform === 'win32');
}

function busy(lockFile: string, pid: number | undefined): Failure {
  return new Failure('lock', `another run holds LockFile ${lockFile}${pid ? ` (process ${pid})` : ''}`);
}

interface Found {
  /** 0 when it holds no process id. */
  pid: number;
  stats: Stats;
}

/** Our own process id in it is that of an earlier process, which had the same: this one holds nothing yet. */
function isHeld({ pid, stats }: Found): boolean {
  if (pid === 0 || pid === process.pid || !isAlive(pid)) return false;
  const isOpen = hasOpen(pid, stats);
  if (isOpen || (isOpen === false && (stats.mode & 0o777) === KEPT_OPEN_MODE)) return isOpen;
  // Every run of webjob that takes a lock was started with one of these.
  return hasArgument(pid, /^(?:--execute|-[a-z]*e.*)$/) ?? isAlive(pid);
}

/**
 * Gives what `use` makes of the lock while it is open; undefined when there is none. Throws Failure `settings` for what is not a lock,
 * or not ours to read.
 */
function look<T>(path: string, use: (found: Found) => T): T | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  if (!stats.isFile()) throw unfit(path, `is ${kindOf(stats)}, not a file`, 'name a file of its own');
  if (stats.size > MAX_LOCK_BYTES) throw unfit(path, 'holds more than a process id', 'name a file of its own');
  const fd = open(path);
  if (fd === undefined) return undefined;
  try {
    return use(read(fd));
  } finally {
    closeSync(fd);
  }
}

function readPid(path: string): number | undefined {
  return look(path, ({ pid }) => pid);
}

function open(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw unfit(path, `cannot be read: ${code}`, 'give each user a LockFile of its own');
  }
}

function read(fd: number): Found {
  const buffer = Buffer.alloc(MAX_LOCK_BYTES);
  const text = buffer.toString('latin1', 0, readSync(fd, buffer));
  return { pid: /^[1-9][0-9]{0,9}\n$/.test(text) ? Number(text) : 0, stats: fstatSync(fd) };
}

function unfit(path: string, what: string, hint: string): Failure {
  return new Failure('settings', `LockFile: ${path} ${what}`, hint);
}

function kindOf(stats: Stats): string {
  if (stats.isSymbolicLink()) return 'a symbolic link';
  if (stats.isDirectory()) return 'a directory';
  return stats.isFIFO() ? 'a FIFO' : 'a device or a socket';
}
