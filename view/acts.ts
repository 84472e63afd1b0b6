// The page of acts on a job, and their results: a form becomes a request in the inbox, which
// `webjobctl acts` carries out and answers.
import { fstatSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CgiRequest, CgiResponse } from 'node-cgi-compat';
import { STREAMS } from 'webjob-locker';
import { isJobId } from 'webjob-protocol';
import { listIds, packageFile, readAnswer } from '../admin/acts/answers.ts';
import { parseNote } from '../admin/acts/note.ts';
import { ACT_NAMES, ACTS_WITH_TEXT, type ActAnswer, type ActName, parseActId } from '../admin/acts/request.ts';
import { Failure } from '../cli/failure.ts';
import { isHeld } from '../evidence/acts.ts';
import { openAsFile } from '../ledger/compare.ts';
import type { Job } from '../ledger/job.ts';
import { findById } from '../ledger/scan.ts';
import { findJobStreams } from '../ledger/streams.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatActs } from '../pages/job.ts';
import { formatInstant, formatState } from '../pages/tables.ts';
import { makeToken, openToken, requireActor, requireSameOrigin, sendRequest } from './acting.ts';
import { answerFile, answerRedirect, type Page, safeFileName } from './answer.ts';
import { formatAsked, listWaiting, TAKE_MS } from './asked.ts';
import { type Context, NotShown } from './context.ts';
import { actsOf, findOne } from './job.ts';
import type { ActPlace } from './place.ts';

/** How long a form waits for its answer before the page says that it waits. */
const PATIENCE_MS = 4000;
const LOOK_MS = 50;

/** The place of acts, where they are set up. Throws NotShown elsewhere. */
function requirePlace({ acts }: Context): ActPlace {
  if (acts) return acts;
  throw new NotShown(404, 'No acts are set up at this site: docs/guide/view.md says how.');
}

/** The job to act on. Throws NotShown. */
function findActedOn(context: Context, name: string): Job & { jobId: string } {
  const job = findOne(context, name);
  if (job.jobId !== undefined && isJobId(job.jobId)) return { ...job, jobId: job.jobId };
  throw new NotShown(404, 'This job has no id of the server, so nothing can be put on record of it.');
}

/** The forms for all acts, and the results of earlier requests. */
export function actsPage(context: Context, request: CgiRequest, name: string): Page {
  const user = requireActor(request);
  const place = requirePlace(context);
  const job = findActedOn(context, name);
  const { book, links, site } = context;
  const acts = actsOf(site).of(job);
  // After a form was sent, the page reloads until the answer is there; it has no input that a
  // reload would lose.
  const isWaiting = context.params.has('asked') && listWaiting(place, job.jobId).length > 0;
  const title = `Acts on ${job.command ?? 'unknown command'} of ${job.clientId ?? 'unknown client'}`;
  const form = (act: ActName, button: string, fields?: Markup): Markup =>
    html`<form class="act-form" action="${links.act(job)}" method="post" aria-label="${button}">
<input type="hidden" name="act" value="${act}"><input type="hidden" name="token" value="${makeToken(place, { user, act, job: job.jobId })}">
${fields}<button type="submit">${button}</button></form>
`;
  const text = (id: string, label: string): Markup =>
    html`<div class="text"><label for="${id}">${label}</label><input id="${id}" name="text" type="text" maxlength="1000" required autocomplete="off"></div>`;
  const formatForms = (): Markup => html`<div class="acts">
<section><h2>Verify</h2><p class="note">Holds its uploads against the custody record and the record of the run.</p>${form('verify', 'Verify now')}</section>
<section><h2>Note</h2><p class="note">One line. It cannot be changed or removed.</p>${form('note', 'Add note', text('note', 'Note'))}</section>
<section><h2>Hold</h2><p class="note">What is on hold no prune and no pack touches.</p>${isHeld(acts.filter(({ kind }) => kind === 'job')) ? form('release', 'Release', text('reason', 'Reason')) : form('hold', 'Put on hold', text('reason', 'Reason'))}</section>
<section><h2>Download</h2><p class="note">One stream, byte for byte.</p>${form(
    'download',
    'Download',
    html`<div class="text"><label for="take">Stream</label><select id="take" name="stream">${STREAMS.map((stream) => html`<option value="${stream}">.${stream}</option>`)}</select></div>`,
  )}</section>
<section><h2>Evidence</h2><p class="note">A package of this job that anyone can check.</p>${form('package', 'Make a package')}</section>
</div>`;
  return {
    ...{ title: `${title}, ${job.jobId}`, place: '/jobs', refreshSeconds: isWaiting ? 3 : undefined },
    content: html`<h1>${title}</h1>
<p class="lead">${formatState(job.state)} · ${formatInstant(job.at, book)} · <a class="path" href="${links.job(job)}">${job.jobId}</a></p>
<p class="note">Each act is put on the custody record with your name, ${user}.</p>
${formatAsked(context, job.jobId, user)}
${isWaiting ? html`<p><a href="${links.act(job)}">Ask for another act</a></p>` : formatForms()}
${formatActs({ acts }, book)}`,
  };
}

