// The body of a request: bytes from a descriptor, never more than the request announced (RFC 3875,
// section 4.2).
import { read } from 'node:fs';
import { readSome } from './descriptors.ts';

/** The body that a handler reads. */
export interface Body {
  /**
   * Fills the beginning of `buffer` and returns the number of bytes; 0 is the end, early or not.
   */
  read(buffer: Uint8Array): number;
}

/** A body that is read from a descriptor. */
export interface OpenBody extends Body {
  /**
   * Reads and discards the rest, for at most this long. Then calls `done` once, with false when a
   * read is still waiting: then only a signal can end the process.
   */
  drainFor(milliseconds: number, done: (isRead: boolean) => void): void;
}

/** The size of a read when a whole body is read, in bytes. */
export const BODY_CHUNK_BYTES = 256 * 1024;

/**
 * The body on `fd`. With a length it ends after that many bytes. Without one (a chunked request) it
 * ends where the descriptor does, and a truncated body cannot be told from a complete one.
 */
export function openBody(fd: number, contentLength: number | undefined): OpenBody {
  let left = contentLength ?? Number.POSITIVE_INFINITY;
  return {
    drainFor: (milliseconds, done) => drainFor(fd, left, milliseconds, done),
    read(buffer) {
      if (left === 0 || buffer.length === 0) return 0;
      const count = readSome(fd, left < buffer.length ? buffer.subarray(0, left) : buffer);
      left = count === 0 ? 0 : left - count;
      return count;
    },
  };
}

/** Reads and discards the rest of a body; returns the number of bytes. */
export function drainBody(body: Body): number {
  const buffer = Buffer.allocUnsafe(BODY_CHUNK_BYTES);
  let total = 0;
  for (let count = body.read(buffer); count > 0; count = body.read(buffer)) total += count;
  return total;
}

/**
 * The pause before reading again from a descriptor that another process sharing it has made
 * non-blocking.
 */
const PAUSE_MILLISECONDS = 10;

/** Uses asynchronous reads, because a synchronous one would block the timer. */
function drainFor(fd: number, length: number, milliseconds: number, done: (isRead: boolean) => void): void {
  const buffer = Buffer.allocUnsafe(BODY_CHUNK_BYTES);
  let left = length;
  let isDone = false;
  const finish = (isRead: boolean): void => {
    if (isDone) return;
    isDone = true;
    clearTimeout(timer);
    done(isRead);
  };
  const timer = setTimeout(finish, milliseconds, false);
  const next = (): void => {
    if (left === 0 || isDone) finish(true);
    else read(fd, buffer, 0, Math.min(buffer.length, left), null, take);
  };
  const take = (error: NodeJS.ErrnoException | null, count: number): void => {
    if (error?.code === 'EAGAIN') {
      setTimeout(next, PAUSE_MILLISECONDS);
      return;
    }
    left = error || count === 0 ? 0 : left - count;
    next();
  };
  next();
}
