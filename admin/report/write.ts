// Writes the pages of a report into an empty folder, one after the other: of the jobs only what tables show is kept, of their output nothing.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Job } from '../job.ts';
import { warn } from '../output.ts';
import { readEvidence } from './evidence.ts';
import { jobPage } from './jobpage.ts';
import { clientPath, commandPath, jobPath } from './links.ts';
import { actorPage, actorsPage, jobsPage, overviewPage, type Scope } from './overview.ts';
import { type Frame, formatPage, type Page } from './page.ts';
import type { Actor, Summary } from './summary.ts';
import type { Book } from './tables.ts';

/** Clients, and commands, with a page of their own: whoever has more finds them with `webjobctl jobs`. */
export const MAX_ACTORS = 5000;

export interface ReportPlan {
  summary: Summary;
  scope: Scope;
  frame: Frame;
  now: Date;
  useGmt: boolean;
  /** IncomingDirectory. */
  locker: string;
  /** Called after every page. */
  advance(): void;
}

/** Returns how many pages there are. Throws the errors of system calls for the folder; a job that cannot be read is warned of. */
export function writeReport(folder: string, plan: ReportPlan): number {
  const { summary, scope } = plan;
  const clients = choose(summary.clients);
  const commands = choose(summary.commands);
  const book: Book = {
    ...{ useGmt: plan.useGmt, now: plan.now },
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
  write('index.html', overviewPage(summary, scope, book));
  write('jobs.html', jobsPage(summary, book));
  write('clients.html', actorsPage('client', clients, summary.clients.size - clients.length, book));
  write('commands.html', actorsPage('command', commands, summary.commands.size - commands.length, book));
  const byClient = groupBy(summary.jobs, ({ clientId }) => clientId);
  for (const actor of clients)
    write(clientPath(actor.name), actorPage('client', actor, byClient.get(actor.name) ?? [], book));
  const byCommand = groupBy(summary.jobs, ({ command }) => command);
  for (const actor of commands)
    write(commandPath(actor.name), actorPage('command', actor, byCommand.get(actor.name) ?? [], book));
  for (const job of summary.jobs) write(jobPath(job), makeJobPage(job, plan.locker, book));
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

function makeJobPage(job: Job, locker: string, book: Book): Page {
  try {
    return jobPage(job, readEvidence(locker, job.group), book);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    warn(`${job.group?.name}: ${message}`);
    return jobPage(job, { streams: {}, record: undefined, recordProblem: `the files: ${code}` }, book);
  }
}

/** In the order of names; when there are too many, those with the newest jobs. */
function choose(actors: ReadonlyMap<string, Actor>): Actor[] {
  const newest = [...actors.values()].sort((a, b) => (b.last?.at.getTime() ?? 0) - (a.last?.at.getTime() ?? 0));
  return newest.slice(0, MAX_ACTORS).sort((a, b) => (a.name < b.name ? -1 : 1));
}
