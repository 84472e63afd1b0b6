// The overview: what needs attention now, and the last thirty days.
import { statfsSync } from 'node:fs';
import { STATUS_PARTS, type Status, type StatusPart } from '../admin/acts/status.ts';
import { listServers, newestCheckpoint } from '../admin/site/logs.ts';
import { formatBytes } from '../cli/output.ts';
import { jobJson } from '../ledger/fields.ts';
import type { Job, JobState } from '../ledger/job.ts';
import { listSilent, readTotals } from '../ledger/jobs.ts';
import { type SpanSums, scanJobs, sumSpan } from '../ledger/scan.ts';
import type { Site } from '../ledger/site.ts';
import { readLocker } from '../ledger/writer.ts';
import { formatChart } from '../pages/charts.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatInstant, formatJobTable, formatSpan } from '../pages/tables.ts';
import { formatTiles } from '../pages/tiles.ts';
import type { Page } from './answer.ts';
import { readChanges } from './changes.ts';
import type { Context } from './context.ts';
import { dayStart, dayText } from './days.ts';
import { NO_STATUS, statusOf } from './status.ts';
import { countOf, groupDigits } from './words.ts';

const DAYS = 30;
const DAY_MS = 86_400_000;
/** A client that was not seen for this long is silent. */
const SILENT_DAYS = 2;
const SHOWN_SILENT = 5;
const SHOWN_JOBS = 10;
/** Less free space than this is reported as low. */
const LITTLE_SHARE = 0.1;
/** An older checkpoint is reported, because it says nothing about later records. */
const OLD_CHECKPOINT_DAYS = 2;

interface Day extends SpanSums {
  label: string;
  since: Date;
  until: Date;
}

/** Something that needs attention; listed worst first. */
interface Need {
  look: 'bad' | 'warn';
  shape: string;
  words: string;
  detail: Markup | string;
  href: string | undefined;
}

interface Overview {
  days: Day[];
  last: SpanSums;
  needs: Need[];
  failures: Job[];
  newest: Job[];
}

const FAILURES: readonly JobState[] = ['failed', 'incomplete', 'refused'];

function read(context: Context): Overview {
  const { database, now } = context;
  const last = sumSpan(database, new Date(now.getTime() - DAY_MS), new Date(now.getTime() + DAY_MS));
  return {
    days: readDays(context),
    last,
    needs: findNeeds(context, last),
    failures: readSome(context, { states: ['failed', 'incomplete'] }),
    newest: readSome(context, {}),
  };
}

function readSome({ database, site, deadline }: Context, filter: { states?: readonly JobState[] }): Job[] {
  const jobs: Job[] = [];
  for (const { job } of scanJobs(database, site, filter, 'time')) {
    if (job) jobs.push(job);
    if (jobs.length === SHOWN_JOBS || performance.now() > deadline) break;
  }
  return jobs;
}

function readDays({ database, book: { useGmt, now } }: Context): Day[] {
  return Array.from({ length: DAYS }, (_, index): Day => {
    const before = DAYS - 1 - index;
    const since = dayStart(now, useGmt, before);
    // A job whose clock was ahead counts as one of today.
    const until = before === 0 ? new Date(now.getTime() + DAY_MS) : dayStart(now, useGmt, before - 1);
    return { label: dayText(since, useGmt), since, until, ...sumSpan(database, since, until) };
  });
}

const countOfStates = ({ states }: SpanSums, names?: readonly JobState[]): number =>
  [...states].reduce((sum, [state, count]) => sum + (!names || names.includes(state) ? count : 0), 0);

function findNeeds(context: Context, last: SpanSums): Need[] {
  const { links, database, site, now, book } = context;
  const jobs = (state: JobState, words: string, look: Need['look']): Need[] => {
    const count = last.states.get(state) ?? 0;
    if (count === 0) return [];
    const href = links.page('/jobs', { state, since: '24h' });
    return [{ look, shape: state, words: `${groupDigits(count)} ${words}`, detail: 'in the last 24 hours', href }];
  };
  const missing = readTotals(database).states.get('missing') ?? 0;
  const silent = listSilent(database, new Date(now.getTime() - SILENT_DAYS * DAY_MS), SHOWN_SILENT);
  const names = silent.clients.map(
    ([clientId, seenAt], index) =>
      html`${index > 0 ? ', ' : undefined}<a href="${links.client(clientId)}">${clientId}</a> for ${formatSpan((now.getTime() - seenAt.getTime()) / 1000)}`,
  );
  return [
    ...(missing > 0
      ? [
          {
            look: 'bad',
            shape: 'missing',
            words: `${countOf(missing, 'upload')} missing`,
            detail: 'acknowledged, and neither removed nor archived',
            href: links.page('/jobs', { state: 'missing' }),
          } as const,
        ]
      : []),
    ...jobs('failed', 'failed', 'bad'),
    ...jobs('incomplete', 'incomplete', 'bad'),
    ...jobs('refused', 'refused', 'bad'),
    ...(silent.count > 0
      ? [
          {
            look: 'warn',
            shape: 'silent',
            words: `${countOf(silent.count, 'client')} silent`,
            detail: html`${names}${silent.count > names.length ? ', and more' : undefined}`,
            href: undefined,
          } as const,
        ]
      : []),
    ...findChanges(context),
    ...findStatusNeeds(context),
    ...findSiteNeeds(site, now, (date) => formatInstant(date, book)),
  ];
}

