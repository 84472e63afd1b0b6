// When an assignment is due. Times are UTC, because in local time a job could run twice or never on
// the days when summer time begins or ends.

/**
 * The last due time up to `now`, beginning with `from`, in seconds since 1970; undefined before the
 * first.
 */
export function lastDue(schedule: Schedule, from: number, now: number): number | undefined {
  if (now < from) return undefined;
  switch (schedule.kind) {
    case 'once':
      return from;
    case 'every':
      return now - ((now - from) % schedule.seconds);
    default: {
      const due = lastCron(schedule.cron, now);
      return due !== undefined && due >= from ? due : undefined;
    }
  }
}

export type Schedule = { kind: 'once' } | { kind: 'every'; seconds: number } | { kind: 'cron'; cron: string };

const MINUTE = 60;
const DAY = 86_400;
/** The longest distance between two 29ths of February. */
const MOST_DAYS = 8 * 366;

const MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ');
const WEEKDAYS = 'sun mon tue wed thu fri sat'.split(' ');
/** The range of each field, and its names from the lowest value on (crontab(5)). */
const FIELDS = [
  { name: 'minute', low: 0, high: 59, names: [] },
  { name: 'hour', low: 0, high: 23, names: [] },
  { name: 'day of the month', low: 1, high: 31, names: [] },
  { name: 'month', low: 1, high: 12, names: MONTHS },
  { name: 'day of the week', low: 0, high: 7, names: WEEKDAYS },
] as const;

/** The values of each field, and whether the days are limited. */
interface Cron {
  minutes: boolean[];
  hours: boolean[];
  days: boolean[];
  months: boolean[];
  weekdays: boolean[];
  /** Whether both day fields are limited: then one of them must match (crontab(5)). */
  isEither: boolean;
}

const SHORT: Record<string, string> = {
  '@hourly': '0 * * * *',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@weekly': '0 0 * * 0',
  '@monthly': '0 0 1 * *',
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
};

/**
 * Parses the five fields of a line in crontab(5), or one of its short names. Throws a SyntaxError
 * that names the field.
 */
export function parseCron(text: string): Cron {
  const words = (SHORT[text.trim().toLowerCase()] ?? text).trim().split(/\s+/);
  if (words.length !== FIELDS.length)
    throw new SyntaxError(`a cron expression must have five fields, not ${words.length}`);
  const [minutes = [], hours = [], days = [], months = [], weekdays = []] = FIELDS.map((field, index) =>
    parseField(words[index] ?? '', field),
  );
  if (weekdays[7]) weekdays[0] = true;
  const isEither = !words[2]?.startsWith('*') && !words[4]?.startsWith('*');
  return { minutes, hours, days, months, weekdays, isEither };
}

function parseField(word: string, { name, low, high, names }: (typeof FIELDS)[number]): boolean[] {
  const values: boolean[] = new Array(high + 1).fill(false);
  for (const part of word.split(',')) {
    const [, first, last, step = '1'] = /^(\*|\w+)(?:-(\w+))?(?:\/(\d{1,2}))?$/.exec(part) ?? [];
    const read = (text: string): number => {
      const named = (names as readonly string[]).indexOf(text.toLowerCase());
      return named >= 0 ? named + low : /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN;
    };
    const isAll = first === '*' && last === undefined;
    const from = isAll ? low : read(first ?? '');
    // A step continues to the end of the range: 5/10 is 5-59/10.
    const to = isAll || (last === undefined && part.includes('/')) ? high : read(last ?? first ?? '');
    if (!(from >= low && to <= high && from <= to && Number(step) > 0))
      throw new SyntaxError(`${part} is not a ${name} of a cron expression (${low}-${high})`);
    for (let value = from; value <= to; value += Number(step)) values[value] = true;
  }
  return values;
}

/**
 * The last minute up to `now` that matches an expression; undefined when there is none in eight
 * years.
 */
function lastCron(text: string, now: number): number | undefined {
  const cron = parseCron(text);
  const today = now - (now % DAY);
  for (let back = 0; back <= MOST_DAYS; back++) {
    const day = today - back * DAY;
    if (!isOn(cron, new Date(day * 1000))) continue;
    const latest = Math.floor((back === 0 ? now - day : DAY - 1) / MINUTE);
    for (let hour = Math.floor(latest / 60); hour >= 0; hour--) {
      if (!cron.hours[hour]) continue;
      const last = hour === Math.floor(latest / 60) ? latest % 60 : 59;
      for (let minute = last; minute >= 0; minute--)
        if (cron.minutes[minute]) return day + (hour * 60 + minute) * MINUTE;
    }
  }
  return undefined;
}

function isOn({ days, months, weekdays, isEither }: Cron, date: Date): boolean {
  if (!months[date.getUTCMonth() + 1]) return false;
  const [isDay, isWeekday] = [days[date.getUTCDate()] === true, weekdays[date.getUTCDay()] === true];
  return isEither ? isDay || isWeekday : isDay && isWeekday;
}
