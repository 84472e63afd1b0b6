// Logs that rotation packed: read as zcat and zstdcat read them, as far as they go.
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

/** Enough for the first line, and for a bomb of 4 MB at most. */
const HEAD_BYTES = 4096;

/** What a log is packed with, by its name; undefined for plain text, and for what this Node cannot unpack. */
export function findPacker(name: string): Packer | undefined {
  if (name.endsWith('.gz')) return 'gzip';
  return name.endsWith('.zst') && 'createZstdDecompress' in loadZlib() ? 'zstd' : undefined;
}

/** The beginning of a packed log; empty when it is damaged. */
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

/** The text of a packed log. Warns of one that is damaged, and reads it as far as it goes. Throws other errors of system calls. */
export async function* expand(log: PackedLog): AsyncGenerator<Buffer> {
  if (log.size === 0) return;
  try {
    if (log.packer === 'zstd') yield* pass(log, 0, loadZlib().createZstdDecompress());
    else yield* gunzip(log);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!/^(?:Z_|ZSTD_|ERR_ZSTD)/.test(code ?? '')) throw error;
    warn(`${basename(log.path)} is damaged and was read as far as it goes: ${code}`);
  }
}

/** CRC-32 and length behind the deflated bytes of a member (RFC 1952, section 2.3). */
const TRAILER_BYTES = 8;

/** Member after member. Whatever stands behind the last one is nobody's, as zcat has it: gunzip of Node would lose what comes before it. */
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
/** Name and comment have no limit of their own. */
const MAX_HEADER_BYTES = 64 * 1024;

/** Where the deflated bytes of a member begin, by its header; undefined where there is none. */
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
  // The error of any stage ends the last one, which is the one we read.
  pipeline(source, through, () => {});
  yield* through;
}

/** Expensive to load, and most logs are not packed. */
function loadZlib(): typeof import('node:zlib') {
  return process.getBuiltinModule('node:zlib');
}
