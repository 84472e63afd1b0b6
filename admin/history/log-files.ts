// nph-webjob.log and what rotation made of it: which files there are, the oldest first, and which of them can hold lines of a time.
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { basename, join } from 'node:path';
import { formatTime } from 'webjob-protocol';
import { Failure } from '../failure.ts';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { BLOCK_BYTES, findFirstTime, findLastTime, readBlock, seekTime } from './seek.ts';

export const LOG = 'nph-webjob.log';

/** One of the files, open: whatever rotation does to its name meanwhile, it stays the same. */
export interface LogFile {
  path: string;
  fd: number;
  isZipped: boolean;
  size: number;
  /** Where its lines begin that can be of the time asked for. */
  start: number;
}

/** `.1`, `.2.gz`, `-20261101`, `-20261101.gz` */
const ROTATED = /^(?:[.-][0-9][0-9.-]*)?(\.gz)?$/;
const OTHER_PACKERS = /\.(?:xz|bz2|zst)$/;
/** Enough for the first line, and for a bomb of 4 MB at most. */
const ZIPPED_HEAD_BYTES = 4096;

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
  const files = openAll(site.settings.logfilesDirectory).map((file) => {
    const first = file.isZipped ? findFirstTime(readZippedHead(file.fd)) : findFirstTime(readBlock(file.fd, 0));
    const lastChange = formatTime(fstatSync(file.fd).mtime, site.settings.useGMT);
    return { file, first: first ?? lastChange, lastChange };
  });
  const isLive = ({ path }: LogFile): boolean => follow === true && basename(path) === LOG;
  for (const { file } of files.filter(({ file }) => isLive(file))) file.size = endOfLines(file);
  const isWanted = ({ file, first, lastChange }: (typeof files)[number]): boolean => {
    if (until !== undefined && first > until) return false;
    if (since === undefined) return true;
    // gzip keeps the time of the last change, so what is packed is as old as it says.
    if (file.isZipped) return lastChange >= since;
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

function openAll(folder: string): LogFile[] {
  const seen = new Set<string>();
  const files = listLogs(folder).flatMap((path): LogFile[] => {
    const fd = openLog(path);
    if (fd === undefined) return [];
    const { dev, ino, size } = fstatSync(fd);
    // A file that was renamed between two looks at the folder is met under both names.
    if (seen.size === seen.add(`${dev}:${ino}`).size) {
      closeSync(fd);
      return [];
    }
    return [{ path, fd, size, isZipped: path.endsWith('.gz'), start: 0 }];
  });
  if (files.length === 0) throw new Failure('failed', `${join(folder, LOG)}: there is no log`, 'EnableLogging=N?');
  return files;
}

function listLogs(folder: string): string[] {
  try {
    const names = readdirSync(folder).filter((name) => name.startsWith(LOG));
    for (const name of names.filter((name) => OTHER_PACKERS.test(name)))
      warn(`${name} is passed over: of packed logs only .gz can be read`);
    return names.filter((name) => ROTATED.test(name.slice(LOG.length))).map((name) => join(folder, name));
  } catch (error) {
    throw new Failure('failed', `${folder}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
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

function readZippedHead(fd: number): string {
  const buffer = Buffer.alloc(ZIPPED_HEAD_BYTES);
  const head = buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0));
  // Dear to load, and most logs are not zipped.
  const { gunzipSync, constants: zlib } = process.getBuiltinModule('node:zlib');
  try {
    return gunzipSync(head, { finishFlush: zlib.Z_SYNC_FLUSH }).toString('latin1');
  } catch {
    return '';
  }
}
