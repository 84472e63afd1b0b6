// Days of the site's clock.
import { timeFields } from 'webjob-protocol';

/** `2026-11-01` */
export function dayText(date: Date, useGmt: boolean): string {
  const { Y, m, d } = timeFields(date, useGmt);
  return `${Y}-${m}-${d}`;
}

/** The beginning of the day of a time by the site's clock, this many days earlier. */
export function dayStart(date: Date, useGmt: boolean, daysBefore: number): Date {
  const { Y, m, d } = timeFields(date, useGmt);
  const [year, month, day] = [Number(Y), Number(m) - 1, Number(d) - daysBefore];
  return useGmt ? new Date(Date.UTC(year, month, day)) : new Date(year, month, day);
}
