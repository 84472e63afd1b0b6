// The pages of acts on a job and on an assignment, and their results: a form becomes a request in
// the inbox, which `webjobctl acts` carries out and answers.
import { fstatSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CgiRequest, CgiResponse } from 'node-cgi-compat';
import { STREAMS } from 'webjob-locker';
import { isJobId } from 'webjob-protocol';
import { listIds, packageFile, readAnswer } from '../admin/acts/answers.ts';
import { parseNote } from '../admin/acts/note.ts';
import {
  ACT_NAMES,
  ACTS_WITH_TEXT,
  type ActAnswer,
  type ActName,
  type ActRequest,
  ASSIGNMENT_ACTS,
  parseActId,
  subjectOf,
} from '../admin/acts/request.ts';
import { Failure } from '../cli/failure.ts';
import { type Act, isHeld } from '../evidence/acts.ts';
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
import { findAssignment, formatAssignmentState, titleOf } from './assignments.ts';
import { type Context, NotShown } from './context.ts';
import { findOne } from './job.ts';
import { actsOf } from './on-record.ts';
import type { ActPlace } from './place.ts';

/** How long a form waits for its answer before the page says that the request waits. */
const PATIENCE_MS = 4000;
const LOOK_MS = 50;

/** The inbox and the answers of a site where acts are set up. Throws NotShown elsewhere. */
function requirePlace({ acts }: Context): ActPlace {
  if (acts) return acts;
  throw new NotShown(404, 'Acts are not set up at this site: see docs/guide/view.md.');
}

/** The job to act on. Throws NotShown. */
function findActedOn(context: Context, name: string): Job & { jobId: string } {
  const job = findOne(context, name);
  if (job.jobId !== undefined && isJobId(job.jobId)) return { ...job, jobId: job.jobId };
  throw new NotShown(404, 'This job has no id from the server, so nothing can be recorded about it.');
}

/** The job or assignment to act on. */
interface Subject {
  text: string;
  /** The fields that name the subject in a request. */
  fields: Pick<ActRequest, 'job' | 'assignment' | 'client'>;
  acts: readonly ActName[];
  /** The address of the page with the acts on the subject. */
  href: string;
}

export const ACT_KINDS = ['job', 'assignment'] as const;
export type ActKind = (typeof ACT_KINDS)[number];

/** Finds the subject of a page of acts. Throws NotShown. */
function findSubject(context: Context, kind: ActKind, name: string): Subject {
  const isOnAssignment = (act: ActName): boolean => ASSIGNMENT_ACTS.includes(act);
  if (kind === 'job') {
    const job = findActedOn(context, name);
    const fields = { job: job.jobId, client: job.clientId };
    const acts = ACT_NAMES.filter((act) => !isOnAssignment(act));
    return { text: subjectOf(fields), fields, acts, href: context.links.act(job) };
  }
  const { number } = findAssignment(context, name).assignment;
  const fields = { job: undefined, assignment: String(number), client: undefined };
  const href = context.links.page(`/act/assignment/${number}`);
  return { text: subjectOf(fields), fields, acts: ASSIGNMENT_ACTS, href };
}

/** Makes a form for one act; `fields` are for the reader to fill in. */
type MakeForm = (act: ActName, button: string, fields?: Markup) => Markup;

function makeForms(place: ActPlace, user: string, { text, href }: Subject): MakeForm {
  return (act, button, fields) =>
    html`<form class="act-form" action="${href}" method="post" aria-label="${button}">
<input type="hidden" name="act" value="${act}"><input type="hidden" name="token" value="${makeToken(place, { user, act, subject: text })}">
${fields}<button type="submit">${button}</button></form>
`;
}

function textField(id: string, label: string): Markup {
  return html`<div class="text"><label for="${id}">${label}</label><input id="${id}" name="text" type="text" maxlength="1000" required autocomplete="off"></div>`;
}

/** The forms for all acts, and the results of earlier requests. */
export function actsPage(context: Context, request: CgiRequest, kind: ActKind, name: string): Page {
  const user = requireActor(request);
  const place = requirePlace(context);
  const subject = findSubject(context, kind, name);
  // After a form was sent, the page reloads until the answer is there; it has no input that a
  // reload would lose.
  const isWaiting = context.params.has('asked') && listWaiting(place, subject.text).length > 0;
  const form = makeForms(place, user, subject);
  const { title, lead, forms, acts } =
    kind === 'job' ? describeJob(context, name, form) : describeOne(context, name, form);
  return {
    title: `${title}, ${subject.text}`,
    place: kind === 'job' ? '/jobs' : '/assignments',
    refreshSeconds: isWaiting ? 3 : undefined,
    content: html`<h1>${title}</h1>
<p class="lead">${lead}</p>
<p class="note">Each act is recorded in the custody record with your name, ${user}.</p>
${formatAsked(context, subject.text, user)}
${isWaiting ? html`<p><a href="${subject.href}">Request another act</a></p>` : forms}
${formatActs({ acts }, context.book)}`,
  };
}

interface Described {
  title: string;
  lead: Markup;
  forms: Markup;
  acts: readonly Act[];
}

