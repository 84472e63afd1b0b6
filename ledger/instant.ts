// Determines when a line of the log was written: from its local time and, where that is ambiguous,
// from its job id.
import { findJobIdParts, formatTime, type LogLine } from 'webjob-protocol';
import type { Site } from './site.ts';

/**
 * The time that a text stands for, in milliseconds, and a second, later time if the text is
 * ambiguous because summer time ended.
 */
type Meaning = readonly [first: number, second: number | undefined];

/**
 * A cache by minute, for GMT and local time: no clock change happens within a minute, and
 * successive lines often share one.
 */
const meanings = { gmt: new Map<string, Meaning>(), local: new Map<string, Meaning>() };
const MAX_MEANINGS = 1000;
/** If the job id is newer than the first meaning by more than this, the second meaning is right. */
const YOUNGER_MS = 900_000;

/**
 * When a line was written. The job id contains the time of the GET and decides between two equal
 * hours.
 */
export function instantOf(line: Pick<LogLine, 'time' | 'jobId'>, site: Site): Date {
  return new Date(millisecondsOf(line, site));
}

/** When a line was written, in milliseconds; NaN for a day that does not exist. */
export function millisecondsOf(
  { time, jobId }: Pick<LogLine, 'time' | 'jobId'>,
  { settings: { useGMT } }: Site,
): number {
  const minute = time.slice(0, 16);
  const known = useGMT ? meanings.gmt : meanings.local;
  let found = known.get(minute);
  if (!found) {
    found = useGMT ? [Date.parse(`${minute.replace(' ', 'T')}Z`), undefined] : readLocal(minute);
    if (known.size >= MAX_MEANINGS) known.clear();
    known.set(minute, found);
  }
  const [first, second] = found;
  const inMinute = (time.charCodeAt(17) * 10 + time.charCodeAt(18) - 11 * ZERO) * 1000;
  if (second === undefined || jobId === undefined) return first + inMinute;
  const issued = findJobIdParts(jobId)?.epochSeconds ?? 0;
  return (issued * 1000 > first + inMinute + YOUNGER_MS ? second : first) + inMinute;
}

/** The character code of `0`. */
const ZERO = 48;

function readLocal(minute: string): Meaning {
  const first = Date.parse(minute.replace(' ', 'T'));
  // No time zone sets its clocks back by more than this.
  const later = new Date(first + 3 * 3_600_000);
  const second = first + (later.getTimezoneOffset() - new Date(first).getTimezoneOffset()) * 60_000;
  return [first, second > first && formatTime(new Date(second), false).startsWith(minute) ? second : undefined];
}
