// The client's clock compared with the server's. A job id contains the server's time, so a run
// record shows how far the two differed.
import { findJobIdParts, NOT_APPLICABLE, parseEpoch } from 'webjob-protocol';

/** The fields of a run record with times. */
export const CLOCK_FIELDS = ['Jid', 'GetEpoch', 'JobEpoch', 'RunEpoch', 'PutEpoch'];

/** Smaller differences can be due to the network and are not reported. */
const TOLERATED_SECONDS = 60;

/**
 * Seconds by which the client's clock was ahead of the server's, negative when it was behind.
 * Undefined for less than a minute, and when the run record lacks the times. The server issued the
 * job id after GetEpoch and before RunEpoch; in between, the client may have retried or received a
 * large program, so the result is the smallest difference that fits both.
 */
export function findClockSkew(fields: ReadonlyMap<string, string>): number | undefined {
  const issued = findJobIdParts(fields.get('Jid') ?? '')?.epochSeconds;
  const asked = epochSeconds(fields, 'GetEpoch', 'JobEpoch');
  if (issued === undefined || asked === undefined) return undefined;
  const answered = epochSeconds(fields, 'RunEpoch', 'PutEpoch') ?? asked;
  const skew = asked > issued ? asked - issued : Math.min(0, Math.max(asked, answered) - issued);
  return Math.abs(skew) > TOLERATED_SECONDS ? Math.round(skew) : undefined;
}

/** The value of the first of these fields that contains a time. */
function epochSeconds(fields: ReadonlyMap<string, string>, ...names: string[]): number | undefined {
  for (const name of names) {
    const text = fields.get(name);
    if (text === undefined || text === NOT_APPLICABLE) continue;
    try {
      return parseEpoch(text) / 1_000_000;
    } catch {
      // Other clients may write this field differently, so the next one is tried.
    }
  }
  return undefined;
}

const UNITS = [
  ['years', 365 * 86_400],
  ['days', 86_400],
  ['h', 3600],
  ['min', 60],
] as const;

/** Describes a difference in seconds: `client 2 h 0 min behind the server`. */
export function describeClockSkew(seconds: number): string {
  // Rounded to minutes, because a clock that is off by 2 hours is never off by exactly 7200
  // seconds.
  let minutes = Math.round(Math.abs(seconds) / 60);
  const parts: string[] = [];
  for (const [unit, unitSeconds] of UNITS) {
    const count = Math.floor(minutes / (unitSeconds / 60));
    minutes -= count * (unitSeconds / 60);
    if (count > 0 || parts.length > 0) parts.push(`${count} ${count === 1 ? unit.replace(/s$/, '') : unit}`);
  }
  return `client ${parts.slice(0, 2).join(' ')} ${seconds < 0 ? 'behind' : 'ahead of'} the server`;
}
