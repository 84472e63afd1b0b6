// Finds a time in a log by bisection over byte offsets, because its lines are almost in order.
// Reads only a few blocks of a file of any size.
import { readSync } from 'node:fs';

export const BLOCK_BYTES = 64 * 1024;
const TIME = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d /;

/** The time at the beginning of a line of nph-webjob.log; undefined for any other line. */
function findLineTime(line: string): string | undefined {
  return TIME.test(line) ? line.slice(0, 19) : undefined;
}

/** The time of the first line in a text that begins with a time. */
export function findFirstTime(text: string): string | undefined {
  for (const line of text.split('\n')) {
    const time = findLineTime(line);
    if (time !== undefined) return time;
  }
  return undefined;
}

/**
 * The time of the last line in the last block of a file that begins with a time; undefined when
 * there is none.
 */
export function findLastTime(fd: number, size: number): string | undefined {
  const lines = readBlock(fd, Math.max(0, size - BLOCK_BYTES)).split('\n');
  return lines.map(findLineTime).findLast((time) => time !== undefined);
}

/** Reads at most one block from an offset, one character for each byte. */
export function readBlock(fd: number, offset: number): string {
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  return buffer.toString('latin1', 0, readSync(fd, buffer, 0, BLOCK_BYTES, offset));
}

/**
 * Returns the offset of a line before which, in a sorted log, every line is older than `time`. At
 * most about one block of older lines follows, or more where a part of the log has no valid lines.
 */
export function seekTime(fd: number, size: number, time: string): number {
  let low = 0;
  let high = size;
  while (high - low > BLOCK_BYTES) {
    const middle = low + Math.floor((high - low) / 2);
    const found = findLineAfter(fd, middle);
    if (found === undefined) return low;
    if (found.time < time && found.offset < high) low = found.offset;
    else high = middle;
  }
  return low;
}

/** The first complete line with a time after an offset. */
function findLineAfter(fd: number, from: number): { offset: number; time: string } | undefined {
  const block = readBlock(fd, from);
  for (let end = block.indexOf('\n'); end >= 0; end = block.indexOf('\n', end + 1)) {
    const time = findLineTime(block.slice(end + 1, end + 21));
    if (time !== undefined) return { offset: from + end + 1, time };
  }
  return undefined;
}
