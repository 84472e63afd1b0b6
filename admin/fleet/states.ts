// The progress of an assignment, client by client: the claims tell who fetched it, and the jobs
// tell the results.
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { parseClaim, parseTaken, reach, reachFolder, type TakenClaim } from 'webjob-locker';
import { findJobIdParts } from 'webjob-protocol';
import { errorCode } from '../../cli/files.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { parseBatchOutput } from '../../fleet/batch-script.ts';
import { lastDue } from '../../fleet/due.ts';
import { CLAIMS } from '../../fleet/paths.ts';
import { fieldPattern, parseRecordFields } from '../../ledger/ending.ts';
import { describeExit } from '../../ledger/fields.ts';
import { MAX_HEAD_BYTES } from '../../ledger/head.ts';
import type { Job } from '../../ledger/job.ts';
import { readJobs } from '../../ledger/jobs.ts';
import { findJobStreams } from '../../ledger/streams.ts';
import type { Site } from '../site/site.ts';
import { isoOf } from './assigning.ts';
import type { Book } from './assignments.ts';

/** The states of a client of an assignment, in their order. */
export const CLIENT_STATES = [
  'waiting', // has not fetched it, and still may
  'fetched', // has fetched it, and nothing has come back yet
  'done', // its job is done
  'failed', // its job failed or was refused, or webjob could not run it
  'lost', // has fetched it, but its batch ended without a job, or nothing was heard for a day
  'expired', // did not fetch it in time
  'cancelled', // had not fetched it when it was cancelled
] as const;

export type ClientState = (typeof CLIENT_STATES)[number];

/** A client of an assignment. */
export interface ClientProgress {
  clientId: string;
  state: ClientState;
  /** The due time that it fetched last, in seconds since 1970. */
  due: number | undefined;
  /** The job that it ran. */
  job: Job | undefined;
  /** The exit code of the client's webjob, when nothing else is known. */
  webjobExit: number | undefined;
}

/** A silent client is given up this many seconds after it fetched the assignment. */
const LOST_AFTER = 86_400;
/** The most bytes of a batch's stdout that are read. */
const MOST_OUTPUT = 1024 * 1024;

/**
 * The progress of each of these clients, and of all others that fetched the assignment: each is in
 * exactly one state. Throws Failure `failed`.
 */
export async function readProgress(
  site: Site,
  { active, past }: Book,
  assignment: Assignment,
  clientIds: readonly string[],
  now = Math.floor(Date.now() / 1000),
): Promise<ClientProgress[]> {
  const { dynamicDirectory } = site.settings;
  const siblings = [...active, ...past].filter(
    ({ id, command }) => id !== assignment.id && command === assignment.command,
  );
  const taken = newestOf(readTaken(dynamicDirectory, assignment.id));
  const due = lastDue(assignment.schedule, assignment.from, Math.min(now, (assignment.until ?? now + 1) - 1));
  // Many clients may never have fetched a batch, so this is checked first.
  const asked = new Set(listNames(dynamicDirectory, `${CLAIMS}/clients`));
  for (const clientId of clientIds) {
    if (due === undefined || !asked.has(clientId) || taken.get(clientId)?.due === due) continue;
    // Covers a server that was killed after the claim and before its line in the index.
    const claim = readClaim(dynamicDirectory, `${CLAIMS}/clients/${clientId}/${assignment.id}@${due}`);
    if (claim) taken.set(clientId, { due, clientId, ...claim });
  }
  const before = countBefore(
    taken,
    siblings.flatMap(({ id }) => readTaken(dynamicDirectory, id)),
  );
  const results = await readResults(site, assignment, taken, before, now);
  const names = [...new Set([...clientIds, ...taken.keys()])].sort();
  return names.map((clientId) => {
    const claim = taken.get(clientId);
    const result = results.get(clientId);
    const hasNewest = claim !== undefined && (due === undefined || claim.due >= due);
    const isOver = assignment.state === 'cancelled' || (assignment.until !== undefined && now >= assignment.until);
    const open = assignment.state === 'cancelled' ? 'cancelled' : isOver ? 'expired' : 'waiting';
    const state = hasNewest || (claim && isOver) ? (result?.state ?? 'fetched') : open;
    return { clientId, state, due: claim?.due, job: result?.job, webjobExit: result?.webjobExit };
  });
}

