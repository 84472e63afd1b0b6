// The progress of an assignment, client by client: the claims show who fetched it, and the jobs
// show the results.
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { parseClaim, reach, reachFolder, type TakenClaim, TakenClaims } from 'webjob-locker';
import { findJobIdTime } from 'webjob-protocol';
import { errorCode } from '../../cli/files.ts';
import type { Assignment } from '../../fleet/assignment.ts';
import { parseBatchOutput } from '../../fleet/batch-script.ts';
import { lastDue } from '../../fleet/due.ts';
import { CLAIMS } from '../../fleet/paths.ts';
import { fieldPattern, parseRecordFields } from '../../ledger/ending.ts';
import { describeExit } from '../../ledger/fields.ts';
import { MAX_HEAD_BYTES } from '../../ledger/head.ts';
import type { Job } from '../../ledger/job.ts';
import { withJobs } from '../../ledger/jobs.ts';
import { findJobStreams } from '../../ledger/streams.ts';
import type { Site } from '../site/site.ts';
import { isoOf } from './assigning.ts';
import type { Book } from './assignments.ts';

/** The states of a client of an assignment, in the order in which they are listed. */
export const CLIENT_STATES = [
  'waiting', // has not fetched it, and still may
  'fetched', // has fetched it, and no output has arrived yet
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
  /** The last due time for which the client fetched the assignment, in seconds since 1970. */
  due: number | undefined;
  /** The job that the client ran. */
  job: Job | undefined;
  /** The exit code of the client's webjob, when nothing else is known. */
  webjobExit: number | undefined;
}

/** A silent client counts as lost this many seconds after it fetched the assignment. */
const LOST_AFTER = 86_400;
/** The maximum number of bytes read of a batch's stdout. */
const MOST_OUTPUT = 1024 * 1024;

/** The clients of an assignment, each in exactly one state. */
export interface Progress {
  /** The number of clients. */
  size: number;
  /** The number of clients in each state; their sum is the number of clients. */
  counts: Record<ClientState, number>;
  /** The clients in these states, by id; without states, all of them. */
  clients(states?: readonly ClientState[]): Generator<ClientProgress>;
}

/**
 * The progress of each of these clients, and of all others that fetched the assignment. Throws
 * Failure `failed`.
 *
 * @param clientIds sorted
 */
export async function readProgress(
  site: Site,
  { active, past }: Book,
  assignment: Assignment,
  clientIds: readonly string[],
  now = Math.floor(Date.now() / 1000),
): Promise<Progress> {
  const { dynamicDirectory } = site.settings;
  const siblings = [...active, ...past].filter(
    ({ id, command }) => id !== assignment.id && command === assignment.command,
  );
  const taken = readTaken(dynamicDirectory, assignment.id);
  const due = lastDue(assignment.schedule, assignment.from, Math.min(now, (assignment.until ?? now + 1) - 1));
  // Many clients may never have fetched a batch, so this is checked first.
  const asked = new Set(listNames(dynamicDirectory, `${CLAIMS}/clients`));
  for (const clientId of asked.size === 0 ? [] : clientIds) {
    if (due === undefined || !asked.has(clientId) || taken.find(clientId)?.due === due) continue;
    // Covers a server that was killed after the claim and before its line in the index.
    const claim = readClaim(dynamicDirectory, `${CLAIMS}/clients/${clientId}/${assignment.id}@${due}`);
    if (claim) taken.add({ due, clientId, ...claim });
  }
  // If no client has fetched the assignment, other assignments do not matter.
  const others = taken.size === 0 ? [] : siblings.flatMap(({ id }) => keyed(id, readTaken(dynamicDirectory, id)));
  const claims = [...others, ...(taken.count > taken.size || others.length > 0 ? keyed(assignment.id, taken) : [])];
  const results = await readResults(site, assignment, { taken, claims, now });
  const isOver = assignment.state === 'cancelled' || (assignment.until !== undefined && now >= assignment.until);
  const open = assignment.state === 'cancelled' ? 'cancelled' : isOver ? 'expired' : 'waiting';
  const stateOf = (clientId: string, claim: TakenClaim | undefined): ClientState =>
    claim && (isOver || due === undefined || claim.due >= due)
      ? (results.get(clientId)?.state ?? stateOfSilent(claim, now))
      : open;
  const summed = sum(clientIds, taken, stateOf);
  const isAll = summed.found === taken.size;
  const fetched = isAll ? [] : Array.from(taken.newest(), ({ clientId }) => clientId);
  const all = isAll ? clientIds : [...new Set([...clientIds, ...fetched])].sort();
  const { counts, states } = isAll ? summed : sum(all, taken, stateOf);
  return {
    size: all.length,
    counts,
    *clients(wanted = CLIENT_STATES) {
      const isWanted = CLIENT_STATES.map((state) => wanted.includes(state));
      for (let index = 0; index < all.length; index += 1) {
        const position = states[index] ?? 0;
        if (!isWanted[position]) continue;
        const [clientId = '', state = open] = [all[index], CLIENT_STATES[position]];
        const { job, webjobExit } = results.get(clientId) ?? {};
        yield { clientId, state, due: taken.find(clientId)?.due, job, webjobExit };
      }
    },
  };
}

