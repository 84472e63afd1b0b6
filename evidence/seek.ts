// Finds a time in a custody record by bisection: its records are in order, except where a clock was
// set back.
import { fstatSync, readSync } from 'node:fs';

/** A range of at most this size is read to its end instead of halved. */
const ENOUGH_BYTES = 256 * 1024;
/** The size of a read that is enough for most records. */
export const FEW_BYTES = 4096;
/** The buffer for a piece in which the end of a record is searched. */
const piece = Buffer.allocUnsafe(16 * 1024);
/** The time near the beginning of a record. No value can contain these characters unescaped. */
const TIME = /"time":"([^"]+)"/;

/**
 * Returns the offset of a record before which, in an ordered file, all records are older than
 * `instant`, in milliseconds.
 */
export function seekRecord(fd: number, instant: number): number {
  let low = 0;
  for (let high = fstatSync(fd).size; high - low > ENOUGH_BYTES; ) {
    const middle = low + Math.floor((high - low) / 2);
    const found = findRecord(fd, middle);
    if (found && found.from < high && found.time < instant) low = found.from;
    else high = middle;
  }
  return low;
}

/** Returns an offset after which, in an ordered file, all records are newer than `instant`. */
export function seekBehind(fd: number, instant: number): number {
  return seekRecord(fd, instant) + ENOUGH_BYTES;
}

/**
 * Finds the next record after an offset. Reads only its beginning, because a record of many uploads
 * is longer than a piece.
 */
function findRecord(fd: number, offset: number): { from: number; time: number } | undefined {
  for (let at = offset; ; ) {
    const count = readSync(fd, piece, 0, piece.length, at);
    if (count === 0) return undefined;
    const end = piece.subarray(0, count).indexOf(10);
    at += end < 0 ? count : end + 1;
    if (end < 0) continue;
    const head = piece.toString('latin1', 0, readSync(fd, piece, 0, FEW_BYTES, at)).split('\n', 1)[0] ?? '';
    const time = Date.parse(TIME.exec(head)?.[1] ?? '');
    if (!Number.isNaN(time)) return { from: at, time };
  }
}
