// The pages that show many jobs: the overview, the lists, and one page for each client and command.
import { countOf } from '../../cli/counts.ts';
import { formatBytes } from '../../cli/output.ts';
import type { Job } from '../../ledger/job.ts';
import { type Bar, formatChart, formatMeter } from '../../pages/charts.ts';
import { html, type Markup } from '../../pages/html.ts';
import {
  type Actor,
  type Book,
  describeState,
  formatActorTable,
  formatClient,
  formatInstant,
  formatJobTable,
  formatSearch,
  formatSpan,
  type Tally,
} from '../../pages/tables.ts';
import { formatTiles, type Tile } from '../../pages/tiles.ts';
import { actorsPath, clientPath, commandPath, dayPath, partPath } from './links.ts';
import type { Page } from './page.ts';
import type { Newest, Period, Summary } from './summary.ts';

const MAX_SILENT_BARS = 5;
const MAX_SILENT_ROWS = 200;

export interface Scope {
  since: Date;
  /** A client that was not seen for this long is silent. */
  silentSeconds: number;
  /** The site's clock in words: `GMT` or `the server's time`. */
  clock: string;
}

/** The custody records as a whole. */
export interface Custody {
  files: number;
  records: number;
  /** The number of records and lines that were changed. */
  faults: number;
}

/** Everything that the overview shows. */
export interface Overview {
  summary: Summary;
  scope: Scope;
  custody: Custody;
  /** Jobs whose files differ from those that were received, or from those that the client sent. */
  unverified: Newest;
  /** The number of jobs with a stream that was not read. */
  unchecked: number;
  /** The number of jobs with a page. */
  listed: number;
  /**
   * The number of listed jobs whose files were read for an earlier report and have not changed
   * since.
   */
  kept: number;
}

export function overviewPage(
  { summary, scope, custody, unverified, unchecked, listed, kept }: Overview,
  book: Book,
): Page {
  const silent = findSilent(summary, scope, book.now);
  const { failures, differing, newest } = summary;
  return {
    title: 'Overview',
    root: '',
    place: 'index.html',
    content: html`<h1>Overview</h1>
<p class="lead">Jobs since ${formatInstant(scope.since, book)}, in ${scope.clock}.</p>
${formatTiles(jobTiles(summary))}
${formatTiles([
  ['bytes received', formatBytes(summary.total.bytes)],
  ['clients ever', summary.clients.size],
  ['clients silent', silent.length, silent.length > 0 ? 'warn' : undefined],
  ['verification failures', unverified.count, unverified.count > 0 ? 'bad' : undefined],
  ...(differing.count > 0 ? [['with differing uploads', differing.count, 'bad'] satisfies Tile] : []),
  ...(unchecked > 0 ? [['not checked', unchecked, 'warn'] satisfies Tile] : []),
])}
<h2>At a glance</h2>
<div class="charts">${formatCharts(summary)}${formatSilent(silent, scope, book)}</div>
<h2>Verification</h2>
<p>${describeCustody(custody)}</p>
${unverified.count > 0 ? formatJobTable('unverified', 'The newest jobs with verification failures', unverified.jobs, '', book) : html`<p class="note">${listed > 0 ? 'No file of a job with a page differs from its records.' : 'There are no jobs.'}</p>`}
${kept > 0 ? html`<p class="note">${describeKept(kept, listed)}</p>` : undefined}
${differing.count > 0 ? formatJobTable('differing', 'The newest jobs with differing uploads', differing.jobs, '', book) : undefined}
<h2>Newest failures</h2>
${formatJobTable('failures', 'The newest jobs that failed, were refused, or broke off', failures.jobs, '', book)}
<h2>Newest jobs</h2>
${formatJobTable('newest', 'The newest jobs', newest.jobs, '', book)}`,
  };
}

function describeKept(kept: number, listed: number): string {
  const what =
    kept === listed ? 'No file was read again' : `The files of ${kept} of ${listed} jobs were not read again`;
  return `${what}: they have not been touched since an earlier report read them. The page of a job says when.`;
}

function describeCustody({ files, records, faults }: Custody): Markup {
  if (files === 0)
    return html`<span class="plain">There is no custody record: nothing says what the server received.</span>`;
  if (faults === 0) return html`<span class="state good">The custody record is intact, ${records} entries.</span>`;
  return html`<span class="state bad">The custody record is not as it was written: ${countOf(faults, 'fault')} in ${countOf(records, 'entry', 'entries')}.</span>`;
}

function jobTiles({ total, states }: Summary): Tile[] {
  const shown = (['done', 'failed', 'refused', 'incomplete', 'got', 'orphan', 'missing'] as const).filter(
    (state) => state === 'done' || state === 'failed' || (states.get(state) ?? 0) > 0,
  );
  return [['jobs', total.jobs], ...shown.map((state): Tile => [describeState(state), states.get(state) ?? 0])];
}

