// The answers of the view, and the header for each kind.
import { createHash } from 'node:crypto';
import type { CgiResponse } from 'node-cgi-compat';
import { REASONS } from 'webjob-protocol';
import { formatJson } from '../cli/output.ts';
import { formatFrame } from '../pages/frame.ts';
import { html, type Markup } from '../pages/html.ts';
import { STYLE } from '../pages/style.ts';
import type { Links } from './links.ts';
import { SCRIPT } from './script.ts';

declare const WEBJOB_VERSION: string;

const PLACES = [
  ['/', 'Overview'],
  ['/jobs', 'Jobs'],
  ['/clients', 'Clients'],
  ['/commands', 'Commands'],
  ['/assignments', 'Assignments'],
  ['/search', 'Search'],
] as const;

export interface Page {
  status?: number;
  title: string;
  /** The entry in the navigation that the page belongs to. */
  place: (typeof PLACES)[number][0] | undefined;
  /** Whether the page is the target of that entry. */
  isPlace?: boolean;
  content: Markup;
  /** Seconds after which the page reloads itself. */
  refreshSeconds?: number | undefined;
}

/** Pages may only use the view's style and script and send requests to the view. */
const PAGE_POLICY = [
  "default-src 'none'",
  "style-src 'self'",
  "script-src 'self'",
  'img-src data:',
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Files that clients sent may load and run nothing. */
const STREAM_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'";

const COMMON = [
  ['X-Content-Type-Options', 'nosniff'],
  // With no-referrer, a browser would not report the origin of a form.
  ['Referrer-Policy', 'same-origin'],
  ['Cross-Origin-Resource-Policy', 'same-origin'],
  ['Cross-Origin-Opener-Policy', 'same-origin'],
] as const;
/** Not stored in shared caches, and not shown again without asking. */
const PRIVATE = ['Cache-Control', 'private, no-store'] as const;

type Header = readonly [name: string, value: string];

function answer(status: number, type: string, content: Buffer, policy: string, more: readonly Header[]): CgiResponse {
  return {
    status,
    reason: reasonOf(status),
    contentLength: content.length,
    content,
    headers: [['Content-Type', type], ['Content-Security-Policy', policy], ...COMMON, ...more],
  };
}

const OTHER_REASONS: Readonly<Record<number, string>> = {
  303: 'See Other',
  308: 'Permanent Redirect',
  503: 'Service Unavailable',
};

function reasonOf(status: number): string {
  return (REASONS as Readonly<Record<number, string>>)[status] ?? OTHER_REASONS[status] ?? 'Error';
}

/** The facts about a site that its pages show. */
export interface SiteFacts {
  siteName: string;
  /** `GMT` or `the server's time`. */
  clock: string;
  user: string | undefined;
}

export function answerPage(page: Page, links: Links, { siteName, clock, user }: SiteFacts): CgiResponse {
  const { status = 200, title, place, isPlace = false, content, refreshSeconds } = page;
  const text = formatFrame({
    title,
    siteName,
    content,
    placesLabel: 'View',
    style: html`<link rel="stylesheet" href="${links.page(STYLE_FILE)}">
<link rel="alternate" type="application/atom+xml" title="Failures" href="${links.page('/failures.atom')}">
<script src="${links.page(SCRIPT_FILE)}" defer></script>`,
    places: PLACES.map(([path, name]) => ({
      href: links.page(path),
      name,
      current: path !== place ? undefined : isPlace ? ('page' as const) : ('true' as const),
    })),
    aside: html`<form class="quick" role="search" aria-label="Find" action="${links.page('/search')}" method="get"><label class="quiet" for="quick">Search</label><input id="quick" name="q" type="search" placeholder="Output or job id" autocomplete="off" spellcheck="false"></form>`,
    foot: html`Times are ${clock} unless your browser shows them in yours. ${user === undefined ? undefined : html`Seen by ${user}. `}webjob-view ${WEBJOB_VERSION}. Client data is shown as text and never run.`,
  });
  const refresh: Header[] = refreshSeconds === undefined ? [] : [['Refresh', String(refreshSeconds)]];
  return answer(status, 'text/html; charset=utf-8', Buffer.from(text), PAGE_POLICY, [PRIVATE, ...refresh]);
}

export function answerJson(value: unknown): CgiResponse {
  const content = Buffer.from(`${formatJson(value)}\n`);
  return answer(200, 'application/json', content, STREAM_POLICY, [PRIVATE]);
}

export function answerText(type: string, text: string, fileName?: string): CgiResponse {
  const more: Header[] = fileName === undefined ? [] : [['Content-Disposition', `attachment; filename="${fileName}"`]];
  return answer(200, type, Buffer.from(text), STREAM_POLICY, [PRIVATE, ...more]);
}

/** Sends an open file as a download. The descriptor is closed when all of it is sent. */
export function answerFile(fd: number, bytes: number, fileName: string): CgiResponse {
  return {
    status: 200,
    reason: reasonOf(200),
    contentLength: bytes,
    content: { fd },
    headers: [
      ['Content-Type', 'application/octet-stream'],
      ['Content-Disposition', `attachment; filename="${fileName}"`],
      ['Content-Security-Policy', STREAM_POLICY],
      ...COMMON,
      PRIVATE,
    ],
  };
}

export function answerRedirect(status: 303 | 308, location: string): CgiResponse {
  return answer(status, 'text/plain', Buffer.alloc(0), STREAM_POLICY, [['Location', location], PRIVATE]);
}

const digest = (text: string): string => createHash('sha256').update(text).digest('base64url').slice(0, 12);

/** The names of style and script change with their contents, so browsers may cache both forever. */
const STYLE_FILE = `/style-${digest(STYLE)}.css`;
const SCRIPT_FILE = `/view-${digest(SCRIPT)}.js`;
const FOREVER = ['Cache-Control', 'private, max-age=31536000, immutable'] as const;

/** The style or the script; undefined for any other path. */
export function answerAsset(path: string): CgiResponse | undefined {
  if (path === STYLE_FILE) return answer(200, 'text/css; charset=utf-8', Buffer.from(STYLE), STREAM_POLICY, [FOREVER]);
  if (path === SCRIPT_FILE)
    return answer(200, 'text/javascript; charset=utf-8', Buffer.from(SCRIPT), STREAM_POLICY, [FOREVER]);
  return undefined;
}

/** A name of letters, digits and `_ . -`, for a file that a user downloads. */
export function safeFileName(text: string): string {
  return text.replace(/[^A-Za-z0-9_-]+/g, '_').slice(0, 120) || 'webjob';
}
