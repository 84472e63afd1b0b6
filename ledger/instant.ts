// When a line of a log was written: its local time, and where that is not enough its job id.
import { findJobIdParts, formatTime, type LogLine } from 'webjob-protocol';
import type { Site } from './site.ts';

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
  const later = new Date(first + 3 * 3_600_000);
  const second = first + (later.getTimezoneOffset() - new Date(first).getTimezoneOffset()) * 60_000;
  return [first, second > first && formatTime(new Date(second), false) === time ? second : undefined];
}
