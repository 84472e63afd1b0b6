// The page of one client: its runs, the newest result of each of its commands, and the changes
// since the previous run.

import { formatBytes } from '../cli/output.ts';
import { jobJson } from '../ledger/fields.ts';
import { isFailure, type Job, type JobState } from '../ledger/job.ts';
import { type ClientTotals, readClient } from '../ledger/jobs.ts';
import { findEarlier, newestOfEach, scanJobs } from '../ledger/scan.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatCommand, formatEnd, formatInstant, formatJobTable, formatSpan, formatState } from '../pages/tables.ts';
import { formatTiles } from '../pages/tiles.ts';
import type { Page } from './answer.ts';
import { type Context, NotShown } from './context.ts';
import { digestOutputs, type Output } from './digests.ts';
import { asFormat } from './links.ts';
import { formatMissed, missedJsonOf } from './missed.ts';
import { formatStatusTime, statusOf } from './status.ts';
import { formatTimeline } from './timeline.ts';
import { groupDigits } from './words.ts';

const MAX_COMMANDS = 100;
const SHOWN_JOBS = 20;
const TIMELINE_JOBS = 1000;
export const TIMELINE_DAYS = 14;
/**
 * The states that count as failed here and in the list of clients; refused requests are counted
 * separately.
 */
export const FAILED_STATES: readonly JobState[] = ['failed', 'incomplete', 'missing'];
/** The number of runs from which the usual interval is computed. */
const PERIOD_RUNS = 12;

/** The newest result of a command, and whether it differs from the previous run. */
interface Newest {
  job: Job;
  output: Output;
  earlier: Job | undefined;
  /** Whether the output differs from the previous one; undefined when that is unknown. */
  isChanged: boolean | undefined;
}

interface Client {
  name: string;
  totals: ClientTotals;
  newest: Newest[];
  /** Newest first. */
  recent: Job[];
}

/** Reads the data of the page. Throws NotShown for an unknown client. */
async function readClientPage(context: Context, name: string): Promise<Client> {
  const { database, site, now, deadline } = context;
  const totals = readClient(database, name);
  if (!totals) throw new NotShown(404, `No client ${name} is known. Clients are on the page Clients.`);
  const recent: Job[] = [];
  const since = new Date(now.getTime() - TIMELINE_DAYS * 86_400_000);
  for (const { job } of scanJobs(database, site, { client: name }, 'time')) {
    if (!job || performance.now() > deadline || recent.length >= TIMELINE_JOBS) break;
    if (job.at < since && recent.length >= SHOWN_JOBS) break;
    recent.push(job);
  }
  const jobs = newestOfEach(database, site, { client: name }, { limit: MAX_COMMANDS });
  const earlier = jobs.map((job) => findEarlier(database, site, job));
  const known = earlier.filter((job) => job !== undefined);
  const outputs = await digestOutputs(context, [...jobs, ...known]);
  const newest = jobs.map((job, index): Newest => {
    const before = earlier[index];
    const output = outputs[index] ?? 'missing';
    const old = before && outputs[jobs.length + known.indexOf(before)];
    const isKnown = typeof output === 'object' && typeof old === 'object';
    return { job, output, earlier: before, isChanged: isKnown ? output.sha256 !== old.sha256 : undefined };
  });
  return { name, totals, newest, recent };
}

export async function clientPage(context: Context, name: string): Promise<Page> {
  const { totals, newest, recent } = await readClientPage(context, name);
  const { book, links, now } = context;
  const count = [...totals.states.values()].reduce((sum, value) => sum + value, 0);
  const failures = FAILED_STATES.reduce((sum, state) => sum + (totals.states.get(state) ?? 0), 0);
  const changed = newest.filter(({ isChanged }) => isChanged).length;
  const mine = links.page('/jobs', { client: name });
  return {
    title: name,
    place: '/clients',
    content: html`<h1>${name}</h1>
<p class="lead">Client, last seen ${formatInstant(totals.seenAt, book)}. ${describePeriod(recent, totals.seenAt, now)}</p>
${formatTiles([
  ['jobs', groupDigits(count), undefined, mine],
  [
    'failed',
    groupDigits(failures),
    failures > 0 ? 'bad' : undefined,
    links.page('/jobs', { client: name, state: FAILED_STATES.join(',') }),
  ],
  ['changed since the previous run', changed, changed > 0 ? 'warn' : undefined, '#commands'],
  ['bytes received', formatBytes(totals.received)],
])}
${formatMissedOf(context, name)}
<h2>The last ${TIMELINE_DAYS} days</h2>
${formatTimeline(recent, now, TIMELINE_DAYS, context)}
<h2 id="commands">Newest results</h2>
${formatNewest(newest, context)}
<h2>Newest jobs</h2>
${formatJobTable('rows', `Jobs of ${name}, the newest first`, recent.slice(0, SHOWN_JOBS), '', book)}
<p class="ways"><a href="${mine}">All jobs of this client</a> · <a href="${asFormat(links.client(name), 'json')}">JSON</a></p>`,
  };
}

