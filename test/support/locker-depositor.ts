// A process that makes deposits: one JSON order on each line of stdin, one JSON result on each line
// of stdout. Tests let several of them race.
import { createInterface } from 'node:readline';
import { type ByteSource, LockerFailure, STREAMS, storeUpload } from '../../cgi/locker/index.ts';

export interface Order {
  base: string;
  /** The streams are filled with it too, so that it is visible whose bytes they are. */
  jobId: string;
  /** The size of each stream in bytes. */
  size: number;
  overwrite: boolean;
}

/** `stored`, or the kind of the failure. */
export interface Result {
  outcome: string;
  message: string;
}

/** The content of each of a depositor's three streams. */
export function contentOf({ jobId, size }: Order): Buffer {
  return Buffer.alloc(size, jobId);
}

const PIECE_BYTES = 1000;

function sourceOf(order: Order): ByteSource {
  const all = Buffer.concat(STREAMS.map(() => contentOf(order)));
  let at = 0;
  return {
    read(buffer) {
      const count = all.copy(buffer, 0, at, Math.min(all.length, at + PIECE_BYTES));
      at += count;
      return count;
    },
  };
}

function deposit(order: Order): Result {
  const { base, jobId, size, overwrite } = order;
  try {
    storeUpload({ base, jobId, overwrite, lengths: { out: size, err: size, env: size } }, sourceOf(order));
    return { outcome: 'stored', message: '' };
  } catch (error) {
    if (!(error instanceof LockerFailure)) throw error;
    return { outcome: error.kind, message: error.message };
  }
}

if (import.meta.main) {
  process.umask(0o022);
  process.stdout.write('ready\n');
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(deposit(JSON.parse(line)))}\n`);
  }
}
