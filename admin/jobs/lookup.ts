// Finds a job by its id, or by the beginning or end of the id.
import { encodeField } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { safeLine } from '../../cli/output.ts';
import type { Job } from '../../ledger/job.ts';
import { findJobs, readJobs } from '../../ledger/jobs.ts';
import type { Found } from '../../ledger/sites.ts';
import type { Site } from '../site/site.ts';

const MAX_NAMED = 10;

/**
 * Finds the job with this id, or with an id that begins or ends with the text, unique among all
 * sites. Throws Failure `findings` when there is none, `usage` when there are several.
 */
export async function findJob(sites: readonly Site[], text: string, client?: string): Promise<Found> {
  const part = encodeField(text);
  const all: Found[] = [];
  for (const site of sites) for (const job of await findJobs(site, part, client)) all.push({ site, job });
  const exact = all.filter(({ job }) => job.jobId === part);
  const [found, ...others] = exact.length > 0 ? exact : all;
  if (found && others.length > 0) throw ambiguous(text, [found, ...others]);
  if (found) return found;
  throw new Failure('findings', `no job has an id that is, begins or ends with ${text}`, 'webjobctl jobs lists them');
}

function ambiguous(text: string, all: readonly Found[]): Failure {
  const names = all.slice(0, MAX_NAMED).map(({ site, job: { jobId, clientId, command } }) => {
    const where = site.label === undefined ? '' : ` ${site.label}`;
    return `  ${jobId} ${clientId} ${command}${where}`;
  });
  const more = all.length > MAX_NAMED ? [`  and ${all.length - MAX_NAMED} more`] : [];
  const areApart = all.some(({ site }) => site !== all[0]?.site);
  const sameId = all.every(({ job }) => job.jobId === all[0]?.job.jobId);
  return new Failure(
    'usage',
    `job id ${text} is ambiguous (${all.length} matches):\n${[...names, ...more].join('\n')}`,
    sameId ? `${areApart ? '--config or ' : ''}--client tells them apart` : 'use more of the id',
  );
}

/**
 * The newest earlier upload of the same client and command at the same site. Throws Failure
 * `findings`.
 */
export async function findPrevious({ site, job }: Found): Promise<Found> {
  const { clientId, command, jobId } = job;
  if (clientId === undefined || command === undefined)
    throw new Failure('nothing', `client and command of ${jobId} are unknown`);
  let previous: Job | undefined;
  let isBehind = false;
  const filter = { client: clientId, command, until: job.at };
  for await (const one of readJobs(site, filter)) {
    isBehind ||= one.jobId === jobId;
    // The log has whole seconds; within a second, the order of its lines decides.
    const isEarlier = isBehind ? one.at < job.at : one.at <= job.at;
    const isComplete = one.packed !== undefined || one.group?.has.has('rdy') === true;
    if (one.jobId === jobId || !isComplete || !isEarlier) continue;
    if (!previous || one.at >= previous.at) previous = one;
  }
  if (!previous)
    throw new Failure('findings', `${safeLine(`${clientId} has no earlier upload of ${command}`)}`, 'give two job ids');
  return { site, job: previous };
}
