// The interface of a database with the jobs of many sites, which replaces a site's own files and
// store.
import type { Job } from './job.ts';
import type { JobFilter, JobOrder, Measures, Sums } from './jobs.ts';
import type { Site } from './site.ts';
import type { Found } from './sites.ts';

/**
 * A database with the jobs of many sites. Every method throws Failure `failed` when the database
 * cannot be reached or queried.
 */
export interface Remote {
  /** The jobs of all of these sites in one order. */
  readJobs(sites: readonly Site[], filter: JobFilter, order: JobOrder): AsyncGenerator<Found>;
  /** The newest matching jobs, in order of time. */
  readNewest(
    sites: readonly Site[],
    filter: JobFilter,
    isWanted: (job: Job) => boolean,
    limit: number,
  ): Promise<Found[]>;
  findJobs(site: Site, part: string, client: string | undefined): Promise<Job[]>;
  readSums(site: Site, filter: JobFilter): Promise<Sums>;
  readMeasures(site: Site, mostClients: number): Promise<Measures>;
}
