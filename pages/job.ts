// The parts of every page of a job: its facts, the verdict on its files, its run record, and its
// log lines.
import { type LogLine, NOT_APPLICABLE, RECORD_FIELDS } from 'webjob-protocol';
import { type Act, isHeld } from '../evidence/acts.ts';
import type { Deposit } from '../evidence/records.ts';
import { judge, judgeAll, lookOf, STREAM_WORDS, type StreamVerdict, type Verdict } from '../evidence/verdict.ts';
import { describeClockSkew } from '../ledger/clock.ts';
import { describeDiffering } from '../ledger/fields.ts';
import type { Job } from '../ledger/job.ts';
import type { Heads } from './heads.ts';
import { html, type Markup } from './html.ts';
import { formatStream, MAX_TEXT_BYTES } from './stream.ts';
import { type Book, formatClient, formatCommand, formatEnd, formatInstant } from './tables.ts';

/** Everything about one job. */
export interface Case {
  job: Job;
  heads: Heads;
  /** The verdict on the job's upload; undefined when there is none. */
  verdict: Verdict | undefined;
  /** The deposit of the upload in the custody record. */
  deposit: Deposit | undefined;
  /** Earlier uploads under the same job id. */
  earlier: readonly { name: string; verdict: Verdict }[];
  /** Uploads that were recorded under the job's id and are missing. */
  missing: readonly string[];
  /** The acts of operators on the job, oldest first. */
  acts: readonly Act[];
}

/**
 * The verdict on everything that the job uploaded: the worst one counts. Undefined when there is
 * nothing to judge.
 */
export function judgeCase({ verdict, earlier, missing }: Case): ReturnType<typeof judge> | undefined {
  return judgeAll([...(verdict ? [verdict] : []), ...earlier.map((other) => other.verdict)], missing.length > 0);
}

