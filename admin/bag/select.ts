// Selects the jobs of a package: by id, by client, command and time, or by the holds of a case.
import { encodeField, type LogLine } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { isForeign, type Job } from '../../ledger/job.ts';
import { readJobs } from '../../ledger/jobs.ts';
import { findJob } from '../jobs/lookup.ts';
import { type Hold, readHolds } from '../retention/holds.ts';
import type { Site } from '../site/site.ts';

export interface Selector {
  /** Job ids, or their beginnings or ends. */
  jobs: readonly string[];
  client?: string | undefined;
  command?: string | undefined;
  since?: Date | undefined;
  until?: Date | undefined;
  /** A case that the reason of a hold names. */
  case?: string | undefined;
}

/**
 * Selects jobs. Throws Failure `usage` for a selector that is empty or ambiguous, `findings` when
 * no job matches.
 */
export async function selectJobs(site: Site, selector: Selector): Promise<Job[]> {
  const { jobs, client, command, since, until, case: name } = selector;
  const others = [command, since, until, name].filter((one) => one !== undefined);
  if (jobs.length > 0) {
    if (others.length > 0)
      throw new Failure('usage', 'job ids cannot be combined with --command, --since, --until and --case');
    return findEach(site, jobs, client);
  }
  if (others.length === 0 && client === undefined)
    throw new Failure('usage', 'select jobs: job ids, --client, --command, --since, or --case');
  const isHeld = name === undefined ? () => true : heldFor(readHolds(site.settings), name);
  const found: Job[] = [];
  for await (const job of readJobs(site, { client, command, since, until }, undefined, 'time'))
    if (isHeld(job)) found.push(job);
  if (found.length === 0) throw new Failure('findings', 'no job matches', 'webjobctl jobs lists them');
  return found;
}

async function findEach(site: Site, jobs: readonly string[], client: string | undefined): Promise<Job[]> {
  const found = new Map<string, Job>();
  for (const text of jobs) {
    const { job } = await findJob([site], text, client);
    found.set(JSON.stringify([job.jobId, job.clientId, job.command, job.at]), job);
  }
  return [...found.values()];
}

/**
 * The jobs of a case are those that its holds cover according to the log: a name in a run record is
 * only the client's claim, and another client must not influence the contents of a package. Throws
 * Failure `findings` when no hold names the case.
 */
function heldFor(holds: readonly Hold[], name: string): (job: Job) => boolean {
  const own = holds.filter(({ reason }) => hasWords(reason, name.trim()));
  if (own.length === 0)
    throw new Failure('findings', `no hold has a reason that names ${name}`, 'webjobctl hold list shows them');
  const ids = (kind: Hold['kind']): Set<string> =>
    new Set(own.flatMap((hold) => (hold.kind === kind ? [hold.id, encodeField(hold.id)] : [])));
  const [clients, jobs] = [ids('client'), ids('job')];
  return ({ clientId, jobId }) => clients.has(clientId ?? '') || jobs.has(jobId ?? '');
}

/**
 * Whether a text contains these words, without a letter or digit on either side: case 47 is not
 * case 4711.
 */
function hasWords(text: string, words: string): boolean {
  for (let at = words === '' ? -1 : text.indexOf(words); at >= 0; at = text.indexOf(words, at + 1)) {
    const [before, after] = [text.slice(0, at), text.slice(at + words.length)];
    if (!/[\p{L}\p{N}]$/u.test(before) && !/^[\p{L}\p{N}]/u.test(after)) return true;
  }
  return false;
}

/**
 * The job without the requests of others. Anyone may have sent requests in the client's name; who
 * that was, and from where, does not belong in the package.
 */
export function withoutOthers(job: Job): { job: Job; left: number } {
  const isOthers = (line: LogLine): boolean =>
    (line.clientId !== undefined && line.clientId !== job.clientId) ||
    (line.remoteUser !== job.clientId && isForeign({ state: 'refused', get: line, put: undefined }));
  const keep = (line: LogLine | undefined): LogLine | undefined => (line && isOthers(line) ? undefined : line);
  const [get, put, attempts] = [keep(job.get), keep(job.put), job.attempts.filter((line) => !isOthers(line))];
  const left = [job.get, job.put, ...job.attempts].filter((line) => line && isOthers(line)).length;
  return { job: { ...job, get, put, attempts }, left };
}
