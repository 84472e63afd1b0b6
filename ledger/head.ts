// The beginning of a small file: hundreds of thousands of them are read, so one buffer serves them all.
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';

export const MAX_HEAD_BYTES = 64 * 1024;

const buffer = Buffer.allocUnsafe(MAX_HEAD_BYTES);

/**
 * At most 64 kB, one character a byte; undefined when there is no such file. A link is none. With `most`, one byte more than that of a file
 * that is longer.
 */
export function readHead(path: string, most = 0): string | undefined {
  return withFile(path, (fd) => {
    const text = readText(fd);
    if (text.length < MAX_HEAD_BYTES || most <= MAX_HEAD_BYTES) return text;
    const more = Buffer.allocUnsafe(Math.min(most + 1, fstatSync(fd).size));
    return more.toString('latin1', 0, readSync(fd, more, 0, more.length, 0));
  });
}

/** The same, with what the system knows of that very file. */
export function readHeadAndStats(path: string): { text: string; stats: Stats } | undefined {
  return withFile(path, (fd) => ({ text: readText(fd), stats: fstatSync(fd) }));
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
