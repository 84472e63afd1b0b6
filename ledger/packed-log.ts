// Reads compressed logs as zcat and zstdcat do; damaged ones are read up to the damage.
import { createReadStream, readSync } from 'node:fs';
import { basename } from 'node:path';
import { pipeline, type Transform } from 'node:stream';
import { warn } from '../cli/output.ts';

export type Packer = 'gzip' | 'zstd';

interface PackedLog {
  path: string;
  fd: number;
  size: number;
  packer: Packer | undefined;
}

/**
 * The size of compressed data that is enough for the first line, and expands to at most 4 MB in a
 * compression bomb.
 */
const HEAD_BYTES = 4096;

/**
 * The compression of a log, from its name; undefined for plain text, and for a compression that
 * this Node cannot read.
 */
export function findPacker(name: string): Packer | undefined {
  if (name.endsWith('.gz')) return 'gzip';
  return name.endsWith('.zst') && 'createZstdDecompress' in loadZlib() ? 'zstd' : undefined;
}

/** The beginning of a compressed log; empty when it is damaged. */
export function expandHead(fd: number, packer: Packer): Buffer {
  const buffer = Buffer.alloc(HEAD_BYTES);
  const head = buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0));
  const { gunzipSync, zstdDecompressSync, constants } = loadZlib();
  try {
    if (packer === 'zstd') return zstdDecompressSync(head, { finishFlush: constants.ZSTD_e_flush });
    return gunzipSync(head, { finishFlush: constants.Z_SYNC_FLUSH });
  } catch {
    return Buffer.alloc(0);
  }
}

/**
 * Yields the text of a compressed log. A damaged log is read as far as possible, with a warning.
 * Throws other errors of system calls.
 */
export async function* expand(log: PackedLog): AsyncGenerator<Buffer> {
  if (log.size === 0) return;
  try {
    if (log.packer === 'zstd') yield* pass(log, 0, loadZlib().createZstdDecompress());
    else yield* gunzip(log);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!/^(?:Z_|ZSTD_|ERR_ZSTD)/.test(code ?? '')) throw error;
    warn(`${basename(log.path)} is damaged and was read as far as possible: ${code}`);
  }
}

/** CRC-32 and length after the compressed data of a member (RFC 1952, section 2.3). */
const TRAILER_BYTES = 8;

/**
 * Reads member after member. Bytes after the last one are ignored, as in zcat; Node's gunzip would
 * lose the data before them.
 */
async function* gunzip(log: PackedLog): AsyncGenerator<Buffer> {
  for (let at = 0; at < log.size; ) {
    const start = findDeflated(log.fd, at);
    if (start === undefined) {
      if (at > 0) return;
      throw Object.assign(new Error('not gzip'), { code: 'Z_DATA_ERROR' });
    }
    const inflate = loadZlib().createInflateRaw();
    yield* pass(log, start, inflate);
    at = start + inflate.bytesWritten + TRAILER_BYTES;
  }
}

const FLAGS = { headerCrc: 2, extra: 4, name: 8, comment: 16 };
/**
 * The maximum size of a member's header. RFC 1952 sets no limit for the name and the comment in it.
 */
const MAX_HEADER_BYTES = 64 * 1024;

/**
 * The offset of the compressed data of a member, from its header; undefined when there is no
 * header.
 */
function findDeflated(fd: number, at: number): number | undefined {
  const buffer = Buffer.alloc(MAX_HEADER_BYTES);
  const head = buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, at));
  if (head.length < 10 || head[0] !== 0x1f || head[1] !== 0x8b || head[2] !== 8) return undefined;
  const flags = head[3] ?? 0;
  let end = 10;
  if (flags & FLAGS.extra) end += 2 + (head[10] ?? 0) + (head[11] ?? 0) * 256;
  for (const text of [FLAGS.name, FLAGS.comment]) if (flags & text) end = head.indexOf(0, end) + 1 || head.length;
  if (flags & FLAGS.headerCrc) end += 2;
  return end < head.length ? at + end : undefined;
}

async function* pass({ fd, size }: PackedLog, start: number, through: Transform): AsyncGenerator<Buffer> {
  const source = createReadStream('', { fd, start, end: size - 1, autoClose: false });
  // An error in any stage ends the last one, which is the one that is read.
  pipeline(source, through, () => {});
  yield* through;
}

/** Loads node:zlib on demand, because loading it takes time and most logs are not compressed. */
function loadZlib(): typeof import('node:zlib') {
  return process.getBuiltinModule('node:zlib');
}
