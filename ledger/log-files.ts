// nph-webjob.log and what rotation made of it: which files there are, the oldest first, and which of them can hold lines of a time.
import { closeSync, constants, fstatSync, openSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { formatTime } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { warn } from '../cli/output.ts';
import { expandHead, findPacker, type Packer } from './packed-log.ts';
import { BLOCK_BYTES, findFirstTime, findLastTime, readBlock, seekTime } from './seek.ts';
import { logFolders, type Site } from './site.ts';

export const LOG = 'nph-webjob.log';

/** One of the files, open: whatever rotation does to its name meanwhile, it stays the same. */
export interface LogFile {
  path: string;
  fd: number;
  /** What it is packed with; undefined for plain text. */
  packer: Packer | undefined;
  size: number;
  /** Where its lines begin that can be of the time asked for. */
  start: number;
}

/** `.1`, `.old`, `-20261101`, what a packer adds aside. */
const ROTATED = /^(?:[.-][0-9][0-9.-]*|[.-]old)?$/;

interface Span {
  since: string | undefined;
  until: string | undefined;
  /** The log that is written now is among them however old it is, and only its whole lines count. */
  follow?: boolean | undefined;
}

/**
 * Opens the files that can hold lines from `since` to `until`, both as the log writes times; the caller closes them. Throws Failure
 * `failed`, for a site without a log too.
 */
export function openLogFiles(site: Site, { since, until, follow }: Span): LogFile[] {
  const files = openAll(logFolders(site)).map((file) => {
    const first = findFirstTime(
      file.packer ? expandHead(file.fd, file.packer).toString('latin1') : readBlock(file.fd, 0),
    );
    const lastChange = formatTime(fstatSync(file.fd).mtime, site.settings.useGMT);
    return { file, first: first ?? lastChange, lastChange };
  });
  const isLive = ({ path }: LogFile): boolean => follow === true && basename(path) === LOG;
  for (const { file } of files.filter(({ file }) => isLive(file))) file.size = endOfLines(file);
  const isWanted = ({ file, first, lastChange }: (typeof files)[number]): boolean => {
    if (until !== undefined && first > until) return false;
    if (since === undefined) return true;
    // Packers keep the time of the last change, so what is packed is as old as it says.
    if (file.packer) return lastChange >= since;
    if (!isLive(file) && (findLastTime(file.fd, file.size) ?? lastChange) < since) return false;
    file.start = seekTime(file.fd, file.size, since);
    return true;
  };
  // The log that is followed must be the last.
  files.sort(
    (a, b) => Number(isLive(a.file)) - Number(isLive(b.file)) || (a.first < b.first ? -1 : Number(a.first > b.first)),
  );
  return files.flatMap((found) => {
    if (isWanted(found)) return [found.file];
    closeSync(found.file.fd);
    return [];
  });
}

function openAll(folders: readonly string[]): LogFile[] {
  const seen = new Set<string>();
  const files = folders.flatMap(listLogs).flatMap((path): LogFile[] => {
    const fd = openLog(path);
    if (fd === undefined) return [];
    const { dev, ino, size } = fstatSync(fd);
    // A file that was renamed between two looks at the folder is met under both names.
    if (seen.size === seen.add(`${dev}:${ino}`).size) {
      closeSync(fd);
      return [];
    }
    return [{ path, fd, size, packer: findPacker(path), start: 0 }];
  });
  if (files.length === 0)
    throw new Failure('failed', `${join(folders[0] ?? '', LOG)}: there is no log`, 'EnableLogging=N?');
  return files;
}

/** The logs in a folder, by their paths, in no order. Throws Failure `failed`. */
export function listLogs(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.startsWith(LOG) && isLog(name))
      .map((name) => join(folder, name));
  } catch (error) {
    throw new Failure('failed', `${folder}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}

/** Warns of a log that is packed with something that cannot be read here. */
function isLog(name: string): boolean {
  const [, rest = '', ending = ''] =
    /^(.*?)(\.(?:gz|zst|xz|bz2|lz4|lzma|lzo|br|Z|zip))?$/.exec(name.slice(LOG.length)) ?? [];
  if (!ROTATED.test(rest)) return false;
  if (ending === '' || findPacker(name)) return true;
  warn(`${name} is skipped: logs packed as ${ending} cannot be read here; unpack it, or pack it with gzip`);
  return false;
}

/** Undefined when it is gone. */
function openLog(path: string): number | undefined {
  try {
    // O_NONBLOCK: what is no regular file must not hold us up.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path}: ${code}`, undefined, { cause: error });
  }
}

/** Where the last whole line ends. */
function endOfLines({ fd, size }: LogFile): number {
  const start = Math.max(0, size - BLOCK_BYTES);
  const end = readBlock(fd, start).lastIndexOf('\n', size - start - 1);
  return end < 0 ? size : start + end + 1;
}
