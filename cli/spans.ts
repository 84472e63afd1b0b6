// Spans of time as they are written down: `90s`, `10m`, `24h`, `30d`, `2w`.

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** Seconds in a span; undefined for what is none. */
export function secondsIn(text: string): number | undefined {
  const [, count, unit = ''] = /^([0-9]{1,6})([smhdw])$/.exec(text) ?? [];
  return count === undefined ? undefined : Number(count) * (SECONDS[unit] ?? 0);
}

/** `90s`, `10m`, `24h`, `30d`: in the largest unit that has no rest. */
export function formatSpan(seconds: number): string {
  const unit = (['d', 'h', 'm'] as const).find((one) => seconds % (SECONDS[one] ?? 1) === 0);
  return unit && seconds > 0 ? `${seconds / (SECONDS[unit] ?? 1)}${unit}` : `${seconds}s`;
}

/** Undefined for what is no date, or no date and time, of this machine's zone or with a zone of its own. */
export function dateOf(text: string): Date | undefined {
  const isDate = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$/.test(text);
  const date = new Date(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00` : text.replace(' ', 'T'));
  return isDate && !Number.isNaN(date.getTime()) ? date : undefined;
}
