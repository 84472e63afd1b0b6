// The page of one job: the verdict and its reasons, every request, the run record, the jobs it
// started, and its streams.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { listCustodyFiles, STREAMS, type StreamName } from 'webjob-locker';
import { judgeJob } from '../admin/jobs/verification.ts';
import { describeWitness } from '../admin/site/evidence.ts';
import { Failure } from '../cli/failure.ts';
import { actJson } from '../evidence/acts.ts';
import { judgeAll } from '../evidence/verdict.ts';
import { readRecordFields } from '../ledger/ending.ts';
import { jobJson, lineJson } from '../ledger/fields.ts';
import type { Job } from '../ledger/job.ts';
import { findById, findChildren, findEarlier, findNameless } from '../ledger/scan.ts';
import { logFolders } from '../ledger/site.ts';
import { findJobStreams, readPackedRecord, type Stored } from '../ledger/streams.ts';
import { describeSealing } from '../notes/result.ts';
import { type Heads, readHeads } from '../pages/heads.ts';
import { html, type Markup } from '../pages/html.ts';
import {
  type Case,
  formatActs,
  formatFacts,
  formatLog,
  formatRecordTable,
  formatVerdict,
  formatVerification,
} from '../pages/job.ts';
import { formatInstant, formatJobTable, formatState } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { formatAsked } from './asked.ts';
import { type Context, formatFailure, NotShown } from './context.ts';
import { findGolden } from './golden.ts';
import { asFormat, isoOf, UNNAMED } from './links.ts';
import { actsOf } from './on-record.ts';
import { findSealed, type Sealed } from './sealed.ts';
import { formatStretch, readStretch, type Wish } from './stretch.ts';
import { groupDigits } from './words.ts';

/** A longer upload is not read for the verdict on a page; `webjobctl verify` reads it. */
const MAX_JUDGED_BYTES = 8 * 1024 * 1024;
/**
 * A longer custody record is not searched for the fate of uploads that are no longer in the locker.
 */
const MAX_RECORD_BYTES = 32 * 1024 * 1024;

/**
 * The jobs that an address stands for; several when a client sent an id twice. Throws NotShown when
 * there are none.
 */
export function findAsked({ database, site, params }: Context, name: string): Job[] {
  const [at, client, command] = ['at', 'client', 'command'].map((field) => params.get(field) ?? undefined);
  const asked = name === UNNAMED ? params.get('name') : name;
  const found =
    asked !== null ? findById(database, site, asked) : at === undefined ? [] : findNameless(database, site, at);
  const same = found.filter(
    (job) =>
      (at === undefined || isoOf(job) === at) &&
      (client === undefined || job.clientId === client) &&
      (command === undefined || job.command === command),
  );
  if (same.length > 0) return same;
  throw new NotShown(404, 'There is no such job: its log and its upload are gone, or the address is incomplete.');
}

/** The single job that an address stands for. Throws NotShown. */
export function findOne(context: Context, name: string): Job {
  const [job, another] = findAsked(context, name);
  if (!job || another) throw new NotShown(404, 'Several jobs have this id.');
  return job;
}

/** Everything about a job. */
interface Shown {
  job: Job;
  stored: Stored;
  /** Why the streams or the verdict are missing. */
  failures: Failure[];
  shown: Case;
  notes: string[];
}

async function openJob({ site }: Context, job: Job): Promise<Shown> {
  const failures: Failure[] = [];
  const attempt = async <Type>(act: () => Type | Promise<Type>, otherwise: Type): Promise<Type> => {
    try {
      return await act();
    } catch (error) {
      failures.push(failureOf(error));
      return otherwise;
    }
  };
  const stored = await attempt(() => findJobStreams(site, job), {});
  const bytes = STREAMS.reduce((sum, name) => sum + (stored[name]?.bytes ?? 0), 0);
  const isRead = bytes <= MAX_JUDGED_BYTES;
  const isSearched = job.group !== undefined || measureRecords(site) <= MAX_RECORD_BYTES;
  const care = { isRead, digests: isRead, maxPackBytes: MAX_JUDGED_BYTES, isBounded: true };
  const judged = await attempt(() => (isSearched ? judgeJob(site, job, care) : undefined), undefined);
  const heads = await attempt(() => readEnv(stored), {});
  const own = (job.group ?? job.packed)?.name;
  const witness = judged && describeWitness(judged.witnessState);
  return {
    job,
    stored,
    failures,
    shown: {
      job,
      heads,
      verdict: judged?.verdicts.get(own ?? ''),
      deposit: judged?.deposit,
      earlier: [...(judged?.verdicts ?? [])].flatMap(([name, verdict]) => (name === own ? [] : [{ name, verdict }])),
      missing: judged?.missing.map(({ name }) => name) ?? [],
      acts: actsOf(site).of(job),
    },
    notes: [
      ...(isRead ? [] : [`Its ${groupDigits(bytes)} bytes are not read for a page: webjobctl verify reads them.`]),
      ...(isSearched
        ? []
        : ['The custody record is too long to be searched for a page: webjobctl verify searches it.']),
      ...(witness ? [`Of the custody record as a whole: ${witness}.`] : []),
    ],
  };
}

