// THE table of the fields of a job: the output of --json, the columns of CSV, SQL, the store and
// `jobs --columns`, and the list in webjobctl(8).
import { formatTime, type LogLine } from 'webjob-protocol';
import { countOf } from '../cli/counts.ts';
import { formatBytes } from '../cli/output.ts';
import { describeClockSkew } from './clock.ts';
import { instantOf } from './instant.ts';
import type { Job } from './job.ts';
import type { Site } from './site.ts';

export type Value = string | number | null;
/** A value; undefined when it is not known. */
type Found = string | number | readonly string[] | undefined;

export interface Field {
  /** The name in JSON, where a dot is a level: `put.status`. */
  name: string;
  /** The name in CSV, SQL and the store: `put_status`. */
  column: string;
  /** A timestamp is ISO 8601 in UTC. As text, the values of a list are separated by spaces. */
  type: 'text' | 'integer' | 'timestamp' | 'list';
  value(job: Job, site: Site): Found;
  /** The type in the store; undefined for a field that is computed from the stored log lines. */
  stored?: 'TEXT' | 'INTEGER';
}

type LineField = [name: string, type: Field['type'], read: (line: LogLine, site: Site) => Found];

const LINE_FIELDS: readonly LineField[] = [
  ['at', 'timestamp', (line, site) => isoOf(instantOf(line, site))],
  ['user', 'text', ({ remoteUser }) => remoteUser],
  ['address', 'text', ({ remoteAddress }) => remoteAddress],
  ['method', 'text', ({ method }) => method],
  ['fileName', 'text', ({ fileName }) => fileName],
  ['bytesReceived', 'integer', ({ bytesReceived }) => bytesReceived],
  ['bytesSent', 'integer', ({ bytesSent }) => bytesSent],
  ['seconds', 'integer', ({ seconds }) => seconds],
  ['status', 'integer', ({ status }) => status],
  ['message', 'text', ({ message }) => message],
];

/** `group` and `left` are keywords of SQL. */
const COLUMN_NAMES: Readonly<Record<string, string>> = { group: 'group_name', left: 'left_behind' };

const FIELD_ROWS: readonly Omit<Field, 'column'>[] = [
  { name: 'jobId', type: 'text', value: ({ jobId }) => jobId, stored: 'TEXT' },
  { name: 'client', type: 'text', value: ({ clientId }) => clientId, stored: 'TEXT' },
  { name: 'command', type: 'text', value: ({ command }) => command, stored: 'TEXT' },
  { name: 'state', type: 'text', value: ({ state }) => state, stored: 'TEXT' },
  { name: 'at', type: 'timestamp', value: ({ at }) => isoOf(at), stored: 'TEXT' },
  { name: 'exitCode', type: 'integer', value: ({ exitCode }) => exitCode, stored: 'INTEGER' },
  { name: 'signal', type: 'integer', value: ({ signal }) => signal, stored: 'INTEGER' },
  { name: 'clockSkew', type: 'integer', value: ({ clockSkew }) => clockSkew, stored: 'INTEGER' },
  { name: 'outerId', type: 'text', value: ({ outerId }) => outerId, stored: 'TEXT' },
  { name: 'group', type: 'text', value: ({ group }) => group?.name, stored: 'TEXT' },
  { name: 'uploads', type: 'list', value: ({ uploads }) => uploads.map(({ name }) => name) },
  { name: 'left', type: 'list', value: ({ left }) => left },
  { name: 'pack', type: 'text', value: describePlace, stored: 'TEXT' },
  { name: 'requests', type: 'integer', value: countRequests },
  ...lineFields('get'),
  ...lineFields('put'),
];

export const FIELDS: readonly Field[] = FIELD_ROWS.map((field) => ({ ...field, column: columnOf(field.name) }));

