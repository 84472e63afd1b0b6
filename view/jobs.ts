// The list of jobs. Its address contains the filter, the order and the place, so that a list can be
// bookmarked and shared.

import { setImmediate as turn } from 'node:timers/promises';
import { csvFormat } from '../admin/jobs/formats.ts';
import { parseInstant } from '../cli/durations.ts';
import { Failure } from '../cli/failure.ts';
import { jobJson } from '../ledger/fields.ts';
import { expandClients } from '../ledger/groups.ts';
import { JOB_STATES, type Job, type JobState } from '../ledger/job.ts';
import { SCAN_ORDERS, type ScanFilter, type ScanKey, type ScanOrder, scanJobs } from '../ledger/scan.ts';
import { html, type Markup } from '../pages/html.ts';
import { describeState, formatInstant, formatJobTable } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { type Context, formatKey, NotShown, parseKey } from './context.ts';
import { makeTextSearch } from './texts.ts';

/** Rows of a page, and of an answer for programs. */
const PAGE_ROWS = 50;
const DATA_ROWS = 1000;

/** The query of a list, as the user wrote it. */
export interface JobQuery {
  filter: ScanFilter;
  order: ScanOrder;
  text: string | undefined;
}

const FILTER_NAMES = ['client', 'command', 'state', 'exit', 'since', 'until', 'text', 'sort'] as const;

/** Parses a query. Throws NotShown for an invalid field. */
export function parseJobQuery({ params, site }: Pick<Context, 'params' | 'site'>): JobQuery {
  const given = (name: (typeof FILTER_NAMES)[number]): string | undefined => params.get(name)?.trim() || undefined;
  const exit = given('exit');
  if (exit !== undefined && !/^[0-9]{1,10}$/.test(exit)) throw new NotShown(400, 'An exit status is a whole number.');
  const sort = given('sort') ?? 'time';
  if (!isOrder(sort)) throw new NotShown(400, `The orders are ${SCAN_ORDERS.join(', ')}.`);
  const states = params
    .getAll('state')
    .flatMap((text) => text.split(','))
    .filter(Boolean);
  for (const state of states) if (!isState(state)) throw new NotShown(400, `The states are ${JOB_STATES.join(', ')}.`);
  return {
    filter: {
      client: parseClients(site, given('client')),
      command: given('command'),
      states: states as JobState[],
      exitCode: exit === undefined ? undefined : Number(exit),
      since: parseTime(given('since')),
      until: parseTime(given('until')),
    },
    order: sort,
    text: given('text'),
  };
}

/** Client ids, globs and groups, separated by commas. Throws NotShown. */
function parseClients(site: Context['site'], text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  try {
    return expandClients(site, text);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    // If the groups cannot be read, every name is taken as a client id.
    if (/^[^,]*$/.test(text)) return [text];
    throw new NotShown(400, 'The groups of this site cannot be read: webjobctl configtest says why.');
  }
}

const isOrder = (text: string): text is ScanOrder => (SCAN_ORDERS as readonly string[]).includes(text);
const isState = (text: string): text is JobState => (JOB_STATES as readonly string[]).includes(text);

function parseTime(text: string | undefined): Date | undefined {
  if (text === undefined) return undefined;
  try {
    return parseInstant(text);
  } catch {
    throw new NotShown(400, 'A time is written 2026-11-01, "2026-11-01 12:00", or as a DURATION ago: 24h.');
  }
}

export interface FoundJobs {
  jobs: Job[];
  /** Where the next page begins; undefined on the last page. */
  next: ScanKey | undefined;
  /** Whether the time limit was reached before the page was full. */
  isCut: boolean;
}

/** Reads one page of a list. */
export async function findPage(context: Context, query: JobQuery, limit: number): Promise<FoundJobs> {
  const { database, site, params, deadline } = context;
  const search = query.text === undefined ? undefined : makeTextSearch(context, query.text);
  const found: FoundJobs = { jobs: [], next: undefined, isCut: false };
  let last: ScanKey | undefined;
  const filter = { ...query.filter, units: search?.units };
  for (const { key, job } of scanJobs(database, site, filter, query.order, parseKey(params.get('after')))) {
    if (job && (!search || (await search.find(job, 1)).length > 0)) {
      if (found.jobs.length === limit) {
        found.next = last;
        return found;
      }
      found.jobs.push(job);
    }
    last = key;
    // Lets other readers run.
    if (!job) await turn();
    if (performance.now() > deadline) {
      found.isCut = true;
      found.next = last;
      return found;
    }
  }
  return found;
}

