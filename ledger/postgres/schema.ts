// The tables of the database of many sites. Comments in the database itself describe each table and
// column for other programs that query it.
import { FIELDS } from '../fields.ts';

/**
 * The value of `at` for a job without a time: `at` is the partition key, so every job needs a
 * value.
 */
export const NO_TIME = '-infinity';

/** The columns of a row of `jobs`, in the order in which they are copied. */
export const JOB_COLUMNS: readonly string[] = [
  ...FIELDS.map(({ column }) => column),
  ...['site_id', 'id', 'unit', 'rank', 'seen_at', 'telling', 'facts'],
];

const LINE_COLUMNS = (part: 'get' | 'put'): string => `
  ${part}_at timestamptz, ${part}_user text COLLATE "C", ${part}_address text COLLATE "C", ${part}_method text COLLATE "C",
  ${part}_file_name text COLLATE "C", ${part}_bytes_received numeric, ${part}_bytes_sent numeric, ${part}_seconds numeric,
  ${part}_status numeric, ${part}_message text COLLATE "C",`;

const COMMENTS: readonly (readonly [what: string, text: string])[] = [
  ['SCHEMA webjob', 'Jobs of WebJob sites, written by webjobctl ledger push. Query the views runs and days.'],
  ['VIEW webjob.runs', 'One row for each job, with the name of its site.'],
  ['VIEW webjob.days', 'Jobs and bytes received by day in UTC, site, client, command and state.'],
  ['TABLE webjob.facts', 'Facts about this database, such as its id.'],
  ['TABLE webjob.sites', 'One row for each site that pushes here.'],
  ['COLUMN webjob.sites.settings', 'Settings of the site that its readers need, as JSON.'],
  ['COLUMN webjob.sites.locker', 'Uploads and bytes in its locker at its last push, as JSON.'],
  ['COLUMN webjob.sites.telling', 'Id of the full push that the newest rows belong to.'],
  ['COLUMN webjob.sites.number', 'Number of the last change that was pushed.'],
  ['COLUMN webjob.sites.scanned', 'How many of the rows that existed when the full push began have been pushed.'],
  ['COLUMN webjob.sites.is_complete', 'Whether the full push is complete; false during the first push.'],
  ['COLUMN webjob.sites.told_at', 'Time of its last push.'],
  ['TABLE webjob.sums', 'Totals of the jobs of a client; the client * stands for all.'],
  [
    'TABLE webjob.jobs',
    'One row for each job, partitioned by the month of the column at, in UTC; jobs_other has jobs without a time.',
  ],
  [
    'COLUMN webjob.jobs.job_id',
    'The id that ties the requests and the upload together; NULL where the server gave none.',
  ],
  ['COLUMN webjob.jobs.state', 'got, done, failed, refused, incomplete, orphan or missing: see webjobctl help jobs.'],
  ['COLUMN webjob.jobs.at', 'Time of the newest event of the job; -infinity if none is known.'],
  ['COLUMN webjob.jobs.exit_code', 'Exit status of the program, from its run record.'],
  ['COLUMN webjob.jobs.signal', 'Signal that ended the program; NULL for none.'],
  ['COLUMN webjob.jobs.clock_skew', 'Seconds by which the clock of the client was ahead; NULL within a minute.'],
  ['COLUMN webjob.jobs.outer_id', 'The job whose program started this one.'],
  ['COLUMN webjob.jobs.group_name', 'The upload in the locker of the site, without extension.'],
  ['COLUMN webjob.jobs.uploads', 'Every complete upload of the job, separated by blanks.'],
  ['COLUMN webjob.jobs.left_behind', 'Files of incomplete requests, separated by blanks.'],
  ['COLUMN webjob.jobs.pack', 'The archive that contains the upload; NULL while it is in the locker.'],
  ['COLUMN webjob.jobs.requests', 'How many requests the job took.'],
  ['COLUMN webjob.jobs.seen_at', 'When the server last answered one of its requests with success.'],
  [
    'COLUMN webjob.jobs.unit',
    'Key by which log lines and uploads were joined: the job id, or client, command and hour.',
  ],
  [
    'COLUMN webjob.jobs.rank',
    '0 for jobs that ended, 1 for uploads without a log line, 2 for those that have not ended.',
  ],
  [
    'COLUMN webjob.jobs.facts',
    'The lines of the log, their times in UTC, and the uploads that the job was joined from, as JSON: exact where a text column has U+FFFD.',
  ],
];

/**
 * The steps that make the tables; the version of a database is the number of steps applied to it. A
 * released step is never changed: a new field is a new step.
 */
