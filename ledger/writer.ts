// Writes to the store: collects lines and uploads, joins every job that they affect again, and
// adjusts the sums. Works in the caller's transaction.
import { isSuccess, type LogLine, parseLogLine } from 'webjob-protocol';
import { columnValue, FIELDS } from './fields.ts';
import { millisecondsOf } from './instant.ts';
import { isForeign, JOB_STATES, type Job, type JobState, uploadBytes } from './job.ts';
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
import { JOB_INDEXES, UPLOAD_INDEXES } from './schema.ts';
import type { Site } from './site.ts';
import type { Database } from './sqlite.ts';
import type { ReadText } from './texts.ts';

type Statement = ReturnType<Database['prepare']>;

type StatementName =
  | 'insertJob'
  | 'deleteJob'
  | 'upload'
  | 'insertUpload'
  | 'deleteUpload'
  | 'moveUpload'
  | 'broken'
  | 'forgetText'
  | 'learnText'
  | 'jobsOfUnits'
  | 'uploadsOfUnits'
  | 'completeOfUnits'
  | 'storedNames';

/** A row of one of the requested units; `unit` is its index among them. */
interface OfUnit {
  unit: number;
}

/** A row of `uploads`, without what was read from its files. */
interface KnownUpload {
  id: number;
  unit: string;
  stamp: string;
  has: number;
  bytes: number;
}

interface UploadRow extends OfUnit {
  facts: string;
}

interface JobRow extends OfUnit {
  id: number;
  lines: string;
  joined: string;
}

const STORED_FIELDS = FIELDS.filter(({ stored }) => stored !== undefined);
const JOB_COLUMNS = [
  ...STORED_FIELDS.map(({ column }) => column),
  ...['unit', 'rank', 'seen', 'broken', 'first_log', 'last_log', 'lines', 'joined', 'id'],
];
const UPLOAD_COLUMNS = [...['name', 'place', 'folder', 'unit', 'facts', 'has', 'stamp', 'bytes', 'whole']];
/** The bit of `.rdy`. */
const READY = 8;
const marks = (columns: readonly string[]): string => columns.map(() => '?').join(', ');

/**
 * Selects the highest number that a row of `jobs` ever had, because that row may have been deleted.
 */
const LAST_JOB = `SELECT max(coalesce((SELECT max(id) FROM jobs), 0),
  coalesce((SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'lastJob'), 0)) AS last`;

/** The name in the sums that stands for all clients; no client id equals it. */
export const ALL_CLIENTS = '*';

/**
 * The order of jobs: those that ended, then uploads without a log line, then those that have not
 * ended.
 */
export function rankOf({ put, state }: Job): number {
  if (state === 'got') return 2;
  return put === undefined && (state === 'orphan' || state === 'incomplete') ? 1 : 0;
}

/**
 * Changes to the sums of a client since they were last written: counts as `name, number, name,
 * number`, and when the client was seen.
 */
interface Counted {
  counts: (string | number)[];
  seen: number;
  /** The latest time among jobs that no longer exist. */
  unseen: number;
}

/** State that is kept while a store is filled from nothing. */
interface Filling {
  /** The units that may already have jobs, and those that may have uploads. */
  joined: Bloom;
  uploads: Bloom;
  hasIndexes: boolean;
  /**
   * Lines of units that may already have jobs. They are joined once the index of jobs exists;
   * building the index from all rows together costs a fraction of updating it. Undefined when the
   * index exists.
   */
  late: Map<string, Located[]> | undefined;
  /** The number of lines that wait for that index. */
  lateLines: number;
}

/** The number of waiting lines above which the index is made. */
const MAX_LATE_LINES = 10_000;

export class Writer {
  readonly site: Site;
  readonly guess: GuessNames;
  /** New lines of each unit, and an empty list for a unit that only has to be joined again. */
  readonly #touched = new Map<string, Located[]>();
  /** The new lines that may have left files without a .rdy. */
  #fresh: { unit: string; one: Located }[] = [];
  readonly #goneFiles = new Set<number>();
  readonly #sums = new Map<string, Counted>();
  readonly #locker: LockerTotals = { complete: 0, incomplete: 0, bytes: 0 };
  readonly #statements: Record<StatementName, Statement>;
  readonly #database: Database;
  #filling: Filling | undefined;
  /** The number of the last row of `jobs`; undefined until the first one is inserted. */
  #lastJob: number | undefined;

