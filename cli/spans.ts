// Durations and dates as texts: `90s`, `10m`, `24h`, `30d`, `2w`.

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** Parses a duration to seconds; undefined for any other text. */
export function secondsIn(text: string): number | undefined {
  const [, count, unit = ''] = /^([0-9]{1,6})([smhdw])$/.exec(text) ?? [];
  return count === undefined ? undefined : Number(count) * (SECONDS[unit] ?? 0);
}

/** `90s`, `10m`, `24h`, `30d`: in the largest unit without a remainder. */
export function formatSpan(seconds: number): string {
  const unit = (['d', 'h', 'm'] as const).find((one) => seconds % (SECONDS[one] ?? 1) === 0);
  return unit && seconds > 0 ? `${seconds / (SECONDS[unit] ?? 1)}${unit}` : `${seconds}s`;
}

/**
 * Parses a date, or a date and time, in this machine's zone or its own; undefined for any other
 * text.
 */
export function dateOf(text: string): Date | undefined {
  const isDate = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?$/.test(text);
  const date = new Date(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00` : text.replace(' ', 'T'));
  return isDate && !Number.isNaN(date.getTime()) ? date : undefined;
}
