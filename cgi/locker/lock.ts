// The `.lck` file that exists while an upload is written. It already contains the line of the
// `.rdy`, so that renaming it to `.rdy` ends the lock and announces the upload in one step. Its
// holder may be killed at any moment. An abandoned lock is recognised by its age alone, which also
// works for a holder on another machine and for the original server.
import { closeSync, fstatSync, linkSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { openNew, writeAll } from './durable.ts';
import { LockerFailure } from './failure.ts';
import { type GroupPaths, STREAMS, successorPath } from './layout.ts';

/**
 * An upload in which no file changed for this long has no living writer: a web server ends a
 * request without progress after its Timeout (60 s by default), far sooner.
 */
const ABANDONED_AFTER_SECONDS = 3600;

/** A `.lck` that is held. Its descriptor stays open until releaseLock(). */
export interface Lock {
  path: string;
  fd: number;
}

/**
 * Takes the lock of an upload and writes `readyLine` to it. Throws LockerFailure `exists` when
 * another process holds it.
 */
export function takeLock(paths: GroupPaths, readyLine: string): Lock {
  const lock = { path: paths.lck, fd: createLock(paths) };
  try {
    writeAll(lock.fd, Buffer.from(readyLine));
    return lock;
  } catch (error) {
    releaseLock(lock);
    throw error;
  }
}

/** Whether the file at the lock's path is the one that was taken. */
export function isHeld(lock: Lock): boolean {
  const found = lstatSync(lock.path, { throwIfNoEntry: false });
  return found?.ino === fstatSync(lock.fd).ino;
}

/**
 * Ends the lock, also after it became the `.rdy` file. Never throws, because it is called on every
 * exit path.
 */
export function releaseLock(lock: Lock): void {
  try {
    if (isHeld(lock)) unlinkSync(lock.path);
  } catch {
    // The file system no longer answers. The next writer recognises the remaining lock by its age.
  } finally {
    closeSync(lock.fd);
  }
}

function createLock(paths: GroupPaths): number {
  try {
    return openNew(paths.lck);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  if (!isAbandoned(paths)) throw new LockerFailure('exists', 'another upload is writing this name');
  removeDeadLock(paths.lck, isOld);
  // A faster process holds the lock now: EEXIST.
  return openNew(paths.lck);
}

/** Whether no process can be writing the upload any longer. */
export function isAbandoned(paths: GroupPaths): boolean {
  const streams = STREAMS.flatMap((name) => [paths[name], successorPath(paths[name])]);
  return [paths.lck, ...streams].every(isOld);
}

/** Whether a file is old; also true for a file that does not exist. */
function isOld(path: string): boolean {
  const modifiedAt = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Date.now() - modifiedAt > ABANDONED_AFTER_SECONDS * 1000;
}

/**
 * Removes a lock that was judged dead. Two processes may judge the same one: the later one finds it
 * gone, or has moved the new lock of the faster process, which it then restores.
 */
export function removeDeadLock(path: string, isDead: (path: string) => boolean): void {
  // A short name, because the lock's name may already have the maximum length. A file that a kill
  // leaves here is an abandoned lock like any other.
  const aside = `${dirname(path)}/.${process.pid}.lck`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return;
  }
  try {
    if (!isDead(aside)) linkSync(aside, path);
  } finally {
    unlinkSync(aside);
  }
}
