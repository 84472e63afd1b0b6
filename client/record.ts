// Who this client is, and the record of a run as it goes to the server (docs/protocol.md, section 7).
import os from 'node:os';
import { formatEpoch, formatRecord, isJobId, NOT_APPLICABLE } from 'webjob-protocol';
import { describeArguments } from './exact.ts';
import type { ClientSettings } from './settings.ts';
import { zoneAbbreviation } from './zone.ts';

declare const WEBJOB_VERSION: string;

export interface Identity {
  version: string;
  system: string;
  /** The same, within what the narrowest legacy server takes. */
  onWire: { version: string; system: string };
}

/** Names the job whose program runs us, so that a batch of jobs can be put together again. */
export const OUTER_JOB_VARIABLE = 'WEBJOB_JID';

/** Names the assignment that a batch runs us for. */
export const ASSIGNMENT_VARIABLE = 'WEBJOB_ASSIGNMENT';

type Extra = [name: string, value: string];

/** `7@1795503148`: the number of the assignment, and the time at which it was due. */
function findAssignment(): Extra[] {
  const assignment = process.env[ASSIGNMENT_VARIABLE] ?? '';
  return /^[1-9][0-9]{0,8}@[0-9]{1,12}$/.test(assignment) ? [['Assignment', assignment]] : [];
}

/** How the kid ended, in the record's words. Undefined stands for what does not apply. */
export interface Ending {
  pid: number | undefined;
  status: number | undefined;
  signal: number | undefined;
  reason: string;
  /** Why it could not be started, or was ended by us. */
  error: string | undefined;
}

/** One job on its way: what the record will say of it. Times are microseconds since 1970-01-01 UTC; undefined: it came not so far. */
export interface Job {
  settings: ClientSettings;
  identity: Identity;
  program: string;
  /** What the server was asked for: the program, or with GetHookSuffix what it is made of. */
  request: string;
  args: string[];
  /** Words that run the program, where the system does not run it itself. */
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

/** This client and this machine: `webjob 1.4.0 ssl 32 bit` and `sparc OpenBSD 3.5` in the article. */
export function describeClient(): Identity {
  const version = `webjob ${WEBJOB_VERSION} ssl ${/64|s390x/.test(os.arch()) ? 64 : 32} bit`;
  const system = `${os.machine()} ${os.type()} ${os.release()}`;
  const narrow = (text: string): string => text.replace(/[^\w ().-]/g, '_').slice(0, 64);
  return { version, system, onWire: { version: narrow(version), system: narrow(system) } };
}

/**
 * The wall clock in microseconds since 1970-01-01 UTC, as finely as Node reads it: to the millisecond. What
 * `performance` counts is finer, but knows nothing of a clock that was set or a machine that slept meanwhile.
 */
export function nowMicros(): number {
  return Date.now() * 1000;
}

/** The record of a job that is about to be uploaded, as the `.env` stream. */
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
