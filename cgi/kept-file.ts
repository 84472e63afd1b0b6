// Files that a persistent worker reads once for many requests, until they change.
import { type BigIntStats, closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs';

/** A later change of a file that was left alone for so long has another time, however coarse the clock of the file system is. */
const SETTLED_AFTER_MS = 2000n;

interface Kept {
  mark: string;
  /** Made by the second request that finds the same file. A process that serves only one has no use for it. */
  value?: unknown;
}

/** What a persistent worker has seen and read, by the path of the file. */
const kept = new Map<string, Kept>();

/**
 * What `parse` makes of the text of a file; each path is always read by the same. When it is told that its value will be kept, that has to hold
 * for every request as long as the file is the same, else it is for this request alone. Throws what `parse` throws, and errors of system calls.
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
