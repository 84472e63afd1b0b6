// Golden runs: the jobs that the file expect names for a command (`golden=JOB`), as root left them.

import { makeClientFilter } from '../ledger/groups.ts';
import type { Job } from '../ledger/job.ts';
import type { Context } from './context.ts';
import { statusOf } from './status.ts';

/**
 * The id of the golden run of a job; undefined where no rule of its client and command names one.
 */
export function findGolden(context: Context, { clientId, command }: Job): string | undefined {
  const rules = statusOf(context)?.goldens.filter((rule) => rule.command === command) ?? [];
  return rules.find(({ who }) => makeClientFilter(context.site, who).includes(clientId))?.job;
}
