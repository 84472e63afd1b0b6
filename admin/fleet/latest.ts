// The newest result of a command for each client.

import { makeMembership } from '../../fleet/groups.ts';
import type { Job } from '../../ledger/job.ts';
import { readJobs, readSums } from '../../ledger/jobs.ts';
import type { Site } from '../site/site.ts';
import { readGroups } from './assignments.ts';

export interface Wanted {
  command: string;
  /** Client ids, globs and groups; all clients when undefined. */
  to?: readonly string[] | undefined;
  since: Date;
}

/** What a job has given when it has ended and its upload is there. */
const RESULTS = new Set(['done', 'failed']);

/**
 * The newest job of each client, by client id, of those with a result. The jobs are read from the newest on, until all clients that were ever heard
 * of have one each. Throws Failure `failed`.
 */
export async function findLatest(site: Site, { command, to, since }: Wanted): Promise<Map<string, Job>> {
  const groups = readGroups(site.settings);
  const isMeant = (clientId: string): boolean => to === undefined || to.some(makeMembership(groups, clientId));
  const left = new Set([...(await readSums(site)).clients.keys()].filter(isMeant));
  const found = new Map<string, Job>();
  const passed = new Set<string>();
  for await (const job of readJobs(site, { command, since, states: ['done', 'failed'] }, undefined, 'newest')) {
    const { clientId, state } = job;
    if (clientId === undefined || found.has(clientId) || passed.has(clientId) || !RESULTS.has(state)) continue;
    if (!isMeant(clientId)) passed.add(clientId);
    else {
      found.set(clientId, job);
      left.delete(clientId);
      if (left.size === 0) break;
    }
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}