const SHOWN_MISSED = 100;

/** The missed expectations of this client; undefined when there are none. */
function formatMissedOf(context: Context, name: string): Markup | undefined {
  const status = statusOf(context);
  const missed = status?.problemsOf(name, 'expectations', SHOWN_MISSED) ?? [];
  if (!status || missed.length === 0) return undefined;
  return html`<h2 id="missed">Expectations missed</h2>
${formatMissed(missed, context)}
${formatStatusTime(status, context)}`;
}

/** The usual interval between two runs, in words. */
function describePeriod(recent: readonly Job[], seenAt: Date | undefined, now: Date): string {
  const times = recent
    .filter((job) => job.put)
    .slice(0, PERIOD_RUNS)
    .map(({ at }) => at.getTime());
  const gaps = times
    .slice(1)
    .map((at, index) => (times[index] ?? at) - at)
    .filter((gap) => gap > 60_000)
    .sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)];
  if (usual === undefined || !seenAt || gaps.length < 3) return '';
  const silence = now.getTime() - seenAt.getTime();
  const late = silence > 2 * usual ? `, and now silent for ${formatSpan(silence / 1000)}` : '';
  return `It usually runs every ${formatSpan(usual / 1000)}${late}.`;
}

function formatNewest(newest: readonly Newest[], context: Context): Markup {
  if (newest.length === 0) return html`<p class="note">This client has sent no output yet.</p>`;
  const { book, links } = context;
  return html`<div class="scroll" role="region" aria-label="Newest results" tabindex="0"><table class="stack">
<caption><span>The newest result of each command, by name</span></caption>
<thead><tr><th scope="col">Command</th><th scope="col">State</th><th scope="col">Time</th><th scope="col">End</th><th scope="col">Output</th><th scope="col">Job</th></tr></thead>
<tbody>
${newest.map(
  ({ job, output, earlier, isChanged }) =>
    html`<tr><th scope="row" class="command">${formatCommand(job.command, '', book)}</th><td>${formatState(job.state)}</td><td class="time">${formatInstant(job.at, book)}</td><td class="time">${formatEnd(job)}</td><td>${formatChange(output, earlier, isChanged, job, context)}</td><td class="job"><a href="${links.job(job)}">${job.jobId ?? 'no job id'}</a></td></tr>
`,
)}</tbody>
</table></div>`;
}

function formatChange(
  output: Output,
  earlier: Job | undefined,
  isChanged: boolean | undefined,
  job: Job,
  { links }: Context,
): Markup {
  if (typeof output === 'string') return html`<span class="plain">${output}</span>`;
  if (!earlier) return html`<span class="plain">the first</span>`;
  if (isChanged === undefined) return html`<span class="plain">not compared</span>`;
  if (!isChanged) return html`<span class="state good same">as before</span>`;
  const words = html`<span class="state warn changed">changed</span>`;
  if (earlier.jobId === undefined || job.jobId === undefined) return words;
  return html`<a href="${links.page('/diff', { from: earlier.jobId, to: job.jobId })}">${words}</a>`;
}

export async function clientJson(context: Context, name: string): Promise<unknown> {
  const { totals, newest, recent } = await readClientPage(context, name);
  const { site } = context;
  return {
    client: name,
    seenAt: totals.seenAt?.toISOString() ?? null,
    states: Object.fromEntries(totals.states),
    newest: newest.map(({ job, output, isChanged }) => ({
      ...jobJson(site, job),
      outputSha256: typeof output === 'object' ? output.sha256 : null,
      changed: isChanged ?? null,
    })),
    missed: (statusOf(context)?.problemsOf(name, 'expectations', SHOWN_MISSED) ?? []).map(missedJsonOf),
    failures: recent.filter(isFailure).length,
    jobs: recent.slice(0, SHOWN_JOBS).map((job) => jobJson(site, job)),
  };
}
