// Sums over all jobs of a report, collected in one pass, and a few of the newest jobs.
import { timeFields } from 'webjob-protocol';
import { isFailure, type Job, uploadBytes } from '../../ledger/job.ts';
import type { Actor, Tally } from '../../pages/tables.ts';
import type { Site } from '../site/site.ts';

const DAY_SECONDS = 86_400;
/** More bars could not be distinguished on a page. */
const MAX_BARS = 92;

export interface Period extends Tally {
  /** The first day: `2026-11-01`. */
  label: string;
}

export interface SummaryOptions {
  since: Date;
  now: Date;
  site: Site;
}

export interface Summary {
  total: Tally;
  states: Map<Job['state'], number>;
  /** Equal periods of `periodDays` days, from the first day to the present. */
  periods: Period[];
  periodDays: number;
  clients: Map<string, Actor>;
  commands: Map<string, Actor>;
  newest: Newest;
  /** Jobs that failed, were refused or broke off. */
  failures: Newest;
  /** Jobs with differing uploads. */
  differing: Newest;
}

/** Keeps the newest of the jobs that it is given, and their total number. */
export class Newest {
  count = 0;
  readonly #limit: number;
  #jobs: Job[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(job: Job): void {
    this.count++;
    this.#jobs.push(job);
    if (this.#jobs.length >= 2 * this.#limit + 100) this.#jobs = this.jobs;
  }

  /** Newest first. */
  get jobs(): Job[] {
    return this.#jobs.toSorted((a, b) => b.at.getTime() - a.at.getTime()).slice(0, this.#limit);
  }
}

/** Jobs in each table of the overview. */
const SHOWN = 10;

/**
 * Reads every job once. Clients and commands are collected from all jobs, numbers only from jobs
 * since `since`.
 */
export async function summarize(jobs: AsyncIterable<Job> | Iterable<Job>, options: SummaryOptions): Promise<Summary> {
  const summary: Summary = {
    total: emptyTally(),
    states: new Map(),
    ...makePeriods(options),
    clients: new Map(),
    commands: new Map(),
    newest: new Newest(SHOWN),
    failures: new Newest(SHOWN),
    differing: new Newest(SHOWN),
  };
  for await (const job of jobs) addJob(summary, job, options);
  return summary;
}

function addJob(summary: Summary, job: Job, options: SummaryOptions): void {
  const isCounted = job.at >= options.since;
  const actors = [
    job.clientId === undefined ? undefined : actorOf(summary.clients, job.clientId),
    job.command === undefined ? undefined : actorOf(summary.commands, job.command),
  ].filter((actor) => actor !== undefined);
  // A log may have any digits where a time should be.
  if (Number.isNaN(job.at.getTime())) return;
  const { seenAt } = job;
  for (const actor of actors) {
    if (!actor.last || job.at > actor.last.at) actor.last = { state: job.state, at: job.at };
    if (seenAt && (!actor.seenAt || seenAt > actor.seenAt)) actor.seenAt = seenAt;
  }
  if (!isCounted) return;
  const day = dayNumber(job.at, options.site.settings.useGMT) - dayNumber(options.since, options.site.settings.useGMT);
  // A clock that was ahead must not make a job disappear.
  const period = summary.periods[Math.min(summary.periods.length - 1, Math.floor(day / summary.periodDays))];
  for (const tally of [summary.total, period, ...actors]) if (tally) count(tally, job);
  summary.states.set(job.state, (summary.states.get(job.state) ?? 0) + 1);
  summary.newest.add(job);
  if (isFailure(job)) summary.failures.add(job);
  if (job.differing.length > 0) summary.differing.add(job);
}

/** Adds a job to a tally. */
export function count(tally: Tally, job: Job): void {
  tally.jobs++;
  if (isFailure(job)) tally.failures++;
  tally.bytes += uploadBytes(job);
}

function actorOf(actors: Map<string, Actor>, name: string): Actor {
  const known = actors.get(name);
  if (known) return known;
  const actor = { name, ...emptyTally(), seenAt: undefined, last: undefined };
  actors.set(actor.name, actor);
  return actor;
}

function makePeriods({ since, now, site }: SummaryOptions): Pick<Summary, 'periods' | 'periodDays'> {
  const { useGMT: useGmt } = site.settings;
  const first = dayNumber(since, useGmt);
  const days = Math.max(1, dayNumber(now, useGmt) - first + 1);
  const periodDays = Math.ceil(days / MAX_BARS);
  const periods = Array.from({ length: Math.ceil(days / periodDays) }, (_, index) => {
    const day = new Date((first + index * periodDays) * DAY_SECONDS * 1000);
    return { label: day.toISOString().slice(0, 10), ...emptyTally() };
  });
  return { periods, periodDays };
}

/** The date of a time by the site's clock, such as `2026-11-01`. */
export function dayOf(date: Date, useGmt: boolean): string {
  const shown = timeFields(date, useGmt);
  return `${shown.Y}-${shown.m}-${shown.d}`;
}

/** The date of a time by the site's clock, in days since 1970. */
function dayNumber(date: Date, useGmt: boolean): number {
  const { Y, m, d } = timeFields(date, useGmt);
  return Date.UTC(Number(Y), Number(m) - 1, Number(d)) / (DAY_SECONDS * 1000);
}

export function emptyTally(): Tally {
  return { jobs: 0, failures: 0, bytes: 0 };
}
