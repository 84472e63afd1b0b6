// The custody entries of the jobs in a package: their deposits, and later events of these uploads.
// Entries that name other jobs are not included.
import { listCustodyFiles, STREAMS } from 'webjob-locker';
import { encodeField, findJobIdParts } from 'webjob-protocol';
import { type Entry, scanEntries } from '../../evidence/entries.ts';
import type { Deposit } from '../../evidence/records.ts';
import type { Job } from '../../ledger/job.ts';
import { logFolders } from '../../ledger/site.ts';
import type { Site } from '../site/site.ts';

/** An entry in the record of one server. */
export interface PlacedEntry extends Entry {
  /** The log directory of the record. */
  logs: string;
  /** The deposits in the entry: one, or those of uploads that were adopted together. */
  deposits: readonly Deposit[];
}

/** The custody entries of one job. */
export interface JobEntries {
  /** Entries that may be shown, oldest first. */
  shown: PlacedEntry[];
  /**
   * Entries that also name other jobs and are not handed over. Their facts about this job are used
   * all the same.
   */
  hidden: PlacedEntry[];
}

/** How far a server's clock may have been set back between a job id and its custody record. */
const CLOCK_MS = 3_600_000;

/** Returns a function that reports whether a deposit belongs to a job. */
export function isDepositOf({ jobId, clientId }: Pick<Job, 'jobId' | 'clientId'>): (told: Deposit) => boolean {
  return (told) => encodeField(told.jobId) === jobId && (told.clientId === undefined || told.clientId === clientId);
}

/**
 * Returns a function that reports whether a job id in a custody record belongs to one of the jobs,
 * whose ids are in the escaped form of the log.
 */
export function jobIdsOf(jobs: readonly Job[]): (jobId: string) => boolean {
  const ids = new Set(jobs.flatMap(({ jobId }) => jobId ?? []));
  return (jobId) => ids.has(encodeField(jobId));
}

/** Finds the entries of all jobs in one walk. Throws the error of a system call. */
export function findJobEntries(site: Site, jobs: readonly Job[]): (job: Job) => JobEntries {
  const isMeant = jobIdsOf(jobs);
  const issued = jobs.map(({ jobId = '' }) => findJobIdParts(jobId)?.epochSeconds ?? 0);
  const since = Math.min(...issued) * 1000 - CLOCK_MS;
  const owners = new Map<string, Job[]>();
  for (const job of jobs) if (job.jobId !== undefined) owners.set(job.jobId, [...(owners.get(job.jobId) ?? []), job]);
  const isOwn = (jobId: unknown, clientId: unknown): boolean =>
    (owners.get(encodeField(String(jobId))) ?? []).some((job) => clientId === undefined || clientId === job.clientId);
  const found = new Map<Job, JobEntries>();
  for (const logs of logFolders(site))
    for (const entry of scanEntries(logs, listCustodyFiles(logs), isMeant, since)) {
      const placed = { ...entry, logs, deposits: depositsOf(entry.facts) };
      const isShown = namesOnly(placed, isOwn);
      for (const job of jobsOf(placed, owners)) {
        const entries = found.get(job) ?? { shown: [], hidden: [] };
        found.set(job, entries);
        entries[isShown ? 'shown' : 'hidden'].push(placed);
      }
    }
  return (job) => found.get(job) ?? { shown: [], hidden: [] };
}

function jobsOf({ facts, deposits }: PlacedEntry, owners: ReadonlyMap<string, Job[]>): Set<Job> {
  const told = [
    ...deposits,
    ...(facts.event === 'replaced' || facts.event === 'note'
      ? [{ jobId: String(facts.jobId), clientId: undefined }]
      : []),
  ];
  return new Set(
    told.flatMap(({ jobId, clientId }) =>
      (owners.get(encodeField(jobId)) ?? []).filter((job) => clientId === undefined || clientId === job.clientId),
    ),
  );
}

/** The entry about a replaced upload also names the job that replaced it, and that job's client. */
function namesOnly({ facts, deposits }: PlacedEntry, isOwn: (jobId: unknown, clientId: unknown) => boolean): boolean {
  if (facts.event === 'replaced') return isOwn(facts.replacedBy, facts.clientId) && isOwn(facts.jobId, undefined);
  return deposits.every(({ jobId, clientId }) => isOwn(jobId, clientId));
}

/** The deposits in a custody entry. */
export function depositsOf(facts: Record<string, unknown>): Deposit[] {
  const rows = facts.event === 'deposit' ? [facts] : facts.event === 'adopt' ? facts.uploads : [];
  if (!Array.isArray(rows)) return [];
  return rows.flatMap((row) => {
    const { name, jobId, clientId, fileName, bytes, sha256, receivedAt } = row ?? {};
    if (typeof name !== 'string' || typeof jobId !== 'string' || !isContent(bytes, sha256)) return [];
    const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
    const who = { clientId: text(clientId), fileName: text(fileName) };
    const time = new Date(String(facts.time));
    return [{ name, jobId, ...who, time, bytes, sha256, receivedAt: text(receivedAt), fault: undefined }];
  });
}

function isContent(bytes: unknown, sha256: unknown): boolean {
  return STREAMS.every(
    (stream) =>
      Number.isSafeInteger((bytes as Record<string, unknown>)?.[stream]) &&
      typeof (sha256 as Record<string, unknown>)?.[stream] === 'string',
  );
}