/** The states of these clients as positions in CLIENT_STATES, and how many have a claim. */
function sum(
  clientIds: readonly string[],
  taken: TakenClaims,
  stateOf: (clientId: string, claim: TakenClaim | undefined) => ClientState,
): { states: Uint8Array; counts: Record<ClientState, number>; found: number } {
  const states = new Uint8Array(clientIds.length);
  const sums = CLIENT_STATES.map(() => 0);
  let [index, found] = [0, 0];
  for (const clientId of clientIds) {
    const claim = taken.find(clientId);
    if (claim) found += 1;
    const position = CLIENT_STATES.indexOf(stateOf(clientId, claim));
    sums[position] = (sums[position] ?? 0) + 1;
    states[index] = position;
    index += 1;
  }
  const counts = Object.fromEntries(CLIENT_STATES.map((state, position) => [state, sums[position]]));
  return { states, counts: counts as Record<ClientState, number>, found };
}

/** A client of an assignment in the form that --json prints. */
export function describeProgress({ clientId, state, due, job, webjobExit }: ClientProgress): Record<string, unknown> {
  return {
    client: clientId,
    state,
    due: due === undefined ? null : isoOf(due),
    jobId: job?.jobId ?? null,
    exit: (job && describeExit(job)) ?? null,
    webjobExit: webjobExit ?? null,
  };
}

/** The claims of an assignment on all servers. */
function readTaken(dynamicDirectory: string, id: string): TakenClaims {
  const folder = `${CLAIMS}/taken`;
  const names = listNames(dynamicDirectory, folder).filter((name) => name.startsWith(`${id}.`));
  return new TakenClaims(names.map((name) => readRegular(dynamicDirectory, `${folder}/${name}`)));
}

/** A claim with its key `ID@DUE`. */
interface KeyedClaim extends TakenClaim {
  key: string;
}

function keyed(id: string, claims: TakenClaims): KeyedClaim[] {
  return Array.from(claims.all(), (claim) => withKey(claim, `${id}@${claim.due}`));
}

function withKey({ due, clientId, position, jobId }: TakenClaim, key: string): KeyedClaim {
  return { due, clientId, position, jobId, key };
}

interface Result {
  state: ClientState;
  job?: Job;
  webjobExit?: number;
}

/** The claims of a command. */
interface Known {
  taken: TakenClaims;
  /** All claims, including those of other assignments; empty when each client has only one. */
  claims: readonly KeyedClaim[];
  now: number;
}

