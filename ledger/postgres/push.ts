// Pushes the changes of a store to a database of many sites: each change once, even when this
// process, the server or the connection fails. The database notes pushed changes in the same
// transaction as the rows, and only then does the store forget them; rows that are pushed twice
// after a failure replace the first ones.
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { Client } from 'pg';
import { formatTime } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { beginTelling, type Change, countChanges, endChanges, nextChanges, readTold } from '../changes.ts';
import { columnValue, FIELDS } from '../fields.ts';
import type { Site } from '../site.ts';
import type { Database } from '../sqlite.ts';
import { rankOf, readJoined, readLocker } from '../writer.ts';
import { type Cell, copyInto, formatRow } from './copy.ts';
import { JOB_COLUMNS, NO_TIME } from './schema.ts';

export interface Pushed {
  /** The number of rows of jobs that were written. */
  jobs: number;
  /** The number of clients whose sums were written. */
  clients: number;
  /** Whether everything was pushed, and not only the changes. */
  isAll: boolean;
}

/** The number of units, and of rows, in one transaction. */
const UNITS = 5000;
const ROWS = 10_000;

/**
 * The name of the site in the database, and the facts that readers of the database need about the
 * site.
 */
interface Target {
  client: Client;
  name: string;
  site: Site;
}

/**
 * Pushes all changes of a store that is up to date. Throws Failure `failed` when another
 * process is pushing the site or the name belongs to another site, and the errors of the server.
 */
export async function push(database: Database, target: Target, advance: (jobs: number) => void): Promise<Pushed> {
  const { client, name } = target;
  await lockSite(client, name);
  const state = await begin(database, target);
  const done: Pushed = { jobs: 0, clients: 0, isAll: state.isAll };
  while (state.scanned < state.lastRow) {
    const jobs = await tellRows(database, target, state);
    done.jobs += jobs;
    advance(jobs);
  }
  for (;;) {
    const units = nextChanges(database, 'unit', UNITS);
    if (units.length === 0) break;
    const jobs = await tellUnits(database, target, state, units);
    endChanges(database, 'unit', units);
    done.jobs += jobs;
    advance(jobs);
  }
  for (;;) {
    const clients = nextChanges(database, 'client', UNITS);
    if (clients.length === 0) break;
    await tellClients(database, target, state, clients);
    endChanges(database, 'client', clients);
    done.clients += clients.length;
  }
  await end(database, target, state);
  return done;
}

/**
 * Locks the site until the connection ends. Throws Failure `failed` while another process pushes or
 * removes the site.
 */
async function lockSite(client: Client, name: string): Promise<void> {
  const { rows } = await client.query('SELECT pg_try_advisory_lock(hashtext($1)) AS mine', [`webjob.push ${name}`]);
  if (!rows[0]?.mine)
    throw new Failure('failed', `another webjobctl is pushing the site ${name}`, 'try again when it has ended');
}

interface State {
  siteId: number;
  telling: string;
  /** Whether the database has no rows of an earlier push that a new row could replace. */
  isEmpty: boolean;
  isAll: boolean;
  /**
   * The number of the last pushed row among those up to `lastRow`, which existed when this push
   * began.
   */
  scanned: number;
  lastRow: number;
}

async function begin(database: Database, { client, name, site }: Target): Promise<State> {
  const { rows: facts } = await client.query("SELECT value FROM webjob.facts WHERE name = 'database'");
  const databaseId = String(facts[0]?.value);
  const known = await findSite(client, name, site);
  let told = readTold(database);
  const goesOn =
    told?.database === databaseId &&
    told.telling === known.telling &&
    // A database that was restored from a backup may lack rows that were pushed to it.
    told.number <= known.number;
  if (!told || !goesOn) {
    const telling = randomUUID();
    const reset = 'UPDATE webjob.sites SET telling = $2, number = 0, scanned = 0, is_complete = false WHERE id = $1';
    await client.query(reset, [known.siteId, telling]);
    told = beginTelling(database, { database: databaseId, telling });
  }
  const { telling, lastRow } = told;
  const { rows } = await client.query(
    `SELECT NOT EXISTS (SELECT FROM webjob.jobs WHERE site_id = $1 AND telling <> $2) AS is_empty, is_complete, scanned
     FROM webjob.sites WHERE id = $1`,
    [known.siteId, telling],
  );
  const [{ is_empty: isEmpty, is_complete: isComplete, scanned } = {}] = rows;
  return { siteId: known.siteId, telling, isEmpty, isAll: !isComplete, scanned: Number(scanned), lastRow };
}

