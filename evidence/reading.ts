// A file of a group, opened once, asked once what it is, and read once. Most are small: they take four system calls and no memory of their own.
import { createHash, hash } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type Stats } from 'node:fs';
import { Failure } from '../cli/failure.ts';
import { formatMark } from '../cli/files.ts';

export interface Reading {
  stats: Stats;
  /** Why it could not be read: the code of the system call's error. */
  failure?: string;
  /** Bytes that were read; of a file that was not to be read, its size. */
  size: number;
  /** By algorithm, in lower-case hex. */
  digests: ReadonlyMap<string, string>;
  /** The whole of it; no text has the NUL that stands for what is too long. */
  text: string;
}

export interface Wanted {
  algorithms?: readonly string[];
  /** Up to how many bytes its text is wanted, too; at most a buffer. */
  maxTextBytes?: number;
}

const NO_DIGESTS: ReadonlyMap<string, string> = new Map();
const TOO_LONG = '\0';
/** Without following a link, and without waiting for what is no file. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** Everything here is synchronous: one is enough. */
const buffer = Buffer.allocUnsafe(1024 * 1024);

/** Undefined for what is not there, or no regular file. */
export function statFile(path: string): Reading | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats?.isFile() ? { stats, size: stats.size, digests: NO_DIGESTS, text: TOO_LONG } : undefined;
}

/** Undefined for what is not there, or no regular file; what cannot be read says so. */
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
    // As much as it has, and less than there was room for: that was the end.
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

/** Goes on to the end of a file of which the buffer holds the beginning. */
function digestOpen(fd: number, first: number, algorithms: readonly string[]): Pick<Reading, 'size' | 'digests'> {
  const hashes = algorithms.map((algorithm) => ({ algorithm, hash: createHash(algorithm) }));
  let size = 0;
  for (let count = first; count > 0; count = readSync(fd, buffer, 0, buffer.length, null)) {
    for (const { hash } of hashes) hash.update(buffer.subarray(0, count));
    size += count;
  }
  return { size, digests: new Map(hashes.map(({ algorithm, hash }) => [algorithm, hash.digest('hex')])) };
}

/** One file as it is when it is described. */
export interface FileFacts {
  bytes: number;
  /** In lower-case hex. */
  sha256: string;
}

/** Reads a file to its end. Throws the error of a system call; a link is none. */
export function digestFile(path: string): FileFacts {
  const fd = openSync(path, FLAGS);
  try {
    if (!fstatSync(fd).isFile()) throw new Failure('failed', `${path} is no file`);
    const { size, digests } = digestOpen(fd, readSync(fd, buffer, 0, buffer.length, null), ['sha256']);
    return { bytes: size, sha256: digests.get('sha256') ?? '' };
  } finally {
    closeSync(fd);
  }
}

/** What stands for a file that one may open, but not as a file. */
const NO_FILE = ['ENOENT', 'ELOOP', 'ENXIO'];

/** The same with the mark of the very file that was read; undefined for what is not there, or no regular file. */
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