/** The bytes of all custody records of a site. */
function measureRecords(site: Context['site']): number {
  const sizes = logFolders(site).flatMap((folder) =>
    listCustodyFiles(folder).map(({ file }) => statSync(join(folder, file), { throwIfNoEntry: false })?.size ?? 0),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Reads only the run record; the other streams are read where they are shown. */
async function readEnv({ env }: Stored): Promise<Heads> {
  return env ? await readHeads({ env }) : {};
}

function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  const { syscall, code, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined) throw error;
  return new Failure('failed', `${code}: ${message.split(',')[0]}`, undefined, { cause: error });
}

export async function jobPage(context: Context, name: string): Promise<Page> {
  const jobs = findAsked(context, name);
  const [job, another] = jobs;
  if (!job || another) return chooserPage(context, name, jobs);
  const opened = await openJob(context, job);
  const { shown, failures, notes } = opened;
  const { book, links, database, site } = context;
  const title = `${job.command ?? 'unknown command'} on ${job.clientId ?? 'unknown client'}`;
  const children = job.jobId === undefined ? [] : findChildren(database, site, job.jobId);
  return {
    title: `${title}, ${job.jobId ?? 'no job id'}`,
    place: '/jobs',
    content: html`<h1>${title}</h1>
<p class="lead">${formatState(job.state)} · ${formatInstant(job.at, book)}${formatVerdict(shown)}</p>
<p class="ways"><a href="#output">Output</a> · <a href="#verification">Verification</a> · <a href="#record">Record</a> · <a href="#log">Log</a> · <a href="${asFormat(links.job(job), 'json')}">JSON</a></p>
${failures.map(formatFailure)}
<h2 id="output">Output</h2>
${await formatOutput(context, opened)}
<h2>Job</h2>
${formatFacts(shown, '', book)}
${formatFamily(context, job, children)}
<h2 id="verification">Verification</h2>
${formatVerification(shown)}
${notes.map((note) => html`<p class="note">${note}</p>`)}
${formatActs(shown, book)}
${job.jobId === undefined ? undefined : formatAsked(context, job.jobId)}
<h2 id="record">Record</h2>
${formatRecordTable(shown.verdict, shown.heads)}
<h2 id="log">Log</h2>
${formatLog(job)}`,
  };
}

function chooserPage({ book }: Context, name: string, jobs: readonly Job[]): Page {
  const ways: typeof book = {
    ...book,
    jobHref: (job) =>
      `?${new URLSearchParams({ name, at: isoOf(job), client: job.clientId ?? '', command: job.command ?? '' })}`,
  };
  return {
    title: name,
    place: '/jobs',
    content: html`<h1>${name}</h1>
<p class="lead">${jobs.length} jobs have this id.</p>
${formatJobTable('rows', 'Jobs of one id, the newest first', jobs, '', ways)}`,
  };
}

const TITLES: Record<StreamName, string> = { out: 'Standard output', err: 'Standard error', env: 'Run record' };

async function formatOutput(context: Context, { job, stored }: Shown): Promise<Markup> {
  if (!job.group && !job.packed) return html`<p class="note">There is none.</p>`;
  const wish = parseWish(context.params);
  const sections: Markup[] = [];
  for (const name of wish?.stream === 'env' ? (['out', 'err', 'env'] as const) : (['out', 'err'] as const)) {
    const own: Wish = wish?.stream === name ? wish : { stream: name, at: 0, as: undefined, find: undefined };
    sections.push(html`<section><h3 id="${name}">${TITLES[name]}</h3>
${await formatOne(context, job, stored, own)}</section>
`);
  }
  return html`${formatTools(context, job, wish)}${sections}`;
}

async function formatOne(context: Context, job: Job, stored: Stored, wish: Wish): Promise<Markup> {
  const stream = stored[wish.stream];
  if (!stream) return html`<p class="note">The file is missing.</p>`;
  if (stream.bytes === 0) return html`<p class="note">Nothing.</p>`;
  try {
    const sealed = await findSealed(stored, wish.stream);
    if (sealed) return formatSealed(sealed, wish.stream, stream.bytes, job);
    const stretch = await readStretch(stream, wish, context.deadline);
    return html`${formatStretch(TITLES[wish.stream], stretch, (query) => `${context.links.job(job, query)}#${wish.stream}`)}`;
  } catch (error) {
    return formatFailure(failureOf(error));
  }
}

/** The recipients of a sealed stream, and how they open it. */
function formatSealed({ recipients, plain }: Sealed, name: StreamName, bytes: number, { jobId = 'JOB' }: Job): Markup {
  return html`<p><span class="state plain sealed">Sealed</span> The view cannot open it: it has no identity.</p>
<p class="note">It is ${describeSealing(recipients)}. ${groupDigits(bytes)} bytes; before it was sealed ${groupDigits(plain.bytes)}, as the client says. A download is the ciphertext. To open it with an identity: <code>webjobctl show ${jobId} --${name} --identity FILE</code>, or <code>age -d -i FILE</code>.</p>`;
}

/** Parses the requested stretch. Throws NotShown for fields that no page makes. */
function parseWish(params: URLSearchParams): Wish | undefined {
  const stream = STREAMS.find((name) => name === params.get('s'));
  if (!params.get('s')) return undefined;
  const at = params.get('pos') ?? '0';
  const as = params.get('as');
  if (!stream || !/^(?:[0-9]{1,15}|last)$/.test(at) || (as !== null && as !== 'text' && as !== 'hex'))
    throw new NotShown(400, 'The position in the stream is not valid.');
  return {
    stream,
    at: at === 'last' ? 'last' : Number(at),
    as: as ?? undefined,
    find: params.get('find') || undefined,
  };
}

/** The tools of the page: search within the job, comparison, and download. */
function formatTools(context: Context, job: Job, wish: Wish | undefined): Markup {
  const { links, database, site } = context;
  const address = new URL(links.job(job), 'http://a');
  const hidden = [...address.searchParams].map(
    ([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`,
  );
  const earlier = findEarlier(database, site, job);
  const compare = earlier?.jobId !== undefined && job.jobId !== undefined;
  const golden = job.jobId === undefined ? undefined : findGolden(context, job);
  return html`<form class="filter" action="${address.pathname}#${wish?.stream ?? 'out'}" method="get" aria-label="Find in the output">${hidden}
<div><label for="stream">In</label><select id="stream" name="s">${(['out', 'err', 'env'] as const).map((name) => html`<option value="${name}"${wish?.stream === name ? html` selected` : undefined}>${TITLES[name]}</option>`)}</select></div>
<div><label for="find">Find</label><input id="find" name="find" type="search" value="${wish?.find ?? ''}" autocomplete="off" spellcheck="false"></div>
<div class="act"><button type="submit">Find</button></div>
</form>
<p class="ways">${compare ? html`<a class="button" href="${links.page('/diff', { from: earlier.jobId, to: job.jobId })}">What changed since the previous run</a> · ` : undefined}${golden === undefined || golden === job.jobId ? undefined : html`<a href="${links.page('/diff', { from: 'golden', to: job.jobId })}">Compare with the golden run</a> · `}${job.jobId === undefined ? undefined : html`<a href="${links.page('/diff', { to: job.jobId })}">Compare with another run</a> · `}${formatTaking(context, job)}</p>
`;
}

/** Where acts are set up, a download is an act and therefore recorded. */
function formatTaking({ acts, links }: Context, job: Job): Markup {
  if (acts) return html`<a href="${links.act(job)}">Verify, note, hold, download</a>`;
  return html`Download ${STREAMS.map((name, index) => html`${index > 0 ? ' ' : undefined}<a href="${links.stream(job, name)}" download>.${name}</a>`)}`;
}

/** The job that started this one, and those that it started. */
function formatFamily({ database, site, book }: Context, { outerId }: Job, children: readonly Job[]): Markup {
  const outer = outerId === undefined ? [] : findById(database, site, outerId);
  return html`${outer.length > 0 ? html`<h2>Started by</h2>${formatJobTable('outer', 'The job that started this one', outer, '', book)}` : undefined}${
    children.length > 0
      ? html`<h2>Started</h2>${formatJobTable('children', 'Jobs that this one started, the oldest first', children, '', book)}`
      : undefined
  }`;
}

/** The job in the form of `webjobctl --json show`. */
export async function jobDetails(context: Context, name: string): Promise<unknown> {
  const { site } = context;
  const all: unknown[] = [];
  for (const job of findAsked(context, name)) {
    const { stored, shown } = await openJob(context, job);
    const record = job.group ? readRecordFields(site, job.group) : job.packed && (await readPackedRecord(stored));
    const verdict = judgeAll(
      [...(shown.verdict ? [shown.verdict] : []), ...shown.earlier.map((other) => other.verdict)],
      shown.missing.length > 0,
    );
    all.push({
      ...jobJson(site, job),
      attempts: job.attempts.map((line) => lineJson(site, line)),
      bytes: Object.fromEntries(STREAMS.map((stream) => [stream, stored[stream]?.bytes ?? null])),
      record: record ? Object.fromEntries(record) : null,
      verification: verdict?.words ?? null,
      acts: shown.acts.map(actJson),
    });
  }
  return all.length === 1 ? all[0] : all;
}

/** The stream of a job to download. Throws NotShown. */
export async function findStream(context: Context, stream: StreamName, name: string) {
  const job = findOne(context, name);
  const stored = (await findJobStreams(context.site, job))[stream];
  if (!stored) throw new NotShown(404, `This job has no .${stream}.`);
  return { job, stored };
}
