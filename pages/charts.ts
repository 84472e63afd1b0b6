// Charts drawn on the server instead of in the browser: SVG bars that stretch with the page, words
// and numbers in HTML beside them so that they stay readable on a phone, and the same numbers as a
// table.
import { html, type Markup } from './html.ts';

export interface Bar {
  /** The label of the bar, such as a day. */
  label: string;
  value: number;
  /** The target of the links from the bar and, for users without a pointer, from the table. */
  href?: string;
}

export interface Chart {
  /** Unique in its page. */
  id: string;
  title: string;
  /** The heading of the column of labels. */
  labels: string;
  bars: readonly Bar[];
  isBad?: boolean;
  format(value: number): string;
}

const HEIGHT = 100;
/** A fraction of the slot's width. */
const BAR_WIDTH = 0.72;
/** The minimum height of a value above zero, so that it is visible. */
const LEAST_HEIGHT = 1.5;

export function formatChart({ id, title, labels, bars, isBad, format }: Chart): Markup {
  const most = Math.max(0, ...bars.map(({ value }) => value));
  const sum = bars.reduce((total, { value }) => total + value, 0);
  // A chart with links cannot have the role of an image; the table below has the same content and
  // links.
  const isLinked = bars.some(({ href }) => href !== undefined);
  const summary = `${format(sum)} in all${most > 0 ? `, at most ${format(most)}` : ''}`;
  return html`<figure class="chart">
<figcaption><h3>${title}</h3> <span>${summary}</span></figcaption>
<div class="plot"><span class="most" aria-hidden="true">${format(most)}</span>
<svg viewBox="0 0 ${Math.max(1, bars.length)} ${HEIGHT}" preserveAspectRatio="none" ${isLinked ? html`aria-hidden="true"` : html`role="img" aria-labelledby="${id}-title ${id}-text"`}>
<title id="${id}-title">${title}</title>
<desc id="${id}-text">${describeBars(bars, format)}</desc>
${[0, 50, 100].map((y) => html`<line class="grid" x1="0" x2="${Math.max(1, bars.length)}" y1="${y}" y2="${y}"/>`)}
${bars.map((bar, index) => formatBar(bar, index, most, isBad === true, format))}
</svg></div>
<div class="axis" aria-hidden="true">${axisLabels(bars).map((label) => html`<span>${label}</span>`)}</div>
<details><summary>${title} as a table</summary>
<div class="scroll" role="region" aria-label="${title} as a table" tabindex="0"><table>
<caption><span>${title}</span></caption>
<thead><tr><th scope="col">${labels}</th><th scope="col" class="number">${title}</th></tr></thead>
<tbody>
${bars.map(({ label, value, href }) => html`<tr><th scope="row">${href === undefined ? label : html`<a href="${href}">${label}</a>`}</th><td class="number">${format(value)}</td></tr>\n`)}</tbody>
</table></div></details>
</figure>`;
}

function formatBar(
  { label, value, href }: Bar,
  index: number,
  most: number,
  isBad: boolean,
  format: Chart['format'],
): Markup {
  const height = value > 0 ? Math.max(LEAST_HEIGHT, (value / most) * HEIGHT) : 0;
  const shape = html`<rect class="${isBad ? 'bar-bad' : 'bar'}" x="${round(index + (1 - BAR_WIDTH) / 2)}" y="${round(HEIGHT - height)}" width="${BAR_WIDTH}" height="${round(height)}"/>`;
  // The tooltip covers the whole height of the slot, because a low bar could not be pointed at.
  const slot = html`<g><title>${label}: ${format(value)}</title><rect class="slot" x="${index}" y="0" width="1" height="${HEIGHT}"/>${height > 0 ? shape : undefined}</g>`;
  return href === undefined ? html`${slot}\n` : html`<a href="${href}" tabindex="-1">${slot}</a>\n`;
}

function describeBars(bars: readonly Bar[], format: Chart['format']): string {
  const [first] = bars;
  const last = bars.at(-1);
  const highest = bars.reduce<Bar | undefined>((best, bar) => (bar.value > (best?.value ?? 0) ? bar : best), undefined);
  if (!first || !last || !highest) return 'No data in this period.';
  return `${bars.length} bars from ${first.label} to ${last.label}, the highest ${format(highest.value)} at ${highest.label}. The table below has them all.`;
}

/** The first, middle and last label. */
function axisLabels(bars: readonly Bar[]): string[] {
  const indexes = bars.length < 3 ? bars.keys() : [0, Math.floor((bars.length - 1) / 2), bars.length - 1];
  return [...indexes].map((index) => bars[index]?.label ?? '');
}

/** A horizontal bar for a table cell that also has the value as text. */
export function formatMeter(share: number, isBad: boolean): Markup {
  const width = round(Math.min(1, Math.max(0, share)) * 100);
  return html`<svg class="meter" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect class="${isBad ? 'bar-bad' : 'bar'}" width="${width}" height="1"/></svg>`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
