// The body of a request: bytes from a descriptor, never more than the request announced (RFC 3875, section 4.2).
import { readSome } from './descriptors.ts';

/** Bytes to be read one after the other; what a handler is given. */
export interface Body {
  /** Fills the start of `buffer` and returns how many bytes it put there; 0 is the end, early or not. */
  read(buffer: Uint8Array): number;
}

/** What a reader of a whole body reads at once, in bytes. */
export const BODY_CHUNK_BYTES = 256 * 1024;

/**
 * The body that waits on `fd`. With a length it ends after so many bytes; without one (a chunked request) it ends
 * where the descriptor does, and a truncated body cannot be told from a whole one.
 */
export function openBody(fd: number, contentLength: number | undefined): Body {
  let left = contentLength ?? Number.POSITIVE_INFINITY;
  return {
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
