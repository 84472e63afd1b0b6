// webjobctl export: exports jobs for other programs.
import { Command, InvalidArgumentError } from 'commander';
import { parseInstant } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import type { Job } from '../../ledger/job.ts';
import { readJobs } from '../../ledger/jobs.ts';
import { csvFormat, type Format, JSON_FORMAT, ROWS, sqlFormat } from '../jobs/formats.ts';
import { clientOption } from '../site/client-option.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';

interface Options {
  csv?: true;
  sql?: true;
  spreadsheet?: true;
  table: string;
  since?: Date;
  until?: Date;
  client?: string;
  command?: string;
}

const EXPLANATION = `
One of --csv, --json and --sql selects the format; webjobctl(8) lists the fields. --json prints the lines of jobs. Text
in CSV is as clients sent it, and a spreadsheet may take it for a formula: use --spreadsheet for spreadsheets. --sql
replaces the table, so its output can be loaded repeatedly.

Examples:
  webjobctl export --csv --since 2026-11-01 > jobs.csv
  webjobctl export --sql | psql --set ON_ERROR_STOP=1 webjob

Exit codes:
  0  done
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function exportCommand(): Command {
  return new Command('export')
    .description('write jobs as CSV, JSON or SQL')
    .option('--csv', 'write comma-separated values, RFC 4180')
    .option('--sql', 'write a table for PostgreSQL')
    .option('--spreadsheet', 'with --csv: put an apostrophe before cells that a spreadsheet takes for formulas')
    .option('--table <NAME>', 'with --sql: the name of the table', parseTable, 'webjob_jobs')
    .option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h', parseInstant)
    .option('--until <TIME>', 'only jobs until then, in the same form', parseInstant)
    .addOption(clientOption())
    .option('--command <COMMAND>', 'only these commands, separated by commas')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) =>
      exportJobs(openSite(command), options, pickFormat(options, globalOptions(command).json)),
    );
}

function pickFormat({ csv, sql, spreadsheet, table }: Options, json: true | undefined): Format {
  if (Number(csv ?? 0) + Number(sql ?? 0) + Number(json ?? 0) !== 1)
    throw new Failure('usage', 'export requires one of --csv, --json and --sql');
  if (spreadsheet && !csv) throw new Failure('usage', '--spreadsheet requires --csv');
  if (json) return JSON_FORMAT;
  return csv ? csvFormat(spreadsheet === true) : sqlFormat(table);
}

async function exportJobs(site: Site, { since, until, client, command }: Options, format: Format): Promise<void> {
  await write(format.head());
  let jobs: Job[] = [];
  const flush = async (): Promise<void> => {
    if (jobs.length > 0) await write(format.rows(site, jobs));
    jobs = [];
  };
  for await (const job of readJobs(site, { since, until, client, command })) {
    jobs.push(job);
    if (jobs.length === ROWS) await flush();
  }
  await flush();
  await write(format.end);
}

/** Writes a text, and waits while the reader is slower. */
async function write(text: string): Promise<void> {
  if (!process.stdout.write(text)) await new Promise((resolve) => process.stdout.once('drain', resolve));
}

function parseTable(name: string): string {
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,62}$/.test(name))
    throw new InvalidArgumentError('a name is up to 63 letters, digits and _.');
  return name;
}
