// The body of a request: bytes from a descriptor, never more than the request announced (RFC 3875, section 4.2).
import { read } from 'node:fs';
import { readSome } from './descriptors.ts';

/** Bytes to be read one after the other; what a handler is given. */
export interface Body {
  /** Fills the start of `buffer` and returns how many bytes it put there; 0 is the end, early or not. */
  read(buffer: Uint8Array): number;
}

/** A body that waits on a descriptor. */
export interface OpenBody extends Body {
  /**
   * Reads what is left of it and throws it away, for so long at most. Then calls `done`, once: with false when a read still waits, and the
   * process can then end by a signal only.
   */
  drainFor(milliseconds: number, done: (isRead: boolean) => void): void;
}

/** What a reader of a whole body reads at once, in bytes. */
export const BODY_CHUNK_BYTES = 256 * 1024;

/**
 * The body that waits on `fd`. With a length it ends after so many bytes; without one (a chunked request) it ends
 * where the descriptor does, and a truncated body cannot be told from a whole one.
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

/** Reads what is left of a body and throws it away; returns how many bytes that was. */
export function drainBody(body: Body): number {
  const buffer = Buffer.allocUnsafe(BODY_CHUNK_BYTES);
  let total = 0;
  for (let count = body.read(buffer); count > 0; count = body.read(buffer)) total += count;
  return total;
}

/** How long a descriptor that somebody who shares it has made non-blocking is left alone. */
const PAUSE_MILLISECONDS = 10;

/** By asynchronous reads: only beside these can time run out. */
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
