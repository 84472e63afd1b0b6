// Options that select jobs, shared by several commands.
import { type Command, InvalidArgumentError } from 'commander';
import { encodeField } from 'webjob-protocol';
import { parseInstant } from '../../cli/durations.ts';
import { statusOf } from '../../ledger/fields.ts';
import { JOB_STATES, type Job, type JobState } from '../../ledger/job.ts';
import type { JobFilter } from '../../ledger/jobs.ts';
import { clientOption } from '../site/client-option.ts';

export interface JobOptions extends JobFilter {
  state?: JobState[];
  /** `404` or `4xx`. */
  status?: string;
  exitCode?: number;
}

/** Adds the options to a command. */
export function addJobOptions(command: Command): Command {
  return command
    .addOption(clientOption())
    .option('--command <COMMAND>', 'only these commands, separated by commas')
    .option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h', parseInstant)
    .option('--until <TIME>', 'only jobs until then, in the same form', parseInstant)
    .option('--state <STATE>', `${JOB_STATES.join(', ')}: one, or several with commas`, parseStates)
    .option('--status <STATUS>', 'only jobs with this status: 404, or 4xx', parseStatus)
    .option('--exit-code <NUMBER>', 'only jobs whose program ended with this exit status', parseExitCode);
}

/** Returns a filter for the options that readJobs() does not handle. */
export function makeJobFilter({ status, exitCode }: JobOptions): (job: Job) => boolean {
  const pattern = status === undefined ? undefined : new RegExp(`^${status.replaceAll('x', '[0-9]')}$`);
  return (job) =>
    (!pattern || pattern.test(String(statusOf(job) ?? ''))) &&
    (exitCode === undefined || (job.exitCode === exitCode && job.signal === undefined));
}

/** The options that readJobs() handles. */
export function historyFilter({ client, command, since, until, state, outer }: JobOptions): JobFilter {
  const outerId = outer === undefined ? undefined : encodeField(outer);
  return { client, command, since, until, states: state, outer: outerId };
}

function parseStates(text: string): JobState[] {
  const known = (name: string): name is JobState => (JOB_STATES as readonly string[]).includes(name);
  const names = text.split(',');
  if (!names.every(known)) throw new InvalidArgumentError(`states are ${JOB_STATES.join(', ')}.`);
  return names;
}

function parseStatus(text: string): string {
  if (!/^[1-5](?:[0-9]{2}|[0-9]x|xx)$/.test(text)) throw new InvalidArgumentError('a status is 404 or 4xx.');
  return text;
}

function parseExitCode(text: string): number {
  if (!/^[0-9]{1,10}$/.test(text)) throw new InvalidArgumentError('an exit status is a whole number.');
  return Number(text);
}

/** Parses a whole number of at least 1. */
export function parseLimit(text: string): number {
  if (!/^[1-9][0-9]{0,6}$/.test(text)) throw new InvalidArgumentError('the number must be 1 or more.');
  return Number(text);
}
