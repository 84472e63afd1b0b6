// The jobs of a site for every command: lists them, finds them by id, counts them by client, or
// follows them as they end.
import { statGroupFile } from 'webjob-locker';
import { findJobIdParts, matchesGlob } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { makeClientFilter } from './groups.ts';
import type { Job, JobState } from './job.ts';
import { type Joined, joinEpisode, LOCKER } from './join.ts';
import type { NameFacts } from './names.ts';
import { Refresh, type Window } from './refresh.ts';
import type { Site } from './site.ts';
import type { Database } from './sqlite.ts';
import { isDatabaseError, openStore, openWindowStore, rollBack, type Store } from './store.ts';
import { ALL_CLIENTS, type LockerTotals, readJoined, readLocker, tally, Writer } from './writer.ts';

export interface JobFilter {
  since?: Date | undefined;
  until?: Date | undefined;
  /** Client ids, `*` and `?` globs, and groups, separated by commas. */
  client?: string | undefined;
  command?: string | undefined;
  states?: readonly JobState[] | undefined;
  /** Only jobs that this job started, directly or through other jobs. */
  outer?: string | undefined;
}

/**
 * Yields the jobs, by default in the order in which they ended, then uploads without a log line,
 * then jobs that have not ended. The GET of a job may be older than `since`. Throws Failure
 * `failed`.
 */
export async function* readJobs(
  site: Site,
  filter: JobFilter = {},
  advance?: () => void,
  order: JobOrder = 'end',
): AsyncGenerator<Job> {
  if (site.remote) {
    for await (const { job } of site.remote.readJobs([site], filter, order)) yield job;
    return;
  }
  const store = await openStore(site, windowOf(site, filter), advance ? { advance } : {});
  try {
    yield* queryJobs(store, site, filter, ORDERS[order]);
  } finally {
    store.close();
  }
}

/** Yields jobs as readJobs() does. */
export type ReadJobs = (filter: JobFilter, order?: JobOrder) => Iterable<Job> | AsyncIterable<Job>;

/** Opens the store for several queries about the jobs since a time. Throws Failure `failed`. */
export async function withJobs<Result>(
  site: Site,
  since: Date,
  use: (read: ReadJobs) => Promise<Result>,
): Promise<Result> {
  if (site.remote) return await use((filter, order) => readJobs(site, filter, undefined, order));
  const store = await openStore(site, { since });
  try {
    return await use((filter, order = 'end') => queryJobs(store, site, filter, ORDERS[order]));
  } finally {
    store.close();
  }
}

const DAY_MS = 86_400_000;
/**
 * Without a store, how many days back the first and the second search go; the third search reads
 * everything.
 */
const LOOKS_DAYS = [2, 30];

/** The newest jobs that match the filter, in order of time. */
export async function readNewest(
  site: Site,
  filter: JobFilter,
  isWanted: (job: Job) => boolean,
  limit: number,
): Promise<Job[]> {
  if (site.remote) return (await site.remote.readNewest([site], filter, isWanted, limit)).map(({ job }) => job);
  const until = filter.until ?? new Date();
  for (const days of [...LOOKS_DAYS, undefined]) {
    const since = days === undefined ? filter.since : new Date(until.getTime() - days * DAY_MS);
    if (days !== undefined && since && filter.since && since <= filter.since) continue;
    const store = await openStore(site, windowOf(site, { ...filter, since }));
    try {
      const found: Job[] = [];
      for (const job of queryJobs(store, site, filter, NEWEST)) {
        if (!isWanted(job)) continue;
        found.push(job);
        if (found.length === limit) break;
      }
      const oldest = found.at(-1);
      // A job of the first day may lack its GET, which may be from the day before.
      const isEnough = found.length === limit && oldest && since && oldest.at.getTime() > since.getTime() + DAY_MS;
      if (store.isComplete || days === undefined || isEnough) return found.reverse();
    } finally {
      store.close();
    }
  }
  return [];
}

/** How far a server's clock may have been set back between a job id and its log line. */
const CLOCK_SECONDS = 3600;
export const MAX_FOUND = 1000;

