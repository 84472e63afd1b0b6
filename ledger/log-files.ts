// nph-webjob.log and its rotated files: which files exist, oldest first, and which of them may have
// lines of a given time.
import { closeSync, constants, fstatSync, openSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { formatTime } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { warn } from '../cli/output.ts';
import { expandHead, findPacker, type Packer } from './packed-log.ts';
import { BLOCK_BYTES, findFirstTime, findLastTime, readBlock, seekTime } from './seek.ts';
import { logFolders, type Site } from './site.ts';

export const LOG = 'nph-webjob.log';

/** A log file that is open, so that a rotation does not affect it. */
export interface LogFile {
  path: string;
  fd: number;
  /** The compression; undefined for plain text. */
  packer: Packer | undefined;
  size: number;
  /** The offset of the first line that may be in the requested time range. */
  start: number;
}

/** The suffix after rotation without the suffix of a compressor: `.1`, `.old`, `-20261101`. */
const ROTATED = /^(?:[.-][0-9][0-9.-]*|[.-]old)?$/;

interface Span {
  since: string | undefined;
  until: string | undefined;
  /** Whether to include the current log, however old it is, but only its complete lines. */
  follow?: boolean | undefined;
}

/**
 * Opens the files that may contain lines from `since` to `until`, both in the form of the log. The
 * caller closes them. Throws Failure `failed`, also for a site without a log.
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
    // Compressors keep the modification time, so that of a compressed log is the time of its last
    // line.
    if (file.packer) return lastChange >= since;
    if (!isLive(file) && (findLastTime(file.fd, file.size) ?? lastChange) < since) return false;
    file.start = seekTime(file.fd, file.size, since);
    return true;
  };
  // The log that is followed must come last.
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
    // A file that was renamed during the listing appears under both names.
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

/** The paths of the logs in a directory, unsorted. Throws Failure `failed`. */
export function listLogs(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.startsWith(LOG) && isLog(name))
      .map((name) => join(folder, name));
  } catch (error) {
    throw new Failure('failed', `${folder}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}

/** Whether a file is a log. Warns of a log whose compression this program cannot read. */
function isLog(name: string): boolean {
  const [, rest = '', ending = ''] =
    /^(.*?)(\.(?:gz|zst|xz|bz2|lz4|lzma|lzo|br|Z|zip))?$/.exec(name.slice(LOG.length)) ?? [];
  if (!ROTATED.test(rest)) return false;
  if (ending === '' || findPacker(name)) return true;
  warn(`${name} is skipped: logs compressed as ${ending} cannot be read here; decompress it, or compress it with gzip`);
  return false;
}

/** Opens a log; undefined when it no longer exists. */
function openLog(path: string): number | undefined {
  try {
    // O_NONBLOCK: a FIFO or device must not block the program.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path}: ${code}`, undefined, { cause: error });
  }
}

/** The offset after the last complete line. */
function endOfLines({ fd, size }: LogFile): number {
  const start = Math.max(0, size - BLOCK_BYTES);
  const end = readBlock(fd, start).lastIndexOf('\n', size - start - 1);
  return end < 0 ? size : start + end + 1;
}