/** Handles a form of that page; waits some seconds for the answer. */
export async function performAct(
  context: Context,
  request: CgiRequest,
  name: string,
  fields: URLSearchParams,
): Promise<CgiResponse> {
  const user = requireActor(request);
  requireSameOrigin(request);
  const place = requirePlace(context);
  const job = findActedOn(context, name);
  const act = ACT_NAMES.find((known) => known === fields.get('act'));
  if (!act) throw new NotShown(400, 'There is no such act.');
  const id = openToken(place, { user, act, job: job.jobId }, fields.get('token') ?? '');
  const back = `${context.links.act(job)}?asked=1#asked`;
  // A form that is sent twice is one act.
  if (isKnown(place, id, job.jobId)) return answerRedirect(303, back);
  const stream = STREAMS.find((known) => known === fields.get('stream'));
  if (act === 'download' && !stream) throw new NotShown(400, 'There is no such stream.');
  const text = ACTS_WITH_TEXT.includes(act) ? parseText(fields.get('text') ?? '') : undefined;
  sendRequest(place, id, {
    ...{ act, job: job.jobId, client: job.clientId, user, text },
    stream: act === 'download' ? stream : undefined,
  });
  const answer = await waitForAnswer(place, id);
  const isThere = answer?.state === 'done' && act === 'download';
  return answerRedirect(303, isThere ? context.links.page(`/act/answer/${id}`) : back);
}

function parseText(text: string): string {
  try {
    return parseNote(text, 'The text');
  } catch (error) {
    if (error instanceof Failure) throw new NotShown(400, `${error.message}.`);
    throw error;
  }
}

async function waitForAnswer({ answers }: ActPlace, id: string): Promise<ActAnswer | undefined> {
  for (const deadline = performance.now() + PATIENCE_MS; performance.now() < deadline; await sleep(LOOK_MS)) {
    const answer = readAnswer(answers, id);
    if (answer && answer.state !== 'started') return answer;
  }
  return undefined;
}

function isKnown({ inbox, answers }: ActPlace, id: string, job: string): boolean {
  return listIds(inbox, job).includes(id) || readAnswer(answers, id) !== undefined;
}

/** The result of an act for its user: a stream, or a package. Throws NotShown. */
export async function takeAnswer(context: Context, request: CgiRequest, id: string): Promise<CgiResponse> {
  const user = requireActor(request);
  const place = requirePlace(context);
  const answer = parseActId(id) && readAnswer(place.answers, id);
  if (!answer || answer.user !== user || answer.state !== 'done')
    throw new NotShown(404, 'There is nothing to take: it was not asked for by you, or is gone.');
  const name = safeFileName(answer.job);
  if (answer.act === 'package') {
    const fd = openSync(packageFile(place.answers, id), 'r');
    return answerFile(fd, fstatSync(fd).size, `${name}.zip`);
  }
  if (answer.act !== 'download' || !answer.stream || Date.parse(answer.answeredAt) < Date.now() - TAKE_MS)
    throw new NotShown(404, 'There is nothing to take any more: ask for it again.');
  const jobs = findById(context.database, context.site, answer.job);
  const job = jobs.find(({ clientId }) => answer.client === undefined || clientId === answer.client);
  const stored = job && (await findJobStreams(context.site, job))[answer.stream];
  if (!stored) throw new NotShown(404, `This job has no .${answer.stream}.`);
  return answerFile(await openAsFile(stored), stored.bytes, `${name}.${answer.stream}.bin`);
}