/**
 * Finds the jobs whose id is `part`, or begins or ends with it. `part` is in the escaped form of
 * the log. Throws Failure `failed`.
 */
export async function findJobs(site: Site, part: string, client: string | undefined): Promise<Job[]> {
  if (site.remote) return await site.remote.findJobs(site, part, client);
  const epoch = findJobIdParts(part)?.epochSeconds;
  const since = epoch === undefined ? undefined : new Date((epoch - CLOCK_SECONDS) * 1000);
  // Most questions need only the part of the log around the time in a complete job id.
  const windows: Window[] = [...(since ? [{ contains: part, since, logOnly: true }] : []), { contains: part }];
  for (const window of windows) {
    const store = await openStore(site, window);
    try {
      const found = queryId(store, site, part).filter(makeNameFilter(site, { client }));
      const isFound = found.length > 0 && found.every(({ state }) => state !== 'got' && state !== 'missing');
      // A GET without an answer may have files that the log does not mention.
      if (store.isComplete || isFound || window === windows.at(-1)) return found;
    } finally {
      store.close();
    }
  }
  return [];
}

/** The sums over the jobs of a client. */
export interface ClientTotals {
  states: Map<string, number>;
  /** The number of refused jobs that others requested in the client's name. */
  foreign: number;
  received: number;
  sent: number;
  /**
   * When the server last answered the client with success. Refused requests do not count, because
   * anyone can send them.
   */
  seenAt: Date | undefined;
}

/** The sums over all clients. */
export interface Totals extends ClientTotals {
  /** The number of requests by `METHOD status`. */
  requests: Map<string, number>;
}

export interface Sums {
  all: Totals;
  clients: Map<string, ClientTotals>;
}

/** Sums up the jobs of a site by client. Throws Failure `failed`. */
export async function readSums(site: Site, filter: JobFilter = {}, advance?: () => void): Promise<Sums> {
  if (site.remote) return await site.remote.readSums(site, filter);
  const isPlain = !filter.since && !filter.until && !filter.command && !filter.states;
  const store = await openStore(site, windowOf(site, filter), advance ? { advance } : {});
  try {
    return isPlain && store.isComplete
      ? readAllSums(store.database, site, filter)
      : sumUp(queryJobs(store, site, filter));
  } finally {
    store.close();
  }
}

/** A site in numbers. */
export interface Measures {
  all: Totals;
  /**
   * The number of clients that the server has answered with success, and the most recent of them,
   * newest first.
   */
  clients: number;
  lastSeen: readonly [clientId: string, at: Date][];
  locker: LockerTotals & {
    /** The number of foreign files. */
    foreignFiles: number;
  };
}

/**
 * Sums up the jobs and uploads of a site, with at most `mostClients` clients. Throws Failure
 * `failed`.
 */
export async function readMeasures(site: Site, mostClients: number): Promise<Measures> {
  if (site.remote) return await site.remote.readMeasures(site, mostClients);
  const { database, close } = await openStore(site, {});
  try {
    const isSeen = "FROM sums WHERE client <> '' AND seen IS NOT NULL";
    const rows = database.prepare(`SELECT client, seen ${isSeen} ORDER BY seen DESC LIMIT ?`).all(mostClients);
    const foreignFiles = Number(database.prepare('SELECT sum(foreign_files) AS count FROM folders').get()?.count ?? 0);
    return {
      all: readTotals(database),
      clients: Number(database.prepare(`SELECT count(*) AS count ${isSeen}`).get()?.count),
      lastSeen: rows.map(({ client, seen }) => [client as string, new Date(seen as number)]),
      locker: { ...readLocker(database), foreignFiles },
    };
  } finally {
    close();
  }
}

