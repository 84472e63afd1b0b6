// The locks of uploads for prune, pack and unpack: the same `.lck` that an upload takes, created
// where there is none. The locks of a batch are links to one file, as far as the file system
// allows: some have few links for each file and some none. Creating an inode takes several times as
// long, and on ext4 even longer the more inodes were freed in the last seconds.
import { closeSync, fstatSync, linkSync, lstatSync, openSync } from 'node:fs';
import { reach, removeDeadLock } from 'webjob-locker';
import { writeAll } from 'webjob-locker/durable';
import { removeFile } from '../../cli/files.ts';
import { formatHolder, isDeadLock, LOCK_MODE } from '../../cli/lockfile.ts';

export interface UploadLocks {
  /**
   * Takes the lock of an upload: false when another process holds it, or something else has its
   * name; `full` when the disk has no space for it.
   */
  take(name: string): boolean | 'full';
  /** Releases all locks that were taken. */
  release(): void;
}

/**
 * Errors that concern this upload alone: whatever the web user puts at its path must not affect
 * others.
 */
const IN_THE_WAY = ['EEXIST', 'EISDIR', 'ENOENT', 'ENOTEMPTY', 'ELOOP'];
const FULL = ['ENOSPC', 'EDQUOT'];

export function isInTheWay(error: unknown): boolean {
  return IN_THE_WAY.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** Locks for uploads in a locker; the caller holds the lock of the site. */
export function openUploadLocks(locker: string): UploadLocks {
  const held: { name: string; ino: number }[] = [];
  const holder = Buffer.from(formatHolder());
  const pathOf = (name: string): string => reach(locker, `${name}.lck`);
  const create = (name: string): void => {
    const fd = openSync(pathOf(name), 'wx', LOCK_MODE);
    try {
      held.push({ name, ino: fstatSync(fd).ino });
      // On a full disk only the mode identifies the lock as ours.
      attempt(() => writeAll(fd, holder));
    } finally {
      closeSync(fd);
    }
  };
  let mayLink = true;
  /** Returns false when the file system has no hard links, or the file has as many as it may. */
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
    // Others may have replaced the first file.
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

/**
 * Removes a lock that a killed webjobctl left, if possible; the caller holds the lock of the site.
 */
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
