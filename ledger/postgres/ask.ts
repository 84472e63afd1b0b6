// Answers the questions of ledger/jobs.ts from a database of many sites: the same rows, joined by
// the same code.
import type { Client } from 'pg';
import type { Job } from '../job.ts';
import {
  addCounts,
  BY_ID,
  type ClientTotals,
  type JobFilter,
  type JobOrder,
  MAX_FOUND,
  type Measures,
  makeClientTotals,
  makeFilter,
  makeNameFilter,
  makeTotals,
  type Sums,
  sumUp,
  type Totals,
} from '../jobs.ts';
import type { Remote } from '../remote.ts';
import type { Site } from '../site.ts';
import type { Found } from '../sites.ts';
import { ALL_CLIENTS, joinStored, type LockerTotals } from '../writer.ts';
import { connect, failureOf, requireVersion } from './connect.ts';
import type { SiteSettings } from './push.ts';

/** The number of rows that are fetched in one round trip. */
const FETCH = 1000;

/** A site in the database, whose files are on another machine. */
interface RemoteSite extends Site {
  remote: PostgresLedger;
  id: number;
}

/** Opens a ledger in a database, and the sites in it by name. Throws Failure `failed`. */
export async function openLedger(
  url: string,
  makeSite: (settings: SiteSettings, name: string) => Site,
): Promise<Site[]> {
  const client = await connect(url);
  try {
    await requireVersion(client);
    const { rows } = await client.query('SELECT id, name, settings, is_complete FROM webjob.sites ORDER BY name');
    const remote = new PostgresLedger(url);
    return rows.map(({ id, name, settings }): RemoteSite => {
      const site = makeSite(JSON.parse(settings), name);
      // The log lines were pushed with their times in UTC.
      return { ...site, settings: { ...site.settings, useGMT: true }, label: name, remote, id };
    });
  } catch (error) {
    throw failureOf(error, url);
  } finally {
    await client.end().catch(() => {});
  }
}

const NEWEST_FIRST = ['at', 'rank', ...BY_ID].map((column) => `${column} DESC NULLS LAST`).join(', ');
const first = (columns: readonly string[]): string => columns.map((column) => `${column} ASC NULLS FIRST`).join(', ');
const BY_TIME = ['at', 'rank', ...BY_ID];
const ORDERS: Record<JobOrder, string> = {
  end: first(['rank', 'at', ...BY_ID]),
  time: first(BY_TIME),
  client: first(['client', ...BY_TIME]),
  command: first(['command', ...BY_TIME]),
};

interface Row {
  site_id: number;
  facts: string;
}

class PostgresLedger implements Remote {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  async *readJobs(sites: readonly Site[], filter: JobFilter, order: JobOrder): AsyncGenerator<Found> {
    const isWanted = filterOf(sites, filter);
    for await (const found of this.#scan(sites, filter, ORDERS[order])) if (isWanted(found.job)) yield found;
  }

  async readNewest(
    sites: readonly Site[],
    filter: JobFilter,
    isWanted: (job: Job) => boolean,
    limit: number,
  ): Promise<Found[]> {
    const fits = filterOf(sites, filter);
    const found: Found[] = [];
    for await (const one of this.#scan(sites, filter, NEWEST_FIRST, limit)) {
      if (!fits(one.job) || !isWanted(one.job)) continue;
      found.push(one);
      if (found.length === limit) break;
    }
    return found.reverse();
  }

