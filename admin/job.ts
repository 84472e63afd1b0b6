// A job as the operator sees it: what the log says of its GET and its PUT, and the files of its upload, put together by the job id.

import type { Group } from 'webjob-locker';
import type { LogLine } from 'webjob-protocol';

/** The states a job can be in. */
export const JOB_STATES = [
  'got', // a program was served, no answer yet
  'done', // the upload is complete and the program exited with 0
  'failed', // the upload is complete and its record tells of an error, a signal, or another exit status
  'refused', // the server refused the GET or the PUT
  'incomplete', // streams without .rdy
  'orphan', // a complete upload of which the log knows nothing
] as const;

export type JobState = (typeof JOB_STATES)[number];

export interface Job {
  /** Undefined when the server that refused it gave none. */
  jobId: string | undefined;
  clientId: string | undefined;
  command: string | undefined;
  state: JobState;
  /** The latest that is known of it. */
  at: Date;
  get: LogLine | undefined;
  put: LogLine | undefined;
  /** The upload, when there is one. */
  group: Group | undefined;
  /** KidStatus of the record, once it was read. */
  exitCode: number | undefined;
  signal: number | undefined;
}
