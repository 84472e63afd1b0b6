// Walks a custody record and tells what in it is no longer as it was written. Reads it piece by piece and remembers a few bytes of each
// record, and goes on where it stopped when more was appended. The server never loads it.
import { fstatSync, readSync } from 'node:fs';
import { type CustodyRecord, MAX_RECORD_BYTES, parseCustody } from './custody.ts';
import { digestRange, newHash } from './digest.ts';

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

const BLOCK_BYTES = 256 * 1024;

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

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Behind the last record. */
  get size(): number {
    return (this.#ends.at(-1) ?? 0) - this.#shift;
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
    this.#ends.push(to + this.#shift);
    this.#covered.push(record.covers[1]);
    if (!fault && record.covers[1] > this.#coveredTo) {
      this.#coveredTo = record.covers[1];
      const covered = this.#coveredTo - this.#shift;
      this.#loose = this.#loose
        .filter(({ to }) => to > covered)
        .map((line) => ({ ...line, from: Math.max(line.from, covered) }));
    }
    return { record, from, to, ...(facts && { facts }), ...(fault && { fault }) };
  }

  #findFault({ covers, prev, sum, text }: CustodyRecord, at: number): ChainFault | undefined {
    if (
      newHash()
        .update(text.slice(0, text.lastIndexOf(',"sum":')))
        .digest('hex') !== sum
    )
      return 'edited';
    const [from, to] = covers;
    const isInPlace = this.#shift <= from && from <= to && to <= at + this.#shift && from === this.#coveredBy(to);
    if (!isInPlace || digestRange(this.#fd, from - this.#shift, to - this.#shift) !== prev) return 'broken';
    return to < at + this.#shift && this.#isRepeated(to, text, sum, at) ? 'broken' : undefined;
  }

  /**
   * True for a record that stands there already: put behind others, a copy looks like one whose writer was slow. Of the records that cover
   * up to an offset one may stand right there, or behind the newline that ends a torn line; all others were slow themselves.
   */
  #isRepeated(to: number, text: string, sum: string, at: number): boolean {
    const late = this.#late.get(to) ?? new Set();
    if (late.has(sum)) return true;
    this.#late.set(to, late.add(sum));
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

/** It begins with a brace, so that it is an object when it is JSON. */
function parseFacts(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Every line of an open file from an offset on, a character a byte, without its newline. Of one over a MiB only the end is kept. */
export function* readLines(fd: number, start: number): Generator<{ text: string; from: number; to: number }> {
  const left = fstatSync(fd).size - start;
  if (left <= 0) return;
  const block = Buffer.allocUnsafe(Math.min(BLOCK_BYTES, left));
  let [text, from, at] = ['', start, start];
  for (;;) {
    const count = readSync(fd, block, 0, block.length, at);
    if (count === 0) return;
    const parts = block.toString('latin1', 0, count).split('\n');
    const last = parts.pop() ?? '';
    for (const part of parts) {
      at += part.length + 1;
      yield { text: (text + part).slice(-MAX_RECORD_BYTES), from, to: at };
      text = '';
      from = at;
    }
    at += last.length;
    text = (text + last).slice(-MAX_RECORD_BYTES);
  }
}
