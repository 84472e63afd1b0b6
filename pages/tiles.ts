// Numbers that a page begins with, each over what it counts.
import { html, type Markup } from './html.ts';

/** `href` is where the number leads. */
export type Tile = [name: string, value: string | number, look?: 'warn' | 'bad' | undefined, href?: string | undefined];

export function formatTiles(tiles: readonly Tile[]): Markup {
  return html`<dl class="tiles">${tiles.map(
    ([name, value, look, href]) =>
      html`<div><dt>${name}</dt><dd${look && html` class="${look}"`}>${href === undefined ? value : html`<a href="${href}">${value}</a>`}</dd></div>`,
  )}</dl>`;
}
