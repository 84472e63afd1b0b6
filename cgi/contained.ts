// openContained: opens a file below a root for good, whatever links are in the way. For commands, their signatures and overrides.
import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, realpathSync } from 'node:fs';
import { Refusal } from './refusal.ts';

export interface ContainedFile {
  fd: number;
  /** Bytes at the time it was opened. */
  size: number;
}

/** There is a file of that name, but it cannot be used. */
export class UnusableFile extends Refusal {
  constructor(detail: string) {
    super(457, detail);
  }
}

/**
 * Opens a regular file below `root` for reading; undefined when there is nothing of that name. Throws UnusableFile for what is
 * there but no regular file, not readable, or outside `root` because a link leads there. The caller closes the descriptor.
 */
export function openContained(root: string, relativePath: string): ContainedFile | undefined {
  const path = `${root}/${relativePath}`;
  const fd = openIfPresent(path);
  if (fd === undefined) return undefined;
  try {
    const opened = fstatSync(fd);
    if (!opened.isFile()) throw new UnusableFile('no regular file');
    // The place has no links in it. What begins as `root` is written lies in `root`; else that may be written with links.
    const place = placeOf(fd, path);
    if (!place.startsWith(`${root}/`) && !place.startsWith(`${realpathSync.native(root)}/`))
      throw new UnusableFile('a link leads outside');
    return { fd, size: opened.size };
  } catch (error) {
    closeSync(fd);
    throw error instanceof UnusableFile ? error : new UnusableFile('gone while it was opened');
  }
}

/**
 * Where an open file lies, without any link. Its path may be changed between two looks at it, a folder on the way as well as the
 * file, so the descriptor itself is asked. Where there is no /proc, the path is followed once more and must lead to this very
 * file: that stops a link that stands, but not somebody who can write in the folders and swaps one in at the right moments.
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

/** O_NONBLOCK: a named pipe must not hold the request until somebody writes to it. */
function openIfPresent(path: string): number | undefined {
  try {
    // Asked first, because an exception for each place where there is nothing would cost more than the rest of a request's work.
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTDIR' || code === 'ENAMETOOLONG') return undefined;
    throw new UnusableFile(`cannot be opened: ${code}`);
  }
}
