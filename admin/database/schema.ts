// The index: what is in it, and which file it is. It holds nothing that is not in the log and the locker, so it may be thrown away.
import { closeSync, existsSync, lstatSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/controls.ts';
import { Failure } from '../failure.ts';
import { JOB_COLUMNS } from './columns.ts';
import { APPLICATION_ID, type Database, openDatabase } from './sqlite.ts';

/** Goes up with every change of the tables: an index of another version is made anew. */
const SCHEMA_VERSION = 3;

const TYPES = { text: 'TEXT', integer: 'INTEGER', timestamp: 'TEXT' } as const;

/** Columns of jobs that have an index, `jobs_at` and so on. */
export const JOB_INDEXES = ['at', 'job_id'] as const;

/**
 * The trigrams of what clients sent, without the text itself: they tell in which groups a text can be, and whoever asks looks there. `whole`
 * is 0 where they do not cover everything.
 */
const TABLES = `
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY,
  ${JOB_COLUMNS.map(({ name, type }) => `${name} ${TYPES[type]}`).join(',\n  ')}
);
CREATE TABLE IF NOT EXISTS groups (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL, whole INTEGER NOT NULL, seen INTEGER NOT NULL,
  job_id TEXT, exit_code INTEGER, signal INTEGER, is_good INTEGER, clock_skew INTEGER
);
CREATE INDEX IF NOT EXISTS groups_whole ON groups (id) WHERE NOT whole;
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (
  body, content = '', contentless_delete = 1, tokenize = 'trigram', detail = none
);
`;

export function indexFile(settings: ServerSettings): string {
  return join(settings.baseDirectory, 'index', 'webjob.sqlite');
}

/** Opens the index to fill it, with its tables. Throws Failure `failed` for a file that is something else. */
export function openToFill(path: string, rebuild: boolean): Database {
  makeFolder(dirname(path));
  const known = readApplicationId(path);
  if (known !== undefined && known !== APPLICATION_ID)
    throw new Failure('failed', `${path} is no index of webjobctl`, 'name another file, or remove this one');
  for (const suffix of ['', '-journal', '-wal']) checkOwner(path + suffix);
  if (rebuild) removeIndex(path);
  // What clients sent is for nobody else to read.
  if (!existsSync(path)) closeSync(openSync(path, 'wx', 0o600));
  let database = openDatabase(path, false);
  if (versionOf(database) !== SCHEMA_VERSION && known !== undefined) {
    database.close();
    removeIndex(path);
    closeSync(openSync(path, 'wx', 0o600));
    database = openDatabase(path, false);
  }
  database.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -16384; PRAGMA temp_store = FILE; BEGIN; ${TABLES} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT;`);
  return database;
}

/** In a folder like /tmp anybody may have made the file, to read what we put into it, or a journal, which SQLite would obey. Throws Failure. */
function checkOwner(file: string): void {
  const owners = [0, process.geteuid?.(), statSync(dirname(file)).uid];
  for (const found of [lstatSync(file, { throwIfNoEntry: false }), statSync(file, { throwIfNoEntry: false })])
    if (found && !owners.includes(found.uid))
      throw new Failure('failed', `${file} belongs to somebody else`, 'name a file in a folder of your own');
}

/** An index that can be asked, whatever its age; undefined when there is none. */
export function openToRead(path: string): Database | undefined {
  if (readApplicationId(path) !== APPLICATION_ID) return undefined;
  const database = openDatabase(path, true);
  if (versionOf(database) === SCHEMA_VERSION) return database;
  database.close();
  return undefined;
}

function versionOf(database: Database): unknown {
  return database.prepare('PRAGMA user_version').get()?.user_version;
}

function removeIndex(path: string): void {
  for (const suffix of ['-journal', '']) rmSync(path + suffix, { force: true });
}

/** What the head of an SQLite file says; undefined for no file or an empty one, 0 for a file of another kind. */
function readApplicationId(path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path}: ${code}`, undefined, { cause: error });
  }
  try {
    const head = Buffer.alloc(100);
    const length = readSync(fd, head, 0, head.length, 0);
    if (length === 0) return undefined;
    return head.toString('latin1', 0, 16) === 'SQLite format 3\0' ? head.readUInt32BE(68) : 0;
  } finally {
    closeSync(fd);
  }
}
