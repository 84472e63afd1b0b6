// A chart of the results of bench/all.ts: requests a second with eight clients, as bars on a
// logarithmic scale, each with its figure and its ratio to the Perl script. Readable on light and
// dark pages.
import { PERL } from './peers.ts';
import type { Row } from './table.ts';

const WIDTH = 760;
const LABEL = 190;
const BAR = 18;
const STEP = 25;
const PLOT = 390;
const HEAD = 58;
const GAP = 52;
const OPERATIONS = ['GET 1 KiB', 'PUT 1 KiB'];
const CLIENTS = 8;

export function formatChart(rows: readonly Row[]): string {
  const shown = rows.filter(({ operation, clients }) => OPERATIONS.includes(operation) && clients === CLIENTS);
  const largest = Math.max(...shown.map(({ requestsPerSecond }) => requestsPerSecond));
  const parts: string[] = [];
  let y = HEAD;
  for (const operation of OPERATIONS) {
    const block = shown.filter((row) => row.operation === operation);
    const title = operation.startsWith('PUT') ? `${operation} (* on disk when it is answered)` : operation;
    parts.push(`<text class="title" x="16" y="${y}">${title}</text>`);
    y += 14;
    for (const row of block) {
      parts.push(formatBar(row, y, largest));
      y += STEP;
    }
    y += GAP - STEP;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" role="img" aria-label="Requests a second">
<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .faint { fill: #57606a; font-size: 12px }
  .page { fill: #ffffff }
  .other { fill: #afb8c1 }
  .perl { fill: #8c6d1f }
  .webjob { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .faint { fill: #9da7b3 }
    .page { fill: #0d1117 }
    .other { fill: #57606a }
    .perl { fill: #d4a72c }
    .webjob { fill: #539bf5 }
  }
</style>
<rect class="page" width="${WIDTH}" height="${y}" rx="6"/>
<text class="faint" x="16" y="26">Requests a second, eight clients at once, logarithmic; in parentheses the ratio to the Perl script</text>
${parts.join('\n')}
</svg>
`;
}

function formatBar({ peer, isDurable, requestsPerSecond, toPerl }: Row, y: number, largest: number): string {
  // Begins at one request a second.
  const length = (PLOT * Math.log10(Math.max(1.1, requestsPerSecond))) / Math.log10(largest);
  const kind = peer === PERL ? 'perl' : peer.startsWith('webjob') ? 'webjob' : 'other';
  const middle = y + BAR - 5;
  const figure = `${requestsPerSecond.toFixed(requestsPerSecond < 100 ? 1 : 0)} (${toPerl.toFixed(toPerl < 10 ? 2 : 1)})`;
  return `<text x="16" y="${middle}">${escapeText(peer)}${isDurable ? ' *' : ''}</text>
<rect class="${kind}" x="${LABEL}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" rx="2"/>
<text x="${(LABEL + length + 8).toFixed(1)}" y="${middle}">${figure}</text>`;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