function describeJob(context: Context, name: string, form: MakeForm): Described {
  const { book, links, site } = context;
  const job = findActedOn(context, name);
  const acts = actsOf(site).of(job);
  return {
    acts,
    title: `Acts on ${job.command ?? 'unknown command'} of ${job.clientId ?? 'unknown client'}`,
    lead: html`${formatState(job.state)} · ${formatInstant(job.at, book)} · <a class="path" href="${links.job(job)}">${job.jobId}</a>`,
    forms: html`<div class="acts">
<section><h2>Verify</h2><p class="note">Compares the job's uploads with the custody record and the run record.</p>${form('verify', 'Verify now')}</section>
<section><h2>Note</h2><p class="note">One line. It cannot be changed or removed.</p>${form('note', 'Add note', textField('note', 'Note'))}</section>
<section><h2>Hold</h2><p class="note">prune and pack skip uploads on hold.</p>${isHeld(acts.filter(({ kind }) => kind === 'job')) ? form('release', 'Release', textField('reason', 'Reason')) : form('hold', 'Put on hold', textField('reason', 'Reason'))}</section>
<section><h2>Download</h2><p class="note">One stream, byte for byte.</p>${form(
      'download',
      'Download',
      html`<div class="text"><label for="take">Stream</label><select id="take" name="stream">${STREAMS.map((stream) => html`<option value="${stream}">.${stream}</option>`)}</select></div>`,
    )}</section>
<section><h2>Evidence</h2><p class="note">A package of this job that anyone can check.</p>${form('package', 'Make a package')}</section>
</div>`,
  };
}

function describeOne(context: Context, name: string, form: MakeForm): Described {
  const { links, site } = context;
  const { assignment } = findAssignment(context, name);
  const { number, facts } = assignment;
  const isOver = facts.state === 'cancelled';
  return {
    title: `Acts on assignment ${number}`,
    acts: actsOf(site).ofAssignment(String(number)),
    lead: html`${formatAssignmentState(facts.state)} · <a href="${links.page(`/assignment/${number}`)}">${titleOf(assignment)}</a>`,
    forms: isOver
      ? html`<p class="note">The assignment is cancelled.</p>`
      : html`<div class="acts">
${facts.state === 'paused' ? undefined : html`<section><h2>Pause</h2><p class="note">No client fetches it until <code>webjobctl assign resume ${number}</code>.</p>${form('pause', 'Pause', textField('pause-reason', 'Reason'))}</section>`}
<section><h2>Cancel</h2><p class="note">No other client fetches it. Runs in progress continue.</p>${form('cancel', 'Cancel', textField('cancel-reason', 'Reason'))}</section>
</div>`,
  };
}

/** Handles a form of the page of acts; waits some seconds for the answer. */
export async function performAct(
  context: Context,
  request: CgiRequest,
  [kind, name]: readonly [ActKind, string],
  fields: URLSearchParams,
): Promise<CgiResponse> {
  const user = requireActor(request);
  requireSameOrigin(request);
  const place = requirePlace(context);
  const subject = findSubject(context, kind, name);
  const act = subject.acts.find((known) => known === fields.get('act'));
  if (!act) throw new NotShown(400, 'There is no such act.');
  const id = openToken(place, { user, act, subject: subject.text }, fields.get('token') ?? '');
  const back = `${subject.href}?asked=1#asked`;
  // A form that is sent twice is one act.
  if (isKnown(place, id, subject.text)) return answerRedirect(303, back);
  const stream = STREAMS.find((known) => known === fields.get('stream'));
  if (act === 'download' && !stream) throw new NotShown(400, 'There is no such stream.');
  const text = ACTS_WITH_TEXT.includes(act) ? parseText(fields.get('text') ?? '') : undefined;
  sendRequest(place, id, {
    act,
    ...subject.fields,
    user,
    text,
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

function isKnown({ inbox, answers }: ActPlace, id: string, subject: string): boolean {
  return listIds(inbox, subject).includes(id) || readAnswer(answers, id) !== undefined;
}

/** The result of an act for its user: a stream, or a package. Throws NotShown. */
export async function takeAnswer(context: Context, request: CgiRequest, id: string): Promise<CgiResponse> {
  const user = requireActor(request);
  const place = requirePlace(context);
  const answer = parseActId(id) && readAnswer(place.answers, id);
  if (!answer || answer.user !== user || answer.state !== 'done' || answer.job === undefined)
    throw new NotShown(404, 'There is nothing to download: you have not requested it, or it has expired.');
  const name = safeFileName(answer.job);
  if (answer.act === 'package') {
    const fd = openSync(packageFile(place.answers, id), 'r');
    return answerFile(fd, fstatSync(fd).size, `${name}.zip`);
  }
  if (answer.act !== 'download' || !answer.stream || Date.parse(answer.answeredAt) < Date.now() - TAKE_MS)
    throw new NotShown(404, 'There is nothing to download: request it again.');
  const jobs = findById(context.database, context.site, answer.job);
  const job = jobs.find(({ clientId }) => answer.client === undefined || clientId === answer.client);
  const stored = job && (await findJobStreams(context.site, job))[answer.stream];
  if (!stored) throw new NotShown(404, `This job has no .${answer.stream}.`);
  return answerFile(await openAsFile(stored), stored.bytes, `${name}.${answer.stream}.bin`);
}
