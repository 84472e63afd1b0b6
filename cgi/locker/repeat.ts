// Recognises an upload that is already stored, because a client that received no answer sends it
// again. Its bytes are compared with those on disk as they arrive. When they turn out to differ,
// the part that was read is supplied again from the upload that it was equal to.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { ByteSource, DepositPlan } from './deposit.ts';
import { LockerFailure } from './failure.ts';
import { formatReady, groupPaths, STREAMS, type StreamName } from './layout.ts';

/** The result of comparing an upload. */
export interface Comparison {
  /** The base of the upload with the same bytes. */
  repeated: string | undefined;
  /** The whole upload from its first byte, when no stored one is the same. */
  rest: ByteSource;
  /** Must be called when `rest` is no longer read. */
  close(): void;
}

/** An upload with the same job id and streams of the same sizes. */
interface Twin {
  base: string;
  fds: Record<StreamName, number>;
}

const CHUNK_BYTES = 256 * 1024;

/**
 * Compares an upload with announced ones that may be the same; each costs three descriptors. Reads
 * nothing of `source` when no upload qualifies. Throws LockerFailure `short` when the body ends
 * before it differs from all: the bytes that have arrived are already on disk.
 */
export function compareUpload(bases: readonly string[], plan: DepositPlan, source: ByteSource): Comparison {
  const twins = bases.flatMap((base) => openTwin(base, plan) ?? []);
  const close = (): void => {
    for (const { fds } of twins) closeAll(fds);
  };
  try {
    return { ...compare(twins, plan.lengths, source), close };
  } catch (error) {
    close();
    throw error;
  }
}

function compare(
  twins: readonly Twin[],
  lengths: DepositPlan['lengths'],
  source: ByteSource,
): Omit<Comparison, 'close'> {
  let alive = twins;
  if (alive.length === 0) return { repeated: undefined, rest: source };
  const [buffer, stored] = [Buffer.allocUnsafe(CHUNK_BYTES), Buffer.allocUnsafe(CHUNK_BYTES)];
  for (const stream of STREAMS) {
    for (let at = 0; at < lengths[stream]; ) {
      const count = source.read(buffer.subarray(0, Math.min(buffer.length, lengths[stream] - at)));
      if (count === 0) throw new LockerFailure('short', 'the body ended early');
      const chunk = buffer.subarray(0, count);
      const equal = alive.filter(
        ({ fds }) => readAt(fds[stream], stored.subarray(0, count), at) && stored.subarray(0, count).equals(chunk),
      );
      const [last] = alive;
      if (equal.length === 0 && last)
        return { repeated: undefined, rest: tellAgain(last, stream, at, lengths, chunk, source) };
      alive = equal;
      at += count;
    }
  }
  return { repeated: alive[0]?.base, rest: source };
}

/**
 * The upload from its first byte: up to byte `at` of a stream from a stored upload that has been
 * equal so far, then `chunk`, then the rest of `source`.
 */
function tellAgain(
  { fds }: Twin,
  stream: StreamName,
  at: number,
  lengths: DepositPlan['lengths'],
  chunk: Buffer,
  source: ByteSource,
): ByteSource {
  const whole = STREAMS.slice(0, STREAMS.indexOf(stream)).map((name) => ({ fd: fds[name], length: lengths[name] }));
  const parts = [...whole, { fd: fds[stream], length: at }].filter(({ length }) => length > 0);
  let [told, left] = [0, Buffer.from(chunk)];
  return {
    read(buffer) {
      const [part] = parts;
      if (part) {
        const wanted = buffer.subarray(0, Math.min(buffer.length, part.length - told));
        if (!readAt(part.fd, wanted, told)) throw new LockerFailure('failed', 'the stored upload changed meanwhile');
        told += wanted.length;
        if (told === part.length) {
          parts.shift();
          told = 0;
        }
        return wanted.length;
      }
      if (left.length === 0) return source.read(buffer);
      const count = left.copy(
        buffer instanceof Buffer ? buffer : Buffer.from(buffer.buffer, buffer.byteOffset, buffer.length),
      );
      left = left.subarray(count);
      return count;
    },
  };
}

/**
 * Opens a stored upload; undefined when it cannot be the same: another job id, other sizes, or
 * files that are not regular.
 */
function openTwin(base: string, { jobId, lengths }: DepositPlan): Twin | undefined {
  const paths = groupPaths(base);
  const fds: Partial<Twin['fds']> = {};
  if (!isOfJob(base, jobId)) return undefined;
  for (const stream of STREAMS) {
    const fd = openFile(paths[stream], lengths[stream]);
    if (fd === undefined) {
      closeAll(fds);
      return undefined;
    }
    fds[stream] = fd;
  }
  return { base, fds: fds as Twin['fds'] };
}

/** Whether an upload was announced under that job id. */
export function isOfJob(base: string, jobId: string): boolean {
  const ready = Buffer.from(formatReady(jobId));
  return withFile(groupPaths(base).rdy, ready.length, (fd) => {
    const found = Buffer.alloc(ready.length);
    return readAt(fd, found, 0) && found.equals(ready);
  });
}

function withFile(path: string, size: number, look: (fd: number) => boolean): boolean {
  const fd = openFile(path, size);
  if (fd === undefined) return false;
  try {
    return look(fd);
  } finally {
    closeSync(fd);
  }
}

/** Opens a regular file of that size without following a link; undefined for anything else. */
function openFile(path: string, size: number): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  const stats = fstatSync(fd);
  if (stats.isFile() && stats.size === size) return fd;
  closeSync(fd);
  return undefined;
}

/** Fills the buffer from an offset; false when the file has fewer bytes. */
function readAt(fd: number, buffer: Uint8Array, offset: number): boolean {
  for (let at = 0; at < buffer.length; ) {
    const count = readSync(fd, buffer, at, buffer.length - at, offset + at);
    if (count === 0) return false;
    at += count;
  }
  return true;
}

function closeAll(fds: Partial<Record<StreamName, number>>): void {
  for (const fd of Object.values(fds)) closeSync(fd);
}
