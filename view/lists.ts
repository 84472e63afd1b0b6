// The lists of all clients and of all commands, by name.
import { formatBytes } from '../cli/output.ts';
import { jobJson } from '../ledger/fields.ts';
import { type ClientTotals, listClients } from '../ledger/jobs.ts';
import { listCommands } from '../ledger/scan.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatClient, formatCommand, formatEnd, formatInstant, formatState } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { FAILED_STATES } from './client.ts';
import type { Context } from './context.ts';
import { groupDigits } from './words.ts';

const ROWS = 100;

interface Clients {
  rows: [clientId: string, totals: ClientTotals][];
  next: string | undefined;
}

function readClients({ database, params }: Context): Clients {
  const rows = listClients(
    database,
    { after: params.get('after') ?? undefined, glob: params.get('name')?.trim() || undefined },
    ROWS + 1,
  );
  return { rows: rows.slice(0, ROWS), next: rows.length > ROWS ? rows[ROWS - 1]?.[0] : undefined };
}

const sumOf = ({ states }: ClientTotals, ...names: string[]): number =>
  [...states].reduce((sum, [state, count]) => sum + (names.length === 0 || names.includes(state) ? count : 0), 0);

export function clientsPage(context: Context): Page {
  const { rows, next } = readClients(context);
  const { links, params } = context;
  const name = params.get('name')?.trim() ?? '';
  return {
    title: 'Clients',
    place: '/clients',
    isPlace: true,
    content: html`<h1>Clients</h1>
<form class="filter" action="${links.page('/clients')}" method="get" aria-label="Filter">
<div class="long"><label for="name">Name, with * for any text</label><input id="name" name="name" type="search" value="${name}" placeholder="web*" autocomplete="off" spellcheck="false"></div>
<div class="act"><button type="submit">Show</button> <a href="${links.page('/clients')}">Clear</a></div>
</form>
<p class="ways"><a href="${links.page('/clients.json', { name })}">JSON</a></p>
${rows.length === 0 ? html`<p class="note">${name === '' ? 'No client has fetched anything yet. webjobctl client add adds one.' : 'No client has this name.'}</p>` : formatClients(rows, context)}
${formatWays('/clients', { name }, next, context)}`,
  };
}

function formatClients(shown: Clients['rows'], { links, book }: Context): Markup {
  return html`<div class="scroll" role="region" aria-label="Clients" tabindex="0"><table class="stack" id="rows">
<caption><span>Clients, by name</span></caption>
<thead><tr><th scope="col">Client</th><th scope="col">Last seen</th><th scope="col" class="number">Jobs</th><th scope="col" class="number">Failed</th><th scope="col" class="number">Refused</th><th scope="col" class="number">Bytes</th></tr></thead>
<tbody>
${shown.map(([clientId, totals]) => {
  const failed = sumOf(totals, ...FAILED_STATES);
  return html`<tr data-row><th scope="row" class="client"><a data-main href="${links.client(clientId)}">${clientId}</a></th><td class="time">${formatInstant(totals.seenAt, book)}</td><td class="number"><span class="of">jobs</span> ${groupDigits(sumOf(totals))}</td><td class="number"><span class="of">failed</span> ${failed > 0 ? html`<span class="bad">${groupDigits(failed)}</span>` : 0}</td><td class="number"><span class="of">refused</span> ${groupDigits(sumOf(totals, 'refused'))}</td><td class="number">${formatBytes(totals.received)}</td></tr>
`;
})}</tbody>
</table></div>`;
}

export function clientsJson(context: Context): unknown {
  const { rows, next } = readClients(context);
  return {
    clients: rows.map(([client, { states, seenAt, received, sent }]) => ({
      client,
      seenAt: seenAt?.toISOString() ?? null,
      states: Object.fromEntries(states),
      received,
      sent,
    })),
    next:
      next === undefined
        ? null
        : context.links.page('/clients.json', { name: context.params.get('name') ?? '', after: next }),
  };
}

export function commandsPage(context: Context): Page {
  const { database, site, params, links, book } = context;
  const jobs = listCommands(database, site, params.get('after') ?? '', ROWS + 1);
  const shown = jobs.slice(0, ROWS);
  const next = jobs.length > ROWS ? shown.at(-1)?.command : undefined;
  return {
    title: 'Commands',
    place: '/commands',
    isPlace: true,
    content: html`<h1>Commands</h1>
<p class="lead">Each command with its newest job on any client. The page of a command compares the output of all clients.</p>
<p class="ways"><a href="${links.page('/commands.json')}">JSON</a></p>
${
  shown.length === 0
    ? html`<p class="note">No client has fetched a command yet. They are below the profiles of the site.</p>`
    : html`<div class="scroll" role="region" aria-label="Commands" tabindex="0"><table class="stack" id="rows">
<caption><span>Commands, by name</span></caption>
<thead><tr><th scope="col">Command</th><th scope="col">Newest job</th><th scope="col">Time</th><th scope="col">End</th><th scope="col">Client</th></tr></thead>
<tbody>
${shown.map(
  (job) =>
    html`<tr data-row><th scope="row" class="command">${formatCommand(job.command, '', book)}</th><td>${formatState(job.state)}</td><td class="time">${formatInstant(job.at, book)}</td><td class="time">${formatEnd(job)}</td><td class="client">${formatClient(job.clientId, '', book)}</td></tr>
`,
)}</tbody>
</table></div>`
}
${formatWays('/commands', {}, next, context)}`,
  };
}

export function commandsJson({ database, site, params, links }: Context): unknown {
  const jobs = listCommands(database, site, params.get('after') ?? '', ROWS + 1);
  const next = jobs.length > ROWS ? jobs[ROWS - 1]?.command : undefined;
  return {
    commands: jobs.slice(0, ROWS).map((job) => ({ command: job.command, newest: jobJson(site, job) })),
    next: next === undefined ? null : links.page('/commands.json', { after: next }),
  };
}

function formatWays(
  path: string,
  own: Record<string, string>,
  next: string | undefined,
  { links, params }: Context,
): Markup | undefined {
  const first = params.has('after') ? html`<a href="${links.page(path, own)}">First page</a>` : undefined;
  const more =
    next === undefined
      ? undefined
      : html`<a rel="next" href="${links.page(path, { ...own, after: next })}">Next page</a>`;
  return first || more ? html`<p class="ways">${first}${first && more && ' · '}${more}</p>` : undefined;
}
