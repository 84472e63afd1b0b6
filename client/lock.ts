// LockFile: one run at a time. The file contains the process id of its run, which keeps the file
// open until it ends. Process ids are reused, also after a reboot, but another process with the
// same id does not have the file open.
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

/** Set for a program that itself runs webjob: the inner run uses the lock of the outer run. */
export const LOCK_VARIABLE = 'WEBJOB_LOCK';

/** Earlier versions created lock files with mode 0600 and did not keep them open. */
const KEPT_OPEN_MODE = 0o400;
/** A larger file is not a lock and must not be removed. */
const MAX_LOCK_BYTES = 64;

/**
 * Takes the lock and returns a function that releases it. Throws Failure `lock` when another run
 * holds the lock, `settings` when the file is not a lock.
 */
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
 * Removes the lock file unless another lock has replaced it, and only then closes it. A closed lock
 * counts as abandoned: another run could replace it, and this run would then remove the new lock.
 */
function release(path: string, fd: number): void {
  if (isSame(fstatSync(fd), lstatSync(path, { throwIfNoEntry: false }))) rmSync(path, { force: true });
  closeSync(fd);
}

/**
 * Creates the lock at `path`, or a guard beside it, after removing an abandoned one. Returns the
 * open file. Throws Failure, or the error of the system call.
 */
function acquire(path: string, lockFile = path): number {
  const fd = create(path);
  if (fd !== undefined) return fd;
  checkFree(path, lockFile);
  // Of several runs that find the same abandoned lock, only one may remove it; a second one would
  // remove the lock of the first.
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

/**
 * Creates a lock; undefined when one already exists. The file appears with the process id already
 * in it, because an empty file would look abandoned.
 */
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

/**
 * Returns a descriptor of the lock under its final name: on FUSE, the inode number of a hard link
 * differs from that of the first name.
 */
function hold(path: string, fd: number): number {
  if (lstatSync(path).ino === fstatSync(fd).ino) return fd;
  const held = openSync(path, 'r');
  closeSync(fd);
  return held;
}

/** Checks that no run holds the lock. Throws Failure `lock` when one does. */
function checkFree(path: string, lockFile: string): void {
  look(path, (found) => {
    if (isHeld(found)) throw busy(lockFile, found.pid);
  });
}

/**
 * Removes the lock when no run holds it; the caller holds the guard. By then another run may hold a
 * new lock with the same name, so only the inspected file is removed. That file stays open until
 * its removal, so that its inode number is not reused.
 */
function removeAbandoned(path: string, lockFile: string): void {
  look(path, (found) => {
    if (isHeld(found)) throw busy(lockFile, found.pid);
    if (isSame(found.stats, lstatSync(path, { throwIfNoEntry: false }))) rmSync(path, { force: true });
  });
}

/**
 * On Windows, Node 22.12 to 22.16 and 24.0 to 24.1 report no device for a file that is looked up by
 * path.
 */
function isSame({ ino, dev }: Stats, other: Stats | undefined): boolean {
  return other?.ino === ino && (other.dev === dev || process.platform === 'win32');
}

function busy(lockFile: string, pid: number | undefined): Failure {
  return new Failure('lock', `another run holds LockFile ${lockFile}${pid ? ` (process ${pid})` : ''}`);
}

interface Found {
  /** The process id in the file; 0 when it contains none. */
  pid: number;
  stats: Stats;
}

/**
 * Whether a run holds the lock. If the file contains our own process id, an earlier process with
 * that id wrote it, because this process holds no lock yet.
 */
function isHeld({ pid, stats }: Found): boolean {
  if (pid === 0 || pid === process.pid || !isAlive(pid)) return false;
  const isOpen = hasOpen(pid, stats);
  if (isOpen || (isOpen === false && (stats.mode & 0o777) === KEPT_OPEN_MODE)) return isOpen;
  // Every run of webjob that takes a lock was started with one of these options.
  return hasArgument(pid, /^(?:--execute|-[a-z]*e.*)$/) ?? isAlive(pid);
}

/**
 * Opens the lock and calls `use` while it is open; undefined when there is no lock. Throws Failure
 * `settings` for a file that is not a lock or cannot be read.
 */
function look<T>(path: string, use: (found: Found) => T): T | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  if (!stats.isFile()) throw unfit(path, `is ${kindOf(stats)}, not a file`, 'name a file of its own');
  if (stats.size > MAX_LOCK_BYTES) throw unfit(path, 'contains more than a process id', 'name a file of its own');
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