function formatCharts({ periods, periodDays }: Summary): Markup {
  const every = periodDays === 1 ? 'a day' : `every ${periodDays} days`;
  const bars = (value: (period: Period) => number): Bar[] =>
    periods.map((period) => ({ label: period.label, value: value(period) }));
  const labels = periodDays === 1 ? 'Day' : 'From';
  const charts = [
    { id: 'runs', title: `Runs ${every}`, bars: bars(({ jobs }) => jobs), format: String },
    {
      id: 'failures-chart',
      title: `Failures ${every}`,
      bars: bars(({ failures }) => failures),
      format: String,
      isBad: true,
    },
    { id: 'bytes', title: `Bytes ${every}`, bars: bars(({ bytes }) => bytes), format: formatBytes },
  ];
  return html`${charts.map((chart) => formatChart({ ...chart, labels }))}`;
}

interface Silent {
  client: Actor;
  seconds: number;
}

/** Clients that the server has seen, but not within `silentSeconds`, longest silent first. */
function findSilent({ clients }: Summary, { silentSeconds }: Scope, now: Date): Silent[] {
  return [...clients.values()]
    .flatMap((client) => {
      if (!client.seenAt) return [];
      return [{ client, seconds: (now.getTime() - client.seenAt.getTime()) / 1000 }];
    })
    .filter(({ seconds }) => seconds >= silentSeconds)
    .sort((a, b) => b.seconds - a.seconds);
}

function formatSilent(silent: readonly Silent[], { silentSeconds }: Scope, book: Book): Markup {
  const [first] = silent;
  const span = formatSpan(silentSeconds);
  const rest = silent.slice(MAX_SILENT_BARS, MAX_SILENT_ROWS);
  const longest = first?.seconds ?? 1;
  const more = html`<details><summary>All ${silent.length} silent clients</summary>${formatSilentTable('Silent clients, continued', rest, longest, book)}</details>`;
  return html`<figure class="chart">
<figcaption><h3>Silent clients</h3> <span>${silent.length} not seen for ${span} or more</span></figcaption>
${first ? formatSilentTable('Silent clients, the longest silent first', silent.slice(0, MAX_SILENT_BARS), longest, book) : html`<p class="note">None.</p>`}
${rest.length > 0 ? more : undefined}
</figure>`;
}

