// Writes the pages of a report into an empty folder, one after the other: of the jobs only what tables show is kept, of their output nothing.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Group } from 'webjob-locker';
import { encodeField } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { warn } from '../../cli/output.ts';
import type { Evidence } from '../../evidence/evidence.ts';
import { readRunRecord } from '../../evidence/upload.ts';
import { STREAM_WORDS, type Verdict } from '../../evidence/verdict.ts';
import type { Job } from '../../ledger/job.ts';
import { openStreams, type Stored } from '../../ledger/streams.ts';
import type { Site } from '../site/site.ts';
import { type Heads, readHeads } from './heads.ts';
import { type Case, jobPage, judgeCase } from './jobpage.ts';
import { clientPath, commandPath, jobPath } from './links.ts';
import { actorPage, actorsPage, type Custody, jobsPage, overviewPage, type Scope } from './overview.ts';
import { type Frame, formatPage, type Page } from './page.ts';
import type { Actor, Summary } from './summary.ts';
import type { Book } from './tables.ts';

/** Clients, and commands, with a page of their own: whoever has more finds them with `webjobctl jobs`. */
const MAX_ACTORS = 5000;

export interface ReportPlan {
  summary: Summary;
  scope: Scope;
  frame: Frame;
  now: Date;
  site: Site;
  evidence: Evidence;
  /** Called after every page. */
  advance(): void;
}

/** Returns how many pages there are. Throws the errors of system calls for the folder; a job that cannot be read is warned of. */
export async function writeReport(folder: string, plan: ReportPlan): Promise<number> {
  const { summary, scope } = plan;
  const clients = choose(summary.clients);
  const commands = choose(summary.commands);
  const book: Book = {
    ...{ useGmt: plan.site.settings.useGMT, now: plan.now },
    clients: new Set(clients.map(({ name }) => name)),
    commands: new Set(commands.map(({ name }) => name)),
    jobs: new Set(summary.jobs),
  };
  let pages = 0;
  const write = (path: string, page: Page): void => {
    writeFileSync(join(folder, path), formatPage(page, plan.frame), { mode: 0o644 });
    pages++;
    plan.advance();
  };
  for (const name of ['client', 'command', 'job']) mkdirSync(join(folder, name), 0o755);
  write('jobs.html', jobsPage(summary, book));
  write('clients.html', actorsPage('client', clients, summary.clients.size - clients.length, book));
  write('commands.html', actorsPage('command', commands, summary.commands.size - commands.length, book));
  const byClient = groupBy(summary.jobs, ({ clientId }) => clientId);
  for (const actor of clients)
    write(clientPath(actor.name), actorPage('client', actor, byClient.get(actor.name) ?? [], book));
  const byCommand = groupBy(summary.jobs, ({ command }) => command);
  for (const actor of commands)
    write(commandPath(actor.name), actorPage('command', actor, byCommand.get(actor.name) ?? [], book));
  const judged = { unverified: [] as Job[], unchecked: 0 };
  for await (const shown of openCases(plan)) {
    const verdict = judgeCase(shown);
    if (verdict?.look === 'bad') judged.unverified.push(shown.job);
    if (verdict?.words === STREAM_WORDS.unread) judged.unchecked++;
    write(jobPath(shown.job), jobPage(shown, book));
  }
  const custody = describeRecords(plan.evidence);
  write('index.html', overviewPage({ summary, scope, custody, ...judged }, book));
  return pages;
}

function describeRecords(evidence: Evidence): Custody {
  const { books, count } = evidence.records;
  const files = books.filter(({ folder }) => folder !== undefined).length;
  return { files, records: count, faults: evidence.findFaults().length };
}

/** One job after the other: of their streams no more than one is read at a time. */
async function* openCases({ summary: { jobs }, site, evidence }: ReportPlan): AsyncGenerator<Case> {
  const streamsOf = await openStreams(site, jobs);
  const judgePacked = makePackJudge(jobs, evidence);
  const missing = groupBy([...evidence.missing()], ({ jobId }) => encodeField(jobId));
  const judgeGroup = ({ name }: Group): Verdict => evidence.judge(name, { contents: true, digests: true });
  for (const job of jobs) {
    const { group, packed, uploads, jobId } = job;
    const heads = await tryHeads(job, streamsOf);
    const verdict = group ? judgeGroup(group) : packed && withRecord(judgePacked(packed.pack, packed.name), heads);
    const earlier = uploads.filter(({ name }) => name !== group?.name);
    yield {
      ...{ job, heads, verdict, deposit: evidence.records.find(uploadName(job) ?? '') },
      earlier: earlier.map((other) => ({ name: other.name, verdict: judgeGroup(other) })),
      missing: (jobId === undefined ? [] : (missing.get(jobId) ?? [])).map(({ name }) => name),
    };
  }
}

/** Packs are read once each, whatever the order of the jobs. */
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

/** The run record of an upload in a pack is read with the beginning of its streams. */
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

/** Of its upload, in the locker or in a pack. */
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

/** In the order of names; when there are too many, those with the newest jobs. */
function choose(actors: ReadonlyMap<string, Actor>): Actor[] {
  const newest = [...actors.values()].sort((a, b) => (b.last?.at.getTime() ?? 0) - (a.last?.at.getTime() ?? 0));
  return newest.slice(0, MAX_ACTORS).sort((a, b) => (a.name < b.name ? -1 : 1));
}
