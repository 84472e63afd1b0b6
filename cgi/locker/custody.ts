// The custody record: the chained lines of deposits in the log directory (docs/protocol.md, section
// 8). It consists of segments: the first is one file, all others are in a directory beside it.
// Segments are not locked: a writer that finds one too long makes the next one and seals the old
// one, and a writer whose record landed after the seal appends it again.
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import {
  type ChainedFacts,
  type ChainedFile,
  type ChainedRecord,
  type ChainedTail,
  findTail,
  formatChained,
  nextChainedOf,
  parseChained,
  TAIL_BYTES,
} from 'webjob-protocol';
import { digestRange, newHash } from './digest.ts';
import { makeFolder, syncFile, syncFolder, syncOpened, withFolder } from './durable.ts';
import { failureOf, LockerFailure } from './failure.ts';
import { readLines } from './lines.ts';
import { drive, type Steps, type SyncStep, syncAlone, syncStep } from './steps.ts';

export {
  type ChainedFacts as CustodyFacts,
  type ChainedRecord as CustodyRecord,
  MAX_RECORD_BYTES,
  parseChained as parseCustody,
} from 'webjob-protocol';

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDONLY, O_RDWR } = constants;
const MAX_SEGMENT = 999_999;

/**
 * The path of the first segment of a server's custody record. Each server that shares a log
 * directory has its own record.
 */
export function custodyPath(logfilesDirectory: string, serverId: string): string {
  return `${logfilesDirectory}/nph-webjob-custody.${serverId}.jsonl`;
}

/** The directory of all segments except the first. */
export function segmentFolder(path: string): string {
  return path.replace(/\.jsonl$/, '.d');
}

/** The path of a segment of the custody record that begins with the file `path`. */
export function segmentPath(path: string, number: number): string {
  return number === 1 ? path : `${segmentFolder(path)}/${segmentFile(number)}`;
}

function segmentFile(number: number): string {
  return `${String(number).padStart(6, '0')}.jsonl`;
}

/** The path of a segment below LogfilesDirectory, as records, checkpoints and findings name it. */
export function segmentName(path: string, number: number): string {
  return number === 1 ? basename(path) : `${basename(segmentFolder(path))}/${segmentFile(number)}`;
}

/** A segment, from its path below LogfilesDirectory. */
export interface CustodyName {
  serverId: string;
  number: number;
}

/** Parses the path of a segment; undefined for any other file. */
export function parseCustodyName(file: string): CustodyName | undefined {
  const pattern = /^nph-webjob-custody\.([A-Za-z0-9_.-]{1,64})(?:\.jsonl|\.d\/(?!00000[01])(\d{6})\.jsonl)$/;
  const [, serverId, number = '1'] = pattern.exec(file) ?? [];
  return serverId === undefined ? undefined : { serverId, number: Number(number) };
}

/** Formats the line of a record, without its newline. */
export function formatCustody(covers: ChainedRecord['covers'], prev: string, facts: ChainedFacts): string {
  return formatChained(covers, prev, facts, newHash);
}

/** How a custody record may grow. */
export interface Growth {
  /** Whether missing files are created. */
  mayCreate?: boolean;
  /**
   * The size in bytes from which a segment is sealed, when files may be created; undefined keeps
   * everything in the first segment.
   */
  segmentLimit?: number | undefined;
}

/**
 * Appends a record, which is on disk when this returns. Throws LockerFailure `full` when only a
 * part of it fits, and the error of a system call. After either, nothing is guaranteed, and the
 * next record begins a new line.
 */
export function appendCustody(path: string, facts: ChainedFacts, growth: Growth = {}): void {
  appendCustodyAll(path, [facts], growth);
}

/** Appends several records. The guarantees and errors are those of appendCustody(). */
export function appendCustodyAll(path: string, all: readonly ChainedFacts[], growth: Growth = {}): void {
  for (const failure of drive(appendCustodyOf(path, all, growth), syncAlone)) if (failure) throw failure;
}

/**
 * Appends several records with one write and one fsync. Returns the failure of each, or undefined:
 * a full disk may have cut off the last ones. Throws when none of them is on disk.
 */
export function* appendCustodyOf(
  path: string,
  all: readonly ChainedFacts[],
  growth: Growth = {},
): Steps<(LockerFailure | undefined)[], SyncStep> {
  const noted = growth.segmentLimit === undefined ? 1 : readNewest(path);
  const place = { path, number: noted, mayCreate: false, ...growth };
  let outcome = yield* appendTo(place, all, noted > 1);
  for (; outcome.count === 0; outcome = yield* appendTo(place, all, false)) place.number = outcome.number;
  if (outcome.number !== noted) noteNewest(path, outcome.number);
  return all.map((_, index) => (index < outcome.count ? undefined : cutShort()));
}

