// openContained: opens a file that is guaranteed to be below a root, whatever links its path
// contains. Used for commands, their signatures, and overrides.
import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, realpathSync } from 'node:fs';
import { Refusal } from './refusal.ts';

export interface ContainedFile {
  fd: number;
  /** The size in bytes when the file was opened. */
  size: number;
}

/** Thrown for a file that exists but cannot be used. */
export class UnusableFile extends Refusal {
  constructor(detail: string) {
    super(457, detail);
  }
}

/**
 * Opens a regular file below `root` for reading; undefined when it does not exist. Throws
 * UnusableFile if it is not a regular file, cannot be read, or is outside `root` because of a link.
 * The caller closes the descriptor.
 */
export function openContained(root: string, relativePath: string): ContainedFile | undefined {
  const path = `${root}/${relativePath}`;
  const fd = openIfPresent(path);
  if (fd === undefined) return undefined;
  try {
    const opened = fstatSync(fd);
    if (!opened.isFile()) throw new UnusableFile('not a regular file');
    // `place` has no links in it. If it begins with `root` as written, it is below `root`;
    // otherwise `root` itself may contain links.
    const place = placeOf(fd, path);
    if (!place.startsWith(`${root}/`) && !place.startsWith(`${realpathSync.native(root)}/`))
      throw new UnusableFile('a link leads outside');
    return { fd, size: opened.size };
  } catch (error) {
    closeSync(fd);
    throw error instanceof UnusableFile ? error : new UnusableFile('disappeared while it was opened');
  }
}

/**
 * The path of an open file without any links. A path and its directories may change between two
 * system calls, so the path is read from the descriptor. Without /proc the path is resolved again
 * and must lead to the same file: this detects a permanent link, but not one that someone with
 * write access swaps in at the right moment.
 */
function placeOf(fd: number, path: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    const place = realpathSync.native(path);
    const [opened, found] = [fstatSync(fd, { bigint: true }), lstatSync(place, { bigint: true })];
    if (found.ino !== opened.ino || found.dev !== opened.dev) throw new UnusableFile('changed while it was opened');
    return place;
  }
}

/**
 * Opens a file with O_NONBLOCK, because a named pipe must not block the request until a process
 * writes to it.
 */
function openIfPresent(path: string): number | undefined {
  try {
    // Checked first, because an exception for each place without a file would cost more than the
    // rest of a request.
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTDIR' || code === 'ENAMETOOLONG') return undefined;
    throw new UnusableFile(`cannot be opened: ${code}`);
  }
}
