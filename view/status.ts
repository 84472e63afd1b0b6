// The status of the site that root wrote, and the notes about it on pages.
import { actFolders } from '../admin/acts/request.ts';
import { openStatus, type Status } from '../admin/acts/status.ts';
import { html, type Markup } from '../pages/html.ts';
import { formatInstant } from '../pages/tables.ts';
import type { Context } from './context.ts';

/** The note on pages of a site without a status. */
export const NO_STATUS = html`<p class="note">Certificates, expectations and assignments are shown where <code>webjobctl acts</code> runs: see docs/guide/view.md.</p>`;

/** The status of the site; undefined where root writes none. */
export function statusOf({ site }: Context): Status | undefined {
  return openStatus(actFolders(site.settings).answers);
}

export function formatStatusTime(status: Status, { book }: Context): Markup {
  return html`<p class="note">As root saw it at ${formatInstant(status.at, book)}.</p>`;
}
