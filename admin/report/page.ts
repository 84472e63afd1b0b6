// The frame of a page of the report: a policy that lets it load nothing, and the navigation.
import { createHash } from 'node:crypto';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { type FramePlace, formatFrame } from '../../pages/frame.ts';
import { html, type Markup, trustedMarkup } from '../../pages/html.ts';
import { STYLE } from '../../pages/style.ts';
import { FILTER } from './filter.ts';

const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/**
 * The policy of a page: only its own style and script, identified by hashes; `data:` is for the
 * icon.
 */
const CONTENT_POLICY = [
  "default-src 'none'",
  'img-src data:',
  `style-src ${hash(STYLE)}`,
  `script-src ${hash(FILTER)}`,
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

const PLACES = [
  ['index.html', 'Overview'],
  ['jobs.html', 'Jobs'],
  ['clients.html', 'Clients'],
  ['commands.html', 'Commands'],
] as const;

export interface Page {
  title: string;
  /** The path from the page to the report's root: empty, or `../`. */
  root: '' | '../';
  /** The entry in the navigation that the page belongs to. */
  place: (typeof PLACES)[number][0];
  content: Markup;
}

export interface Frame {
  /** The name of the site. */
  siteName: string;
  /** When the report was made, in words. */
  madeAt: string;
  version: string;
}

const MARK_BYTES = 256;
const MARK =
  /^<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="webjob-page" content="([\w-]+ [\w-]+)">\n/;

/**
 * The mark of an existing page; undefined when there is none. Throws the error of a system call.
 */
export function readMark(path: string): string | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const head = Buffer.alloc(MARK_BYTES);
    return MARK.exec(head.toString('latin1', 0, readSync(fd, head)))?.[1];
  } finally {
    closeSync(fd);
  }
}

/** The digest of a page's sources: `facts`, and the parts common to all pages. */
export function digestPage({ siteName, version }: Frame, ...facts: string[]): string {
  const sum = createHash('sha256');
  for (const fact of [siteName, version, CONTENT_POLICY, ...facts]) sum.update(`${fact}\0`);
  return sum.digest('base64url').slice(0, 27);
}

/**
 * Formats a complete page. `mark` is read by the next report: the digest of the page's sources, and
 * a word.
 */
export function formatPage(
  { title, root, place, content }: Page,
  { siteName, madeAt, version }: Frame,
  mark: string,
): string {
  const places = PLACES.map(([file, name]): FramePlace => {
    const current = file !== place ? undefined : root === '' ? 'page' : 'true';
    return { href: root + file, name, current };
  });
  return formatFrame({
    title,
    siteName,
    content,
    places,
    placesLabel: 'Report',
    meta: html`<meta name="webjob-page" content="${mark}">
<meta http-equiv="Content-Security-Policy" content="${trustedMarkup(CONTENT_POLICY)}">
<meta name="referrer" content="no-referrer">`,
    style: html`<style>${trustedMarkup(STYLE)}</style>`,
    foot: html`Made ${madeAt} by webjobctl ${version}. Client data is shown as text and never run.`,
    end: html`<script>${trustedMarkup(FILTER)}</script>
`,
  });
}
