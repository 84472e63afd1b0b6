// What `jobs` shows of a job: THE table of columns. Rows are printed as they come, so every column has its width.
import { splitNumbered } from 'webjob-locker';
import { formatTime } from 'webjob-protocol';
import { describeClockSkew } from '../clock.ts';
import type { Job, JobState } from '../job.ts';
import { formatBytes, hasColours, paint, safeLine } from '../output.ts';
import type { Site } from '../site.ts';

interface JobColumn {
  title: string;
  width: number;
  value(job: Job, site: Site): string | number | undefined;
  isNumber?: true;
}

export const JOB_COLUMNS = {
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
    // The cell explains itself, and most listings have none.
    title: '',
    width: 0,
    value: ({ clockSkew }) => (clockSkew === undefined ? '' : describeClockSkew(clockSkew)),
  },
  differing: {
    // As the clock.
    title: '',
    width: 0,
    value: ({ uploads }) => describeDiffering(uploads) ?? '',
  },
  group: { title: 'GROUP', width: 40, value: ({ group }) => group?.name },
  site: { title: 'SITE', width: 20, value: (_, { label, propertiesFile }) => label ?? propertiesFile },
} as const satisfies Record<string, JobColumn>;

export type ColumnName = keyof typeof JOB_COLUMNS;

export const DEFAULT_COLUMNS: readonly ColumnName[] = ['time', 'job', 'client', 'command', 'state', 'exit', 'status'];

export function isColumnName(name: string): name is ColumnName {
  return Object.hasOwn(JOB_COLUMNS, name);
}

const COLOURS: Partial<Record<JobState, 'green' | 'red' | 'yellow' | 'dim'>> = {
  ...{ done: 'green', failed: 'red', refused: 'red', incomplete: 'yellow', orphan: 'yellow', got: 'dim' },
};

/** The titles over the rows. */
export function formatTitles(names: readonly ColumnName[]): string {
  return layOut(names.map((name) => pad(JOB_COLUMNS[name].title, JOB_COLUMNS[name])));
}

/** One job as one line; what is wider than its column moves the rest. */
export function formatRow(site: Site, job: Job, names: readonly ColumnName[]): string {
  const cells = names.map((name) => {
    const column: JobColumn = JOB_COLUMNS[name];
    const cell = pad(safeLine(String(column.value(job, site) ?? '-')), column);
    return name === 'state' && hasColours() ? paint(cell, COLOURS[job.state] ?? 'dim') : cell;
  });
  return layOut(cells);
}

/** `2 differing uploads`, when a client sent other bytes under a name that was taken; undefined when not. */
export function describeDiffering(uploads: Job['uploads']): string | undefined {
  const count = uploads.filter(({ name }) => splitNumbered(name)).length;
  return count === 0 ? undefined : `${count} differing upload${count === 1 ? '' : 's'}`;
}

/** The status that decided: that of the PUT, without one that of the GET. */
export function statusOf({ get, put }: Job): number | undefined {
  return (put ?? get)?.status;
}

export function describeExit({ exitCode, signal }: Job): string | undefined {
  return signal === undefined ? exitCode?.toString() : `sig ${signal}`;
}

function lastLine({ get, put }: Job): Job['put'] {
  return put ?? get;
}

function pad(text: string, { width, isNumber }: JobColumn): string {
  return isNumber ? text.padStart(width) : text.padEnd(width);
}

function layOut(cells: string[]): string {
  return cells.join('  ').trimEnd();
}
