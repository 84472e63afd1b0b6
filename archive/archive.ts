// The archive of a pack: a .tar.gz of which every group is a gzip member of its own. `tar xzf` unpacks it, and with the offsets of the
// manifest one group is read without the others.
import { createHash, type Hash, hash } from 'node:crypto';
import {
  type BigIntStats,
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip, gunzipSync, gzipSync } from 'node:zlib';
import { reach } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { formatMark, markOf } from '../cli/files.ts';
import { PACKED_EXTENSIONS, type PackedExtension, type PackedFile, type PackedGroup } from './manifest.ts';
import { formatTarHead, paddingOf, TAR_END, tarPadding } from './tar.ts';

export type PackedFiles = PackedGroup['files'];

/** A file that is not what it was when it was opened. */
export class ChangedFile extends Error {}

/** So much is compressed, and expanded, at once: for small files streams cost a multiple of the work itself. */
const SMALL_BYTES = 1 << 20;

/** What one group is in an archive. */
export interface Appended {
  length: number;
  files: PackedFiles;
  /** The beginning of its run record. */
  record: string;
  /** Inode, size and time of each file, as markOf gives them. */
  marks: Record<PackedExtension, string>;
}

interface Source {
  extension: PackedExtension;
  /** Its path below the locker. */
  file: string;
  fd: number;
  stats: BigIntStats;
}

/**
 * Writes one group behind what is there; where it lies and what it holds. Throws ChangedFile when a name leads to another file afterwards, or
 * to none that can be read, and then a part of it is written.
 */
export async function appendGroup(archive: number, offset: number, locker: string, name: string): Promise<Appended> {
  const sources: Source[] = [];
  try {
    for (const extension of PACKED_EXTENSIONS) sources.push(openSource(locker, name, extension));
    const [files, heads] = [{} as PackedFiles, new Map<PackedExtension, Buffer>()];
    const size = sources.reduce((sum, { stats }) => sum + Number(stats.size), 0);
    const length = await appendMember(archive, offset, groupBytes(name, sources, files, heads), size);
    for (const { file, stats } of sources)
      if (markOf(reach(locker, file)) !== formatMark(stats)) throw new ChangedFile(file);
    const marks = Object.fromEntries(sources.map(({ extension, stats }) => [extension, formatMark(stats)]));
    const record = heads.get('env')?.toString('latin1') ?? '';
    return { length, files, record, marks: marks as Appended['marks'] };
  } finally {
    for (const { fd } of sources) closeSync(fd);
  }
}

function openSource(locker: string, name: string, extension: PackedExtension): Source {
  const file = `${name}.${extension}`;
  // No link is followed, and nobody waits for a fifo.
  const fd = openSync(reach(locker, file), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stats = fstatSync(fd, { bigint: true });
  if (stats.isFile()) return { extension, file, fd, stats };
  closeSync(fd);
  throw new ChangedFile(file);
}

/** Ends the archive; returns how many bytes that took. */
export async function appendEnd(archive: number, offset: number): Promise<number> {
  return appendMember(archive, offset, [TAR_END], TAR_END.length);
}

/** Returns how many bytes the member has. */
async function appendMember(archive: number, offset: number, source: Iterable<Buffer>, size: number): Promise<number> {
  if (size <= SMALL_BYTES) return writeAt(archive, compress(Buffer.concat([...source])), offset);
  let length = 0;
  await pipeline(source, createGzip(), async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) length += writeAt(archive, chunk, offset + length);
  });
  return length;
}

/** The window and tables of zlib are as large as the bytes need: to make them, and to collect them, takes longer than to fill them. */
function compress(bytes: Buffer): Buffer {
  const windowBits = Math.min(15, Math.max(10, Math.ceil(Math.log2(bytes.length))));
  return gzipSync(bytes, { windowBits, memLevel: windowBits - 7, chunkSize: Math.max(2048, bytes.length >> 2) });
}

function writeAt(fd: number, bytes: Buffer, position: number): number {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  return bytes.length;
}

