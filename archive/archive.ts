// Archives as .tar.gz files in which every upload is a gzip member of its own. `tar xzf` unpacks
// them, and with the offsets in the manifest one upload can be read without the others.
import { createHash, hash } from 'node:crypto';
import { type BigIntStats, closeSync, constants, createReadStream, fstatSync, openSync, readSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { crc32, createGunzip, createGzip, gunzipSync, gzipSync, constants as zlibConstants } from 'node:zlib';
import { reach } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { closeStream, formatMark, markOf } from '../cli/files.ts';
import { digestPieces } from './apart.ts';
import type { Appender } from './appender.ts';
import { PACKED_EXTENSIONS, type PackedExtension, type PackedFile, type PackedGroup } from './manifest.ts';
import { BLOCK, formatTarHead, paddingOf, TAR_END, tarPadding } from './tar.ts';

export type PackedFiles = PackedGroup['files'];

/** A file changed while it was being read. */
export class ChangedFile extends Error {}

/**
 * Up to this size data is compressed and expanded in one call: for small files streams cost a
 * multiple of the work itself.
 */
const SMALL_BYTES = 1 << 20;

/**
 * The access rights that all files of an upload have in common, and their group if it is the same.
 */
export interface Readers {
  mode: number;
  gid: number | undefined;
}

/** An upload in an archive. */
export interface Appended {
  length: number;
  files: PackedFiles;
  /** The beginning of the run record. */
  record: string;
  /** Inode, size and time of each file, from markOf(). */
  marks: Record<PackedExtension, string>;
  readers: Readers;
}

interface Source {
  extension: PackedExtension;
  /** The path below the locker. */
  file: string;
  fd: number;
  stats: BigIntStats;
  size: number;
  /** Milliseconds. */
  mtime: number;
}

/**
 * The facts collected while an upload is read: those of its files, and the first piece of its run
 * record.
 */
interface Gathered {
  files: PackedFiles;
  record: string;
}

/**
 * Appends an upload; returns its offset and contents. Throws ChangedFile when one of its names
 * leads to another or an unreadable file afterwards, and then the archive is unchanged.
 */
export async function appendGroup(archive: Appender, locker: string, name: string): Promise<Appended> {
  const sources: Source[] = [];
  const begin = archive.position;
  try {
    for (const extension of PACKED_EXTENSIONS) sources.push(openSource(locker, name, extension));
    const gathered: Gathered = { files: {} as PackedFiles, record: '' };
    await appendMember(archive, name, sources, gathered);
    const marks = {} as Appended['marks'];
    for (const { extension, file, stats } of sources) {
      marks[extension] = formatMark(stats);
      if (markOf(reach(locker, file)) !== marks[extension]) throw new ChangedFile(file);
    }
    return { length: archive.position - begin, ...gathered, marks, readers: readersOf(sources) };
  } catch (error) {
    if (archive.position !== begin) archive.goBack(begin);
    throw error;
  } finally {
    for (const { fd } of sources) closeSync(fd);
  }
}

function readersOf(sources: readonly Source[]): Readers {
  const gid = sources[0]?.stats.gid;
  return {
    mode: sources.reduce((mode, { stats }) => mode & Number(stats.mode), 0o077),
    gid: sources.every(({ stats }) => stats.gid === gid) ? Number(gid) : undefined,
  };
}

function openSource(locker: string, name: string, extension: PackedExtension): Source {
  const file = `${name}.${extension}`;
  // Does not follow a link, and does not block on a FIFO.
  const fd = openSync(reach(locker, file), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stats = fstatSync(fd, { bigint: true });
  if (stats.isFile())
    return { extension, file, fd, stats, size: Number(stats.size), mtime: Number(stats.mtimeNs) / 1e6 };
  closeSync(fd);
  throw new ChangedFile(file);
}

/** Appends the end of the archive. */
export function appendEnd(archive: Appender): void {
  archive.add(compress(TAR_END));
}

async function appendMember(
  archive: Appender,
  name: string,
  sources: readonly Source[],
  gathered: Gathered,
): Promise<void> {
  const size = sources.reduce((sum, { size }) => sum + size, 0);
  if (size <= SMALL_BYTES) {
    archive.add(compress(gatherBytes(name, sources, gathered)));
    return;
  }
  await pipeline(groupBytes(name, sources, gathered), createGzip(), async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) archive.add(chunk);
  });
}

/**
 * A reused buffer for small uploads, because allocating memory for each takes longer than reading
 * it.
 */
let gatherings: Buffer = Buffer.allocUnsafe(0);

