// One job by its id, or by what the id begins or ends with.
import { encodeField, findJobIdParts } from 'webjob-protocol';
import { Failure } from '../failure.ts';
import { type JobFilter, readJobs } from '../history/jobs.ts';
import { type Found, readSites } from '../history/sites.ts';
import type { Job } from '../job.ts';
import { safeLine } from '../output.ts';
import type { Site } from '../site.ts';

const MAX_NAMED = 10;
/** A server's clock may have been set back between the id and the line of the log. */
const CLOCK_SECONDS = 3600;

/**
 * The job of an id, or of a part of it at its beginning or end that no other job of all sites has. Throws Failure `findings` when there is
 * none, `usage` when there are several.
 */
export async function findJob(sites: readonly Site[], text: string, client?: string): Promise<Found> {
  const contains = encodeField(text);
  const epoch = findJobIdParts(text)?.epochSeconds;
  const since = epoch === undefined ? undefined : new Date((epoch - CLOCK_SECONDS) * 1000);
  const filter: JobFilter = { contains, client };
  // The log of the time that stands in a whole id is all that most calls have to read.
  const tries: JobFilter[] = [...(since ? [{ ...filter, since, logOnly: true }] : []), filter];
  for (const one of tries) {
    const all = await collectJobs(sites, one, contains);
    const exact = all.filter(({ job }) => job.jobId === contains);
    const [found, ...others] = exact.length > 0 ? exact : all;
    if (found && others.length > 0) throw ambiguous(text, [found, ...others]);
    // A GET without an answer may have files that the log does not tell of.
    if (found && (one === filter || found.job.state !== 'got')) return found;
  }
  throw new Failure('findings', `no job has an id that is, begins or ends with ${text}`, 'webjobctl jobs lists them');
}

async function collectJobs(sites: readonly Site[], filter: JobFilter, part: string): Promise<Found[]> {
  const all: Found[] = [];
  for await (const found of readSites(sites, filter)) {
    const { jobId } = found.job;
    if (jobId?.startsWith(part) || jobId?.endsWith(part)) all.push(found);
    if (all.length > 1000) break;
  }
  return all;
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
    `${text} may be ${all.length} jobs:\n${[...names, ...more].join('\n')}`,
    sameId ? `${areApart ? '--config or ' : ''}--client tells them apart` : 'more of the id tells them apart',
  );
}

/** The latest earlier upload of the same client and command at the same site. Throws Failure `findings`. */
export async function findPrevious({ site, job }: Found): Promise<Found> {
  const { clientId, command, jobId } = job;
  if (clientId === undefined || command === undefined)
    throw new Failure('findings', `client and command of ${jobId} are not known`);
  let previous: Job | undefined;
  let isBehind = false;
  const filter = { client: clientId, command, until: job.at, logOnly: true };
  for await (const one of readJobs(site, filter)) {
    isBehind ||= one.jobId === jobId;
    // The log knows whole seconds: within one, its order decides.
    const isEarlier = isBehind ? one.at < job.at : one.at <= job.at;
    const isComplete = one.packed !== undefined || one.group?.has.has('rdy') === true;
    if (one.jobId === jobId || !isComplete || !isEarlier) continue;
    if (!previous || one.at >= previous.at) previous = one;
  }
  if (!previous)
    throw new Failure('findings', `${safeLine(`${clientId} has no earlier upload of ${command}`)}`, 'give two job ids');
  return { site, job: previous };
}