export function formatFactTable(
  caption: string,
  rows: readonly [name: string, value: Markup | string | undefined][],
): Markup {
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table class="facts"><caption><span>${caption}</span></caption><tbody>
${rows.map(([name, value]) => html`<tr><th scope="row">${name}</th><td>${value}</td></tr>\n`)}</tbody></table></div>`;
}

export function formatFacts({ job, verdict, earlier }: Case, root: string, book: Book): Markup {
  const reason = verdict?.record?.fields.KidReason;
  return formatFactTable('Facts', [
    ['Job id', html`<span class="path">${job.jobId ?? 'none'}</span>`],
    ['Client', formatClient(job.clientId, root, book)],
    ['Command', formatCommand(job.command, root, book)],
    ['End', formatEnd(job)],
    ...(reason ? [['Reason', reason] as [string, string]] : []),
    ...(job.clockSkew === undefined ? [] : [['Clock', describeClockSkew(job.clockSkew)] as [string, string]]),
    ...formatDiffering(job),
    ['Fetched', describeLine(job.get)],
    ['Uploaded', describeLine(job.put)],
    ...(job.outerId === undefined
      ? []
      : [['Started by', html`<span class="path">${job.outerId}</span>`] as [string, Markup]]),
    ...job.left
      .filter((name) => name !== job.group?.name)
      .map((name): [string, Markup] => ['Left behind', html`<span class="path">${name}</span>`]),
    ...earlier.map(({ name, verdict }): [string, Markup] => {
      const { look, words } = judge(verdict);
      return ['Uploaded before', html`<span class="path">${name}</span>, <span class="state ${look}">${words}</span>`];
    }),
    ['Files', formatPlace(job)],
  ]);
}

/** The note that a client sent other bytes under a name that was taken. */
function formatDiffering(job: Job): [string, Markup][] {
  const differing = describeDiffering(job);
  return differing === undefined ? [] : [['Differs', html`<span class="state bad">${differing}</span>`]];
}

function formatPlace({ group, packed }: Job): Markup | string {
  if (group) return html`<span class="path">${group.name}</span>`;
  return packed ? html`<span class="path">${packed.name}</span>, in the archive ${packed.pack}` : 'none';
}

function describeLine(line: LogLine | undefined): string {
  if (!line) return 'not in the log';
  return `${line.time}, ${line.status} ${line.message}`;
}

/** The facts of a job that a reader needs first. */
export function formatVerdict(shown: Case): Markup | undefined {
  const verdict = judgeCase(shown);
  if (!verdict) return undefined;
  return html` · <a class="state ${verdict.look}" href="#verification">${verdict.words}</a>`;
}

export function formatVerification({ job, verdict, deposit, earlier, missing }: Case): Markup {
  const lost = missing.map((name) => `The custody record has ${name}, and it is missing.`);
  if (!verdict) {
    if (lost.length > 0) return formatProblems(lost);
    return html`<p class="note">There are no files to verify.</p>`;
  }
  const { record, recordProblem, isAnnounced, result } = verdict;
  const findings = [verdict, ...earlier.map((other) => other.verdict)].flatMap(({ findings }) => findings);
  const problems = [
    ...(isAnnounced ? [] : ['The upload was not announced: it has no .rdy file.']),
    ...lost,
    ...findings.map(({ kind, place, detail }) => `${kind} ${place}: ${detail}.`),
  ];
  const notes = [
    recordProblem && `The record cannot be read: ${recordProblem}.`,
    deposit?.fault && 'The custody record was changed before the entry of this upload.',
    deposit?.receivedAt && `Received ${deposit.receivedAt}, as the custody record says.`,
    result?.state === 'good' && `The client signed the run record and the output with the key ${result.key}.`,
    result?.state === 'none' && 'The client has not signed the result.',
    result?.sealedTo && `The streams are sealed to ${result.sealedTo.join(', ')}.`,
  ].filter((note) => typeof note === 'string');
  const sources = [
    deposit ? 'the custody record of the server' : undefined,
    record && record.fields.HashType !== NOT_APPLICABLE
      ? `the ${record.fields.HashType} hashes in the record of the client`
      : undefined,
  ].filter((source) => source !== undefined);
  const caption = `Each stream as it was in the ${job.group ? 'locker' : 'archive'} when this page was made${sources.length > 0 ? `, beside ${sources.join(' and ')}` : ''}`;
  return html`${formatProblems(problems)}<div class="scroll" role="region" aria-label="Verification" tabindex="0"><table>
<caption><span>${caption}</span></caption>
<thead><tr><th scope="col">Stream</th><th scope="col">Verdict</th><th scope="col" class="number">Bytes</th><th scope="col">SHA-256</th></tr></thead>
<tbody>
${(['out', 'err', 'env'] as const).map((name) => formatCheck(name, verdict.streams[name]))}</tbody>
</table></div>${notes.map((note) => html`<p class="note">${note}</p>`)}`;
}

function formatProblems(problems: readonly string[]): Markup {
  return html`${problems.map((problem) => html`<p class="bad">${problem}</p>`)}`;
}

function formatCheck(name: string, { state, bytes, sha256, proof }: StreamVerdict): Markup {
  return html`<tr><th scope="row" class="path">.${name}</th><td><span class="state ${lookOf(state)}">${STREAM_WORDS[state]}</span>${
    proof === undefined ? undefined : html`<br><span class="hash">${proof}</span>`
  }</td><td class="number">${bytes}</td><td class="hash">${sha256}</td></tr>
`;
}

const ACT_WORDS: Record<Act['event'], string> = {
  note: 'Note',
  hold: 'Put on hold',
  release: 'Released',
  verify: 'Verified',
  download: 'Downloaded',
  evidence: 'Handed over',
  assign: 'Assigned',
  'assign-change': 'Changed',
};

/** Notes, holds and the like, with a heading; undefined for a job without any. */
export function formatActs({ acts }: Pick<Case, 'acts'>, book: Book): Markup | undefined {
  if (acts.length === 0) return undefined;
  return html`<h2 id="acts">Notes and acts</h2>
${isHeld(acts) ? html`<p><span class="state warn held">On hold</span></p>` : undefined}
<div class="scroll" role="region" aria-label="Notes and acts" tabindex="0"><table class="stack">
<caption><span>The acts of operators, from the custody record</span></caption>
<thead><tr><th scope="col">Time</th><th scope="col">What</th><th scope="col">By</th><th scope="col">Text</th></tr></thead>
<tbody>
${acts.map(
  ({ event, kind, at, by, text }) =>
    html`<tr><td class="time">${formatInstant(new Date(at), book)}</td><td>${ACT_WORDS[event]}${kind === 'client' ? ' (the client)' : undefined}</td><td class="name">${by}</td><td class="name">${text}</td></tr>
`,
)}</tbody>
</table></div>`;
}

export function formatRecordTable(verdict: Verdict | undefined, { env }: Heads): Markup {
  const record = verdict?.record;
  if (record) {
    const rows = [...RECORD_FIELDS.map((name): [string, string] => [name, record.fields[name]]), ...record.extra];
    return formatFactTable('The run record, as the client wrote it', rows);
  }
  if (!env) return html`<p class="note">There is none.</p>`;
  return formatStream('The run record as received', { head: env.head.subarray(0, MAX_TEXT_BYTES), size: env.size });
}

export function formatLog({ get, put, attempts }: Job): Markup {
  const lines = [get, put, ...attempts]
    .filter((line) => line !== undefined)
    .sort((a, b) => (a.time < b.time ? -1 : Number(a.time > b.time)));
  if (lines.length === 0) return html`<p class="note">There is nothing in the log.</p>`;
  return html`<div class="scroll" role="region" aria-label="Lines of the log" tabindex="0"><table>
<caption><span>Requests of this job in nph-webjob.log</span></caption>
<thead><tr><th scope="col">Time</th><th scope="col">Method</th><th scope="col">From</th><th scope="col">User</th><th scope="col" class="number">Received</th><th scope="col" class="number">Sent</th><th scope="col" class="number">Seconds</th><th scope="col" class="number">Status</th><th scope="col">Message</th></tr></thead>
<tbody>
${lines.map(
  (
    line,
  ) => html`<tr><td class="time">${line.time}</td><td>${line.method}</td><td>${line.remoteAddress}</td><td>${line.remoteUser}</td><td class="number">${line.bytesReceived}</td><td class="number">${line.bytesSent}</td><td class="number">${line.seconds}</td><td class="number">${line.status}</td><td class="name">${line.message}</td></tr>
`,
)}</tbody>
</table></div>`;
}
