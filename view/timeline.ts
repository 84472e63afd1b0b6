// A timeline of jobs as marks on a line, with the same information in words.
import { isFailure, type Job } from '../ledger/job.ts';
import { html, type Markup } from '../pages/html.ts';
import type { Context } from './context.ts';
import { dayText } from './days.ts';
import { countOf } from './words.ts';

const WIDTH = 1000;
const HEIGHT = 40;
/** Jobs closer than this share one mark. */
const MARK = 4;

export function formatTimeline(jobs: readonly Job[], now: Date, days: number, { book }: Context): Markup {
  const span = days * 86_400_000;
  const start = now.getTime() - span;
  const marks = new Map<number, { jobs: number; failures: number }>();
  let count = 0;
  let failures = 0;
  for (const job of jobs) {
    const x = Math.floor((((job.at.getTime() - start) / span) * WIDTH) / MARK);
    if (!(x >= 0 && x <= WIDTH / MARK)) continue;
    const mark = marks.get(x) ?? { jobs: 0, failures: 0 };
    mark.jobs++;
    count++;
    if (isFailure(job)) {
      mark.failures++;
      failures++;
    }
    marks.set(x, mark);
  }
  const labels = [0, 0.5, 1].map((share) => dayText(new Date(start + share * span), book.useGmt));
  return html`<figure class="chart">
<figcaption><h3>Runs</h3> <span>${countOf(count, 'job')}, ${countOf(failures, 'failure')}</span></figcaption>
<svg class="timeline" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-labelledby="timeline-title timeline-text">
<title id="timeline-title">Runs</title>
<desc id="timeline-text">${countOf(count, 'job')} from ${labels[0]} to ${labels[2]}, ${countOf(failures, 'failure')}. Failures reach to the top. The table of jobs below has them all.</desc>
<line class="grid" x1="0" x2="${WIDTH}" y1="${HEIGHT}" y2="${HEIGHT}"/>
${[...marks].map(
  ([x, mark]) =>
    html`<rect class="${mark.failures > 0 ? 'bar-bad' : 'bar'}" x="${x * MARK}" y="${mark.failures > 0 ? 0 : HEIGHT / 2}" width="${MARK - 1}" height="${mark.failures > 0 ? HEIGHT : HEIGHT / 2}"/>`,
)}
</svg>
<div class="axis" aria-hidden="true">${labels.map((label) => html`<span>${label}</span>`)}</div>
</figure>`;
}
