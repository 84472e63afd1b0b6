// A site with a past: jobs at times chosen by the test, with the log lines of a server in a given
// zone, and uploads stored by the server's own code.
import { appendFileSync, existsSync, utimesSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { formatLogLine, type LogLine, type RecordField } from 'webjob-protocol';
import type { Site } from '../../scripts/site.ts';
import { plantGroup } from './verify-site.ts';

/** One job: a GET and a PUT that ended at `at`. */
export interface PastJob {
  at: Date;
  clientId?: string;
  command?: string;
  jobId?: string;
  /** Changes to the log line of the GET, which is two seconds before the PUT; false for no line. */
  get?: Partial<LogLine> | false;
  /** Changes to the log line of the PUT; false for no line. */
  put?: Partial<LogLine> | false;
  /** The contents of the upload; false for none. */
  out?: string | Buffer | false;
  fields?: Partial<Record<RecordField, string>>;
  /** The name of the upload; by default from the default PutNameFormat. */
  name?: string;
  /** Changes to the custody record; false for none. */
  custody?: Record<string, unknown> | false;
}

/** A past job that was planted. */
export interface Planted {
  jobId: string;
  /** The name of its upload. */
  name: string;
  at: Date;
}

/** `2026-10-25 02:30:00`, by the clock of a zone. */
export function formatIn(zone: string, at: Date): string {
  return new Intl.DateTimeFormat('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle: 'medium' }).format(at);
}

let planted = 0;

/** Adds jobs, oldest first, by the clock of `zone`: that of the server, or `UTC` for UseGMT=Y. */
export function plantPast(site: Site, zone: string, jobs: readonly PastJob[]): Planted[] {
  return jobs.map((job) => {
    const { at, clientId = 'client1', command = 'host.sh', get = {}, put = {}, out = 'kept\n' } = job;
    const number = String(++planted).padStart(5, '0');
    const jobId = job.jobId ?? `server_1_${Math.floor(at.getTime() / 1000)}_${number}`;
    const name = job.name ?? `${clientId}_${formatIn(zone, at).replace(/\D/g, '')}_${number}_${command}`;
    const common = { jobId, remoteUser: clientId, remoteAddress: '127.0.0.1', clientId, fileName: command };
    const write = (method: string, time: Date, given: Partial<LogLine>): void => {
      const counts = { bytesReceived: method === 'PUT' ? 10 : undefined, bytesSent: method === 'PUT' ? 0 : 19 };
      const line = { ...common, method, ...counts, time: formatIn(zone, time), seconds: 0, status: 200, message: 'OK' };
      appendFileSync(site.logFile, `${formatLogLine({ ...line, ...given })}\n`);
    };
    if (get) write('GET', new Date(at.getTime() - 2000), get);
    if (put) write('PUT', at, put);
    if (out !== false) plantUpload(site, { ...job, jobId, name, clientId, command, out });
    return { jobId, name, at };
  });
}

function plantUpload(site: Site, job: PastJob & Required<Pick<PastJob, 'jobId' | 'name' | 'out'>>): void {
  const { at, jobId, name, clientId = '', command = '', out, fields } = job;
  const time = at.toISOString();
  plantGroup({
    incomingDirectory: site.incoming,
    logfilesDirectory: dirname(site.logFile),
    name,
    jobId,
    out: out === false ? '' : out,
    err: '',
    fields: { ClientId: clientId, GetRequest: command, Command: command, ...fields },
    custody: job.custody === false ? false : { time, receivedAt: time, clientId, ...job.custody },
  });
  setTime(site, name, at);
}

/** Gives the files of an upload the times they would have. */
export function setTime(site: Site, name: string, at: Date): void {
  for (const extension of ['out', 'err', 'env', 'rdy']) {
    const path = join(site.incoming, `${name}.${extension}`);
    if (existsSync(path)) utimesSync(path, at, at);
  }
}
