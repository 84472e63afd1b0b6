// The youngest jobs of sites whose logs may be long: looks back only as far as it takes.
import type { JobFilter } from '../history/jobs.ts';
import { type Found, readSites } from '../history/sites.ts';
import type { Job } from '../job.ts';
import type { Site } from '../site.ts';

const DAY_MS = 86_400_000;
/** How far back one look goes, and the next; after them everything is read. */
const LOOKS_DAYS = [2, 30];

/** The youngest of the jobs that are wanted, in order of time; never many more in memory. */
export async function findYoungest(
  sites: readonly Site[],
  filter: JobFilter,
  isWanted: (job: Job) => boolean,
  limit: number,
): Promise<Found[]> {
  const until = filter.until ?? new Date();
  for (const days of LOOKS_DAYS) {
    const since = new Date(until.getTime() - days * DAY_MS);
    if (filter.since && since <= filter.since) break;
    const found = await collect(readSites(sites, { ...filter, since }), isWanted, limit);
    // Of a job of the first day the GET may lie before it.
    const [oldest] = found;
    if (oldest && found.length === limit && oldest.job.at.getTime() > since.getTime() + DAY_MS) return found;
  }
  return collect(readSites(sites, filter), isWanted, limit);
}

async function collect(jobs: AsyncIterable<Found>, isWanted: (job: Job) => boolean, limit: number): Promise<Found[]> {
  let kept: Found[] = [];
  const cut = (): Found[] => kept.sort((a, b) => a.job.at.getTime() - b.job.at.getTime()).slice(-limit);
  for await (const found of jobs) {
    if (isWanted(found.job)) kept.push(found);
    if (kept.length >= 2 * limit + 100) kept = cut();
  }
  return cut();
}
