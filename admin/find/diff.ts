// webjobctl diff: what one run wrote against what another did, of the same client and command unless told otherwise.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { STREAMS, type StreamName } from 'webjob-locker';
import { EXIT_CODES, Failure } from '../failure.ts';
import type { Found } from '../history/sites.ts';
import { findJobStreams, type StoredStream } from '../history/streams.ts';
import { hasColours, paint, printJson, safeText } from '../output.ts';
import { globalOptions, openSites, type Site } from '../site.ts';
import { findJob, findPrevious } from './job-lookup.ts';
import { openOutput } from './pager.ts';

interface Options {
  previous?: true;
  client?: string;
  out?: true;
  err?: true;
  env?: true;
}

const EXPLANATION = `
The baseline comes first: with two job ids that of the first, else the latest earlier upload of the same client and
command. Control characters are written out, as \\x1b. Needs the system's diff.

Examples:
  webjobctl diff server_1_1085355126_00723 --previous
  webjobctl diff 00723 00911 --err --env

Exit codes:
  0  the same
  1  they differ, or there is no such job, or no earlier one
  2  wrong command line, or several jobs whose ids begin or end so
  3  nph-webjob.cfg cannot be used
  4  diff is missing or failed, or the log or the locker cannot be read`;

export function diffCommand(): Command {
  return new Command('diff')
    .description('compare what two runs wrote')
    .argument('<jid>', 'job id, or its beginning or end')
    .argument('[jid2]', 'the one to compare it with; without it the first is compared with the one before')
    .option('--previous', 'with the latest earlier upload of the same client and command; as without a second id')
    .option('--out', 'what they wrote to stdout; as without --err and --env')
    .option('--err', 'what they wrote to stderr')
    .option('--env', 'the records of the runs')
    .option('--client <glob>', 'of this client, where several sent the same job id')
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
  if (other !== undefined && options.previous) throw new Failure('usage', '--previous makes no sense with two job ids');
  const found = await findJob(sites, jid, options.client);
  const [from, to] =
    other === undefined ? [await findPrevious(found), found] : [found, await findJob(sites, other, options.client)];
  const asked = STREAMS.filter((name) => options[name]);
  const output = isJson ? undefined : await openOutput();
  for (const name of asked.length > 0 ? asked : (['out'] as const)) {
    const streams = [await streamOf(from, name), await streamOf(to, name)] as const;
    const text = await compare(streams, [label(from, name), label(to, name)]);
    const differs = text.length > 0;
    if (differs) process.exitCode = EXIT_CODES.findings;
    if (output) await output.write(colour(safeText(text.toString())));
    else printJson({ from: from.job.jobId, to: to.job.jobId, stream: name, differs, diff: text.toString() });
  }
  await output?.end();
}

async function streamOf({ site, job }: Found, name: StreamName): Promise<StoredStream> {
  const stream = (await findJobStreams(site, job))[name];
  if (!stream) throw new Failure('findings', `${job.jobId} has no .${name}`);
  return stream;
}

function label({ job }: Found, name: StreamName): string {
  return `${job.jobId} ${name}`;
}

const MAX_DIFF_BYTES = 64 * 1024 * 1024;

/** What `diff -u` says; empty when they are the same. */
async function compare(streams: readonly [StoredStream, StoredStream], labels: [string, string]): Promise<Buffer> {
  const from = await openToCompare(streams[0]);
  try {
    const to = await openToCompare(streams[1]);
    try {
      return await runDiff(from, to, labels);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

/** A file of the locker, or of what lies in a pack a copy that has no name any more when it is filled: a kill leaves none of it behind. */
async function openToCompare(stream: StoredStream): Promise<number> {
  if (stream.path !== undefined) return openSync(stream.path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const folder = mkdtempSync(join(tmpdir(), 'webjob-diff-'));
  let fd: number | undefined;
  try {
    fd = openSync(join(folder, 'stream'), 'wx+', 0o600);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  try {
    // At places of its own, so that the descriptor stays at the beginning.
    let at = 0;
    for await (const piece of stream.read())
      for (let done = 0; done < piece.length; ) {
        const count = writeSync(fd, piece, done, piece.length - done, at);
        done += count;
        at += count;
      }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

async function runDiff(from: number, to: number, labels: [string, string]): Promise<Buffer> {
  const args = ['-u', '-L', labels[0], '-L', labels[1], '--', '/dev/fd/3', '/dev/fd/4'];
  const child = spawn('diff', args, { stdio: ['ignore', 'pipe', 'pipe', from, to] });
  const read = async (stream: AsyncIterable<Buffer> | null): Promise<Buffer> => {
    const pieces: Buffer[] = [];
    let left = MAX_DIFF_BYTES;
    for await (const piece of stream ?? []) {
      left -= piece.length;
      if (left < 0) {
        child.kill();
        throw new Failure('failed', `the difference has more than ${MAX_DIFF_BYTES} bytes`);
      }
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  };
  try {
    const closed = once(child, 'close');
    const [text, problem, [code]] = await Promise.all([read(child.stdout), read(child.stderr), closed]);
    if (code !== 0 && code !== 1)
      throw new Failure('failed', `diff failed: ${problem.toString().trim() || `exit status ${code}`}`);
    return text;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Failure('failed', `diff cannot be started: ${code}`, undefined, { cause: error });
  }
}

function colour(text: string): string {
  if (!hasColours()) return text;
  return text.replace(/^[-+].*$/gm, (line) => paint(line, line.startsWith('-') ? 'red' : 'green'));
}
