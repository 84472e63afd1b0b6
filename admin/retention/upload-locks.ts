// The locks of uploads as prune, pack and unpack take them: the `.lck` that an upload takes too, created where none is. Those of a batch are one
// file with many names, as far as the file system allows: some have few links a file and some none. To make an inode takes several times as long,
// and on ext4 the longer, the more were removed in the last seconds.
import { closeSync, fstatSync, linkSync, lstatSync, openSync } from 'node:fs';
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
  const create = (name: string): void => {
    const fd = openSync(pathOf(name), 'wx', LOCK_MODE);
    try {
      held.push({ name, ino: fstatSync(fd).ino });
      // On a full disk it says by its mode alone that it is ours.
      attempt(() => writeAll(fd, holder));
    } finally {
      closeSync(fd);
    }
  };
  let mayLink = true;
  /** False where the file system has no links, or no more of this one. */
  const link = (name: string): boolean => {
    const first = held[0];
    if (!first || !mayLink) return false;
    try {
      linkSync(pathOf(first.name), pathOf(name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
      mayLink = false;
      return false;
    }
    // Others can have put another file in the place of the first.
    mayLink = lstatSync(pathOf(name), { throwIfNoEntry: false })?.ino === first.ino;
    if (mayLink) held.push({ name, ino: first.ino });
    else removeFile(pathOf(name));
    return mayLink;
  };
  const make = (name: string): void => {
    if (!link(name)) create(name);
  };
  return {
    take(name) {
      return attempt(() => {
        try {
          make(name);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !isDeadLock(pathOf(name))) throw error;
          endDeadLock(locker, name);
          make(name);
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
