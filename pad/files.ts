// The files of a payload. Everything is read in pieces, because a payload may be larger than
// memory.
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../cli/failure.ts';

export type Entry = { name: string; path: string; mode: number } & (
  | { kind: 'file'; size: number }
  | { kind: 'folder' }
  | { kind: 'link'; target: string }
);

/** A multiple of the bytes in a line of base64. */
const PIECE_BYTES = 57 * 4096;

/**
 * Lists a payload from the command line, and everything in it when it is a directory. A link on the
 * command line is followed, one in a directory is kept as a link.
 */
export function listEntries(path: string, name: string): Entry[] {
  const stats = attempt(path, () => statSync(path));
  return [...walk(path, name, stats)];
}

function* walk(path: string, name: string, stats: Stats): Generator<Entry> {
  if (stats.isFile()) {
    refuseOutput(path, stats);
    // The owner can always read and remove the unpacked files.
    yield { kind: 'file', name, path, size: stats.size, mode: (stats.mode & 0o777) | 0o600 };
  } else if (stats.isSymbolicLink()) {
    yield { kind: 'link', name, path, mode: 0o777, target: attempt(path, () => readlinkSync(path)) };
  } else if (stats.isDirectory()) {
    yield { kind: 'folder', name, path, mode: (stats.mode & 0o777) | 0o700 };
    for (const child of attempt(path, () => readdirSync(path)).sort()) {
      const childPath = join(path, child);
      yield* walk(
        childPath,
        `${name}/${child}`,
        attempt(childPath, () => lstatSync(childPath)),
      );
    }
  } else {
    throw new Failure('failed', `${path} is not a file, directory or link`);
  }
}

/** `pad-make-script data > data/x.pad` would read its own output. */
function refuseOutput(path: string, { dev, ino }: Stats): void {
  const output = fstatSync(1);
  if (output.isFile() && output.dev === dev && output.ino === ino) {
    throw new Failure('failed', `${path} is the output of this command`, 'write it to another file or directory');
  }
}

/**
 * Yields the bytes of a file, exactly as many as it had when it was listed; a piece is overwritten
 * by the next. Throws Failure `failed` when the size has changed.
 */
export function* readPieces(path: string, size: number): Generator<Buffer> {
  // A FIFO that has replaced the file must not block.
  const fd = attempt(path, () => openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)));
  try {
    const piece = Buffer.allocUnsafe(PIECE_BYTES);
    let total = 0;
    for (;;) {
      const length = attempt(path, () => readSync(fd, piece));
      total += length;
      if (total > size || (length === 0 && total < size)) throw changed(path);
      if (length === 0) return;
      yield piece.subarray(0, length);
    }
  } finally {
    closeSync(fd);
  }
}

export function changed(path: string): Failure {
  return new Failure('failed', `${path} changed while it was read`, 'the output is incomplete; run the command again');
}

function attempt<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure('failed', `${path} cannot be read: ${code}`, undefined, { cause: error });
  }
}
