// Results that differ from those of the run before: noted as jobs arrive, so that the overview of a
// large site need not compare anything.
import { type Job, uploadBytes } from '../ledger/job.ts';
import { findEarlier } from '../ledger/scan.ts';
import type { Site } from '../ledger/site.ts';
import type { Database } from '../ledger/sqlite.ts';
import { readJoined } from '../ledger/writer.ts';
import { digestOutputs } from './digests.ts';

const TABLES = `
CREATE TABLE IF NOT EXISTS view_changes (
  job TEXT PRIMARY KEY, at TEXT NOT NULL, client TEXT NOT NULL, command TEXT NOT NULL, earlier TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS view_changes_at ON view_changes (at);
`;
/** One request compares this many new jobs; the next request continues. */
const AT_ONCE = 50;
/** With a new index, this many of the newest jobs are compared. */
const AT_FIRST = 2000;
const KEEP_MS = 7 * 86_400_000;
/** Larger uploads are compared only on the page of their client. */
const MAX_BYTES = 4 * 1024 * 1024;
/** How long comparing may take. */
const LIMIT_MS = 10;

export interface Change {
  job: string;
  at: string;
  client: string;
  command: string;
  /** The run before. */
  earlier: string;
}

/** Compares new jobs with the runs before. The database must be open for writing. */
export async function noteChanges(database: Database, site: Site): Promise<void> {
  database.exec(TABLES);
  const newest = Number(database.prepare('SELECT max(id) AS id FROM jobs').get()?.id ?? 0);
  const known = database.prepare("SELECT value FROM facts WHERE name = 'viewCompared'").get()?.value;
  const from = known === undefined ? newest - AT_FIRST : Number(known);
  if (from >= newest) return;
  const rows = database
    .prepare('SELECT id, state, lines, joined FROM jobs WHERE id > ? ORDER BY id LIMIT ?')
    .all(from, AT_ONCE) as unknown as { id: number; state: string; lines: string; joined: string }[];
  const deadline = performance.now() + LIMIT_MS;
  const found: Change[] = [];
  let to = from;
  for (const row of rows) {
    const { job } = readJoined(site, row);
    const earlier = isResult(job) ? findEarlier(database, site, job) : undefined;
    if (earlier && (await differ(database, site, earlier, job))) found.push(changeOf(earlier, job));
    to = row.id;
    if (performance.now() > deadline) break;
  }
  if (to > from) save(database, found, to);
}

const isResult = ({ state, jobId, group, clientId, command }: Job): boolean =>
  (state === 'done' || state === 'failed') && [jobId, group, clientId, command].every((part) => part !== undefined);

async function differ(database: Database, site: Site, a: Job, b: Job): Promise<boolean> {
  if (a.jobId === undefined || Math.max(uploadBytes(a), uploadBytes(b)) > MAX_BYTES) return false;
  // No deadline: the next request starts after this job.
  const context = { database, site, deadline: Number.POSITIVE_INFINITY };
  const [before, after] = await digestOutputs(context, [a, b]);
  return typeof before === 'object' && typeof after === 'object' && before.sha256 !== after.sha256;
}

function changeOf(earlier: Job, { jobId = '', at, clientId = '', command = '' }: Job): Change {
  return { job: jobId, at: at.toISOString(), client: clientId, command, earlier: earlier.jobId ?? '' };
}

function save(database: Database, found: readonly Change[], to: number): void {
  database.exec('BEGIN IMMEDIATE');
  const insert = database.prepare('INSERT OR REPLACE INTO view_changes VALUES (?, ?, ?, ?, ?)');
  for (const { job, at, client, command, earlier } of found) insert.run(job, at, client, command, earlier);
  database.prepare('DELETE FROM view_changes WHERE at < ?').run(new Date(Date.now() - KEEP_MS).toISOString());
  database.prepare("INSERT OR REPLACE INTO facts VALUES ('viewCompared', ?)").run(String(to));
  database.exec('COMMIT');
}

/** Returns the newest changes since a time, at most `limit`, and the number of all of them. */
export function readChanges(database: Database, since: Date, limit: number): { count: number; changes: Change[] } {
  database.exec(TABLES);
  const at = since.toISOString();
  const changes = database
    .prepare('SELECT job, at, client, command, earlier FROM view_changes WHERE at >= ? ORDER BY at DESC LIMIT ?')
    .all(at, limit) as unknown as Change[];
  const { count } = database.prepare('SELECT count(*) AS count FROM view_changes WHERE at >= ?').get(at) ?? {};
  return { count: Number(count), changes };
}
