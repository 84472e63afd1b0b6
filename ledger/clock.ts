// The clock of a client against the server's. A job id holds the server's time, so the record of the run shows how far they differed.
import { findJobIdParts, NOT_APPLICABLE, parseEpoch } from 'webjob-protocol';

/** The fields of a run record that tell of the clocks. */
export const CLOCK_FIELDS = ['Jid', 'GetEpoch', 'JobEpoch', 'RunEpoch', 'PutEpoch'];

/** Smaller differences are the network's, or nobody's concern. */
const TOLERATED_SECONDS = 60;

/**
 * Seconds by which the client's clock was ahead of the server's, negative when behind; undefined within a minute, and
 * when the record does not tell. The server issued the id after GetEpoch and before RunEpoch. Between these the client
 * may have tried again and again, or received a large program: the difference is the smaller one that both allow.
 */
export function findClockSkew(fields: ReadonlyMap<string, string>): number | undefined {
  const issued = findJobIdParts(fields.get('Jid') ?? '')?.epochSeconds;
  const asked = epochSeconds(fields, 'GetEpoch', 'JobEpoch');
  if (issued === undefined || asked === undefined) return undefined;
  const answered = epochSeconds(fields, 'RunEpoch', 'PutEpoch') ?? asked;
  const skew = asked > issued ? asked - issued : Math.min(0, Math.max(asked, answered) - issued);
  return Math.abs(skew) > TOLERATED_SECONDS ? Math.round(skew) : undefined;
}

/** The first of these fields that holds a time. */
function epochSeconds(fields: ReadonlyMap<string, string>, ...names: string[]): number | undefined {
  for (const name of names) {
    const text = fields.get(name);
    if (text === undefined || text === NOT_APPLICABLE) continue;
    try {
      return parseEpoch(text) / 1_000_000;
    } catch {
      // Another client's way of writing it.
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

/** `client 2 h 0 min behind the server` */
export function describeClockSkew(seconds: number): string {
  // Rounded, for a clock that is off by 2 hours is never off by 7200 seconds sharp.
  let minutes = Math.round(Math.abs(seconds) / 60);
  const parts: string[] = [];
  for (const [unit, unitSeconds] of UNITS) {
    const count = Math.floor(minutes / (unitSeconds / 60));
    minutes -= count * (unitSeconds / 60);
    if (count > 0 || parts.length > 0) parts.push(`${count} ${count === 1 ? unit.replace(/s$/, '') : unit}`);
  }
  return `client ${parts.slice(0, 2).join(' ')} ${seconds < 0 ? 'behind' : 'ahead of'} the server`;
}
