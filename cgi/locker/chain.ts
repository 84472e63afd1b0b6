// Walks a custody record and reports records that are no longer as they were written. Reads it
// piece by piece, remembers a few bytes of each record, and continues where it stopped when more is
// appended. The server does not load this file.
import { fstatSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { type CustodyName, type CustodyRecord, parseCustody, parseCustodyName } from './custody.ts';
import { digestRange, newHash } from './digest.ts';
import { findLines, type Line, readLines } from './lines.ts';

/** The faults that a line can have. */
export type ChainFault =
  /** The record does not match its own checksum, or is not JSON. */
  | 'edited'
  /**
   * The bytes before the record do not match the digest in it: something was changed, removed,
   * inserted or moved.
   */
  | 'broken'
  /**
   * A line that is not a record and that no later record covers: the last record was cut off or
   * damaged, or is being written right now.
   */
  | 'torn';

/** The result of a walk for one record, or for a line that is not one. */
export interface Link {
  /** The record; undefined for a line that is not one. */
  record?: CustodyRecord;
  /** The content of the record; undefined when it is not JSON. */
  facts?: Record<string, unknown>;
  /** The first byte of the record or line, and the offset after its end. */
  from: number;
  to: number;
  fault?: ChainFault;
}

/**
 * The number of bytes before the end of a file that are read again to continue there: slow writers
 * cover up to somewhere in this range.
 */
const RESUME_BYTES = 1024 * 1024;

/** A custody record that is open for reading. The caller keeps the descriptor. */
export class Chain {
  readonly #fd: number;
  /**
   * Where each record ends and how far it covers, in the offsets that the records themselves use.
   */
  readonly #ends: number[] = [];
  readonly #covered: number[] = [];
  /**
   * The difference between offsets in records and offsets in the file, caused by removed bytes. It
   * is 0 unless there was a fault.
   */
  #shift = 0;
  #coveredTo = 0;
  /** Lines that are not records and that nothing covers so far. */
  #loose: Link[] = [];
  /** The checksums of records from slow writers, by the offset up to which they cover. */
  readonly #late = new Map<number, Set<string>>();
  /** The offset up to which complete lines were read. */
  #at = 0;
  /** The number of bytes that were not read; 0 for a walk from the first line. */
  #unread = 0;
  #isLost = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The offset after the last record. */
  get size(): number {
    return (this.#ends.at(-1) ?? 0) - this.#shift;
  }

  /**
   * Whether this chain was resumed, and a record covers only bytes before the part that was read:
   * the fault of that record then means nothing.
   */
  get isLost(): boolean {
    return this.#isLost;
  }

  /**
   * Continues after the first `size` bytes, which the caller knows to be unchanged since a walk
   * found no fault in them. Must be called before walk(). Returns whether a seal is among the last
   * of these records, or undefined when the range that is read contains too little: then the walk
   * begins at the first line.
   */
  resume(size: number): { isSealed: boolean } | undefined {
    const start = Math.max(0, size - RESUME_BYTES);
    let isSealed = false;
    let isWhole = start === 0;
    for (const { text, from, to } of readLines(this.#fd, start)) {
      if (to > size) break;
      const record = isWhole ? parseCustody(text) : undefined;
      if (record) {
        const at = to - 1 - record.text.length;
        if (record.covers[1] < at) this.#noteLate(record);
        this.#note(record.covers[1], to);
        isSealed ||= record.text.includes(',"event":"seal",');
      } else if (isWhole) this.#addLoose(from, to);
      isWhole = true;
    }
    if (this.#ends.at(-1) === size && this.#coveredTo >= start) {
      this.#at = size;
      this.#unread = start;
      return { isSealed };
    }
    this.#ends.length = 0;
    this.#covered.length = 0;
    this.#late.clear();
    this.#loose = [];
    this.#coveredTo = 0;
    return undefined;
  }

  /**
   * Yields every record that was not yet walked, in order, with its fault if it has one. A last
   * line without an end is left for the next time.
   */
  *walk(): Generator<Link> {
    for (const { text, from, to } of readLines(this.#fd, this.#at)) {
      this.#at = to;
      const record = parseCustody(text);
      if (record) yield this.#judge(record, to - 1 - record.text.length, to);
      else this.#addLoose(from, to);
    }
  }

  /** After a walk, the lines that are not records and that no record covers. */
  findTorn(): Link[] {
    const { size } = fstatSync(this.#fd);
    const tail: Link[] = size > this.#at ? [{ from: this.#at, to: size, fault: 'torn' }] : [];
    return [...this.#loose, ...tail];
  }

  /** Merges successive lines, because there can be as many as there are bytes. */
  #addLoose(from: number, to: number): void {
    const last = this.#loose.at(-1);
    if (last?.to === from) last.to = to;
    else this.#loose.push({ from, to, fault: 'torn' });
  }

  #judge(record: CustodyRecord, from: number, to: number): Link {
    const facts = parseFacts(record.text);
    const fault = facts ? this.#findFault(record, from) : 'edited';
    if (fault === 'broken') this.#shift = record.covers[1] - from;
    this.#note(record.covers[1], to + this.#shift, fault !== undefined);
    return { record, from, to, ...(facts && { facts }), ...(fault && { fault }) };
  }

  /**
   * Notes a record that ends at `end` and covers up to `covers`, both in the offsets of the
   * records.
   */
  #note(covers: number, end: number, isFaulty = false): void {
    this.#ends.push(end);
    this.#covered.push(covers);
    if (isFaulty || covers <= this.#coveredTo) return;
    this.#coveredTo = covers;
    const covered = covers - this.#shift;
    this.#loose = this.#loose
      .filter(({ to }) => to > covered)
      .map((line) => ({ ...line, from: Math.max(line.from, covered) }));
  }

  #noteLate({ covers: [, to], sum }: CustodyRecord): void {
    this.#late.set(to, (this.#late.get(to) ?? new Set()).add(sum));
  }

  #findFault(record: CustodyRecord, at: number): ChainFault | undefined {
    const { covers, prev } = record;
    if (!isItself(record)) return 'edited';
    const [from, to] = covers;
    if (this.#unread > 0 && to < (this.#ends[0] ?? 0)) this.#isLost = true;
    const isInPlace = this.#shift <= from && from <= to && to <= at + this.#shift && from === this.#coveredBy(to);
    if (!isInPlace || digestRange(this.#fd, from - this.#shift, to - this.#shift) !== prev) return 'broken';
    return to < at + this.#shift && this.#isRepeated(record, at) ? 'broken' : undefined;
  }

  /**
   * Whether a record already occurred earlier: a copy after other records looks like the record of
   * a slow writer. Of the records that cover up to an offset, only one can begin right there, or
   * after the newline that ends a torn line; all others come from slow writers.
   */
  #isRepeated(record: CustodyRecord, at: number): boolean {
    const {
      covers: [, to],
      text,
      sum,
    } = record;
    if (this.#late.get(to)?.has(sum)) return true;
    this.#noteLate(record);
    const places = [to - this.#shift, to - this.#shift + 1].filter((place) => place < at);
    const buffer = Buffer.allocUnsafe(text.length);
    return places.some((place) => {
      const count = readSync(this.#fd, buffer, 0, buffer.length, place);
      return buffer.toString('latin1', 0, count) === text;
    });
  }

  /** The offset up to which the last record that ends at or before `offset` covers the file. */
  #coveredBy(offset: number): number {
    let [low, high] = [0, this.#ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#ends[middle] ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return this.#covered[low - 1] ?? 0;
  }
}

/**
 * Yields the records of a custody record that contain at least one of the texts. Each is checked
 * against its own checksum, but not against the bytes before it. Returns the offset at which to
 * continue.
 *
 * @param end records after this offset may be skipped
 */
export function* searchChain(
  fd: number,
  start: number,
  texts: readonly string[],
  end?: number,
): Generator<Link, number> {
  const lines = findLines(fd, start, texts, end);
  let step = lines.next();
  for (; !step.done; step = lines.next()) {
    const link = readLink(step.value);
    if (link) yield link;
  }
  return step.value;
}

/** Parses the record in a line; undefined unless it matches its own checksum. */
export function readLink({ text, to }: Line): (Link & { facts: Record<string, unknown> }) | undefined {
  const record = parseCustody(text);
  const facts = record && parseFacts(record.text);
  return record && facts && isItself(record) ? { record, facts, from: to - 1 - record.text.length, to } : undefined;
}

function isItself({ text, sum }: CustodyRecord): boolean {
  const covered = text.slice(0, text.lastIndexOf(',"sum":'));
  return newHash().update(covered).digest('hex') === sum;
}

/** The line begins with a brace, so that JSON in it is an object. */
function parseFacts(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A segment of a custody record in a log directory. */
export interface CustodyFile extends CustodyName {
  /** The path below the log directory. */
  file: string;
}

/**
 * Lists the segments of all custody records in a directory, record by record. Throws the error of
 * the system call.
 */
export function listCustodyFiles(folder: string): CustodyFile[] {
  const names = readdirSync(folder).flatMap((name) =>
    /^nph-webjob-custody\..+\.d$/.test(name) ? listSegments(folder, name) : [name],
  );
  return names
    .flatMap((file) => {
      const name = parseCustodyName(file);
      return name ? [{ file, ...name }] : [];
    })
    .sort((a, b) => (a.serverId === b.serverId ? a.number - b.number : a.serverId < b.serverId ? -1 : 1));
}

function listSegments(folder: string, name: string): string[] {
  try {
    return readdirSync(join(folder, name)).map((file) => `${name}/${file}`);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