/** The bytes of an upload, valid until the next call. */
function gatherBytes(name: string, sources: readonly Source[], gathered: Gathered): Buffer {
  const heads = sources.map((source) => formatHead(name, source));
  const length = sources.reduce((sum, { size }, at) => sum + (heads[at]?.length ?? 0) + size + paddingOf(size), 0);
  if (gatherings.length < length) gatherings = Buffer.allocUnsafeSlow(Math.max(length, PIECE_BYTES));
  let end = 0;
  for (const [index, { extension, file, fd, size, mtime }] of sources.entries()) {
    end += heads[index]?.copy(gatherings, end) ?? 0;
    const begin = end;
    while (end < begin + size) {
      const count = readSync(fd, gatherings, end, begin + size - end, null);
      if (count === 0) throw new ChangedFile(file);
      end += count;
    }
    const bytes = gatherings.subarray(begin, end);
    if (extension === 'env') gathered.record = bytes.toString('latin1', 0, PIECE_BYTES);
    gathered.files[extension] = { bytes: size, sha256: size === 0 ? EMPTY_SHA256 : hash('sha256', bytes), mtime };
    const padded = end + paddingOf(size);
    gatherings.fill(0, end, padded);
    end = padded;
  }
  return gatherings.subarray(0, end);
}

function formatHead(name: string, { extension, size, mtime }: Source): Buffer {
  return formatTarHead({ name: `${name}.${extension}`, size, mtimeSeconds: mtime / 1000 });
}

/**
 * The window and tables of zlib are sized by the data: allocating and freeing them takes longer
 * than filling them.
 */
function compress(bytes: Buffer): Buffer {
  const windowBits = Math.min(15, Math.max(10, Math.ceil(Math.log2(bytes.length))));
  const level = bytes.length < TINY_BYTES ? TINY_LEVEL : zlibConstants.Z_DEFAULT_COMPRESSION;
  const chunkSize = Math.max(2048, bytes.length >> 2);
  return gzipSync(bytes, { windowBits, memLevel: windowBits - 7, chunkSize, level });
}

/**
 * Uploads below this size are mostly tar headers: level 4 takes 60 % of the time, for 1 % more
 * bytes.
 */
const TINY_BYTES = 8192;
const TINY_LEVEL = 4;

/** The bytes of an upload, piece by piece. */
function* groupBytes(name: string, sources: readonly Source[], gathered: Gathered): Generator<Buffer> {
  for (const source of sources) {
    const { extension, file, fd, size, mtime } = source;
    yield formatHead(name, source);
    const digest = createHash('sha256');
    for (let bytes = 0; bytes < size; ) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, size - bytes));
      const chunk = piece.subarray(0, readSync(fd, piece, 0, piece.length, null));
      if (chunk.length === 0) throw new ChangedFile(file);
      if (bytes === 0 && extension === 'env') gathered.record = chunk.toString('latin1');
      bytes += chunk.length;
      digest.update(chunk);
      yield chunk;
    }
    yield tarPadding(size);
    gathered.files[extension] = { bytes: size, sha256: digest.digest('hex'), mtime };
  }
}

const PIECE_BYTES = 64 * 1024;
const EMPTY_SHA256 = hash('sha256', '');

/**
 * A file of an archived upload with its bytes, which must be read before the next file is
 * requested.
 */
export interface Unpacked {
  extension: PackedExtension;
  file: PackedFile;
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>;
}

/**
 * Yields the files of an upload one after the other; the bytes that the caller does not read are
 * skipped. Offsets come from the manifest, and the tar header before each file must be the expected
 * one. Throws Failure `failed` for a damaged archive.
 */
export async function* readGroup(archive: string, group: PackedGroup): AsyncGenerator<Unpacked> {
  const { entries, size, isSmall } = entriesOf(group);
  if (isSmall) yield* readSmall(archive, group, entries, size);
  else yield* readLarge(archive, group, entries);
}

/** The contents of an upload in an archive, whatever its manifest says. */
export interface Digested {
  /** SHA-256 of each file, in lower-case hex. */
  sha256: Record<PackedExtension, string>;
  /** The first bytes of the run record, as many as were requested. */
  record: Buffer;
}

/** Digests an upload of any size synchronously. Throws Failure `failed` for a damaged archive. */
export function digestGroup(archive: string, group: PackedGroup, recordBytes: number): Digested {
  const { entries, size, isSmall } = entriesOf(group);
  if (!isSmall) return digestLarge(archive, group, entries, recordBytes);
  const digested: Digested = { sha256: {} as Digested['sha256'], record: Buffer.of() };
  for (const { extension, chunks } of readSmall(archive, group, entries, size))
    for (const bytes of chunks as Iterable<Buffer>) {
      digested.sha256[extension] = hash('sha256', bytes);
      if (extension === 'env') digested.record = bytes.subarray(0, recordBytes);
    }
  return digested;
}

