// Brings an index up to date. Texts come group by group, in transactions of their own, so that a run that is killed is not lost; the jobs
// come in one, together with the stamp that says what the index was made of.
import { readFromFiles } from '../history/jobs.ts';
import { type KnownGroup, openKnown } from '../history/known.ts';
import type { Site } from '../site.ts';
import { JOB_COLUMNS } from './columns.ts';
import { takeStamp } from './freshness.ts';
import { JOB_INDEXES } from './schema.ts';
import type { Database } from './sqlite.ts';
import { refreshTexts } from './texts.ts';

export interface Refreshed {
  groups: number;
  /** Groups of which the texts were read. */
  read: number;
  removed: number;
  jobs: number;
}

export async function refreshIndex(
  database: Database,
  site: Site,
  maxTextBytes: number,
  advance: () => void,
): Promise<Refreshed> {
  const stamp = await takeStamp(site);
  const old = database.prepare("SELECT value FROM facts WHERE name = 'stamp'").get()?.value;
  const text = JSON.stringify(stamp);
  const isSame = keepMaxText(database, maxTextBytes);
  if (isSame && old === text)
    return { groups: countOf(database, 'groups'), read: 0, removed: 0, jobs: countOf(database, 'jobs') };
  database.exec("DELETE FROM facts WHERE name = 'stamp'");
  const { groups, read, removed } = await refreshTexts(
    database,
    site.settings.incomingDirectory,
    maxTextBytes,
    advance,
  );
  database.exec('BEGIN IMMEDIATE');
  try {
    const jobs = await refillJobs(database, site, groups);
    database.prepare("INSERT OR REPLACE INTO facts VALUES ('stamp', ?)").run(text);
    database.exec('COMMIT');
    return { groups: groups.size, read, removed, jobs };
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}

/** False when an index was made with another limit: then no group of it counts as read. */
function keepMaxText(database: Database, maxTextBytes: number): boolean {
  const old = database.prepare("SELECT value FROM facts WHERE name = 'max_text'").get()?.value;
  if (old === String(maxTextBytes)) return true;
  database.exec('BEGIN IMMEDIATE');
  database.exec("UPDATE groups SET stamp = ''");
  database.prepare("INSERT OR REPLACE INTO facts VALUES ('max_text', ?)").run(String(maxTextBytes));
  database.exec('COMMIT');
  return false;
}

function countOf(database: Database, table: 'groups' | 'jobs'): number {
  return Number(database.prepare(`SELECT count(*) AS count FROM ${table}`).get()?.count);
}

async function refillJobs(database: Database, site: Site, groups: ReadonlyMap<string, KnownGroup>): Promise<number> {
  // To make the indexes again, of all rows at once, takes a fraction of what it takes to keep them.
  for (const column of JOB_INDEXES) database.exec(`DROP INDEX IF EXISTS jobs_${column}`);
  database.exec('DELETE FROM jobs');
  const names = JOB_COLUMNS.map(({ name }) => name);
  const insert = database.prepare(`INSERT INTO jobs (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`);
  let count = 0;
  for await (const job of readFromFiles(site, {}, openKnown(site, groups))) {
    insert.run(...JOB_COLUMNS.map(({ value }) => value(job, site)));
    count++;
  }
  for (const column of JOB_INDEXES) database.exec(`CREATE INDEX jobs_${column} ON jobs (${column})`);
  return count;
}
