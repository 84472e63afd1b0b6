// Puts what was learned into the store: lines and uploads as they are met, then every job that they touch is joined again, and what jobs add up
// to is changed by as much. In the transaction of whoever calls.
import { posix } from 'node:path';
import type { Extension, Group } from 'webjob-locker';
import { isSuccess, type LogLine, parseLogLine } from 'webjob-protocol';
import { columnValue, FIELDS } from './fields.ts';
import { instantOf } from './instant.ts';
import { isForeign, type Job, uploadBytes } from './job.ts';
import {
  breaksOff,
  type GuessNames,
  type Joined,
  joinEpisode,
  joinUnit,
  LOCKER,
  type Located,
  takenPlace,
  type Upload,
  unitOfLine,
  unitOfUpload,
} from './join.ts';
import { makeGuesser } from './names.ts';
import { packEnding, packFiles, type ReadUpload, type StoredEnding, unpackEnding, unpackFiles } from './read-upload.ts';
import type { Site } from './site.ts';
import type { Database } from './sqlite.ts';

type Statement = ReturnType<Database['prepare']>;

type StatementName =
  | 'jobs'
  | 'insertJob'
  | 'deleteJob'
  | 'uploads'
  | 'upload'
  | 'insertUpload'
  | 'deleteUpload'
  | 'broken'
  | 'forgetText'
  | 'hasUpload'
  | 'storedNames';

interface JobRow {
  id: number;
  lines: string;
  joined: string;
}

interface UploadRow {
  name: string;
  place: string;
  unit: string;
  job_id: string | null;
  client: string | null;
  command: string | null;
  named: number;
  has: number;
  at: number;
  stamp: string;
  exit_code: number | null;
  signal: number | null;
  is_good: number | null;
  outer_id: string | null;
  clock_skew: number | null;
}

const STORED_FIELDS = FIELDS.filter(({ stored }) => stored !== undefined);
const JOB_COLUMNS = [
  ...STORED_FIELDS.map(({ column }) => column),
  ...['unit', 'rank', 'seen', 'broken', 'first_log', 'last_log', 'lines', 'joined'],
];
const UPLOAD_COLUMNS = [
  ...['name', 'place', 'folder', 'unit', 'job_id', 'client', 'command', 'named', 'has', 'at', 'stamp'],
  ...['exit_code', 'signal', 'is_good', 'outer_id', 'clock_skew', 'bytes', 'whole'],
];
/** The bit of `.rdy`. */
const READY = 8;
const marks = (columns: readonly string[]): string => columns.map(() => '?').join(', ');

/** Whose name stands for all clients in the sums; no client has it. */
export const ALL_CLIENTS = '*';

/** Jobs that ended come first, then uploads without a log line, then jobs that have not ended. */
export function rankOf({ put, state }: Job): number {
  if (state === 'got') return 2;
  return put === undefined && (state === 'orphan' || state === 'incomplete') ? 1 : 0;
}

export class Writer {
  readonly site: Site;
  readonly guess: GuessNames;
  /** What is new of each unit, and an empty list for one that is only to be joined again. */
  readonly #touched = new Map<string, Located[]>();
  readonly #goneFiles = new Set<number>();
  readonly #sums = new Map<string, Map<string, number>>();
  /** When clients were seen by jobs that are new, and by jobs that are gone. */
  readonly #seen = new Map<string, number>();
  readonly #unseen = new Map<string, number>();
  readonly #statements: Record<StatementName, Statement>;
  readonly #database: Database;

