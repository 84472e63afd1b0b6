// The frame of every page: what it may load, which is nothing, the way round the report, and its landmarks.
import { createHash } from 'node:crypto';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { FILTER } from './filter.ts';
import { html, type Markup, trustedMarkup } from './html.ts';
import { STYLE } from './style.ts';

const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** What a page may do: show its own style and run its own script, both known by their hashes; `data:` is the icon. */
const CONTENT_POLICY = [
  "default-src 'none'",
  'img-src data:',
  `style-src ${hash(STYLE)}`,
  `script-src ${hash(FILTER)}`,
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

const ICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='3' fill='%230a5685'/%3E%3Cpath d='M4 11V8m4 3V5m4 6V7' stroke='white' stroke-width='2'/%3E%3C/svg%3E";

const PLACES = [
  ['index.html', 'Overview'],
  ['jobs.html', 'Jobs'],
  ['clients.html', 'Clients'],
  ['commands.html', 'Commands'],
] as const;

export interface Page {
  title: string;
  /** From the page to the report's root: nothing, or `../`. */
  root: '' | '../';
  /** Which of the places in the navigation it is, or lies below. */
  place: (typeof PLACES)[number][0];
  content: Markup;
}

export interface Frame {
  /** What the site is called. */
  siteName: string;
  /** When the report was made, to be read by people. */
  madeAt: string;
  version: string;
}

const MARK_BYTES = 256;
const MARK =
  /^<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="webjob-page" content="([\w-]+ [\w-]+)">\n/;

/** The mark of a page that is there; undefined where there is none. Throws the error of a system call. */
export function readMark(path: string): string | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const head = Buffer.alloc(MARK_BYTES);
    return MARK.exec(head.toString('latin1', 0, readSync(fd, head)))?.[1];
  } finally {
    closeSync(fd);
  }
}

/** The digest of what a page is made from: `facts`, and all that is the same on every page. */
export function digestPage({ siteName, version }: Frame, ...facts: string[]): string {
  const sum = createHash('sha256');
  for (const fact of [siteName, version, CONTENT_POLICY, ...facts]) sum.update(`${fact}\0`);
  return sum.digest('base64url').slice(0, 27);
}

/** The page, complete. `mark` is what the next report looks at: the digest of what the page was made from, and a word. */
export function formatPage(
  { title, root, place, content }: Page,
  { siteName, madeAt, version }: Frame,
  mark: string,
): string {
  const isPlace = (file: string): boolean => root === '' && file === place;
  const current = (file: string): Markup | undefined => {
    if (file !== place) return undefined;
    return isPlace(file) ? html` aria-current="page"` : html` aria-current="true"`;
  };
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="webjob-page" content="${mark}">
<meta http-equiv="Content-Security-Policy" content="${trustedMarkup(CONTENT_POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex, nofollow">
<title>${title} · ${siteName} · WebJob</title>
<link rel="icon" href="${trustedMarkup(ICON)}">
<style>${trustedMarkup(STYLE)}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top"><div class="wide">
<div class="brand">WebJob <span>${siteName}</span></div>
<nav aria-label="Report"><ul>${PLACES.map(
    ([file, name]) => html`<li><a href="${root}${file}"${current(file)}>${name}</a></li>`,
  )}</ul></nav>
</div></header>
<main class="wide" id="content" tabindex="-1">
${content}
</main>
<footer class="foot"><div class="wide">Made ${madeAt} by webjobctl ${version}. What clients sent is shown as text, never run.</div></footer>
<script>${trustedMarkup(FILTER)}</script>
</body>
</html>
`.text;
}
