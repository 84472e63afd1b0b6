// Jobs from a given place on, for lists in pages. Conditions without an index are checked row by
// row, so that the caller can stop after a number of rows or a time.
import type { Job, JobState } from './job.ts';
import { type Condition, joinConditions, type Plan, planScan, type ScanFilter, valuesOf } from './narrow.ts';
import type { Site } from './site.ts';
import type { Database } from './sqlite.ts';
import { readJoined } from './writer.ts';

/** The indexes that a store needs for lists in pages, in addition to the ledger's own. */
const SCAN_INDEXES = `
CREATE INDEX IF NOT EXISTS scan_client ON jobs (client, at DESC);
CREATE INDEX IF NOT EXISTS scan_client_command ON jobs (client, command, at DESC);
CREATE INDEX IF NOT EXISTS scan_command ON jobs (command, at DESC);
CREATE INDEX IF NOT EXISTS scan_command_client ON jobs (command, client, at DESC);
CREATE INDEX IF NOT EXISTS scan_state ON jobs (state, at DESC);
CREATE INDEX IF NOT EXISTS scan_days ON jobs (at, state, put_bytes_received);
CREATE INDEX IF NOT EXISTS scan_exit ON jobs (exit_code, at DESC) WHERE exit_code <> 0;
CREATE INDEX IF NOT EXISTS scan_seen ON sums (seen);
`;

/**
 * Sums of the jobs of each hour (UTC) by state, kept by triggers, so that the sums of a day can be
 * computed without reading every job.
 */
const HOURS = `
CREATE TABLE scan_hours (
  hour TEXT NOT NULL, state TEXT NOT NULL, count INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (hour, state)
) WITHOUT ROWID;
INSERT INTO scan_hours
  SELECT substr(at, 1, 13), state, count(*), total(put_bytes_received) FROM jobs GROUP BY substr(at, 1, 13), state;
CREATE TRIGGER scan_hours_new AFTER INSERT ON jobs BEGIN
  INSERT INTO scan_hours VALUES (substr(NEW.at, 1, 13), NEW.state, 1, coalesce(NEW.put_bytes_received, 0))
    ON CONFLICT DO UPDATE SET count = count + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER scan_hours_gone AFTER DELETE ON jobs BEGIN
  UPDATE scan_hours SET count = count - 1, bytes = bytes - coalesce(OLD.put_bytes_received, 0)
    WHERE hour = substr(OLD.at, 1, 13) AND state = OLD.state;
END;
`;

