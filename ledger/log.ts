// Streams the lines of nph-webjob.log and its rotated files, oldest first, without ever holding a
// whole file in memory.
import { closeSync, readSync } from 'node:fs';
import { basename } from 'node:path';
import { formatTime, type LogLine, parseLogLine } from 'webjob-protocol';
import { warn } from '../cli/output.ts';
import { followLines } from './follow.ts';
import { makeCutter } from './lines.ts';
import { type LogFile, openLogFiles } from './log-files.ts';
import { expand } from './packed-log.ts';
import type { Site } from './site.ts';

export interface LogRange {
  since?: Date | undefined;
  until?: Date | undefined;
  /** Only lines before this time, in the form of the log. */
  before?: string | undefined;
  /** Only lines that contain this text. */
  contains?: string | undefined;
  /** Whether to continue with new lines as they are written, indefinitely. */
  follow?: boolean | undefined;
  /** Called when everything that existed was read, and only new lines follow. */
  onFollow?: (() => void) | undefined;
  /**
   * Whether to omit the warning about malformed lines, because the same lines will be read again.
   */
  isTrial?: boolean | undefined;
}

/** The maximum by which the time of a line may be earlier than that of the line before it. */
const DISORDER_SECONDS = 600;
/** The hour that occurs twice when summer time ends. */
const REPEATED_HOUR_SECONDS = 3600;
const BLOCK_BYTES = 256 * 1024;
/** The number of characters of a malformed line that a warning shows. */
const SHOWN_LENGTH = 80;

/** A parsed line and its text. */
export interface ReadLine {
  line: LogLine;
  text: string;
}

/** Yields the lines of readLogBlocks() one by one. */
export async function* readLogLines(site: Site, range: LogRange = {}): AsyncGenerator<LogLine> {
  for await (const lines of readLogBlocks(site, range)) for (const { line } of lines) yield line;
}

/**
 * Yields the lines of a time range in blocks, because each await costs more than a line. A few
 * older and newer lines are included, because the log is not strictly ordered. Empty lines, left by
 * two writers that both end a torn line, are skipped. So are malformed lines; a warning at the end
 * counts them and shows the first. Throws Failure `failed`.
 */
export async function* readLogBlocks(site: Site, range: LogRange = {}): AsyncGenerator<ReadLine[]> {
  const since = range.since && shift(site, range.since, -1);
  const until = range.until && shift(site, range.until, 1);
  const files = openLogFiles(site, { since, until, follow: range.follow });
  let broken = 0;
  let first = '';
  let reading = '';
  const parse: Parse = (given) => {
    const text = trimLine(given);
    if (text === '') return undefined;
    if (range.contains !== undefined && !text.includes(range.contains)) return undefined;
    if (since !== undefined && text.slice(0, 19) < since) return undefined;
    if (range.before !== undefined && text.slice(0, 19) >= range.before) return undefined;
    try {
      return { line: parseLogLine(text), text };
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
        const end = until === undefined ? -1 : lines.findIndex(({ line }) => line.time > until);
        yield end < 0 ? lines : lines.slice(0, end);
        if (end >= 0) break;
      }
    }
  } finally {
    for (const { fd } of files) closeSync(fd);
    if (broken > 0 && !range.isTrial)
      warn(`lines that are not log lines were skipped: ${broken}, the first in ${first}`);
  }
}

/**
 * Yields the lines of all logs of a site from a time on, and then new lines as they are written,
 * indefinitely.
 */
export async function* followLogs(site: Site, since: Date, onFollow: () => void): AsyncGenerator<ReadLine[]> {
  const servers = new Map(site.servers.map((server) => [server.logfilesDirectory, server]));
  let waiting = servers.size;
  const onEach = (): void => {
    waiting--;
    if (waiting === 0) onFollow();
  };
  const readers = [...servers.values()].map((server) =>
    readLogBlocks({ ...site, servers: [server] }, { since, follow: true, onFollow: onEach }),
  );
  const next = (reader: (typeof readers)[number]) => reader.next().then(({ value = [] }) => ({ reader, value }));
  const pending = new Map(readers.map((reader) => [reader, next(reader)]));
  try {
    for (;;) {
      const { reader, value } = await Promise.race(pending.values());
      pending.set(reader, next(reader));
      yield value;
    }
  } finally {
    for (const reader of readers) void reader.return(undefined);
  }
}

/** A time in the form of the log, with the allowance for lines out of order added or subtracted. */
export function shift({ settings }: Site, at: Date, sign: -1 | 1): string {
  const seconds = DISORDER_SECONDS + (settings.useGMT ? 0 : REPEATED_HOUR_SECONDS);
  return formatTime(new Date(at.getTime() + sign * seconds * 1000), settings.useGMT);
}

/** Removes the CR at the end of a line from a machine that writes CR LF. */
export function trimLine(text: string): string {
  return text.endsWith('\r') ? text.slice(0, -1) : text;
}

type Parse = (text: string) => ReadLine | undefined;

async function* readFile(file: LogFile, parse: Parse, onFollow: (() => void) | undefined): AsyncGenerator<ReadLine[]> {
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

/** Yields block after block in the same buffer. */
function* readBlocks({ fd, start, size }: LogFile): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(BLOCK_BYTES, size - start));
  for (let at = start; at < size; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, size - at), at);
    if (count === 0) return;
    yield buffer.subarray(0, count);
    at += count;
  }
}
