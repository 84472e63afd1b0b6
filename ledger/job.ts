// A job as the operator sees it: the log lines of its requests and the files of its uploads, joined
// by job id.
import type { Group } from 'webjob-locker';
import { isSuccess, type LogLine } from 'webjob-protocol';

/** The states of a job. */
export const JOB_STATES = [
  'got', // the program was served, and no upload has arrived
  // the upload was accepted and its run record reports no failure, or the upload was removed or
  // archived and nothing else is known
  'done',
  // the upload is complete, and its run record reports an error, a signal, another exit status, or
  // nothing
  'failed',
  'refused', // the server refused the GET or the PUT
  'incomplete', // the upload broke off and left files without a .rdy
  'orphan', // a complete upload without a log line (an unmatched upload)
  'missing', // the upload was acknowledged and is missing, though it was neither removed nor archived
] as const;

export type JobState = (typeof JOB_STATES)[number];

export interface Job {
  /**
   * The job id in the escaped form of the log; undefined when the server refused the request
   * without issuing one.
   */
  jobId: string | undefined;
  clientId: string | undefined;
  /** The command; when a GetHook changed the name, the one that was uploaded. */
  command: string | undefined;
  state: JobState;
  /** The time of the newest event of the job. */
  at: Date;
  get: LogLine | undefined;
  /** The last PUT that succeeded or, without one, the last PUT. */
  put: LogLine | undefined;
  /** All other requests of the job, oldest first: refused and repeated ones. */
  attempts: readonly LogLine[];
  /** The last upload of the job that is in the locker. */
  group: Group | undefined;
  /** Every complete upload of the job in the locker, oldest first. */
  uploads: readonly Group[];
  /**
   * Names of complete uploads, in the locker or in archives, that were stored beside another as
   * `NAME~2`.
   */
  differing: readonly string[];
  /** Names of files without a .rdy, left by interrupted requests. */
  left: readonly string[];
  /** The archive that has the upload, when the locker no longer has it. */
  packed: { pack: string; name: string } | undefined;
  /** KidStatus of the run record. */
  exitCode: number | undefined;
  /** KidSignal of the run record; undefined for none. */
  signal: number | undefined;
  /**
   * Seconds by which the client's clock was ahead of the server's, negative when it was behind;
   * undefined for less than a minute.
   */
  clockSkew: number | undefined;
  /** OuterJid of the run record: the job whose program started this one. */
  outerId: string | undefined;
  /** When the server last answered one of the job's requests with success. */
  seenAt: Date | undefined;
}

/** Statuses of requests whose sender is not, or did not prove to be, the client it names. */
const FOREIGN_STATUSES: ReadonlySet<number> = new Set([452, 453, 458, 470, 471, 472]);

/**
 * Whether a refused job was requested by someone else in the client's name. Such a job says nothing
 * about the client.
 */
export function isForeign({ state, get, put }: Pick<Job, 'state' | 'get' | 'put'>): boolean {
  return state === 'refused' && FOREIGN_STATUSES.has((put ?? get)?.status ?? 0);
}

/**
 * Whether a job failed, was refused or broke off, and the client it names is responsible for it.
 */
export function isFailure(job: Pick<Job, 'state' | 'get' | 'put'>): boolean {
  const { state } = job;
  return state === 'failed' || state === 'incomplete' || (state === 'refused' && !isForeign(job));
}

/** The size in bytes with which the upload was announced and accepted. */
export function uploadBytes({ put }: Pick<Job, 'put'>): number {
  return put && isSuccess(put.status) ? (put.bytesReceived ?? 0) : 0;
}
