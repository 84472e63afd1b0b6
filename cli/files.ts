// Files that webjobctl reads and writes: complete or not at all, on disk when the call returns, and
// private from the first byte where necessary.
import { randomBytes } from 'node:crypto';
import {
  type BigIntStats,
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  linkSync,
  lstatSync,
  openSync,
  type ReadStream,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  unlinkSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { finished } from 'node:stream/promises';
import { syncFile, syncFolder, writeAll } from 'webjob-locker/durable';
import { Failure } from './failure.ts';

export interface Access {
  mode: number;
  /** The owner of the file; undefined for the user who runs this process. */
  owner?: { uid: number; gid: number } | undefined;
}

/**
 * Ends a file's stream. Its descriptor is closed when this resolves; destroy() alone closes it
 * later.
 */
export async function closeStream(source: ReadStream): Promise<void> {
  source.destroy();
  await finished(source).catch(() => {});
}

/** Creates a file. Throws EEXIST when it exists, and then nothing has changed. */
export function createFile(path: string, content: string | Uint8Array, access: Access): void {
  // A link fails where a rename would overwrite.
  writeBeside(path, content, access, (unfinished) => {
    linkSync(unfinished, path);
    rmSync(unfinished);
  });
}

/** Replaces a file; readers see either the old one or the new one. */
export function replaceFile(path: string, content: string | Uint8Array, access: Access): void {
  writeBeside(path, content, access, (unfinished) => renameSync(unfinished, path));
}

function writeBeside(
  path: string,
  content: string | Uint8Array,
  { mode, owner }: Access,
  place: (unfinished: string) => void,
): void {
  const unfinished = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  // Private until owner and mode are right.
  const fd = openSync(unfinished, 'wx', 0o600);
  try {
    try {
      if (owner) fchownSync(fd, owner.uid, owner.gid);
      writeAll(fd, typeof content === 'string' ? Buffer.from(content) : content);
      fchmodSync(fd, mode);
      syncFile(fd);
    } finally {
      closeSync(fd);
    }
    place(unfinished);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  }
  // Windows cannot sync a directory.
  if (process.platform !== 'win32') syncFolder(dirname(path));
}

/**
 * The end of the names of temporary files, and of the private directories of
 * admin/site/authority.ts.
 */
const UNFINISHED = /^(?:[0-9a-f]{12}|new-[A-Za-z0-9]{6})$/;

/**
 * Removes the temporary files that killed writers of a file left. The caller makes sure that no
 * other writer exists.
 */
export function removeUnfinished(path: string): void {
  const start = `.${basename(path)}.`;
  for (const name of readdirSync(dirname(path)))
    if (name.startsWith(start) && UNFINISHED.test(name.slice(start.length)))
      rmSync(join(dirname(path), name), { recursive: true, force: true });
}

/** Syncs everything in a directory, for files written by other programs. */
export function syncTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) syncTree(path);
    else if (entry.isFile()) {
      const fd = openSync(path, 'r');
      try {
        syncFile(fd);
      } finally {
        closeSync(fd);
      }
    }
  }
  syncFolder(folder);
}

/** The code of a failed system call for messages: `EACCES`. */
export function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

/** Whether only root can change the entries of a directory, or could if the directory existed. */
export function isRootsOwn(folder: string): boolean {
  if (!existsSync(folder)) return folder !== dirname(folder) && isRootsOwn(dirname(folder));
  for (let path = realpathSync(folder); ; path = dirname(path)) {
    const { uid, mode } = lstatSync(path);
    // In a directory with the sticky bit, such as /tmp, users cannot move other users' files.
    const isShared = (mode & 0o022) !== 0 && ((mode & 0o1000) === 0 || path === folder);
    if (uid !== 0 || isShared) return false;
    if (path === dirname(path)) return true;
  }
}

/**
 * Checks a directory before a write. For root, throws Failure `failed` when others could put a link
 * at the path; other users are not at risk.
 */
export function requireRootsOwn(folder: string): void {
  if (process.geteuid?.() !== 0 || isRootsOwn(folder)) return;
  throw new Failure(
    'failed',
    `users other than root can replace files in ${folder}, so root writes nothing there`,
    'run this command as the owner of the directory, or give it and its parents to root: chown root, chmod go-w',
  );
}

/** Removes a file, if it exists. `rmSync` checks it first and takes several times as long. */
export function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/**
 * Device, inode, size and time of a file, which show whether it has changed; undefined unless it is
 * a regular file.
 */
export function markOf(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return found?.isFile() ? formatMark(found) : undefined;
}

/** The mark of a file whose stats are known. */
export function formatMark({ dev, ino, size, mtimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${size} ${mtimeNs}`;
}
