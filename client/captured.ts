// What a program printed, on its way to the server. Its length is taken once, so that the hash in the record, the announced length and
// the bytes sent agree even while a background process of the program still writes.
import { createHash } from 'node:crypto';
import { createReadStream, fstatSync } from 'node:fs';

export interface Captured {
  fd: number;
  length: number;
}

/** What lies behind a descriptor at this moment. */
export function takeLength(fd: number): Captured {
  return { fd, length: fstatSync(fd).size };
}

/** The bytes up to the length taken. Throws Error when the file has become shorter than that. */
export async function* readCaptured({ fd, length }: Captured): AsyncGenerator<Buffer> {
  if (length === 0) return;
  const range = { start: 0, end: length - 1, highWaterMark: 64 * 1024 };
  let left = length;
  for await (const chunk of createReadStream('', { fd, autoClose: false, ...range })) {
    left -= chunk.length;
    yield chunk;
  }
  if (left > 0) throw new Error('the output became shorter while it was read');
}

/** The digest in lower-case hex. */
export async function hashCaptured(type: string, captured: Captured): Promise<string> {
  const hash = createHash(type.toLowerCase());
  for await (const chunk of readCaptured(captured)) hash.update(chunk);
  return hash.digest('hex');
}
