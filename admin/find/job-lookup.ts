// One job by its id, or by what the id begins or ends with.
import { encodeField, findJobIdParts } from 'webjob-protocol';
import { Failure } from '../failure.ts';
import { type JobFilter, readJobs } from '../history/jobs.ts';
import type { Job } from '../job.ts';
import { safeLine } from '../output.ts';
import type { Site } from '../site.ts';

const MAX_NAMED = 10;
/** A server's clock may have been set back between the id and the line of the log. */
const CLOCK_SECONDS = 3600;

/**
 * The job of an id, or of a part of it at its beginning or end that no other job has. Throws Failure `findings` when there is none,
 * `usage` when there are several.
 */
export async function findJob(site: Site, text: string, client?: string): Promise<Job> {
  const contains = encodeField(text);
  const epoch = findJobIdParts(text)?.epochSeconds;
  const since = epoch === undefined ? undefined : new Date((epoch - CLOCK_SECONDS) * 1000);
  const filter: JobFilter = { contains, client };
  // The log of the time that stands in a whole id is all that most calls have to read.
  const tries: JobFilter[] = [...(since ? [{ ...filter, since, logOnly: true }] : []), filter];
  for (const one of tries) {
    const jobs = await collectJobs(site, one, contains);
    const exact = jobs.filter(({ jobId }) => jobId === contains);
    const [job, ...others] = exact.length > 0 ? exact : jobs;
    if (job && others.length > 0) throw ambiguous(text, [job, ...others]);
    // A GET without an answer may have files that the log does not tell of.
    if (job && (one === filter || job.state !== 'got')) return job;
  }
  throw new Failure('findings', `no job has an id that is, begins or ends with ${text}`, 'webjobctl jobs lists them');
}

async function collectJobs(site: Site, filter: JobFilter, part: string): Promise<Job[]> {
  const jobs: Job[] = [];
  for await (const job of readJobs(site, filter)) {
    if (job.jobId?.startsWith(part) || job.jobId?.endsWith(part)) jobs.push(job);
    if (jobs.length > 1000) break;
  }
  return jobs;
}

function ambiguous(text: string, jobs: Job[]): Failure {
  const names = jobs.slice(0, MAX_NAMED).map(({ jobId, clientId, command }) => `  ${jobId} ${clientId} ${command}`);
  const more = jobs.length > MAX_NAMED ? [`  and ${jobs.length - MAX_NAMED} more`] : [];
  const sameId = jobs.every(({ jobId }) => jobId === jobs[0]?.jobId);
  return new Failure(
    'usage',
    `${text} may be ${jobs.length} jobs:\n${[...names, ...more].join('\n')}`,
    sameId ? '--client tells them apart' : 'more of the id tells them apart',
  );
}

/** The latest earlier upload of the same client and command. Throws Failure `findings`. */
export async function findPrevious(site: Site, job: Job): Promise<Job> {
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
  return previous;
}
