// The paths of the pages of clients, commands and jobs. A file name contains only letters, digits,
// `_` and `-` from a client, has at most 90 characters, and is unique regardless of case.
import { createHash } from 'node:crypto';
import type { Job } from '../../ledger/job.ts';

const MAX_SLUG_LENGTH = 60;

function pageName(text: string, identity = text): string {
  const slug = text.replace(/[^A-Za-z0-9_-]/g, '_').slice(0, MAX_SLUG_LENGTH);
  // Only one dot, before `html`: httpd looks at every extension of a name, and `x.php.html` may be
  // a script to it.
  return `${slug}-${createHash('sha256').update(identity).digest('hex').slice(0, 16)}.html`;
}

/** The page of a client, relative to the report's root, and safe in a link. */
export const clientPath = (clientId: string): string => `client/${pageName(clientId)}`;

export const commandPath = (command: string): string => `command/${pageName(command)}`;

/** The path of one of several pages of a list that does not fit on one. */
export const partPath = (path: string, part: number): string => path.replace(/\.html$/, `-${part}.html`);

/** The path of a page of the list of all clients or commands. */
export const actorsPath = (kind: 'client' | 'command', page: number): string =>
  page === 1 ? `${kind}s.html` : `${kind}s-${page}.html`;

/**
 * The page of the jobs of a day by the site's clock, such as `2026-11-01`; part 1 has the oldest.
 */
export const dayPath = (day: string, part: number): string => {
  const first = `day/${day}.html`;
  return part === 1 ? first : partPath(first, part);
};

/**
 * The page of a job. A job id alone is not unique: a client may send one twice, and a refused
 * request may have none.
 */
export function jobPath(job: Job): string {
  const identity = JSON.stringify([job.jobId, job.clientId, job.command, job.group?.name, job.get, job.put]);
  return `job/${pageName(job.jobId ?? 'none', identity)}`;
}
