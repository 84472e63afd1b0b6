// The metrics of a site: its jobs according to the log and the locker, the locker itself, its file
// system, and the log. They describe what exists now and may decrease when logs are rotated or
// uploads removed, so all are gauges rather than counters.
import { statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { REASONS } from 'webjob-protocol';
import type { Assignment, Rollout } from '../../fleet/assignment.ts';
import { JOB_STATES } from '../../ledger/job.ts';
import type { Measures } from '../../ledger/jobs.ts';
import { readWaiting } from '../acts/waiting.ts';
import { MISSED_KINDS, type Missed } from '../fleet/expectations.ts';
import { CLIENT_STATES, type ClientState } from '../fleet/states.ts';
import { listServers, newestCheckpoint } from '../site/logs.ts';
import type { Site } from '../site/site.ts';
import { newestStamp } from '../site/stamps.ts';
import type { Family, Sample } from './exposition.ts';

/** The clients of each are examined one by one: above this number, the oldest are left out. */
export const MAX_ASSIGNMENTS = 100;

/**
 * Each client is a permanent time series: above this number, the clients that have been silent
 * longest are left out.
 */
export const MAX_CLIENTS = 10_000;

/** Metrics of the jobs. */
export function measureJobs({ all, clients, lastSeen }: Measures): Family[] {
  const states = JOB_STATES.map((state): [string, number] => [state, all.states.get(state) ?? 0]);
  const seen = lastSeen.map(([client, at]): [string, number] => [client, at.getTime() / 1000]);
  return [
    gauge('webjob_jobs', 'Jobs in the log and the locker, by state.', labelled('state', states)),
    gauge('webjob_requests', 'Requests of these jobs, by method and status.', countRequests(all.requests)),
    gauge('webjob_uploaded_bytes', 'Bytes of the uploads that were accepted.', [{ value: all.received }]),
    gauge('webjob_served_bytes', 'Bytes of the programs that were served.', [{ value: all.sent }]),
    gauge('webjob_clients', 'Clients with at least one successful request.', [{ value: clients }]),
    gauge(
      'webjob_client_last_seen_timestamp_seconds',
      'Time of the last successful request of a client.',
      labelled(
        'client',
        seen.sort(([a], [b]) => (a < b ? -1 : 1)),
      ),
    ),
  ];
}

function countRequests(requests: ReadonlyMap<string, number>): Sample[] {
  const counts = new Map<string, number>();
  for (const [name, count] of requests) {
    const [method = '', status = ''] = name.split(' ');
    // The number of series stays small, whatever methods clients send and whatever statuses other
    // servers answer.
    const known = [['GET', 'PUT'].includes(method) ? method : 'other', status in REASONS ? status : 'other'].join(' ');
    counts.set(known, (counts.get(known) ?? 0) + count);
  }
  return [...counts].map(([name, value]) => {
    const [method = '', status = ''] = name.split(' ');
    return { labels: { method, status }, value };
  });
}

/**
 * Metrics of the locker and its file system. Throws the errors of system calls on the locker
 * itself.
 */
export function measureLocker(
  { settings }: Site,
  { locker: { complete, incomplete, foreignFiles, bytes } }: Measures,
): Family[] {
  const groups = Object.entries({ complete, incomplete });
  const disk = statfsSync(settings.incomingDirectory);
  return [
    gauge('webjob_locker_groups', 'Uploads in the locker, with and without .rdy.', labelled('state', groups)),
    gauge('webjob_locker_strays', 'Files in the locker that belong to no upload.', [{ value: foreignFiles }]),
    gauge('webjob_locker_bytes', 'Bytes of the files of all uploads.', [{ value: bytes }]),
    gauge('webjob_locker_free_bytes', 'Free space on the file system of the locker for users other than root.', [
      { value: disk.bavail * disk.bsize },
    ]),
    gauge('webjob_locker_size_bytes', 'Size of the file system of the locker.', [{ value: disk.blocks * disk.bsize }]),
    // Some file systems allocate inodes on demand and report none.
    gauge(
      'webjob_locker_free_inodes',
      'Free inodes on the file system of the locker.',
      disk.files > 0 ? [{ value: disk.ffree }] : [],
    ),
  ];
}

/** Metrics of nph-webjob.log; none when it does not exist. */
export function measureLog({ settings }: Site): Family[] {
  const log = statSync(join(settings.logfilesDirectory, 'nph-webjob.log'), { throwIfNoEntry: false });
  return [
    gauge('webjob_log_bytes', 'Size of nph-webjob.log.', log ? [{ value: log.size }] : []),
    gauge(
      'webjob_log_modified_timestamp_seconds',
      'Time of the newest line in nph-webjob.log.',
      log ? [{ value: log.mtimeMs / 1000 }] : [],
    ),
  ];
}

/** When the custody records were last signed and time-stamped, as far as this user can see. */
export function measureCheckpoints({ settings }: Site): Family[] {
  const servers = listServers(settings);
  const times = (find: (serverId: string) => Date | undefined): Sample[] =>
    labelled(
      'server',
      servers.flatMap((serverId): [string, number][] => {
        const at = find(serverId);
        return at ? [[serverId, at.getTime() / 1000]] : [];
      }),
    );
  return [
    gauge(
      'webjob_checkpoint_timestamp_seconds',
      'Time of the newest checkpoint of a custody record.',
      times((serverId) => newestCheckpoint(settings, serverId)),
    ),
    gauge(
      'webjob_checkpoint_stamp_timestamp_seconds',
      'Time of the newest time stamp of a checkpoint.',
      times((serverId) => newestStamp(settings, serverId)),
    ),
  ];
}

/**
 * The number of expectations in `expect` that are missed now, by command and kind; none without
 * rules.
 */
export function measureExpectations(commands: readonly string[], missed: readonly Missed[]): Family[] {
  const samples = [...new Set(commands)].sort().flatMap((command) =>
    MISSED_KINDS.map((kind) => ({
      labels: { command, kind },
      value: missed.filter((one) => one.command === command && one.kind === kind).length,
    })),
  );
  return [gauge('webjob_expectations_missed', 'Clients that do not meet an expectation in the file expect.', samples)];
}

/**
 * The clients of each current assignment by state, and the stage of its rollout; none without
 * assignments.
 */
export function measureAssignments(
  rows: readonly { assignment: Assignment; states: Readonly<Record<ClientState, number>> }[],
): Family[] {
  const labelsOf = ({ id, command }: Assignment) => ({ assignment: id, command });
  const clients = rows.flatMap(({ assignment, states }) =>
    CLIENT_STATES.map((state) => ({ labels: { ...labelsOf(assignment), state }, value: states[state] })),
  );
  const paused = rows.map(({ assignment }) => {
    return { labels: labelsOf(assignment), value: assignment.state === 'paused' ? 1 : 0 };
  });
  const stagesOf = (count: (rollout: Rollout) => number): Sample[] =>
    rows.flatMap(({ assignment }) =>
      assignment.rollout ? [{ labels: labelsOf(assignment), value: count(assignment.rollout) }] : [],
    );
  return [
    gauge('webjob_assignment_clients', 'Clients of an assignment, by state.', clients),
    gauge('webjob_assignment_paused', '1 if the assignment is paused, as when its rollout was stopped.', paused),
    gauge(
      'webjob_assignment_stage',
      'The open stage of a rollout.',
      stagesOf(({ stage }) => stage + 1),
    ),
    gauge(
      'webjob_assignment_stages',
      'Number of stages of a rollout.',
      stagesOf(({ stages }) => stages.length),
    ),
  ];
}

/** The acts that users of the view requested and that still wait; none when acts are not set up. */
export function measureActs({ settings }: Site): Family[] {
  const waiting = readWaiting(settings);
  return [
    gauge(
      'webjob_view_acts_waiting',
      'Requests for acts by users of webjob-view that wait.',
      waiting ? [{ value: waiting.count }] : [],
    ),
    gauge(
      'webjob_view_oldest_act_timestamp_seconds',
      'Time of the oldest waiting act.',
      waiting?.oldest ? [{ value: waiting.oldest.getTime() / 1000 }] : [],
    ),
  ];
}

export function gauge(name: string, help: string, samples: readonly Sample[]): Family {
  return { name, help, type: 'gauge', samples };
}

function labelled(label: string, values: Iterable<readonly [string, number]>): Sample[] {
  return Array.from(values, ([name, value]) => ({ labels: { [label]: name }, value }));
}
