// Whole reads and writes on raw descriptors. Only the synchronous calls of node:fs: touching process.stdin or
// process.stdout would set O_NONBLOCK on descriptors that are shared with the web server.
import { readSync, writeSync } from 'node:fs';

const RETRY_MILLISECONDS = 5;

/** Reads up to `buffer.length` bytes; 0 is the end. A reset connection counts as the end: the length check tells. */
export function readSome(fd: number, buffer: Uint8Array): number {
  for (;;) {
    try {
      return readSync(fd, buffer);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ECONNRESET' || code === 'EOF') return 0;
      if (code !== 'EAGAIN' && code !== 'EINTR') throw error;
      if (code === 'EAGAIN') pause();
    }
  }
}

/** Writes all of `bytes`, however many calls it takes. Throws what the last write threw (EPIPE: the peer left). */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) {
    try {
      offset += writeSync(fd, bytes, offset);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EAGAIN' && code !== 'EINTR') throw error;
      if (code === 'EAGAIN') pause();
    }
  }
}

/** Somebody made the shared descriptor non-blocking; there is no blocking wait for it without an event loop. */
function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MILLISECONDS);
}
