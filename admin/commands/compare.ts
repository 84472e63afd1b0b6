// webjobctl compare: shows which clients have the same output, and how the others differ.
import { Command, InvalidArgumentError, Option } from 'commander';
import { STREAMS, type StreamName } from 'webjob-locker';
import { parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { printJson, safeText } from '../../cli/output.ts';
import { openOutput } from '../../cli/pager.ts';
import { compareStreams } from '../../ledger/compare.ts';
import { digestStream } from '../../ledger/digest.ts';
import type { Job } from '../../ledger/job.ts';
import { findJobStreams, type StoredStream } from '../../ledger/streams.ts';
import { type Alike, groupAlike } from '../fleet/alike.ts';
import { findLatest } from '../fleet/latest.ts';
import { collectTargets, monthAgo } from '../fleet/options.ts';
import { findJob } from '../jobs/lookup.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { colour } from './diff.ts';

interface Options {
  to?: string[];
  golden?: string;
  majority?: true;
  ignore: RegExp[];
  stream: StreamName;
  since: Date;
  diff: boolean;
}

/** The output that the others are compared with. */
interface Reference {
  name: string;
  digest: string;
  job: Job;
}

const EXPLANATION = `
Compares the newest result of each client with that of a golden job, or with the most frequent output. Lines that
match --ignore do not count: use it for times and process ids.

Examples:
  webjobctl compare rpm-list.sh --to servers
  webjobctl compare sysctl.sh --golden 00723 --ignore '^kernel\\.random'

Exit codes:
  0  all are the same
  1  some differ
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  diff is missing or failed, or the log or the locker cannot be read
  5  there is nothing to compare`;

export function compareCommand(): Command {
  return new Command('compare')
    .description('compare the output of a command on many clients')
    .argument('<COMMAND>', 'its name in the profiles')
    .option(
      '--to <CLIENT>',
      'only these clients: ids, globs or groups, separated by commas; may be repeated',
      collectTargets,
    )
    .option('--golden <JOB>', 'compare with this job, of any client')
    .option('--majority', 'compare with the most frequent output; the default')
    .addOption(
      new Option('--ignore <REGEX>', 'ignore lines that match; may be repeated')
        .argParser(collectPattern)
        .default([], 'none'),
    )
    .option('--stream <STREAM>', 'out, err or env', parseStream, 'out')
    .addOption(
      new Option('--since <TIME>', 'only jobs since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h')
        .argParser(parseInstant)
        .default(monthAgo(), '30d'),
    )
    .option('--no-diff', 'list only the clients that differ')
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => compare(command, name, options));
}

async function compare(command: Command, name: string, options: Options): Promise<void> {
  if (options.golden !== undefined && options.majority)
    throw new Failure('usage', 'use one of --golden and --majority');
  const site = openSite(command);
  const jobs = await findLatest(site, { command: name, ...options });
  const groups = await groupAlike(site, jobs, options.stream, options.ignore);
  const [largest] = groups;
  if (!largest)
    throw new Failure(
      'nothing',
      `no client has a result of ${name}`,
      'webjobctl latest lists results; --since 90d looks back further',
    );
  const reference =
    options.golden === undefined ? majorityOf(largest) : await readGolden(site, options.golden, options);
  const isAlike = ({ digest }: Alike): boolean => digest === reference.digest;
  if (!groups.every(isAlike)) process.exitCode = EXIT_CODES.findings;
  if (globalOptions(command).json) {
    for (const group of groups)
      printJson({ clients: group.clients, same: isAlike(group), sha256: group.digest, jobId: group.job.jobId });
    return;
  }
  const output = await openOutput();
  for (const group of [...groups].sort((a, b) => Number(isAlike(b)) - Number(isAlike(a)))) {
    await output.write(`${describe(group, isAlike(group), reference)}\n`);
    if (isAlike(group) || !options.diff) continue;
    const streams = [await streamOf(site, reference.job, options), await streamOf(site, group.job, options)] as const;
    const labels: [string, string] = [reference.name, `${group.clients[0]} ${group.job.jobId}`];
    await compareStreams(streams, labels, (text) => output.write(colour(safeText(text))));
  }
  await output.end();
}

const MOST_NAMED = 10;

function describe({ clients }: Alike, isAlike: boolean, { name }: Reference): string {
  const more = clients.length > MOST_NAMED ? ` and ${clients.length - MOST_NAMED} more` : '';
  const what = isAlike ? `as ${name}` : `differ${clients.length === 1 ? 's' : ''}`;
  return `${clients.length} ${what}: ${clients.slice(0, MOST_NAMED).join(' ')}${more}`;
}

function majorityOf({ digest, job, clients }: Alike): Reference {
  return { name: `${clients[0]} ${job.jobId}`, digest, job };
}

async function readGolden(site: Site, id: string, options: Options): Promise<Reference> {
  const { job } = await findJob([site], id);
  const digest = await digestStream(await streamOf(site, job, options), options.ignore);
  return { name: `the golden ${job.jobId}`, digest, job };
}

async function streamOf(site: Site, job: Job, { stream }: Pick<Options, 'stream'>): Promise<StoredStream> {
  const stored = (await findJobStreams(site, job))[stream];
  if (!stored) throw new Failure('nothing', `${job.jobId} has no .${stream}`);
  return stored;
}

function collectPattern(text: string, before: readonly RegExp[]): RegExp[] {
  try {
    return [...before, new RegExp(text)];
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`);
  }
}

function parseStream(text: string): StreamName {
  const found = STREAMS.find((name) => name === text);
  if (found) return found;
  throw new InvalidArgumentError('a stream is out, err or env.');
}
