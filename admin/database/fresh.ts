// The index as others ask it: only while it is fresh, so that its answer is the one of the files.
import { dirname } from 'node:path';
import { findGroup, type Group } from 'webjob-locker';
import { Failure } from '../failure.ts';
import type { Job } from '../job.ts';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { parseJob, type Value } from './columns.ts';
import { isFresh, type Stamp } from './freshness.ts';
import { indexFile, openToRead } from './schema.ts';
import { type Database, hasSqlite } from './sqlite.ts';

/** Undefined when there is none, or when the log or the locker changed since, or on a Node without SQLite. The caller closes it. */
export function openFreshIndex(site: Site): Database | undefined {
  if (!hasSqlite()) return undefined;
  try {
    const database = openToRead(indexFile(site.settings));
    if (!database) return undefined;
    const stamp = database.prepare("SELECT value FROM facts WHERE name = 'stamp'").get()?.value;
    if (typeof stamp === 'string' && isFresh(site, JSON.parse(stamp) as Stamp)) return database;
    database.close();
  } catch (error) {
    // The files hold all that it could tell.
    warn(`the index is not used: ${(error as Error).message}`);
  }
  return undefined;
}

/** More tell no more. */
const MAX_TRIGRAMS = 48;

/**
 * The names of the groups in which all of several texts can stand; undefined when they are too short to be looked up. Throws Failure `failed` for
 * an index that is damaged.
 */
export function findCandidates(database: Database, texts: readonly string[]): Set<string> | undefined {
  const match = formatMatch(texts);
  if (match === undefined) return undefined;
  try {
    const rows = database
      .prepare('SELECT name FROM groups WHERE id IN (SELECT rowid FROM texts WHERE texts MATCH ?) OR NOT whole')
      .all(match);
    return new Set(rows.map(({ name }) => name as string));
  } catch (error) {
    throw damaged(error);
  }
}

/** It may be found out in the middle of an answer, which the files cannot take over then. */
function damaged(error: unknown): Failure {
  const hint = 'webjobctl index --rebuild makes it anew; without it the log and the locker are read';
  return new Failure('failed', `the index is damaged: ${(error as Error).message}`, hint, { cause: error });
}

/** All trigrams of the texts, each quoted: nothing in them is an operator. */
function formatMatch(texts: readonly string[]): string | undefined {
  const trigrams = new Set<string>();
  for (const text of texts) {
    // The index has U+FFFD for a NUL and for what is no UTF-8.
    const characters = [...text.replaceAll('\0', '\ufffd')];
    for (let at = 0; at + 3 <= characters.length && trigrams.size < MAX_TRIGRAMS; at++)
      trigrams.add(characters.slice(at, at + 3).join(''));
  }
  if (trigrams.size === 0) return undefined;
  return [...trigrams].map((trigram) => `"${trigram.replaceAll('"', '""')}"`).join(' AND ');
}

/** The groups in which all of several texts can stand, in the order of walkLocker; undefined when no index can tell. */
export function findGroupsWith(site: Site, texts: readonly string[]): Group[] | undefined {
  const index = openFreshIndex(site);
  if (!index) return undefined;
  try {
    const names = findCandidates(index, texts);
    if (!names) return undefined;
    const keys = new Map([...names].map((name) => [name, `${dirname(name).replaceAll('/', '\0')}\0\0${name}`]));
    const sorted = [...names].sort((a, b) => ((keys.get(a) ?? '') < (keys.get(b) ?? '') ? -1 : 1));
    return sorted.flatMap((name) => findGroup(site.settings.incomingDirectory, name) ?? []);
  } finally {
    index.close();
  }
}

/** The jobs of a time, in the order in which readJobs had them. Throws Failure `failed` for an index that is damaged. */
export function* readIndexedJobs(database: Database, site: Site, since?: Date, until?: Date): Generator<Job> {
  const [from, to] = [since?.toISOString() ?? '', until?.toISOString() ?? '~'];
  try {
    const rows = database.prepare('SELECT * FROM jobs WHERE at >= ? AND at <= ? ORDER BY id');
    for (const row of rows.iterate(from, to)) yield parseJob(row as Record<string, Value>, site);
  } catch (error) {
    throw damaged(error);
  }
}
