// The pages of missed expectations, from the status that root wrote (admin/fleet/expectations.ts).
import type { StatusProblem } from '../admin/acts/status.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatClient, formatCommand, formatLink } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { type Context, NotShown } from './context.ts';
import { formatStatusTime, NO_STATUS, statusOf } from './status.ts';

const ROWS = 100;

interface Missed {
  status: ReturnType<typeof statusOf>;
  rows: StatusProblem[];
  next: number | undefined;
}

/** Reads the missed expectations. Throws NotShown. */
function readMissed(context: Context): Missed {
  const status = statusOf(context);
  const after = context.params.get('after') ?? '0';
  if (!/^[0-9]{1,15}$/.test(after)) throw new NotShown(400, 'The position in the list is not valid.');
  const rows = status?.problems('expectations', Number(after), ROWS + 1) ?? [];
  return { status, rows: rows.slice(0, ROWS), next: rows.length > ROWS ? rows[ROWS - 1]?.id : undefined };
}

export function missedPage(context: Context): Page {
  const { status, rows, next } = readMissed(context);
  const { links } = context;
  const failure = status?.failureOf('expectations');
  return {
    title: 'Expectations missed',
    place: '/',
    content: html`<h1>Expectations missed</h1>
<p class="lead">Rules of the file expect that clients do not meet.</p>
${status ? html`<p class="ways"><a href="${links.page('/missed.json')}">JSON</a></p>` : NO_STATUS}
${failure === undefined ? undefined : html`<p class="state bad">${failure}</p>`}
${rows.length > 0 ? formatMissed(rows, context) : status && failure === undefined ? html`<p class="note">None. docs/guide/alerts.md says how to write such rules.</p>` : undefined}
${next === undefined ? undefined : html`<p class="ways"><a rel="next" href="${links.page('/missed', { after: next })}">Next page</a></p>`}
${status && formatStatusTime(status, context)}`,
  };
}

export function formatMissed(rows: readonly StatusProblem[], { links, book }: Context): Markup {
  return html`<div class="scroll" role="region" aria-label="Expectations missed" tabindex="0"><table class="stack">
<caption><span>Expectations missed, by client and command</span></caption>
<thead><tr><th scope="col">Client</th><th scope="col">Command</th><th scope="col">Missed</th><th scope="col">Job</th></tr></thead>
<tbody>
${rows.map(({ client, command, kind, what, job }) => {
  const name = command === '*' ? html`any` : formatCommand(command ?? undefined, '', book);
  return html`<tr data-row><th scope="row" class="client">${formatClient(client ?? undefined, '', book)}</th><td class="command">${name}</td><td class="name"><span class="state bad missed">${kind}</span> ${what}</td><td class="job">${job === null ? undefined : formatLink(job, links.job({ jobId: job }))}</td></tr>
`;
})}</tbody>
</table></div>`;
}

export function missedJsonOf({ client, command, kind, what, job }: StatusProblem): unknown {
  return { client, command, kind, detail: what, jobId: job };
}

export function missedJson(context: Context): unknown {
  const { status, rows, next } = readMissed(context);
  return {
    at: status?.at.toISOString() ?? null,
    missed: rows.map(missedJsonOf),
    next: next === undefined ? null : context.links.page('/missed.json', { after: next }),
  };
}