/** Makes the indexes and sums for pages. Must not be called in a transaction. */
export function makeScanIndexes(database: Database): void {
  database.exec(SCAN_INDEXES);
  if (hasHours(database)) return;
  database.exec('BEGIN IMMEDIATE');
  try {
    // Another process may have made them meanwhile.
    if (!hasHours(database)) database.exec(HOURS);
    database.exec('COMMIT');
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}

function hasHours(database: Database): boolean {
  return database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'scan_hours_gone'").get() !== undefined;
}

/**
 * Orders: `time` is newest first; `client`, `command` and `state` group the jobs by that value,
 * newest first within each.
 */
export const SCAN_ORDERS = ['time', 'oldest', 'client', 'command', 'state'] as const;
export type ScanOrder = (typeof SCAN_ORDERS)[number];

export type { ScanFilter };

/** The place of a job in an order: the value that it is ordered by, its time and its row. */
export type ScanKey = readonly [value: string, at: string, id: number];

/** A job that matches the filter or, without a job, the place that the scan has reached. */
export interface Scanned {
  key: ScanKey;
  job: Job | undefined;
}

const COLUMNS = { client: 'client', command: 'command', state: 'state' } as const;

/** The number of rows that are read before the caller can stop the scan. */
const CHUNK_ROWS = 5000;

/**
 * Yields the jobs that match a filter from `after` on, and from time to time the place that the
 * scan has reached, so that the caller can stop and continue there later.
 */
export function* scanJobs(
  database: Database,
  site: Site,
  filter: ScanFilter,
  order: ScanOrder,
  after?: ScanKey,
  chunkRows = CHUNK_ROWS,
): Generator<Scanned> {
  const column = order === 'time' || order === 'oldest' ? undefined : COLUMNS[order];
  const plan = planScan(database, filter, chunkRows);
  if (plan.isNone) return;
  for (let from = after; ; ) {
    let end: ScanKey | undefined;
    for (const segment of segmentsOf(order, column, from)) {
      end = yield* scanChunk(database, site, plan, order, segment, chunkRows);
      if (end) break;
    }
    if (!end) return;
    yield { key: end, job: undefined };
    from = end;
  }
}

/**
 * Yields the matching jobs among the next rows. Returns where these rows end; undefined when they
 * were the last.
 */
function* scanChunk(
  database: Database,
  site: Site,
  { index, indexed, residual }: Plan,
  order: ScanOrder,
  segment: readonly Condition[],
  chunkRows: number,
): Generator<Scanned, ScanKey | undefined> {
  const column = order === 'time' || order === 'oldest' ? "''" : COLUMNS[order];
  const where = [...indexed, ...segment];
  const conditions = where.length > 0 ? `WHERE ${joinConditions(where)}` : '';
  const source = `FROM jobs ${index === undefined ? '' : `INDEXED BY ${index}`} ${conditions} ORDER BY ${ORDERS[order]}`;
  const chunk = `SELECT id ${source} LIMIT ${chunkRows}`;
  const wanted = residual.length > 0 ? `WHERE ${joinConditions(residual)}` : '';
  const rows = database
    .prepare(
      `SELECT jobs.id, at, ${column} AS value, lines, joined FROM (${chunk}) AS chunk CROSS JOIN jobs USING (id) ${wanted}`,
    )
    .iterate(...valuesOf(where), ...valuesOf(residual));
  let last: ScanKey | undefined;
  let count = 0;
  for (const row of rows as Iterable<Record<string, string | number | null>>) {
    last = [String(row.value ?? ''), String(row.at ?? ''), Number(row.id)];
    count++;
    const { job } = readJoined(site, { lines: String(row.lines), joined: String(row.joined) });
    yield { key: last, job };
  }
  if (count === chunkRows) return last;
  const end = database
    .prepare(`SELECT id, at, ${column} AS value ${source} LIMIT 1 OFFSET ${chunkRows - 1}`)
    .get(...valuesOf(where));
  return end && [String(end.value ?? ''), String(end.at ?? ''), Number(end.id)];
}

const ORDERS: Record<ScanOrder, string> = {
  time: 'at DESC, id DESC',
  oldest: 'at, id',
  client: 'client, at DESC, id',
  command: 'command, at DESC, id',
  state: 'state, at DESC, id',
};

/**
 * The ranges of rows after a place in an order; several where no index has all rows in one range.
 */
function segmentsOf(order: ScanOrder, column: string | undefined, after: ScanKey | undefined): Condition[][] {
  if (!after) return [[]];
  const [value, at, id] = after;
  if (order === 'time') return [[['(at, id) < (?, ?)', at, id]]];
  if (order === 'oldest' || column === undefined) return [[['(at, id) > (?, ?)', at, id]]];
  return [
    [
      [`${column} = ?`, value],
      ['at <= ? AND (at < ? OR id > ?)', at, at, id],
    ],
    [[`${column} > ?`, value]],
  ];
}

/** The sums of the jobs of a period. */
export interface SpanSums {
  states: Map<JobState, number>;
  /** The size of the accepted uploads in bytes. */
  bytes: number;
}

export function sumSpan(database: Database, since: Date, until: Date): SpanSums {
  const sums: SpanSums = { states: new Map(), bytes: 0 };
  const [first, last] = [Math.ceil(since.getTime() / HOUR_MS), Math.floor(until.getTime() / HOUR_MS)];
  if (first >= last || !hasHours(database)) addJobs(sums, database, since, until);
  else {
    const [from, to] = [new Date(first * HOUR_MS), new Date(last * HOUR_MS)];
    addJobs(sums, database, since, from);
    const hours = 'SELECT state, sum(count) AS count, sum(bytes) AS bytes FROM scan_hours';
    addRows(
      sums,
      database.prepare(`${hours} WHERE hour >= ? AND hour < ? GROUP BY state`).all(hourOf(from), hourOf(to)),
    );
    addJobs(sums, database, to, until);
  }
  return sums;
}

const HOUR_MS = 3_600_000;
/** `2026-11-30T18` */
const hourOf = (date: Date): string => date.toISOString().replace(/:.*$/, '');

function addJobs(sums: SpanSums, database: Database, since: Date, until: Date): void {
  if (since >= until) return;
  const jobs = 'SELECT state, count(*) AS count, total(put_bytes_received) AS bytes FROM jobs';
  const values = [since.toISOString(), until.toISOString()];
  addRows(sums, database.prepare(`${jobs} WHERE at >= ? AND at < ? GROUP BY state`).all(...values));
}

function addRows(sums: SpanSums, rows: readonly Record<string, unknown>[]): void {
  for (const { state, count, bytes } of rows) {
    if (Number(count) === 0) continue;
    sums.states.set(state as JobState, (sums.states.get(state as JobState) ?? 0) + Number(count));
    if (state !== 'refused' && state !== 'incomplete') sums.bytes += Number(bytes);
  }
}

interface JobRow {
  lines: string;
  joined: string;
}

/**
 * The newest job with output of each client of a command, or of each command of a client, by name:
 * at most `limit` after `after`.
 */
export function newestOfEach(
  database: Database,
  site: Site,
  of: { client: string } | { command: string },
  { after = '', limit }: { after?: string | undefined; limit: number },
): Job[] {
  const [fixed, value, each] =
    'client' in of ? (['client', of.client, 'command'] as const) : (['command', of.command, 'client'] as const);
  // One statement takes half the time of two for each name.
  const rows = database
    .prepare(
      `WITH RECURSIVE names (name) AS (
        SELECT min(${each}) FROM jobs WHERE ${fixed} = ?1 AND ${each} > ?2
        UNION ALL
        SELECT (SELECT min(${each}) FROM jobs WHERE ${fixed} = ?1 AND ${each} > name) FROM names WHERE name IS NOT NULL)
      SELECT lines, joined FROM names CROSS JOIN jobs ON jobs.id =
        (SELECT id FROM jobs WHERE ${fixed} = ?1 AND ${each} = name AND state IN ('done', 'failed', 'orphan') ORDER BY at DESC LIMIT 1)
      LIMIT ?3`,
    )
    .all(value, after, limit);
  return rows.map((row) => readJoined(site, row as unknown as JobRow).job);
}

/** The newest earlier job with output of the same client and command. */
export function findEarlier(database: Database, site: Site, job: Job): Job | undefined {
  const { clientId, command, at } = job;
  if (clientId === undefined || command === undefined) return undefined;
  const rows = database
    .prepare(
      "SELECT lines, joined FROM jobs WHERE client = ? AND command = ? AND at <= ? AND state IN ('done', 'failed', 'orphan') ORDER BY at DESC, id DESC LIMIT 20",
    )
    .all(clientId, command, at.toISOString());
  const jobs = rows.map((row) => readJoined(site, row as unknown as JobRow).job);
  const own = jobs.findIndex((other) => isSameJob(other, job));
  return jobs.slice(own + 1).find((other) => other.group ?? other.packed);
}

/** The newest job with output of a client and a command up to a time. */
export function findNewestUpTo(
  database: Database,
  site: Site,
  { client, command }: { client: string; command: string },
  until: Date,
): Job | undefined {
  const row = database
    .prepare(
      "SELECT lines, joined FROM jobs WHERE client = ? AND command = ? AND at <= ? AND state IN ('done', 'failed', 'orphan') ORDER BY at DESC, id DESC LIMIT 1",
    )
    .get(client, command, until.toISOString());
  return row && readJoined(site, row as unknown as JobRow).job;
}

function isSameJob(a: Job, b: Job): boolean {
  return a.jobId === b.jobId && a.at.getTime() === b.at.getTime() && a.group?.name === b.group?.name;
}

const MAX_SAME = 50;

/** The jobs with an id, newest first. */
export function findById(database: Database, site: Site, jobId: string): Job[] {
  const rows = database
    .prepare('SELECT lines, joined FROM jobs WHERE unit = ? ORDER BY at DESC, id DESC LIMIT ?')
    .all(jobId, MAX_SAME);
  return rows.map((row) => readJoined(site, row as unknown as JobRow).job).filter((job) => job.jobId === jobId);
}

/** The jobs without an id at a time. */
export function findNameless(database: Database, site: Site, at: string): Job[] {
  const rows = database
    .prepare('SELECT lines, joined FROM jobs WHERE at = ? AND job_id IS NULL ORDER BY id LIMIT ?')
    .all(at, MAX_SAME);
  return rows.map((row) => readJoined(site, row as unknown as JobRow).job);
}

/** The jobs that a job started, oldest first. */
export function findChildren(database: Database, site: Site, jobId: string): Job[] {
  const rows = database
    .prepare('SELECT lines, joined FROM jobs WHERE outer_id = ? ORDER BY at, id LIMIT ?')
    .all(jobId, MAX_SAME);
  return rows.map((row) => readJoined(site, row as unknown as JobRow).job);
}

/**
 * The newest job of each command that any client fetched, by name: at most `limit` after `after`.
 */
export function listCommands(database: Database, site: Site, after: string, limit: number): Job[] {
  const next = database.prepare('SELECT min(command) AS name FROM jobs WHERE command > ?');
  const newest = database.prepare('SELECT lines, joined FROM jobs WHERE command = ? ORDER BY at DESC LIMIT 1');
  const jobs: Job[] = [];
  for (let name = after; jobs.length < limit; ) {
    const found = next.get(name)?.name;
    if (found === null || found === undefined) break;
    name = String(found);
    const row = newest.get(name) as unknown as JobRow | undefined;
    if (row) jobs.push(readJoined(site, row).job);
  }
  return jobs;
}