/** Adds what it read to `files`, and the first piece of each to `heads`. */
function* groupBytes(
  name: string,
  sources: readonly Source[],
  files: PackedFiles,
  heads: Map<PackedExtension, Buffer>,
): Generator<Buffer> {
  for (const { extension, file, fd, stats } of sources) {
    const [size, mtime] = [Number(stats.size), Number(stats.mtimeNs) / 1e6];
    yield formatTarHead({ name: `${name}.${extension}`, size, mtimeSeconds: mtime / 1000 });
    let digest: Hash | undefined;
    let [bytes, sha256] = [0, ''];
    while (bytes < size || sha256 === '') {
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, size - bytes));
      const chunk = piece.subarray(0, piece.length === 0 ? 0 : readSync(fd, piece));
      if (chunk.length === 0 && bytes < size) throw new ChangedFile(file);
      if (bytes === 0) heads.set(extension, chunk);
      bytes += chunk.length;
      if (chunk.length === size) sha256 = hash('sha256', chunk);
      else {
        digest = (digest ?? createHash('sha256')).update(chunk);
        if (bytes === size) sha256 = digest.digest('hex');
      }
      yield chunk;
    }
    yield tarPadding(size);
    files[extension] = { bytes: size, sha256, mtime };
  }
}

const PIECE_BYTES = 64 * 1024;

/** A file of a packed group, and its bytes: read them before the next one is asked for. */
export interface Unpacked {
  extension: PackedExtension;
  file: PackedFile;
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>;
}

/**
 * The files of a group, one after the other; bytes that are not read are passed over. Where each begins follows from the manifest, and
 * the header before it must be the one that was written. Throws Failure `failed` for an archive that is damaged.
 */
export async function* readGroup(archive: string, group: PackedGroup): AsyncGenerator<Unpacked> {
  const entries = entriesOf(group);
  const size = entries.reduce((sum, { head, file }) => sum + head.length + file.bytes + paddingOf(file.bytes), 0);
  if (size <= SMALL_BYTES && group.length <= SMALL_BYTES) yield* readSmall(archive, group, entries, size);
  else yield* readLarge(archive, group, entries);
}

interface PackedEntry {
  extension: PackedExtension;
  file: PackedFile;
  head: Buffer;
}

function entriesOf({ name, files }: PackedGroup): PackedEntry[] {
  return PACKED_EXTENSIONS.map((extension) => {
    const file = files[extension];
    const facts = { name: `${name}.${extension}`, size: file.bytes, mtimeSeconds: file.mtime / 1000 };
    return { extension, file, head: formatTarHead(facts) };
  });
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
    source.destroy();
    gunzip.destroy();
  }
}

function missing(archive: string, name: string): Failure {
  return damageOf(archive, new Error(`${name} is not there`));
}

function readAt(path: string, position: number, length: number): Buffer {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    for (let count = -1; count !== 0 && done < length; done += count)
      count = readSync(fd, bytes, done, length - done, position + done);
    return bytes.subarray(0, done);
  } finally {
    closeSync(fd);
  }
}

function damageOf(archive: string, error: NodeJS.ErrnoException): Failure {
  const { code, message } = error;
  const isDamaged = code === undefined || code.startsWith('Z_') || code === 'ERR_BUFFER_TOO_LARGE';
  const why = isDamaged ? `damaged, ${code ?? message}` : code;
  return new Failure('failed', `${archive}: ${why}`, undefined, { cause: error });
}

/** Takes a stream apart at byte positions. Throws Failure `failed` to whoever reads, which is not always readGroup itself. */
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

  /** What is left up to a position. */
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

/** Reads a group to its end. Throws Failure `failed` when a file is not the one of the manifest. */
export async function checkGroup(archive: string, group: PackedGroup): Promise<void> {
  for await (const { extension, file, chunks } of readGroup(archive, group)) {
    if ((await digestOf(chunks)) !== file.sha256)
      throw new Failure('failed', `${archive}: ${group.name}.${extension} is not what was packed`);
  }
}

async function digestOf(chunks: Unpacked['chunks']): Promise<string> {
  // An object for each of hundreds of thousands of small files is dear.
  if (Array.isArray(chunks)) return hash('sha256', chunks[0]);
  const digest = createHash('sha256');
  for await (const chunk of chunks) digest.update(chunk);
  return digest.digest('hex');
}
