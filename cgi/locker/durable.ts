// The system calls that put a file on disk for good, and their order. The locker relies on these:
//
//   openFolder   open(folder)            before anything is made in it
//   openNew      open(O_CREAT|O_EXCL)    the name is ours or we fail; no link is followed, nothing is overwritten
//   writeAll     write ...               every short count is continued
//   syncFile     fsync(file)             the bytes and the size are on disk
//   rename       (node:fs)               the new name is there with all of its bytes, or the old one still is
//   syncOpened   fsync(folder)           the name itself is on disk
//
// Facts and where they are from:
// - fsync returns when the file's data and what is needed to read it back are on the device, or fails (POSIX.1-2017, fsync).
// - It says nothing of the entry in the folder: "For that an explicit fsync() on a file descriptor for the directory is also
//   needed" (fsync(2)).
// - rename replaces the target in one step, for whoever looks (POSIX.1-2017, rename); on disk it is after the folder's fsync only.
// - Linux reports an error of writing back to every descriptor that was open when it happened, once (errseq_t, Linux 4.13; LWN,
//   "Improved block-layer error handling", June 2017). A descriptor that is opened afterwards may see nothing: the kernel may have
//   dropped the inode, and the error with it (LWN, "PostgreSQL's fsync() surprise", April 2018). So a stream is synced on the
//   descriptor that wrote it, and a folder on one that was opened before the first change in it.
// - After a failed fsync ext4, XFS and Btrfs mark the pages clean: the next fsync succeeds although nothing was written (Rebello et
//   al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). A failed fsync is never retried.
//
// What is left: when the fsync of a folder fails behind the rename to `.rdy`, the client is told 500 and `.rdy` is removed again, but
// no call can promise that the removal reaches a disk that has just failed. After a power failure the upload may be announced although
// its PUT failed: its streams and its custody record were on disk before, so it is whole, and a retry of the same bytes finds it. A disk
// that says that it has flushed and has not, is beyond any program.
import { closeSync, constants, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

const { O_RDONLY, O_DIRECTORY } = constants;

/** Creates a file that did not exist, mode 0644; the descriptor is the caller's to close. Throws EEXIST. */
export function openNew(path: string): number {
  return openSync(path, 'wx', 0o644);
}

/** Writes all of `bytes`. Throws ENOSPC, EDQUOT, EIO. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
}

/** Puts a written file on disk; `fd` is the descriptor that wrote it. */
export function syncFile(fd: number): void {
  fsyncSync(fd);
}

/** Opens a folder for syncOpened, before anything is changed in it; the descriptor is the caller's to close. */
export function openFolder(path: string): number {
  return openSync(path, O_RDONLY | O_DIRECTORY);
}

/** Puts the names in an open folder on disk. A file system that knows no such thing (EINVAL) needs none. */
export function syncOpened(fd: number): void {
  try {
    fsyncSync(fd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  }
}

/** The same for a folder that nobody holds open: an error of writing back from before this call may be lost. */
export function syncFolder(path: string): void {
  withFolder(path, syncOpened);
}

/** Calls `work` with the open folder, which is open before and closed afterwards. */
export function withFolder<Result>(path: string, work: (fd: number) => Result): Result {
  const fd = openFolder(path);
  try {
    return work(fd);
  } finally {
    closeSync(fd);
  }
}

/** Makes a folder and those above it that are missing, mode 0755, each one's name on disk before the next. */
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

/** Throws ENOENT when `parent` is not there. */
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