/** Each entry has a header, its bytes, and padding to the next block. */
function digestLarge(
  file: string,
  { name, offset, length }: PackedGroup,
  entries: readonly PackedEntry[],
  keptBytes: number,
): Digested {
  const sizes = entries.flatMap(({ head, file: { bytes } }) => [head.length, bytes, paddingOf(bytes)]);
  const kept = 3 * entries.findIndex(({ extension }) => extension === 'env') + 1;
  let digests: ReturnType<typeof digestPieces>;
  try {
    digests = digestPieces({ file, offset, length: Math.max(1, length), sizes, kept, keptBytes });
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw damageOf(file, error as Error);
  }
  const digested: Digested = { sha256: {} as Digested['sha256'], record: digests.kept };
  for (const [index, { extension, head }] of entries.entries()) {
    const [found, content = ''] = digests.sha256.slice(3 * index);
    if (found !== hash('sha256', head)) throw missing(file, `${name}.${extension}`);
    digested.sha256[extension] = content;
  }
  return digested;
}

interface PackedEntry {
  extension: PackedExtension;
  file: PackedFile;
  head: Buffer;
}

function entriesOf({ name, files, length }: PackedGroup): { entries: PackedEntry[]; size: number; isSmall: boolean } {
  let size = 0;
  const entries = PACKED_EXTENSIONS.map((extension) => {
    const file = files[extension];
    const head = formatTarHead({ name: `${name}.${extension}`, size: file.bytes, mtimeSeconds: file.mtime / 1000 });
    size += head.length + file.bytes + paddingOf(file.bytes);
    return { extension, file, head };
  });
  return { entries, size, isSmall: size <= SMALL_BYTES && length <= SMALL_BYTES };
}

function* readSmall(
  archive: string,
  { name, offset, length }: PackedGroup,
  entries: readonly PackedEntry[],
  size: number,
): Generator<Unpacked> {
  let bytes: Buffer;
  try {
    bytes = gunzipSync(readAt(archive, offset, length), { maxOutputLength: size, chunkSize: Math.max(64, size) });
  } catch (error) {
    throw damageOf(archive, error as Error);
  }
  let at = 0;
  for (const { extension, file, head } of entries) {
    if (!head.equals(bytes.subarray(at, at + head.length))) throw missing(archive, `${name}.${extension}`);
    const [begin, end] = [at + head.length, at + head.length + file.bytes];
    if (end > bytes.length) throw damageOf(archive, new Error('it ends early'));
    yield { extension, file, chunks: [bytes.subarray(begin, end)] };
    at = end + paddingOf(file.bytes);
  }
}

async function* readLarge(
  archive: string,
  { name, offset, length }: PackedGroup,
  entries: readonly PackedEntry[],
): AsyncGenerator<Unpacked> {
  const source = createReadStream(archive, { start: offset, end: offset + Math.max(1, length) - 1 });
  const gunzip = createGunzip();
  source.on('error', (error) => gunzip.destroy(error));
  const reader = new Reader(archive, source.pipe(gunzip));
  try {
    for (const { extension, file, head } of entries) {
      if (!head.equals(await reader.take(head.length))) throw missing(archive, `${name}.${extension}`);
      const end = reader.position + file.bytes;
      yield { extension, file, chunks: reader.until(end) };
      for await (const _ of reader.until(end + paddingOf(file.bytes)));
    }
  } finally {
    gunzip.destroy();
    await closeStream(source);
  }
}

function missing(archive: string, name: string): Failure {
  return damageOf(archive, new Error(`${name} is not there`));
}

function readAt(path: string, position: number, length: number): Buffer {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    return readOpenAt(fd, position, Buffer.allocUnsafe(length));
  } finally {
    closeSync(fd);
  }
}

/** Reads into the buffer from an offset, as much as the file has. */
function readOpenAt(fd: number, position: number, bytes: Buffer): Buffer {
  let done = 0;
  for (let count = -1; count !== 0 && done < bytes.length; done += count)
    count = readSync(fd, bytes, done, bytes.length - done, position + done);
  return bytes.subarray(0, done);
}

function damageOf(archive: string, error: NodeJS.ErrnoException): Failure {
  const { code, message } = error;
  const isDamaged = code === undefined || code.startsWith('Z_') || code === 'ERR_BUFFER_TOO_LARGE';
  const why = isDamaged ? `damaged, ${code ?? message}` : code;
  return new Failure('failed', `${archive}: ${why}`, undefined, { cause: error });
}

/**
 * Splits a stream at byte offsets. Throws Failure `failed` to its reader, which is not always
 * readGroup() itself.
 */
