// Files that a persistent worker reads once for many requests, until they change.
import { type BigIntStats, closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs';

/**
 * The next change to a file that was unchanged for this long always alters its mtime, however
 * coarse the clock of the file system is.
 */
const SETTLED_AFTER_MS = 2000n;

interface Kept {
  mark: string;
  /**
   * Set by the second request that finds the same file; a process with a single request has no use
   * for it.
   */
  value?: unknown;
}

/** The files that a persistent worker has read, by path. */
const kept = new Map<string, Kept>();

/**
 * Returns the result of `parse` on the text of a file; each path must always be read with the same
 * function. When `isKept` is true, the value must be valid for every request while the file is
 * unchanged; otherwise, only for this request. Throws the errors of `parse` and of system calls.
 */
export function readKept<Value>(path: string, parse: (text: string, isKept: boolean) => Value): Value {
  const found = kept.get(path);
  if (found && 'value' in found && found.mark === markOf(statSync(path, { bigint: true }))) return found.value as Value;
  kept.delete(path);
  const fd = openSync(path, 'r');
  try {
    const before = fstatSync(fd, { bigint: true });
    const mark = markOf(before);
    const isKnown = found?.mark === mark;
    const value = parse(readFileSync(fd, 'utf8'), isKnown);
    const changedAt = before.mtimeMs > before.ctimeMs ? before.mtimeMs : before.ctimeMs;
    const isSettled = BigInt(Date.now()) - changedAt > SETTLED_AFTER_MS;
    if (isSettled && mark === markOf(fstatSync(fd, { bigint: true })))
      kept.set(path, isKnown ? { mark, value } : { mark });
    return value;
  } finally {
    closeSync(fd);
  }
}

function markOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}
