// Which uploads root has seen in a large directory of the locker, and when each arrived. The table
// is kept beside the witness, where only root writes. A check of new uploads must list a directory
// with a single new name; thanks to the table, it asks the file system only about new names.
import { hash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { reachFolder } from 'webjob-locker';
import { removeFile, replaceFile } from '../cli/files.ts';
import { KEY_BYTES, KeyedDigest } from './keyed-digest.ts';

/** In a directory with fewer uploads, every upload is checked. */
export const LARGE_FOLDER = 1000;
const PREFIX = 'locker-names.';
const FIRST_CAPACITY = 4096;
const ROW_BYTES = 16;
/** The arrival time of a name that was not seen. */
const NEVER = Number.POSITIVE_INFINITY;

interface Head {
  format: 1;
  locker: string;
  folder: string;
  count: number;
  /** A secret key in hex: only root can tell which names would collide. */
  key: string;
  /** The SHA-256 of the bytes that follow. */
  sha256: string;
}

/** An open hash table of the upload names in one directory, without extensions. */
export class MetNames {
  readonly #path: string;
  readonly #locker: string;
  readonly #folder: string;
  readonly #digest: KeyedDigest;
  #size = 0;
  #low = new Uint32Array(FIRST_CAPACITY);
  #high = new Uint32Array(FIRST_CAPACITY);
  /** Arrival times in milliseconds; 0 in a free slot. */
  #at = new Float64Array(FIRST_CAPACITY);
  #isThere = new Uint8Array(FIRST_CAPACITY);
  #isChanged = false;

  /**
   * Loads the table of `folder`, a path below the locker, from the witness's directory. A damaged
   * table counts as empty.
   */
  constructor(witnessFolder: string, locker: string, folder: string) {
    this.#path = join(witnessFolder, PREFIX + hash('sha256', `${locker}\0${folder}`).slice(0, 16));
    this.#locker = locker;
    this.#folder = folder;
    const kept = readKept(this.#path);
    this.#digest = new KeyedDigest(kept ? Buffer.from(kept.head.key, 'hex') : randomBytes(KEY_BYTES));
    if (kept) this.#fill(kept.rows, kept.head.count);
  }

  #fill(rows: ArrayBuffer, count: number): void {
    let capacity = FIRST_CAPACITY;
    while (count * 4 >= capacity * 3) capacity *= 2;
    this.#clear(capacity);
    const [at, digests] = [new Float64Array(rows, 0, count), new Uint32Array(rows, count * 8)];
    for (let row = 0; row < count; row++) this.#put(digests[2 * row] ?? 0, digests[2 * row + 1] ?? 0, at[row] ?? 0);
  }

  #clear(capacity: number): void {
    [this.#low, this.#high] = [new Uint32Array(capacity), new Uint32Array(capacity)];
    [this.#at, this.#isThere] = [new Float64Array(capacity), new Uint8Array(capacity)];
    this.#size = 0;
  }

  /**
   * The arrival time of the upload that a file belongs to, in milliseconds. `isReady` means that
   * the file is the `.rdy`. Infinite for an upload that was not seen.
   */
  cameAt(file: string, isReady: boolean): number {
    if (!this.#digest.take(file, file.lastIndexOf('.'))) return NEVER;
    const row = this.#probe(this.#digest.low, this.#digest.high);
    const at = this.#at[row] ?? 0;
    if (at === 0) return NEVER;
    if (isReady) this.#isThere[row] = 1;
    return at;
  }

  /** Notes the arrival time of an upload that is complete. */
  note(name: string, at: number): void {
    const own = name.slice(name.lastIndexOf('/') + 1);
    if (!this.#digest.take(own, own.length) || !(at > 0)) return;
    const { low, high } = this.#digest;
    if ((this.#size + 1) * 4 >= this.#at.length * 3) this.#grow();
    const row = this.#put(low, high, at);
    this.#isThere[row] = 1;
    this.#isChanged = true;
  }

  #put(low: number, high: number, at: number): number {
    const row = this.#probe(low, high);
    if (this.#at[row] === 0) this.#size++;
    this.#low[row] = low;
    this.#high[row] = high;
    this.#at[row] = at;
    return row;
  }

  #probe(low: number, high: number): number {
    const mask = this.#at.length - 1;
    let row = low & mask;
    while (this.#at[row] !== 0 && (this.#low[row] !== low || this.#high[row] !== high)) row = (row + 1) & mask;
    return row;
  }

  #grow(): void {
    const [low, high, at, isThere] = [this.#low, this.#high, this.#at, this.#isThere];
    this.#clear(at.length * 2);
    for (const [row, one] of at.entries()) {
      if (one === 0) continue;
      const to = this.#put(low[row] ?? 0, high[row] ?? 0, one);
      this.#isThere[to] = isThere[row] ?? 0;
    }
  }

  /**
   * Saves the table when it is large, and removes tables of directories that no longer exist. Only
   * for root, one process at a time. Throws the error of a system call.
   */
  save(): void {
    const there: number[] = [];
    for (let row = 0; row < this.#at.length; row++) if (this.#isThere[row]) there.push(row);
    const count = there.length;
    if (!this.#isChanged && count === this.#size) return;
    if (count < LARGE_FOLDER) removeFile(this.#path);
    else {
      if (!existsSync(this.#path)) forgetGoneFolders(dirname(this.#path), this.#locker);
      const rows = new ArrayBuffer(count * ROW_BYTES);
      const [at, digests] = [new Float64Array(rows, 0, count), new Uint32Array(rows, count * 8)];
      for (const [to, row] of there.entries()) {
        at[to] = this.#at[row] ?? 0;
        digests[2 * to] = this.#low[row] ?? 0;
        digests[2 * to + 1] = this.#high[row] ?? 0;
      }
      const body = Buffer.from(rows);
      const key = this.#digest.key.toString('hex');
      const facts = { locker: this.#locker, folder: this.#folder, count, key, sha256: hash('sha256', body) };
      const head: Head = { format: 1, ...facts };
      replaceFile(this.#path, Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body]), { mode: 0o600 });
    }
  }
}

/** Removes the tables of directories of a locker that no longer exist. */
function forgetGoneFolders(witnessFolder: string, locker: string): void {
  for (const name of readdirSync(witnessFolder)) {
    if (!name.startsWith(PREFIX)) continue;
    const head = readKept(join(witnessFolder, name))?.head;
    if (head?.locker !== locker) continue;
    if (!lstatSync(reachFolder(locker, head.folder || '.'), { throwIfNoEntry: false }))
      removeFile(join(witnessFolder, name));
  }
}

/** Reads a table: times, then digests, in this machine's byte order. */
function readKept(path: string): { head: Head; rows: ArrayBuffer } | undefined {
  try {
    const bytes = readFileSync(path);
    const end = bytes.indexOf(10);
    const head = JSON.parse(bytes.toString('latin1', 0, end)) as Head;
    const rows = bytes.subarray(end + 1);
    const isWhole = head.format === 1 && rows.length === head.count * ROW_BYTES;
    // Typed arrays need an alignment that only a copy has.
    return isWhole && hash('sha256', rows) === head.sha256 ? { head, rows: new Uint8Array(rows).buffer } : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