/** Yields jobs as they end, indefinitely; with `since`, first those that have already ended. */
export async function* watchJobs(site: Site, filter: JobFilter, onFollow: () => void): AsyncGenerator<Job> {
  const isWanted = makeFilter(site, filter);
  const since = filter.since ?? new Date(Date.now() - 60_000);
  const database = openWindowStore();
  try {
    const refresh = new Refresh(database, site);
    let isNew = filter.since !== undefined;
    const follow = (): void => {
      isNew = true;
      onFollow();
    };
    for await (const ended of refresh.follow(since, follow)) {
      if (!isNew) continue;
      for (const id of ended) {
        const row = database.prepare('SELECT lines, joined FROM jobs WHERE id = ?').get(id) as unknown as
          | Row
          | undefined;
        const job = row && readJoined(site, row).job;
        if (job && isWanted(job)) yield job;
      }
    }
  } finally {
    database.close();
  }
}

interface Row {
  lines: string;
  joined: string;
}

/**
 * Jobs that ended at the same time are ordered by when they began: a job id contains the second,
 * followed by a counter of any length (docs/protocol.md, section 5).
 */
export const BY_ID = ["rtrim(job_id, '0123456789')", 'length(job_id)', 'job_id', 'client', 'command'];
const OLDEST = ['rank', 'at', ...BY_ID].join(', ');
const BY_TIME = ['at', 'rank', ...BY_ID].join(', ');
const NEWEST = ['at', 'rank', ...BY_ID].map((column) => `${column} DESC`).join(', ');

/**
 * The order of jobs: by their end; by the newest event of each; or by client or command, and then
 * by time.
 */
export type JobOrder = 'end' | 'time' | 'client' | 'command';

const ORDERS: Record<JobOrder, string> = {
  end: OLDEST,
  time: BY_TIME,
  client: `client, ${BY_TIME}`,
  command: `command, ${BY_TIME}`,
};

function* queryJobs(store: Store, site: Site, filter: JobFilter, order = ORDERS.end): Generator<Job> {
  const { database } = store;
  const [where, values] = conditionsOf(site, filter);
  const isWanted = makeFilter(site, filter);
  const gone = new Set<string>();
  const outer = filter.outer === undefined ? undefined : findInner(database, filter.outer);
  try {
    for (const row of readRows(() =>
      database.prepare(`SELECT lines, joined FROM jobs ${where} ORDER BY ${order}`).iterate(...values),
    )) {
      const { job } = recheck(store, site, readJoined(site, row as unknown as Row), gone);
      if (isWanted(job) && (!outer || outer.has(job.jobId ?? ''))) yield job;
    }
  } finally {
    // Most callers want the newest few and stop the iteration here.
    noteGone(store, site, gone);
  }
}

/**
 * Yields rows. SQLite may find damage after some rows were yielded, when it is too late to read the
 * files instead.
 */
function* readRows(iterate: () => Iterable<unknown>): Generator<unknown> {
  try {
    yield* iterate();
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    const hint = 'webjobctl index --rebuild makes it again; without it the log and the locker are read';
    throw new Failure('failed', `the index is damaged: ${(error as Error).message}`, hint, { cause: error });
  }
}

function queryId(store: Store, site: Site, part: string): Job[] {
  const { database } = store;
  const exact = database.prepare('SELECT lines, joined FROM jobs WHERE unit = ?').all(part);
  const rows =
    exact.length > 0
      ? exact
      : database
          .prepare(
            'SELECT lines, joined FROM jobs WHERE id IN (SELECT id FROM jobs WHERE substr(unit, 1, ?1) = ?2 OR substr(unit, -?1) = ?2) LIMIT ?3',
          )
          .all(part.length, part, MAX_FOUND);
  const gone = new Set<string>();
  const jobs = rows.map((row) => recheck(store, site, readJoined(site, row as unknown as Row), gone).job);
  noteGone(store, site, gone);
  return jobs.filter(({ jobId }) => jobId?.startsWith(part) || jobId?.endsWith(part));
}

/** The ids of all jobs that a job started, directly or through other jobs. */
function findInner(database: Database, outer: string): Set<string> {
  const rows = database
    .prepare(
      `WITH RECURSIVE inner_jobs (job_id) AS (
         SELECT ? UNION SELECT jobs.job_id FROM jobs JOIN inner_jobs ON jobs.outer_id = inner_jobs.job_id
       ) SELECT job_id FROM inner_jobs`,
    )
    .all(outer);
  return new Set(rows.map(({ job_id: jobId }) => jobId as string));
}

