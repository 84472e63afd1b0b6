// Complete reads and writes on raw descriptors. Uses only the synchronous calls of node:fs:
// touching process.stdin or process.stdout would set O_NONBLOCK on descriptors that are shared with
// the web server.
import { readSync, writeSync } from 'node:fs';

const RETRY_MILLISECONDS = 5;

/**
 * Reads up to `buffer.length` bytes; 0 is the end. A reset connection counts as the end, which the
 * check of the length detects.
 */
export function readSome(fd: number, buffer: Uint8Array): number {
  try {
    return persist(() => readSync(fd, buffer));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ECONNRESET' || code === 'EOF') return 0;
    throw error;
  }
}

/**
 * Writes all of `bytes` with as many calls as necessary. Throws the error of the last write, such
 * as EPIPE when the peer left.
 */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += persist(() => writeSync(fd, bytes, offset));
}

/**
 * Repeats a call that was interrupted by a signal, or whose descriptor another process sharing it
 * has made non-blocking. Without an event loop there is no other way to wait.
 */
function persist(call: () => number): number {
  for (;;) {
    try {
      return call();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EAGAIN') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MILLISECONDS);
      else if (code !== 'EINTR') throw error;
    }
  }
}
