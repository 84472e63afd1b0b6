// The lines of nph-webjob.log and of what rotation made of it, one after the other, the oldest first: streamed, never a whole file in memory.
import { closeSync, readSync } from 'node:fs';
import { basename } from 'node:path';
import { findJobIdParts, formatTime, type LogLine, parseLogLine } from 'webjob-protocol';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { followLines } from './follow.ts';
import { makeCutter } from './lines.ts';
import { type LogFile, openLogFiles } from './log-files.ts';
import { expand } from './packed-log.ts';

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
const BLOCK_BYTES = 256 * 1024;
/** Of a line that is none, so much is shown. */
const SHOWN_LENGTH = 80;

/** The instant that a text of a time means, and the later one that it means as well when summer time ends. */
type Meaning = readonly [first: number, second: number | undefined];

/** By the text, in GMT and by the clock of the machine: lines come in order, several within one second. */
const meanings = { gmt: new Map<string, Meaning>(), local: new Map<string, Meaning>() };
const MAX_MEANINGS = 1000;
/** A job id that is so much younger than the first of two equal hours belongs to the second. */
const YOUNGER_MS = 900_000;

/** The instant at which a line was written. Of two equal hours the job id tells which, for it holds the time of the GET. */
export function instantOf({ time, jobId }: Pick<LogLine, 'time' | 'jobId'>, { settings: { useGMT } }: Site): Date {
  const known = useGMT ? meanings.gmt : meanings.local;
  const found = known.get(time) ?? (useGMT ? [Date.parse(`${time.replace(' ', 'T')}Z`), undefined] : readLocal(time));
  if (known.size >= MAX_MEANINGS) known.clear();
  known.set(time, found);
  const [first, second] = found;
  if (second === undefined || jobId === undefined) return new Date(first);
  const issued = findJobIdParts(jobId)?.epochSeconds ?? 0;
  return new Date(issued * 1000 > first + YOUNGER_MS ? second : first);
}

function readLocal(time: string): Meaning {
  const first = Date.parse(time.replace(' ', 'T'));
  // No clock is set back by more than this.
  const later = new Date(first + 3 * REPEATED_HOUR_SECONDS * 1000);
  const second = first + (later.getTimezoneOffset() - new Date(first).getTimezoneOffset()) * 60_000;
  return [first, second > first && formatTime(new Date(second), false) === time ? second : undefined];
}

/** The lines of readLogBlocks, one by one. */
export async function* readLogLines(site: Site, range: LogRange = {}): AsyncGenerator<LogLine> {
  for await (const lines of readLogBlocks(site, range)) yield* lines;
}

/**
 * The lines of a time, many at once, as each wait costs more than a line does; a few older and younger ones come with them, as the log is not
 * strictly in order. Lines that are none are passed over, and a warning at the end counts them and shows the first. Throws Failure `failed`.
 */
export async function* readLogBlocks(site: Site, range: LogRange = {}): AsyncGenerator<LogLine[]> {
  const since = range.since && shift(site, range.since, -1);
  const until = range.until && shift(site, range.until, 1);
  const files = openLogFiles(site, { since, until, follow: range.follow });
  let broken = 0;
  let first = '';
  let reading = '';
  const parse: Parse = (given) => {
    const text = given.endsWith('\r') ? given.slice(0, -1) : given;
    if (range.contains !== undefined && !text.includes(range.contains)) return undefined;
    if (since !== undefined && text.slice(0, 19) < since) return undefined;
    try {
      return parseLogLine(text);
    } catch {
      if (broken++ === 0)
        first = `${reading}: ${text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}...` : text}`;
      return undefined;
    }
  };
  try {
    for (let file = files.shift(); file; file = files.shift()) {
      reading = basename(file.path);
      const isLast = files.length === 0;
      const onFollow = range.follow && isLast ? (range.onFollow ?? (() => {})) : undefined;
      for await (const lines of readFile(file, parse, onFollow)) {
        const end = until === undefined ? -1 : lines.findIndex(({ time }) => time > until);
        yield end < 0 ? lines : lines.slice(0, end);
        if (end >= 0) break;
      }
    }
  } finally {
    for (const { fd } of files) closeSync(fd);
    if (broken > 0) warn(`lines that are none of a log were passed over: ${broken}, the first in ${first}`);
  }
}

/** An instant as the log writes it, with the allowance for lines out of order. */
function shift({ settings }: Site, at: Date, sign: -1 | 1): string {
  const seconds = DISORDER_SECONDS + (settings.useGMT ? 0 : REPEATED_HOUR_SECONDS);
  return formatTime(new Date(at.getTime() + sign * seconds * 1000), settings.useGMT);
}

type Parse = (text: string) => LogLine | undefined;

async function* readFile(file: LogFile, parse: Parse, onFollow: (() => void) | undefined): AsyncGenerator<LogLine[]> {
  const { fd, size } = file;
  try {
    const cutter = makeCutter(parse);
    for await (const block of file.packer ? expand(file) : readBlocks(file)) yield cutter.cut(block);
    yield cutter.end();
    if (!onFollow) return;
    onFollow();
  } finally {
    if (!onFollow) closeSync(fd);
  }
  for await (const text of followLines(file.path, fd, size)) {
    const line = parse(text);
    if (line) yield [line];
  }
}

/** One block after the other, in the same memory. */
function* readBlocks({ fd, start, size }: LogFile): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(BLOCK_BYTES, size - start));
  for (let at = start; at < size; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, size - at), at);
    if (count === 0) return;
    yield buffer.subarray(0, count);
    at += count;
  }
}
