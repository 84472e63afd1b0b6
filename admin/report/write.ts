// Writes the pages of a report into an empty folder, one after the other: of the jobs only what tables show is kept, of their output nothing.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../failure.ts';
import { openStreams, type Stored } from '../history/streams.ts';
import type { Job } from '../job.ts';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { type Custody, readCustody } from './custody.ts';
import { type Evidence, readEvidence } from './evidence.ts';
import { type Case, jobPage } from './jobpage.ts';
import { clientPath, commandPath, jobPath } from './links.ts';
import { actorPage, actorsPage, jobsPage, overviewPage, type Scope } from './overview.ts';
import { type Frame, formatPage, type Page } from './page.ts';
import type { Actor, Summary } from './summary.ts';
import type { Book } from './tables.ts';
import { judgeJob } from './verdict.ts';

/** Clients, and commands, with a page of their own: whoever has more finds them with `webjobctl jobs`. */
const MAX_ACTORS = 5000;

export interface ReportPlan {
  summary: Summary;
  scope: Scope;
  frame: Frame;
  now: Date;
  site: Site;
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
  const custody = readCustody(plan.site, new Set(summary.jobs.flatMap((job) => uploadName(job) ?? [])));
  const streamsOf = await openStreams(plan.site, summary.jobs);
  const unverified: Job[] = [];
  for (const job of summary.jobs) {
    const shown = await openCase(job, streamsOf, custody);
    if (shown.verdict.look === 'bad') unverified.push(job);
    write(jobPath(job), jobPage(shown, book));
  }
  write('index.html', overviewPage({ summary, scope, custody, unverified }, book));
  return pages;
}

function groupBy(jobs: readonly Job[], nameOf: (job: Job) => string | undefined): Map<string | undefined, Job[]> {
  const groups = new Map<string | undefined, Job[]>();
  for (const job of jobs) {
    const name = nameOf(job);
    const group = groups.get(name);
    if (group) group.push(job);
    else groups.set(name, [job]);
  }
  return groups;
}

/** Of its upload, in the locker or in a pack. */
function uploadName({ group, packed }: Job): string | undefined {
  return (group ?? packed)?.name;
}

async function openCase(job: Job, streamsOf: (job: Job) => Stored, custody: Custody): Promise<Case> {
  const deposit = custody.deposits.get(uploadName(job) ?? '');
  const evidence = await tryEvidence(job, streamsOf);
  return { job, evidence, deposit, verdict: judgeJob(job, evidence, deposit) };
}

async function tryEvidence(job: Job, streamsOf: (job: Job) => Stored): Promise<Evidence> {
  try {
    return await readEvidence(streamsOf(job));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined && !(error instanceof Failure)) throw error;
    warn(`${uploadName(job)}: ${message}`);
    return { streams: {}, record: undefined, recordProblem: code ?? message };
  }
}

/** In the order of names; when there are too many, those with the newest jobs. */
function choose(actors: ReadonlyMap<string, Actor>): Actor[] {
  const newest = [...actors.values()].sort((a, b) => (b.last?.at.getTime() ?? 0) - (a.last?.at.getTime() ?? 0));
  return newest.slice(0, MAX_ACTORS).sort((a, b) => (a.name < b.name ? -1 : 1));
}
