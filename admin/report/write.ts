// Writes the pages of a report. Jobs are read in the order of their pages, a batch at a time.
import { existsSync, lstatSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Group } from 'webjob-locker';
import { encodeField } from 'webjob-protocol';
import { packAt } from '../../archive/packs.ts';
import { Failure } from '../../cli/failure.ts';
import { warn } from '../../cli/output.ts';
import { Acts } from '../../evidence/acts.ts';
import type { Evidence } from '../../evidence/evidence.ts';
import { readRunRecord, statUpload, touchedAt } from '../../evidence/upload.ts';
import { STREAM_WORDS, type Verdict } from '../../evidence/verdict.ts';
import type { Job } from '../../ledger/job.ts';
import { logFolders } from '../../ledger/site.ts';
import { openStreams, type Stored } from '../../ledger/streams.ts';
import { type Heads, readHeads } from '../../pages/heads.ts';
import { type Case, judgeCase } from '../../pages/job.ts';
import type { Actor, Book } from '../../pages/tables.ts';
import type { Site } from '../site/site.ts';
import { jobPage } from './jobpage.ts';
import { actorsPath, clientPath, commandPath, dayPath, jobPath, partPath } from './links.ts';
import {
  actorPage,
  actorPartPage,
  actorsPage,
  type Custody,
  type Day,
  dayPage,
  jobsPage,
  overviewPage,
  type Part,
  type Scope,
} from './overview.ts';
import type { Pages } from './pages.ts';
import { count, dayOf, emptyTally, Newest, type Summary } from './summary.ts';

/** Rows of a part, and of the newest jobs on the pages of all jobs, of a client or of a command. */
const PART_ROWS = 1000;
const NEWEST_ROWS = 500;
/** Rows of the list of clients or commands. */
const ACTOR_ROWS = 1000;
/** Jobs whose archives are opened together, so that each archive is read once for all of them. */
const BATCH = 5000;
/**
 * A file that was changed this recently may change again without a new mtime, because file systems
 * count time in ticks.
 */
const TICK_MS = 2000;

export interface ReportPlan {
  summary: Summary;
  scope: Scope;
  now: Date;
  site: Site;
  evidence: Evidence;
  /** The jobs that may have a page, by time, or grouped by client or command. */
  readJobs(order: 'time' | 'client' | 'command'): AsyncIterable<Job>;
  /** Whether a job has a page. */
  isListed(job: Job): boolean;
}

/** How many jobs have a page. */
export interface Listed {
  listed: number;
}

/**
 * Writes a report. Throws the errors of system calls on its directory; a job that cannot be read
 * causes a warning.
 */
export async function writeReport(folder: string, pages: Pages, plan: ReportPlan): Promise<Listed> {
  const { summary, scope, evidence } = plan;
  for (const name of ['client', 'command', 'day', 'job']) mkdirSync(join(folder, name), 0o755);
  const hasPage = (job: Job): boolean => existsSync(join(folder, jobPath(job)));
  const book: Book = {
    useGmt: plan.site.settings.useGMT,
    now: plan.now,
    clientHref: (clientId, root) => (summary.clients.has(clientId) ? root + clientPath(clientId) : undefined),
    commandHref: (command, root) => (summary.commands.has(command) ? root + commandPath(command) : undefined),
    jobHref: (job, root) => (hasPage(job) ? root + jobPath(job) : undefined),
  };
  const jobs = await writeJobs(pages, plan, book);
  pages.put('jobs.html', jobsPage({ summary, ...jobs, newest: jobs.newest.jobs }, book));
  for (const kind of ['client', 'command'] as const) await writeActors(kind, pages, plan, book);
  const custody = describeRecords(evidence);
  pages.put('index.html', overviewPage({ summary, scope, custody, ...jobs }, book));
  return jobs;
}

interface Written extends Listed {
  newest: Newest;
  days: Day[];
  unverified: Newest;
  unchecked: number;
  /** The number of jobs whose pages were taken from the last report. */
  kept: number;
}