const SHOWN_CHANGES = 3;

/** Results of a day that differ from those of the runs before. */
function findChanges({ database, now, links }: Context): Need[] {
  const { count, changes } = readChanges(database, new Date(now.getTime() - DAY_MS), SHOWN_CHANGES);
  if (count === 0) return [];
  const detail = changes.map(
    ({ client, command, job, earlier }, index) =>
      html`${index > 0 ? ', ' : undefined}<a href="${links.page('/diff', { from: earlier, to: job })}">${command} on ${client}</a>`,
  );
  return [
    {
      look: 'warn',
      shape: 'changed',
      words: `${countOf(count, 'result')} changed`,
      detail: html`in the last 24 hours: ${detail}${count > changes.length ? ', and more' : undefined}`,
      href: undefined,
    },
  ];
}

const SHOWN_PROBLEMS = 3;

/** Problems that only root can find, from the status that root wrote. */
function findStatusNeeds(context: Context): Need[] {
  const status = statusOf(context);
  if (!status) return [];
  const { links, now, book } = context;
  const needs: Need[] = [];
  const add = (
    part: StatusPart,
    look: Need['look'],
    shape: string,
    words: (count: number) => string,
    href?: string,
  ) => {
    const failure = status.failureOf(part);
    if (failure !== undefined)
      needs.push({ look: 'warn', shape: 'record', words: `${part} not checked`, detail: failure, href: undefined });
    const count = status.count(part);
    if (count === 0) return;
    const detail = status
      .problems(part, 0, SHOWN_PROBLEMS)
      .map(
        ({ client, command, what }, index) =>
          html`${index > 0 ? '; ' : undefined}${client === null ? undefined : html`<a href="${links.client(client)}">${client}</a>${command === null || command === '*' ? undefined : `, ${command}`}: `}${what}`,
      );
    needs.push({
      look,
      shape,
      words: words(count),
      href,
      detail: html`${detail}${count > SHOWN_PROBLEMS ? '; and more' : undefined}`,
    });
  };
  const missed = (count: number): string => `${countOf(count, 'expectation')} missed`;
  add('expectations', 'bad', 'missed', missed, links.page('/missed'));
  add('verification', 'bad', 'changed', (count) => `${countOf(count, 'finding')} of verify`);
  const { verified } = status;
  const at = verified?.at ?? undefined;
  if (verified && (at === undefined || now.getTime() - at > 2000 * verified.every))
    needs.push({
      look: 'warn',
      shape: 'record',
      words: 'unverified',
      href: undefined,
      detail: html`the locker was ${at === undefined ? 'never verified' : html`last verified ${formatInstant(new Date(at), book)}`}: webjobctl alert does it`,
    });
  add('rollouts', 'warn', 'held', (count) => `${countOf(count, 'rollout')} stopped`, links.page('/assignments'));
  add('certificates', 'warn', 'record', (count) => `${countOf(count, 'certificate')} to renew`);
  return needs;
}

/** Problems of the disk and the custody record, as far as this user can see them. */
function findSiteNeeds(site: Site, now: Date, formatTime: (date: Date) => Markup): Need[] {
  const needs: Need[] = [];
  const { settings } = site;
  const add = (shape: string, words: string, detail: Need['detail']): void => {
    needs.push({ look: 'warn', shape, words, detail, href: undefined });
  };
  try {
    const disk = statfsSync(settings.incomingDirectory);
    if (disk.bavail < disk.blocks * LITTLE_SHARE)
      add(
        'disk',
        'little space for uploads',
        `${formatBytes(disk.bavail * disk.bsize)} of ${formatBytes(disk.blocks * disk.bsize)} are free`,
      );
    if (disk.files > 0 && disk.ffree < disk.files * LITTLE_SHARE)
      add('disk', 'few inodes left', `${groupDigits(disk.ffree)} of ${groupDigits(disk.files)} are free`);
  } catch {
    add('disk', 'the locker cannot be read', 'its file system does not answer');
  }
  for (const serverId of listServers(settings)) {
    const checkpoint = newestCheckpoint(settings, serverId);
    if (checkpoint && now.getTime() - checkpoint.getTime() > OLD_CHECKPOINT_DAYS * DAY_MS)
      add(
        'record',
        'the newest checkpoint is old',
        html`${serverId}: ${formatTime(checkpoint)}. webjobctl custody checkpoint makes the next`,
      );
  }
  return needs;
}