/** A client of an assignment as --json has it. */
export function describeProgress({ clientId, state, due, job, webjobExit }: ClientProgress): Record<string, unknown> {
  return {
    ...{ client: clientId, state, due: due === undefined ? null : isoOf(due), jobId: job?.jobId ?? null },
    ...{ exit: (job && describeExit(job)) ?? null, webjobExit: webjobExit ?? null },
  };
}

/** The number of clients in each state; their sum is the number of clients. */
export function countStates(progress: readonly ClientProgress[]): Record<ClientState, number> {
  const counts = Object.fromEntries(CLIENT_STATES.map((state) => [state, 0])) as Record<ClientState, number>;
  for (const { state } of progress) counts[state] += 1;
  return counts;
}

/** The claims of an assignment on all servers. */
function readTaken(dynamicDirectory: string, id: string): TakenClaim[] {
  const folder = `${CLAIMS}/taken`;
  return listNames(dynamicDirectory, folder)
    .filter((name) => name.startsWith(`${id}.`))
    .flatMap((name) => parseTaken(readRegular(dynamicDirectory, `${folder}/${name}`)));
}

function newestOf(claims: readonly TakenClaim[]): Map<string, TakenClaim> {
  const newest = new Map<string, TakenClaim>();
  for (const claim of claims) {
    const known = newest.get(claim.clientId);
    if (!known || claim.due > known.due) newest.set(claim.clientId, claim);
  }
  return newest;
}

/**
 * For each client, the number of runs of the same command before this claim in its batch; nothing
 * for a client without others.
 */
function countBefore(taken: ReadonlyMap<string, TakenClaim>, others: readonly TakenClaim[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { clientId, jobId, position } of others) {
    const own = taken.get(clientId);
    if (own?.jobId === jobId) counts.set(clientId, (counts.get(clientId) ?? 0) + (position < own.position ? 1 : 0));
  }
  return counts;
}

interface Result {
  state: ClientState;
  job?: Job;
  webjobExit?: number;
}

/** The result of each claim. */
async function readResults(
  site: Site,
  { id, command }: Assignment,
  taken: ReadonlyMap<string, TakenClaim>,
  before: ReadonlyMap<string, number>,
  now: number,
): Promise<Map<string, Result>> {
  const results = new Map<string, Result>();
  if (taken.size === 0) return results;
  const epochs = new Map([...taken.values()].map(({ jobId }) => [jobId, epochOf(jobId)]));
  const since = new Date(Math.min(now, ...[...epochs.values()].filter((epoch) => epoch !== undefined)) * 1000);
  const batches = new Map<string, Job>();
  const wanted = new Set(epochs.keys());
  for await (const job of readJobs(site, { command: site.settings.batchCommand, since }))
    if (job.jobId !== undefined && wanted.has(job.jobId)) batches.set(job.jobId, job);
  const jobs = new Map<string, Job[]>();
  for await (const job of readJobs(site, { command, since }, undefined, 'time')) {
    if (!taken.has(job.clientId ?? '')) continue;
    const own = jobs.get(job.clientId ?? '') ?? [];
    own.push(job);
    jobs.set(job.clientId ?? '', own);
  }
  for (const claim of taken.values()) {
    const key = `${id}@${claim.due}`;
    const batch = batches.get(claim.jobId);
    if (!batch && !jobs.has(claim.clientId)) {
      // Nothing has come back, as for most claims in the beginning.
      results.set(claim.clientId, { state: isSilent(epochs.get(claim.jobId), now) ? 'lost' : 'fetched' });
      continue;
    }
    const own = findJobs(jobs.get(claim.clientId) ?? [], claim, epochs.get(claim.jobId), batch);
    const place = before.get(claim.clientId);
    // When it is the only run of its command in the batch, its run record need not be read.
    const job = place === undefined && own.length < 2 ? own[0] : await findOwn(site, own, key, place ?? 0);
    results.set(claim.clientId, await judge(site, key, claim, { batch, job, now }));
  }
  return results;
}

