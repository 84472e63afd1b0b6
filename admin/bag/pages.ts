// The pages of a package, to be read and printed: an index, and one for each job. They name nobody
// outside of the package, load nothing and run nothing.
import { createHash } from 'node:crypto';
import { formatTime } from 'webjob-protocol';
import { countOf } from '../../cli/counts.ts';
import type { Act } from '../../evidence/acts.ts';
import type { Job } from '../../ledger/job.ts';
import { html, type Markup, trustedMarkup } from '../../pages/html.ts';
import { STYLE } from '../../pages/style.ts';
import { type Book, formatEnd, formatInstant, formatState } from '../../pages/tables.ts';
import { jobPage } from '../report/jobpage.ts';
import type { PackageInfo } from './info.ts';
import type { CopiedUpload } from './uploads.ts';

const POLICY = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'`;

export interface PageFrame {
  siteName: string;
  madeAt: Date;
  version: string;
  useGmt: boolean;
}

/** A job as a page shows it. */
export interface ShownJob {
  job: Job;
  uploads: readonly CopiedUpload[];
  missing: readonly string[];
  /** The notes on the job; other acts are not for the recipient. */
  acts: readonly Act[];
  /** The directory of the job in the package. */
  folder: string;
  /** The page of the job. */
  page: string;
  files: readonly string[];
  findings: readonly string[];
  notes: readonly string[];
}

function bookOf({ useGmt, madeAt: now }: PageFrame): Book {
  const none = (): undefined => undefined;
  return { useGmt, now, clientHref: none, commandHref: none, jobHref: none };
}

/** Formats the complete page of one job. */
export function formatJobPage(shown: ShownJob, frame: PageFrame): string {
  const { job, uploads, missing, files, findings, notes } = shown;
  const last = uploads.findLast(({ verdict }) => verdict.isAnnounced) ?? uploads.at(-1);
  const earlier = uploads.filter((upload) => upload !== last).map(({ name, verdict }) => ({ name, verdict }));
  const { verdict, heads = {}, deposit } = last ?? {};
  const { title, content } = jobPage(
    { job, heads, verdict, deposit, earlier, missing, acts: shown.acts },
    bookOf(frame),
  );
  const list = (id: string, name: string, lines: readonly (Markup | string)[]): Markup | undefined =>
    lines.length === 0
      ? undefined
      : html`<h2 id="${id}">${name}</h2><ul>${lines.map((line) => html`<li>${line}</li>\n`)}</ul>`;
  return formatFrame(
    title,
    '../',
    html`${content}
${list('findings', 'Findings', findings)}${list('notes', 'Notes', notes)}${list(
  'files',
  'Files in this package',
  files.map((path) => html`<a class="path" href="../${path}">${path}</a>`),
)}`,
    frame,
  );
}

/** Formats the complete page that lists the jobs. */
export function formatIndexPage(
  jobs: readonly Pick<ShownJob, 'job' | 'page' | 'findings'>[],
  { caseNumber, examiner, description }: PackageInfo,
  problems: readonly string[],
  frame: PageFrame,
): string {
  const facts: [string, string | undefined][] = [
    ['Case number', caseNumber],
    ['Examiner', examiner],
    ['Description', description],
    ['Site', frame.siteName],
    ['Made', `${formatTime(frame.madeAt, true)} UTC`],
  ];
  const rows = jobs.map(({ job, page, findings }) => {
    const look =
      findings.length > 0 ? html`<span class="state bad">${countOf(findings.length, 'finding')}</span>` : undefined;
    return html`<tr><td class="time">${formatInstant(job.at, bookOf(frame))}</td><td class="name">${job.clientId}</td><td class="name">${job.command}</td><td>${formatState(job.state)}</td><td>${formatEnd(job)}</td><td><a class="path" href="${page}">${job.jobId ?? 'no job id'}</a> ${look}</td></tr>
`;
  });
  return formatFrame(
    'Evidence',
    '',
    html`<h1>Evidence</h1>
${problems.map((problem) => html`<p class="bad">${problem}</p>`)}
<div class="scroll"><table class="facts"><tbody>
${facts.flatMap(([name, value]) => (value === undefined ? [] : html`<tr><th scope="row">${name}</th><td>${value}</td></tr>\n`))}</tbody></table></div>
<h2>Jobs</h2>
<div class="scroll"><table>
<thead><tr><th scope="col">Time</th><th scope="col">Client</th><th scope="col">Command</th><th scope="col">State</th><th scope="col">End</th><th scope="col">Job</th></tr></thead>
<tbody>
${rows}</tbody></table></div>
<p class="note">README.txt says what each file of this package is, and how to check it: <code>sh VERIFY.sh</code>.</p>`,
    frame,
  );
}

function formatFrame(
  title: string,
  root: '' | '../',
  content: Markup,
  { siteName, madeAt, version }: PageFrame,
): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trustedMarkup(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${title} · ${siteName}</title>
<style>${trustedMarkup(STYLE)}</style>
</head>
<body>
<header class="top"><div class="wide"><div class="brand"><a href="${root}index.html">Evidence</a> <span>${siteName}</span></div></div></header>
<main class="wide" id="content">
${content}
</main>
<footer class="foot"><div class="wide">Made ${formatTime(madeAt, true)} UTC by webjobctl ${version}. Client data is shown as text and never run.</div></footer>
</body>
</html>
`.text;
}