async function findSite(
  client: Client,
  name: string,
  site: Site,
): Promise<{ siteId: number; telling: string; number: number }> {
  const settings = describeSite(site);
  const { rows } = await client.query('SELECT id, settings, telling, number FROM webjob.sites WHERE name = $1', [name]);
  const [known] = rows;
  if (!known) {
    const added = await client.query('INSERT INTO webjob.sites (name, settings) VALUES ($1, $2) RETURNING id', [
      name,
      JSON.stringify(settings),
    ]);
    return { siteId: added.rows[0]?.id, telling: '', number: 0 };
  }
  const before = JSON.parse(known.settings) as SiteSettings;
  if (before.host !== settings.host || before.baseDirectory !== settings.baseDirectory)
    throw new Failure(
      'failed',
      `the site ${name} there is ${before.baseDirectory} on ${before.host}`,
      'choose another name with --as, or remove the other site: webjobctl ledger forget NAME --to URL',
    );
  await client.query('UPDATE webjob.sites SET settings = $2 WHERE id = $1', [known.id, JSON.stringify(settings)]);
  return { siteId: known.id, telling: known.telling, number: Number(known.number) };
}

/** The facts about a site that readers on other machines need. */
export interface SiteSettings {
  host: string;
  baseDirectory: string;
  propertiesFile: string | null;
  incomingDirectory: string;
  putNameFormat: string;
  servers: readonly { serverId: string; logfilesDirectory: string; enableCustody: boolean }[];
}

function describeSite({ settings, servers, propertiesFile }: Site): SiteSettings {
  const { baseDirectory, incomingDirectory, putNameFormat } = settings;
  return {
    host: hostname(),
    baseDirectory,
    propertiesFile: propertiesFile ?? null,
    incomingDirectory,
    putNameFormat,
    servers,
  };
}

/**
 * Pushes the next rows among those that existed when this push began. Only the database records
 * which of them were pushed.
 */
async function tellRows(database: Database, { client, site }: Target, state: State): Promise<number> {
  const { siteId, telling, isEmpty, scanned, lastRow } = state;
  const stored = database
    .prepare('SELECT id, unit, lines, joined FROM jobs WHERE id > ? AND id <= ? ORDER BY id LIMIT ?')
    .all(scanned, lastRow, ROWS) as unknown as StoredRow[];
  const until = stored.length < ROWS ? lastRow : (stored.at(-1)?.id ?? lastRow);
  const { rows, months } = formatRows(stored, site, state);
  await inTransaction(client, async () => {
    await makePartitions(client, months);
    if (!isEmpty)
      await client.query('DELETE FROM webjob.jobs WHERE site_id = $1 AND unit = ANY ($2) AND telling <> $3', [
        siteId,
        [...new Set(stored.map(({ unit }) => unit))],
        telling,
      ]);
    await copyInto(client, 'webjob.jobs', JOB_COLUMNS, rows);
    await client.query('UPDATE webjob.sites SET scanned = $2, told_at = now() WHERE id = $1', [siteId, until]);
  });
  state.scanned = until;
  return rows.length;
}

/** Replaces the rows of some units, and notes how far the push has come. */
async function tellUnits(
  database: Database,
  { client, site }: Target,
  state: State,
  units: readonly Change[],
): Promise<number> {
  const names = units.map(({ name }) => name);
  const stored = database
    .prepare('SELECT id, unit, lines, joined FROM jobs WHERE unit IN (SELECT value FROM json_each(?)) ORDER BY id')
    .all(JSON.stringify(names)) as unknown as StoredRow[];
  const { rows, months } = formatRows(stored, site, state);
  await inTransaction(client, async () => {
    await makePartitions(client, months);
    await client.query('DELETE FROM webjob.jobs WHERE site_id = $1 AND unit = ANY ($2)', [state.siteId, names]);
    await copyInto(client, 'webjob.jobs', JOB_COLUMNS, rows);
    await noteNumber(client, state.siteId, units);
  });
  return rows.length;
}

async function makePartitions(client: Client, months: ReadonlySet<string>): Promise<void> {
  for (const month of months) await client.query('SELECT webjob.make_partition($1::date)', [`${month}-01`]);
}

interface StoredRow {
  id: number;
  unit: string;
  lines: string;
  joined: string;
}

