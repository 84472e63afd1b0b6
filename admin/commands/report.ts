// webjobctl report: the locker as a folder of static pages.
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { encodeField, formatTime } from 'webjob-protocol';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import { Failure } from '../../cli/failure.ts';
import { printJson, say, startProgress } from '../../cli/output.ts';
import { findJobs, readJobs } from '../../ledger/jobs.ts';
import { replaceFolder, tidyFolder } from '../report/folder.ts';
import { summarize } from '../report/summary.ts';
import { writeReport } from '../report/write.ts';
import { openEvidence } from '../site/evidence.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';

declare const WEBJOB_VERSION: string;

const MAX_JOBS = 10_000;

const EXPLANATION = `
Writes an overview with charts, and a page for each client, command and job, with its output, its record and
whether the files are what was received. The pages need no server and no script: open index.html. DIR is
replaced as a whole when all pages are there; a folder that holds anything else is left alone.

Example, every hour from cron:
  webjobctl report --html /var/webjob/report --since 14d

Exit codes: 0 written, 2 wrong command line, 3 nph-webjob.cfg cannot be used, 4 the log, the locker or DIR failed.`;

interface ReportOptions {
  html: string;
  since: Date;
  limit: number;
  silent: number;
  client?: string;
  job?: string;
}

export function reportCommand(): Command {
  return new Command('report')
    .description('write a static site of the locker')
    .requiredOption('--html <dir>', 'the folder to make or to replace')
    .addOption(
      new Option('--since <when>', 'count jobs from then on: 2026-11-01, or 14d for two weeks')
        .argParser(parseInstant)
        .default(parseInstant('30d'), '30d'),
    )
    .option('--limit <jobs>', `how many jobs have a page, the newest; at most ${MAX_JOBS}`, parseLimit, 1000)
    .addOption(
      new Option('--silent <span>', 'a client not seen for so long is silent')
        .argParser(parseDuration)
        .default(parseDuration('2d'), '2d'),
    )
    .option('--client <glob>', 'only jobs of these clients: * is any text, ? any character')
    .option('--job <jid>', 'only this job, and those with its id of other clients')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', EXPLANATION)
    .action(async (_, command: Command) => await run(command));
}

function parseLimit(text: string): number {
  const limit = /^[0-9]{1,6}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MAX_JOBS) throw new InvalidArgumentError(`a number from 1 to ${MAX_JOBS}.`);
  return limit;
}

async function run(command: Command): Promise<void> {
  const site = openSite(command);
  const { html, limit, silent, since, client, job } = command.opts<ReportOptions>();
  const path = checkPlace(html, site);
  // What the web server is to read must not depend on who runs this.
  process.umask(0o022);
  tidyFolder(path);
  const now = new Date();
  const { useGMT: useGmt, serverId } = site.settings;
  const reading = startProgress('jobs read');
  const jobs = job === undefined ? readJobs(site, { client }) : await findJobs(site, encodeField(job), client);
  const all = job !== undefined && command.getOptionValueSource('since') === 'default';
  const from = all ? new Date(0) : since;
  const summary = await summarize(counted(jobs, reading.advance), { since: from, now, site, limit });
  reading.end();
  const writing = startProgress('pages', 4 + summary.jobs.length);
  const evidence = openEvidence(site);
  let pages = 0;
  try {
    await replaceFolder(path, async (folder) => {
      pages = await writeReport(folder, {
        ...{ summary, now, site, evidence, advance: writing.advance },
        scope: { since, silentSeconds: silent, clock: useGmt ? 'GMT' : "the server's time" },
        frame: { siteName: serverId, madeAt: formatTime(now, useGmt), version: WEBJOB_VERSION },
      });
    });
  } finally {
    evidence.close();
  }
  writing.end();
  if (globalOptions(command).json)
    printJson({ report: path, pages, jobs: summary.total.jobs, jobPages: summary.jobs.length, since });
  else say(`${pages} pages in ${path}, ${summary.jobs.length} of them jobs out of ${summary.total.jobs}`);
}

async function* counted<T>(values: AsyncIterable<T> | Iterable<T>, advance: () => void): AsyncGenerator<T> {
  for await (const value of values) {
    advance();
    yield value;
  }
}

/** The folder as an absolute path. Throws Failure for one whose parent is not there, or inside the locker. */
function checkPlace(given: string, { settings }: Site): string {
  const path = resolve(given);
  try {
    const real = join(realpathSync(dirname(path)), basename(path));
    const locker = realpathSync(settings.incomingDirectory);
    if (`${real}${sep}`.startsWith(`${locker}${sep}`))
      throw new Failure('usage', `--html ${given} lies in the locker`, 'a report beside uploads would be one of them');
    return real;
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${(error as Error).message}`, undefined, { cause: error });
  }
}
