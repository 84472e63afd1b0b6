// What asks a database that holds the jobs of many sites, in place of a site's own files and store.
import type { Job } from './job.ts';
import type { JobFilter, JobOrder, Measures, Sums } from './jobs.ts';
import type { Site } from './site.ts';
import type { Found } from './sites.ts';

/** Each throws Failure `failed` when the database cannot be asked. */
export interface Remote {
  /** The jobs of all of these sites in one order. */
  readJobs(sites: readonly Site[], filter: JobFilter, order: JobOrder): AsyncGenerator<Found>;
  /** The newest that are wanted, in order of time. */
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