/** Writes the page of every job, and the lists of the days. */
async function writeJobs(pages: Pages, plan: ReportPlan, book: Book): Promise<Written> {
  const written: Written = {
    listed: 0,
    newest: new Newest(NEWEST_ROWS),
    days: [],
    unchecked: 0,
    kept: 0,
    unverified: new Newest(plan.summary.newest.jobs.length),
  };
  const maker = new JobPages(pages, plan, book);
  const lists = new Parts((name, part) => pages.put(dayPath(name, part.part), dayPage(name, part, book)));
  for await (const batch of inBatches(plan.readJobs('time'), plan.isListed)) {
    for await (const [job, word, isKept] of maker.make(batch)) {
      written.listed++;
      if (isKept) written.kept++;
      if (word === 'bad') written.unverified.add(job);
      if (word === 'unread') written.unchecked++;
      written.newest.add(job);
      const day = dayFor(written.days, dayOf(job.at, book.useGmt));
      count(day, job);
      day.parts = Math.ceil(day.jobs / PART_ROWS);
      lists.add(day.name, job);
    }
  }
  lists.end();
  return written;
}

/**
 * The last day, or a new one. When a clock is set back at midnight, the previous day comes again,
 * and its entry is continued.
 */
function dayFor(days: Day[], name: string): Day {
  const last = days.at(-1);
  if (last && name <= last.name) return last;
  const day = { name, parts: 0, ...emptyTally() };
  days.push(day);
  return day;
}

