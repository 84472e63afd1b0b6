// A custody record as a transparency log (RFC 6962): its lines, segment by segment, are the leaves
// of a Merkle tree (docs/protocol.md, section 8). The hashes of whole subtrees are stored where
// only root writes, so that the cost of a checkpoint or proof depends only on the new lines.
import { closeSync, constants, ftruncateSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { readLines, readRange } from 'webjob-locker';
import { syncFile, syncFolder } from 'webjob-locker/durable';
import { Failure } from '../cli/failure.ts';
import { replaceFile } from '../cli/files.ts';
import {
  emptyRoot,
  HASH_BYTES,
  hashesOf,
  hashLeaf,
  hashNode,
  proveConsistency,
  proveInclusion,
  rootOf,
  storedCount,
  storedIndex,
} from './merkle.ts';
import { openCustodyFile } from './records.ts';

/** A segment of the record, up to the end of its last complete record. */
export interface Segment {
  /** The path below the log directory. */
  file: string;
  number: number;
  size: number;
}

/** A segment in the state in which its lines became leaves. */
interface Grown extends Segment {
  /** SHA-256 of its first `size` bytes, in lower-case hex. */
  head: string;
}

interface State {
  format: 1;
  origin: string;
  /** 1, increased by one each time the record was adopted with different content. */
  generation: number;
  /** The number of entries in the tree. */
  size: number;
  segments: Grown[];
}

/** The place of an entry: the bytes of its line without the newline. */
export interface Place {
  number: number;
  from: number;
  to: number;
}

export interface TreeOptions {
  /** The log directory of the record. */
  logs: string;
  serverId: string;
  /**
   * The beginning of the origin of its checkpoints, used until the first one is stored:
   * `example.org/webjob`.
   */
  origin: string;
  /** The directory for the hashes; undefined when they are computed each time. */
  folder: string | undefined;
  /** Returns the SHA-256 of the first bytes of a segment. */
  digest: (file: string, size: number) => string;
}

const PLACE_BYTES = 8;
/** A place as one integer: the number of the segment, then the offset after the line. */
const SEGMENT_SHIFT = 40n;
const CHUNK_ROWS = 32_768;

export class CustodyTree {
  readonly #options: TreeOptions;
  readonly #hashes: Rows;
  readonly #places: Rows;
  #segments: Grown[];
  #size: number;
  /** The number of entries in the store. */
  #kept: number;
  #origin: string;
  #generation: number;
  #isNew: boolean;
  /** Files of the log that this one replaces. */
  #given: string[] = [];

  /**
   * Loads the stored part of the tree. Throws Failure for a damaged store, and the error of a
   * system call.
   */
  constructor(options: TreeOptions) {
    this.#options = options;
    const state = options.folder === undefined ? undefined : readState(pathOf(options, 'json'));
    this.#isNew = state === undefined;
    this.#origin = state?.origin ?? `${options.origin}/${options.serverId}`;
    this.#generation = state?.generation ?? 1;
    this.#segments = state?.segments ?? [];
    this.#size = state?.size ?? 0;
    this.#kept = this.#size;
    this.#hashes = new Rows(this.#rowsPath('hashes'), HASH_BYTES, storedCount(this.#size));
    this.#places = new Rows(this.#rowsPath('places'), PLACE_BYTES, this.#size);
  }

  /** The name of this log in checkpoints. It does not change after the first checkpoint. */
  get origin(): string {
    return this.#origin;
  }

  /** The number of entries. */
  get size(): number {
    return this.#size;
  }

  /** Whether nothing of this log has been stored. */
  get isNew(): boolean {
    return this.#isNew;
  }

  /** The root of the tree of the first `size` entries. */
  root(size = this.#size): Buffer {
    return rootOf(size, this.#read);
  }

  /** The audit path of an entry. Throws RangeError for an entry that is not in a tree of `size`. */
  proveInclusion(index: number, size: number): Buffer[] {
    return proveInclusion(index, size, this.#read);
  }

  /** The consistency proof between two sizes. Throws RangeError. */
  proveConsistency(older: number, newer: number): Buffer[] {
    return proveConsistency(older, newer, this.#read);
  }

  /** The segment in the tree whose content has changed; undefined when none has. */
  findChanged(segments: readonly Segment[]): string | undefined {
    return this.#segments.find(({ file, number, size, head }) => {
      const now = segments.find((segment) => segment.number === number);
      return !now || now.size < size || this.#options.digest(file, size) !== head;
    })?.file;
  }

  /**
   * Adds the lines that are new. findChanged() must have found nothing. With `isKept` the rows are
   * written to the store after each segment, and become valid with save(). Throws the error of a
   * system call.
   */
  grow(segments: readonly Segment[], isKept = false): void {
    const last = this.#segments.at(-1)?.number ?? 0;
    const behind = segments.filter(({ number }) => number >= last).sort((a, b) => a.number - b.number);
    for (const { file, number, size } of behind) {
      const known = this.#segments.find((segment) => segment.number === number);
      if (known && known.size === size) continue;
      this.#addLines(file, number, known?.size ?? 0, size);
      const grown = { file, number, size, head: this.#options.digest(file, size) };
      if (known) Object.assign(known, grown);
      else this.#segments.push(grown);
      if (isKept) this.#saveRows();
    }
  }

  /**
   * Starts a new log with an origin of its own, for a record that was adopted with different
   * content.
   */
  begin(): void {
    this.#given = ['hashes', 'places'].map((kind) => this.#rowsPath(kind));
    const base = this.#generation === 1 ? this.#origin : this.#origin.replace(/\/r\d+$/, '');
    this.#generation += 1;
    this.#origin = `${base}/r${this.#generation}`;
    this.#isNew = true;
    this.#segments = [];
    this.#size = 0;
    this.#kept = 0;
    this.#hashes.clear();
    this.#places.clear();
  }

  /**
   * The index of the entry whose line ends before byte `to` of a segment; undefined when there is
   * none.
   */
  find(number: number, to: number): number | undefined {
    const wanted = packPlace(number, to);
    let [low, high] = [0, this.#size];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.#placeAt(middle) < wanted) low = middle + 1;
      else high = middle;
    }
    return low < this.#size && this.#placeAt(low) === wanted ? low : undefined;
  }

  /** The place of an entry. */
  place(index: number): Place {
    const { number, to } = unpackPlace(this.#placeAt(index));
    const before = index === 0 ? { number: 0, to: 0 } : unpackPlace(this.#placeAt(index - 1));
    return { number, from: before.number === number ? before.to : 0, to: to - 1 };
  }

  /**
   * Stores the new entries. Only for root, one process at a time. Throws the error of a system
   * call.
   */
  save(): void {
    const { folder } = this.#options;
    if (folder === undefined || (!this.#isNew && this.#kept === this.#size)) return;
    this.#saveRows();
    syncFolder(folder);
    const state: State = {
      format: 1,
      origin: this.#origin,
      generation: this.#generation,
      size: this.#size,
      segments: this.#segments,
    };
    replaceFile(pathOf(this.#options, 'json'), `${JSON.stringify(state, undefined, 1)}\n`, { mode: 0o600 });
    for (const path of this.#given.splice(0)) rmSync(path, { force: true });
    this.#isNew = false;
    this.#kept = this.#size;
  }

  close(): void {
    this.#hashes.close();
    this.#places.close();
  }

  readonly #read = (level: number, index: number): Buffer => this.#hashes.get(storedIndex(level, index));

  #saveRows(): void {
    if (this.#options.folder === undefined) return;
    this.#hashes.save(this.#rowsPath('hashes'));
    this.#places.save(this.#rowsPath('places'));
  }

  /**
   * Each generation has files of its own, so that the old ones stay valid while they are replaced.
   */
  #rowsPath(kind: string): string {
    return pathOf(this.#options, `${this.#generation}.${kind}`);
  }

  #placeAt(index: number): bigint {
    return this.#places.get(index).readBigUInt64BE();
  }

  #addLines(file: string, number: number, from: number, size: number): void {
    const fd = openCustodyFile(join(this.#options.logs, file));
    try {
      for (const line of readLines(fd, from)) {
        if (line.to > size) break;
        this.#add(bytesOf(fd, line), packPlace(number, line.to));
      }
    } finally {
      closeSync(fd);
    }
  }

  #add(entry: Buffer, place: bigint): void {
    for (const hash of hashesOf(hashLeaf(entry), this.#size, this.#read)) this.#hashes.push(hash);
    const row = Buffer.allocUnsafe(PLACE_BYTES);
    row.writeBigUInt64BE(place);
    this.#places.push(row);
    this.#size += 1;
  }
}

/**
 * Computes the roots of a record's tree at some sizes, and its number of entries, from its lines
 * alone. Throws the error of a system call.
 */
export function rootsOf(
  logs: string,
  files: readonly string[],
  sizes: readonly number[],
): { size: number; roots: Map<number, Buffer> } {
  const wanted = new Set(sizes);
  const roots = new Map<number, Buffer>();
  const peaks: Buffer[] = [];
  let size = 0;
  const note = (): void => {
    if (wanted.has(size))
      roots.set(size, peaks.length > 0 ? peaks.reduceRight((right, left) => hashNode(left, right)) : emptyRoot());
  };
  note();
  for (const file of files) {
    const fd = openCustodyFile(join(logs, file));
    try {
      for (const line of readLines(fd, 0)) {
        let last = hashLeaf(bytesOf(fd, line));
        for (let index = size; index % 2 === 1; index = (index - 1) / 2) last = hashNode(peaks.pop() ?? last, last);
        peaks.push(last);
        size += 1;
        note();
      }
    } finally {
      closeSync(fd);
    }
  }
  return { size, roots };
}

/**
 * The bytes of a line. If it is longer than any record, `text` has only its end, and the line is
 * read again.
 */
function bytesOf(fd: number, { text, from, to }: { text: string; from: number; to: number }): Buffer {
  if (text.length === to - 1 - from) return Buffer.from(text, 'latin1');
  return Buffer.concat([...readRange(fd, from, to - 1)].map((block) => Buffer.from(block)));
}

function packPlace(number: number, to: number): bigint {
  return (BigInt(number) << SEGMENT_SHIFT) | BigInt(to);
}

function unpackPlace(place: bigint): { number: number; to: number } {
  return { number: Number(place >> SEGMENT_SHIFT), to: Number(place & ((1n << SEGMENT_SHIFT) - 1n)) };
}

function pathOf({ folder = '', serverId }: Pick<TreeOptions, 'folder' | 'serverId'>, kind: string): string {
  return join(folder, `custody-tree.${serverId}.${kind}`);
}

/**
 * Reads the stored state; undefined when there is none, or when anyone but root could have written
 * it. Throws Failure.
 */
function readState(path: string): State | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EACCES') return undefined;
    throw error;
  }
  try {
    const state = JSON.parse(text) as State;
    if (state.format === 1) return state;
  } catch {
    // The failure below covers this case too.
  }
  throw new Failure('failed', `${path} is damaged`, `rm ${path}  # the next checkpoint computes it again`);
}

/** Rows of a fixed width: those in a file, and new ones in memory. */
class Rows {
  readonly #width: number;
  #fd: number | undefined;
  /** The number of rows in the file. */
  #kept: number;
  #chunks: Buffer[] = [];
  #fresh = 0;

  constructor(path: string, width: number, count: number) {
    this.#width = width;
    this.#kept = count;
    if (count > 0) this.#fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  }

  /** Reads a row. Throws Failure when the file does not contain it. */
  get(index: number): Buffer {
    const fresh = index - this.#kept;
    if (fresh >= 0) {
      const at = (fresh % CHUNK_ROWS) * this.#width;
      return this.#chunks[Math.floor(fresh / CHUNK_ROWS)]?.subarray(at, at + this.#width) ?? Buffer.alloc(0);
    }
    const row = Buffer.allocUnsafe(this.#width);
    const count = this.#fd === undefined ? 0 : readSync(this.#fd, row, 0, this.#width, index * this.#width);
    if (count !== this.#width) throw new Failure('failed', 'the stored tree of the custody record is truncated');
    return row;
  }

  push(row: Buffer): void {
    const at = this.#fresh % CHUNK_ROWS;
    if (at === 0) this.#chunks.push(Buffer.allocUnsafe(CHUNK_ROWS * this.#width));
    row.copy(this.#chunks.at(-1) ?? row, at * this.#width);
    this.#fresh += 1;
  }

  clear(): void {
    this.close();
    this.#kept = 0;
    this.#chunks = [];
    this.#fresh = 0;
  }

  /**
   * Writes the new rows, which are on disk when this returns. Rows that a killed process left are
   * overwritten.
   */
  save(path: string): void {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const fd = openSync(path, flags, 0o600);
    try {
      for (const [index, chunk] of this.#chunks.entries()) {
        const rows = Math.min(CHUNK_ROWS, this.#fresh - index * CHUNK_ROWS);
        const at = (this.#kept + index * CHUNK_ROWS) * this.#width;
        for (let done = 0; done < rows * this.#width; )
          done += writeSync(fd, chunk, done, rows * this.#width - done, at + done);
      }
      ftruncateSync(fd, (this.#kept + this.#fresh) * this.#width);
      syncFile(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.close();
    this.#fd = fd;
    this.#kept += this.#fresh;
    this.#chunks = [];
    this.#fresh = 0;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