export async function jobsPage(context: Context): Promise<Page> {
  const query = parseJobQuery(context);
  const found = await findPage(context, query, PAGE_ROWS);
  const { links, params, book } = context;
  const isLive = params.get('live') === '1' && !params.has('after');
  const own = ownQuery(params);
  const isFiltered = FILTER_NAMES.some((name) => name !== 'sort' && own[name] !== undefined);
  return {
    title: 'Jobs',
    place: '/jobs',
    isPlace: true,
    refreshSeconds: isLive ? 5 : undefined,
    content: html`<h1>Jobs</h1>
${formatFilter(context, own)}
<p class="ways">${isLive ? html`<span class="state good live">Live: loaded again every 5 seconds.</span> <a href="${links.page('/jobs', own)}">Stop</a>` : html`<a href="${links.page('/jobs', { ...own, live: 1 })}">Live</a>`} · <a href="${links.page('/jobs.csv', own)}">CSV</a> · <a href="${links.page('/jobs.json', own)}">JSON</a></p>
${found.jobs.length > 0 ? formatJobTable('rows', describeList(query, params.has('after')), found.jobs, '', book) : formatNone(found, isFiltered, context)}
${formatWays(found, own, context)}`,
  };
}

function describeList({ order }: JobQuery, isBehind: boolean): string {
  const orders: Record<ScanOrder, string> = {
    time: 'the newest first',
    oldest: 'the oldest first',
    client: 'by client',
    command: 'by command',
    state: 'by state',
  };
  return `Jobs, ${orders[order]}${isBehind ? ', continued' : ''}`;
}

function ownQuery(params: URLSearchParams): Record<string, string | undefined> {
  const own: Record<string, string | undefined> = {};
  for (const name of FILTER_NAMES) {
    const value = params.getAll(name).filter(Boolean).join(',').trim();
    if (value !== '') own[name] = value;
  }
  return own;
}

function formatNone({ isCut }: FoundJobs, isFiltered: boolean, { links }: Context): Markup {
  if (isCut) return html`<p class="note">Nothing so far.</p>`;
  return isFiltered
    ? html`<p class="note">No job matches. <a href="${links.page('/jobs')}">Show all jobs</a>, or use * for any text in a name.</p>`
    : html`<p class="note">There are no jobs yet. A client that runs <code>webjob --execute</code> makes the first.</p>`;
}

function formatWays(
  { next, isCut, jobs }: FoundJobs,
  own: Record<string, string | undefined>,
  context: Context,
): Markup {
  const { links, params, book } = context;
  const first = params.has('after') ? html`<a href="${links.page('/jobs', own)}">First page</a>` : undefined;
  const more =
    next &&
    html`<a rel="next" href="${links.page('/jobs', { ...own, after: formatKey(next) })}">${isCut ? 'Continue' : 'Next page'}</a>`;
  const cut =
    isCut && next
      ? html`<p class="note">Searched back to ${formatInstant(new Date(next[1]), book)}; ${jobs.length} found.</p>`
      : undefined;
  return html`${cut}${first || more ? html`<p class="ways">${first}${first && more && ' · '}${more}</p>` : undefined}`;
}

function formatFilter({ links }: Context, own: Record<string, string | undefined>): Markup {
  const field = (name: string, label: string, hint: string, type = 'text'): Markup =>
    html`<div><label for="f-${name}">${label}</label><input id="f-${name}" name="${name}" type="${type}" value="${own[name] ?? ''}" placeholder="${hint}" autocomplete="off" spellcheck="false"></div>`;
  const option = (name: string, value: string, words: string): Markup =>
    html`<option value="${value}"${(own[name] ?? '') === value ? html` selected` : undefined}>${words}</option>`;
  const states = own.state?.includes(',') ? [option('state', own.state, own.state.replaceAll(',', ', '))] : [];
  return html`<form class="filter" action="${links.page('/jobs')}" method="get" aria-label="Filter">
${field('text', 'Text of output', 'anywhere', 'search')}
${field('client', 'Client or group', 'web*')}
${field('command', 'Command', 'any')}
<div><label for="f-state">State</label><select id="f-state" name="state">${option('state', '', 'any')}${states}${JOB_STATES.map((state) => option('state', state, describeState(state)))}</select></div>
${field('exit', 'Exit status', 'any')}
${field('since', 'Since', '24h')}
${field('until', 'Until', 'now')}
<div><label for="f-sort">Order</label><select id="f-sort" name="sort">${option('sort', '', 'newest first')}${option('sort', 'oldest', 'oldest first')}${option('sort', 'client', 'by client')}${option('sort', 'command', 'by command')}${option('sort', 'state', 'by state')}</select></div>
<div class="act"><button type="submit">Show</button> <a href="${links.page('/jobs')}">Clear</a></div>
</form>`;
}

/**
 * The list for programs: jobs in the form of `webjobctl --json jobs`, and a link to the next ones.
 */
export async function jobsJson(context: Context): Promise<unknown> {
  const { jobs, next, isCut } = await findPage(context, parseJobQuery(context), DATA_ROWS);
  const own = ownQuery(context.params);
  return {
    jobs: jobs.map((job) => jobJson(context.site, job)),
    next: next ? context.links.page('/jobs.json', { ...own, after: formatKey(next) }) : null,
    complete: !isCut,
  };
}

/** The list as CSV with the columns of `webjobctl export`; no cell is a formula. */
export async function jobsCsv(context: Context): Promise<string> {
  const { jobs } = await findPage(context, parseJobQuery(context), DATA_ROWS);
  const format = csvFormat(true);
  return format.head() + format.rows(context.site, jobs);
}
