// The page of one command: the newest result of every client, grouped by output, with links to the
// differences.
import { formatBytes } from '../cli/output.ts';
import { jobJson } from '../ledger/fields.ts';
import type { Job } from '../ledger/job.ts';
import { newestOfEach } from '../ledger/scan.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatClient, formatEnd, formatInstant, formatState } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { type Context, NotShown } from './context.ts';
import { digestOutputs, type Output } from './digests.ts';
import { asFormat } from './links.ts';
import { countOf, groupDigits } from './words.ts';

/** The maximum number of clients that are compared at once. */
const MAX_CLIENTS = 500;
/** The maximum number of clients named in each group, and of groups shown. */
const NAMED = 12;
const MAX_GROUPS = 20;
const MAX_ALONE = 100;

/** Clients with the same newest output. */
interface Alike {
  output: Output;
  /** Newest first. */
  jobs: Job[];
}

interface Command {
  /** Largest first. */
  groups: Alike[];
  count: number;
  /** The name after which the next page begins; undefined on the last page. */
  next: string | undefined;
}

/** Reads the data of the page. Throws NotShown for a command that was never run. */
async function readCommand(context: Context, name: string): Promise<Command> {
  const { database, site, params } = context;
  const after = params.get('after') ?? undefined;
  const jobs = newestOfEach(database, site, { command: name }, { after, limit: MAX_CLIENTS });
  if (jobs.length === 0 && after === undefined) {
    const isKnown = database.prepare('SELECT 1 FROM jobs WHERE command = ? LIMIT 1').get(name) !== undefined;
    if (!isKnown) throw new NotShown(404, `No client has fetched ${name}. Commands are on the page Commands.`);
  }
  const outputs = await digestOutputs(context, jobs);
  const groups = new Map<string, Alike>();
  for (const [index, job] of jobs.entries()) {
    const output = outputs[index] ?? 'missing';
    const key = typeof output === 'object' ? output.sha256 : output;
    const group = groups.get(key) ?? { output, jobs: [] };
    group.jobs.push(job);
    groups.set(key, group);
  }
  const isRead = ({ output }: Alike): number => Number(typeof output === 'object');
  for (const { jobs: alike } of groups.values()) alike.sort((a, b) => b.at.getTime() - a.at.getTime());
  return {
    groups: [...groups.values()].sort((a, b) => isRead(b) - isRead(a) || b.jobs.length - a.jobs.length),
    count: jobs.length,
    next: jobs.length === MAX_CLIENTS ? jobs.at(-1)?.clientId : undefined,
  };
}

export async function commandPage(context: Context, name: string): Promise<Page> {
  const { groups, count, next } = await readCommand(context, name);
  const { links } = context;
  const [first] = groups;
  const together = groups.filter(({ jobs }) => jobs.length > 1).slice(0, MAX_GROUPS);
  const alone = groups.filter(({ jobs }) => jobs.length === 1);
  return {
    title: name,
    place: '/commands',
    content: html`<h1>${name}</h1>
<p class="lead">${describeGroups(groups, count)}</p>
<p class="ways"><a href="${links.page('/jobs', { command: name })}">All jobs of this command</a> · <a href="${asFormat(links.command(name), 'json')}">JSON</a></p>
${first ? html`<h2>Newest output of each client</h2>${together.map((group) => formatGroup(group, first, context))}${formatAlone(alone, first, context)}` : html`<p class="note">No client has sent output of this command yet.</p>`}
${groups.length - alone.length > MAX_GROUPS || alone.length > MAX_ALONE ? html`<p class="note">More are in the <a href="${asFormat(links.command(name), 'json')}">JSON</a>.</p>` : undefined}
${next === undefined ? undefined : html`<p class="ways"><a href="${links.command(name, { after: next })}">Clients after ${next}</a></p>`}`,
  };
}

/** `497 alike, 3 differ` */
function describeGroups(groups: readonly Alike[], count: number): string {
  const read = groups.filter(({ output }) => typeof output === 'object');
  const [largest] = read;
  if (!largest) return `Command, ${countOf(count, 'client')}.`;
  const known = read.reduce((sum, { jobs }) => sum + jobs.length, 0);
  const differ = known - largest.jobs.length;
  const unread = count - known;
  const areAllAlone = largest.jobs.length === 1 && differ > 0;
  const words = [
    known === 1
      ? '1 client'
      : areAllAlone
        ? `all ${groupDigits(known)} differ`
        : `${groupDigits(largest.jobs.length)} alike`,
    ...(differ > 0 && !areAllAlone ? [`${groupDigits(differ)} differ`] : []),
    ...(unread > 0 ? [`${groupDigits(unread)} not compared`] : []),
  ];
  return `Command: ${words.join(', ')}.`;
}

