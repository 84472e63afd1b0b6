// LockFile: one run at a time. The file holds the process id of its run; one whose process is gone is nobody's.
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
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
  const isOurs = (): boolean => readHolder(path) === process.pid;
  for (let attempt = 1; ; attempt++) {
    try {
      const fd = openSync(path, 'wx', 0o600);
      writeSync(fd, `${process.pid}\n`);
      closeSync(fd);
      return () => {
        if (isOurs()) rmSync(path, { force: true });
      };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EEXIST') throw new Failure('settings', `LockFile: ${path} cannot be made: ${code}`);
      const holder = readHolder(path);
      if (attempt > 2 || (holder !== undefined && isAlive(holder)))
        throw new Failure('lock', `another run holds LockFile ${path}${holder ? ` (process ${holder})` : ''}`);
      removeAbandoned(path);
    }
  }
}

/** Undefined for a file that is gone or, for a moment, still empty. */
function readHolder(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'latin1');
    return /^[0-9]+\n$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined;
  }
}

/** Of two runs that find the same abandoned lock, one renames it aside; the other finds it gone, or the first one's. */
function removeAbandoned(path: string): void {
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
    rmSync(aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