interface Place extends Growth {
  path: string;
  number: number;
  mayCreate: boolean;
}

/**
 * The outcome of an append: `count` records are on disk and the newest segment is `number`; with a
 * count of 0, they must be appended to that segment.
 */
interface Outcome {
  count: number;
  number: number;
}

/** Appends records to a segment. `isNoted` says that only the note names this segment. */
function* appendTo(place: Place, all: readonly ChainedFacts[], isNoted: boolean): Steps<Outcome, SyncStep> {
  const { number, segmentLimit } = place;
  const fd = isNoted ? openNoted(place) : openSegment(place);
  if (fd === undefined) return { count: 0, number: 1 };
  try {
    const segment = readSegment(fd);
    if (segmentLimit !== undefined) {
      if (segment.seal) return { count: 0, number: number + 1 };
      if (number > 1 && !segment.tail.last) {
        if (!bindSegment(place, fd, segment)) return startAgain(isNoted);
        // Other processes may have filled and sealed the segment meanwhile.
        return { count: 0, number };
      }
    }
    const { first, length, count } = append(fd, segment, all);
    const size = segmentLimit === undefined ? 0 : fstatSync(fd).size;
    if (size > segment.file.size + length && isBehindSeal(fd, segment, first)) return { count: 0, number: number + 1 };
    yield syncStep([fd]);
    const isSealed = segmentLimit !== undefined && size >= segmentLimit && sealSegment(place, fd);
    return { count, number: isSealed ? number + 1 : number };
  } finally {
    closeSync(fd);
  }
}

function startAgain(isNoted: boolean): Outcome {
  if (!isNoted) throw new LockerFailure('failed', 'a segment has no sealed one before it');
  return { count: 0, number: 1 };
}

/** A segment as its writer finds it. */
interface Segment {
  file: ChainedFile;
  tail: ChainedTail;
  seal: Seal | undefined;
}

/**
 * The bytes that the next segment commits to: from where the first seal's `covers` begins to the
 * end of that seal.
 */
interface Seal {
  from: number;
  to: number;
}

/** Reads the end of a segment, with three system calls when no other process is writing it. */
function readSegment(fd: number): Segment {
  const { size } = fstatSync(fd);
  const start = Math.max(0, size - TAIL_BYTES);
  const end = Buffer.alloc(size - start);
  readSync(fd, end, 0, end.length, start);
  const read = (buffer: Uint8Array, offset: number): number =>
    offset < start ? readSync(fd, buffer, 0, buffer.length, offset) : end.copy(buffer, 0, offset - start);
  const file = { size, read };
  const tail = findTail(file);
  return { file, tail, seal: findSeal(fd, size, tail) };
}

/** The first seal of a segment; undefined when there is none. */
function findSeal(fd: number, size: number, tail: ChainedTail): Seal | undefined {
  const { last, isTorn } = tail;
  const isAlone = last && !isTorn && last.covers[1] === size - last.text.length - 1;
  if (isAlone) return isSeal(last) ? { from: last.covers[1], to: size } : undefined;
  for (const { text, to } of readLines(fd, unseenFrom(size, tail))) {
    const record = parseChained(text);
    if (record && isSeal(record)) return { from: record.covers[1], to };
  }
  return undefined;
}

/**
 * An offset before which no seal begins. The writer of the last record had seen no seal up to the
 * offset that its record covers. That offset may be in the middle of a seal, of which the writer
 * saw only a part, but not before the record that was then the last one.
 */
function unseenFrom(size: number, { last }: ChainedTail): number {
  return Math.min(last?.covers[0] ?? 0, size);
}

function isSeal({ text }: ChainedRecord): boolean {
  return text.includes(',"event":"seal",');
}

/** The result of an append: the first record, all bytes, and the number of complete records. */
interface Appended {
  first: Buffer;
  length: number;
  count: number;
}

/** Appends records with one write; the caller syncs the file. */
function append(fd: number, { file, tail }: Segment, all: readonly ChainedFacts[]): Appended {
  const records = nextChainedOf(file, all, newHash, tail);
  const length = writeSync(fd, Buffer.concat(records));
  let [count, end] = [0, 0];
  for (const record of records) {
    end += record.length;
    if (end <= length) count += 1;
  }
  if (count === 0) throw cutShort();
  return { first: records[0] as Buffer, length, count };
}

function cutShort(): LockerFailure {
  return new LockerFailure('full', 'the custody record was truncated');
}

