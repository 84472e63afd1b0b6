// The page of one job: its requests, whether the files match the run record, the program's output,
// and the run record itself.
import type { Job } from '../../ledger/job.ts';
import type { Heads } from '../../pages/heads.ts';
import { html, type Markup } from '../../pages/html.ts';
import {
  type Case,
  formatActs,
  formatFacts,
  formatLog,
  formatRecordTable,
  formatVerdict,
  formatVerification,
} from '../../pages/job.ts';
import { formatStream } from '../../pages/stream.ts';
import { type Book, formatInstant, formatState } from '../../pages/tables.ts';
import type { Page } from './page.ts';

const ROOT = '../';

export function jobPage(shown: Case, book: Book): Page {
  const { job, heads, verdict } = shown;
  const name = `${job.command ?? 'unknown command'} on ${job.clientId ?? 'unknown client'}`;
  return {
    title: `${name}, ${job.jobId ?? 'no job id'}`,
    root: ROOT,
    place: 'jobs.html',
    content: html`<h1>${name}</h1>
<p class="lead">${formatState(job.state)} · ${formatInstant(job.at, book)}${formatVerdict(shown)}</p>
<h2>Job</h2>
${formatFacts(shown, ROOT, book)}
<h2 id="verification">Verification</h2>
${formatVerification(shown)}
${formatActs(shown, book)}
<h2 id="output">Output</h2>
${formatOutput(job, heads)}
<h2 id="record">Record</h2>
${formatRecordTable(verdict, heads)}
<h2 id="log">Log</h2>
${formatLog(job)}`,
  };
}

function formatOutput({ group, packed }: Job, heads: Heads): Markup {
  if (!group && !packed) return html`<p class="note">There is none.</p>`;
  const titles = [
    ['out', 'Standard output'],
    ['err', 'Standard error'],
  ] as const;
  return html`${titles.map(([name, title]) => {
    const stream = heads[name];
    return html`<section aria-labelledby="${name}"><h3 id="${name}">${title}</h3>
${stream ? formatStream(title, stream) : html`<p class="note">The file is missing.</p>`}</section>
`;
  })}`;
}
