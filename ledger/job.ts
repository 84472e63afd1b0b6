// A job as the operator sees it: what the logs say of its requests, and the files of its uploads, put together by the job id.
import type { Group } from 'webjob-locker';
import { isSuccess, type LogLine } from 'webjob-protocol';

/** The states a job can be in. */
export const JOB_STATES = [
  'got', // a program was served, no answer yet
  'done', // the upload was accepted and its run record tells of no failure, or prune or pack took it and says no more
  'failed', // the upload is complete and its run record tells of an error, a signal, another exit status, or nothing at all
  'refused', // the server refused the GET or the PUT
  'incomplete', // the upload broke off, and what arrived is there without .rdy
  'orphan', // a complete upload without a log line
  'missing', // the upload was acknowledged and is gone, and neither prune nor pack took it
] as const;

export type JobState = (typeof JOB_STATES)[number];

export interface Job {
  /** As the log writes it. Undefined when the server that refused it gave none. */
  jobId: string | undefined;
  clientId: string | undefined;
  /** What was uploaded, where a GetHook made it of what was served. */
  command: string | undefined;
  state: JobState;
  /** The latest that is known of it. */
  at: Date;
  get: LogLine | undefined;
  /** Of several the last that was answered with success, else the last. */
  put: LogLine | undefined;
  /** Every other request of the job, the oldest first: refused and repeated ones. */
  attempts: readonly LogLine[];
  /** The upload, when there is one in the locker; of several the last. */
  group: Group | undefined;
  /** Every complete upload of the job in the locker, the oldest first. */
  uploads: readonly Group[];
  /** Names of complete uploads, in the locker or in packs, kept beside another as `NAME~2`. */
  differing: readonly string[];
  /** Names of what requests left that broke off, without .rdy. */
  left: readonly string[];
  /** Where the upload is when it is in a pack and not in the locker. */
  packed: { pack: string; name: string } | undefined;
  /** KidStatus of the run record. */
  exitCode: number | undefined;
  /** KidSignal of the run record, undefined for none. */
  signal: number | undefined;
  /** Seconds by which the client's clock was ahead of the server's, negative when behind; undefined within a minute. */
  clockSkew: number | undefined;
  /** OuterJid of the run record: the job whose program started this one. */
  outerId: string | undefined;
  /** When the server last answered one of its requests with success. */
  seenAt: Date | undefined;
}

/** Statuses of requests by somebody who is not, or did not prove to be, the client that they name. */
const FOREIGN_STATUSES: ReadonlySet<number> = new Set([452, 453, 458, 470, 471, 472]);

/** True for a refused job that somebody else asked for in the client's name: it says nothing about the client. */
export function isForeign({ state, get, put }: Pick<Job, 'state' | 'get' | 'put'>): boolean {
  return state === 'refused' && FOREIGN_STATUSES.has((put ?? get)?.status ?? 0);
}

/** True for a job that failed, was refused or broke off, and that the client it names is accountable for. */
export function isFailure(job: Pick<Job, 'state' | 'get' | 'put'>): boolean {
  const { state } = job;
  return state === 'failed' || state === 'incomplete' || (state === 'refused' && !isForeign(job));
}

/** Bytes of the upload as it was announced and accepted. */
export function uploadBytes({ put }: Pick<Job, 'put'>): number {
  return put && isSuccess(put.status) ? (put.bytesReceived ?? 0) : 0;
}
