// Reads the lines of an open file piece by piece.
import { fstatSync, readSync } from 'node:fs';
import { MAX_RECORD_BYTES } from 'webjob-protocol';

const BLOCK_BYTES = 256 * 1024;
const SEARCH_BYTES = MAX_RECORD_BYTES + 64 * 1024;

/**
 * A line without its newline; `from` is the offset of its first byte, `to` the offset after the
 * newline.
 */
export interface Line {
  text: string;
  from: number;
  to: number;
}

/**
 * Yields the complete lines of an open file, from an offset on, that contain at least one of the
 * texts. Returns the offset at which to continue. Takes a fraction of the time that testing every
 * line would take.
 *
 * @param end lines after this offset may be skipped
 */
export function* findLines(
  fd: number,
  start: number,
  texts: readonly string[],
  end = Number.POSITIVE_INFINITY,
): Generator<Line, number> {
  const length = Math.max(0, Math.min(SEARCH_BYTES, Math.min(fstatSync(fd).size, end) - start));
  const buffer = takeBuffer(length);
  const needles = texts.map((text) => Buffer.from(text, 'latin1'));
  try {
    for (let at = start; ; ) {
      if (at >= end) return at;
      const count = readSync(fd, buffer, 0, length, at);
      const whole = buffer.subarray(0, count).lastIndexOf(10) + 1;
      if (whole === 0) {
        if (count < SEARCH_BYTES) return at;
        at += count;
        continue;
      }
      const block = buffer.subarray(0, whole);
      const found = new Set<number>();
      for (const needle of needles)
        for (let hit = block.indexOf(needle); hit >= 0; hit = block.indexOf(needle, block.indexOf(10, hit)))
          found.add(block.lastIndexOf(10, hit) + 1);
      for (const from of [...found].sort((a, b) => a - b)) {
        const to = block.indexOf(10, from);
        yield { text: block.toString('latin1', from, to), from: at + from, to: at + to + 1 };
      }
      at += whole;
    }
  } finally {
    spare = buffer;
  }
}

/** A buffer that no search uses now. Many searches with a new buffer each would fill the memory. */
let spare: Buffer | undefined;

function takeBuffer(length: number): Buffer {
  const buffer = spare && spare.length >= length ? spare : Buffer.allocUnsafe(length);
  spare = undefined;
  return buffer;
}

/**
 * Yields every line of an open file from an offset on, one character for each byte. Of a line over
 * 1 MiB only the end is kept.
 *
 * @param pieceBytes the number of bytes read at once; small for a caller that wants a line or two
 */
export function* readLines(fd: number, start: number, pieceBytes = BLOCK_BYTES): Generator<Line> {
  const left = fstatSync(fd).size - start;
  if (left <= 0) return;
  const block = Buffer.allocUnsafe(Math.min(pieceBytes, left));
  let [text, from, at] = ['', start, start];
  for (;;) {
    const count = readSync(fd, block, 0, block.length, at);
    if (count === 0) return;
    const parts = block.toString('latin1', 0, count).split('\n');
    const last = parts.pop() ?? '';
    for (const part of parts) {
      at += part.length + 1;
      yield { text: (text + part).slice(-MAX_RECORD_BYTES), from, to: at };
      text = '';
      from = at;
    }
    at += last.length;
    text = (text + last).slice(-MAX_RECORD_BYTES);
  }
}
