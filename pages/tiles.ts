// Numbers at the top of a page, each with its label.
import { html, type Markup } from './html.ts';

/** `href` is the target of the number's link. */
export type Tile = [name: string, value: string | number, look?: 'warn' | 'bad' | undefined, href?: string | undefined];

export function formatTiles(tiles: readonly Tile[]): Markup {
  return html`<dl class="tiles">${tiles.map(
    ([name, value, look, href]) =>
      html`<div><dt>${name}</dt><dd${look && html` class="${look}"`}>${href === undefined ? value : html`<a href="${href}">${value}</a>`}</dd></div>`,
  )}</dl>`;
}
