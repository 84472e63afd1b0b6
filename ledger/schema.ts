// The live store: an SQLite database with what was learned of the logs, the locker and the packs, and how far each was read. It holds nothing
// that is not in those files, so it may be thrown away.
import { FIELDS } from './fields.ts';

/** Goes up with every change of the tables: a store of another version is made again. */
export const SCHEMA_VERSION = 7;

/** What uploads are found by. */
export const UPLOAD_INDEXES = `
CREATE UNIQUE INDEX IF NOT EXISTS uploads_name ON uploads (name, place);
CREATE INDEX IF NOT EXISTS uploads_unit ON uploads (unit);
CREATE INDEX IF NOT EXISTS uploads_folder ON uploads (folder) WHERE place = '';
`;

/** What the jobs of a unit are found by. */
export const JOB_INDEXES = 'CREATE INDEX IF NOT EXISTS jobs_unit ON jobs (unit);';

/**
 * `files`: logs and custody files, each with how far it was read, and with its beginning and the end of that part, by which it is known again
 * whatever rotation calls it. `folders`: the locker's, as they were at the last walk. `uploads`: `facts` has what a job is joined from, as JSON.
 * `jobs`: a row a job, with the lines of the log and the uploads that it was joined from. `sums`: what jobs add up to, by client, `*` for all. `texts`: the trigrams of what clients sent, without
 * the text itself: they tell in which uploads a text can be; `whole` is 0 where they do not cover everything, NULL where nothing was read.
 */
export const TABLES = `
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, folder TEXT NOT NULL, name TEXT NOT NULL, inode TEXT NOT NULL, size INTEGER NOT NULL,
  mtime TEXT NOT NULL, offset INTEGER NOT NULL, head BLOB NOT NULL, tail BLOB NOT NULL, broken INTEGER NOT NULL, sample TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS folders (path TEXT PRIMARY KEY, mtime TEXT NOT NULL, foreign_files INTEGER NOT NULL, uploads INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packs (name TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, place TEXT NOT NULL, folder TEXT NOT NULL, unit TEXT NOT NULL, facts TEXT NOT NULL,
  has INTEGER NOT NULL, stamp TEXT NOT NULL, bytes INTEGER NOT NULL, whole INTEGER
);
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY, unit TEXT NOT NULL, ${FIELDS.flatMap(({ stored, column }) => (stored ? `${column} ${stored}` : [])).join(', ')},
  rank INTEGER NOT NULL, seen INTEGER, broken INTEGER NOT NULL, first_log INTEGER, last_log INTEGER, lines TEXT NOT NULL, joined TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sums (client TEXT PRIMARY KEY, seen INTEGER, counts TEXT NOT NULL) WITHOUT ROWID;
${UPLOAD_INDEXES}${JOB_INDEXES}
CREATE INDEX IF NOT EXISTS jobs_broken ON jobs (client, command) WHERE broken;
CREATE INDEX IF NOT EXISTS jobs_outer ON jobs (outer_id) WHERE outer_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS uploads_unread ON uploads (id) WHERE whole IS NOT 1;
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (
  body, content = '', contentless_delete = 1, tokenize = 'trigram', detail = none
);
`;

/**
 * Of which most rows are part. Made when the tables are filled for the first time: of all rows at once they cost a fraction. The sorter takes as much memory again as the
 * cache has.
 */
export const INDEXES = `
PRAGMA cache_size = -8192;
CREATE INDEX IF NOT EXISTS uploads_place ON uploads (place) WHERE place <> '';
CREATE INDEX IF NOT EXISTS jobs_at ON jobs (at);
CREATE INDEX IF NOT EXISTS jobs_order ON jobs (rank, at);
CREATE INDEX IF NOT EXISTS jobs_client ON jobs (client, seen);
PRAGMA cache_size = -16384;
`;
