// What is measured of a site: its jobs as the log and the locker tell of them, the locker, its file system, and the log. All of it is what
// is there now, and may fall when logs are rotated away or a locker is pruned: gauges, and no counters.
import { statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { EXTENSIONS, statGroupFile, walkLocker } from 'webjob-locker';
import { type LogLine, REASONS } from 'webjob-protocol';
import { JOB_STATES, type Job } from '../job.ts';
import { grantedAt, uploadBytes } from '../report/summary.ts';
import type { Site } from '../site.ts';
import type { Family, Sample } from './exposition.ts';

/** Each client is a time series for ever: above this many the ones not seen the longest are left out. */
const MAX_CLIENTS = 10_000;

/** Metrics of the jobs, read once and one at a time. */
export async function measureJobs(jobs: AsyncIterable<Job>, site: Site): Promise<Family[]> {
  const states = new Map<string, number>(JOB_STATES.map((state) => [state, 0]));
  const requests = new Map<string, { labels: Record<string, string>; value: number }>();
  const seen = new Map<string, number>();
  const bytes = { in: 0, out: 0 };
  for await (const job of jobs) {
    states.set(job.state, (states.get(job.state) ?? 0) + 1);
    for (const line of [job.get, job.put]) if (line) countRequest(requests, line);
    bytes.in += uploadBytes(job);
    bytes.out += job.get?.bytesSent ?? 0;
    const at = (grantedAt(job, site)?.getTime() ?? Number.NaN) / 1000;
    if (job.clientId === undefined || Number.isNaN(at)) continue;
    const known = seen.get(job.clientId);
    if (known === undefined) seen.set(job.clientId, at);
    else if (at > known) seen.set(job.clientId, at);
  }
  const clients = [...seen].sort(([, a], [, b]) => b - a).slice(0, MAX_CLIENTS);
  return [
    gauge('webjob_jobs', 'Jobs that the log and the locker tell of, by state.', labelled('state', states)),
    gauge('webjob_requests', 'Requests of these jobs, by method and status.', [...requests.values()]),
    gauge('webjob_uploaded_bytes', 'Bytes of the uploads that were accepted.', [{ value: bytes.in }]),
    gauge('webjob_served_bytes', 'Bytes of the programs that were served.', [{ value: bytes.out }]),
    gauge('webjob_clients', 'Clients of which the server granted a request.', [{ value: seen.size }]),
    gauge(
      'webjob_client_last_seen_timestamp_seconds',
      'When the last request of a client that the server granted was done.',
      labelled(
        'client',
        clients.sort(([a], [b]) => (a < b ? -1 : 1)),
      ),
    ),
  ];
}

function countRequest(requests: Map<string, { labels: Record<string, string>; value: number }>, line: LogLine): void {
  // Whatever a client calls its method, and whatever another server answered, the number of series stays small.
  const method = line.method === 'GET' || line.method === 'PUT' ? line.method : 'other';
  const status = line.status in REASONS ? String(line.status) : 'other';
  const key = `${method} ${status}`;
  const known = requests.get(key);
  if (known) known.value++;
  else requests.set(key, { labels: { method, status }, value: 1 });
}

/** Metrics of the locker and the disk that it is on. Throws the errors of system calls for the locker itself. */
export function measureLocker({ settings }: Site): Family[] {
  const locker = settings.incomingDirectory;
  const groups = new Map([
    ['complete', 0],
    ['incomplete', 0],
  ]);
  let strays = 0;
  let bytes = 0;
  for (const { group } of walkLocker(locker)) {
    if (!group) {
      strays++;
      continue;
    }
    const state = group.has.has('rdy') ? 'complete' : 'incomplete';
    groups.set(state, (groups.get(state) ?? 0) + 1);
    for (const extension of EXTENSIONS)
      if (group.has.has(extension)) bytes += statGroupFile(locker, group.name, extension)?.size ?? 0;
  }
  const disk = statfsSync(locker);
  return [
    gauge('webjob_locker_groups', 'Uploads in the locker, with and without .rdy.', labelled('state', groups)),
    gauge('webjob_locker_strays', 'What lies in the locker and belongs to no upload.', [{ value: strays }]),
    gauge('webjob_locker_bytes', 'Bytes of the files of all uploads.', [{ value: bytes }]),
    gauge('webjob_locker_free_bytes', 'Room on the file system of the locker for one who is not root.', [
      { value: disk.bavail * disk.bsize },
    ]),
    gauge('webjob_locker_size_bytes', 'Size of the file system of the locker.', [{ value: disk.blocks * disk.bsize }]),
    // Some file systems make inodes as they go and report none at all.
    gauge('webjob_locker_free_inodes', 'Inodes left there.', disk.files > 0 ? [{ value: disk.ffree }] : []),
  ];
}

/** Metrics of nph-webjob.log; none when it is not there. */
export function measureLog({ settings }: Site): Family[] {
  const log = statSync(join(settings.logfilesDirectory, 'nph-webjob.log'), { throwIfNoEntry: false });
  return [
    gauge('webjob_log_bytes', 'Size of nph-webjob.log.', log ? [{ value: log.size }] : []),
    gauge(
      'webjob_log_modified_timestamp_seconds',
      'When a request last left its line in nph-webjob.log.',
      log ? [{ value: log.mtimeMs / 1000 }] : [],
    ),
  ];
}

export function gauge(name: string, help: string, samples: readonly Sample[]): Family {
  return { name, help, type: 'gauge', samples };
}

function labelled(label: string, values: Iterable<readonly [string, number]>): Sample[] {
  return Array.from(values, ([name, value]) => ({ labels: { [label]: name }, value }));
}