/** The result of each claim for which any output has arrived. */
async function readResults(
  site: Site,
  { id, command, schedule, from }: Assignment,
  { taken, claims, now }: Known,
): Promise<Map<string, Result>> {
  const results = new Map<string, Result>();
  if (taken.size === 0) return results;
  const since = new Date(Math.min(now, schedule.kind === 'once' ? from : firstEpochOf(taken.newest())) * 1000);
  const batches = new Map<string, Job>();
  const jobs = new Map<string, Job[]>();
  await withJobs(site, since, async (read) => {
    let wanted: Set<string> | undefined;
    for await (const job of read({ command: site.settings.batchCommand, since })) {
      if (job.jobId === undefined) continue;
      wanted ??= new Set(Array.from(taken.newest(), ({ jobId }) => jobId));
      if (wanted.has(job.jobId)) batches.set(job.jobId, job);
    }
    for await (const job of read({ command, since }, 'time')) {
      if (!taken.find(job.clientId ?? '')) continue;
      const own = jobs.get(job.clientId ?? '') ?? [];
      own.push(job);
      jobs.set(job.clientId ?? '', own);
    }
  });
  if (batches.size + jobs.size === 0) return results;
  const claimsOf = new Map<string, KeyedClaim[]>();
  for (const claim of claims) {
    if (!jobs.has(claim.clientId)) continue;
    const own = claimsOf.get(claim.clientId);
    if (own) own.push(claim);
    else claimsOf.set(claim.clientId, [claim]);
  }
  for (const claim of taken.newest()) {
    const { clientId, jobId, due } = claim;
    const batch = batches.get(jobId);
    // Nothing has arrived, as for most claims in the beginning.
    if (!batch && !jobs.has(clientId)) continue;
    const key = `${id}@${due}`;
    const listed = claimsOf.get(clientId) ?? [];
    const known = listed.some((other) => other.key === key) ? listed : [...listed, withKey(claim, key)];
    const own = findJobs(jobs.get(clientId) ?? [], claim, endOf(claim, batch, known));
    const isOver = batch?.put !== undefined;
    let exits: ReadonlyMap<string, number> | undefined;
    const readExits = async (): Promise<ReadonlyMap<string, number> | undefined> => {
      if (isOver) exits ??= parseBatchOutput(await readOutput(site, batch));
      return exits;
    };
    const job = await findOwn(site, own, { claim, key, known, readExits });
    const exit = job?.state === 'done' ? undefined : (await readExits())?.get(key);
    const isDelivered = exit === 0 && areDone(own);
    results.set(clientId, judge({ job, exit, isDelivered, isOver, isSilent: isSilent(epochOf(jobId), now) }));
  }
  return results;
}

/** When the first of these batches was fetched. */
function firstEpochOf(claims: Iterable<TakenClaim>): number {
  let first = Number.POSITIVE_INFINITY;
  for (const { jobId } of claims) first = Math.min(first, epochOf(jobId) ?? first);
  return first;
}

function epochsOf(claims: Iterable<TakenClaim>): number[] {
  const epochs: number[] = [];
  for (const { jobId } of claims) {
    const epoch = epochOf(jobId);
    if (epoch !== undefined) epochs.push(epoch);
  }
  return epochs;
}

/** A claim of a client, with all of its claims of the same command. */
interface Told {
  claim: TakenClaim;
  key: string;
  known: readonly KeyedClaim[];
  /** Reads the exit codes in the output of the batch, by key; undefined before it has ended. */
  readExits: () => Promise<ReadonlyMap<string, number> | undefined>;
}

/** Batches that a client fetched within this many seconds may have run at the same time. */
const OVERLAP = 3600;

/**
 * Finds, among the runs of a command in a batch, the one whose run record names the assignment. For
 * clients that do not record the assignment, runs are matched in the order in which they were
 * handed out, unless it is unclear which runs are missing, or whether another batch of the client
 * started some of them: an assignment that was not run must not count as done.
 */
