// Computes the SHA-256 of streams and of files. node:crypto is loaded with the first digest
// only, because loading it takes time.
import { readSync } from 'node:fs';
import type { ByteSource } from './deposit.ts';
import { STREAMS, type StreamName } from './layout.ts';

/** SHA-256 of each stream, in lower-case hex. */
export type Digests = Record<StreamName, string>;

const CHUNK_BYTES = 256 * 1024;

/** Returns a new SHA-256 hash. */
export function newHash() {
  return process.getBuiltinModule('node:crypto').createHash('sha256');
}

/**
 * Passes an upload on and computes the SHA-256 of each of its streams. `digests` may be called
 * once, at the end.
 */
export function digestStreams(
  source: ByteSource,
  lengths: Readonly<Record<StreamName, number>>,
): ByteSource & { digests(): Digests } {
  const streams = STREAMS.map((name) => ({ name, left: lengths[name], hash: newHash() }));
  return {
    read(buffer) {
      const count = source.read(buffer);
      let at = 0;
      for (const stream of streams) {
        const length = Math.min(stream.left, count - at);
        stream.hash.update(buffer.subarray(at, at + length));
        stream.left -= length;
        at += length;
      }
      return count;
    },
    digests: () => Object.fromEntries(streams.map(({ name, hash }) => [name, hash.digest('hex')])) as Digests,
  };
}

/**
 * SHA-256 of the bytes from `start` to `end` of an open file, or to its end if that comes first.
 * Does not move the file offset.
 */
export function digestRange(fd: number, start: number, end: number): string {
  const hash = newHash();
  for (const block of readRange(fd, start, end)) hash.update(block);
  return hash.digest('hex');
}

/**
 * Yields the bytes from `start` to `end` of an open file, or to its end if that comes first. A
 * block has at most `most` bytes and is valid until the next one is requested. Does not move the
 * file offset.
 */
export function* readRange(fd: number, start: number, end: number, most = CHUNK_BYTES): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(most, Math.max(0, end - start)));
  for (let at = start; at < end; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, end - at), at);
    if (count === 0) return;
    yield buffer.subarray(0, count);
    at += count;
  }
}
