// A job as the operator sees it: what the log says of its GET and its PUT, and the files of its upload, put together by the job id.

import type { Group } from 'webjob-locker';
import type { LogLine } from 'webjob-protocol';

/** The states a job can be in. */
export const JOB_STATES = [
  'got', // a program was served, no answer yet
  'done', // the upload was taken, and no record tells of a failure: the program exited with 0, or its files are gone
  'failed', // the upload is complete and its record tells of an error, a signal, another exit status, or nothing at all
  'refused', // the server refused the GET or the PUT
  'incomplete', // streams without .rdy
  'orphan', // a complete upload of which the log knows nothing
] as const;

export type JobState = (typeof JOB_STATES)[number];

export interface Job {
  /** As the log writes it. Undefined when the server that refused it gave none. */
  jobId: string | undefined;
  clientId: string | undefined;
  command: string | undefined;
  state: JobState;
  /** The latest that is known of it. */
  at: Date;
  get: LogLine | undefined;
  /** Of several the last that was answered with success, else the last. */
  put: LogLine | undefined;
  /** The upload, when there is one; of several the last. */
  group: Group | undefined;
  /** Every complete upload under this job id, the oldest first. */
  uploads: Group[];
  /** Where the upload is when it is in a pack and not in the locker. */
  packed: { pack: string; name: string } | undefined;
  /** KidStatus of the record, once it was read. */
  exitCode: number | undefined;
  /** KidSignal of the record, undefined for none. */
  signal: number | undefined;
  /** Seconds by which the client's clock was ahead of the server's, negative when behind; undefined within a minute. */
  clockSkew: number | undefined;
}
