// The differences between two runs, stream by stream, from `diff -u`.
import { STREAMS, type StreamName } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { compareStreams } from '../ledger/compare.ts';
import type { Job } from '../ledger/job.ts';
import { findById, findEarlier } from '../ledger/scan.ts';
import { findJobStreams } from '../ledger/streams.ts';
import { describeSealing } from '../notes/result.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatInstant, formatState } from '../pages/tables.ts';
import type { Page } from './answer.ts';
import { type Context, formatFailure, NotShown } from './context.ts';
import { findGolden } from './golden.ts';
import { asFormat } from './links.ts';
import { findSealed } from './sealed.ts';
import { groupDigits } from './words.ts';

/**
 * Longer streams are not compared on a page, and longer differences are cut; `webjobctl diff` has
 * no limits.
 */
const MAX_STREAM_BYTES = 16 * 1024 * 1024;
const MAX_SHOWN_LENGTH = 64 * 1024;
const LIMIT_MS = 5000;

interface Compared {
  from: Job;
  to: Job;
  stream: StreamName;
  /** The output of diff; empty when the streams are the same. */
  text: string;
  differs: boolean;
  isCut: boolean;
  failure: Failure | undefined;
}

/** Stops diff after enough output. */
class Enough extends Error {}

/** Compares two runs; undefined when there is nothing to compare with yet. Throws NotShown. */
async function compare(context: Context): Promise<Compared | { to: Job | undefined; stream: StreamName }> {
  const { params, database, site } = context;
  const stream = STREAMS.find((name) => name === (params.get('stream') ?? 'out'));
  if (!stream) throw new NotShown(400, 'The streams are out, err and env.');
  const to = find(context, params.get('to'));
  const given = params.get('from')?.trim();
  if (!to || !given) return { to, stream };
  const golden = given === 'golden' ? findGolden(context, to) : undefined;
  if (given === 'golden' && golden === undefined)
    throw new NotShown(404, `The file expect names no golden run of ${to.command} on ${to.clientId}.`);
  const from = given === 'previous' ? findEarlier(database, site, to) : find(context, golden ?? given);
  if (!from) throw new NotShown(404, `There is no earlier run of ${to.command} on ${to.clientId} with output.`);
  const compared: Compared = { from, to, stream, text: '', differs: false, isCut: false, failure: undefined };
  try {
    const both = [await findJobStreams(site, from), await findJobStreams(site, to)] as const;
    const [a, b] = [both[0][stream], both[1][stream]];
    if (!a || !b) throw new Failure('nothing', `${(a ? to : from).jobId} has no .${stream}`);
    for (const [index, job] of [from, to].entries()) {
      const sealed = await findSealed(both[index] ?? {}, stream);
      if (sealed)
        throw new Failure(
          'failed',
          `.${stream} of ${job.jobId} is ${describeSealing(sealed.recipients)}: webjobctl diff --identity compares it`,
        );
    }
    if (Math.max(a.bytes, b.bytes) > MAX_STREAM_BYTES)
      throw new Failure(
        'failed',
        `they are too large for a page (${groupDigits(Math.max(a.bytes, b.bytes))} bytes): webjobctl diff compares them`,
      );
    const labels: [string, string] = [`${from.jobId}`, `${to.jobId}`];
    compared.differs = await compareStreams(
      [a, b],
      labels,
      (text) => {
        compared.text += text;
        if (compared.text.length > MAX_SHOWN_LENGTH) throw new Enough();
      },
      LIMIT_MS,
    );
  } catch (error) {
    if (error instanceof Enough) {
      compared.text = compared.text.slice(0, compared.text.lastIndexOf('\n', MAX_SHOWN_LENGTH) + 1 || MAX_SHOWN_LENGTH);
      Object.assign(compared, { isCut: true, differs: true });
    } else if (error instanceof Failure) compared.failure = error;
    else if ((error as NodeJS.ErrnoException).syscall !== undefined)
      compared.failure = new Failure('failed', (error as Error).message, undefined, { cause: error });
    else throw error;
  }
  return compared;
}

