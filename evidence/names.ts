// What ought to be in a locker, by name, in a few bytes a name: a Map ends at 2^24 entries and takes ten times the memory. A name is known
// by 64 bits of a keyed SHA-256, which nobody can aim at who does not know the key of this process.
import { hash, randomBytes } from 'node:crypto';

const FIRST_CAPACITY = 1024;
const USED = 1;
const SEEN = 2;
const KEY = randomBytes(16).toString('hex');

/** A part of all names, when they are too many to be held at once: those that fall to `index` of `count`. */
export interface Share {
  index: number;
  count: number;
}

/** The two halves of what a name is known by. */
function digestName(name: string): [low: number, high: number] {
  const bytes = hash('sha256', KEY + name, 'buffer');
  return [bytes.readUInt32LE(0), bytes.readUInt32LE(4)];
}

/** No name at all. */
export const NO_NAMES: Share = { index: 0, count: 0 };

/** True for a name of this share, the same for every table of a process. */
export function isInShare(name: string, { index, count }: Share): boolean {
  return count === 1 || (count > 1 && digestName(name)[1] % count === index);
}

/** An open hash table of columns. A row, once it is there, is found under the same number until the next `add`. */
export class NameTable {
  #size = 0;
  #flags = new Uint8Array(FIRST_CAPACITY);
  #low = new Uint32Array(FIRST_CAPACITY);
  #high = new Uint32Array(FIRST_CAPACITY);
  /** Which file holds the last deposit, plus one, and where it begins; 0 when none is known. */
  file = new Uint32Array(FIRST_CAPACITY);
  at = new Float64Array(FIRST_CAPACITY);
  /** Milliseconds: when it was deposited last, and when it was taken out of the locker last, 0 for never. */
  time = new Float64Array(FIRST_CAPACITY);
  gone = new Float64Array(FIRST_CAPACITY);

  get size(): number {
    return this.#size;
  }

  /** The row of a name; -1 for one that is not there. */
  find(name: string): number {
    const [low, high] = digestName(name);
    const row = this.#probe(low, high);
    return this.#flags[row] ? row : -1;
  }

  /** The row of a name, which is made when it is not there. */
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

  /** Tells whether a name is that of a row, also when the row has moved. */
  matcher(row: number): (name: string) => boolean {
    const [low, high] = [this.#low[row], this.#high[row]];
    return (name) => {
      const digest = digestName(name);
      return digest[0] === low && digest[1] === high;
    };
  }

  /** Notes that a name was met in the locker. */
  markSeen(name: string): void {
    const row = this.find(name);
    if (row >= 0) this.#flags[row] = USED | SEEN;
  }

  *rows(): Generator<number> {
    for (let row = 0; row < this.#flags.length; row++) if (this.#flags[row]) yield row;
  }

  /** The rows of names that were not met. */
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
