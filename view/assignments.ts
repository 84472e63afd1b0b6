// The pages of assignments, from the status that root wrote: a list of assignments, and one
// assignment with its clients.
import type { Status, StatusAssignment, StatusClient } from '../admin/acts/status.ts';
import { CLIENT_STATES } from '../admin/fleet/states.ts';
import { quote } from '../cli/shell.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatActs, formatFactTable } from '../pages/job.ts';
import { formatClient, formatCommand, formatInstant, formatLink } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { formatAsked } from './asked.ts';
import { type Context, NotShown } from './context.ts';
import { actsOf } from './on-record.ts';
import { formatStatusTime, NO_STATUS, statusOf } from './status.ts';
import { groupDigits } from './words.ts';

const ROWS = 50;
const CLIENT_ROWS = 100;

const LOOKS: Record<string, string> = {
  active: 'good done',
  paused: 'warn held',
  cancelled: 'plain failed',
  waiting: 'plain got',
  fetched: 'plain got',
  done: 'good done',
  failed: 'bad failed',
  lost: 'bad missing',
  expired: 'warn refused',
};

export function formatAssignmentState(state: string): Markup {
  return html`<span class="state ${LOOKS[state] ?? 'plain'}">${state}</span>`;
}

interface List {
  status: Status | undefined;
  rows: StatusAssignment[];
  next: number | undefined;
}

/** Reads one page of the list of assignments. Throws NotShown. */
function readList(context: Context): List {
  const status = statusOf(context);
  const rows = status?.assignments(parseNumber(context.params.get('after')) ?? Number.MAX_SAFE_INTEGER, ROWS + 1) ?? [];
  return { status, rows: rows.slice(0, ROWS), next: rows.length > ROWS ? rows[ROWS - 1]?.number : undefined };
}

function parseNumber(text: string | null): number | undefined {
  if (!text) return undefined;
  if (/^[0-9]{1,15}$/.test(text)) return Number(text);
  throw new NotShown(400, 'An assignment is identified by a number.');
}

const describeCommand = ({ facts: { command, args } }: StatusAssignment): string =>
  [command, ...args].map(quote).join(' ');

export function assignmentsPage(context: Context): Page {
  const { status, rows, next } = readList(context);
  const { links, params } = context;
  const failure = status?.failureOf('assignments');
  const first = params.has('after') ? html`<a href="${links.page('/assignments')}">First page</a>` : undefined;
  const more = next && html`<a rel="next" href="${links.page('/assignments', { after: next })}">Next page</a>`;
  return {
    title: 'Assignments',
    place: '/assignments',
    isPlace: true,
    content: html`<h1>Assignments</h1>
<p class="lead">The commands that clients are to run, and their progress.</p>
${status ? html`<p class="ways"><a href="${links.page('/assignments.json')}">JSON</a></p>` : NO_STATUS}
${failure === undefined ? undefined : html`<p class="state bad">${failure}</p>`}
${status && rows.length === 0 && failure === undefined ? html`<p class="note">There are none. <code>webjobctl assign</code> makes the first: docs/guide/fleet.md.</p>` : undefined}
${rows.length > 0 ? formatList(rows, context) : undefined}
${first || more ? html`<p class="ways">${first}${first && more ? ' · ' : undefined}${more || undefined}</p>` : undefined}
${status && formatStatusTime(status, context)}`,
  };
}

function formatList(rows: readonly StatusAssignment[], { links }: Context): Markup {
  return html`<div class="scroll" role="region" aria-label="Assignments" tabindex="0"><table class="stack" id="rows">
<caption><span>Assignments, newest first</span></caption>
<thead><tr><th scope="col">Assignment</th><th scope="col">State</th><th scope="col">When</th><th scope="col">To</th><th scope="col">Clients</th></tr></thead>
<tbody>
${rows.map(
  (row) =>
    html`<tr data-row><th scope="row" class="command"><a data-main href="${links.page(`/assignment/${row.number}`)}">${row.number}: ${describeCommand(row)}</a></th><td>${formatAssignmentState(row.facts.state)}</td><td>${String(row.facts.schedule)}</td><td class="name">${row.facts.to.join(', ')}</td><td>${describeStates(row)}</td></tr>
`,
)}</tbody>
</table></div>`;
}

/** `3 done, 1 failed` */
function describeStates({ states }: StatusAssignment): string {
  if (!states) return 'no longer followed';
  const parts = CLIENT_STATES.flatMap((name) => (states[name] ? [`${groupDigits(states[name])} ${name}`] : []));
  return parts.join(', ') || 'no clients';
}

export function assignmentsJson(context: Context): unknown {
  const { status, rows, next } = readList(context);
  return {
    at: status?.at.toISOString() ?? null,
    assignments: rows.map(({ facts, states }) => ({ ...facts, states })),
    next: next === undefined ? null : context.links.page('/assignments.json', { after: next }),
  };
}

interface One {
  status: Status;
  assignment: StatusAssignment;
  state: string | undefined;
  clients: StatusClient[];
  next: string | undefined;
}

/** Finds an assignment by its number. Throws NotShown. */
export function findAssignment(context: Context, name: string): { status: Status; assignment: StatusAssignment } {
  const status = statusOf(context);
  const number = parseNumber(name) ?? 0;
  const assignment = status?.assignment(number);
  if (status && assignment) return { status, assignment };
  const why = status
    ? 'There is no assignment with this number, or webjobctl acts has not reported it yet.'
    : 'webjobctl acts does not report assignments to the view.';
  throw new NotShown(404, why);
}

