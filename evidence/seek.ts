// Finds a time in a custody record by bisection: its records are in order, except where a clock was
// set back.
import { fstatSync } from 'node:fs';
import { readLines } from 'webjob-locker';

/** A range this small is read through instead of halved. */
const ENOUGH_BYTES = 256 * 1024;
/** Enough for one record: most are shorter. */
export const FEW_BYTES = 4096;
/** The time near the beginning of a record. No value can contain these characters unescaped. */
const TIME = /"time":"([^"]+)"/;

/**
 * Returns the offset of a record such that in an ordered file all earlier records are older than
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

/** In an ordered file, every record after this offset is newer than the time. */
export function seekBehind(fd: number, instant: number): number {
  return seekRecord(fd, instant) + ENOUGH_BYTES;
}

/** The first record that begins after an offset. */
function findRecord(fd: number, offset: number): { from: number; time: number } | undefined {
  for (const { text, from } of readLines(fd, offset, FEW_BYTES)) {
    // The first piece is the rest of the record that contains the offset.
    if (from === offset) continue;
    const time = Date.parse(TIME.exec(text)?.[1] ?? '');
    if (!Number.isNaN(time)) return { from, time };
  }
  return undefined;
}