function formatSilentTable(caption: string, silent: readonly Silent[], longest: number, book: Book): Markup {
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table>
<caption class="quiet">${caption}</caption>
<thead><tr><th scope="col">Client</th><th scope="col">Last seen</th><th scope="col" colspan="2">Silent for</th></tr></thead>
<tbody>
${silent.map(
  ({
    client,
    seconds,
  }) => html`<tr><th scope="row" class="client">${formatClient(client.name, '', book)}</th><td class="time">${formatInstant(client.seenAt, book)}</td><td class="time">${formatSpan(seconds)}</td><td class="wide-cell">${formatMeter(seconds / longest, true)}</td></tr>
`,
)}</tbody>
</table></div>`;
}

/** A day and its jobs with a page. */
export interface Day extends Tally {
  name: string;
  parts: number;
}

/** The content of the page of jobs. */
export interface JobLists {
  summary: Summary;
  /** The number of jobs with a page, and the newest of them. */
  listed: number;
  newest: readonly Job[];
  /** Oldest first. */
  days: readonly Day[];
}

export function jobsPage({ summary: { total }, listed, newest, days }: JobLists, book: Book): Page {
  const all =
    listed < total.jobs
      ? `The newest ${listed} of ${total.jobs} jobs have a page here; webjobctl jobs lists the others.`
      : `All ${listed} jobs of this time.`;
  const scope =
    newest.length < listed
      ? `${all} The newest ${newest.length} are in this table, and all are on the pages of their days.`
      : all;
  return {
    title: 'Jobs',
    root: '',
    place: 'jobs.html',
    content: html`<h1>Jobs</h1>
<p class="lead">${scope}</p>
${newest.length > 0 ? formatSearch('rows', 'jobs') : undefined}
${formatJobTable('rows', 'Jobs, the newest first', newest, '', book)}
${days.length > 0 ? formatDays(days) : undefined}`,
  };
}

function formatDays(days: readonly Day[]): Markup {
  return html`<h2>Days</h2>
<div class="scroll" role="region" aria-label="Days" tabindex="0"><table id="days">
<caption><span>Days, the newest first</span></caption>
<thead><tr><th scope="col">Day</th><th scope="col" class="number">Jobs</th><th scope="col" class="number">Failures</th><th scope="col" class="number">Bytes</th></tr></thead>
<tbody>
${days.toReversed().map(
  ({
    name,
    parts,
    jobs,
    failures,
    bytes,
  }) => html`<tr><th scope="row" class="time"><a href="${dayPath(name, parts)}">${name}</a></th><td class="number">${jobs}</td><td class="number">${failures > 0 ? html`<span class="bad">${failures}</span>` : 0}</td><td class="number">${formatBytes(bytes)}</td></tr>
`,
)}</tbody>
</table></div>`;
}

/**
 * A part of the jobs of a day, a client or a command: those from number `first` on, counted from 1
 * for the oldest.
 */
export interface Part {
  part: number;
  first: number;
  /** Oldest first. */
  jobs: readonly Job[];
  isLast: boolean;
}

export function dayPage(day: string, { part, first, jobs, isLast }: Part, book: Book): Page {
  return {
    title: day,
    root: '../',
    place: 'jobs.html',
    content: html`<h1>${day}</h1>
<p class="lead">Jobs ${first} to ${first + jobs.length - 1} of this day, counted from the oldest.</p>
${formatWays(part, isLast, (number) => `../${dayPath(day, number)}`)}
${formatSearch('rows', 'jobs')}
${formatJobTable('rows', 'Jobs, the newest first', jobs.toReversed(), '../', book)}`,
  };
}

/** Links to older and newer parts. */
function formatWays(part: number, isLast: boolean, pathOf: (part: number) => string): Markup | undefined {
  if (part === 1 && isLast) return undefined;
  const older = part > 1 ? html`<a href="${pathOf(part - 1)}">Older jobs</a>` : undefined;
  const newer = isLast ? undefined : html`<a href="${pathOf(part + 1)}">Newer jobs</a>`;
  return html`<p>${older}${older && newer && ' · '}${newer}</p>`;
}

/** A page of the list of clients or commands. */
export interface ActorList {
  actors: readonly Actor[];
  /** Counted from 1. */
  page: number;
  pages: number;
  /** The number of entries on all pages. */
  count: number;
}

export function actorsPage(kind: 'client' | 'command', { actors, page, pages, count }: ActorList, book: Book): Page {
  const title = kind === 'client' ? 'Clients' : 'Commands';
  const numbers = Array.from({ length: pages }, (_, index) => index + 1);
  const ways = numbers.map((number) =>
    number === page ? html`${number} ` : html`<a href="${actorsPath(kind, number)}">${number}</a> `,
  );
  return {
    title,
    root: '',
    place: kind === 'client' ? 'clients.html' : 'commands.html',
    content: html`<h1>${title}</h1>
<p class="lead">${count} in all.</p>
${pages > 1 ? html`<p>Pages, by name: ${ways}</p>` : undefined}
${actors.length > 0 ? formatSearch('rows', title.toLowerCase()) : undefined}
${formatActorTable(kind, actors, '', book)}`,
  };
}

/** The jobs of a client or a command that have a page. */
export interface ActorJobs {
  /** The newest jobs, newest first. */
  newest: readonly Job[];
  count: number;
  /** The number of pages with all of them; 0 when `newest` is all. */
  parts: number;
}

export function actorPage(
  kind: 'client' | 'command',
  actor: Actor,
  { newest, count, parts }: ActorJobs,
  book: Book,
): Page {
  const isClient = kind === 'client';
  const path = isClient ? clientPath(actor.name) : commandPath(actor.name);
  return {
    title: actor.name,
    root: '../',
    place: isClient ? 'clients.html' : 'commands.html',
    content: html`<h1>${actor.name}</h1>
<p class="lead">${isClient ? 'Client' : 'Command'}, last seen ${formatInstant(actor.seenAt, book)}.</p>
${formatTiles([
  ['jobs', actor.jobs],
  ['failures', actor.failures],
  ['bytes received', formatBytes(actor.bytes)],
])}
<h2>Jobs</h2>
${count < actor.jobs ? html`<p class="note">${count} of ${actor.jobs} have a page.</p>` : undefined}
${parts > 0 ? html`<p>The newest ${newest.length} are in this table. <a href="../${partPath(path, parts)}">All jobs</a></p>` : undefined}
${newest.length > 0 ? formatSearch('rows', 'jobs') : undefined}
${formatJobTable('rows', 'Jobs, the newest first', newest, '../', book)}`,
  };
}

export function actorPartPage(
  kind: 'client' | 'command',
  { name }: Actor,
  { part, first, jobs, isLast }: Part,
  book: Book,
): Page {
  const isClient = kind === 'client';
  const path = isClient ? clientPath(name) : commandPath(name);
  return {
    title: `${name}, jobs from ${first}`,
    root: '../',
    place: isClient ? 'clients.html' : 'commands.html',
    content: html`<h1>${name}</h1>
<p class="lead">Jobs ${first} to ${first + jobs.length - 1} of this ${kind}, counted from the oldest. <a href="../${path}">The newest</a></p>
${formatWays(part, isLast, (number) => `../${partPath(path, number)}`)}
${formatSearch('rows', 'jobs')}
${formatJobTable('rows', 'Jobs, the newest first', jobs.toReversed(), '../', book)}`,
  };
}
