// Golden runs: the jobs that rules of the file expect name (`golden=JOB`), from root's status.
import { makeClientFilter } from '../ledger/groups.ts';
import type { Job } from '../ledger/job.ts';
import type { Context } from './context.ts';
import { statusOf } from './status.ts';

/**
 * Returns the id of the golden run of a job; undefined when no rule for its client and command has
 * one.
 */
export function findGolden(context: Context, { clientId, command }: Job): string | undefined {
  const rules = statusOf(context)?.goldens.filter((rule) => rule.command === command) ?? [];
  return rules.find(({ who }) => makeClientFilter(context.site, who).includes(clientId))?.job;
}
