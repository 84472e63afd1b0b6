// webjobctl jobs: lists jobs and their results, one a line.
import { Command, InvalidArgumentError } from 'commander';
import { drained } from '../../cli/drained.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, printLine } from '../../cli/output.ts';
import { type ColumnName, DEFAULT_COLUMNS, isColumnName, jobJson, SHOWN_COLUMNS } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import { type JobFilter, watchJobs } from '../../ledger/jobs.ts';
import { type Found, readNewestOf, readSites } from '../../ledger/sites.ts';
import { formatRow, formatTitles } from '../jobs/columns.ts';
import { addJobOptions, historyFilter, type JobOptions, makeJobFilter, parseLimit } from '../jobs/options.ts';
import { openSitesOrLedger } from '../site/ledger.ts';
import { globalOptions, type Site } from '../site/site.ts';

interface Options extends JobOptions {
  columns?: readonly ColumnName[];
  limit?: number;
  watch?: true;
}

const EXPLANATION = `
Joins the GET and PUT lines of nph-webjob.log, and of rotated and compressed logs, with the files of the locker by job
id. A job is
  got         a program was served, no answer yet
  done        the upload is complete, and the program exited with 0 (or prune removed it)
  failed      its run record has an error, a signal, or another exit status
  refused     the server refused the GET or the PUT
  incomplete  files without .rdy: the upload broke off, or is in progress
  orphan      a complete upload without a log line (an unmatched upload)
  missing     the upload was acknowledged and is gone, and neither prune nor pack removed it
Jobs are listed in the order in which they ended, the newest last; then uploads without a log line; then got.

Columns: ${Object.keys(SHOWN_COLUMNS).join(', ')}.

Examples:
  webjobctl jobs --since 24h --state failed,refused,incomplete
  webjobctl jobs --client 'web*' --command host.sh --columns time,client,exit --limit 20
  webjobctl --json jobs --since 2026-11-01 | jq -r 'select(.exitCode == 3).jobId'

Exit codes:
  0  listed
  1  no such jobs
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function jobsCommand(): Command {
  return addJobOptions(new Command('jobs').description('list jobs'))
    .option('--limit <NUMBER>', 'only this many of the newest jobs', parseLimit)
    .option('--outer <JOB>', 'only this job and those that its program started, directly or indirectly')
    .option('--columns <COLUMNS>', 'what to show, separated by commas', parseColumns)
    .option('--watch', 'show jobs as they end, until Ctrl-C')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) =>
      listJobs(options, await openSitesOrLedger(command), globalOptions(command).json),
    );
}

async function listJobs(options: Options, sites: readonly Site[], isJson: true | undefined): Promise<void> {
  if (options.watch && options.limit !== undefined)
    throw new Failure('usage', '--limit cannot be combined with --watch');
  const { columns = [...DEFAULT_COLUMNS, ...(sites.length > 1 ? (['site'] as const) : []), 'clock', 'differing'] } =
    options;
  let count = 0;
  let hasTitles = isJson === true;
  const printTitles = (): void => {
    if (!hasTitles) printLine(formatTitles(columns));
    hasTitles = true;
  };
  const print = ({ site, job }: Found): void => {
    count++;
    printTitles();
    if (isJson) printJson(jobJson(site, job));
    else printLine(formatRow(site, job, columns));
  };
  const isWanted = makeJobFilter(options);
  const filter = historyFilter(options);
  for await (const found of await findJobs(sites, filter, isWanted, options, printTitles)) {
    if (!isWanted(found.job)) continue;
    print(found);
    await drained();
  }
  if (count === 0) process.exitCode = EXIT_CODES.findings;
}

function findJobs(
  sites: readonly Site[],
  filter: JobFilter,
  isWanted: (job: Job) => boolean,
  { watch, limit }: Options,
  onFollow: () => void,
): AsyncIterable<Found> | Promise<Found[]> {
  return watch
    ? watchSite(sites, filter, onFollow)
    : limit === undefined
      ? readSites(sites, filter)
      : readNewestOf(sites, filter, isWanted, limit);
}

async function* watchSite(sites: readonly Site[], filter: JobFilter, onFollow: () => void): AsyncGenerator<Found> {
  const [site, another] = sites;
  if (!site || another) throw new Failure('usage', 'only one site can be followed', 'give --config once');
  for await (const job of watchJobs(site, filter, onFollow)) yield { site, job };
}

function parseColumns(text: string): ColumnName[] {
  const names = text.split(',');
  if (!names.every(isColumnName))
    throw new InvalidArgumentError(`columns are ${Object.keys(SHOWN_COLUMNS).join(', ')}.`);
  return names;
}
