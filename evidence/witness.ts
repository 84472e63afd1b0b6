// The witness: the custody records as root last saw them, kept where only root writes. For each
// segment it has the size, the SHA-256 of the content, and a compressed copy. A process with the
// web user's rights can cut or rewrite the record, but the copy shows what it contained.
import { createHash, type Hash, randomBytes } from 'node:crypto';
import {
  type BigIntStats,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { readRange } from 'webjob-locker';
import { makeFolder, syncFile, syncFolder, writeAll } from 'webjob-locker/durable';
import { isRootsOwn, replaceFile } from '../cli/files.ts';
import type { Finding } from './finding.ts';
import { type Known, type Mark, openCustodyFile } from './records.ts';

/** Whether a witness could be used. */
export type WitnessState =
  | 'asked'
  /** There is no witness yet. */
  | 'none'
  /** Only root can read the witness. */
  | 'unreadable'
  /** Users other than root can write to its directory, so nothing in it counts. */
  | 'untrusted';

/** A segment of a custody record as root last saw it. */
export interface Seen {
  /**
   * The log directory, relative to the directory of the witness, because a site may be built below
   * another root directory.
   */
  logs: string;
  /** The path below the log directory. */
  file: string;
  size: number;
  /** SHA-256 in lower-case hex: `head -c SIZE FILE | sha256sum`. */
  head: string;
  /** When the segment was seen, in ISO 8601. */
  time: string;
  /**
   * Inode, size and the times of the last write and last change: equal marks mean that the file was
   * not touched.
   */
  mark: string;
  /** The time of the newest record, in milliseconds. */
  newest: number;
  /** Some offsets before the end; earlier versions did not store them. */
  marks?: Mark[];
  /**
   * In webjobctl's record, offsets of records that concern archives or end a segment. Undefined for
   * records of servers, and in files of earlier versions.
   */
  turns?: readonly number[] | undefined;
  /**
   * The size of each gzip member of the copy, in order; bytes after the last member belong to an
   * unfinished write.
   */
  parts: number[];
}

/** The part of a record that was read and found sound. */
export interface Sound extends Known {
  file: string;
  marks?: readonly Mark[];
}

const BLOCK_BYTES = 1024 * 1024;
const INDEX = 'custody-witness.json';

export class Witness {
  readonly state: WitnessState;
  readonly folder: string;
  readonly #seen = new Map<string, Seen>();
  /**
   * For records whose beginning was found unchanged, the digest of that part, by the name of the
   * copy.
   */
  readonly #alike = new Map<string, Hash>();
  /** Log directories by the relative path that the index has for them. */
  readonly #places = new Map<string, string>();

  /**
   * Loads the index of a witness. Throws the error of a system call, and SyntaxError for a damaged
   * index.
   */
  constructor(folder: string) {
    this.folder = folder;
    const { state, seen } = readIndex(folder);
    this.state = state;
    for (const one of seen) this.#seen.set(copyName(one), one);
  }

  #place(logs: string): string {
    const place = this.#places.get(logs) ?? relative(realpathSync(this.folder), realpathSync(logs));
    this.#places.set(logs, place);
    return place;
  }

  #seenIn(logs: string): Seen[] {
    if (this.#seen.size === 0) return [];
    const place = this.#place(logs);
    return [...this.#seen.values()].filter((seen) => seen.logs === place);
  }

  #find(logs: string, file: string): Seen | undefined {
    return this.#seen.size === 0 ? undefined : this.#seen.get(copyName({ logs: this.#place(logs), file }));
  }

  /**
   * Reports the segments in a log directory whose known part has changed; only segments that
   * `isMeant` selects are read.
   */
  compare(logs: string, isMeant: (file: string) => boolean = () => true): Finding[] {
    return this.#seenIn(logs)
      .filter(({ file }) => isMeant(file))
      .flatMap((seen) => {
        const { hash, findings } = compareFile(join(logs, seen.file), seen);
        if (hash) this.#alike.set(copyName(seen), hash);
        return findings;
      });
  }

  /**
   * How much of a record need not be read again: root saw this part, it is untouched or compare()
   * found it unchanged, and it has no record newer than `instant`, in milliseconds.
   */
  knownUpTo(logs: string, file: string, instant = Number.POSITIVE_INFINITY): Known | undefined {
    const seen = this.#find(logs, file);
    if (!seen || !(this.#alike.has(copyName(seen)) || this.untouched(logs, file))) return undefined;
    const mark = [...(seen.marks ?? []), seen].findLast(({ newest }) => newest < instant);
    return mark && { ...mark, turns: seen.turns?.filter((at) => at < mark.size) };
  }

  /**
   * SHA-256 of the first `size` bytes of a record, in lower-case hex. Bytes that compare() has read
   * are not read again.
   */
  digest(logs: string, file: string, size: number): string {
    const seen = this.#find(logs, file);
    const hash = seen && size >= seen.size ? this.#alike.get(copyName(seen))?.copy() : undefined;
    const from = hash ? (seen?.size ?? 0) : 0;
    const fd = openCustodyFile(join(logs, file));
    try {
      const whole = hash ?? createHash('sha256');
      hashRange(fd, from, size, whole);
      return whole.digest('hex');
    } finally {
      closeSync(fd);
    }
  }

  /**
   * The stored state of a record that was not touched since, by ctime, which cannot be set back.
   */
  untouched(logs: string, file: string): Readonly<Seen> | undefined {
    const seen = this.state === 'asked' ? this.#find(logs, file) : undefined;
    return seen && markOf(lstatSync(join(logs, file), { bigint: true, throwIfNoEntry: false })) === seen.mark
      ? seen
      : undefined;
  }

  /**
   * Whether no record in a log directory was touched since root saw it, and none has an entry since
   * `instant`, in milliseconds.
   */
  isIdle(logs: string, files: readonly string[], instant: number): boolean {
    const all = new Set([...files, ...(this.state === 'asked' ? this.#seenIn(logs).map(({ file }) => file) : [])]);
    return [...all].every((file) => (this.untouched(logs, file)?.newest ?? Number.POSITIVE_INFINITY) < instant);
  }

  /** Opens the copy of a record as a file that has already been unlinked. */
  openCopy(logs: string, file: string): number {
    const seen = this.#find(logs, file);
    const path = join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `.webjob-${randomBytes(8).toString('hex')}`);
    const { O_RDWR, O_CREAT, O_EXCL } = constants;
    const fd = openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o600);
    unlinkSync(path);
    if (seen) for (const block of readCopy(join(this.folder, copyName(seen)), seen.parts)) writeAll(fd, block);
    return fd;
  }

  /**
   * Stores the records of a log directory that were found unchanged. For a record that was changed,
   * the earlier state is kept, unless the record is adopted: then the old copy is renamed and kept.
   * Only for root, one process at a time. Throws the error of a system call.
   */
  update(logs: string, sound: readonly Sound[], isAdopted = false): void {
    makeFolder(this.folder);
    const time = new Date().toISOString();
    if (isAdopted)
      for (const { place: file } of this.compare(logs)) {
        const copy = copyName({ logs: this.#place(logs), file });
        setAside(join(this.folder, copy), time);
        this.#seen.delete(copy);
      }
    let isChanged = isAdopted;
    for (const one of sound) {
      const next = this.#add(logs, one, time);
      if (!next) continue;
      this.#seen.set(copyName(next), next);
      isChanged = true;
    }
    if (!isChanged) return;
    const text = `${JSON.stringify({ format: 1, seen: [...this.#seen.values()] }, undefined, 1)}\n`;
    replaceFile(join(this.folder, INDEX), text, { mode: 0o600 });
  }

  #add(logs: string, { file, size, newest, marks = [], turns }: Sound, time: string): Seen | undefined {
    const place = { logs: this.#place(logs), file };
    const known = this.#seen.get(copyName(place));
    const last = known ?? { size: 0, head: emptyHead(), parts: [] };
    const found = lstatSync(join(logs, file), { bigint: true });
    // Records appended since the walk are left for the next time.
    const mark = found.size === BigInt(size) ? markOf(found) : '';
    const isSame = mark === known?.mark || (mark === '' && size === known?.size);
    // Files of earlier versions contain less.
    const tellsMore = known?.turns === undefined && turns !== undefined;
    if (known && (size < known.size || (isSame && !tellsMore))) return undefined;
    const fd = openCustodyFile(join(logs, file));
    const copy = openSync(join(this.folder, copyName(place)), constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      const hash = this.#alike.get(copyName(place))?.copy() ?? createHash('sha256');
      if (!this.#alike.has(copyName(place))) hashRange(fd, 0, last.size, hash);
      if (hash.copy().digest('hex') !== last.head) return undefined;
      const parts = [...last.parts];
      let end = parts.reduce((sum, length) => sum + length, 0);
      ftruncateSync(copy, end);
      for (const block of readRange(fd, last.size, size, BLOCK_BYTES)) {
        hash.update(block);
        const packed = gzipSync(block, { level: 1 });
        for (let done = 0; done < packed.length; )
          done += writeSync(copy, packed, done, packed.length - done, end + done);
        parts.push(packed.length);
        end += packed.length;
      }
      syncFile(copy);
      syncFolder(this.folder);
      const old = known?.marks ?? [];
      const between = [...old, ...marks.filter((one) => one.size > (old.at(-1)?.size ?? 0) && one.size < size)];
      return { ...place, size, head: hash.digest('hex'), time, mark, newest, marks: between, turns, parts };
    } finally {
      closeSync(copy);
      closeSync(fd);
    }
  }
}

function markOf(stats: BigIntStats | undefined): string {
  return stats ? `${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}` : '';
}

function emptyHead(): string {
  return createHash('sha256').digest('hex');
}

function copyName({ logs, file }: Pick<Seen, 'logs' | 'file'>): string {
  return `${file.replace('/', '~')}.${createHash('sha256').update(logs).digest('hex').slice(0, 8)}.gz`;
}

/**
 * The files that store the state of one record, whose log directory `logs` is relative to that of
 * the witness.
 */
export function witnessFiles(logs: string, file: string): string[] {
  return [INDEX, copyName({ logs, file })];
}

function setAside(path: string, time: string): void {
  if (existsSync(path)) renameSync(path, `${path}.${time.replace(/[-:]|\..*/g, '')}`);
}

function readIndex(folder: string): { state: WitnessState; seen: Seen[] } {
  try {
    const text = readFileSync(join(folder, INDEX), 'utf8');
    if (!isRootsOwn(folder)) return { state: 'untrusted', seen: [] };
    return { state: 'asked', seen: (JSON.parse(text) as { seen: Seen[] }).seen };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return { state: isRootsOwn(folder) ? 'none' : 'untrusted', seen: [] };
    if (code === 'EACCES' || code === 'EPERM') return { state: 'unreadable', seen: [] };
    throw error;
  }
}

/**
 * Compares a file with its last seen state; returns its digest when the known part is unchanged.
 */
function compareFile(path: string, { file, size, head, time }: Seen): { hash?: Hash; findings: Finding[] } {
  let fd: number;
  try {
    fd = openCustodyFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const detail = `missing, ${size} bytes when root saw it at ${time}`;
    return { findings: [{ kind: 'witness-truncated', place: file, detail }] };
  }
  try {
    const found = fstatSync(fd).size;
    if (found < size) {
      const detail = `${found} bytes, ${size} when root saw it at ${time}`;
      return { findings: [{ kind: 'witness-truncated', place: file, detail }] };
    }
    const hash = createHash('sha256');
    hashRange(fd, 0, size, hash);
    if (hash.copy().digest('hex') === head) return { hash, findings: [] };
    const detail = `its first ${size} bytes have changed since root saw it at ${time}`;
    return { findings: [{ kind: 'witness-changed', place: file, detail }] };
  } finally {
    closeSync(fd);
  }
}

function hashRange(fd: number, from: number, to: number, hash: Hash): void {
  for (const block of readRange(fd, from, to)) hash.update(block);
}

function* readCopy(path: string, parts: readonly number[]): Generator<Buffer> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    let at = 0;
    for (const length of parts) {
      const packed = Buffer.alloc(length);
      readSync(fd, packed, 0, length, at);
      yield gunzipSync(packed);
      at += length;
    }
  } finally {
    closeSync(fd);
  }
}
