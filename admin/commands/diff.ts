// webjobctl diff: compares the output of two runs, by default of the same client and command.
import { Command } from 'commander';
import { STREAMS, type StreamName } from 'webjob-locker';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { hasColours, paint, printJson, safeText } from '../../cli/output.ts';
import { openOutput } from '../../cli/pager.ts';
import { compareStreams, type WriteText } from '../../ledger/compare.ts';
import type { Found } from '../../ledger/sites.ts';
import { findJobStreams, type StoredStream } from '../../ledger/streams.ts';
import { findJob, findPrevious } from '../jobs/lookup.ts';
import { type Identities, identityOption, readIdentities, unsealNamed } from '../jobs/sealed.ts';
import { clientOption } from '../site/client-option.ts';
import { globalOptions, openSites, type Site } from '../site/site.ts';

interface Options {
  previous?: true;
  client?: string;
  out?: true;
  err?: true;
  env?: true;
  identity?: string;
}

const EXPLANATION = `
The baseline comes first: the first job id, or else the previous upload of the same client and command. Control
characters are escaped, as \\x1b. The command needs the system's diff.

Examples:
  webjobctl diff server_1_1085355126_00723 --previous
  webjobctl diff 00723 00911 --err --env

Exit codes:
  0  the same
  1  they differ
  2  wrong command line, or several jobs that match
  3  nph-webjob.cfg cannot be used
  4  diff is missing or failed, or the log or the locker cannot be read
  5  there is nothing to compare: no such job, no earlier one, or no such stream`;

export function diffCommand(): Command {
  return new Command('diff')
    .description('compare the output of two runs')
    .argument('<JOB>', 'job id, or its beginning or end')
    .argument('[JOB2]', 'the job to compare with (default: the previous one)')
    .option('--previous', 'compare with the previous upload of the same client and command; the default')
    .option('--out', 'compare stdout; the default')
    .option('--err', 'compare stderr')
    .option('--env', 'compare the run records')
    .addOption(clientOption('the client, if several sent the same job id'))
    .addOption(identityOption())
    .addHelpText('after', EXPLANATION)
    .action((jid: string, other: string | undefined, options: Options, command: Command) =>
      diff(openSites(command), [jid, other], options, globalOptions(command).json === true),
    );
}

async function diff(
  sites: readonly Site[],
  [jid, other]: [string, string | undefined],
  options: Options,
  isJson: boolean,
): Promise<void> {
  if (other !== undefined && options.previous)
    throw new Failure('usage', '--previous cannot be combined with two job ids');
  const [from, to] = await findBoth(sites, [jid, other], options.client);
  const asked = STREAMS.filter((name) => options[name]);
  const identities = await readIdentities(options.identity);
  const output = isJson ? undefined : await openOutput();
  for (const name of asked.length > 0 ? asked : (['out'] as const)) {
    const streams = [await streamOf(from, name, identities), await streamOf(to, name, identities)] as const;
    const labels: [string, string] = [label(from, name), label(to, name)];
    const kept: string[] = [];
    const differs = await compareStreams(
      streams,
      labels,
      output ? (text) => output.write(colour(safeText(text))) : keep(kept),
    );
    if (differs) process.exitCode = EXIT_CODES.findings;
    const diff = kept.length > 0 && kept.at(-1) === '' ? null : kept.join('');
    if (!output) printJson({ from: from.job.jobId, to: to.job.jobId, stream: name, differs, diff });
  }
  await output?.end();
}

/** Found before anything is printed: exit code 1 must only mean that they differ. */
async function findBoth(
  sites: readonly Site[],
  [jid, other]: [string, string | undefined],
  client: string | undefined,
): Promise<[Found, Found]> {
  try {
    const found = await findJob(sites, jid, client);
    if (other === undefined) return [await findPrevious(found), found];
    return [found, await findJob(sites, other, client)];
  } catch (error) {
    if (!(error instanceof Failure) || error.kind !== 'findings') throw error;
    throw new Failure('nothing', error.message, error.hints, { cause: error });
  }
}

async function streamOf(
  { site, job }: Found,
  name: StreamName,
  identities: Identities | undefined,
): Promise<StoredStream> {
  const stored = await findJobStreams(site, job);
  const stream = name === 'env' ? stored.env : await unsealNamed(stored, name, identities);
  if (!stream) throw new Failure('nothing', `${job.jobId} has no .${name}`);
  return stream;
}

/**
 * Returns a function that collects a difference in `kept` for a line of JSON. When the difference
 * is too large, `kept` ends up with only an empty text.
 */
function keep(kept: string[]): WriteText {
  let left = MAX_JSON_BYTES;
  return (text) => {
    left -= text.length;
    if (left >= 0) kept.push(text);
    else kept.splice(0, kept.length, '');
  };
}

function label({ job }: Found, name: StreamName): string {
  return `${job.jobId} ${name}`;
}

const MAX_JSON_BYTES = 64 * 1024 * 1024;

/** Colours the lines of a difference for a terminal. */
export function colour(text: string): string {
  if (!hasColours()) return text;
  return text.replace(/^[-+].*$/gm, (line) => paint(line, line.startsWith('-') ? 'red' : 'green'));
}