  async findJobs(site: Site, part: string, client: string | undefined): Promise<Job[]> {
    const isNamed = makeNameFilter(site, { client });
    const ask = async (condition: string, ...values: unknown[]): Promise<Row[]> =>
      await this.#ask<Row>(`SELECT site_id, facts FROM webjob.jobs WHERE site_id = $1 AND ${condition}`, [
        idOf(site),
        ...values,
      ]);
    const exact = await ask('unit = $2', part);
    const like = likeOf(part);
    const rows =
      exact.length > 0
        ? exact
        : await ask('(unit LIKE $2 OR unit LIKE $3) LIMIT $4', `${like}%`, `%${like}`, MAX_FOUND);
    const jobs = rows.map(({ facts }) => jobOf(site, facts));
    return jobs.filter((job) => isNamed(job) && (job.jobId?.startsWith(part) || job.jobId?.endsWith(part)));
  }

  async readSums(site: Site, filter: JobFilter): Promise<Sums> {
    const isPlain = !filter.since && !filter.until && !filter.command && !filter.states;
    if (!isPlain) {
      const jobs: Job[] = [];
      for await (const { job } of this.readJobs([site], filter, 'end')) jobs.push(job);
      return sumUp(jobs);
    }
    const isClient = makeNameFilter(site, filter);
    const clients = new Map<string, ClientTotals>();
    const rows = await this.#ask<{ client: string; seen_at: Date | null; counts: string }>(
      "SELECT client, seen_at, counts FROM webjob.sums WHERE site_id = $1 AND client NOT IN ('', $2) ORDER BY client",
      [idOf(site), ALL_CLIENTS],
    );
    for (const { client: clientId, seen_at: seenAt, counts } of rows) {
      if (filter.client !== undefined && !isClient({ clientId })) continue;
      const totals = makeClientTotals();
      addCounts(totals, counts);
      totals.seenAt = seenAt ?? undefined;
      clients.set(clientId, totals);
    }
    return { all: await this.#readTotals(site), clients };
  }

  async readMeasures(site: Site, mostClients: number): Promise<Measures> {
    const isSeen = "FROM webjob.sums WHERE site_id = $1 AND client NOT IN ('', '*') AND seen_at IS NOT NULL";
    const id = idOf(site);
    const [count] = await this.#ask<{ count: string }>(`SELECT count(*) AS count ${isSeen}`, [id]);
    const rows = await this.#ask<{ client: string; seen_at: Date }>(
      `SELECT client, seen_at ${isSeen} ORDER BY seen_at DESC LIMIT $2`,
      [id, mostClients],
    );
    const [kept] = await this.#ask<{ locker: string }>('SELECT locker FROM webjob.sites WHERE id = $1', [id]);
    const locker = JSON.parse(kept?.locker ?? '{}') as Partial<LockerTotals & { foreignFiles: number }>;
    return {
      all: await this.#readTotals(site),
      clients: Number(count?.count ?? 0),
      lastSeen: rows.map(({ client, seen_at: seenAt }) => [client, seenAt]),
      locker: { complete: 0, incomplete: 0, bytes: 0, foreignFiles: 0, ...locker },
    };
  }

  async #readTotals(site: Site): Promise<Totals> {
    const totals = makeTotals();
    const [row] = await this.#ask<{ counts: string }>(
      'SELECT counts FROM webjob.sums WHERE site_id = $1 AND client = $2',
      [idOf(site), ALL_CLIENTS],
    );
    if (row) addCounts(totals, row.counts);
    return totals;
  }

  /**
   * Yields the rows that may match a filter through a cursor, so that few are in memory at a time.
   */
  async *#scan(sites: readonly Site[], filter: JobFilter, order: string, firstRows = FETCH): AsyncGenerator<Found> {
    const client = await connect(this.#url);
    const byId = new Map(sites.map((site) => [idOf(site), site]));
    try {
      const { where, values, inner } = conditionsOf([...byId.keys()], filter);
      await client.query('BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await client.query(
        `DECLARE found NO SCROLL CURSOR FOR ${inner}SELECT site_id, facts FROM webjob.jobs WHERE ${where} ORDER BY ${order}`,
        values,
      );
      for (let count = Math.min(firstRows, FETCH); ; count = FETCH) {
        const { rows } = await client.query(`FETCH ${count} FROM found`);
        for (const { site_id: siteId, facts } of rows as Row[]) {
          const site = byId.get(siteId);
          if (site) yield { site, job: jobOf(site, facts) };
        }
        if (rows.length < count) return;
      }
    } catch (error) {
      throw failureOf(error, this.#url);
    } finally {
      await client.end().catch(() => {});
    }
  }

  #client: Promise<Client> | undefined;

  /**
   * Runs a short query. All short queries share one connection, which does not keep the process
   * from exiting.
   */
  async #ask<Found extends object>(text: string, values: unknown[]): Promise<Found[]> {
    try {
      this.#client ??= connect(this.#url);
      const client = await this.#client;
      const { stream } = (client as unknown as { connection: { stream: { ref(): void; unref(): void } } }).connection;
      stream.ref();
      try {
        return (await client.query(text, values)).rows as Found[];
      } finally {
        stream.unref();
      }
    } catch (error) {
      throw failureOf(error, this.#url);
    }
  }
}

/** Remote sites have no groups of their own here, so one filter is enough for all. */
function filterOf([site]: readonly Site[], filter: JobFilter): (job: Job) => boolean {
  return site ? makeFilter(site, filter) : () => false;
}

const idOf = (site: Site): number => (site as RemoteSite).id;

function jobOf(site: Site, facts: string): Job {
  const [lines, uploads] = JSON.parse(facts) as [string, unknown[]];
  return joinStored(site, lines, uploads).job;
}

/** The conditions that an index can answer; makeFilter() checks each row again. */
function conditionsOf(
  siteIds: readonly number[],
  { since, until, client, command, states, outer }: JobFilter,
): { where: string; values: unknown[]; inner: string } {
  const values: unknown[] = [siteIds];
  const parts = ['site_id = ANY ($1)'];
  const add = (condition: string, value: unknown): void => {
    values.push(value);
    parts.push(condition.replace('?', `$${values.length}`));
  };
  if (since) add('at >= ?', since);
  if (until) add('at <= ?', until);
  for (const [column, glob] of [
    ['client', client],
    ['command', command],
  ] as const)
    if (glob !== undefined && isExact(glob)) add(`${column} = ?`, glob);
    else if (glob !== undefined && /^[^*?,-][^,]*$/.test(glob)) add(`${column} LIKE ?`, likeOf(glob, true));
  if (states) add('state = ANY (?)', states);
  let inner = '';
  if (outer !== undefined) {
    values.push(outer);
    inner = `WITH RECURSIVE inner_jobs (job_id) AS (SELECT $${values.length}::text COLLATE "C" UNION
      SELECT jobs.job_id FROM webjob.jobs JOIN inner_jobs ON jobs.outer_id = inner_jobs.job_id) `;
    parts.push('job_id IN (SELECT job_id FROM inner_jobs)');
  }
  return { where: parts.join(' AND '), values, inner };
}

const isExact = (glob: string): boolean => !/[*?,]|^-$/.test(glob);

/** A LIKE pattern; with `isGlob`, `*` and `?` match any text and any character. */
function likeOf(text: string, isPattern = false): string {
  const escaped = text.replaceAll(/[\\%_]/g, '\\$&');
  return isPattern ? escaped.replaceAll('*', '%').replaceAll('?', '_') : escaped;
}