  constructor(database: Database, site: Site) {
    this.#database = database;
    this.site = site;
    const guessNames = makeGuesser(site);
    this.guess = (put) => guessNames(put);
    const ofUnits = (columns: string, table: string): string =>
      `SELECT asked.key AS unit, ${columns} FROM json_each(?) AS asked CROSS JOIN ${table} AS found ON found.unit = asked.value`;
    this.#statements = {
      jobsOfUnits: database.prepare(ofUnits('found.id AS id, lines, joined', 'jobs')),
      uploadsOfUnits: database.prepare(ofUnits('facts', 'uploads')),
      insertJob: database.prepare(`INSERT INTO jobs (${JOB_COLUMNS.join(', ')}) VALUES (${marks(JOB_COLUMNS)})`),
      deleteJob: database.prepare('DELETE FROM jobs WHERE id = ?'),
      upload: database.prepare('SELECT id, unit, stamp, has, bytes FROM uploads WHERE name = ? AND place = ?'),
      insertUpload: database.prepare(
        `INSERT INTO uploads (${UPLOAD_COLUMNS.join(', ')}) VALUES (${marks(UPLOAD_COLUMNS)})`,
      ),
      deleteUpload: database.prepare('DELETE FROM uploads WHERE id = ?'),
      moveUpload: database.prepare('UPDATE uploads SET unit = ? WHERE id = ?'),
      broken: database.prepare(
        'SELECT unit, lines FROM jobs WHERE broken AND client IS ?1 AND (command IS ?2 OR ?2 IS NULL)',
      ),
      forgetText: database.prepare('DELETE FROM texts WHERE rowid = ?'),
      learnText: database.prepare('INSERT INTO texts (rowid, body) VALUES (?, ?)'),
      completeOfUnits: database.prepare(`${ofUnits('found.id', 'uploads')} WHERE has & ${READY}`),
      storedNames: database.prepare(`${ofUnits('name', 'uploads')} WHERE place = '' AND has & ${READY}`),
    };
  }

  /** The number of units that wait for settle(). */
  get pending(): number {
    return this.#touched.size;
  }

  /**
   * Begins to fill an empty store. Until endUploads(), nothing is looked up, and only an upload
   * that was removed may be put twice.
   */
  beginFilling(): void {
    const indexes = ['uploads_name', 'uploads_unit', 'uploads_folder', 'jobs_unit'];
    this.#database.exec(indexes.map((name) => `DROP INDEX IF EXISTS ${name};`).join(' '));
    const blooms = { joined: makeBloom(BLOOM_BITS.joined), uploads: makeBloom(BLOOM_BITS.uploads) };
    this.#filling = { ...blooms, hasIndexes: false, late: new Map(), lateLines: 0 };
  }

  /** Ends the phase of uploads; only lines follow. */
  endUploads(): void {
    if (!this.#filling) return;
    try {
      this.#database.exec(UPLOAD_INDEXES);
    } catch (error) {
      if (!/UNIQUE/.test((error as Error).message)) throw error;
      this.#forgetTwice();
    }
    this.#filling.hasIndexes = true;
  }

  /**
   * Removes the duplicates of an upload that was removed, restored and removed again: only the last
   * removal counts.
   */
  #forgetTwice(): void {
    this.#database.exec(`DELETE FROM uploads WHERE id IN (
      SELECT id FROM (SELECT id, lead(id) OVER (PARTITION BY name, place ORDER BY id) AS later FROM uploads WHERE place <> '')
      WHERE later IS NOT NULL)`);
    this.#database.exec(UPLOAD_INDEXES);
  }

  /**
   * Finishes filling: broken-off files are attributed to the PUTs that left them, and uploads
   * without a log line are joined.
   */
  *endFilling(): Generator<void> {
    if (!this.#filling) return;
    this.#endLate(this.#filling);
    this.#filling = undefined;
    const broken = this.#database.prepare(
      `SELECT id, unit, facts FROM uploads WHERE place = '' AND NOT has & ${READY}`,
    );
    for (const row of broken.all() as unknown as { id: number; unit: string; facts: string }[]) {
      const upload = parseUpload(row.facts);
      const unit = upload.jobId === undefined ? this.#findBroken(upload) : row.unit;
      if (unit === row.unit) continue;
      this.#statements.moveUpload.run(unit, row.id);
      this.#touch(row.unit);
      this.#touch(unit);
    }
    const unjoined = this.#database.prepare(
      // An upload that was removed does not make a job by itself. The subquery uses only the
      // indexes.
      `SELECT unit, EXISTS (SELECT 1 FROM uploads WHERE unit = free.unit AND substr(place, 1, 1) <> '${takenPlace(undefined)}')
         AS isJob FROM (SELECT DISTINCT unit FROM uploads WHERE unit > ?
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.unit = uploads.unit) ORDER BY unit LIMIT ?) AS free`,
    );
    for (let last = ''; ; ) {
      const rows = unjoined.all(last, UNITS_AT_ONCE) as { unit: string; isJob: number }[];
      for (const { unit, isJob } of rows) if (isJob) this.#touch(unit);
      yield;
      if (rows.length < UNITS_AT_ONCE) return;
      last = rows.at(-1)?.unit ?? '';
    }
  }

  /** Adds a new line. */
  add(located: Located): void {
    const unit = unitOfLine(located);
    this.#touch(unit).push(located);
    if (breaksOff(located.line)) this.#fresh.push({ unit, one: located });
  }

  /** The stamp of an upload in the store; undefined for an unknown upload. */
  stampOf(name: string, place: string): string | undefined {
    return this.#find(name, place)?.stamp;
  }

  #find(name: string, place: string): KnownUpload | undefined {
    return this.#statements.upload.get(name, place) as KnownUpload | undefined;
  }

  /** Writes a new or changed upload, with its text if that was read. */
  put(upload: ReadUpload, text?: ReadText): void {
    const isOpen = this.#filling?.hasIndexes === false;
    const isOwn = upload.has.has('rdy') || upload.jobId !== undefined || isOpen;
    const unit = isOwn ? unitOfUpload(upload) : this.#findBroken(upload);
    if (!isOpen) this.#makeRoom(upload, unit);
    this.#insertUpload(upload, unit, text);
    if (upload.place === LOCKER) this.#countUpload(packFiles(upload.has), upload.bytes, 1);
    if (!isOpen) this.#touch(unit);
  }

  #insertUpload(upload: ReadUpload, unit: string, text?: ReadText): void {
    const { name, place, has, stamp, bytes } = upload;
    const facts = JSON.stringify(formatUpload(upload));
    const whole = place !== LOCKER ? 1 : text ? Number(text.isWhole) : null;
    const row = [name, place, folderOf(name), unit, facts, packFiles(has), stamp, bytes, whole];
    const { lastInsertRowid } = this.#statements.insertUpload.run(...row);
    if (text) this.#statements.learnText.run(lastInsertRowid, text.body);
    this.#filling?.uploads.add(unit);
  }

  #makeRoom({ name, place, has }: ReadUpload, unit: string): void {
    const known = this.#find(name, place);
    this.#drop(known, place);
    const isReplaced = known && known.unit !== unit && known.has & READY && has.has('rdy');
    // The name now belongs to another job.
    if (isReplaced && place === LOCKER) this.#replace(name, known.unit);
  }

  #countUpload(bits: number, bytes: number, sign: 1 | -1): void {
    this.#locker[bits & READY ? 'complete' : 'incomplete'] += sign;
    this.#locker.bytes += sign * bytes;
  }

  /**
   * Handles a PUT whose only possible name belongs to another job: its upload was replaced, as
   * OverwriteExistingFiles allows.
   */
  noteReplaced(name: string, line: LogLine): void {
    const unit = line.jobId;
    const known = this.#find(name, LOCKER);
    if (unit !== undefined && known && known.unit !== unit) this.#replace(name, unit);
  }

  #replace(name: string, unit: string): void {
    const place = takenPlace(unit);
    this.remove(name, place);
    const facts = { clientId: undefined, command: undefined, isNamed: false, ending: undefined, stamp: '', bytes: 0 };
    this.#insertUpload({ name, place, jobId: unit, has: unpackFiles(READY), at: 0, ...facts }, unit);
    this.#touch(unit);
  }

  /** Removes an upload that is no longer at its place. */
  remove(name: string, place: string): void {
    this.#drop(this.#find(name, place), place);
  }

  #drop(known: KnownUpload | undefined, place: string): void {
    if (!known) return;
    this.#statements.deleteUpload.run(known.id);
    if (place === LOCKER) {
      this.#statements.forgetText.run(known.id);
      this.#countUpload(known.has, known.bytes, -1);
    }
    this.#touch(known.unit);
  }

  /** Removes everything that was read from a log file. */
  forgetFile(file: number): void {
    this.#goneFiles.add(file);
    const rows = this.#database
      .prepare('SELECT DISTINCT unit FROM jobs WHERE first_log <= ? AND last_log >= ?')
      .all(file, file);
    for (const { unit } of rows) this.#touch(unit as string);
  }

  /**
   * Makes lines of units that may already have jobs wait for the index, unless too many are
   * waiting.
   */
  #postpone(filling: Filling): void {
    if (!filling.late) return;
    for (const [unit, lines] of this.#touched) {
      if (!filling.joined.has(unit)) continue;
      const waiting = filling.late.get(unit);
      if (waiting) waiting.push(...lines);
      else filling.late.set(unit, lines);
      filling.lateLines += lines.length;
      this.#touched.delete(unit);
    }
    if (filling.lateLines > MAX_LATE_LINES) this.#endLate(filling);
  }

  #endLate(filling: Filling): void {
    if (!filling.late) return;
    this.#database.exec(JOB_INDEXES);
    for (const [unit, lines] of filling.late) this.#touch(unit).push(...lines);
    filling.late = undefined;
  }

  /** Joins the affected units again. Returns the rows of the jobs that have ended since. */
  settle(): number[] {
    const ended: number[] = [];
    const filling = this.#filling;
    if (filling) this.#postpone(filling);
    const units = [...this.#touched.keys()];
    const withUploads = filling ? units.filter((unit) => filling.uploads.has(unit)) : units;
    const uploads = this.#ask<UploadRow>('uploadsOfUnits', withUploads);
    const joined = filling?.joined;
    // While lines are postponed, no remaining unit has jobs.
    const withJobs = filling?.late ? [] : joined ? units.filter((unit) => joined.has(unit)) : units;
    const rows = this.#ask<JobRow>('jobsOfUnits', withJobs);
    for (const [unit, lines] of this.#touched) {
      this.#join(unit, lines, rows.get(unit) ?? [], uploads.get(unit) ?? [], ended);
      joined?.add(unit);
    }
    this.#touched.clear();
    this.#fresh = [];
    this.#goneFiles.clear();
    if (!this.#filling) this.writeSums();
    return ended;
  }

  /** Queries rows for some units; the result is by unit. */
  #ask<Row extends OfUnit>(
    name: 'uploadsOfUnits' | 'jobsOfUnits' | 'completeOfUnits' | 'storedNames',
    units: readonly string[],
  ): Map<string, Row[]> {
    const found = new Map<string, Row[]>();
    if (units.length === 0) return found;
    for (const row of this.#statements[name].all(JSON.stringify(units)) as unknown as Row[]) {
      const unit = units[row.unit] ?? '';
      const same = found.get(unit);
      if (same) same.push(row);
      else found.set(unit, [row]);
    }
    return found;
  }

  /** The names of uploads in the locker whose job ids were accepted again. */
  repeated(isWanted: (put: Located) => boolean): string[] {
    const units = [...this.#touched]
      .filter(([, lines]) => lines.some((one) => isAccepted(one) && isWanted(one)))
      .map(([unit]) => unit);
    return [...this.#ask<OfUnit & { name: string }>('storedNames', units).values()].flat().map(({ name }) => name);
  }

  /**
   * The new PUTs for which the locker must be searched: those accepted without a known upload, and
   * those that broke off.
   */
  unexplained(isWanted: (put: Located) => boolean): Located[] {
    const found: Located[] = [];
    const open = new Map<string, Located[]>();
    for (const [unit, lines] of this.#touched) {
      const puts = lines.filter((one) => one.line.method === 'PUT' && isWanted(one));
      found.push(...puts.filter(({ line }) => breaksOff(line)));
      const accepted = puts.filter(isAccepted);
      if (accepted.length > 1) found.push(...accepted);
      else if (accepted.length === 1) open.set(unit, accepted);
    }
    for (const unit of this.#ask<OfUnit>('completeOfUnits', [...open.keys()]).keys()) open.delete(unit);
    return [...found, ...[...open.values()].flat()];
  }

  #touch(unit: string): Located[] {
    const lines = this.#touched.get(unit) ?? [];
    this.#touched.set(unit, lines);
    return lines;
  }

  /** Finds the unit of broken-off files, whose names alone show which PUT left them. */
  #findBroken(upload: Upload): string {
    const rows = this.#statements.broken.all(upload.clientId ?? null, upload.command ?? null) as unknown as {
      unit: string;
      lines: string;
    }[];
    const stored = rows.flatMap(({ unit, lines }) => parseLines(this.site, lines).map((one) => ({ unit, one })));
    const fitting = [...stored, ...this.#fresh].filter(
      ({ one }) =>
        breaksOff(one.line) &&
        one.line.clientId === upload.clientId &&
        [...this.guess(one.line)].some((guess) => guess.fits(upload.name)),
    );
    const distance = ({ one }: (typeof fitting)[number]): number => Math.abs(one.at - upload.at);
    return fitting.sort((a, b) => distance(a) - distance(b))[0]?.unit ?? unitOfUpload(upload);
  }

  #join(
    unit: string,
    fresh: Located[],
    rows: readonly JobRow[],
    uploadRows: readonly UploadRow[],
    ended: number[],
  ): void {
    const uploads = uploadRows.map(({ facts }) => parseUpload(facts));
    const textOf = (upload: Upload): string => uploadRows[uploads.indexOf(upload)]?.facts ?? '';
    const lines = rows.length > 0 ? [...fresh] : fresh;
    const hadEnded = new Set<string>();
    for (const row of rows) {
      const { job, lines: old } = readJoined(this.site, row);
      this.#count(job, -1);
      if (job.state !== 'got') hadEnded.add(identify(job));
      for (const one of old) if (!this.#goneFiles.has(one.log)) lines.push(one);
      this.#statements.deleteJob.run(row.id);
    }
    for (const joined of joinUnit(lines, uploads, this.guess)) {
      const id = this.#insert(unit, joined, `[${joined.uploads.map(textOf).join()}]`);
      this.#count(joined.job, 1);
      if (joined.job.state !== 'got' && !(hadEnded.size > 0 && hadEnded.has(identify(joined.job)))) ended.push(id);
    }
  }

  #insert(unit: string, { job, lines }: Joined, uploads: string): number {
    const values: (string | number | null)[] = [];
    for (const field of STORED_FIELDS)
      values.push(columnValue(field, job, this.site) ?? (field.name === 'at' ? '' : null));
    let [first, last, isBroken, text]: [number | null, number | null, number, string] = [null, null, 0, ''];
    for (const { log, line, text: own } of lines) {
      first = first === null || log < first ? log : first;
      last = last === null || log > last ? log : last;
      if (breaksOff(line)) isBroken = 1;
      text += `${text === '' ? '' : '\n'}${log} ${own}`;
    }
    const id = this.#takeJobNumber();
    values.push(unit, rankOf(job), job.seenAt?.getTime() ?? null, isBroken, first, last, text, uploads, id);
    this.#statements.insertJob.run(...values);
    return id;
  }

  /**
   * Returns a number that no row has ever had. Every job that changed after a reader processed the
   * last row therefore has a higher number than that row.
   */
  #takeJobNumber(): number {
    this.#lastJob ??= Number(this.#database.prepare(LAST_JOB).get()?.last);
    this.#lastJob += 1;
    return this.#lastJob;
  }

  #count(job: Job, sign: 1 | -1): void {
    const client = job.clientId ?? '';
    let sums = this.#sums.get(client);
    if (!sums) {
      sums = { counts: [], seen: 0, unseen: 0 };
      this.#sums.set(client, sums);
    }
    const { counts } = sums;
    tally(job, (name, value) => addCount(counts, name, sign * value));
    if (!job.seenAt || job.clientId === undefined) return;
    const seen = sign > 0 ? 'seen' : 'unseen';
    sums[seen] = Math.max(sums[seen], job.seenAt.getTime());
  }

  /** Writes the counts to the store. */
  writeSums(): void {
    const all: Counted = { counts: [], seen: 0, unseen: 0 };
    const read = this.#database.prepare('SELECT seen, counts FROM sums WHERE client = ?');
    const remove = this.#database.prepare('DELETE FROM sums WHERE client = ?');
    const write = this.#database.prepare('INSERT OR REPLACE INTO sums (client, seen, counts) VALUES (?, ?, ?)');
    const save = (client: string, { counts, seen, unseen }: Counted): void => {
      const known = read.get(client) as { seen: number | null; counts: string } | undefined;
      const sums = known ? parseCounts(known.counts) : [];
      for (let at = 0; at < counts.length; at += 2) addCount(sums, counts[at] as string, counts[at + 1] as number);
      const last = Math.max(known?.seen ?? 0, seen);
      const isGone = unseen > 0 && unseen >= last && seen < unseen;
      const text = formatCounts(sums);
      // The client has no jobs left.
      if (text === '') remove.run(client);
      else write.run(client, (isGone ? this.#lastSeen(client) : last) || null, text);
    };
    for (const [client, sums] of this.#sums) {
      save(client, sums);
      for (let at = 0; at < sums.counts.length; at += 2)
        addCount(all.counts, sums.counts[at] as string, sums.counts[at + 1] as number);
    }
    if (this.#sums.size > 0) save(ALL_CLIENTS, all);
    this.#sums.clear();
    this.#writeLocker();
    if (this.#lastJob !== undefined)
      this.#database.prepare("INSERT OR REPLACE INTO facts VALUES ('lastJob', ?)").run(String(this.#lastJob));
  }

  #lastSeen(client: string): number | null {
    return this.#database.prepare('SELECT max(seen) AS seen FROM jobs WHERE client = ?').get(client)?.seen as
      | number
      | null;
  }

  #writeLocker(): void {
    const { complete, incomplete, bytes } = this.#locker;
    if (complete === 0 && incomplete === 0 && bytes === 0) return;
    const known = readLocker(this.#database);
    const totals = {
      complete: known.complete + complete,
      incomplete: known.incomplete + incomplete,
      bytes: known.bytes + bytes,
    };
    this.#database.prepare("INSERT OR REPLACE INTO facts VALUES ('locker', ?)").run(JSON.stringify(totals));
    Object.assign(this.#locker, { complete: 0, incomplete: 0, bytes: 0 });
  }
}

/** The number of uploads in the locker, and the size of all of their files. */
export interface LockerTotals {
  complete: number;
  incomplete: number;
  bytes: number;
}

/** The totals of the locker, from the store. */
export function readLocker(database: Database): LockerTotals {
  const known = database.prepare("SELECT value FROM facts WHERE name = 'locker'").get()?.value as string | undefined;
  return known === undefined ? { complete: 0, incomplete: 0, bytes: 0 } : JSON.parse(known);
}

/** The directory of an upload; `.` for the locker itself. */
function folderOf(name: string): string {
  const slash = name.lastIndexOf('/');
  return slash < 0 ? '.' : name.slice(0, slash);
}

/** The number of units that are joined together. */
const UNITS_AT_ONCE = 4000;

const isAccepted = ({ line }: Located): boolean => line.method === 'PUT' && line.status === 200;

/**
 * A Bloom filter: it may report a text that was never added, but never misses a text that was. Its
 * size is fixed.
 */
interface Bloom {
  add(text: string): void;
  has(text: string): boolean;
}

/**
 * The sizes of the filters in bits. There are fewer uploads than jobs, and a false positive among
 * them costs less.
 */
const BLOOM_BITS = { joined: 1 << 25, uploads: 1 << 24 };

function makeBloom(size: number): Bloom {
  const bits = new Uint8Array(size / 8);
  /** Two hashes that are computed in one pass: FNV-1a and a variant. */
  let [a, b] = [0, 0];
  const hash = (text: string): void => {
    [a, b] = [0x811c9dc5, 0x9747b28c];
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at);
      a = Math.imul(a ^ code, 0x01000193);
      b = Math.imul(b ^ (code + at), 0x5bd1e995);
    }
    a = (a ^ (a >>> 15)) & (size - 1);
    b = (b ^ (b >>> 13)) & (size - 1);
  };
  const isSet = (place: number): boolean => ((bits[place >> 3] ?? 0) & (1 << (place & 7))) !== 0;
  const set = (place: number): void => {
    bits[place >> 3] = (bits[place >> 3] ?? 0) | (1 << (place & 7));
  };
  return {
    add(text) {
      hash(text);
      set(a);
      set(b);
    },
    has(text) {
      hash(text);
      return isSet(a) && isSet(b);
    },
  };
}

/** Adds to the number after a name; a new name is appended. */
function addCount(counts: (string | number)[], name: string, value: number): void {
  for (let at = 0; at < counts.length; at += 2)
    if (counts[at] === name) {
      counts[at + 1] = (counts[at + 1] as number) + value;
      return;
    }
  counts.push(name, value);
}

/** The stored form of counts: `name\tnumber` lines, without zeros. No name contains a tab. */
function formatCounts(counts: readonly (string | number)[]): string {
  let text = '';
  for (let at = 0; at < counts.length; at += 2) if (counts[at + 1] !== 0) text += `${counts[at]}\t${counts[at + 1]}\n`;
  return text;
}

function parseCounts(text: string): (string | number)[] {
  const counts: (string | number)[] = [];
  for (let start = 0; start < text.length; ) {
    const tab = text.indexOf('\t', start);
    const end = text.indexOf('\n', tab);
    counts.push(text.slice(start, tab), Number(text.slice(tab + 1, end)));
    start = end + 1;
  }
  return counts;
}

/** Adds the contribution of a job to the sums. */
export function tally(job: Job, add: (name: string, value: number) => void): void {
  const addRequest = (line: LogLine): void => {
    add(nameOfRequest(line), 1);
    if (line.method === 'GET' && isSuccess(line.status)) add('sent', line.bytesSent);
  };
  add(STATE_NAMES[job.state], 1);
  if (isForeign(job)) add('foreign', 1);
  if (job.get) addRequest(job.get);
  if (job.put) addRequest(job.put);
  for (const line of job.attempts) addRequest(line);
  add('received', uploadBytes(job));
}

const STATE_NAMES = Object.fromEntries(JOB_STATES.map((state) => [state, `state ${state}`])) as Record<
  JobState,
  string
>;
/** The names of requests in the sums, cached so that equal names share memory. */
const requestNames = new Map<string, Map<number, string>>();
const MAX_METHODS = 100;

function nameOfRequest({ method = '-', status }: LogLine): string {
  let names = requestNames.get(method);
  if (!names) {
    if (requestNames.size >= MAX_METHODS) requestNames.clear();
    names = new Map();
    requestNames.set(method, names);
  }
  const name = names.get(status) ?? `request ${method} ${status}`;
  if (names.size < MAX_METHODS) names.set(status, name);
  return name;
}

/** The identity of a job within its unit, before and after it is joined again. */
function identify({ clientId, command, put, get, group }: Job): string {
  return JSON.stringify([clientId, command, put?.time ?? get?.time ?? group?.name, put?.status]);
}

/** Restores a job from its row. */
export function readJoined(site: Site, { lines, joined }: Pick<JobRow, 'lines' | 'joined'>): Joined {
  return joinStored(site, lines, joined === '[]' ? [] : JSON.parse(joined));
}

/** Restores a job from its row and uploads that were already parsed. */
export function joinStored(site: Site, lines: string, uploads: readonly unknown[]): Joined {
  return joinEpisode(parseLines(site, lines), (uploads as StoredUpload[]).map(parseStored));
}

/** Parses the log lines in a row of `jobs`. */
export function parseLines(site: Site, lines: string): Located[] {
  if (lines === '') return [];
  return lines.split('\n').map((row) => {
    const blank = row.indexOf(' ');
    return locate(site, row.slice(blank + 1), Number(row.slice(0, blank)));
  });
}

/** Parses a line of a log. Throws SyntaxError. */
export function locate(site: Site, text: string, log: number): Located {
  return placeLine(site, parseLogLine(text), text, log);
}

/** Adds the time and origin to a parsed line of a log. */
export function placeLine(site: Site, line: LogLine, text: string, log = 0): Located {
  return { line, text, log, at: millisecondsOf(line, site) || 0 };
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
    name,
    place,
    at,
    has: unpackFiles(has),
    isNamed: isNamed === 1,
    ending: unpackEnding(ending),
    jobId: jobId ?? undefined,
    clientId: clientId ?? undefined,
    command: command ?? undefined,
  };
}

/** Parses an upload from its row. */
export function parseUpload(facts: string): Upload {
  return parseStored(JSON.parse(facts));
}