  constructor(database: Database, site: Site) {
    this.#database = database;
    this.site = site;
    const guessNames = makeGuesser(site);
    this.guess = (put) => guessNames(put);
    this.#statements = {
      jobs: database.prepare('SELECT id, lines, joined FROM jobs WHERE unit = ?'),
      insertJob: database.prepare(`INSERT INTO jobs (${JOB_COLUMNS.join(', ')}) VALUES (${marks(JOB_COLUMNS)})`),
      deleteJob: database.prepare('DELETE FROM jobs WHERE id = ?'),
      uploads: database.prepare('SELECT * FROM uploads WHERE unit = ?'),
      upload: database.prepare('SELECT id, unit, stamp, has FROM uploads WHERE name = ? AND place = ?'),
      insertUpload: database.prepare(
        `INSERT INTO uploads (${UPLOAD_COLUMNS.join(', ')}) VALUES (${marks(UPLOAD_COLUMNS)})`,
      ),
      deleteUpload: database.prepare('DELETE FROM uploads WHERE id = ?'),
      broken: database.prepare(
        'SELECT unit, lines FROM jobs WHERE broken AND client IS ?1 AND (command IS ?2 OR ?2 IS NULL)',
      ),
      forgetText: database.prepare('DELETE FROM texts WHERE rowid = ?'),
      hasUpload: database.prepare('SELECT 1 FROM uploads WHERE unit = ? AND has & 8 LIMIT 1'),
      storedNames: database.prepare("SELECT name FROM uploads WHERE unit = ? AND place = '' AND has & 8"),
    };
  }

  /** How many units wait for settle. */
  get pending(): number {
    return this.#touched.size;
  }

  /** A line that is new. */
  add(located: Located): void {
    this.#touch(unitOfLine(located)).push(located);
  }

  /** True when an upload is known as it is. */
  isKnown(name: string, place: string, stamp: string): boolean {
    return this.#statements.upload.get(name, place)?.stamp === stamp;
  }

  /** An upload that is new, or not what it was. */
  put(upload: ReadUpload): void {
    const unit = upload.has.has('rdy') || upload.jobId !== undefined ? unitOfUpload(upload) : this.#findBroken(upload);
    const known = this.#statements.upload.get(upload.name, upload.place) as { unit: string; has: number } | undefined;
    this.remove(upload.name, upload.place);
    const isReplaced = known && known.unit !== unit && known.has & READY && upload.has.has('rdy');
    // Its name is another job's now.
    if (isReplaced && upload.place === LOCKER) this.#replace(upload.name, known.unit);
    const { name, place, jobId, clientId, command, isNamed, has, at, stamp, ending, bytes } = upload;
    this.#statements.insertUpload.run(
      ...[name, place, posix.dirname(name), unit, jobId ?? null, clientId ?? null, command ?? null, Number(isNamed)],
      ...[packFiles(has), Math.floor(at), stamp, ...packEnding(ending), bytes, place === LOCKER ? null : 1],
    );
    this.#touch(unit);
  }

  /** The one name that a PUT can have given its upload is another job's: it was replaced, as with OverwriteExistingFiles. */
  noteReplaced(name: string, line: LogLine): void {
    const unit = line.jobId;
    const known = this.#statements.upload.get(name, LOCKER);
    if (unit !== undefined && known && known.unit !== unit) this.#replace(name, unit);
  }

  #replace(name: string, unit: string): void {
    const place = takenPlace(unit);
    this.remove(name, place);
    this.#statements.insertUpload.run(
      ...[name, place, posix.dirname(name), unit, unit, null, null, 0, READY, 0, ''],
      ...[...packEnding(undefined), 0, 1],
    );
    this.#touch(unit);
  }

  /** An upload that is no longer where it was. */
  remove(name: string, place: string): void {
    const known = this.#statements.upload.get(name, place) as { id: number; unit: string } | undefined;
    if (!known) return;
    this.#statements.deleteUpload.run(known.id);
    if (place === LOCKER) this.#statements.forgetText.run(known.id);
    this.#touch(known.unit);
  }

  /** Everything that a file of the log told. */
  forgetFile(file: number): void {
    this.#goneFiles.add(file);
    const rows = this.#database
      .prepare('SELECT DISTINCT unit FROM jobs WHERE first_log <= ? AND last_log >= ?')
      .all(file, file);
    for (const { unit } of rows) this.#touch(unit as string);
  }

  /** Joins what was touched again. Returns the jobs that have ended since, by their rows. */
  settle(): number[] {
    const ended: number[] = [];
    for (const [unit, lines] of this.#touched) this.#join(unit, lines, ended);
    this.#touched.clear();
    this.#goneFiles.clear();
    this.#writeSums();
    return ended;
  }

  /** The names of uploads in the locker under job ids that were accepted again. */
  *repeated(): Generator<string> {
    const known = this.#statements.storedNames;
    for (const [unit, lines] of [...this.#touched])
      if (lines.some(({ line }) => line.method === 'PUT' && line.status === 200))
        for (const { name } of known.all(unit)) yield name as string;
  }

  /** The accepted PUTs among what is new of which no upload is known, and those that broke off: by these the locker is searched. */
  *unexplained(): Generator<Located> {
    const known = this.#statements.hasUpload;
    for (const [unit, lines] of this.#touched) {
      const puts = lines.filter(({ line }) => line.method === 'PUT');
      yield* puts.filter(({ line }) => breaksOff(line));
      const accepted = puts.filter(({ line }) => line.status === 200);
      if (accepted.length > 1 || (accepted.length === 1 && !known.get(unit))) yield* accepted;
    }
  }

  #touch(unit: string): Located[] {
    const lines = this.#touched.get(unit) ?? [];
    this.#touched.set(unit, lines);
    return lines;
  }

  /** The unit of what a PUT left that broke off: nothing but its name tells whose it is. */
  #findBroken(upload: Upload): string {
    const rows = this.#statements.broken.all(upload.clientId ?? null, upload.command ?? null) as unknown as {
      unit: string;
      lines: string;
    }[];
    const stored = rows.flatMap(({ unit, lines }) => parseLines(this.site, lines).map((one) => ({ unit, one })));
    const fresh = [...this.#touched].flatMap(([unit, lines]) => lines.map((one) => ({ unit, one })));
    const fitting = [...stored, ...fresh].filter(
      ({ one }) =>
        breaksOff(one.line) &&
        one.line.clientId === upload.clientId &&
        [...this.guess(one.line)].some((guess) => guess.fits(upload.name)),
    );
    const distance = ({ one }: (typeof fitting)[number]): number => Math.abs(one.at - upload.at);
    return fitting.sort((a, b) => distance(a) - distance(b))[0]?.unit ?? unitOfUpload(upload);
  }

  #join(unit: string, fresh: readonly Located[], ended: number[]): void {
    const rows = this.#statements.jobs.all(unit) as unknown as JobRow[];
    const lines = [...fresh];
    const hadEnded = new Set<string>();
    for (const row of rows) {
      const { job, lines: old } = readJoined(this.site, row);
      this.#count(job, -1);
      if (job.state !== 'got') hadEnded.add(identify(job));
      for (const one of old) if (!this.#goneFiles.has(one.log)) lines.push(one);
      this.#statements.deleteJob.run(row.id);
    }
    const uploads = (this.#statements.uploads.all(unit) as unknown as UploadRow[]).map(parseUpload);
    for (const joined of joinUnit(lines, uploads, this.guess)) {
      const id = this.#insert(unit, joined);
      this.#count(joined.job, 1);
      if (joined.job.state !== 'got' && !hadEnded.has(identify(joined.job))) ended.push(id);
    }
  }

  #insert(unit: string, { job, lines, uploads }: Joined): number {
    const logs = lines.map(({ log }) => log);
    const values = STORED_FIELDS.map(
      (field) => columnValue(field, job, this.site) ?? (field.name === 'at' ? '' : null),
    );
    const { lastInsertRowid } = this.#statements.insertJob.run(
      ...values,
      ...[unit, rankOf(job), job.seenAt?.getTime() ?? null, Number(lines.some(({ line }) => breaksOff(line)))],
      ...(logs.length > 0 ? [Math.min(...logs), Math.max(...logs)] : [null, null]),
      ...[lines.map(({ log, text }) => `${log} ${text}`).join('\n'), JSON.stringify(uploads.map(formatUpload))],
    );
    return Number(lastInsertRowid);
  }

  #count(job: Job, sign: 1 | -1): void {
    const facts = tally(job);
    for (const client of [ALL_CLIENTS, job.clientId ?? '']) {
      const sums = this.#sums.get(client) ?? new Map<string, number>();
      this.#sums.set(client, sums);
      for (const [name, value] of facts) sums.set(name, (sums.get(name) ?? 0) + sign * value);
    }
    if (!job.seenAt || job.clientId === undefined) return;
    const seen = sign > 0 ? this.#seen : this.#unseen;
    seen.set(job.clientId, Math.max(seen.get(job.clientId) ?? 0, job.seenAt.getTime()));
  }

  #writeSums(): void {
    const add = this.#database.prepare(
      'INSERT INTO sums (client, name, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value',
    );
    for (const [client, sums] of this.#sums)
      for (const [name, value] of sums) if (value !== 0) add.run(client, name, value);
    this.#sums.clear();
    this.#writeSeen();
  }

  #writeSeen(): void {
    const write = this.#database.prepare(
      "INSERT INTO sums (client, name, value) VALUES (?, 'seen', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
    );
    for (const [client, at] of this.#seen) write.run(client, at);
    const last = this.#database.prepare('SELECT max(seen) AS seen FROM jobs WHERE client = ?');
    const forget = this.#database.prepare("DELETE FROM sums WHERE client = ? AND name = 'seen'");
    for (const [client, at] of this.#unseen) {
      if ((this.#seen.get(client) ?? 0) >= at) continue;
      const seen = last.get(client)?.seen as number | null;
      forget.run(client);
      if (seen !== null) write.run(client, seen);
    }
    this.#seen.clear();
    this.#unseen.clear();
  }
}

/** What a job adds to the sums. */
export function tally(job: Job): [name: string, value: number][] {
  const facts: [string, number][] = [[`state ${job.state}`, 1]];
  if (isForeign(job)) facts.push(['foreign', 1]);
  for (const line of [job.get, job.put, ...job.attempts]) {
    if (!line) continue;
    facts.push([`request ${line.method} ${line.status}`, 1]);
    if (line.method === 'GET' && isSuccess(line.status)) facts.push(['sent', line.bytesSent]);
  }
  facts.push(['received', uploadBytes(job)]);
  return facts;
}

/** A job among those of its unit, before and after it was joined again. */
function identify({ clientId, command, put, get, group }: Job): string {
  return JSON.stringify([clientId, command, put?.time ?? get?.time ?? group?.name, put?.status]);
}

/** A job as its row says. */
export function readJoined(site: Site, { lines, joined }: Pick<JobRow, 'lines' | 'joined'>): Joined {
  const uploads = (JSON.parse(joined) as StoredUpload[]).map(parseStored);
  return joinEpisode(parseLines(site, lines), uploads);
}

function parseLines(site: Site, lines: string): Located[] {
  if (lines === '') return [];
  return lines.split('\n').map((row) => {
    const blank = row.indexOf(' ');
    return locate(site, row.slice(blank + 1), Number(row.slice(0, blank)));
  });
}

/** A line of a log with its place. Throws SyntaxError. */
export function locate(site: Site, text: string, log: number): Located {
  const line = parseLogLine(text);
  return { line, text, log, at: instantOf(line, site).getTime() || 0 };
}

type StoredUpload = [
  name: string,
  place: string,
  has: number,
  at: number,
  facts: [string | null, string | null, string | null, number],
  ending: StoredEnding,
];

function formatUpload({ name, place, has, at, jobId, clientId, command, isNamed, ending }: Upload): StoredUpload {
  const facts: StoredUpload[4] = [jobId ?? null, clientId ?? null, command ?? null, Number(isNamed)];
  return [name, place, packFiles(has), Math.floor(at), facts, packEnding(ending)];
}

function parseStored([name, place, has, at, [jobId, clientId, command, isNamed], ending]: StoredUpload): Upload {
  return {
    ...{ name, place, at, has: unpackFiles(has), isNamed: isNamed === 1, ending: unpackEnding(ending) },
    ...{ jobId: jobId ?? undefined, clientId: clientId ?? undefined, command: command ?? undefined },
  };
}

function parseUpload(row: UploadRow): Upload {
  const { name, place, at, job_id: jobId, client, command } = row;
  return {
    ...{ name, place, at, has: unpackFiles(row.has), isNamed: row.named === 1 },
    ...{ jobId: jobId ?? undefined, clientId: client ?? undefined, command: command ?? undefined },
    ending: unpackEnding([row.exit_code, row.signal, row.is_good, row.outer_id, row.clock_skew]),
  };
}

/** The group of an upload that is in the store. */
export function groupOf(name: string, has: number): Group {
  return { name, has: unpackFiles(has) as ReadonlySet<Extension> };
}
