// Files of JSON lines, each bound to all that stands before it by a SHA-256: the custody record of a server and the journal of a client
// (docs/protocol.md, sections 8 and 9). Nobody locks such a file, so nobody can leave a lock behind: a writer looks how long the file is,
// binds its record to the bytes so far, and appends it with one write. What others appended meanwhile is bound by whoever comes next.
import { escapeAscii } from './logline.ts';

/** What a record tells; `event` says what happened, the rest is the writer's. What is undefined is left out. */
export interface ChainedFacts {
  event: string;
  [name: string]: unknown;
}

/** A line of the file. */
export interface ChainedRecord {
  /** The bytes of the file, first and behind the last, that `prev` is the SHA-256 of. */
  covers: [from: number, to: number];
  prev: string;
  /** SHA-256 of the line up to the comma before this field. */
  sum: string;
  /** The line from its brace on: what a torn line left in front of it is no part of it. */
  text: string;
}

/** The file as a writer finds it. */
export interface ChainedFile {
  /** Its bytes at this moment. */
  size: number;
  /** Reads from an offset on; returns how many bytes came, 0 at the end. */
  read(buffer: Uint8Array, offset: number): number;
}

/** A hash of node:crypto. */
export interface Hashing {
  update(data: string | Uint8Array): Hashing;
  digest(encoding: 'hex'): string;
}

/** Makes a SHA-256 that has seen nothing yet. */
export type NewHash = () => Hashing;

/** The longest line, with its newline: whoever reads such a file need not hold more of it. */
export const MAX_RECORD_BYTES = 1024 * 1024;
/** How much of the end of a file is read at first: more than a record usually has. */
export const TAIL_BYTES = 4096;
const CHUNK_BYTES = 256 * 1024;

/** The line of a record, without its newline. */
export function formatChained(
  covers: ChainedRecord['covers'],
  prev: string,
  facts: ChainedFacts,
  newHash: NewHash,
): string {
  const line = escapeAscii(JSON.stringify({ covers, prev, ...facts })).slice(0, -1);
  return `${line},"sum":"${newHash().update(line).digest('hex')}"}`;
}

/** The record in a line; undefined when there is none, as in a line that was never finished. Does not compute the sum. */
export function parseChained(line: string): ChainedRecord | undefined {
  // No text in a record holds this: there the quote has a backslash before it.
  const text = line.slice(line.lastIndexOf('{"covers":['));
  const pattern = /^\{"covers":\[(\d{1,15}),(\d{1,15})\],"prev":"([0-9a-f]{64})",.*,"sum":"([0-9a-f]{64})"\}$/;
  const [, from, to, prev, sum] = pattern.exec(text) ?? [];
  return prev && sum ? { covers: [Number(from), Number(to)], prev, sum, text } : undefined;
}

/** The end of a file, as the writer of its next record must know it. */
export interface ChainedTail {
  /** The last record; undefined where there is none. */
  last: ChainedRecord | undefined;
  /** Somebody left his line unfinished. */
  isTorn: boolean;
}

/**
 * The bytes of the next record of a file: to be appended with one write, so that it lands in one piece, for a second one could land behind
 * the record of another. Throws RangeError for a record over the limit.
 */
export function nextChained(file: ChainedFile, facts: ChainedFacts, newHash: NewHash, tail = findTail(file)): Buffer {
  return nextChainedOf(file, [facts], newHash, tail)[0] as Buffer;
}

/**
 * The same for several records that are appended with one write. None of them covers another, as if their writers had come
 * at the same moment: another process may append between the look and the write, and then none of them is where it was
 * expected. Whoever comes next covers all of them.
 */
export function nextChainedOf(
  file: ChainedFile,
  all: readonly ChainedFacts[],
  newHash: NewHash,
  { last, isTorn }: ChainedTail,
): Buffer[] {
  const from = Math.min(last?.covers[1] ?? 0, file.size);
  const prev = digest(file, from, newHash);
  return all.map((facts, index) => {
    const line = formatChained([from, file.size], prev, facts, newHash);
    const bytes = Buffer.from(`${isTorn && index === 0 ? '\n' : ''}${line}\n`);
    if (bytes.length > MAX_RECORD_BYTES) throw new RangeError('a record of a chain is over its limit');
    return bytes;
  });
}

function digest(file: ChainedFile, from: number, newHash: NewHash): string {
  const hash = newHash();
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, file.size - from));
  for (let at = from; at < file.size; ) {
    const count = file.read(buffer.subarray(0, file.size - at), at);
    if (count === 0) break;
    hash.update(buffer.subarray(0, count));
    at += count;
  }
  return hash.digest('hex');
}

/** Reads back as far as the last record begins. */
export function findTail(file: ChainedFile): ChainedTail {
  for (let length = TAIL_BYTES; ; length *= 8) {
    const tail = Buffer.alloc(Math.min(length, file.size));
    file.read(tail, file.size - tail.length);
    const lines = tail.toString('latin1').split('\n');
    const isTorn = lines.pop() !== '';
    const last = lines.map(parseChained).findLast((record) => record !== undefined);
    if (last || length >= file.size) return { last, isTorn };
  }
}
