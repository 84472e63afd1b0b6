// The locks of uploads as prune, pack and unpack take them: the `.lck` that an upload takes too, created where none is. Of the file system
// they need no more than a deposit does: no links, of which some allow few a file and some none.
import { closeSync, fstatSync, lstatSync, openSync } from 'node:fs';
import { reach, removeDeadLock } from 'webjob-locker';
import { writeAll } from 'webjob-locker/durable';
import { removeFile } from '../../cli/files.ts';
import { formatHolder, isDeadLock, LOCK_MODE } from '../../cli/lockfile.ts';

export interface UploadLocks {
  /** False when somebody else holds it, or something else has its name; `full` when the disk has no room for it. */
  take(name: string): boolean | 'full';
  /** Ends all that were taken. */
  release(): void;
}

/** Whatever the web user puts in the way of an upload keeps us from this one alone. */
const IN_THE_WAY = ['EEXIST', 'EISDIR', 'ENOENT', 'ENOTEMPTY', 'ELOOP'];
const FULL = ['ENOSPC', 'EDQUOT'];

export function isInTheWay(error: unknown): boolean {
  return IN_THE_WAY.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** Locks of uploads in a locker; whoever calls has the turn. */
export function openUploadLocks(locker: string): UploadLocks {
  const held: { name: string; ino: number }[] = [];
  const holder = Buffer.from(formatHolder());
  const pathOf = (name: string): string => reach(locker, `${name}.lck`);
  return {
    take(name) {
      return attempt(() => {
        if (isDeadLock(pathOf(name))) endDeadLock(locker, name);
        const fd = openSync(pathOf(name), 'wx', LOCK_MODE);
        try {
          held.push({ name, ino: fstatSync(fd).ino });
          // On a full disk it says by its mode alone that it is ours.
          attempt(() => writeAll(fd, holder));
        } finally {
          closeSync(fd);
        }
      });
    },
    release() {
      for (const { name, ino } of held) {
        const path = pathOf(name);
        if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) removeFile(path);
      }
    },
  };
}

/** Takes away a lock that a killed webjobctl left, if nothing is in the way; whoever calls has the turn. */
export function endDeadLock(locker: string, name: string): void {
  attempt(() => removeDeadLock(reach(locker, `${name}.lck`), isDeadLock));
}

function attempt(work: () => void): boolean | 'full' {
  try {
    work();
    return true;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (FULL.includes(code)) return 'full';
    if (isInTheWay(error)) return false;
    throw error;
  }
}
