// Spans and instants as an operator types them: `90d`, `24h`, `2026-11-01`, `"2026-11-01 12:00"`.
import { InvalidArgumentError } from 'commander';

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** Seconds in `90s`, `10m`, `24h`, `30d`, `2w`. Throws InvalidArgumentError, for commander to name the option. */
export function parseDuration(text: string): number {
  const [, count, unit = ''] = /^([0-9]{1,6})([smhdw])$/.exec(text) ?? [];
  if (count === undefined) throw new InvalidArgumentError('a span is a number and one of s m h d w, as in 24h.');
  return Number(count) * (SECONDS[unit] ?? 0);
}

/** An instant: a date, a date and a time of this machine's zone, ISO 8601 with a zone, or a span that is over. Throws InvalidArgumentError. */
export function parseInstant(text: string): Date {
  if (/^[0-9]+[smhdw]$/.test(text)) return new Date(Date.now() - parseDuration(text) * 1000);
  const isDate = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$/.test(text);
  const date = new Date(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00` : text.replace(' ', 'T'));
  if (!isDate || Number.isNaN(date.getTime()))
    throw new InvalidArgumentError('an instant is 2026-11-01, "2026-11-01 12:00", or a span as in 24h.');
  return date;
}
