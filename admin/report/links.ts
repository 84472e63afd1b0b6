// Where the page of a client, a command or a job lies. A name on disk holds nothing of a client's but letters, digits, `_` and `-`, is at
// most 90 characters long, and tells apart what differs in case only.
import { createHash } from 'node:crypto';
import type { Job } from '../../ledger/job.ts';

const MAX_SLUG_LENGTH = 60;

function pageName(text: string, identity = text): string {
  const slug = text.replace(/[^A-Za-z0-9_-]/g, '_').slice(0, MAX_SLUG_LENGTH);
  // No dot but the one before `html`: httpd looks at every extension of a name, and `x.php.html` may be a script to it.
  return `${slug}-${createHash('sha256').update(identity).digest('hex').slice(0, 16)}.html`;
}

/** Below the report's root, to be put into a link as it is. */
export const clientPath = (clientId: string): string => `client/${pageName(clientId)}`;

export const commandPath = (command: string): string => `command/${pageName(command)}`;

/** A part of what does not fit on one page. */
export const partPath = (path: string, part: number): string => path.replace(/\.html$/, `-${part}.html`);

/** A page of the list of all clients, or commands. */
export const actorsPath = (kind: 'client' | 'command', page: number): string =>
  page === 1 ? `${kind}s.html` : `${kind}s-${page}.html`;

/** Jobs of a day of the site's clock, as `2026-11-01`; part 1 are the oldest. */
export const dayPath = (day: string, part: number): string => {
  const first = `day/${day}.html`;
  return part === 1 ? first : partPath(first, part);
};

/** A job id alone does not tell jobs apart: a client may send one twice, and a refused request may have none. */
export function jobPath(job: Job): string {
  const identity = JSON.stringify([job.jobId, job.clientId, job.command, job.group?.name, job.get, job.put]);
  return `job/${pageName(job.jobId ?? 'none', identity)}`;
}
