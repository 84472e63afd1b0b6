// The record of a run, the `.env` stream (docs/protocol.md, section 7): 22 fields in a fixed order, `Key=value` a line, ending in
// LF. Fields of our own may follow the 22, never come between them.
import { formatTime } from './time.ts';

/** The fields of the article, in its order. */
export const RECORD_FIELDS = [
  'Version',
  'Hostname',
  'SystemOS',
  'ClientId',
  'GetRequest',
  'Command',
  'CommandLine',
  'Jid',
  'Pid',
  'KidPid',
  'KidStatus',
  'KidSignal',
  'KidReason',
  'JobEpoch',
  'GetEpoch',
  'RunEpoch',
  'PutEpoch',
  'HashType',
  'StdOutHash',
  'StdErrHash',
  'GetError',
  'RunError',
] as const;

export type RecordField = (typeof RECORD_FIELDS)[number];

/** A record, with the values as they stand. */
export interface RunRecord {
  fields: Record<RecordField, string>;
  /** Fields of ours that follow the 22, in order. */
  extra: [name: string, value: string][];
}

/** What stands in a field that does not apply. */
export const NOT_APPLICABLE = 'NA';

/** Formats a record. Control characters in a value become `%hh`, so that no value can add a line. */
export function formatRecord(record: RunRecord): string {
  const lines: [string, string][] = [
    ...RECORD_FIELDS.map((name): [string, string] => [name, record.fields[name]]),
    ...record.extra,
  ];
  return lines.map(([name, value]) => `${name}=${escapeControls(value)}\n`).join('');
}

/** Parses a record of this or the original client. Throws SyntaxError naming the line. */
export function parseRecord(text: string): RunRecord {
  const lines = text.split('\n');
  if (lines.pop() !== '') throw new SyntaxError('the record does not end in a newline');
  const pairs = lines.map((line, index): [string, string] => {
    const at = line.indexOf('=');
    if (at < 1) throw new SyntaxError(`line ${index + 1} of the record is no Key=value`);
    return [line.slice(0, at), line.slice(at + 1).replace(/\r$/, '')];
  });
  const fields = {} as Record<RecordField, string>;
  for (const [index, name] of RECORD_FIELDS.entries()) {
    const pair = pairs[index];
    if (pair?.[0] !== name) throw new SyntaxError(`line ${index + 1} of the record is not ${name}`);
    fields[name] = pair[1];
  }
  return { fields, extra: pairs.slice(RECORD_FIELDS.length) };
}

/**
 * A time as the record writes it: `2004-05-23 17:14:41 PDT (1085357681.245070)`. In the parentheses are the two
 * fields of C's `struct timeval`: before 1970 the seconds are negative and the microseconds still count up.
 * @param epochMicros microseconds since 1970-01-01 UTC
 * @param zone what `date +%Z` prints for that instant on this machine
 */
export function formatEpoch(epochMicros: number, zone: string): string {
  const seconds = Math.floor(epochMicros / 1_000_000);
  const micros = String(epochMicros - seconds * 1_000_000).padStart(6, '0');
  return `${formatTime(new Date(seconds * 1000), false)} ${zone} (${seconds}.${micros})`;
}

/** The microseconds since 1970-01-01 UTC of a time in a record, negative before. Throws SyntaxError. */
export function parseEpoch(text: string): number {
  const match = /^(\d{4})-\d\d-\d\d \d\d:\d\d:\d\d \S+ \((-?\d{1,11})\.(\d{6})\)$/.exec(text);
  // East of Greenwich the clock shows 1970 before the seconds count from 0.
  if (!match || (match[2]?.startsWith('-') && Number(match[1]) > 1970)) throw new SyntaxError('not a time of a record');
  return Number(match[2]) * 1_000_000 + Number(match[3]);
}

function escapeControls(value: string): string {
  return value.replace(/[\x00-\x1f\x7f]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