export const MIGRATIONS: readonly string[] = [
  `
CREATE SCHEMA webjob;
CREATE TABLE webjob.facts (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO webjob.facts VALUES ('database', gen_random_uuid()::text);
CREATE TABLE webjob.sites (
  id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, settings text NOT NULL,
  locker text NOT NULL DEFAULT '{}', telling text NOT NULL DEFAULT '', number bigint NOT NULL DEFAULT 0,
  scanned bigint NOT NULL DEFAULT 0, is_complete boolean NOT NULL DEFAULT false, told_at timestamptz
);
CREATE TABLE webjob.sums (
  site_id smallint NOT NULL REFERENCES webjob.sites, client text COLLATE "C" NOT NULL, seen_at timestamptz, counts text NOT NULL,
  telling text NOT NULL, PRIMARY KEY (site_id, client)
);
CREATE INDEX sums_seen ON webjob.sums (site_id, seen_at DESC);
CREATE TABLE webjob.jobs (
  job_id text COLLATE "C", client text COLLATE "C", command text COLLATE "C", state text COLLATE "C", at timestamptz NOT NULL,
  exit_code numeric, signal numeric, clock_skew numeric, outer_id text COLLATE "C", group_name text COLLATE "C",
  uploads text COLLATE "C", left_behind text COLLATE "C", pack text COLLATE "C", requests numeric,
  ${LINE_COLUMNS('get')}${LINE_COLUMNS('put')}
  site_id smallint NOT NULL, id bigint NOT NULL, unit text COLLATE "C" NOT NULL, rank smallint NOT NULL, seen_at timestamptz,
  telling text NOT NULL, facts text NOT NULL
) PARTITION BY RANGE (at);
CREATE TABLE webjob.jobs_other PARTITION OF webjob.jobs DEFAULT;
CREATE INDEX jobs_unit ON webjob.jobs (site_id, unit);
CREATE INDEX jobs_at ON webjob.jobs (at);
CREATE INDEX jobs_client ON webjob.jobs (client, at);
CREATE INDEX jobs_command ON webjob.jobs (command, at);
CREATE INDEX jobs_state ON webjob.jobs (state, at);
CREATE INDEX jobs_outer ON webjob.jobs (outer_id) WHERE outer_id IS NOT NULL;
CREATE FUNCTION webjob.make_partition(month date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  first timestamp := date_trunc('month', month::timestamp);
  partition text := 'jobs_' || to_char(first, 'YYYY_MM');
BEGIN
  IF first < '2000-01-01' OR first > now() + interval '2 months' THEN RETURN; END IF;
  PERFORM pg_advisory_xact_lock(hashtext('webjob.make_partition'));
  IF to_regclass('webjob.' || partition) IS NOT NULL THEN RETURN; END IF;
  EXECUTE format('CREATE TABLE webjob.%I PARTITION OF webjob.jobs FOR VALUES FROM (%L) TO (%L)',
    partition, first AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
END $$;
REVOKE ALL ON FUNCTION webjob.make_partition(date) FROM PUBLIC;
CREATE VIEW webjob.runs AS
  SELECT sites.name AS site, jobs.* FROM webjob.jobs JOIN webjob.sites ON sites.id = jobs.site_id;
CREATE VIEW webjob.days AS
  SELECT date_trunc('day', jobs.at AT TIME ZONE 'UTC') AS day, sites.name AS site, client, command, state, count(*) AS jobs,
    sum(put_bytes_received) AS bytes_received
  FROM webjob.jobs JOIN webjob.sites ON sites.id = jobs.site_id WHERE jobs.at > '-infinity' GROUP BY 1, 2, 3, 4, 5;
${COMMENTS.map(([what, text]) => `COMMENT ON ${what} IS '${text}';`).join('\n')}
`,
];

/**
 * The rights of a role that pushes, and of a role that only reads. `%` is the quoted name of the
 * role.
 */
export const GRANTS = {
  writer: `GRANT USAGE ON SCHEMA webjob TO %;
GRANT SELECT ON ALL TABLES IN SCHEMA webjob TO %;
GRANT INSERT, UPDATE, DELETE ON webjob.sites, webjob.sums, webjob.jobs TO %;
GRANT EXECUTE ON FUNCTION webjob.make_partition(date) TO %;`,
  reader: `GRANT USAGE ON SCHEMA webjob TO %;
GRANT SELECT ON webjob.facts, webjob.sites, webjob.sums, webjob.jobs, webjob.runs, webjob.days TO %;`,
} as const;
