// The archive of a pack: a .tar.gz of which every group is a gzip member of its own. `tar xzf` unpacks it, and with the offsets of the
// manifest one group is read without the others.
import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { Failure } from '../cli/failure.ts';
import { PACKED_EXTENSIONS, type PackedExtension, type PackedFile, type PackedGroup } from './manifest.ts';
import { formatTarHead, paddingOf, TAR_END } from './tar.ts';

export type PackedFiles = PackedGroup['files'];

/** A file that has another length than it had when it was opened. */
export class ChangedFile extends Error {}

/** Writes one group behind what is there; where it lies and what it holds. Throws ChangedFile, and then a part of it is written. */
export async function appendGroup(
  archive: FileHandle,
  offset: number,
  locker: string,
  name: string,
): Promise<{ length: number; files: PackedFiles }> {
  const files = {} as PackedFiles;
  const length = await appendMember(archive, offset, groupBytes(locker, name, files));
  return { length, files };
}

/** Ends the archive; returns how many bytes that took. */
export async function appendEnd(archive: FileHandle, offset: number): Promise<number> {
  return appendMember(archive, offset, [TAR_END]);
}

async function appendMember(
  archive: FileHandle,
  offset: number,
  source: Iterable<Buffer> | AsyncIterable<Buffer>,
): Promise<number> {
  let length = 0;
  await pipeline(source, createGzip(), async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) {
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await archive.write(chunk, done, chunk.length - done, offset + length + done);
        done += bytesWritten;
      }
      length += chunk.length;
    }
  });
  return length;
}

async function* groupBytes(locker: string, name: string, files: PackedFiles): AsyncGenerator<Buffer> {
  for (const extension of PACKED_EXTENSIONS) {
    const file = await open(join(locker, `${name}.${extension}`), constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const { size, mtimeMs } = await file.stat();
      yield formatTarHead(`${name}.${extension}`, size, mtimeMs / 1000);
      const hash = createHash('sha256');
      let bytes = 0;
      for await (const chunk of file.createReadStream({ autoClose: false })) {
        bytes += chunk.length;
        if (bytes > size) break;
        hash.update(chunk);
        yield chunk;
      }
      if (bytes !== size) throw new ChangedFile(`${name}.${extension}`);
      yield Buffer.alloc(paddingOf(size));
      files[extension] = { bytes, sha256: hash.digest('hex'), mtime: mtimeMs };
    } finally {
      await file.close();
    }
  }
}

/** A file of a packed group, and its bytes: read them before the next one is asked for. */
export interface Unpacked {
  extension: PackedExtension;
  file: PackedFile;
  chunks: AsyncIterable<Buffer>;
}

/**
 * The files of a group, one after the other; bytes that are not read are passed over. Where each begins follows from the manifest, and
 * the header before it must be the one that was written. Throws Failure `failed` for an archive that is damaged.
 */
export async function* readGroup(archive: string, group: PackedGroup): AsyncGenerator<Unpacked> {
  const { name, offset, length } = group;
  const source = createReadStream(archive, { start: offset, end: offset + Math.max(1, length) - 1 });
  const gunzip = createGunzip();
  source.on('error', (error) => gunzip.destroy(error));
  const reader = new Reader(archive, source.pipe(gunzip));
  try {
    for (const extension of PACKED_EXTENSIONS) {
      const file = group.files[extension];
      const head = formatTarHead(`${name}.${extension}`, file.bytes, file.mtime / 1000);
      if (!head.equals(await reader.take(head.length)))
        throw damageOf(archive, new Error(`${name}.${extension} is not there`));
      const end = reader.position + file.bytes;
      yield { extension, file, chunks: reader.until(end) };
      for await (const _ of reader.until(end + paddingOf(file.bytes)));
    }
  } finally {
    source.destroy();
    gunzip.destroy();
  }
}

function damageOf(archive: string, error: NodeJS.ErrnoException): Failure {
  const { code, message } = error;
  const why = code === undefined || code.startsWith('Z_') ? `damaged, ${code ?? message}` : code;
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
    const hash = createHash('sha256');
    for await (const chunk of chunks) hash.update(chunk);
    if (hash.digest('hex') !== file.sha256)
      throw new Failure('failed', `${archive}: ${group.name}.${extension} is not what was packed`);
  }
}
