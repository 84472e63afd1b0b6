// The `.lck` file that stands while a group is written. It already holds the ready line, so that renaming it to `.rdy` ends
// the lock and announces the group in one step. Its holder may be killed at any moment: an old one is told by age alone,
// which also works for a holder on another machine and for one that is not ours.
import { closeSync, fstatSync, linkSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { openNew, writeAll } from './durable.ts';
import { LockerFailure } from './failure.ts';
import { type GroupPaths, STREAMS, successorPath } from './layout.ts';

/**
 * A group in which no file changed for so long has no living writer: a web server ends a request that makes no progress
 * after its Timeout (60 s unless configured), many times sooner.
 */
const ABANDONED_AFTER_SECONDS = 3600;

/** A `.lck` that is held: its descriptor stays open until releaseLock. */
export interface Lock {
  path: string;
  fd: number;
}

/** Takes the lock of a group and writes `readyLine` into it. Throws LockerFailure `exists` when somebody holds it. */
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

/** True while the file at the lock's path is the one that was taken. */
export function isHeld(lock: Lock): boolean {
  const found = lstatSync(lock.path, { throwIfNoEntry: false });
  return found?.ino === fstatSync(lock.fd).ino;
}

/** Ends the lock, also after it became the `.rdy` file. Never throws: it runs on every way out. */
export function releaseLock(lock: Lock): void {
  try {
    if (isHeld(lock)) unlinkSync(lock.path);
  } catch {
    // The file system no longer answers; the age of what stays tells the next writer.
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
  // Whoever was faster holds it now: EEXIST.
  return openNew(paths.lck);
}

/** True when nobody can be at work on the group any more. */
export function isAbandoned(paths: GroupPaths): boolean {
  const streams = STREAMS.flatMap((name) => [paths[name], successorPath(paths[name])]);
  return [paths.lck, ...streams].every(isOld);
}

/** True also for a file that is not there. */
function isOld(path: string): boolean {
  const modifiedAt = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Date.now() - modifiedAt > ABANDONED_AFTER_SECONDS * 1000;
}

/**
 * Takes away a lock that was judged dead. Two may judge the same one: the late one finds it gone, or has caught the lock of the one that
 * was faster: that one it gives back.
 */
export function removeDeadLock(path: string, isDead: (path: string) => boolean): void {
  // Short, as the name of the lock may be as long as names can be. What a kill leaves here is an abandoned lock like any other.
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
