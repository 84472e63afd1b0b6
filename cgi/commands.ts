// findCommand: which file a GET means (docs/protocol.md, section 5). Never opens for good what lies outside ProfilesDirectory,
// whatever links lead there.
import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, realpathSync } from 'node:fs';
import { join, sep } from 'node:path';
import { Refusal } from './refusal.ts';
import type { ServerSettings } from './settings.ts';

export interface CommandFile {
  fd: number;
  /** Bytes at the time it was opened. */
  size: number;
}

/**
 * Opens the first file of that name in `<client>/commands`, `<client>`, then the same two of every folder of FolderList.
 * Undefined when there is none. Throws Refusal 457 for one that is there but cannot be served: a broken file of the
 * client's own must not silently give way to a common one. The caller closes the descriptor.
 */
export function findCommand(settings: ServerSettings, clientId: string, fileName: string): CommandFile | undefined {
  for (const folder of [clientId, ...settings.folders]) {
    for (const place of [join(folder, 'commands'), folder]) {
      const command = openInside(settings.profilesDirectory, join(place, fileName));
      if (command) return command;
    }
  }
  return undefined;
}

function openInside(root: string, relativePath: string): CommandFile | undefined {
  const path = join(root, relativePath);
  const fd = openIfPresent(path);
  if (fd === undefined) return undefined;
  try {
    const opened = fstatSync(fd);
    if (!opened.isFile()) throw new Refusal(457, 'no regular file');
    if (!placeOf(fd, path).startsWith(realpathSync.native(root) + sep)) throw new Refusal(457, 'a link leads outside');
    return { fd, size: opened.size };
  } catch (error) {
    closeSync(fd);
    throw error instanceof Refusal ? error : new Refusal(457, 'gone while it was opened', { cause: error });
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
    if (found.ino !== opened.ino || found.dev !== opened.dev) throw new Refusal(457, 'changed while it was opened');
    return place;
  }
}

/** O_NONBLOCK: a named pipe must not hold the request until somebody writes to it. */
function openIfPresent(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTDIR' || code === 'ENAMETOOLONG') return undefined;
    if (code === 'ENOENT' && lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
    throw new Refusal(457, `cannot be opened: ${code}`, { cause: error });
  }
}
