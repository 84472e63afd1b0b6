// Reads the beginning of small files. Hundreds of thousands are read, so they share one buffer.
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';

export const MAX_HEAD_BYTES = 64 * 1024;

const buffer = Buffer.allocUnsafe(MAX_HEAD_BYTES);

/**
 * Reads at most 64 kB, one character for each byte; undefined when there is no regular file. Links
 * are not followed.
 */
export function readHead(path: string): string | undefined {
  return withFile(path, readText);
}

/**
 * Reads at most 64 kB, one character for each byte, and the stats of the same file; undefined when
 * there is no regular file.
 */
export function readHeadAndStats(path: string): { text: string; stats: Stats } | undefined {
  return withFile(path, (fd) => ({ text: readText(fd), stats: fstatSync(fd) }));
}

/**
 * Reads the beginning of a file, one character for each byte and at most one byte more than `most`,
 * and its size; undefined when there is no regular file.
 */
export function readHeadAndSize(path: string, most: number): { text: string; size: number } | undefined {
  return withFile(path, (fd) => {
    const text = readText(fd);
    // A file that ends within the buffer has the size that was read.
    if (text.length < MAX_HEAD_BYTES) return { text, size: text.length };
    const { size } = fstatSync(fd);
    const more = Buffer.allocUnsafe(Math.min(most + 1, size));
    return { text: more.toString('latin1', 0, readSync(fd, more, 0, more.length, 0)), size };
  });
}

function readText(fd: number): string {
  return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0));
}

/**
 * Errors of open() and read() where a link, socket, directory or FIFO has the name of a file;
 * anyone who can write to the locker can put one there.
 */
const NO_FILE = new Set(['ENOENT', 'ELOOP', 'ENXIO', 'EISDIR', 'ESPIPE']);

/** Runs `read` on an open file; undefined when there is no regular file. */
export function withFile<Value>(path: string, read: (fd: number) => Value): Value | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      return read(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (NO_FILE.has((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}
