// Tables that several pages share: jobs, clients and commands; and the form of states, times and
// sizes.
import { formatTime } from 'webjob-protocol';
import { countOf } from '../cli/counts.ts';
import { formatBytes } from '../cli/output.ts';
import { describeDiffering } from '../ledger/fields.ts';
import { type Job, uploadBytes } from '../ledger/job.ts';
import { html, type Markup } from './html.ts';

/** The links between pages. `root` leads from the page to the directory of all pages. */
export interface Book {
  useGmt: boolean;
  now: Date;
  /** The page of a client; undefined when there is none. */
  clientHref(clientId: string, root: string): string | undefined;
  commandHref(command: string, root: string): string | undefined;
  jobHref(job: Job, root: string): string | undefined;
}

export interface Tally {
  jobs: number;
  /** Jobs that failed, were refused, or broke off. */
  failures: number;
  /** Bytes that uploads announced. */
  bytes: number;
}

/** A client or a command, with its sums. */
export interface Actor extends Tally {
  name: string;
  /**
   * The time of the last request that the server granted; a refused one proves nothing about its
   * sender.
   */
  seenAt: Date | undefined;
  /** The last job, granted or not. */
  last: Pick<Job, 'state' | 'at'> | undefined;
}

const STATES: Record<Job['state'], { look: string; words: string }> = {
  got: { look: 'warn', words: 'no answer yet' },
  done: { look: 'good', words: 'done' },
  failed: { look: 'bad', words: 'failed' },
  refused: { look: 'bad', words: 'refused' },
  incomplete: { look: 'bad', words: 'incomplete' },
  orphan: { look: 'warn', words: 'not in the log' },
  missing: { look: 'bad', words: 'upload missing' },
};

export function describeState(state: Job['state']): string {
  return STATES[state].words;
}

export function formatState(state: Job['state']): Markup {
  const { look, words } = STATES[state];
  return html`<span class="state ${look} ${state}">${words}</span>`;
}

export function formatInstant(date: Date | undefined, { useGmt }: Pick<Book, 'useGmt'>): Markup {
  if (!date || Number.isNaN(date.getTime())) return html`<span class="plain">never</span>`;
  return html`<time datetime="${date.toISOString()}">${formatTime(date, useGmt)}</time>`;
}

/** `3 days`, in the largest unit that fits. */
export function formatSpan(seconds: number): string {
  const units = [
    ['day', 86_400],
    ['hour', 3600],
    ['minute', 60],
  ] as const;
  for (const [name, size] of units) {
    const count = Math.floor(seconds / size);
    if (count >= 1) return countOf(count, name);
  }
  return 'less than a minute';
}

export function formatClient(clientId: string | undefined, root: string, book: Book): Markup {
  if (clientId === undefined) return html`<span class="plain">unknown</span>`;
  return formatLink(clientId, book.clientHref(clientId, root));
}

export function formatCommand(command: string | undefined, root: string, book: Book): Markup {
  if (command === undefined) return html`<span class="plain">unknown</span>`;
  return formatLink(command, book.commandHref(command, root));
}

/** A link or, without an address, plain text. */
export function formatLink(text: string, href: string | undefined): Markup {
  return href === undefined ? html`${text}` : html`<a href="${href}">${text}</a>`;
}

/** How a run ended, in a word or two. */
export function formatEnd(job: Job): string {
  if (job.signal !== undefined && job.signal !== 0) return `signal ${job.signal}`;
  if (job.exitCode !== undefined) return `exit ${job.exitCode}`;
  const { status } = job.put ?? job.get ?? {};
  return job.state === 'refused' && status !== undefined ? `status ${status}` : '';
}

export function formatJobTable(id: string, caption: string, jobs: readonly Job[], root: string, book: Book): Markup {
  if (jobs.length === 0) return html`<p class="note">None.</p>`;
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table id="${id}" class="stack jobs">
<caption><span>${caption}</span></caption>
<thead><tr><th scope="col">Time</th><th scope="col">Client</th><th scope="col">Command</th><th scope="col">State</th><th scope="col">End</th><th scope="col" class="number">Bytes</th><th scope="col">Job</th></tr></thead>
<tbody>
${jobs.map((job) => formatJobRow(job, root, book))}</tbody>
</table></div>`;
}

function formatJobRow(job: Job, root: string, book: Book): Markup {
  const name = job.jobId ?? 'no job id';
  const link = formatLink(name, book.jobHref(job, root));
  return html`<tr data-row><td class="time">${formatInstant(job.at, book)}</td><td class="client">${formatClient(job.clientId, root, book)}</td><td class="command">${formatCommand(job.command, root, book)}</td><td class="state-cell">${formatState(job.state)}</td><td class="time end">${formatEnd(job)}</td><td class="number">${formatBytes(uploadBytes(job))}</td><th scope="row" class="job">${link}${formatDiffering(job)}</th></tr>
`;
}

function formatDiffering(job: Job): Markup | undefined {
  const differing = describeDiffering(job);
  return differing === undefined ? undefined : html`<br><span class="state bad">${differing}</span>`;
}

export function formatActorTable(
  kind: 'client' | 'command',
  actors: readonly Actor[],
  root: string,
  book: Book,
): Markup {
  const title = kind === 'client' ? 'Client' : 'Command';
  const formatName = kind === 'client' ? formatClient : formatCommand;
  if (actors.length === 0) return html`<p class="note">None.</p>`;
  return html`<div class="scroll" role="region" aria-label="${title}s" tabindex="0"><table id="rows">
<caption><span>${title}s, by name</span></caption>
<thead><tr><th scope="col">${title}</th><th scope="col">Last seen</th><th scope="col">Last job</th><th scope="col" class="number">Jobs</th><th scope="col" class="number">Failures</th><th scope="col" class="number">Bytes</th></tr></thead>
<tbody>
${actors.map(
  (
    actor,
  ) => html`<tr><th scope="row" class="name">${formatName(actor.name, root, book)}</th><td class="time">${formatInstant(actor.seenAt, book)}</td><td>${actor.last ? formatState(actor.last.state) : undefined}</td><td class="number">${actor.jobs}</td><td class="number">${actor.failures > 0 ? html`<span class="bad">${actor.failures}</span>` : 0}</td><td class="number">${formatBytes(actor.bytes)}</td></tr>
`,
)}</tbody>
</table></div>`;
}

/** The input that filters rows. Stays hidden without the script. */
export function formatSearch(table: string, what: string): Markup {
  return html`<form role="search" class="search" data-table="${table}" hidden>
<label for="${table}-words">Search ${what}</label>
<input id="${table}-words" type="search" autocomplete="off" spellcheck="false">
<output for="${table}-words"></output>
</form>`;
}