function columnOf(name: string): string {
  return COLUMN_NAMES[name] ?? name.replace('.', '_').replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function lineFields(part: 'get' | 'put'): Omit<Field, 'column'>[] {
  return LINE_FIELDS.map(([name, type, read]) => ({
    name: `${part}.${name}`,
    type,
    value: (job: Job, site: Site): Found => {
      const line = job[part];
      return line && read(line, site);
    },
    // The sizes of uploads are summed up by day.
    ...(part === 'put' && name === 'bytesReceived' && { stored: 'INTEGER' as const }),
  }));
}

/** A request in the form that `--json` prints. */
export function lineJson(site: Site, line: LogLine): Record<string, unknown> {
  return Object.fromEntries(LINE_FIELDS.map(([name, , read]) => [name, read(line, site) ?? null]));
}

/** The archive that an upload is in, and its name there: `2026-10-01: client1_…`. */
export function describePlace({ packed }: Pick<Job, 'packed'>): string | undefined {
  return packed && `${packed.pack}: ${packed.name}`;
}

/** The number of requests of a job. */
function countRequests({ get, put, attempts }: Job): number {
  return attempts.length + Number(get !== undefined) + Number(put !== undefined);
}

/**
 * The last day that was formatted, in days since 1970, and its date in ISO 8601. It is kept because
 * successive jobs are mostly of the same day.
 */
let lastDay = { day: Number.NaN, start: '' };
const DAY_MS = 86_400_000;
const TWO_DIGITS = Array.from({ length: 60 }, (_, number) => String(number).padStart(2, '0'));

/** Formats a time in ISO 8601; undefined for an invalid time, which a log may contain. */
function isoOf(at: Date): string | undefined {
  const milliseconds = at.getTime();
  if (Number.isNaN(milliseconds)) return undefined;
  const day = Math.floor(milliseconds / DAY_MS);
  if (day !== lastDay.day) lastDay = { day, start: at.toISOString().slice(0, -'00:00:00.000Z'.length) };
  // The time of day is plain arithmetic; Date.toISOString() takes several times as long.
  const rest = milliseconds - day * DAY_MS;
  const [seconds, thousandths] = [Math.floor(rest / 1000), rest % 1000];
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const clock = `${TWO_DIGITS[hours]}:${TWO_DIGITS[minutes]}:${TWO_DIGITS[seconds % 60]}`;
  return `${lastDay.start}${clock}.${String(thousandths).padStart(3, '0')}Z`;
}

/**
 * The fields with the parts of their names, because splitting the names for every job would take
 * long.
 */
const JSON_FIELDS = FIELDS.map(({ name, value }) => {
  const [part = '', inner] = name.split('.');
  return [part, inner, value] as const;
});

/**
 * A job in the form that every command prints with `--json`. Unknown values are null. Names of
 * uploads are paths below IncomingDirectory without an extension. `site` is present when several
 * sites are read.
 */
export function jobJson(site: Site, job: Job): Record<string, unknown> {
  const json: Record<string, unknown> = siteJson(site);
  for (const [part, inner, value] of JSON_FIELDS) {
    const found = value(job, site) ?? null;
    if (inner === undefined) json[part] = found;
    else if (job[part as 'get' | 'put'] === undefined) json[part] = null;
    else {
      json[part] ??= {};
      (json[part] as Record<string, unknown>)[inner] = found;
    }
  }
  return json;
}

/** The nph-webjob.cfg of a site, when several sites are read. */
export function siteJson({ label }: Site): Record<string, unknown> {
  return label === undefined ? {} : { site: label };
}

/** A job as a row of CSV, SQL or the store, in the order of FIELDS. */
export function jobRow(site: Site, job: Job): Value[] {
  return FIELDS.map((field) => columnValue(field, job, site));
}

export function columnValue({ value }: Field, job: Job, site: Site): Value {
  const found = value(job, site);
  return typeof found === 'object' ? found.join(' ') : (found ?? null);
}

export interface ShownColumn {
  title: string;
  width: number;
  value(job: Job, site: Site): string | number | undefined;
  isNumber?: true;
}

/**
 * The columns that `jobs --columns` can show, by name. Rows are printed as they arrive, so each
 * column has a fixed width.
 */
export const SHOWN_COLUMNS = {
  time: { title: 'TIME', width: 19, value: ({ at }, { settings }) => formatTime(at, settings.useGMT) },
  job: { title: 'JOB', width: 25, value: ({ jobId }) => jobId },
  client: { title: 'CLIENT', width: 12, value: ({ clientId }) => clientId },
  command: { title: 'COMMAND', width: 16, value: ({ command }) => command },
  state: { title: 'STATE', width: 10, value: ({ state }) => state },
  exit: { title: 'EXIT', width: 4, isNumber: true, value: describeExit },
  status: { title: 'STATUS', width: 6, isNumber: true, value: statusOf },
  user: { title: 'USER', width: 12, value: (job) => lastLine(job)?.remoteUser },
  address: { title: 'ADDRESS', width: 15, value: (job) => lastLine(job)?.remoteAddress },
  sent: {
    title: 'SENT',
    width: 7,
    isNumber: true,
    value: ({ put }) => put?.bytesReceived && formatBytes(put.bytesReceived),
  },
  seconds: { title: 'SECONDS', width: 7, isNumber: true, value: (job) => lastLine(job)?.seconds },
  message: { title: 'MESSAGE', width: 20, value: (job) => lastLine(job)?.message },
  clock: {
    // The cell explains itself, and is empty in most listings.
    title: '',
    width: 0,
    value: ({ clockSkew }) => (clockSkew === undefined ? '' : describeClockSkew(clockSkew)),
  },
  differing: {
    // Without a title, because the cell explains itself.
    title: '',
    width: 0,
    value: (job) => describeDiffering(job) ?? '',
  },
  outer: { title: 'OUTER', width: 25, value: ({ outerId }) => outerId },
  group: { title: 'GROUP', width: 40, value: ({ group }) => group?.name },
  site: { title: 'SITE', width: 20, value: (_, { label, propertiesFile }) => label ?? propertiesFile },
} as const satisfies Record<string, ShownColumn>;

export type ColumnName = keyof typeof SHOWN_COLUMNS;

export const DEFAULT_COLUMNS: readonly ColumnName[] = ['time', 'job', 'client', 'command', 'state', 'exit', 'status'];

export function isColumnName(name: string): name is ColumnName {
  return Object.hasOwn(SHOWN_COLUMNS, name);
}

/**
 * `2 differing uploads`, when a client sent other bytes under a name that was taken; otherwise
 * undefined.
 */
export function describeDiffering({ differing }: Pick<Job, 'differing'>): string | undefined {
  const count = differing.length;
  return count === 0 ? undefined : countOf(count, 'differing upload');
}

/** The status that decided the job: that of the PUT or, without a PUT, that of the GET. */
export function statusOf(job: Job): number | undefined {
  return lastLine(job)?.status;
}

export function describeExit({ exitCode, signal }: Job): string | undefined {
  return signal === undefined ? exitCode?.toString() : `sig ${signal}`;
}

function lastLine({ get, put }: Job): LogLine | undefined {
  return put ?? get;
}
