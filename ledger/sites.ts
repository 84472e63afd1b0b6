// The jobs of several sites in one list, each job with its site.
import type { Job } from './job.ts';
import { type JobFilter, readJobs, readNewest } from './jobs.ts';
import type { Site } from './site.ts';

export interface Found {
  site: Site;
  job: Job;
}

/**
 * Yields the jobs of all sites. The jobs of each site are in the order of readJobs(); of the next
 * jobs of all sites the oldest comes first, so that lists ordered by time stay ordered.
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

/** The newest matching jobs of all sites, in order of time. */
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
  // The jobs of a single site are already in order.
  const sorted = sites.length > 1 ? all.sort((a, b) => a.job.at.getTime() - b.job.at.getTime()) : all;
  return sorted.slice(-limit);
}