async function* inBatches(jobs: AsyncIterable<Job>, isListed: (job: Job) => boolean): AsyncGenerator<Job[]> {
  let batch: Job[] = [];
  for await (const job of jobs) {
    if (Number.isNaN(job.at.getTime()) || !isListed(job)) continue;
    batch.push(job);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  yield batch;
}

/** Groups successive jobs of the same name into pages of PART_ROWS. */
class Parts {
  readonly #write: (name: string, part: Part) => void;
  #name = '';
  #jobs: Job[] = [];
  #part = 1;

  constructor(write: (name: string, part: Part) => void) {
    this.#write = write;
  }

  add(name: string, job: Job): void {
    if (name !== this.#name) this.end();
    else if (this.#jobs.length === PART_ROWS) this.#flush(false);
    this.#name = name;
    this.#jobs.push(job);
  }

  end(): void {
    if (this.#jobs.length > 0) this.#flush(true);
    this.#part = 1;
  }

  #flush(isLast: boolean): void {
    const first = (this.#part - 1) * PART_ROWS + 1;
    this.#write(this.#name, { part: this.#part, first, jobs: this.#jobs, isLast });
    this.#part++;
    this.#jobs = [];
  }
}

/** Writes the page of every client or command, and their list. */
async function writeActors(kind: 'client' | 'command', pages: Pages, plan: ReportPlan, book: Book): Promise<void> {
  const actors = kind === 'client' ? plan.summary.clients : plan.summary.commands;
  const pathOf = kind === 'client' ? clientPath : commandPath;
  const isSeen = new Set<Actor>();
  const finish = (actor: Actor, newest: Newest, parts: number): void => {
    isSeen.add(actor);
    const jobs = { newest: newest.jobs, count: newest.count, parts };
    pages.put(pathOf(actor.name), actorPage(kind, actor, jobs, book));
  };
  let newest = new Newest(NEWEST_ROWS);
  const parts = new Parts((name, part) => {
    const actor = actors.get(name);
    if (!actor) return;
    const isAll = part.isLast && newest.count <= NEWEST_ROWS;
    if (!isAll) pages.put(partPath(pathOf(name), part.part), actorPartPage(kind, actor, part, book));
    if (part.isLast) finish(actor, newest, isAll ? 0 : part.part);
  });
  let current: string | undefined;
  for await (const job of plan.readJobs(kind)) {
    const name = kind === 'client' ? job.clientId : job.command;
    // A job that arrived after its page would have been written is left for the next report.
    if (name === undefined || Number.isNaN(job.at.getTime()) || !plan.isListed(job) || !book.jobHref(job, '')) continue;
    if (name !== current) {
      parts.end();
      newest = new Newest(NEWEST_ROWS);
      current = name;
    }
    newest.add(job);
    parts.add(name, job);
  }
  parts.end();
  for (const actor of actors.values()) if (!isSeen.has(actor)) finish(actor, new Newest(0), 0);
  const sorted = [...actors.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const count = Math.max(1, Math.ceil(sorted.length / ACTOR_ROWS));
  for (let page = 1; page <= count; page++) {
    const shown = sorted.slice((page - 1) * ACTOR_ROWS, page * ACTOR_ROWS);
    const list = { actors: shown, page, pages: count, count: sorted.length };
    pages.put(actorsPath(kind, page), actorsPage(kind, list, book));
  }
}

function describeRecords(evidence: Evidence): Custody {
  const { books, count: records } = evidence.records;
  const files = books.filter(({ folder }) => folder !== undefined).length;
  return { files, records, faults: evidence.findFaults().length };
}

/** Makes the pages of jobs, or takes them from the last report. */
class JobPages {
  readonly #pages: Pages;
  readonly #plan: ReportPlan;
  readonly #book: Book;
  /** Names of uploads that were recorded and are missing, by job id. */
  readonly #missing: ReadonlyMap<string | undefined, { name: string }[]>;
  readonly #acts: Acts;

  constructor(pages: Pages, plan: ReportPlan, book: Book) {
    this.#pages = pages;
    this.#plan = plan;
    this.#book = book;
    this.#acts = new Acts(logFolders(plan.site));
    this.#missing = groupBy([...plan.evidence.missing()], ({ jobId }) => encodeField(jobId));
  }

  /**
   * Yields each job with the word of its page, `bad`, `unread` or `other`, and whether the page was
   * kept.
   */
  async *make(batch: readonly Job[]): AsyncGenerator<[job: Job, word: string, isKept: boolean]> {
    const kept = new Map<Job, string>();
    const digests = new Map<Job, string>();
    for (const job of batch) {
      const digest = this.#digest(job);
      const word = digest === undefined ? undefined : this.#pages.keep(jobPath(job), digest);
      if (word !== undefined) kept.set(job, word);
      else digests.set(job, digest ?? 'changing');
    }
    const cases = this.#open([...digests.keys()]);
    for (const job of batch) {
      const before = kept.get(job);
      yield before === undefined ? [job, await this.#write(job, digests, cases), false] : [job, before, true];
    }
  }

  async #write(job: Job, digests: ReadonlyMap<Job, string>, cases: AsyncIterator<Case>): Promise<string> {
    const { value: shown } = (await cases.next()) as { value: Case };
    const verdict = judgeCase(shown);
    const word = verdict?.look === 'bad' ? 'bad' : verdict?.words === STREAM_WORDS.unread ? 'unread' : 'other';
    this.#pages.write(jobPath(job), jobPage(shown, this.#book), digests.get(job) ?? '', word);
    return word;
  }

  /**
   * The digest of everything that the page of a job depends on, without reading a stream: the known
   * facts about the job, the state of each of its files, and its records. Undefined when a file has
   * just changed.
   */
  #digest(job: Job): string | undefined {
    const { site, evidence, now } = this.#plan;
    const { records } = evidence;
    const { incomingDirectory: locker } = site.settings;
    const facts: unknown[] = [job, records.hasBegun, this.#missingOf(job), this.#acts.of(job)];
    const names = new Set([job.group, ...job.uploads].flatMap((group) => group?.name ?? []));
    for (const name of names) {
      const files = statUpload(locker, name);
      if (touchedAt(files) > now.getTime() - TICK_MS) return undefined;
      const states = Object.values(files).map(({ ino, size, mode, uid, mtimeMs, ctimeMs }) => [
        ino,
        size,
        mode,
        uid,
        mtimeMs,
        ctimeMs,
      ]);
      const deposit = records.find(name);
      // An upload without a record may still be recorded, or become a finding.
      const state = deposit ?? (files.rdy && records.covers(files.rdy.mtimeMs));
      facts.push(Object.keys(files), states, state);
    }
    if (job.packed) {
      const { archive, manifest } = packAt(site.settings, job.packed.pack);
      for (const path of [archive, manifest]) {
        const found = lstatSync(path, { throwIfNoEntry: false });
        if (found && Math.max(found.mtimeMs, found.ctimeMs) > now.getTime() - TICK_MS) return undefined;
        facts.push(found && [found.ino, found.size, found.mtimeMs, found.ctimeMs]);
      }
      facts.push(records.find(job.packed.name));
    }
    return this.#pages.digest(JSON.stringify(facts));
  }

  #missingOf({ jobId }: Job): string[] {
    return (jobId === undefined ? [] : (this.#missing.get(jobId) ?? [])).map(({ name }) => name);
  }

  /** Yields one job at a time, with its streams one at a time. */
  async *#open(jobs: readonly Job[]): AsyncGenerator<Case> {
    const { site, evidence } = this.#plan;
    const streamsOf = await openStreams(site, jobs);
    const judgePacked = makePackJudge(jobs, evidence);
    const judgeGroup = ({ name }: Group): Verdict => evidence.judge(name, { contents: true, digests: true });
    for (const job of jobs) {
      const { group, packed, uploads } = job;
      const heads = await tryHeads(job, streamsOf);
      const verdict = group ? judgeGroup(group) : packed && withRecord(judgePacked(packed.pack, packed.name), heads);
      const earlier = uploads.filter(({ name }) => name !== group?.name);
      yield {
        job,
        heads,
        verdict,
        deposit: evidence.records.find(uploadName(job) ?? ''),
        earlier: earlier.map((other) => ({ name: other.name, verdict: judgeGroup(other) })),
        missing: this.#missingOf(job),
        acts: this.#acts.of(job),
      };
    }
  }
}

/** Reads each archive once, whatever the order of the jobs. */
function makePackJudge(jobs: readonly Job[], evidence: Evidence): (pack: string, name: string) => Verdict {
  const wanted = new Map<string, Set<string>>();
  for (const { packed } of jobs)
    if (packed) wanted.set(packed.pack, (wanted.get(packed.pack) ?? new Set()).add(packed.name));
  const judges = new Map<string, (name: string) => Verdict>();
  return (pack, name) => {
    const known = judges.get(pack) ?? evidence.judgePack(pack, wanted.get(pack) ?? new Set());
    judges.set(pack, known);
    return known(name);
  };
}

/** The run record of an upload in an archive is read with the beginnings of its streams. */
function withRecord(verdict: Verdict, { env }: Heads): Verdict {
  return env ? { ...verdict, ...readRunRecord(env.head.toString('latin1'), env.size) } : verdict;
}

function groupBy<Type>(
  all: readonly Type[],
  nameOf: (one: Type) => string | undefined,
): Map<string | undefined, Type[]> {
  const groups = new Map<string | undefined, Type[]>();
  for (const one of all) {
    const name = nameOf(one);
    const group = groups.get(name);
    if (group) group.push(one);
    else groups.set(name, [one]);
  }
  return groups;
}

/** The name of a job's upload, in the locker or in an archive. */
function uploadName({ group, packed }: Job): string | undefined {
  return (group ?? packed)?.name;
}

async function tryHeads(job: Job, streamsOf: (job: Job) => Stored): Promise<Heads> {
  try {
    return await readHeads(streamsOf(job));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined && !(error instanceof Failure)) throw error;
    warn(`${uploadName(job)}: ${message}`);
    return {};
  }
}