class Reader {
  position = 0;
  readonly #archive: string;
  #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(archive: string, stream: AsyncIterable<Buffer>) {
    this.#archive = archive;
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async take(count: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const chunk of this.until(this.position + count)) parts.push(chunk);
    return Buffer.concat(parts);
  }

  async #next(): Promise<Buffer> {
    try {
      const { value, done } = await this.#chunks.next();
      if (!done) return value;
    } catch (error) {
      throw damageOf(this.#archive, error as Error);
    }
    throw damageOf(this.#archive, new Error('it ends early'));
  }

  /** The bytes up to an offset. */
  async *until(end: number): AsyncGenerator<Buffer> {
    while (this.position < end) {
      if (this.#rest.length === 0) this.#rest = await this.#next();
      const chunk = this.#rest.subarray(0, end - this.position);
      this.#rest = this.#rest.subarray(chunk.length);
      this.position += chunk.length;
      yield chunk;
    }
  }
}

/** Reads an upload to its end. Throws Failure `failed` when a file does not match the manifest. */
export async function checkGroup(archive: string, group: PackedGroup): Promise<void> {
  for await (const { extension, file, chunks } of readGroup(archive, group)) {
    if ((await digestOf(chunks)) !== file.sha256)
      throw new Failure('failed', `${archive}: ${group.name}.${extension} is not what was archived`);
  }
}

/**
 * Checks many uploads. Small neighbours are read and expanded together, which gives the same result
 * as each alone: their members begin and end where the manifest says.
 */
export async function checkGroups(archive: string, groups: Iterable<PackedGroup>): Promise<void> {
  const fd = openSync(archive, constants.O_RDONLY);
  try {
    let run: PackedGroup[] = [];
    let [size, end] = [0, 0];
    const checkRun = async (): Promise<void> => {
      // Checking them one by one shows which of them is damaged, and why.
      if (!isIntact(fd, run)) for (const group of run) await checkGroup(archive, group);
      [run, size] = [[], 0];
    };
    for (const group of groups) {
      const bytes = sizeOf(group);
      if (group.offset !== end || size + bytes > RUN_BYTES) await checkRun();
      run.push(group);
      size += bytes;
      end = group.offset + group.length;
    }
    await checkRun();
  } finally {
    closeSync(fd);
  }
}

/**
 * The maximum number of bytes expanded together: damage then wastes at most a tenth of a second.
 */
const RUN_BYTES = 512 * 1024;
/**
 * The beginning of every gzip member, and the length of the trailer after its data: CRC-32 and
 * size.
 */
const MEMBER_HEAD = Buffer.from([0x1f, 0x8b, 8]);
const MEMBER_END = 8;

/** The expanded size of an upload, without headers for long names. */
function sizeOf({ files, length }: PackedGroup): number {
  return PACKED_EXTENSIONS.reduce((sum, extension) => sum + BLOCK + files[extension].bytes, length);
}

/** Whether small uploads match the manifest; false also when only checkGroup() can decide. */
function isIntact(fd: number, groups: readonly PackedGroup[]): boolean {
  const [first, last] = [groups[0], groups.at(-1)];
  if (first === undefined || last === undefined) return true;
  const length = last.offset + last.length - first.offset;
  const each = groups.map((group) => ({ group, ...entriesOf(group) }));
  const size = each.reduce((sum, { size }) => sum + size, 0);
  if (length > 2 * RUN_BYTES || size > 2 * RUN_BYTES) return false;
  const members = readOpenAt(fd, first.offset, Buffer.allocUnsafe(length));
  let bytes: Buffer;
  try {
    bytes = gunzipSync(members, { maxOutputLength: Math.max(1, size), chunkSize: Math.max(64, size) });
  } catch {
    return false;
  }
  let at = 0;
  return (
    bytes.length === size &&
    each.every(({ group, entries, size }) => {
      const begin = group.offset - first.offset;
      const content = bytes.subarray(at, at + size);
      at += size;
      return isMember(members.subarray(begin, begin + group.length), content) && isContent(content, entries);
    })
  );
}

/** Whether this is exactly one gzip member. */
function isMember(member: Buffer, content: Buffer): boolean {
  const end = member.length - MEMBER_END;
  return (
    end > MEMBER_HEAD.length &&
    member.subarray(0, MEMBER_HEAD.length).equals(MEMBER_HEAD) &&
    member.readUInt32LE(end) === crc32(content) &&
    member.readUInt32LE(end + 4) === content.length
  );
}

function isContent(content: Buffer, entries: readonly PackedEntry[]): boolean {
  let at = 0;
  return entries.every(({ file, head }) => {
    const [begin, end] = [at + head.length, at + head.length + file.bytes];
    const isHead = head.equals(content.subarray(at, begin));
    at = end + paddingOf(file.bytes);
    return isHead && hash('sha256', content.subarray(begin, end)) === file.sha256;
  });
}

async function digestOf(chunks: Unpacked['chunks']): Promise<string> {
  // Creating an object for each of hundreds of thousands of small files is expensive.
  if (Array.isArray(chunks)) return hash('sha256', chunks[0]);
  const digest = createHash('sha256');
  for await (const chunk of chunks) digest.update(chunk);
  return digest.digest('hex');
}
