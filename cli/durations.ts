// Parses DURATION and TIME arguments: `90d`, `24h`, `2026-11-01`, `"2026-11-01 12:00"`.
import { InvalidArgumentError } from 'commander';
import { dateOf, secondsIn } from './spans.ts';

/**
 * Parses `90s`, `10m`, `24h`, `30d`, `2w` to seconds. Throws InvalidArgumentError, to which
 * commander adds the option.
 */
export function parseDuration(text: string): number {
  const seconds = secondsIn(text);
  if (seconds === undefined) throw new InvalidArgumentError('a duration is a number and one of s m h d w, as in 24h.');
  return seconds;
}

/**
 * Parses a TIME: a date, a date and a time in this machine's zone, ISO 8601 with a zone, or a
 * DURATION ago. Throws InvalidArgumentError.
 */
export function parseInstant(text: string): Date {
  if (/^[0-9]+[smhdw]$/.test(text)) return new Date(Date.now() - parseDuration(text) * 1000);
  const date = dateOf(text);
  if (!date) throw new InvalidArgumentError('a time is 2026-11-01, "2026-11-01 12:00", or a duration as in 24h.');
  return date;
}
