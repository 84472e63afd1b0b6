// Groups clients by their output.
import type { StreamName } from 'webjob-locker';
import { digestStream } from '../../ledger/digest.ts';
import type { Job } from '../../ledger/job.ts';
import { openStreams } from '../../ledger/streams.ts';
import type { Site } from '../site/site.ts';

/** Clients with the same output. */
export interface Alike {
  digest: string;
  /** Client ids, sorted. */
  clients: string[];
  /** The job of the first client. */
  job: Job;
}

/**
 * Groups jobs by the bytes of a stream, without the lines that match one of `ignored`, largest
 * group first. Jobs without the stream are left out. Throws Failure for an archive that cannot be
 * read.
 */
export async function groupAlike(
  site: Site,
  jobs: ReadonlyMap<string, Job>,
  name: StreamName,
  ignored: readonly RegExp[],
): Promise<Alike[]> {
  const groups = new Map<string, Alike>();
  const streamsOf = await openStreams(site, [...jobs.values()]);
  for (const [clientId, job] of jobs) {
    const stream = streamsOf(job)[name];
    if (!stream) continue;
    const digest = await digestStream(stream, ignored);
    const known = groups.get(digest);
    if (known) known.clients.push(clientId);
    else groups.set(digest, { digest, clients: [clientId], job });
  }
  return [...groups.values()].sort((a, b) => b.clients.length - a.clients.length);
}
