// webjobctl report: writes the locker as a directory of static pages.
import { Command, InvalidArgumentError, Option } from 'commander';
import { encodeField, formatTime } from 'webjob-protocol';
import { countOf } from '../../cli/counts.ts';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import { printJson, say, startProgress } from '../../cli/output.ts';
import type { Job } from '../../ledger/job.ts';
import { findJobs, type JobFilter, readJobs, readNewest } from '../../ledger/jobs.ts';
import { replaceFolder, tidyFolder } from '../report/folder.ts';
import { jobPath } from '../report/links.ts';
import { Pages } from '../report/pages.ts';
import { summarize } from '../report/summary.ts';
import { writeReport } from '../report/write.ts';
import { clientOption } from '../site/client-option.ts';
import { openEvidence } from '../site/evidence.ts';
import { findPlace } from '../site/output-path.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';

declare const WEBJOB_VERSION: string;

const MAX_JOBS = 10_000;

const EXPLANATION = `
Writes an overview with charts, and a page for each client, command and job: its output, its run record, and whether
its files are as received. The pages need no server and no script: open index.html. DIRECTORY is replaced as a whole
when all pages are complete; a directory that contains anything else is left alone.

Unchanged pages are taken from the last report, and the files of these jobs are not read again, unless --all is given.

Example, every hour from cron:
  webjobctl report --html /var/webjob/report --since 14d

Exit codes:
  0  written
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read, or DIRECTORY cannot be written`;

interface ReportOptions {
  html: string;
  since: Date;
  limit?: number;
  silent: number;
  client?: string;
  job?: string;
  all?: boolean;
}

export function reportCommand(): Command {
  return new Command('report')
    .description('write the locker as static pages')
    .requiredOption('--html <DIRECTORY>', 'the directory to make or replace')
    .addOption(
      new Option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 14d')
        .argParser(parseInstant)
        .default(parseInstant('30d'), '30d'),
    )
    .option('--limit <NUMBER>', `write pages for this many of the newest jobs; at most ${MAX_JOBS}`, parseLimit)
    .addOption(
      new Option('--silent <DURATION>', 'report clients not seen for this long')
        .argParser(parseDuration)
        .default(parseDuration('2d'), '2d'),
    )
    .addOption(clientOption())
    .option('--job <JOB>', 'only this job, of every client with this job id')
    .option('--all', 'write every page and read every file again')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', EXPLANATION)
    .action(async (_, command: Command) => await run(command));
}

function parseLimit(text: string): number {
  const limit = /^[0-9]{1,6}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MAX_JOBS) throw new InvalidArgumentError(`a limit is 1 to ${MAX_JOBS}.`);
  return limit;
}

async function run(command: Command): Promise<void> {
  const site = openSite(command);
  const { html, limit, silent, since, client, job, all } = command.opts<ReportOptions>();
  const path = findPlace('--html', html, 'a report', site);
  // The web server's access must not depend on the caller's umask.
  process.umask(0o022);
  tidyFolder(path);
  const now = new Date();
  const { useGMT: useGmt, serverId } = site.settings;
  const found = job === undefined ? undefined : await findJobs(site, encodeField(job), client);
  const from = found && command.getOptionValueSource('since') === 'default' ? new Date(0) : since;
  const reading = startProgress('jobs read');
  const summary = await summarize(counted(found ?? readJobs(site, { client }), reading.advance), {
    since: from,
    now,
    site,
  });
  reading.end();
  const listed = await findListed(site, { since: from, client }, limit);
  const writing = startProgress('pages');
  const evidence = openEvidence(site);
  let made = { pages: 0, written: 0, listed: 0 };
  try {
    await replaceFolder(path, async (folder, old) => {
      const frame = { siteName: serverId, madeAt: formatTime(now, useGmt), version: WEBJOB_VERSION };
      const pages = new Pages(folder, all ? undefined : old, frame, writing.advance);
      const { listed: jobs } = await writeReport(folder, pages, {
        summary,
        now,
        site,
        evidence,
        scope: { since, silentSeconds: silent, clock: useGmt ? 'GMT' : "the server's time" },
        readJobs: (order) =>
          found ? sorted(found, order, from) : readJobs(site, { since: from, client }, undefined, order),
        isListed: (one) => listed?.has(jobPath(one)) ?? true,
      });
      made = { pages: pages.count, written: pages.written, listed: jobs };
    });
  } finally {
    evidence.close();
  }
  writing.end();
  const { pages, written, listed: jobPages } = made;
  if (globalOptions(command).json)
    printJson({ report: path, pages, written, jobs: summary.total.jobs, jobPages, since });
  else
    say(
      `${countOf(pages, 'page')} in ${path}, ${written} of them new or changed; ${jobPages} of ${countOf(summary.total.jobs, 'job')} have one`,
    );
}

/** The page paths of the newest jobs; undefined without --limit. */
async function findListed(site: Site, filter: JobFilter, limit: number | undefined): Promise<Set<string> | undefined> {
  if (limit === undefined) return undefined;
  const newest = await readNewest(site, filter, ({ at }) => !Number.isNaN(at.getTime()), limit);
  return new Set(newest.map(jobPath));
}

/** Yields jobs that were found, in the order that readJobs() would give. */
async function* sorted(found: readonly Job[], order: 'time' | 'client' | 'command', since: Date): AsyncGenerator<Job> {
  const keys = { time: () => '', client: (job: Job) => job.clientId ?? '', command: (job: Job) => job.command ?? '' };
  const key = keys[order];
  yield* found
    .filter(({ at }) => at >= since)
    .sort((a, b) => (key(a) === key(b) ? a.at.getTime() - b.at.getTime() : key(a) < key(b) ? -1 : 1));
}

async function* counted<T>(values: AsyncIterable<T> | Iterable<T>, advance: () => void): AsyncGenerator<T> {
  for await (const value of values) {
    advance();
    yield value;
  }
}
