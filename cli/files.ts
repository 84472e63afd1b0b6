// Files that webjobctl reads and writes: whole or not at all, on disk when it says so, and secret from the first byte where they are meant to be.
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
  /** Undefined: whoever runs this. */
  owner?: { uid: number; gid: number } | undefined;
}

/** Ends a file's stream. Its descriptor is closed when this resolves; destroy() alone leaves that to another thread. */
export async function closeStream(source: ReadStream): Promise<void> {
  source.destroy();
  await finished(source).catch(() => {});
}

/** Writes a file that did not exist. Throws EEXIST, and then nothing has changed. */
export function createFile(path: string, content: string | Uint8Array, access: Access): void {
  // A link fails where a rename would overwrite.
  writeBeside(path, content, access, (unfinished) => {
    linkSync(unfinished, path);
    rmSync(unfinished);
  });
}

/** Writes a file in the place of what is there: a reader finds the old one or the new one. */
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
  // Closed to others until owner and mode are right.
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
  // Windows syncs no folder.
  if (process.platform !== 'win32') syncFolder(dirname(path));
}

/** What is written beside a file before it takes its place, and the private folders of admin/site/authority.ts, by the rest of their names. */
const UNFINISHED = /^(?:[0-9a-f]{12}|new-[A-Za-z0-9]{6})$/;

/** Takes away what killed writers of a file left beside it. For whoever keeps others from writing it meanwhile. */
export function removeUnfinished(path: string): void {
  const start = `.${basename(path)}.`;
  for (const name of readdirSync(dirname(path)))
    if (name.startsWith(start) && UNFINISHED.test(name.slice(start.length)))
      rmSync(join(dirname(path), name), { recursive: true, force: true });
}

/** Puts everything in a folder on disk: for what other programs wrote. */
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

/** The code of a failed system call, for messages: `EACCES`. */
export function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

/** True where nobody but root can change what lies in a folder, or would, once it is made. */
export function isRootsOwn(folder: string): boolean {
  if (!existsSync(folder)) return folder !== dirname(folder) && isRootsOwn(dirname(folder));
  for (let path = realpathSync(folder); ; path = dirname(path)) {
    const { uid, mode } = lstatSync(path);
    // In a folder as /tmp nobody can move what is another's.
    const isShared = (mode & 0o022) !== 0 && ((mode & 0o1000) === 0 || path === folder);
    if (uid !== 0 || isShared) return false;
    if (path === dirname(path)) return true;
  }
}

/** Throws Failure `failed` for root where others could put a link in the place of what is to be written. They do no harm to anybody else. */
export function requireRootsOwn(folder: string): void {
  if (process.geteuid?.() !== 0 || isRootsOwn(folder)) return;
  throw new Failure(
    'failed',
    `others than root can exchange what is in ${folder}, so root writes nothing there`,
    'run this command as the user whose folder it is, or give it and those above it to root: chown root, chmod go-w',
  );
}

/** Takes a file away, if it is there. `rmSync` looks at it first, and takes several times as long. */
export function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Device, inode, size and time of a file, which tell that it is still the same; undefined for what is not there or no regular file. */
export function markOf(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return found?.isFile() ? formatMark(found) : undefined;
}

/** The same for what is known of it already. */
export function formatMark({ dev, ino, size, mtimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${size} ${mtimeNs}`;
}
