// Dates by hand: any Intl call costs the CGI more start-up time than the rest of its work together.

export interface TimeFields {
  year: string;
  month: string;
  day: string;
  hour: string;
  minute: string;
  second: string;
  /** Day of the year, 001 to 366. */
  dayOfYear: string;
}

/** The zero-padded fields of an instant, in GMT or in the machine's own zone. */
export function timeFields(date: Date, useGmt: boolean): TimeFields {
  // Shifting the instant by the zone's offset lets one set of getters serve both cases.
  const shifted = useGmt ? date : new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  const midnight = Date.UTC(shifted.getUTCFullYear(), shifted.getUTCMonth(), shifted.getUTCDate());
  return {
    year: pad(shifted.getUTCFullYear(), 4),
    month: pad(shifted.getUTCMonth() + 1, 2),
    day: pad(shifted.getUTCDate(), 2),
    hour: pad(shifted.getUTCHours(), 2),
    minute: pad(shifted.getUTCMinutes(), 2),
    second: pad(shifted.getUTCSeconds(), 2),
    dayOfYear: pad((midnight - Date.UTC(shifted.getUTCFullYear(), 0, 1)) / 86_400_000 + 1, 3),
  };
}

/** `2004-05-23 16:32:06` */
export function formatTime(date: Date, useGmt: boolean): string {
  const at = timeFields(date, useGmt);
  return `${at.year}-${at.month}-${at.day} ${at.hour}:${at.minute}:${at.second}`;
}

function pad(value: number, width: number): string {
  return String(value).padStart(width, '0');
}