async function findOwn(site: Site, jobs: readonly Job[], told: Told): Promise<Job | undefined> {
  const { claim, key, known, readExits } = told;
  const keys = known
    .filter(({ jobId }) => jobId === claim.jobId)
    .sort((a, b) => a.position - b.position)
    .map((other) => other.key);
  // The run record of an only run need not be read.
  const isOnly = known.length === 1 || (keys.length === 1 && jobs[0]?.outerId !== undefined);
  if (jobs.length === 0 || (jobs.length === 1 && isOnly)) return jobs[0];
  const names = await Promise.all(jobs.map((job) => readAssignment(site, job)));
  if (names.some((name) => name !== undefined)) return jobs[names.indexOf(key)];
  const exits = await readExits();
  const began = epochOf(claim.jobId) ?? 0;
  const isAlone = known.every(
    ({ jobId }) => jobId === claim.jobId || Math.abs((epochOf(jobId) ?? 0) - began) > OVERLAP,
  );
  // Runs that ended with 0 were delivered; until the output of the batch arrives, all of them must
  // have been.
  const delivered = exits ? keys.filter((other) => exits.get(other) === 0) : isAlone ? keys : [];
  const put = jobs.filter((job) => job.put !== undefined);
  return put.length === delivered.length ? put[delivered.indexOf(key)] : undefined;
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
  return findJobIdTime(jobId);
}

/**
 * When the batch of a claim ended or, if its output never arrived, when the client fetched the next
 * one, in seconds since 1970.
 */
function endOf({ jobId }: TakenClaim, batch: Job | undefined, known: readonly TakenClaim[]): number {
  if (batch?.put) return batch.at.getTime() / 1000 + 1;
  const began = epochOf(jobId) ?? 0;
  return Math.min(...epochsOf(known).filter((epoch) => epoch > began), Number.POSITIVE_INFINITY);
}

/**
 * The jobs of a command that the batch of a claim started, in order. Current clients record which
 * job started another; for an original client, these are the jobs that began while the batch ran.
 */
function findJobs(jobs: readonly Job[], { jobId }: TakenClaim, endedAt: number): Job[] {
  const told = jobs.filter(({ outerId }) => outerId === jobId);
  const epoch = epochOf(jobId);
  if (told.length > 0 || epoch === undefined) return sortByStart(told);
  const meanwhile = jobs.filter((job) => {
    const began = startOf(job);
    return job.outerId === undefined && began !== undefined && began >= epoch && began <= endedAt;
  });
  return sortByStart(meanwhile);
}

function startOf({ jobId }: Job): number | undefined {
  return jobId === undefined ? undefined : epochOf(jobId);
}

/** Sorts jobs by their start; those of the same second stay in the order in which they ended. */
function sortByStart(jobs: readonly Job[]): Job[] {
  return jobs.toSorted((a, b) => (startOf(a) ?? 0) - (startOf(b) ?? 0));
}

/** Whether these are jobs of an original client, and each that was delivered is done. */
function areDone(jobs: readonly Job[]): boolean {
  const put = jobs.filter((job) => job.put !== undefined);
  return put.length > 0 && put.every(({ state, outerId }) => state === 'done' && outerId === undefined);
}

/** The facts about one claim that decide its state. */
interface Facts {
  job: Job | undefined;
  /** The exit code of the client's webjob, from the output of its batch. */
  exit: number | undefined;
  /** Whether an original client delivered a job for the claim, and all of its jobs are done. */
  isDelivered: boolean;
  /** Whether the output of the claim's batch has arrived. */
  isOver: boolean;
  isSilent: boolean;
}

function judge({ job, exit, isDelivered, isOver, isSilent }: Facts): Result {
  if (job?.state === 'done') return { state: 'done', job };
  if (!job && isDelivered) return { state: 'done' };
  if (job && job.state !== 'got') return { state: 'failed', job };
  if (exit !== undefined && exit > 0) return { state: 'failed', webjobExit: exit, ...(job && { job }) };
  return { state: isOver || isSilent ? 'lost' : 'fetched', ...(job && { job }) };
}

/** The state of a claim for which nothing has arrived. */
function stateOfSilent({ due, jobId }: TakenClaim, now: number): ClientState {
  // A claim is never older than its due time, and most are recent.
  return now - due > LOST_AFTER && isSilent(epochOf(jobId), now) ? 'lost' : 'fetched';
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