function formatGroup({ output, jobs }: Alike, first: Alike, context: Context): Markup {
  const { links, book } = context;
  const [newest] = jobs;
  const isOutput = typeof output === 'object';
  const title = isOutput
    ? `${countOf(jobs.length, 'client')}, ${formatBytes(output.bytes)}`
    : `${countOf(jobs.length, 'client')}: ${output}`;
  const isMost = jobs === first.jobs;
  const caption = isOutput ? `The newest of them, SHA-256 ${output.sha256.slice(0, 16)}` : 'The newest of them';
  const differs = !isMost && isOutput ? linkToDiff('How it differs from most', first, newest, context) : undefined;
  const more = jobs.slice(NAMED);
  return html`<section class="alike"><h3>${formatLook(isOutput, isMost)} ${title}</h3>
<p class="ways">${differs && html`${differs} · `}${newest && html`<a href="${links.job(newest)}#output">The output</a>`}</p>
${formatResults(caption, jobs.slice(0, NAMED), context)}
${more.length > 0 ? html`<details><summary>${groupDigits(more.length)} more clients</summary><p class="names">${more.map((job, at) => html`${at > 0 ? ', ' : undefined}${formatClient(job.clientId, '', book)}`)}</p></details>` : undefined}</section>
`;
}

function formatLook(isOutput: boolean, isMost: boolean): Markup {
  if (!isOutput) return html`<span class="state plain">not compared</span>`;
  return isMost
    ? html`<span class="state good same">alike</span>`
    : html`<span class="state warn changed">differ</span>`;
}

/** Clients whose output no other client has. */
function formatAlone(alone: readonly Alike[], first: Alike, context: Context): Markup | undefined {
  const jobs = alone.flatMap(({ jobs: own }) => own);
  if (jobs.length === 0) return undefined;
  const isOnly = first.jobs.length === 1 && jobs.length === 1;
  const isMost = (job: Job): boolean => first.jobs[0] === job;
  const compare = (job: Job): Markup | undefined =>
    isMost(job) ? html`<span class="plain">compared with</span>` : linkToDiff('how', first, job, context);
  return html`<section class="alike"><h3>${formatLook(true, isOnly)} ${isOnly ? '1 client' : `${countOf(jobs.length, 'client')}, each different`}</h3>
${formatResults('Clients with unique output', jobs.slice(0, MAX_ALONE), context, isOnly ? undefined : compare)}</section>
`;
}

function linkToDiff(
  words: string,
  { jobs: [model] }: Alike,
  job: Job | undefined,
  { links }: Context,
): Markup | undefined {
  if (job?.jobId === undefined || model?.jobId === undefined) return undefined;
  return html`<a href="${links.page('/diff', { from: model.jobId, to: job.jobId })}">${words}</a>`;
}

function formatResults(
  caption: string,
  jobs: readonly Job[],
  { links, book }: Context,
  compare?: (job: Job) => Markup | undefined,
): Markup {
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table class="stack">
<caption><span>${caption}</span></caption>
<thead><tr><th scope="col">Client</th><th scope="col">State</th><th scope="col">Time</th><th scope="col">End</th>${compare && html`<th scope="col">Differs</th>`}<th scope="col">Job</th></tr></thead>
<tbody>
${jobs.map(
  (job) =>
    html`<tr data-row><th scope="row" class="client">${formatClient(job.clientId, '', book)}</th><td>${formatState(job.state)}</td><td class="time">${formatInstant(job.at, book)}</td><td class="time">${formatEnd(job)}</td>${compare && html`<td>${compare(job)}</td>`}<td class="job"><a data-main href="${links.job(job)}">${job.jobId ?? 'no job id'}</a></td></tr>
`,
)}</tbody>
</table></div>`;
}

export async function commandJson(context: Context, name: string): Promise<unknown> {
  const { groups, next } = await readCommand(context, name);
  return {
    command: name,
    groups: groups.map(({ output, jobs }) => ({
      outputSha256: typeof output === 'object' ? output.sha256 : null,
      bytes: typeof output === 'object' ? output.bytes : null,
      why: typeof output === 'object' ? null : output,
      newest: jobs.map((job) => jobJson(context.site, job)),
    })),
    next: next === undefined ? null : asFormat(context.links.command(name, { after: next }), 'json'),
  };
}
