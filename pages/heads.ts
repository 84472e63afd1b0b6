// The parts of a job's streams that a page shows: the beginning of each, and the run record, but
// never a whole stream.
import { STREAMS, type StreamName } from 'webjob-locker';
import { MAX_ENV_BYTES } from '../evidence/upload.ts';
import type { Stored, StoredStream } from '../ledger/streams.ts';
import { MAX_TEXT_BYTES, type StreamHead } from './stream.ts';

export type Heads = Partial<Record<StreamName, StreamHead>>;

/**
 * Reads the beginnings of streams. Throws the error of the system call for a stream that cannot be
 * read, and Failure for a damaged archive.
 */
export async function readHeads(stored: Stored): Promise<Heads> {
  const heads: Heads = {};
  for (const name of STREAMS) {
    const stream = stored[name];
    if (stream) heads[name] = await readHead(stream, name === 'env' ? MAX_ENV_BYTES : MAX_TEXT_BYTES);
  }
  return heads;
}

async function readHead(stored: StoredStream, maxBytes: number): Promise<StreamHead> {
  const head = Buffer.alloc(Math.min(maxBytes, stored.bytes));
  let length = 0;
  for await (const chunk of stored.read()) {
    length += chunk.copy(head, length);
    if (length === head.length) break;
  }
  return { head: head.subarray(0, length), size: stored.bytes };
}
