// The newest result of a command for each client.

import { makeClientFilter } from '../../ledger/groups.ts';
import type { Job } from '../../ledger/job.ts';
import { newestOfEach } from '../../ledger/scan.ts';
import { openStore } from '../../ledger/store.ts';
import type { Site } from '../site/site.ts';

export interface Wanted {
  command: string;
  /** Client ids, globs and groups; undefined for all clients. */
  to?: readonly string[] | undefined;
  since: Date;
}

/** The newest job with a result for each client, by client id. Throws Failure `failed`. */
export async function findLatest(site: Site, { command, to, since }: Wanted): Promise<Map<string, Job>> {
  const clients = to && makeClientFilter(site, to.join(','));
  const { database, close } = await openStore(site, { since });
  try {
    const jobs = newestOfEach(database, site, { command }, { limit: Number.MAX_SAFE_INTEGER });
    const found = jobs.filter(({ clientId = '', at }) => at >= since && (!clients || clients.includes(clientId)));
    return new Map(found.map((job) => [job.clientId ?? '', job]));
  } finally {
    close();
  }
}