/** Whether a seal landed before these bytes, whose place no writer can know in advance. */
function isBehindSeal(fd: number, { file, tail }: Segment, bytes: Buffer): boolean {
  const own = bytes.toString('latin1').trim();
  for (const { text } of readLines(fd, unseenFrom(file.size, tail))) {
    const record = parseChained(text);
    if (record?.text === own) return false;
    if (record && isSeal(record)) return true;
  }
  return true;
}

/**
 * Makes the next segment, seals this one and binds the next one to it. Returns false when that is
 * not possible, and this segment continues. If the process is killed in between, the next writer
 * does the rest. A seal exists only when the next segment exists.
 */
function sealSegment({ path, number, mayCreate }: Place, fd: number): boolean {
  if (!mayCreate || number === MAX_SEGMENT) return false;
  const place = { path, number: number + 1, mayCreate };
  try {
    const next = openSegment(place);
    try {
      for (const folder of [dirname(path), segmentFolder(path)]) syncFolder(folder);
      const segment = readSegment(fd);
      const facts = { time: new Date(), event: 'seal', pid: process.pid, next: segmentName(path, number + 1) };
      if (!segment.seal) {
        append(fd, segment, [facts]);
        syncFile(fd);
      }
      const bound = readSegment(next);
      return bound.tail.last !== undefined || bindSegment(place, next, bound);
    } finally {
      closeSync(next);
    }
  } catch (error) {
    // The record itself is already on disk.
    failureOf(error);
    return false;
  }
}

/**
 * Appends the first record of a segment, which commits to all of the previous one, so that
 * everything before it is known to be on disk. Returns false when the previous segment is not
 * sealed.
 */
function bindSegment({ path, number }: Place, fd: number, segment: Segment): boolean {
  const before = openSync(segmentPath(path, number - 1), O_RDONLY | O_NOFOLLOW);
  try {
    const { seal } = readSegment(before);
    if (!seal) return false;
    syncFile(before);
    const { from, to } = seal;
    const follows = { file: segmentName(path, number - 1), covers: [from, to], prev: digestRange(before, from, to) };
    append(fd, segment, [{ time: new Date(), event: 'segment', pid: process.pid, follows }]);
    syncFile(fd);
    return true;
  } finally {
    closeSync(before);
  }
}

/**
 * Opens a segment that a note names; undefined when it does not exist, so that the note is wrong.
 */
function openNoted({ path, number }: Place): number | undefined {
  try {
    return openSync(segmentPath(path, number), O_RDWR | O_APPEND | O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function openSegment({ path: first, number, mayCreate }: Place): number {
  const path = segmentPath(first, number);
  const flags = O_RDWR | O_APPEND | O_NOFOLLOW;
  try {
    return openSync(path, flags);
  } catch (error) {
    if (!mayCreate || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  if (number > 1) makeFolder(dirname(path));
  return withFolder(dirname(path), (folder) => {
    const fd = openSync(path, flags | O_CREAT, 0o644);
    try {
      syncOpened(folder);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  });
}

/**
 * The link in the directory of segments that names the newest one. It may be wrong, because only
 * the seals are authoritative.
 */
function newestPath(path: string): string {
  return `${segmentFolder(path)}/newest`;
}

function readNewest(path: string): number {
  try {
    const [, number = '1'] = /^(\d{6})\.jsonl$/.exec(readlinkSync(newestPath(path))) ?? [];
    return Math.max(1, Number(number));
  } catch {
    return 1;
  }
}

/**
 * The end of a custody record: at most `most` bytes of each of its two newest segments, in complete
 * lines except for the first. Empty when it cannot be read.
 */
export function readCustodyEnd(path: string, most: number): string {
  const newest = readNewest(path);
  const numbers = [newest - 1, newest].filter((number) => number > 0);
  return numbers.map((number) => readEnd(segmentPath(path, number), most)).join('\n');
}

function readEnd(path: string, most: number): string {
  let fd: number;
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW);
  } catch {
    return '';
  }
  try {
    const { size } = fstatSync(fd);
    const buffer = Buffer.allocUnsafe(Math.min(size, most));
    return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, size - buffer.length));
  } finally {
    closeSync(fd);
  }
}

/**
 * Notes the newest segment. Where links cannot be made, every writer begins with the first segment.
 */
function noteNewest(path: string, number: number): void {
  const unfinished = `${newestPath(path)}.${process.pid}`;
  try {
    rmSync(unfinished, { force: true });
    symlinkSync(segmentFile(number), unfinished);
    renameSync(unfinished, newestPath(path));
  } catch (error) {
    failureOf(error);
  }
}