function readOne(context: Context, name: string): One {
  const { status, assignment } = findAssignment(context, name);
  const state = context.params.get('state') || undefined;
  if (state !== undefined && !(CLIENT_STATES as readonly string[]).includes(state))
    throw new NotShown(400, `The states are ${CLIENT_STATES.join(', ')}.`);
  const clients = status.clients(assignment.number, state, context.params.get('after') ?? '', CLIENT_ROWS + 1);
  const next = clients.length > CLIENT_ROWS ? clients[CLIENT_ROWS - 1]?.client : undefined;
  return { status, assignment, state, clients: clients.slice(0, CLIENT_ROWS), next };
}

/** The title of the pages about one assignment. */
export const titleOf = (assignment: StatusAssignment): string =>
  `Assignment ${assignment.number}: ${describeCommand(assignment)}`;

export async function assignmentPage(context: Context, name: string): Promise<Page> {
  const { status, assignment, state, clients, next } = readOne(context, name);
  const { links, book, params, acts } = context;
  const { number, facts } = assignment;
  const own = `/assignment/${number}`;
  const title = titleOf(assignment);
  const isOpen = facts.state === 'active' || facts.state === 'paused';
  const first = params.has('after') ? html`<a href="${links.page(own, { state })}">First page</a>` : undefined;
  const more = next && html`<a rel="next" href="${links.page(own, { state, after: next })}">Next page</a>`;
  return {
    title,
    place: '/assignments',
    content: html`<h1>${title}</h1>
<p class="lead">${formatAssignmentState(facts.state)} · ${describeStates(assignment)}</p>
<p class="ways">${acts && isOpen ? html`<a class="button" href="${links.page(`/act/assignment/${number}`)}">Pause or cancel</a> · ` : undefined}<a href="${links.page(`${own}.json`, { state })}">JSON</a></p>
${formatFactTable('Facts', [
  ['Command', formatCommand(facts.command, '', book)],
  ['To', facts.to.join(', ')],
  ['When', `${facts.schedule}, from ${facts.from}${facts.until ? ` until ${facts.until}` : ''}`],
  ...(facts.stage === null
    ? []
    : [['Stage', `${facts.stage} of ${(facts.stages as unknown[]).length}`] as [string, string]]),
  ...(facts.limit === null ? [] : [['At once', String(facts.limit)] as [string, string]]),
  ['Signed', facts.signed ? 'yes' : 'no'],
  [
    'Assigned',
    html`${formatInstant(new Date(String(facts.at)), book)} by ${String(facts.by)}${facts.reason ? `: ${facts.reason}` : ''}`,
  ],
])}
${formatActs({ acts: actsOf(context.site).ofAssignment(String(number)) }, book)}
${formatAsked(context, `assignment ${number}`)}
<h2 id="clients">Clients</h2>
${assignment.states ? formatStates(assignment, state, context) : html`<p class="note">Root no longer follows its clients: <code>webjobctl assign show ${number}</code> does.</p>`}
${clients.length > 0 ? formatClients(clients, context) : assignment.states ? html`<p class="note">No client is in this state.</p>` : undefined}
${first || more ? html`<p class="ways">${first}${first && more ? ' · ' : undefined}${more || undefined}</p>` : undefined}
${formatStatusTime(status, context)}`,
  };
}

/** The number of clients in each state, with links to them. */
function formatStates({ number, states }: StatusAssignment, chosen: string | undefined, { links }: Context): Markup {
  const all = Object.values(states ?? {}).reduce((sum, count) => sum + count, 0);
  const one = (name: string | undefined, count: number): Markup => {
    const words = `${groupDigits(count)} ${name ?? 'in all'}`;
    if (name === chosen) return html`<strong>${words}</strong>`;
    return html`<a href="${links.page(`/assignment/${number}`, { state: name })}">${words}</a>`;
  };
  const shown = CLIENT_STATES.filter((name) => states?.[name]);
  return html`<p class="ways">${one(undefined, all)}${shown.map((name) => html` · ${one(name, states?.[name] ?? 0)}`)}</p>`;
}

function formatClients(clients: readonly StatusClient[], { links, book }: Context): Markup {
  return html`<div class="scroll" role="region" aria-label="Clients" tabindex="0"><table class="stack" id="rows">
<caption><span>Clients, by name</span></caption>
<thead><tr><th scope="col">Client</th><th scope="col">State</th><th scope="col">Due</th><th scope="col">End</th><th scope="col">Job</th></tr></thead>
<tbody>
${clients.map(({ client, state, due, jobId, exit, webjobExit }) => {
  const end = exit !== null ? `exit ${exit}` : webjobExit !== null ? `webjob ${webjobExit}` : '';
  const href = jobId === null ? undefined : links.job({ jobId });
  return html`<tr data-row><th scope="row" class="client">${formatClient(client, '', book)}</th><td>${formatAssignmentState(state)}</td><td class="time">${due === null ? undefined : formatInstant(new Date(due), book)}</td><td class="time">${end}</td><td class="job">${jobId === null ? undefined : formatLink(jobId, href)}</td></tr>
`;
})}</tbody>
</table></div>`;
}

export async function assignmentJson(context: Context, name: string): Promise<unknown> {
  const { status, assignment, state, clients, next } = readOne(context, name);
  const own = `/assignment/${assignment.number}.json`;
  return {
    at: status.at.toISOString(),
    ...assignment.facts,
    states: assignment.states,
    clients,
    next: next === undefined ? null : context.links.page(own, { state, after: next }),
  };
}
