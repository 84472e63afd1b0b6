// Clients grouped by what they printed.
import { createHash } from 'node:crypto';
import type { StreamName } from 'webjob-locker';
import type { Job } from '../../ledger/job.ts';
import { openStreams, type StoredStream } from '../../ledger/streams.ts';
import type { Site } from '../site/site.ts';

/** Clients whose output is the same. */
export interface Alike {
  digest: string;
  /** Sorted. */
  clients: string[];
  /** That of the first client. */
  job: Job;
}

/** A longer line is judged by its beginning. */
const MAX_LINE = 65_536;

/**
 * Groups jobs by the bytes of a stream, without the lines that match one of `ignored`; the largest group first. A job that has no such stream is
 * in none. Throws Failure for a pack that cannot be read.
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

/** SHA-256 of a stream without the lines that match, in lower-case hex. */
export async function digestStream(stream: StoredStream, ignored: readonly RegExp[]): Promise<string> {
  const hash = createHash('sha256');
  if (ignored.length === 0) {
    for await (const piece of stream.read()) hash.update(piece);
    return hash.digest('hex');
  }
  let rest = Buffer.alloc(0);
  const take = (line: Buffer): void => {
    const text = line.toString('utf8', 0, Math.min(line.length, MAX_LINE)).replace(/\r?\n$/, '');
    if (!ignored.some((pattern) => pattern.test(text))) hash.update(line);
  };
  for await (const piece of stream.read()) {
    rest = Buffer.concat([rest, piece]);
    let from = 0;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10, from)) {
      take(rest.subarray(from, end + 1));
      from = end + 1;
    }
    rest = rest.subarray(from);
  }
  if (rest.length > 0) take(rest);
  return hash.digest('hex');
}
