// The frame of every page: its head, navigation and landmarks.
import { html, type Markup, trustedMarkup } from './html.ts';

const ICON =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='3' fill='%230a5685'/%3E%3Cpath d='M4 11V8m4 3V5m4 6V7' stroke='white' stroke-width='2'/%3E%3C/svg%3E";

/** An entry in the navigation; `page` for the page itself, `true` for a parent of it. */
export interface FramePlace {
  href: string;
  name: string;
  current: 'page' | 'true' | undefined;
}

export interface FrameParts {
  title: string;
  /** The name of the site. */
  siteName: string;
  /** Inserted first in the head, after the character set. */
  meta?: Markup;
  style: Markup;
  places: readonly FramePlace[];
  /** The label of the navigation for screen readers. */
  placesLabel: string;
  /** Shown beside the navigation. */
  aside?: Markup;
  content: Markup;
  foot: Markup;
  /** Inserted last in the body. */
  end?: Markup;
}

/** Formats a complete page. */
export function formatFrame(parts: FrameParts): string {
  const { title, siteName, meta, style, places, placesLabel, aside, content, foot, end } = parts;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
${meta && html`${meta}\n`}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>${title} · ${siteName} · WebJob</title>
<link rel="icon" href="${trustedMarkup(ICON)}">
${style}
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top"><div class="wide">
<div class="brand">WebJob <span>${siteName}</span></div>
<nav aria-label="${placesLabel}"><ul>${places.map(
    ({ href, name, current }) =>
      html`<li><a href="${href}"${current && html` aria-current="${current}"`}>${name}</a></li>`,
  )}</ul></nav>
${aside}</div></header>
<main class="wide" id="content" tabindex="-1">
${content}
</main>
<footer class="foot"><div class="wide">${foot}</div></footer>
${end}</body>
</html>
`.text;
}