function find({ database, site }: Context, id: string | null | undefined): Job | undefined {
  const text = id?.trim();
  if (!text) return undefined;
  const [job] = findById(database, site, text).filter((one) => one.group ?? one.packed);
  if (!job) throw new NotShown(404, `There is no job ${text} with output.`);
  return job;
}

export async function diffPage(context: Context): Promise<Page> {
  const compared = await compare(context);
  const { links, params } = context;
  const { to, stream } = compared;
  const name = to ? `${to.command ?? 'unknown command'} on ${to.clientId ?? 'unknown client'}` : 'two runs';
  return {
    title: `Difference: ${name}`,
    place: '/jobs',
    content: html`<h1>What differs</h1>
<p class="lead">${name}</p>
<form class="filter" action="${links.page('/diff')}" method="get" aria-label="Compare">
<div class="long"><label for="from">Before: a job id, previous or golden</label><input id="from" name="from" type="text" value="${params.get('from') ?? ''}" placeholder="previous" autocomplete="off" spellcheck="false" required></div>
<div class="long"><label for="to">After: a job id</label><input id="to" name="to" type="text" value="${params.get('to') ?? ''}" autocomplete="off" spellcheck="false" required></div>
<div><label for="stream">Stream</label><select id="stream" name="stream">${STREAMS.map((one) => html`<option value="${one}"${one === stream ? html` selected` : undefined}>.${one}</option>`)}</select></div>
<div class="act"><button type="submit">Compare</button></div>
</form>
${'from' in compared ? formatCompared(compared, context) : html`<p class="note">Give the job id of the run to compare with, or the word previous or golden.</p>`}`,
  };
}

function formatCompared(
  { from, to, stream, text, differs, isCut, failure }: Compared,
  { links, book }: Context,
): Markup {
  const side = (job: Job): Markup =>
    html`${formatState(job.state)} <a class="path" href="${links.job(job)}">${job.jobId}</a> ${formatInstant(job.at, book)} ${job.clientId}`;
  const json = asFormat(links.page('/diff', { from: from.jobId, to: to.jobId, stream }), 'json');
  return html`<ul class="sides"><li>Before: ${side(from)}</li><li>After: ${side(to)}</li></ul>
<p class="ways">${STREAMS.map((one, index) => html`${index > 0 ? ' · ' : undefined}${one === stream ? html`<strong>.${one}</strong>` : html`<a href="${links.page('/diff', { from: from.jobId, to: to.jobId, stream: one })}">.${one}</a>`}`)} · <a href="${json}">JSON</a></p>
${failure ? formatFailure(failure) : differs ? formatDiff(text, isCut) : html`<p class="state good">The same, byte for byte.</p>`}`;
}

function formatDiff(text: string, isCut: boolean): Markup {
  const lines = text.replace(/\n$/, '').split('\n');
  const looks: Record<string, string> = { '+': 'added', '-': 'removed', '@': 'hunk' };
  const body = lines.filter((line, index) => index >= 2 || !/^(?:---|\+\+\+) /.test(line));
  const added = body.filter((line) => line.startsWith('+')).length;
  const removed = body.filter((line) => line.startsWith('-')).length;
  return html`<p class="note">${groupDigits(added)} ${added === 1 ? 'line' : 'lines'} added, ${groupDigits(removed)} removed${isCut ? ', cut off here: webjobctl diff shows everything' : ''}.</p>
<pre class="text diff" role="region" aria-label="Difference" tabindex="0">${body.map((line) => {
    const look = looks[line[0] ?? ''];
    return look === undefined ? html`${line}\n` : html`<span class="${look}">${line}</span>\n`;
  })}</pre>`;
}

/** The result in the form of `webjobctl --json diff`. */
export async function diffJson(context: Context): Promise<unknown> {
  const compared = await compare(context);
  if (!('from' in compared)) throw new NotShown(400, 'from must be a job id, previous or golden; to must be a job id.');
  const { from, to, stream, differs, text, isCut, failure } = compared;
  if (failure) throw new NotShown(404, failure.message);
  return { from: from.jobId, to: to.jobId, stream, differs, diff: isCut ? null : text };
}