function conditionsOf(site: Site, { since, until, client }: JobFilter): [where: string, values: string[]] {
  const parts: [string, string][] = [];
  if (since) parts.push(['at >= ?', since.toISOString()]);
  if (until) parts.push(['at <= ?', until.toISOString()]);
  const exact = client === undefined ? undefined : makeClientFilter(site, client).exact;
  if (exact !== undefined) parts.push(['client = ?', exact]);
  const where = parts.length > 0 ? `WHERE ${parts.map(([condition]) => condition).join(' AND ')}` : '';
  return [where, parts.map(([, value]) => value)];
}

/** Checks a job again: its upload may have been removed since the store was brought up to date. */
function recheck({ isComplete }: Store, site: Site, joined: Joined, gone: Set<string>): Joined {
  if (!isComplete) return joined;
  const locker = site.settings.incomingDirectory;
  const left = joined.uploads.filter(({ name, place, has }) => {
    if (place !== LOCKER || !has.has('rdy')) return true;
    if (statGroupFile(locker, name, 'rdy')) return true;
    gone.add(name);
    return false;
  });
  return left.length === joined.uploads.length ? joined : joinEpisode(joined.lines, left);
}

/** Records the uploads that were found missing, so that the next caller need not check again. */
function noteGone({ database, isShared }: Store, site: Site, gone: ReadonlySet<string>): void {
  if (gone.size === 0 || !isShared) return;
  try {
    database.exec('BEGIN IMMEDIATE');
    const writer = new Writer(database, site);
    for (const name of gone) writer.remove(name, LOCKER);
    writer.settle();
    database.exec('COMMIT');
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    rollBack(database);
  }
}

function readAllSums(database: Database, site: Site, { client }: JobFilter): Sums {
  const isClient = makeNameFilter(site, { client });
  const clients = new Map<string, ClientTotals>();
  const rows = database.prepare("SELECT client, seen, counts FROM sums WHERE client NOT IN ('', ?)");
  // Reading rows as objects would take half as long again.
  rows.setReturnArrays(true);
  for (const [clientId, seen, counts] of rows.all(ALL_CLIENTS) as unknown as [string, number | null, string][])
    if (client === undefined || isClient({ clientId })) clients.set(clientId, totalsOfRow({ seen, counts }));
  return { all: readTotals(database), clients };
}

/** The totals of a client in a store; undefined when the store does not know the client. */
export function readClient(database: Database, clientId: string): ClientTotals | undefined {
  if (clientId === ALL_CLIENTS) return undefined;
  const row = database.prepare('SELECT seen, counts FROM sums WHERE client = ?').get(clientId);
  return row && totalsOfRow(row as unknown as SumsRow);
}

interface SumsRow {
  client: string;
  seen: number | null;
  counts: string;
}

function totalsOfRow({ seen, counts }: Pick<SumsRow, 'seen' | 'counts'>): ClientTotals {
  const totals = makeClientTotals();
  addCounts(totals, counts);
  if (seen !== null) totals.seenAt = new Date(seen);
  return totals;
}

/** Lists clients by name: those after `after` whose names match a glob. */
export function listClients(
  database: Database,
  { after = '', glob }: { after?: string | undefined; glob?: string | undefined },
  limit: number,
): [clientId: string, totals: ClientTotals][] {
  const rows = database
    .prepare(
      'SELECT client, seen, counts FROM sums WHERE client > ? AND client <> ? AND client GLOB ? ORDER BY client LIMIT ?',
    )
    .all(after, ALL_CLIENTS, (glob ?? '*').replaceAll('[', '[[]'), limit) as unknown as SumsRow[];
  return rows.map((row) => [row.client, totalsOfRow(row)]);
}

/**
 * Lists at most `limit` clients that the server has not answered with success since a time, longest
 * silent first, and their total number.
 */
