// The page of one job: what happened, whether the files are what the record of the run says, what the program printed, the record itself.
import { type LogLine, RECORD_FIELDS } from 'webjob-protocol';
import { describeClockSkew } from '../clock.ts';
import type { Job } from '../job.ts';
import type { Deposit } from './custody.ts';
import type { Evidence, StreamEvidence } from './evidence.ts';
import { html, type Markup } from './html.ts';
import type { Page } from './page.ts';
import { formatStream } from './stream.ts';
import { type Book, formatClient, formatCommand, formatEnd, formatInstant, formatState } from './tables.ts';
import type { JobVerdict, Verdict } from './verdict.ts';

const ROOT = '../';

/** All that there is to say of one job. */
export interface Case {
  job: Job;
  evidence: Evidence;
  /** What the custody record says of it. */
  deposit: Deposit | undefined;
  verdict: JobVerdict;
}

export function jobPage(shown: Case, book: Book): Page {
  const { job, evidence, verdict } = shown;
  const name = `${job.command ?? 'unknown command'} on ${job.clientId ?? 'unknown client'}`;
  return {
    ...{ title: `${name}, ${job.jobId ?? 'no job id'}`, root: ROOT, place: 'jobs.html' },
    content: html`<h1>${name}</h1>
<p class="lead">${formatState(job.state)} · ${formatInstant(job.at, book)}${formatVerdict(verdict)}</p>
<h2>Job</h2>
${formatFacts(job, evidence, book)}
<h2 id="verification">Verification</h2>
${formatVerification(shown)}
<h2 id="output">Output</h2>
${formatOutput(job, evidence)}
<h2 id="record">Record</h2>
${formatRecordTable(evidence)}
<h2 id="log">Log</h2>
${formatLog(job)}`,
  };
}

function formatTable(caption: string, rows: readonly [name: string, value: Markup | string | undefined][]): Markup {
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table class="facts"><caption><span>${caption}</span></caption><tbody>
${rows.map(([name, value]) => html`<tr><th scope="row">${name}</th><td>${value}</td></tr>\n`)}</tbody></table></div>`;
}

function formatFacts(job: Job, { record }: Evidence, book: Book): Markup {
  const reason = record?.fields.KidReason;
  return formatTable('What is known of it', [
    ['Job id', html`<span class="path">${job.jobId ?? 'none'}</span>`],
    ['Client', formatClient(job.clientId, ROOT, book)],
    ['Command', formatCommand(job.command, ROOT, book)],
    ['End', formatEnd(job)],
    ...(reason ? [['Reason', reason] as [string, string]] : []),
    ...(job.clockSkew === undefined ? [] : [['Clock', describeClockSkew(job.clockSkew)] as [string, string]]),
    ['Fetched', describeLine(job.get)],
    ['Uploaded', describeLine(job.put)],
    ...job.uploads
      .filter(({ name }) => name !== job.group?.name)
      .map(({ name }): [string, Markup] => ['Uploaded before', html`<span class="path">${name}</span>`]),
    ['Files', formatPlace(job)],
  ]);
}

function formatPlace({ group, packed }: Job): Markup | string {
  if (group) return html`<span class="path">${group.name}</span>`;
  return packed ? html`<span class="path">${packed.name}</span>, in the pack of ${packed.pack}` : 'none';
}

function describeLine(line: LogLine | undefined): string {
  if (!line) return 'not in the log';
  return `${line.time}, ${line.status} ${line.message}`;
}

/** Where a reader looks first; nothing where nothing could be compared. */
function formatVerdict({ look }: JobVerdict): Markup | undefined {
  if (look === 'bad') return html` · <a class="state bad" href="#verification">does not verify</a>`;
  return look === 'good' ? html` · <a class="state good" href="#verification">verified</a>` : undefined;
}

function formatVerification({ job, evidence, deposit, verdict }: Case): Markup {
  const { streams, record, recordProblem } = evidence;
  if (!job.group && !job.packed) return html`<p class="note">There are no files to verify.</p>`;
  const problems = [
    !job.group || job.group.has.has('rdy') ? undefined : 'The upload was not announced: it has no .rdy file.',
    recordProblem && `The record cannot be read: ${recordProblem}.`,
    verdict.custody,
  ].filter((problem) => problem !== undefined);
  const sources = [
    deposit ? 'the custody record of the server' : undefined,
    record ? `the ${record.fields.HashType} hashes in the record of the client` : undefined,
  ].filter((source) => source !== undefined);
  const caption = `Each stream as it lay in the ${job.group ? 'locker' : 'pack'} when this page was made${sources.length > 0 ? `, beside ${sources.join(' and ')}` : ''}`;
  return html`${problems.map((problem) => html`<p class="bad">${problem}</p>`)}<div class="scroll" role="region" aria-label="Verification" tabindex="0"><table>
<caption><span>${caption}</span></caption>
<thead><tr><th scope="col">Stream</th><th scope="col">Verdict</th><th scope="col" class="number">Bytes</th><th scope="col">SHA-256</th></tr></thead>
<tbody>
${(['out', 'err', 'env'] as const).map((name) => formatCheck(name, verdict.streams[name], streams[name]))}</tbody>
</table></div>${deposit?.receivedAt === undefined ? undefined : html`<p class="note">Received ${deposit.receivedAt}, as the custody record says.</p>`}`;
}

function formatCheck(name: string, { look, words, proof }: Verdict, stream: StreamEvidence | undefined): Markup {
  return html`<tr><th scope="row" class="path">.${name}</th><td><span class="state ${look}">${words}</span>${
    proof === undefined ? undefined : html`<br><span class="hash">${proof}</span>`
  }</td><td class="number">${stream?.size}</td><td class="hash">${stream?.sha256}</td></tr>
`;
}

function formatOutput({ group, packed }: Job, { streams }: Evidence): Markup {
  if (!group && !packed) return html`<p class="note">There is none.</p>`;
  const titles = [
    ['out', 'Standard output'],
    ['err', 'Standard error'],
  ] as const;
  return html`${titles.map(([name, title]) => {
    const stream = streams[name];
    return html`<section aria-labelledby="${name}"><h3 id="${name}">${title}</h3>
${stream ? formatStream(title, stream) : html`<p class="note">The file is missing.</p>`}</section>
`;
  })}`;
}

function formatRecordTable({ record, streams }: Evidence): Markup {
  if (record) {
    const rows = [...RECORD_FIELDS.map((name): [string, string] => [name, record.fields[name]]), ...record.extra];
    return formatTable('The record of the run, as the client wrote it', rows);
  }
  return streams.env ? formatStream('The record as it is', streams.env) : html`<p class="note">There is none.</p>`;
}

function formatLog({ get, put }: Job): Markup {
  const lines = [get, put].filter((line) => line !== undefined);
  if (lines.length === 0) return html`<p class="note">Nothing is in the log.</p>`;
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
