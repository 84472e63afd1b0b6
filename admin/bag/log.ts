// The lines of nph-webjob.log about the jobs of a package, verbatim.
import type { LogLine } from 'webjob-protocol';
import { instantOf } from '../../ledger/instant.ts';
import type { Job } from '../../ledger/job.ts';
import { readLogBlocks } from '../../ledger/log.ts';
import type { Site } from '../site/site.ts';

/** Finds the lines of each job, in the order of the log, in one walk. Throws Failure `failed`. */
export async function findLogLines(site: Site, jobs: readonly Job[]): Promise<(job: Job) => readonly string[]> {
  const owners = new Map<string, Job>();
  let since = Number.POSITIVE_INFINITY;
  for (const job of jobs)
    for (const line of linesOf(job)) {
      owners.set(JSON.stringify(line), job);
      const at = instantOf(line, site).getTime();
      // A log may contain impossible times; then all of it is read.
      since = Number.isNaN(at) ? 0 : Math.min(since, at);
    }
  const found = new Map<Job, string[]>();
  if (owners.size === 0) return () => [];
  for await (const lines of readLogBlocks(site, since > 0 ? { since: new Date(since) } : {}))
    for (const { line, text } of lines) {
      const job = owners.get(JSON.stringify(line));
      if (job) found.set(job, [...(found.get(job) ?? []), text]);
    }
  return (job) => found.get(job) ?? [];
}

function linesOf({ get, put, attempts }: Job): LogLine[] {
  return [get, put, ...attempts].filter((line) => line !== undefined);
}