/**
 * Of the runs of a command in a batch, the one whose run record names the assignment. For clients
 * that do not record it, the runs are matched in the order in which they were handed out.
 */
async function findOwn(site: Site, jobs: readonly Job[], assignment: string, place: number): Promise<Job | undefined> {
  const told = await Promise.all(jobs.map((job) => readAssignment(site, job)));
  return told.every((name) => name === undefined) ? jobs[place] : jobs[told.indexOf(assignment)];
}

async function readAssignment(site: Site, job: Job): Promise<string | undefined> {
  let text = '';
  for await (const piece of (await findJobStreams(site, job)).env?.read() ?? []) {
    text += piece.toString('latin1');
    if (text.length > MAX_HEAD_BYTES) break;
  }
  return parseRecordFields(text, ASSIGNMENT).get('Assignment');
}

const ASSIGNMENT = fieldPattern('Assignment');

function epochOf(jobId: string): number | undefined {
  return findJobIdParts(jobId)?.epochSeconds;
}

/**
 * The jobs of a command that the batch of a claim started, in order. Current clients record which
 * job started another; for an original client, these are the jobs that began while the batch ran.
 */
function findJobs(
  jobs: readonly Job[],
  { jobId }: TakenClaim,
  epoch: number | undefined,
  batch: Job | undefined,
): Job[] {
  const told = jobs.filter(({ outerId }) => outerId === jobId);
  if (told.length > 0 || epoch === undefined) return sortByStart(told);
  const endedAt = batch?.put ? batch.at.getTime() / 1000 : Number.POSITIVE_INFINITY;
  const meanwhile = jobs.filter((job) => {
    const began = startOf(job);
    return job.outerId === undefined && began !== undefined && began >= epoch && began <= endedAt + 1;
  });
  return sortByStart(meanwhile);
}

function startOf({ jobId }: Job): number | undefined {
  return jobId === undefined ? undefined : epochOf(jobId);
}

/** Jobs of the same second are in the order in which they ended. */
function sortByStart(jobs: readonly Job[]): Job[] {
  return jobs.toSorted((a, b) => (startOf(a) ?? 0) - (startOf(b) ?? 0) || a.at.getTime() - b.at.getTime());
}

async function judge(
  site: Site,
  key: string,
  { jobId }: TakenClaim,
  { batch, job, now }: { batch: Job | undefined; job: Job | undefined; now: number },
): Promise<Result> {
  if (job?.state === 'done') return { state: 'done', job };
  if (job && job.state !== 'got') return { state: 'failed', job };
  const isOver = batch !== undefined && batch.put !== undefined;
  const webjobExit = isOver ? parseBatchOutput(await readOutput(site, batch)).get(key) : undefined;
  if (webjobExit !== undefined) return { state: 'failed', webjobExit, ...(job && { job }) };
  return { state: isOver || isSilent(epochOf(jobId), now) ? 'lost' : 'fetched', ...(job && { job }) };
}

function isSilent(epoch: number | undefined, now: number): boolean {
  return now - (epoch ?? now) > LOST_AFTER;
}

async function readOutput(site: Site, job: Job): Promise<string> {
  const { out } = await findJobStreams(site, job);
  let text = '';
  for await (const piece of out?.read() ?? []) {
    text += piece.toString('latin1');
    if (text.length > MOST_OUTPUT) break;
  }
  return text;
}

/**
 * Reads a regular file. The web user owns these directories, so links in place of files are not
 * followed.
 */
function readRegular(locker: string, name: string): string {
  let fd: number;
  try {
    fd = openSync(reach(locker, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return '';
  }
  try {
    return fstatSync(fd).isFile() ? readFileSync(fd, 'latin1') : '';
  } finally {
    closeSync(fd);
  }
}

function readClaim(locker: string, name: string): ReturnType<typeof parseClaim> {
  try {
    return parseClaim(readlinkSync(reach(locker, name)));
  } catch {
    return undefined;
  }
}

function listNames(locker: string, folder: string): string[] {
  try {
    return readdirSync(reachFolder(locker, folder));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}
