// webjobctl jobs: what was asked for and what came of it, one job a line.
import { Command, InvalidArgumentError } from 'commander';
import { EXIT_CODES, Failure } from '../failure.ts';
import { type Found, readSites } from '../history/sites.ts';
import { printJson, printLine } from '../output.ts';
import { globalOptions, openSites, type Site } from '../site.ts';
import { type ColumnName, DEFAULT_COLUMNS, formatRow, formatTitles, isColumnName, JOB_COLUMNS } from './columns.ts';
import { drained } from './drained.ts';
import { jobJson } from './job-json.ts';
import { addJobOptions, historyFilter, type JobOptions, makeJobFilter, parseLimit } from './job-options.ts';
import { findYoungest } from './youngest.ts';

interface Options extends JobOptions {
  columns?: readonly ColumnName[];
  limit?: number;
  watch?: true;
}

const EXPLANATION = `
GET and PUT of nph-webjob.log, rotated and gzipped ones too, are put together by job id with the files of the locker.
A job is
  got         a program was served, no answer yet
  done        the upload is complete, and the program exited with 0 (or its files are gone)
  failed      its record tells of an error, a signal, or another exit status
  refused     the server refused the GET or the PUT
  incomplete  there are files of it without .rdy: it broke off, or is being written
  orphan      a complete upload of which the log knows nothing
They come in the order in which they ended, the youngest last; then files that the log does not tell of; then got.

Columns: ${Object.keys(JOB_COLUMNS).join(', ')}.

Examples:
  webjobctl jobs --since 24h --state failed,refused,incomplete
  webjobctl jobs --client 'web*' --command host.sh --columns time,client,exit --limit 20
  webjobctl --json jobs --since 2026-11-01 | jq -r 'select(.exitCode == 3).jobId'

Exit codes:
  0  there are such jobs
  1  there is none
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function jobsCommand(): Command {
  return addJobOptions(new Command('jobs').description('list what was asked for and what came of it'))
    .option('--limit <n>', 'only the youngest', parseLimit)
    .option('--columns <names>', 'what to show, with commas between', parseColumns)
    .option('--watch', 'stay, and show jobs as they end, until Ctrl-C')
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) => listJobs(options, openSites(command), globalOptions(command).json));
}

async function listJobs(options: Options, sites: readonly Site[], isJson: true | undefined): Promise<void> {
  if (options.watch && options.limit !== undefined) throw new Failure('usage', '--limit makes no sense with --watch');
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
  // A watch without --since is for what comes; what was shortly before only goes with it, as the GET of a PUT.
  let isNew = !options.watch || options.since !== undefined;
  const onFollow = (): void => {
    isNew = true;
    printTitles();
  };
  if (options.watch) Object.assign(filter, { follow: true, onFollow, since: options.since ?? minuteAgo() });
  const jobs =
    options.limit === undefined ? readSites(sites, filter) : await findYoungest(sites, filter, isWanted, options.limit);
  for await (const found of jobs) {
    if (!isNew || !isWanted(found.job)) continue;
    print(found);
    await drained();
  }
  if (count === 0) process.exitCode = EXIT_CODES.findings;
}

function minuteAgo(): Date {
  return new Date(Date.now() - 60_000);
}

function parseColumns(text: string): ColumnName[] {
  const names = text.split(',');
  if (!names.every(isColumnName)) throw new InvalidArgumentError(`columns are ${Object.keys(JOB_COLUMNS).join(', ')}.`);
  return names;
}