export function listSilent(
  database: Database,
  before: Date,
  limit: number,
): { count: number; clients: [clientId: string, seenAt: Date][] } {
  const isSilent = "FROM sums WHERE client NOT IN ('', ?) AND seen < ?";
  const values = [ALL_CLIENTS, before.getTime()] as const;
  const rows = database.prepare(`SELECT client, seen ${isSilent} ORDER BY seen LIMIT ?`).all(...values, limit);
  return {
    count: Number(database.prepare(`SELECT count(*) AS count ${isSilent}`).get(...values)?.count),
    clients: rows.map(({ client, seen }) => [client as string, new Date(seen as number)]),
  };
}

/** The number of jobs in a store. */
export function countJobs(database: Database): number {
  return [...readTotals(database).states.values()].reduce((sum, count) => sum + count, 0);
}

/** The sums over all clients of a store. */
export function readTotals(database: Database): Totals {
  const totals = makeTotals();
  const row = database.prepare('SELECT counts FROM sums WHERE client = ?').get(ALL_CLIENTS);
  if (row) addCounts(totals, row.counts as string);
  return totals;
}

export function sumUp(jobs: Iterable<Job>): Sums {
  const sums: Sums = { all: makeTotals(), clients: new Map() };
  for (const job of jobs) {
    const add = (name: string, value: number): void => {
      addSum(sums.all, name, value);
      if (job.clientId !== undefined) addSum(totalsOf(sums, job.clientId), name, value);
    };
    tally(job, add);
    if (job.seenAt) add('seen', job.seenAt.getTime());
  }
  return sums;
}

function totalsOf({ clients }: Sums, clientId: string): ClientTotals {
  const known = clients.get(clientId) ?? makeClientTotals();
  clients.set(clientId, known);
  return known;
}

/** The totals of a client without any jobs. */
export function makeClientTotals(): ClientTotals {
  return { states: new Map(), foreign: 0, received: 0, sent: 0, seenAt: undefined };
}

export function makeTotals(): Totals {
  return { ...makeClientTotals(), requests: new Map() };
}

/** Adds the stored counts of a client: a name, a tab and a number on each line. */
export function addCounts(totals: ClientTotals | Totals, counts: string): void {
  for (let start = 0; start < counts.length; ) {
    const tab = counts.indexOf('\t', start);
    const end = counts.indexOf('\n', tab);
    addSum(totals, counts.slice(start, tab), Number(counts.slice(tab + 1, end)));
    start = end + 1;
  }
}

function addSum(totals: ClientTotals | Totals, name: string, value: number): void {
  if (name.startsWith('state ')) add(totals.states, name.slice(6), value);
  else if (name.startsWith('request ')) {
    if ('requests' in totals) add(totals.requests, name.slice(8), value);
  } else if (name === 'seen') totals.seenAt = new Date(Math.max(totals.seenAt?.getTime() ?? 0, value));
  else if (name === 'foreign' || name === 'received' || name === 'sent') totals[name] += value;
}

function add(map: Map<string, number>, name: string, value: number): void {
  map.set(name, (map.get(name) ?? 0) + value);
}

function windowOf(site: Site, { since, client }: JobFilter): Window {
  if (client === undefined) return { since };
  const isClient = makeNameFilter(site, { client });
  return { since, isClient: (clientId) => isClient({ clientId }) };
}

export function makeFilter(site: Site, filter: JobFilter): (job: Job) => boolean {
  const { since, until, states } = filter;
  const isNamed = makeNameFilter(site, filter);
  return (job) =>
    (!since || job.at >= since) &&
    (!until || job.at <= until) &&
    (!states || states.includes(job.state)) &&
    isNamed(job);
}

export function makeNameFilter(
  site: Site,
  { client, command }: Pick<JobFilter, 'client' | 'command'>,
): (facts: NameFacts) => boolean {
  const clients = client === undefined ? undefined : makeClientFilter(site, client);
  return ({ clientId, command: name }) =>
    (clients === undefined || clients.includes(clientId)) &&
    (command === undefined || matchesGlob(command, name ?? '-'));
}
