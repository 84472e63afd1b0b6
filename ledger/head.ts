// The beginning of a small file: hundreds of thousands of them are read, so one buffer serves them all.
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';

export const MAX_HEAD_BYTES = 64 * 1024;

const buffer = Buffer.allocUnsafe(MAX_HEAD_BYTES);

/** At most 64 kB, one character a byte; undefined when there is no such file. A link is none. */
export function readHead(path: string): string | undefined {
  return withFile(path, readText);
}

/** The same, with what the system knows of that very file. */
export function readHeadAndStats(path: string): { text: string; stats: Stats } | undefined {
  return withFile(path, (fd) => ({ text: readText(fd), stats: fstatSync(fd) }));
}

/**
 * The beginning of a file, at most one byte more than `most`, one character a byte, and the size of
 * that file.
 */
export function readHeadAndSize(path: string, most: number): { text: string; size: number } | undefined {
  return withFile(path, (fd) => {
    const text = readText(fd);
    // A file that ends within the buffer need not be asked for its size.
    if (text.length < MAX_HEAD_BYTES) return { text, size: text.length };
    const { size } = fstatSync(fd);
    const more = Buffer.allocUnsafe(Math.min(most + 1, size));
    return { text: more.toString('latin1', 0, readSync(fd, more, 0, more.length, 0)), size };
  });
}

function readText(fd: number): string {
  return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0));
}

/** What opening or reading fails with where a link, a socket, a folder or a FIFO has the name of a file: whoever owns the locker can put it there. */
const NO_FILE = new Set(['ENOENT', 'ELOOP', 'ENXIO', 'EISDIR', 'ESPIPE']);

/** Undefined when there is no such file. */
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
