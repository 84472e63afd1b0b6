// The system calls that make a file durable, and their order. The locker relies on these:
//
//   openFolder   open(directory)         before anything is created in it
//   openNew      open(O_CREAT|O_EXCL)    creates the name or fails; follows and overwrites nothing
//   writeAll     write ...               every short write is continued
//   syncFile     fsync(file)             the bytes and the size are on disk
//   rename       (node:fs)               the complete new file has the name, or still the old one
//   syncOpened   fsync(directory)        the name itself is on disk
//
// Facts and their sources:
// - fsync returns when a file's data and what is needed to read it back are on the device, or fails
//   (POSIX.1-2017, fsync).
// - It does not cover the directory entry: "For that an explicit fsync() on a file descriptor for
//   the directory is also needed" (fsync(2)).
// - rename replaces the target atomically for every process (POSIX.1-2017, rename), but is on disk
//   only after the directory's fsync.
// - Linux reports a writeback error once to every descriptor that was open when it happened
//   (errseq_t, Linux 4.13; LWN, "Improved block-layer error handling", June 2017). A descriptor
//   opened later may see nothing: the kernel may have dropped the inode, and the error with it
//   (LWN, "PostgreSQL's fsync() surprise", April 2018). So a stream is synced on the descriptor
//   that wrote it, and a directory on one that was opened before the first change in it.
// - After a failed fsync ext4, XFS and Btrfs mark the pages clean: the next fsync succeeds although
//   nothing was written (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX
//   ATC 2020). A failed fsync is never retried.
//
// The limits: when the fsync of a directory fails after the rename to `.rdy`, the client gets
// status 500 and `.rdy` is removed again, but no call can guarantee that the removal reaches a disk
// that has just failed. After a power failure the upload may be announced although its PUT failed.
// It is complete all the same, because its streams and its custody record were on disk before, and
// a retry of the same bytes finds it. Nothing helps against a disk that reports a flush it has not
// done.
import { closeSync, constants, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

const { O_RDONLY, O_DIRECTORY } = constants;

/**
 * Creates a file with mode 0644; the caller closes the descriptor. Throws EEXIST when the name
 * exists.
 */
export function openNew(path: string): number {
  return openSync(path, 'wx', 0o644);
}

/** Writes all of `bytes`. Throws ENOSPC, EDQUOT, EIO. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
}

/** Puts a written file on disk. `fd` must be the descriptor that wrote it. */
export function syncFile(fd: number): void {
  fsyncSync(fd);
}

/**
 * Opens a directory for syncOpened(), before anything in it is changed. The caller closes the
 * descriptor.
 */
export function openFolder(path: string): number {
  return openSync(path, O_RDONLY | O_DIRECTORY);
}

/**
 * Puts the names in an open directory on disk. A file system that does not support this (EINVAL)
 * does not need it.
 */
export function syncOpened(fd: number): void {
  try {
    fsyncSync(fd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  }
}

/**
 * Puts the names in a directory on disk when no descriptor of it is open. A writeback error from
 * before this call may be lost.
 */
export function syncFolder(path: string): void {
  withFolder(path, syncOpened);
}

/** Calls `work` with a descriptor of the directory and closes it afterwards. */
export function withFolder<Result>(path: string, work: (fd: number) => Result): Result {
  const fd = openFolder(path);
  try {
    return work(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Creates a directory and its missing parents with mode 0755. The name of each is on disk before
 * the next one is created.
 */
export function makeFolder(path: string): void {
  try {
    makeIn(dirname(path), path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw error;
    makeFolder(dirname(path));
    makeIn(dirname(path), path);
  }
}

/** Creates a directory. Throws ENOENT when `parent` does not exist. */
function makeIn(parent: string, path: string): void {
  withFolder(parent, (folder) => {
    try {
      mkdirSync(path, 0o755);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
      throw error;
    }
    syncOpened(folder);
  });
}
