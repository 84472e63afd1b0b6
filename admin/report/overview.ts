// The pages that show many jobs: the overview, the lists, and one page a client and a command.
import { formatBytes } from '../../cli/output.ts';
import { isFailure, type Job } from '../../ledger/job.ts';
import { type Bar, formatChart, formatMeter } from './charts.ts';
import { html, type Markup } from './html.ts';
import type { Page } from './page.ts';
import type { Actor, Period, Summary } from './summary.ts';
import {
  type Book,
  describeState,
  formatActorTable,
  formatClient,
  formatInstant,
  formatJobTable,
  formatSearch,
  formatSpan,
} from './tables.ts';

/** Rows in the tables of the overview. */
const MAX_OVERVIEW_ROWS = 10;
const MAX_SILENT_BARS = 5;
const MAX_SILENT_ROWS = 200;

export interface Scope {
  since: Date;
  /** A client that was not seen for so long is silent. */
  silentSeconds: number;
  /** The site's clock, for people: `GMT` or `the server's time`. */
  clock: string;
}

/** The custody records as a whole. */
export interface Custody {
  files: number;
  records: number;
  /** Records and lines that are not as they were written. */
  faults: number;
}

/** All that the overview tells of. */
export interface Overview {
  summary: Summary;
  scope: Scope;
  custody: Custody;
  /** Jobs of which the files are not what was received, or not what the client sent. */
  unverified: readonly Job[];
  /** How many jobs have a stream that nobody read. */
  unchecked: number;
}

export function overviewPage({ summary, scope, custody, unverified, unchecked }: Overview, book: Book): Page {
  const failures = summary.jobs.filter(isFailure).slice(0, MAX_OVERVIEW_ROWS);
  const silent = findSilent(summary, scope, book.now);
  const differing = summary.jobs.filter((job) => job.differing.length > 0);
  return {
    ...{ title: 'Overview', root: '', place: 'index.html' },
    content: html`<h1>Overview</h1>
<p class="lead">Jobs since ${formatInstant(scope.since, book)}, in ${scope.clock}.</p>
${formatTiles(jobTiles(summary))}
${formatTiles([
  ['bytes received', formatBytes(summary.total.bytes)],
  ['clients ever', summary.clients.size],
  ['clients silent', silent.length, silent.length > 0 ? 'warn' : undefined],
  ['do not verify', unverified.length, unverified.length > 0 ? 'bad' : undefined],
  ...(differing.length > 0 ? [['with differing uploads', differing.length, 'bad'] satisfies Tile] : []),
  ...(unchecked > 0 ? [['not checked', unchecked, 'warn'] satisfies Tile] : []),
])}
<h2>At a glance</h2>
<div class="charts">${formatCharts(summary)}${formatSilent(silent, scope, book)}</div>
<h2>Verification</h2>
<p>${describeCustody(custody)}</p>
${unverified.length > 0 ? formatJobTable('unverified', 'The newest jobs of which the files do not verify', unverified.slice(0, MAX_OVERVIEW_ROWS), '', book) : html`<p class="note">${summary.jobs.length > 0 ? 'No file of the jobs that have a page differs from what it is compared with.' : 'There are no jobs.'}</p>`}
${differing.length > 0 ? formatJobTable('differing', 'The newest jobs with differing uploads', differing.slice(0, MAX_OVERVIEW_ROWS), '', book) : undefined}
<h2>Newest failures</h2>
${formatJobTable('failures', 'The newest jobs that failed, were refused, or broke off', failures, '', book)}
<h2>Newest jobs</h2>
${formatJobTable('newest', 'The newest jobs', summary.jobs.slice(0, MAX_OVERVIEW_ROWS), '', book)}`,
  };
}

function describeCustody({ files, records, faults }: Custody): Markup {
  if (files === 0) return html`<span class="plain">There is no custody record: what was received is not known.</span>`;
  if (faults === 0) return html`<span class="state good">The custody record is whole, ${records} entries.</span>`;
  return html`<span class="state bad">The custody record is not as it was written: ${faults} ${faults === 1 ? 'fault' : 'faults'} in ${records} entries.</span>`;
}

type Tile = [name: string, value: string | number, look?: 'warn' | 'bad' | undefined];

function jobTiles({ total, states }: Summary): Tile[] {
  const shown = (['done', 'failed', 'refused', 'incomplete', 'got', 'orphan', 'missing'] as const).filter(
    (state) => state === 'done' || state === 'failed' || (states.get(state) ?? 0) > 0,
  );
  return [['jobs', total.jobs], ...shown.map((state): Tile => [describeState(state), states.get(state) ?? 0])];
}

function formatTiles(tiles: readonly Tile[]): Markup {
  return html`<dl class="tiles">${tiles.map(([name, value, look]) => html`<div><dt>${name}</dt><dd${look && html` class="${look}"`}>${value}</dd></div>`)}</dl>`;
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

/** Those that the server knew once and did not see for long enough, the longest silent first. */
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

export function jobsPage(summary: Summary, book: Book): Page {
  const { jobs, total } = summary;
  const scope =
    jobs.length < total.jobs
      ? `The newest ${jobs.length} of ${total.jobs} jobs have a page here; webjobctl jobs lists the others.`
      : `All ${jobs.length} jobs of this time.`;
  return {
    ...{ title: 'Jobs', root: '', place: 'jobs.html' },
    content: html`<h1>Jobs</h1>
<p class="lead">${scope}</p>
${jobs.length > 0 ? formatSearch('rows', 'jobs') : undefined}
${formatJobTable('rows', 'Jobs, the newest first', jobs, '', book)}`,
  };
}

export function actorsPage(kind: 'client' | 'command', actors: readonly Actor[], left: number, book: Book): Page {
  const title = kind === 'client' ? 'Clients' : 'Commands';
  return {
    ...{ title, root: '', place: kind === 'client' ? 'clients.html' : 'commands.html' },
    content: html`<h1>${title}</h1>
<p class="lead">${left > 0 ? `${actors.length} with the newest jobs; ${left} more are left out.` : `${actors.length} in all.`}</p>
${actors.length > 0 ? formatSearch('rows', title.toLowerCase()) : undefined}
${formatActorTable(kind, actors, '', book)}`,
  };
}

export function actorPage(kind: 'client' | 'command', actor: Actor, jobs: readonly Job[], book: Book): Page {
  const isClient = kind === 'client';
  return {
    ...{ title: actor.name, root: '../', place: isClient ? 'clients.html' : 'commands.html' },
    content: html`<h1>${actor.name}</h1>
<p class="lead">${isClient ? 'Client' : 'Command'}, last seen ${formatInstant(actor.seenAt, book)}.</p>
${formatTiles([
  ['jobs', actor.jobs],
  ['failures', actor.failures],
  ['bytes received', formatBytes(actor.bytes)],
])}
<h2>Jobs</h2>
${jobs.length < actor.jobs ? html`<p class="note">${jobs.length} of ${actor.jobs} have a page.</p>` : undefined}
${jobs.length > 0 ? formatSearch('rows', 'jobs') : undefined}
${formatJobTable('rows', 'Jobs, the newest first', jobs, '../', book)}`,
  };
}
