// When a line of a log was written: its local time, and where that is not enough its job id.
import { findJobIdParts, formatTime, type LogLine } from 'webjob-protocol';
import type { Site } from './site.ts';

/** The instant that a text of a time means, and the later one that it means as well when summer time ends. */
type Meaning = readonly [first: number, second: number | undefined];

/** By the minute, within which no clock is set, in GMT and by the clock of the machine: lines come in order, several within one. */
const meanings = { gmt: new Map<string, Meaning>(), local: new Map<string, Meaning>() };
const MAX_MEANINGS = 1000;
/** A job id that is so much younger than the first of two equal hours belongs to the second. */
const YOUNGER_MS = 900_000;

/** The instant at which a line was written. Of two equal hours the job id tells which, for it holds the time of the GET. */
export function instantOf(line: Pick<LogLine, 'time' | 'jobId'>, site: Site): Date {
  return new Date(millisecondsOf(line, site));
}

/** The same as a number: NaN for a day that is none. */
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

/** The code of the digit. */
const ZERO = 48;

function readLocal(minute: string): Meaning {
  const first = Date.parse(minute.replace(' ', 'T'));
  // No clock is set back by more than this.
  const later = new Date(first + 3 * 3_600_000);
  const second = first + (later.getTimezoneOffset() - new Date(first).getTimezoneOffset()) * 60_000;
  return [first, second > first && formatTime(new Date(second), false).startsWith(minute) ? second : undefined];
}
