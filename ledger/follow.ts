// Follows a growing log across rotations, by polling: reads what exists, waits, and never ends by
// itself.
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MILLISECONDS = 300;
const PIECE_BYTES = 64 * 1024;
/** The maximum length of a line; a longer one is not a line of the log. */
const MAX_LINE_LENGTH = 64 * 1024;

/**
 * Yields the lines after an offset of an open file, and of every file that replaces it. Closes the
 * file.
 */
export async function* followLines(path: string, fd: number, offset: number): AsyncGenerator<string> {
  const buffer = Buffer.allocUnsafe(PIECE_BYTES);
  let rest = '';
  try {
    for (;;) {
      // Checked before reading, so that lines written to the old file until then are still read.
      const next = findSuccessor(path, fd);
      // The file was truncated, as copytruncate does.
      if (fstatSync(fd).size < offset) [offset, rest] = [0, ''];
      for (;;) {
        const count = readSync(fd, buffer, 0, PIECE_BYTES, offset);
        if (count === 0) break;
        offset += count;
        const lines = (rest + buffer.toString('latin1', 0, count)).split('\n');
        rest = lines.pop()?.slice(0, MAX_LINE_LENGTH) ?? '';
        yield* lines;
      }
      if (next !== undefined) {
        closeSync(fd);
        [fd, offset, rest] = [next, 0, ''];
      } else await sleep(POLL_MILLISECONDS);
    }
  } finally {
    closeSync(fd);
  }
}

/** Opens the file that now has the name, if it is a different one. */
function findSuccessor(path: string, fd: number): number | undefined {
  const old = fstatSync(fd);
  const now = statSync(path, { throwIfNoEntry: false });
  if (!now || (now.dev === old.dev && now.ino === old.ino)) return undefined;
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
