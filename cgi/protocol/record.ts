// The run record, the `.env` stream (docs/protocol.md, section 7): 22 fields in a fixed order, one
// `Key=value` for each line, each ending in LF. Additional fields may follow the 22, but not come
// between them.
import { formatTime } from './time.ts';

/** The fields of the original's run record, in their order. */
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

/** A run record with its values as they are written. */
export interface RunRecord {
  fields: Record<RecordField, string>;
  /** Additional fields after the 22, in order. */
  extra: [name: string, value: string][];
}

/** The value of a field that does not apply. */
export const NOT_APPLICABLE = 'NA';

/**
 * Formats a run record. Control characters in a value become `%hh`, so that no value can add a
 * line.
 */
export function formatRecord(record: RunRecord): string {
  const lines: [string, string][] = [
    ...RECORD_FIELDS.map((name): [string, string] => [name, record.fields[name]]),
    ...record.extra,
  ];
  return lines.map(([name, value]) => `${name}=${escapeControls(value)}\n`).join('');
}

/** Parses a run record of this or the original client. Throws a SyntaxError that names the line. */
export function parseRecord(text: string): RunRecord {
  const lines = text.split('\n');
  if (lines.pop() !== '') throw new SyntaxError('the record does not end in a newline');
  const pairs = lines.map((line, index): [string, string] => {
    const at = line.indexOf('=');
    if (at < 1) throw new SyntaxError(`line ${index + 1} of the record is not Key=value`);
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
 * Formats a time for the run record: `2004-05-23 17:14:41 PDT (1085357681.245070)`. The parentheses
 * contain the two fields of C's `struct timeval`: before 1970 the seconds are negative, while the
 * microseconds still count up.
 *
 * @param epochMicros microseconds since 1970-01-01 UTC
 * @param zone the output of `date +%Z` for that time on this machine
 */
export function formatEpoch(epochMicros: number, zone: string): string {
  const seconds = Math.floor(epochMicros / 1_000_000);
  const micros = String(epochMicros - seconds * 1_000_000).padStart(6, '0');
  return `${formatTime(new Date(seconds * 1000), false)} ${zone} (${seconds}.${micros})`;
}

/**
 * Parses a time in a run record to microseconds since 1970-01-01 UTC, negative before. Throws
 * SyntaxError.
 */
export function parseEpoch(text: string): number {
  const match = /^(\d{4})-\d\d-\d\d \d\d:\d\d:\d\d \S+ \((-?\d{1,11})\.(\d{6})\)$/.exec(text);
  // East of Greenwich, clocks show 1970 before the seconds count from 0.
  if (!match || (match[2]?.startsWith('-') && Number(match[1]) > 1970)) throw new SyntaxError('not a time of a record');
  return Number(match[2]) * 1_000_000 + Number(match[3]);
}

function escapeControls(value: string): string {
  return value.replace(/[\x00-\x1f\x7f]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
