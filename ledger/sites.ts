// The jobs of several sites as if they were of one: each job with the site it is of.
import type { Job } from './job.ts';
import { type JobFilter, readJobs, readNewest } from './jobs.ts';
import type { Site } from './site.ts';

export interface Found {
  site: Site;
  job: Job;
}

/**
 * The jobs of all sites. Those of each are in the order of readJobs, and of the next of every site the oldest comes first, so that what is in
 * order of time stays so.
 */
export async function* readSites(sites: readonly Site[], filter: JobFilter): AsyncGenerator<Found> {
  const [site, another] = sites;
  if (site?.remote) return yield* site.remote.readJobs(sites, filter, 'end');
  if (site && another) yield* mergeSites(sites, filter);
  else if (site) for await (const job of readJobs(site, filter)) yield { site, job };
}

async function* mergeSites(sites: readonly Site[], filter: JobFilter): AsyncGenerator<Found> {
  const readers = sites.map((site) => ({ site, jobs: readJobs(site, filter) }));
  const next = async ({ site, jobs }: (typeof readers)[number]) => {
    const { value, done } = await jobs.next();
    return done ? [] : [{ site, jobs, job: value }];
  };
  try {
    let heads = (await Promise.all(readers.map(next))).flat();
    while (heads.length > 0) {
      const oldest = heads.reduce((a, b) => (b.job.at < a.job.at ? b : a));
      yield { site: oldest.site, job: oldest.job };
      const following = await next(oldest);
      heads = heads.flatMap((head) => (head === oldest ? following : [head]));
    }
  } finally {
    for (const { jobs } of readers) await jobs.return(undefined);
  }
}

/** The newest of the jobs of all sites that are wanted, in order of time. */
export async function readNewestOf(
  sites: readonly Site[],
  filter: JobFilter,
  isWanted: (job: Job) => boolean,
  limit: number,
): Promise<Found[]> {
  const remote = sites[0]?.remote;
  if (remote) return await remote.readNewest(sites, filter, isWanted, limit);
  const all: Found[] = [];
  for (const site of sites) for (const job of await readNewest(site, filter, isWanted, limit)) all.push({ site, job });
  // Of one site they are in their order already.
  const sorted = sites.length > 1 ? all.sort((a, b) => a.job.at.getTime() - b.job.at.getTime()) : all;
  return sorted.slice(-limit);
}
