// The lines of nph-webjob.log and of what rotation made of it, one after the other, the oldest first: streamed, never a whole file in memory.
import { closeSync, createReadStream } from 'node:fs';
import { basename } from 'node:path';
import { pipeline, type Transform } from 'node:stream';
import { createGunzip } from 'node:zlib';
import split2 from 'split2';
import { formatTime, type LogLine, parseLogLine } from 'webjob-protocol';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { followLines } from './follow.ts';
import { type LogFile, openLogFiles } from './log-files.ts';

export interface LogRange {
  since?: Date | undefined;
  until?: Date | undefined;
  /** Only lines that hold this text. */
  contains?: string | undefined;
  /** Goes on with what is written from now on, without end. */
  follow?: boolean | undefined;
  /** Called when everything that was there has been read, and what follows is new. */
  onFollow?: (() => void) | undefined;
}

/** So much later than a line that stands behind it another may say it was done. */
const DISORDER_SECONDS = 600;
/** An hour that is there twice, when a zone's summer time ends. */
const REPEATED_HOUR_SECONDS = 3600;
/** The longest line that the server writes is shorter. */
const MAX_LINE_LENGTH = 64 * 1024;

/** The instant at which a line was written. */
export function instantOf(line: LogLine, site: Site): Date {
  return new Date(`${line.time.replace(' ', 'T')}${site.settings.useGMT ? 'Z' : ''}`);
}

/**
 * The lines of a time; a few older and younger ones come with them, as the log is not strictly in order. Lines that are none are passed
 * over, and a warning at the end counts them. Throws Failure `failed`.
 */
export async function* readLogLines(site: Site, range: LogRange = {}): AsyncGenerator<LogLine> {
  const since = range.since && shift(site, range.since, -1);
  const until = range.until && shift(site, range.until, 1);
  const files = openLogFiles(site, { since, until, follow: range.follow });
  let broken = 0;
  const parse: Parse = (text) => {
    if (range.contains !== undefined && !text.includes(range.contains)) return undefined;
    if (since !== undefined && text.slice(0, 19) < since) return undefined;
    try {
      return parseLogLine(text);
    } catch {
      broken++;
      return undefined;
    }
  };
  try {
    for (let file = files.shift(); file; file = files.shift()) {
      const isLast = files.length === 0;
      for await (const line of readFile(
        file,
        parse,
        range.follow && isLast ? (range.onFollow ?? (() => {})) : undefined,
      )) {
        if (until !== undefined && line.time > until) break;
        yield line;
      }
    }
  } finally {
    for (const { fd } of files) closeSync(fd);
    if (broken > 0) warn(`passed over what is no line of a log: ${broken}`);
  }
}

/** An instant as the log writes it, with the allowance for lines out of order. */
function shift({ settings }: Site, at: Date, sign: -1 | 1): string {
  const seconds = DISORDER_SECONDS + (settings.useGMT ? 0 : REPEATED_HOUR_SECONDS);
  return formatTime(new Date(at.getTime() + sign * seconds * 1000), settings.useGMT);
}

type Parse = (text: string) => LogLine | undefined;

async function* readFile(file: LogFile, parse: Parse, onFollow: (() => void) | undefined): AsyncGenerator<LogLine> {
  const { fd, start, size } = file;
  if (size > start) yield* readOnce(file, parse, !onFollow);
  else if (!onFollow) closeSync(fd);
  if (!onFollow) return;
  onFollow();
  for await (const text of followLines(file.path, fd, size)) {
    const line = parse(text);
    if (line) yield line;
  }
}

async function* readOnce(file: LogFile, parse: Parse, autoClose: boolean): AsyncGenerator<LogLine> {
  const { fd, start, size } = file;
  const source = createReadStream('', { fd, start, end: size - 1, autoClose });
  const options = { maxLength: MAX_LINE_LENGTH, skipOverflow: true };
  const lines = split2('\n', parse, options);
  const stages: Transform[] = file.isZipped ? [createGunzip(), lines] : [lines];
  // The error of any stage ends the last one, which is the one we read.
  pipeline([source, ...stages], () => {});
  try {
    yield* lines;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!code?.startsWith('Z_')) throw error;
    warn(`${basename(file.path)} is damaged and was read as far as it goes: ${code}`);
  }
}
