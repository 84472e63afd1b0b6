// Files of JSON lines in which each line is bound to everything before it by a SHA-256: the custody
// record of a server and the journal of a client (docs/protocol.md, sections 8 and 9). Such a file
// is not locked, so no lock can be left behind: a writer determines the size of the file, binds its
// record to the bytes so far, and appends it with one write. Whatever others appended meanwhile is
// bound by the next writer.
import { escapeAscii } from './logline.ts';

/**
 * The content of a record. `event` says what happened, all other fields depend on the writer.
 * Undefined fields are left out.
 */
export interface ChainedFacts {
  event: string;
  [name: string]: unknown;
}

/** A line of the file. */
export interface ChainedRecord {
  /**
   * The range of the file, from the first byte to the offset after the last, whose SHA-256 is
   * `prev`.
   */
  covers: [from: number, to: number];
  prev: string;
  /** SHA-256 of the line up to the comma before this field. */
  sum: string;
  /** The line from its brace on, without a torn line that may precede it. */
  text: string;
}

/** The file as a writer finds it. */
export interface ChainedFile {
  /** The size of the file in bytes at this moment. */
  size: number;
  /** Reads from an offset on; returns the number of bytes, 0 at the end. */
  read(buffer: Uint8Array, offset: number): number;
}

/** A hash of node:crypto. */
export interface Hashing {
  update(data: string | Uint8Array): Hashing;
  digest(encoding: 'hex'): string;
}

/** Returns a new SHA-256 hash. */
export type NewHash = () => Hashing;

/** The longest line with its newline, so that a reader need not buffer more. */
export const MAX_RECORD_BYTES = 1024 * 1024;
/** The number of bytes at the end of a file that are read first: more than most records have. */
export const TAIL_BYTES = 4096;
const CHUNK_BYTES = 256 * 1024;

/** Formats the line of a record, without its newline. */
export function formatChained(
  covers: ChainedRecord['covers'],
  prev: string,
  facts: ChainedFacts,
  newHash: NewHash,
): string {
  const line = escapeAscii(JSON.stringify({ covers, prev, ...facts })).slice(0, -1);
  return `${line},"sum":"${newHash().update(line).digest('hex')}"}`;
}

/**
 * Parses the record in a line; undefined when there is none, as in a line that was never finished.
 * Does not verify the checksum.
 */
export function parseChained(line: string): ChainedRecord | undefined {
  // No text in a record contains this, because there the quote is preceded by a backslash.
  const text = line.slice(line.lastIndexOf('{"covers":['));
  const pattern = /^\{"covers":\[(\d{1,15}),(\d{1,15})\],"prev":"([0-9a-f]{64})",.*,"sum":"([0-9a-f]{64})"\}$/;
  const [, from, to, prev, sum] = pattern.exec(text) ?? [];
  return prev && sum ? { covers: [Number(from), Number(to)], prev, sum, text } : undefined;
}

/** The end of a file, as the writer of the next record must know it. */
export interface ChainedTail {
  /** The last record; undefined when there is none. */
  last: ChainedRecord | undefined;
  /** Whether the last line is unfinished. */
  isTorn: boolean;
}

/**
 * The bytes of the next record of a file. Append them with one write, so that they stay together; a
 * second write could land after another process's record. Throws RangeError for a record over the
 * limit.
 */
export function nextChained(file: ChainedFile, facts: ChainedFacts, newHash: NewHash, tail = findTail(file)): Buffer {
  return nextChainedOf(file, [facts], newHash, tail)[0] as Buffer;
}

/**
 * The bytes of several records to be appended with one write. None of them covers another, as if
 * all had been written at the same moment: another process may append before this write, and then
 * no record is where it was expected. The next writer covers all of them.
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

/** Reads the end of a file back to the beginning of its last record. */
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
