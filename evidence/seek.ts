// Where in a custody record a time is: by bisection, as its records are in order but for clocks that were set back.
import { fstatSync } from 'node:fs';
import { readLines } from 'webjob-locker';

/** So little is read through rather than halved. */
const ENOUGH_BYTES = 256 * 1024;
/** Near the beginning of a record; no value in it can hold these characters unescaped. */
const TIME = /"time":"([^"]+)"/;

/** An offset where a record begins; in a file in order every record before it is older than an instant. */
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

/** The first record that begins behind an offset. */
function findRecord(fd: number, offset: number): { from: number; time: number } | undefined {
  for (const { text, from } of readLines(fd, offset)) {
    // The rest of the record that the offset is in.
    if (from === offset) continue;
    const time = Date.parse(TIME.exec(text)?.[1] ?? '');
    if (!Number.isNaN(time)) return { from, time };
  }
  return undefined;
}
