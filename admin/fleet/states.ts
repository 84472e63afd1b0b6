// How far an assignment is, client by client: what the claims say of who fetched it, and the jobs of what became of it.
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { parseClaim, parseTaken, reach, reachFolder, type TakenClaim } from 'webjob-locker';
import { findJobIdParts } from 'webjob-protocol';
import { errorCode } from '../../cli/files.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { parseBatchOutput } from '../../fleet/batch-script.ts';
import { lastDue } from '../../fleet/due.ts';
import { CLAIMS } from '../../fleet/paths.ts';
import { fieldPattern, parseRecordFields } from '../../ledger/ending.ts';
import { MAX_HEAD_BYTES } from '../../ledger/head.ts';
import type { Job } from '../../ledger/job.ts';
import { readJobs } from '../../ledger/jobs.ts';
import { findJobStreams } from '../../ledger/streams.ts';
import type { Site } from '../site/site.ts';
import type { Book } from './assignments.ts';

/** The states a client of an assignment can be in, in the order in which they come. */
export const CLIENT_STATES = [
  'waiting', // it has not fetched it, and may
  'fetched', // it has fetched it, and nothing has come back yet
  'done', // its job is done
  'failed', // its job failed or was refused, or webjob could not run it
  'lost', // it has fetched it, and its batch is over without a job, or nothing was heard for a day
  'expired', // it did not fetch it in time
  'cancelled', // it had not fetched it when it was cancelled
] as const;

export type ClientState = (typeof CLIENT_STATES)[number];

/** One client of an assignment. */
export interface ClientProgress {
  clientId: string;
  state: ClientState;
  /** Seconds since 1970 of the due time that it fetched last. */
  due: number | undefined;
  /** What it ran. */
  job: Job | undefined;
  /** The exit code of the client's webjob, where it is all that is known. */
  webjobExit: number | undefined;
}

/** Behind this time a client that fetched and is silent is given up (seconds). */
const LOST_AFTER = 86_400;
/** Lines of stdout of a batch that are looked at, in bytes. */
const MOST_OUTPUT = 1024 * 1024;

/**
 * The progress of each of these clients, and of every other one that fetched the assignment: each is in exactly one state. Throws Failure
 * `failed`.
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
  // Most clients of a site may never have asked for a batch.
  const asked = new Set(listNames(dynamicDirectory, `${CLAIMS}/clients`));
  for (const clientId of clientIds) {
    if (due === undefined || !asked.has(clientId) || taken.get(clientId)?.due === due) continue;
    // A server that was killed between the claim and its line.
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

/** How many clients are in each state; their sum is the number of clients. */
export function countStates(progress: readonly ClientProgress[]): Record<ClientState, number> {
  const counts = Object.fromEntries(CLIENT_STATES.map((state) => [state, 0])) as Record<ClientState, number>;
  for (const { state } of progress) counts[state] += 1;
  return counts;
}

/** The claims of an assignment, of all servers. */
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

/** How many runs of the same command stood before each claim in its batch, by client; nothing for a client that had no other in it. */
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

/** What became of each claim. */
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
      // As most are for a while: nothing has come back.
      results.set(claim.clientId, { state: isSilent(epochs.get(claim.jobId), now) ? 'lost' : 'fetched' });
      continue;
    }
    const own = findJobs(jobs.get(claim.clientId) ?? [], claim, epochs.get(claim.jobId), batch);
    const place = before.get(claim.clientId);
    // Where it is the only one of its command in its batch, its record need not be read.
    const job = place === undefined && own.length < 2 ? own[0] : await findOwn(site, own, key, place ?? 0);
    results.set(claim.clientId, await judge(site, key, claim, { batch, job, now }));
  }
  return results;
}

/**
 * Of the runs of a command in one batch the one whose record names the assignment. Clients that tell nothing of it have theirs in the order in
 * which they were given them.
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
 * The jobs of one command that the batch of a claim started, the first one first. A client that tells which job started another says it; of
 * an original one they are those that began while its batch ran.
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

/** Of one second in the order in which they ended. */
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

/** The web user owns these folders: what he put there in place of a file is not followed. */
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
