// Reads each file of an upload once: one open, one fstat, one pass. Most files are small and take
// four system calls and no allocation.
import { createHash, hash } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type Stats } from 'node:fs';
import { Failure } from '../cli/failure.ts';
import { formatMark } from '../cli/files.ts';

export interface Reading {
  stats: Stats;
  /** The code of the system call's error, when the file could not be read. */
  failure?: string;
  /** The number of bytes read, or the size of a file that was not to be read. */
  size: number;
  /** Digests in lower-case hex, by algorithm. */
  digests: ReadonlyMap<string, string>;
  /**
   * The whole content; a single NUL stands for content that is too long, since no text contains
   * one.
   */
  text: string;
}

export interface Wanted {
  algorithms?: readonly string[];
  /** The maximum size of content that is returned too, at most the size of the buffer. */
  maxTextBytes?: number;
}

const NO_DIGESTS: ReadonlyMap<string, string> = new Map();
const TOO_LONG = '\0';
/** The flags of open(): follow no link, and do not block on a FIFO or device. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** One buffer is enough, because all code here is synchronous. */
const buffer = Buffer.allocUnsafe(1024 * 1024);

/** Reads only the size of a file; undefined when it does not exist or is not a regular file. */
export function statFile(path: string): Reading | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats?.isFile() ? { stats, size: stats.size, digests: NO_DIGESTS, text: TOO_LONG } : undefined;
}

/**
 * Reads a file; undefined when it does not exist or is not a regular file. `failure` is set when it
 * cannot be read.
 */
export function readFile(path: string, wanted: Wanted): Reading | undefined {
  let fd: number;
  try {
    fd = openSync(path, FLAGS);
  } catch (error) {
    const failure = codeOf(error);
    const found = failure === 'ENOENT' ? undefined : statFile(path);
    return found && { ...found, failure };
  }
  try {
    const stats = fstatSync(fd);
    return stats.isFile() ? { stats, ...readOpen(fd, stats, wanted) } : undefined;
  } finally {
    closeSync(fd);
  }
}

function readOpen(fd: number, stats: Stats, { algorithms = [], maxTextBytes = 0 }: Wanted): Omit<Reading, 'stats'> {
  const nothing = { size: stats.size, digests: NO_DIGESTS, text: TOO_LONG };
  if (algorithms.length === 0 && maxTextBytes === 0) return nothing;
  try {
    const count = readSync(fd, buffer, 0, buffer.length, null);
    const text = stats.size <= maxTextBytes && count <= maxTextBytes ? buffer.toString('latin1', 0, count) : TOO_LONG;
    // A read that fills less than the buffer and matches the size has reached the end.
    if (count < buffer.length && count === stats.size) return { size: count, digests: digest(count, algorithms), text };
    return algorithms.length > 0 ? { ...digestOpen(fd, count, algorithms), text } : { ...nothing, text };
  } catch (error) {
    return { ...nothing, failure: codeOf(error) };
  }
}

function digest(count: number, algorithms: readonly string[]): ReadonlyMap<string, string> {
  const bytes = buffer.subarray(0, count);
  return new Map(algorithms.map((algorithm) => [algorithm, hash(algorithm, bytes)]));
}

/** Digests the rest of a file whose beginning is in the buffer. */
function digestOpen(fd: number, first: number, algorithms: readonly string[]): Pick<Reading, 'size' | 'digests'> {
  const hashes = algorithms.map((algorithm) => ({ algorithm, hash: createHash(algorithm) }));
  let size = 0;
  for (let count = first; count > 0; count = readSync(fd, buffer, 0, buffer.length, null)) {
    for (const { hash } of hashes) hash.update(buffer.subarray(0, count));
    size += count;
  }
  return { size, digests: new Map(hashes.map(({ algorithm, hash }) => [algorithm, hash.digest('hex')])) };
}

/** The size and digest of a file. */
export interface FileFacts {
  bytes: number;
  /** SHA-256 in lower-case hex. */
  sha256: string;
}

/** Digests a whole file. Throws the error of a system call, also for a symbolic link. */
export function digestFile(path: string): FileFacts {
  const fd = openSync(path, FLAGS);
  try {
    if (!fstatSync(fd).isFile()) throw new Failure('failed', `${path} is not a regular file`);
    const { size, digests } = digestOpen(fd, readSync(fd, buffer, 0, buffer.length, null), ['sha256']);
    return { bytes: size, sha256: digests.get('sha256') ?? '' };
  } finally {
    closeSync(fd);
  }
}

/** Errors of open() for a path without a regular file. */
const NO_FILE = ['ENOENT', 'ELOOP', 'ENXIO'];

/**
 * Digests a whole file, and returns a mark that identifies the file. Undefined when it does not
 * exist or is not a regular file.
 */
export function describeFile(path: string): (FileFacts & { mark: string }) | undefined {
  let fd: number;
  try {
    fd = openSync(path, FLAGS);
  } catch (error) {
    if (NO_FILE.includes(codeOf(error))) return undefined;
    throw error;
  }
  try {
    const stats = fstatSync(fd, { bigint: true });
    if (!stats.isFile()) return undefined;
    const { size, digests } = digestOpen(fd, readSync(fd, buffer, 0, buffer.length, null), ['sha256']);
    return { bytes: size, sha256: digests.get('sha256') ?? '', mark: formatMark(stats) };
  } finally {
    closeSync(fd);
  }
}

function codeOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined) throw error;
  return code;
}
