// The live store: an SQLite database of the facts that were read from the logs, the locker and the
// archives, and how far each was read. It contains nothing that is not in those files, so it may be
// deleted.
import { FIELDS } from './fields.ts';

/**
 * The version of a store, increased with every change to the tables or to the facts that are read
 * from the files. A store of another version is rebuilt.
 */
export const SCHEMA_VERSION = 10;

/** The indexes by which uploads are found. */
export const UPLOAD_INDEXES = `
CREATE UNIQUE INDEX IF NOT EXISTS uploads_name ON uploads (name, place);
CREATE INDEX IF NOT EXISTS uploads_unit ON uploads (unit);
CREATE INDEX IF NOT EXISTS uploads_folder ON uploads (folder) WHERE place = '';
`;

/** The index by which the jobs of a unit are found. */
export const JOB_INDEXES = 'CREATE INDEX IF NOT EXISTS jobs_unit ON jobs (unit);';

/**
 * `files`: logs and custody records, each with the size of the part that was read, and with the
 * beginning and end of that part, which identify the file after a rotation. `folders`: directories
 * of the locker as of the last walk. `acts`: the acts of operators on jobs and clients, as JSON, by
 * the file with the record. `uploads`: `facts` is JSON with the facts from which a job is joined.
 * `jobs`: one row for each job, with the log lines and uploads from which it was joined. `sums`:
 * sums over jobs by client, `*` for all. `texts`: trigrams of the streams that clients sent,
 * without the text: they show which uploads may contain a text. `whole` is 0 when they do not cover
 * everything, and NULL when nothing was read.
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
CREATE TABLE IF NOT EXISTS acts (id INTEGER PRIMARY KEY, file INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, act TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sums (client TEXT PRIMARY KEY, seen INTEGER, counts TEXT NOT NULL) WITHOUT ROWID;
${UPLOAD_INDEXES}${JOB_INDEXES}
CREATE INDEX IF NOT EXISTS acts_subject ON acts (subject, kind);
CREATE INDEX IF NOT EXISTS jobs_broken ON jobs (client, command) WHERE broken;
CREATE INDEX IF NOT EXISTS jobs_outer ON jobs (outer_id) WHERE outer_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS uploads_unread ON uploads (id) WHERE whole IS NOT 1;
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (
  body, content = '', contentless_delete = 1, tokenize = 'trigram', detail = none
);
`;

/**
 * Indexes that contain most rows. They are made after the tables are filled for the first time,
 * which costs a fraction of updating them row by row. Sorting the rows takes as much memory as the
 * cache.
 */
export const INDEXES = `
PRAGMA cache_size = -8192;
CREATE INDEX IF NOT EXISTS uploads_place ON uploads (place) WHERE place <> '';
CREATE INDEX IF NOT EXISTS jobs_at ON jobs (at);
CREATE INDEX IF NOT EXISTS jobs_order ON jobs (rank, at);
CREATE INDEX IF NOT EXISTS jobs_client ON jobs (client, seen);
PRAGMA cache_size = -16384;
`;
