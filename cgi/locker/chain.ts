// Walks a custody record and tells what in it is no longer as it was written. Reads it piece by piece and remembers a few bytes of each
// record, and goes on where it stopped when more was appended. The server never loads it.
import { fstatSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { type CustodyName, type CustodyRecord, parseCustody, parseCustodyName } from './custody.ts';
import { digestRange, newHash } from './digest.ts';
import { findLines, type Line, readLines } from './lines.ts';

/** What can be wrong with a line. */
export type ChainFault =
  /** The record is not what its own sum says, or no JSON. */
  | 'edited'
  /** What it is bound to is not what stands before it: something was changed, taken out, put in or moved. */
  | 'broken'
  /** No record, and no later record covers it: the last one was cut off or spoilt, or is being written at this moment. */
  | 'torn';

/** What a walk says of one record, or of a line without one. */
export interface Link {
  /** Undefined for a line without one. */
  record?: CustodyRecord;
  /** What the record tells; undefined when it is no JSON. */
  facts?: Record<string, unknown>;
  /** The bytes of the record, or of the line without one: first, and behind the last. */
  from: number;
  to: number;
  fault?: ChainFault;
}

/** How far before its end a record is looked at to go on behind it: slow writers cover up to somewhere in it. */
const RESUME_BYTES = 1024 * 1024;

/** A custody record that is open for reading; the descriptor stays the caller's. */
export class Chain {
  readonly #fd: number;
  /** Where each record ended and up to where it covered, in the offsets that the records themselves use. */
  readonly #ends: number[] = [];
  readonly #covered: number[] = [];
  /** What the offsets in the records are ahead of those in the file: bytes that were taken out. Not 0 only behind a fault. */
  #shift = 0;
  #coveredTo = 0;
  /** Lines without a record that nothing covers so far. */
  #loose: Link[] = [];
  /** The sums of the records whose writers were slow, by the offset up to which they cover. */
  readonly #late = new Map<number, Set<string>>();
  /** Up to where it was read, in whole lines. */
  #at = 0;
  /** What was not looked at; 0 for a record that was walked from its first line. */
  #unread = 0;
  #isLost = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Behind the last record. */
  get size(): number {
    return (this.#ends.at(-1) ?? 0) - this.#shift;
  }

  /** True when it went on behind what was known, and a record met covers up to somewhere that was not looked at: its fault says nothing. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /**
   * Goes on behind the first `size` bytes, which the caller knows to be as they were when no fault was found in them. Call before any walk.
   * Returns whether a seal is among the last of them; undefined when too little of them was looked at: then the walk begins at the first line.
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

  /** Every record that was not walked yet, in order, with what is wrong with it. A last line without an end is left for the next time. */
  *walk(): Generator<Link> {
    for (const { text, from, to } of readLines(this.#fd, this.#at)) {
      this.#at = to;
      const record = parseCustody(text);
      if (record) yield this.#judge(record, to - 1 - record.text.length, to);
      else this.#addLoose(from, to);
    }
  }

  /** What no record covers, and is none, when a walk is over. */
  findTorn(): Link[] {
    const { size } = fstatSync(this.#fd);
    const tail: Link[] = size > this.#at ? [{ from: this.#at, to: size, fault: 'torn' }] : [];
    return [...this.#loose, ...tail];
  }

  /** Lines that follow one another are one: there can be as many as there are bytes. */
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

  /** A record that ends at `end` and covers up to an offset, both in the offsets of the records. */
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
   * True for a record that stands there already: put behind others, a copy looks like one whose writer was slow. Of the records that cover
   * up to an offset one may stand right there, or behind the newline that ends a torn line; all others were slow themselves.
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

  /** Up to where the last record that ended at `offset` or before it covers. */
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
 * The records of a custody record that hold one of some texts. Each is held against its own sum,
 * none against what stands before it. Returns where to go on.
 */
export function* searchChain(fd: number, start: number, texts: readonly string[]): Generator<Link, number> {
  const lines = findLines(fd, start, texts);
  let step = lines.next();
  for (; !step.done; step = lines.next()) {
    const link = readLink(step.value);
    if (link) yield link;
  }
  return step.value;
}

/** The record in a line, when it is what its own sum says. */
export function readLink({ text, to }: Line): (Link & { facts: Record<string, unknown> }) | undefined {
  const record = parseCustody(text);
  const facts = record && parseFacts(record.text);
  return record && facts && isItself(record) ? { record, facts, from: to - 1 - record.text.length, to } : undefined;
}

function isItself({ text, sum }: CustodyRecord): boolean {
  const covered = text.slice(0, text.lastIndexOf(',"sum":'));
  return newHash().update(covered).digest('hex') === sum;
}

/** It begins with a brace, so that it is an object when it is JSON. */
function parseFacts(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A segment of a custody record that lies in a folder of logs. */
export interface CustodyFile extends CustodyName {
  /** Its path below that folder. */
  file: string;
}

/**
 * The segments of all custody records in a folder, record by record. Throws the error of the system
 * call.
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
