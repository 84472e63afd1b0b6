// The uploads that should be in a locker, by name, in a few bytes each: a Map is limited to 2^24
// entries and takes ten times the memory. A name is represented by 64 bits of a keyed SHA-256;
// without this process's key nobody can construct a collision.
import { hash, randomBytes } from 'node:crypto';

const FIRST_CAPACITY = 1024;
const USED = 1;
const SEEN = 2;
const KEY = randomBytes(16).toString('hex');

/**
 * A part of all names, for a locker with too many to hold in memory: the names that hash to `index`
 * modulo `count`.
 */
export interface Share {
  index: number;
  count: number;
}

/** The 64 bits that represent a name, as two integers. */
function digestName(name: string): [low: number, high: number] {
  const bytes = hash('sha256', KEY + name, 'buffer');
  return [bytes.readUInt32LE(0), bytes.readUInt32LE(4)];
}

/** A share without any name. */
export const NO_NAMES: Share = { index: 0, count: 0 };

/** Whether a name is in this share; the answer is the same for every table of a process. */
export function isInShare(name: string, { index, count }: Share): boolean {
  return count === 1 || (count > 1 && digestName(name)[1] % count === index);
}

/** An open hash table in columns. The number of a row is valid until the next add(). */
export class NameTable {
  #size = 0;
  #flags = new Uint8Array(FIRST_CAPACITY);
  #low = new Uint32Array(FIRST_CAPACITY);
  #high = new Uint32Array(FIRST_CAPACITY);
  /**
   * The number of the file with the last deposit, plus one, and the record's offset in it; 0 when
   * unknown.
   */
  file = new Uint32Array(FIRST_CAPACITY);
  at = new Float64Array(FIRST_CAPACITY);
  /**
   * When the upload was last deposited and last removed from the locker, in milliseconds; 0 for
   * never.
   */
  time = new Float64Array(FIRST_CAPACITY);
  gone = new Float64Array(FIRST_CAPACITY);

  get size(): number {
    return this.#size;
  }

  /** Returns the row of a name, or -1. */
  find(name: string): number {
    const [low, high] = digestName(name);
    const row = this.#probe(low, high);
    return this.#flags[row] ? row : -1;
  }

  /** Returns the row of a name, and adds one when there is none. */
  add(name: string): number {
    const [low, high] = digestName(name);
    let row = this.#probe(low, high);
    if (this.#flags[row]) return row;
    if (this.#size * 4 >= this.#flags.length * 3) {
      this.#grow();
      row = this.#probe(low, high);
    }
    this.#size++;
    this.#flags[row] = USED;
    this.#low[row] = low;
    this.#high[row] = high;
    return row;
  }

  /** Returns a function that recognises the name of a row, even after the row has moved. */
  matcher(row: number): (name: string) => boolean {
    const [low, high] = [this.#low[row], this.#high[row]];
    return (name) => {
      const digest = digestName(name);
      return digest[0] === low && digest[1] === high;
    };
  }

  /** Notes that a name was seen in the locker. */
  markSeen(name: string): void {
    const row = this.find(name);
    if (row >= 0) this.#flags[row] = USED | SEEN;
  }

  *rows(): Generator<number> {
    for (let row = 0; row < this.#flags.length; row++) if (this.#flags[row]) yield row;
  }

  /** Yields the rows of names that were not seen. */
  *unseen(): Generator<number> {
    for (let row = 0; row < this.#flags.length; row++) if (this.#flags[row] === USED) yield row;
  }

  #probe(low: number, high: number): number {
    const mask = this.#flags.length - 1;
    let row = low & mask;
    while (this.#flags[row] && (this.#low[row] !== low || this.#high[row] !== high)) row = (row + 1) & mask;
    return row;
  }

  #grow(): void {
    const { file, at, time, gone } = this;
    const [flags, low, high] = [this.#flags, this.#low, this.#high];
    const capacity = flags.length * 2;
    this.#flags = new Uint8Array(capacity);
    [this.#low, this.#high, this.file] = [
      new Uint32Array(capacity),
      new Uint32Array(capacity),
      new Uint32Array(capacity),
    ];
    [this.at, this.time, this.gone] = [
      new Float64Array(capacity),
      new Float64Array(capacity),
      new Float64Array(capacity),
    ];
    for (const [row, flag] of flags.entries()) {
      if (!flag) continue;
      const to = this.#probe(low[row] ?? 0, high[row] ?? 0);
      this.#flags[to] = flag;
      this.#low[to] = low[row] ?? 0;
      this.#high[to] = high[row] ?? 0;
      this.file[to] = file[row] ?? 0;
      this.at[to] = at[row] ?? 0;
      this.time[to] = time[row] ?? 0;
      this.gone[to] = gone[row] ?? 0;
    }
  }
}