export function overviewPage(context: Context): Page {
  const { days, last, needs, failures, newest } = read(context);
  const { database, links, book } = context;
  const { complete, bytes } = readLocker(database);
  return {
    title: 'Overview',
    place: '/',
    isPlace: true,
    content: html`<h1>Overview</h1>
${formatNeeds(needs)}
${formatStatusNote(context)}
${formatTiles([
  ['jobs in 24 hours', groupDigits(countOfStates(last)), undefined, links.page('/jobs', { since: '24h' })],
  [
    'done in 24 hours',
    groupDigits(last.states.get('done') ?? 0),
    undefined,
    links.page('/jobs', { since: '24h', state: 'done' }),
  ],
  ['uploads in the locker', groupDigits(complete)],
  ['bytes in the locker', formatBytes(bytes)],
])}
<h2>The last ${DAYS} days</h2>
<div class="charts three">${formatCharts(days, context)}</div>
<h2>Newest failures</h2>
${failures.length > 0 ? formatJobTable('failures', 'The newest jobs that failed or broke off', failures, '', book) : html`<p class="note">No job has failed.</p>`}
<p class="ways"><a href="${links.page('/jobs', { state: FAILURES.join(',') })}">All failures</a> · <a href="${links.page('/failures.atom')}">Atom feed</a></p>
<h2>Newest jobs</h2>
${newest.length > 0 ? formatJobTable('newest', 'The newest jobs', newest, '', book) : html`<p class="note">There are no jobs yet. A client that runs <code>webjob --execute</code> makes the first.</p>`}
<p class="ways"><a href="${links.page('/jobs')}">All jobs</a> · <a href="${links.page('/jobs', { live: 1 })}">Live</a> · <a href="${links.page('/index.json')}">JSON</a></p>`,
  };
}

function formatNeeds(needs: readonly Need[]): Markup {
  if (needs.length === 0)
    return html`<p class="needs none"><span class="state good done">Nothing needs attention now.</span></p>`;
  return html`<h2>Needs attention</h2>
<ul class="needs">${needs.map(
    ({ look, shape, words, detail, href }) =>
      html`<li><span class="state ${look} ${shape}">${href === undefined ? words : html`<a href="${href}">${words}</a>`}</span> <span class="detail">${detail}</span></li>
`,
  )}</ul>`;
}

/** Formats the note on the last verification, and on the age of root's status. */
function formatStatusNote(context: Context): Markup {
  const status = statusOf(context);
  if (!status) return NO_STATUS;
  const { verified } = status;
  const words = !verified
    ? html`Nothing verifies the locker regularly: with <code>warn verify</code> in the file expect, webjobctl alert does`
    : html`Verified ${formatInstant(verified.at === null ? undefined : new Date(verified.at), context.book)}`;
  return html`<p class="note">${words}. Certificates, expectations and assignments are as root saw them at ${formatInstant(status.at, context.book)}.</p>`;
}

function formatCharts(days: readonly Day[], { links }: Context): Markup {
  const bars = (value: (day: Day) => number, query: Record<string, string>) =>
    days.map((day) => ({
      label: day.label,
      value: value(day),
      href: links.page('/jobs', {
        ...query,
        since: day.since.toISOString(),
        until: new Date(day.until.getTime() - 1).toISOString(),
      }),
    }));
  const failures = (day: Day): number => countOfStates(day, FAILURES);
  return html`${[
    { id: 'runs', title: 'Jobs a day', bars: bars((day) => countOfStates(day), {}), format: groupDigits },
    {
      id: 'failed',
      title: 'Failures a day',
      bars: bars(failures, { state: FAILURES.join(',') }),
      format: groupDigits,
      isBad: true,
    },
    { id: 'bytes', title: 'Bytes a day', bars: bars(({ bytes }) => bytes, {}), format: formatBytes },
  ].map((chart) => formatChart({ ...chart, labels: 'Day' }))}`;
}

export function overviewJson(context: Context): unknown {
  const { days, last, needs, failures, newest } = read(context);
  const { site, database, now } = context;
  const status = statusOf(context);
  return {
    states: Object.fromEntries(readTotals(database).states),
    lastDay: Object.fromEntries(last.states),
    locker: readLocker(database),
    needs: needs.map(({ shape, words }) => ({ kind: shape, words })),
    changed: readChanges(database, new Date(now.getTime() - DAY_MS), MAX_CHANGES).changes,
    status: status ? describeStatus(status) : null,
    days: days.map(({ label, states, bytes }) => ({ day: label, states: Object.fromEntries(states), bytes })),
    failures: failures.map((job) => jobJson(site, job)),
    newest: newest.map((job) => jobJson(site, job)),
  };
}

const MAX_CHANGES = 1000;

function describeStatus(status: Status): unknown {
  const { at, verified } = status;
  const parts = STATUS_PARTS.map((part) => [
    part,
    { problems: status.count(part), failure: status.failureOf(part) ?? null },
  ]);
  const verifiedAt = verified?.at ? new Date(verified.at).toISOString() : null;
  return { at: at.toISOString(), verifiedAt, ...Object.fromEntries(parts) };
}
