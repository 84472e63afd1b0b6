// The identity of this client, and the run record as it is sent to the server (docs/protocol.md,
// section 7).
import os from 'node:os';
import { formatEpoch, formatRecord, isJobId, NOT_APPLICABLE } from 'webjob-protocol';
import { describeArguments } from './exact.ts';
import type { ClientSettings } from './settings.ts';
import { zoneAbbreviation } from './zone.ts';

declare const WEBJOB_VERSION: string;

export interface Identity {
  version: string;
  system: string;
  /**
   * The version and system, limited to the characters that the most restrictive original server
   * accepts.
   */
  onWire: { version: string; system: string };
}

/** Names the id of the job whose program runs webjob, which ties the jobs of a batch together. */
export const OUTER_JOB_VARIABLE = 'WEBJOB_JID';

/** Names the assignment for which a batch runs webjob. */
export const ASSIGNMENT_VARIABLE = 'WEBJOB_ASSIGNMENT';

type Extra = [name: string, value: string];

/** Reads the assignment, such as `7@1795503148`: its number, and the time at which it was due. */
function findAssignment(): Extra[] {
  const assignment = process.env[ASSIGNMENT_VARIABLE] ?? '';
  return /^[1-9][0-9]{0,8}@[0-9]{1,12}$/.test(assignment) ? [['Assignment', assignment]] : [];
}

/** How the program ended, for the run record. Fields that do not apply are undefined. */
export interface Ending {
  pid: number | undefined;
  status: number | undefined;
  signal: number | undefined;
  reason: string;
  /** Why the program could not be started, or why webjob ended it. */
  error: string | undefined;
}

/**
 * A job in progress, for its run record. Times are microseconds since 1970-01-01 UTC; the time of a
 * stage that was not reached is undefined.
 */
export interface Job {
  settings: ClientSettings;
  identity: Identity;
  program: string;
  /**
   * The name requested from the server: the program or, with GetHookSuffix, the file from which the
   * hook makes the program.
   */
  request: string;
  args: string[];
  /** The command that runs the program, when the system does not run it directly. */
  runner?: readonly string[] | undefined;
  jobId: string | undefined;
  startedAt: number;
  getAt: number | undefined;
  getError: string | undefined;
  runAt: number | undefined;
  ending: Ending | undefined;
  outHash: string;
  errHash: string;
}

/**
 * Describes this client and machine, like `webjob 1.4.0 ssl 32 bit` and `sparc OpenBSD 3.5` in the
 * original's article.
 */
export function describeClient(): Identity {
  const version = `webjob ${WEBJOB_VERSION} ssl ${/64|s390x/.test(os.arch()) ? 64 : 32} bit`;
  const system = `${os.machine()} ${os.type()} ${os.release()}`;
  const narrow = (text: string): string => text.replace(/[^\w ().-]/g, '_').slice(0, 64);
  return { version, system, onWire: { version: narrow(version), system: narrow(system) } };
}

/**
 * The wall clock in microseconds since 1970-01-01 UTC, at Node's resolution of milliseconds.
 * `performance` is finer, but does not follow clock changes or time spent asleep.
 */
export function nowMicros(): number {
  return Date.now() * 1000;
}

/** Formats the run record, the `.env` stream, of a job that is about to be uploaded. */
export function formatJob(job: Job, putAt: number | undefined): string {
  const { settings, identity, ending } = job;
  const epoch = (micros: number | undefined): string =>
    micros === undefined ? NOT_APPLICABLE : formatEpoch(micros, zoneAbbreviation(new Date(micros / 1000)));
  const outer = process.env[OUTER_JOB_VARIABLE] ?? '';
  const orNone = (value: string | number | undefined): string => String(value ?? NOT_APPLICABLE);
  return formatRecord({
    fields: {
      Version: identity.version,
      Hostname: os.hostname(),
      SystemOS: identity.system,
      ClientId: settings.clientId,
      GetRequest: job.request,
      Command: job.program,
      CommandLine: [job.program, ...describeArguments(job.args)].join(' '),
      Jid: orNone(job.jobId),
      Pid: String(process.pid),
      KidPid: orNone(ending?.pid),
      KidStatus: orNone(ending?.status),
      KidSignal: orNone(ending?.signal),
      KidReason: orNone(ending?.reason),
      JobEpoch: epoch(job.startedAt),
      GetEpoch: epoch(job.getAt),
      RunEpoch: epoch(job.runAt),
      PutEpoch: epoch(putAt),
      HashType: settings.hashType,
      StdOutHash: job.outHash,
      StdErrHash: job.errHash,
      GetError: orNone(job.getError),
      RunError: orNone(ending?.error),
    },
    extra: [...(isJobId(outer) ? [['OuterJid', outer] as Extra] : []), ...findAssignment()],
  });
}
