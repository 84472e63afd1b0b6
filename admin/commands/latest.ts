// webjobctl latest: lists the newest result of a command for every client.
import { Command, Option } from 'commander';
import { STREAMS } from 'webjob-locker';
import { formatTime } from 'webjob-protocol';
import { countOf } from '../../cli/counts.ts';
import { parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES } from '../../cli/failure.ts';
import { formatBytes, formatTable, printJson, printLine, printLines, safeLine } from '../../cli/output.ts';
import { describeExit, jobJson } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import { openStreams, type Stored } from '../../ledger/streams.ts';
import { findLatest } from '../fleet/latest.ts';
import { collectTargets, monthAgo } from '../fleet/options.ts';
import { globalOptions, openSite } from '../site/site.ts';

interface Options {
  to?: string[];
  since: Date;
}

interface Row {
  clientId: string;
  job: Job;
  bytes: number;
  /** The first line of stdout. */
  first: string;
}

const EXPLANATION = `
Lists the newest job of each client with a result, done or failed, and the first line that it printed.

Examples:
  webjobctl latest uptime.sh
  webjobctl --json latest df.sh --to 'web-*' --since 1d | jq -r 'select(.exitCode != 0).client'

Exit codes:
  0  listed
  1  no results
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function latestCommand(): Command {
  return new Command('latest')
    .description('list the newest result of a command for each client')
    .argument('<COMMAND>', 'its name in the profiles')
    .option(
      '--to <CLIENT>',
      'only these clients: ids, globs or groups, separated by commas; may be repeated',
      collectTargets,
    )
    .addOption(
      new Option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h')
        .argParser(parseInstant)
        .default(monthAgo(), '30d'),
    )
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => latest(command, name, options));
}

async function latest(command: Command, name: string, { to, since }: Options): Promise<void> {
  const site = openSite(command);
  const found = await findLatest(site, { command: name, to, since });
  if (found.size === 0) process.exitCode = EXIT_CODES.findings;
  const streamsOf = await openStreams(site, [...found.values()]);
  const rows: Row[] = [];
  for (const [clientId, job] of found) {
    const stored = streamsOf(job);
    const bytes = STREAMS.reduce((sum, stream) => sum + (stream === 'env' ? 0 : (stored[stream]?.bytes ?? 0)), 0);
    const row = { clientId, job, bytes, first: await readFirstLine(stored) };
    if (globalOptions(command).json) printJson({ ...jobJson(site, job), firstLine: row.first });
    else rows.push(row);
  }
  if (rows.length > 0) printLines(formatTable(rows, columnsOf(site.settings.useGMT)));
  if (!globalOptions(command).json && rows.length > 0) printLine(countOf(rows.length, 'client'));
}

const MAX_FIRST = 200;

async function readFirstLine({ out }: Stored): Promise<string> {
  let text = '';
  for await (const piece of out?.read() ?? []) {
    text += piece.toString('utf8');
    if (text.includes('\n') || text.length > MAX_FIRST) break;
  }
  return (text.split('\n')[0] ?? '').slice(0, MAX_FIRST);
}

function columnsOf(useGMT: boolean) {
  return [
    { title: 'CLIENT', value: ({ clientId }: Row) => clientId },
    { title: 'TIME', value: ({ job }: Row) => formatTime(job.at, useGMT).slice(0, 19) },
    { title: 'STATE', value: ({ job }: Row) => job.state },
    { title: 'EXIT', value: ({ job }: Row) => describeExit(job) ?? '-' },
    { title: 'BYTES', align: 'right' as const, value: ({ bytes }: Row) => formatBytes(bytes) },
    { title: 'FIRST LINE', value: ({ first }: Row) => safeLine(first) },
  ];
}