/** Rows in the format of COPY, and the months that they belong to. */
function formatRows(
  stored: readonly StoredRow[],
  site: Site,
  { siteId, telling }: State,
): { rows: string[]; months: Set<string> } {
  const months = new Set<string>();
  const rows = stored.map((row) => {
    const { job, lines } = readJoined(site, row);
    const cells: Cell[] = FIELDS.map((field) => columnValue(field, job, site));
    const at = cells[AT];
    if (typeof at === 'string') months.add(at.slice(0, 7));
    else cells[AT] = NO_TIME;
    const texts = site.settings.useGMT
      ? row.lines
      : lines.map((one) => `${one.log} ${inUtc(one.text, one.at)}`).join('\n');
    const seenAt = job.seenAt?.toISOString() ?? null;
    cells.push(siteId, row.id, row.unit, rankOf(job), seenAt, telling, `[${JSON.stringify(texts)},${row.joined}]`);
    return formatRow(cells);
  });
  return { rows, months };
}

const AT = FIELDS.findIndex(({ column }) => column === 'at');

/** A log line with its time in UTC, because readers may be in other time zones. */
function inUtc(text: string, at: number): string {
  if (at === 0) return text;
  const time = formatTime(new Date(at), true);
  return time + text.slice(time.length);
}

async function tellClients(
  database: Database,
  { client }: Target,
  { siteId, telling }: State,
  clients: readonly Change[],
): Promise<void> {
  const names = clients.map(({ name }) => name);
  const rows = database
    .prepare('SELECT client, seen, counts FROM sums WHERE client IN (SELECT value FROM json_each(?))')
    .all(JSON.stringify(names)) as unknown as { client: string; seen: number | null; counts: string }[];
  await inTransaction(client, async () => {
    await client.query('DELETE FROM webjob.sums WHERE site_id = $1 AND client = ANY ($2)', [siteId, names]);
    const lines = rows.map((row) =>
      formatRow([siteId, row.client, row.seen === null ? null : new Date(row.seen).toISOString(), row.counts, telling]),
    );
    await copyInto(client, 'webjob.sums', ['site_id', 'client', 'seen_at', 'counts', 'telling'], lines);
    await noteNumber(client, siteId, clients);
  });
}

async function noteNumber(client: Client, siteId: number, changes: readonly Change[]): Promise<void> {
  await client.query('UPDATE webjob.sites SET number = greatest(number, $2), told_at = now() WHERE id = $1', [
    siteId,
    changes.at(-1)?.number ?? 0,
  ]);
}

/** Once everything was pushed, removes the rows of an earlier push whose jobs no longer exist. */
async function end(database: Database, { client }: Target, { siteId, telling, isAll }: State): Promise<void> {
  if (countChanges(database) > 0) return;
  const foreignFiles = Number(database.prepare('SELECT sum(foreign_files) AS count FROM folders').get()?.count ?? 0);
  await inTransaction(client, async () => {
    if (isAll)
      for (const table of ['jobs', 'sums'])
        await client.query(`DELETE FROM webjob.${table} WHERE site_id = $1 AND telling <> $2`, [siteId, telling]);
    await client.query('UPDATE webjob.sites SET is_complete = true, locker = $2, told_at = now() WHERE id = $1', [
      siteId,
      JSON.stringify({ ...readLocker(database), foreignFiles }),
    ]);
  });
}

async function inTransaction(client: Client, act: () => Promise<void>): Promise<void> {
  await client.query('BEGIN');
  try {
    await act();
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  }
}

/** Removes all rows of a site; false when there is no site of that name. */
export async function forget(client: Client, name: string): Promise<boolean> {
  let isThere = false;
  await lockSite(client, name);
  await inTransaction(client, async () => {
    const { rows } = await client.query('SELECT id FROM webjob.sites WHERE name = $1 FOR UPDATE', [name]);
    const id = rows[0]?.id;
    isThere = id !== undefined;
    for (const [table, column] of [
      ['jobs', 'site_id'],
      ['sums', 'site_id'],
      ['sites', 'id'],
    ])
      if (isThere) await client.query(`DELETE FROM webjob.${table} WHERE ${column} = $1`, [id]);
  });
  return isThere;
}

/** A site that pushes. */
export interface TellingSite {
  name: string;
  host: string;
  baseDirectory: string;
  /** When it last pushed; undefined during its first push. */
  toldAt: Date | undefined;
  isComplete: boolean;
}

/** The sites in a database, by name. */
export async function listSites(client: Client): Promise<TellingSite[]> {
  const { rows } = await client.query('SELECT name, settings, told_at, is_complete FROM webjob.sites ORDER BY name');
  return rows.map(({ name, settings, told_at: toldAt, is_complete: isComplete }) => {
    const { host, baseDirectory } = JSON.parse(settings) as SiteSettings;
    return { name, host, baseDirectory, toldAt: toldAt ?? undefined, isComplete };
  });
}
