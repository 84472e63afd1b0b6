// Files that webjobctl writes: whole or not at all, on disk when it says so, and secret from the first byte where they are meant to be.
import { randomBytes } from 'node:crypto';
import { closeSync, fchmodSync, fchownSync, linkSync, openSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncFile, syncFolder, writeAll } from 'webjob-locker/durable';

export interface Access {
  mode: number;
  /** Undefined: whoever runs this. */
  owner?: { uid: number; gid: number } | undefined;
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
  syncFolder(dirname(path));
}

/** The code of a failed system call, for messages: `EACCES`. */
export function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}
