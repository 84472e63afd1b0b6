// Which uploads root has met in a large folder of a locker, and when each came: kept beside the witness, where only root writes. Whoever looks for
// what came since asks the system then only of names that are new, as one new name is reason enough to read the folder.
import { hash, randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { reachFolder } from 'webjob-locker';
import { removeFile, replaceFile } from '../cli/files.ts';
import { KEY_BYTES, KeyedDigest } from './keyed-digest.ts';

/** In a smaller folder every upload is looked at. */
export const LARGE_FOLDER = 1000;
const PREFIX = 'locker-names.';
const FIRST_CAPACITY = 4096;
const ROW_BYTES = 16;
/** What is said of a name that was not met. */
const NEVER = Number.POSITIVE_INFINITY;

interface Head {
  format: 1;
  locker: string;
  folder: string;
  count: number;
  /** Hex: nobody but root can tell which names would be taken for one another. */
  key: string;
  /** Of what follows. */
  sha256: string;
}

/** An open hash table of the names in one folder, without what their extensions are. */
export class MetNames {
  readonly #path: string;
  readonly #locker: string;
  readonly #folder: string;
  readonly #digest: KeyedDigest;
  #size = 0;
  #low = new Uint32Array(FIRST_CAPACITY);
  #high = new Uint32Array(FIRST_CAPACITY);
  /** Milliseconds: when each came; 0 in a row that is free. */
  #at = new Float64Array(FIRST_CAPACITY);
  #isThere = new Uint8Array(FIRST_CAPACITY);
  #isChanged = false;

  /** Reads what is kept of `folder`, a path below a locker, in the folder of the witness. What is damaged was not kept. */
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

  /** When the upload of a file came, as it was last looked at; `isReady` tells that it is there. Infinite for one that was not met. */
  cameAt(file: string, isReady: boolean): number {
    if (!this.#digest.take(file, file.lastIndexOf('.'))) return NEVER;
    const row = this.#probe(this.#digest.low, this.#digest.high);
    const at = this.#at[row] ?? 0;
    if (at === 0) return NEVER;
    if (isReady) this.#isThere[row] = 1;
    return at;
  }

  /** Notes when an upload came that is there as a whole. */
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

  /** Keeps what is there, if that is many, and nothing of folders that are gone. For root, one at a time. Throws the error of a system call. */
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

/** Forgets what is kept of folders of a locker that are no longer there. */
function forgetGoneFolders(witnessFolder: string, locker: string): void {
  for (const name of readdirSync(witnessFolder)) {
    if (!name.startsWith(PREFIX)) continue;
    const head = readKept(join(witnessFolder, name))?.head;
    if (head?.locker !== locker) continue;
    if (!lstatSync(reachFolder(locker, head.folder || '.'), { throwIfNoEntry: false }))
      removeFile(join(witnessFolder, name));
  }
}

/** Times, then digests, in the order of bytes that this machine has. */
function readKept(path: string): { head: Head; rows: ArrayBuffer } | undefined {
  try {
    const bytes = readFileSync(path);
    const end = bytes.indexOf(10);
    const head = JSON.parse(bytes.toString('latin1', 0, end)) as Head;
    const rows = bytes.subarray(end + 1);
    const isWhole = head.format === 1 && rows.length === head.count * ROW_BYTES;
    // A copy is aligned to its numbers.
    return isWhole && hash('sha256', rows) === head.sha256 ? { head, rows: new Uint8Array(rows).buffer } : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
