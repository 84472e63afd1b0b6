// The system calls that put a file on disk for good, and their order. Whoever calls these relies on:
//
//   openNew    open(O_CREAT|O_EXCL)   the name is ours or we fail; no link is followed, nothing is overwritten
//   writeAll   write ...              every short count is continued
//   syncFile   fsync(file)            the bytes and the size are on disk
//   rename     (node:fs)              the new name is there with all of its bytes, or the old one still is
//   syncFolder fsync(folder)          the name itself is on disk
//
// A failed fsync is never retried: the kernel may have dropped the pages and would report success the second time.
import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

/** Creates a file that did not exist, mode 0644; the descriptor is the caller's to close. Throws EEXIST. */
export function openNew(path: string): number {
  return openSync(path, 'wx', 0o644);
}

/** Writes all of `bytes`. Throws ENOSPC, EDQUOT, EIO. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
}

/** Puts a written file on disk. */
export function syncFile(fd: number): void {
  fsyncSync(fd);
}

/** Puts the names in a folder on disk. A file system that knows no such thing (EINVAL) needs none. */
export function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
}

/** Makes a folder and those above it that are missing, mode 0755, each one's name on disk before the next. */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, 0o755);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT') throw error;
    makeFolder(dirname(path));
    makeFolder(path);
    return;
  }
  syncFolder(dirname(path));
}
