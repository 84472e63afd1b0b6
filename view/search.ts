// Search in all output: the newest jobs whose output contains a text, with the lines. A job id
// leads to its job.

import { jobJson } from '../ledger/fields.ts';
import type { Job } from '../ledger/job.ts';
import { findById, type ScanKey, scanJobs } from '../ledger/scan.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatMarked } from '../pages/stream.ts';
import { formatClient, formatCommand, formatInstant, formatState } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { type Context, formatKey, parseKey } from './context.ts';
import type { Links } from './links.ts';
import { makeTextSearch, type TextHit } from './texts.ts';

const PAGE_JOBS = 20;
const HITS_OF_JOB = 3;
/** The maximum number of characters of a line that are shown, around the match. */
const SNIPPET_LENGTH = 240;

interface FoundJob {
  job: Job;
  hits: TextHit[];
}

interface Found {
  found: FoundJob[];
  next: ScanKey | undefined;
  isCut: boolean;
}

async function search(context: Context, text: string): Promise<Found> {
  const { database, site, params, deadline } = context;
  const { units, find } = makeTextSearch(context, text);
  const result: Found = { found: [], next: undefined, isCut: false };
  for (const { key, job } of scanJobs(database, site, { units }, 'time', parseKey(params.get('after')))) {
    if (job) {
      const hits = await find(job, HITS_OF_JOB);
      if (hits.length > 0) result.found.push({ job, hits });
    }
    result.isCut = performance.now() > deadline;
    if (!result.isCut && result.found.length < PAGE_JOBS) continue;
    result.next = key;
    return result;
  }
  return result;
}

/** The address of the job whose id was typed; undefined for any other text. */
export function findJobAddress({ database, site, params, links }: Context): string | undefined {
  const text = params.get('q')?.trim() ?? '';
  const [job] = text === '' || /\s/.test(text) ? [] : findById(database, site, text);
  return job && links.job(job);
}

export async function searchPage(context: Context): Promise<Page> {
  const text = context.params.get('q')?.trim() ?? '';
  const { links } = context;
  const result = text === '' ? undefined : await search(context, text);
  return {
    title: text === '' ? 'Search' : `Search: ${text}`,
    place: '/search',
    isPlace: true,
    content: html`<h1>Search</h1>
<form class="filter" role="search" aria-label="Search output" action="${links.page('/search')}" method="get">
<div class="long"><label for="text">Text of output, or a job id</label><input id="text" name="q" type="search" value="${text}" autocomplete="off" spellcheck="false"></div>
<div class="act"><button type="submit">Search</button></div>
</form>
${result ? formatResult(result, text, context) : html`<p class="note">Finds an exact text in the output of programs and in run records. Uploads in archives are searched by <code>webjobctl search</code>.</p>`}`,
  };
}

function formatResult({ found, next, isCut }: Found, text: string, context: Context): Markup {
  const { links, book, params } = context;
  const where = next ? html`Searched back to ${formatInstant(new Date(next[1]), book)}. ` : undefined;
  const more =
    next && html`<a rel="next" href="${links.page('/search', { q: text, after: formatKey(next) })}">Continue</a>`;
  const first = params.has('after')
    ? html`<a href="${links.page('/search', { q: text })}">First page</a> · `
    : undefined;
  return html`<p class="note">${found.length === 0 ? (isCut ? 'Nothing so far. ' : 'No output contains this text. Uploads in archives are searched by webjobctl search. ') : undefined}${where}<a href="${links.page('/search.json', { q: text })}">JSON</a></p>
<ol class="hits">${found.map(
    ({
      job,
      hits,
    }) => html`<li data-row><p>${formatState(job.state)} ${formatInstant(job.at, book)} ${formatClient(job.clientId, '', book)} ${formatCommand(job.command, '', book)} <a data-main class="path" href="${links.job(job)}">${job.jobId ?? 'no job id'}</a></p>
${hits.map((hit) => formatHit(job, hit, text, links))}</li>
`,
  )}</ol>
<p class="ways">${first}${more}</p>`;
}

function formatHit(job: Job, { stream, line, text: whole }: TextHit, text: string, links: Links): Markup {
  const at = whole.indexOf(text);
  const from = Math.max(0, at - 60);
  const shown = whole.slice(from, from + SNIPPET_LENGTH);
  const href = links.job(job, { s: stream, find: text });
  return html`<p class="snippet"><a href="${href}">.${stream} line ${line}</a> <code>${from > 0 ? '…' : undefined}${formatMarked(shown, text)}${from + SNIPPET_LENGTH < whole.length ? '…' : undefined}</code></p>
`;
}

export async function searchJson(context: Context): Promise<unknown> {
  const text = context.params.get('q')?.trim() ?? '';
  const { found, next, isCut } =
    text === '' ? { found: [], next: undefined, isCut: false } : await search(context, text);
  return {
    found: found.map(({ job, hits }) => ({ ...jobJson(context.site, job), hits })),
    next: next ? context.links.page('/search.json', { q: text, after: formatKey(next) }) : null,
    complete: !isCut,
  };
}
