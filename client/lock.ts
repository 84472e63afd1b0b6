// LockFile: one run at a time. The file holds the process id of its run; one whose process is gone is nobody's.
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Failure } from './failure.ts';
import { isAlive } from './processes.ts';

/** A program that runs webjob itself does so under the lock that its own run holds. */
export const LOCK_VARIABLE = 'WEBJOB_LOCK';

/** Takes the lock and returns what gives it back. Throws Failure `lock` when another run holds it. */
export function takeLock(lockFile: string): () => void {
  if (lockFile === '') return () => {};
  const path = resolve(lockFile);
  if (process.env[LOCK_VARIABLE] === path) return () => {};
  try {
    acquire(path);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('settings', `LockFile: ${path} cannot be made: ${(error as NodeJS.ErrnoException).code}`);
  }
  return () => {
    if (readHolder(path) === process.pid) rmSync(path, { force: true });
  };
}

/** Makes the file, after removing one that is nobody's. Throws Failure `lock`, or the error of the system call that failed. */
function acquire(path: string): void {
  if (create(path)) return;
  if (isHeldBy(readHolder(path))) throw busy(path);
  // Of runs that find the same abandoned lock only one may remove it: the next one would remove the lock of the first.
  const guard = `${path}.next`;
  acquire(guard);
  try {
    const holder = readHolder(path);
    if (isHeldBy(holder)) throw busy(path);
    // One that was given back meanwhile may be somebody's again in this moment.
    if (holder !== undefined) rmSync(path, { force: true });
    if (!create(path)) throw busy(path);
  } finally {
    rmSync(guard, { force: true });
  }
}

/** The file appears with the process id in it, never empty: an empty one would look abandoned. False when there is one already. */
function create(path: string): boolean {
  const own = `${path}.${process.pid}`;
  rmSync(own, { force: true });
  writeFileSync(own, `${process.pid}\n`, { mode: 0o600, flag: 'wx' });
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return false;
  } finally {
    rmSync(own, { force: true });
  }
}

/** Our own process id in it is that of an earlier process, which had the same: this one holds nothing yet. */
function isHeldBy(holder = 0): boolean {
  return holder !== 0 && holder !== process.pid && isAlive(holder);
}

function busy(path: string): Failure {
  const holder = readHolder(path);
  return new Failure('lock', `another run holds LockFile ${path}${holder ? ` (process ${holder})` : ''}`);
}

/** Undefined for a file that is gone or not ours to read, 0 for one that holds no process id. */
function readHolder(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'latin1');
    return /^[1-9][0-9]{0,9}\n$/.test(text) ? Number(text) : 0;
  } catch {
    return undefined;
  }
}
