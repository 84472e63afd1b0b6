// The index as others ask it, so that its answer is the one of the files: for jobs only while it is fresh; for texts at any age, but then only
// of the groups that are as they were.
import { dirname } from 'node:path';
import { findGroup, type Group, walkLocker } from 'webjob-locker';
import { Failure } from '../failure.ts';
import type { Job } from '../job.ts';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { parseJob, type Value } from './columns.ts';
import { isFresh, type Stamp } from './freshness.ts';
import { stampGroup } from './reading.ts';
import { indexFile, openToRead } from './schema.ts';
import { type Database, hasSqlite } from './sqlite.ts';

/** Undefined when there is none, or when the log or the locker changed since, or on a Node without SQLite. The caller closes it. */
export function openFreshIndex(site: Site): Database | undefined {
  return useIndex(site, (database) => {
    if (isStampFresh(site, database)) return database;
    database.close();
    return undefined;
  });
}

/** Undefined when there is no index, on a Node without SQLite, and for what `use` cannot have: the files hold all that it could tell. */
function useIndex<Value>(site: Site, use: (database: Database) => Value): Value | undefined {
  if (!hasSqlite()) return undefined;
  try {
    const database = openToRead(indexFile(site.settings));
    return database && use(database);
  } catch (error) {
    warn(`the index is not used: ${(error as Error).message}`);
    return undefined;
  }
}

function isStampFresh(site: Site, database: Database): boolean {
  const stamp = database.prepare("SELECT value FROM facts WHERE name = 'stamp'").get()?.value;
  return typeof stamp === 'string' && isFresh(site, JSON.parse(stamp) as Stamp);
}

/** More tell no more. */
const MAX_TRIGRAMS = 48;

/** The names of the groups in which all of several texts can stand; undefined when they are too short to be looked up. */
export function findCandidates(database: Database, texts: readonly string[]): Set<string> | undefined {
  const match = formatMatch(texts);
  if (match === undefined) return undefined;
  const rows = database
    .prepare('SELECT name FROM groups WHERE id IN (SELECT rowid FROM texts WHERE texts MATCH ?) OR NOT whole')
    .all(match);
  return new Set(rows.map(({ name }) => name as string));
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

/**
 * The groups in which all of several texts can stand, in the order of walkLocker; undefined when no index can tell. While it is fresh these
 * alone are looked up. Later every group is looked at, and those are left out that the index knows as they are.
 */
export function findGroupsWith(site: Site, texts: readonly string[]): Iterable<Group> | undefined {
  return useIndex(site, (database) => {
    try {
      // All of it from one moment, whatever a refresh does meanwhile.
      database.exec('BEGIN');
      const names = findCandidates(database, texts);
      if (!names) return undefined;
      return isStampFresh(site, database)
        ? findNamed(site.settings.incomingDirectory, names)
        : walkUnknown(site.settings.incomingDirectory, readStamps(database, names));
    } finally {
      database.close();
    }
  });
}

function findNamed(locker: string, names: ReadonlySet<string>): Group[] {
  const keys = new Map([...names].map((name) => [name, `${dirname(name).replaceAll('/', '\0')}\0\0${name}`]));
  const sorted = [...names].sort((a, b) => ((keys.get(a) ?? '') < (keys.get(b) ?? '') ? -1 : 1));
  return sorted.flatMap((name) => findGroup(locker, name) ?? []);
}

/** What groups were when they were read in which the texts cannot stand. All at once, so that no refresh is waited for, and none waits. */
function readStamps(database: Database, candidates: ReadonlySet<string>): Map<string, string> {
  const stamps = new Map<string, string>();
  for (const { name, stamp } of database.prepare('SELECT name, stamp FROM groups').iterate())
    if (!candidates.has(name as string)) stamps.set(name as string, stamp as string);
  return stamps;
}

function* walkUnknown(locker: string, stamps: ReadonlyMap<string, string>): Generator<Group> {
  for (const { group } of walkLocker(locker)) {
    const known = group && stamps.get(group.name);
    if (group && (known === undefined || stampGroup(locker, group, known).stamp !== known)) yield group;
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

/** It may be found out in the middle of an answer, which the files cannot take over then. */
function damaged(error: unknown): Failure {
  const hint = 'webjobctl index --rebuild makes it anew; without it the log and the locker are read';
  return new Failure('failed', `the index is damaged: ${(error as Error).message}`, hint, { cause: error });
}
