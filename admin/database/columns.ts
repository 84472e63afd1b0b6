// THE table of the columns of a job: in the index, in what export writes, and in webjobctl(8), which a test holds to it.
import { formatTime, type LogLine } from 'webjob-protocol';
import { instantOf } from '../history/log.ts';
import type { Job } from '../job.ts';
import type { Site } from '../site.ts';

export type Value = string | number | null;

interface JobColumn {
  name: string;
  type: 'text' | 'integer' | 'timestamp';
  value(job: Job, site: Site): Value;
}

/** Text is what SQLite, CSV and SQL hold; a timestamp is ISO 8601 in UTC. */
export const JOB_COLUMNS: readonly JobColumn[] = [
  { name: 'job_id', type: 'text', value: ({ jobId }) => jobId ?? null },
  { name: 'client', type: 'text', value: ({ clientId }) => clientId ?? null },
  { name: 'command', type: 'text', value: ({ command }) => command ?? null },
  { name: 'state', type: 'text', value: ({ state }) => state },
  { name: 'at', type: 'timestamp', value: ({ at }) => at.toISOString() },
  { name: 'exit_code', type: 'integer', value: ({ exitCode }) => exitCode ?? null },
  { name: 'signal', type: 'integer', value: ({ signal }) => signal ?? null },
  { name: 'clock_skew', type: 'integer', value: ({ clockSkew }) => clockSkew ?? null },
  { name: 'group_name', type: 'text', value: ({ group }) => group?.name ?? null },
  { name: 'files', type: 'text', value: ({ group }) => (group ? [...group.has].sort().join(' ') : null) },
  { name: 'uploads', type: 'text', value: ({ uploads }) => JSON.stringify(uploads.map(({ name }) => name)) },
  { name: 'pack', type: 'text', value: ({ packed }) => packed?.pack ?? null },
  { name: 'packed_name', type: 'text', value: ({ packed }) => packed?.name ?? null },
  ...lineColumns('get'),
  ...lineColumns('put'),
];

function lineColumns(name: 'get' | 'put'): JobColumn[] {
  const column = (
    field: string,
    type: JobColumn['type'],
    read: (line: LogLine, site: Site) => Value | undefined,
  ): JobColumn => ({
    name: `${name}_${field}`,
    type,
    value: (job, site) => {
      const line = job[name];
      return line ? (read(line, site) ?? null) : null;
    },
  });
  return [
    column('at', 'timestamp', (line, site) => instantOf(line, site).toISOString()),
    column('user', 'text', ({ remoteUser }) => remoteUser),
    column('address', 'text', ({ remoteAddress }) => remoteAddress),
    column('method', 'text', ({ method }) => method),
    column('file_name', 'text', ({ fileName }) => fileName),
    column('bytes_received', 'integer', ({ bytesReceived }) => bytesReceived),
    column('bytes_sent', 'integer', ({ bytesSent }) => bytesSent),
    column('seconds', 'integer', ({ seconds }) => seconds),
    column('status', 'integer', ({ status }) => status),
    column('message', 'text', ({ message }) => message),
  ];
}

/** What a row of the index says, as readJobs would have it. */
export function parseJob(row: Record<string, Value>, site: Site): Job {
  const text = (name: string): string | undefined => (row[name] ?? undefined) as string | undefined;
  const number = (name: string): number | undefined => (row[name] ?? undefined) as number | undefined;
  const name = text('group_name');
  const group = name === undefined ? undefined : { name, has: new Set((text('files') ?? '').split(' ')) };
  const line = (part: 'get' | 'put'): LogLine | undefined => {
    const at = text(`${part}_at`);
    if (at === undefined) return undefined;
    return {
      time: formatTime(new Date(at), site.settings.useGMT),
      ...{ jobId: text('job_id'), clientId: text('client'), method: text(`${part}_method`) },
      ...{ remoteUser: text(`${part}_user`), remoteAddress: text(`${part}_address`) },
      ...{ fileName: text(`${part}_file_name`), bytesReceived: number(`${part}_bytes_received`) },
      ...{ bytesSent: number(`${part}_bytes_sent`) ?? 0, seconds: number(`${part}_seconds`) ?? 0 },
      ...{ status: number(`${part}_status`) ?? 0, message: text(`${part}_message`) ?? '' },
    };
  };
  const [pack, packedName] = [text('pack'), text('packed_name')];
  const names = JSON.parse(text('uploads') ?? '[]') as string[];
  return {
    ...{ jobId: text('job_id'), clientId: text('client'), command: text('command') },
    ...{ state: text('state') as Job['state'], at: new Date(text('at') ?? 0), get: line('get'), put: line('put') },
    group: group as Job['group'],
    uploads: names.map((upload) => ({ name: upload, has: (group?.has ?? new Set()) as never })),
    packed: pack !== undefined && packedName !== undefined ? { pack, name: packedName } : undefined,
    ...{ exitCode: number('exit_code'), signal: number('signal'), clockSkew: number('clock_skew') },
  };
}
