// A headless Chromium driven by a test, which records every request and every console message. It
// sends no requests of its own.
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { installPackages } from '../../scripts/debian.ts';

const PLACES = [
  '/usr/bin/chromium', // Debian
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/usr/local/bin/chrome', // FreeBSD
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
];

const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync'],
];

/** The machine's Chromium, or Debian's, installed for root. Throws an Error when there is none. */
function obtainChromium(): string {
  const find = (): string | undefined => PLACES.find((place) => existsSync(place));
  const found = find();
  if (found) return found;
  installPackages(['chromium']);
  const obtained = find();
  if (!obtained)
    throw new Error('no Chromium on this machine, which opens the report in its tests; install the package chromium');
  return obtained;
}

export async function startChromium(): Promise<Browser> {
  return await chromium.launch({ executablePath: obtainChromium(), args: FLAGS });
}

export interface View {
  page: Page;
  /** The requested addresses. */
  requests: string[];
  /** Console messages, script errors, and failed requests. */
  complaints: string[];
  close(): Promise<void>;
}

/** A new window without any history. */
export async function openView(browser: Browser, options: BrowserContextOptions = {}): Promise<View> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const view: View = { page, requests: [], complaints: [], close: () => context.close() };
  page.on('request', (request) => view.requests.push(request.url()));
  page.on('console', (message) => view.complaints.push(message.text()));
  page.on('pageerror', (error) => view.complaints.push(String(error)));
  page.on('requestfailed', (request) => view.complaints.push(`failed: ${request.url()}`));
  page.on('dialog', (dialog) => {
    view.complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  return view;
}

/**
 * Runs in the page: the texts whose contrast with their background is below 4.5 to 1, and the
 * number of texts that were checked.
 */
export const FIND_FAINT_TEXT = `(() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[0-9.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const ground = (element) => {
    if (!element) return [255, 255, 255, 1];
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour : over(colour, ground(element.parentElement));
  };
  const light = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const contrast = (front, back) => {
    const [a, b] = [light(over(front, back)), light(back)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  for (const details of document.querySelectorAll('details')) details.open = true;
  const faint = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest('svg, script') || element.getClientRects().length === 0) continue;
    seen++;
    const ratio = contrast(parse(getComputedStyle(element).color), ground(element));
    if (!(ratio >= 4.5)) faint.push(ratio.toFixed(2) + ' ' + node.data.trim().slice(0, 40));
  }
  for (const shape of document.querySelectorAll('.bar, .bar-bad')) {
    seen++;
    const ratio = contrast(parse(getComputedStyle(shape).fill), ground(shape.closest('div, figure, td')));
    if (!(ratio >= 3)) faint.push(ratio.toFixed(2) + ' a bar');
  }
  return { faint, seen };
})()`;

/** Runs in the page: problems for users of screen readers. */
export const FIND_BARRIERS = `(() => {
  const found = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  for (const landmark of ['header', 'nav', 'main', 'footer', 'h1', 'title'])
    if (all(landmark).length !== 1 && !(landmark === 'title' && document.title)) found.push(all(landmark).length + ' ' + landmark);
  if (document.documentElement.lang !== 'en') found.push('no language');
  let level = 0;
  for (const heading of all('h1, h2, h3, h4, h5, h6')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) found.push('after h' + level + ' an h' + next);
    if (!heading.textContent.trim()) found.push('an empty heading');
    level = next;
  }
  const ids = all('[id]').map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push('twice the id ' + id);
  for (const table of all('table')) {
    if (!table.caption?.textContent.trim()) found.push('a table without a caption');
    if (table.querySelector('th:not([scope])')) found.push('a head without a scope');
    if (![...table.querySelectorAll('tbody tr')].every((row) => row.querySelector('th[scope=row], td'))) found.push('an empty row');
  }
  for (const image of all('svg'))
    if (!image.closest('[aria-hidden]') && !(image.getAttribute('role') === 'img' && image.querySelector('title') && image.querySelector('desc')))
      found.push('a chart without words');
  for (const region of all('[role=region]')) if (!region.getAttribute('aria-label') || region.tabIndex !== 0) found.push('a region that cannot be reached');
  for (const input of all('input')) if (input.labels.length !== 1) found.push('a field without a label');
  for (const link of all('a')) if (!link.textContent.trim()) found.push('a link without words');
  const skip = document.querySelector('a');
  if (document.querySelector(skip.getAttribute('href')) !== document.querySelector('main')) found.push('the first link does not skip to the content');
  for (const element of all('*'))
    for (const { name, value } of element.attributes)
      if (/^on|^style$/.test(name) || /^\\s*javascript:/i.test(value)) found.push('an attribute ' + name);
  return found;
})()`;
