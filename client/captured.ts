// What a program printed, on its way to the server. Its length is taken once, so that the hash in the record, the announced length and
// the bytes sent agree even while a background process of the program still writes.
import { createHash } from 'node:crypto';
import { fstatSync, readSync } from 'node:fs';

export interface Captured {
  fd: number;
  length: number;
}

/** What lies behind a descriptor at this moment. */
export function takeLength(fd: number): Captured {
  return { fd, length: fstatSync(fd).size };
}

const CHUNK_BYTES = 64 * 1024;

/**
 * The bytes up to the length taken, piece by piece in one buffer that is used again: whoever gets a piece is done with it before asking
 * for the next, so that gigabytes need no more memory than one piece. Throws Error when the file has become shorter than that.
 */
export function* readCaptured({ fd, length }: Captured): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, length));
  for (let at = 0; at < length; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, length - at), at);
    if (count === 0) throw new Error('the output became shorter while it was read');
    at += count;
    yield buffer.subarray(0, count);
  }
}

/** The digest in lower-case hex. */
export function hashCaptured(type: string, captured: Captured): string {
  const hash = createHash(type.toLowerCase());
  for (const piece of readCaptured(captured)) hash.update(piece);
  return hash.digest('hex');
}
