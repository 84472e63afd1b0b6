// webjobctl custody timestamp: has an RFC 3161 authority certify when a checkpoint existed.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode, requireRootsOwn } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { type KeptCheckpoint, readCheckpoints, recordsOf } from '../site/logs.ts';
import { globalOptions, openSite, type Site } from '../site/site.ts';
import { keepFolder } from '../site/site-lock.ts';
import { askAuthority, checkStamp, keepStamp, makeStampRequest } from '../site/stamps.ts';
import { isRoot } from '../site/users.ts';

interface Options {
  tsa?: string;
  request?: string;
  response?: string;
  ca?: string;
  server?: string;
}

const EXPLANATION = `
Stamps the newest checkpoint of each custody record. The time stamp is checked with the CA of the authority, and kept
beside the checkpoint in config/nph-webjob/. Only a SHA-256 leaves the machine.

A machine without network access writes the request into a file, and reads the response from one; --server then names
the record, if there are several. Anyone can check checkpoint and time stamp: webjobctl custody check CHECKPOINT
--timestamp FILE, or openssl ts -verify -data CHECKPOINT -in FILE -CAfile CA.

Examples:
  webjobctl custody timestamp --tsa https://tsa.example.org/ --ca tsa-ca.pem
  webjobctl custody timestamp --server server_1 --request question.tsq
  webjobctl custody timestamp --server server_1 --response answer.tsr --ca tsa-ca.pem

Exit codes:
  0  stamped
  1  the time stamp is not valid, or there is no checkpoint
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the authority cannot be reached, or a file cannot be read or written`;

export function timestampCommand(): Command {
  return new Command('timestamp')
    .description('obtain RFC 3161 time stamps for the newest checkpoints')
    .option('--tsa <URL>', 'the URL of the authority')
    .option('--request <FILE>', 'write the request to this file instead of sending it')
    .option('--response <FILE>', 'read the response from this file')
    .option('--ca <FILE>', 'the certificate of the CA of the time stamp, in PEM')
    .option('--server <SERVER>', 'only the record of this ServerId')
    .addHelpText('after', EXPLANATION)
    .action(async (options: Options, command: Command) =>
      run(openSite(command), options, globalOptions(command).json === true),
    );
}

async function run(site: Site, options: Options, isJson: boolean): Promise<void> {
  const { tsa, request, response, ca } = options;
  if ([tsa, request, response].filter((one) => one !== undefined).length !== 1)
    throw new Failure('usage', 'use one of --tsa, --request and --response', 'webjobctl custody timestamp --help');
  if (request === undefined && ca === undefined)
    throw new Failure('usage', 'the time stamp is checked with the certificate of its CA', '--ca tsa-ca.pem');
  if (request === undefined && !isRoot()) throw new Failure('failed', 'only root keeps time stamps');
  if (tsa !== undefined) checkUrl(tsa);
  if (isRoot()) requireRootsOwn(keepFolder(site.settings));
  const newest = findNewest(site, options.server);
  const [first] = newest;
  if (tsa === undefined && newest.length > 1)
    throw new Failure('usage', 'there are several records, and each is stamped separately', `--server ${first?.[0]}`);
  for (const [serverId, checkpoint] of newest) {
    if (request !== undefined) {
      write(request, makeStampRequest(checkpoint.text));
      continue;
    }
    const question = tsa === undefined ? undefined : makeStampRequest(checkpoint.text);
    const answer = question && tsa !== undefined ? await askAuthority(tsa, question) : read(response ?? '');
    const time = checkStamp(answer, checkpoint.text, { ca: ca ?? '', request: question });
    const lock = join(keepFolder(site.settings), 'custody-tree');
    const file = withLock(lock, () => keepStamp(site.settings, serverId, checkpoint, answer, time));
    const { origin, size } = checkpoint;
    if (isJson) printJson({ server: serverId, origin, size, time: time.toISOString(), file });
    else printLine(safeLine(`${origin} had its ${size} entries at ${time.toISOString()}: ${file}`));
  }
}

/**
 * Checks the URL of an authority. Throws Failure `usage` for one with a password, which would be
 * visible in the list of processes and in errors.
 */
function checkUrl(tsa: string): void {
  const url = URL.parse(tsa);
  const hint = '--tsa https://tsa.example.org/';
  if (url && (url.username !== '' || url.password !== '')) throw new Failure('usage', '--tsa takes no password', hint);
  if (!/^https?:$/.test(url?.protocol ?? '')) throw new Failure('usage', `--tsa ${tsa} is not a URL`, hint);
}

/** The newest checkpoint of each record. Throws Failure `findings` when there is none. */
function findNewest({ settings }: Site, server: string | undefined): [string, KeptCheckpoint][] {
  const found = [...recordsOf(settings).keys()].flatMap((serverId): [string, KeptCheckpoint][] => {
    const newest = server === undefined || server === serverId ? readCheckpoints(settings, serverId).at(-1) : undefined;
    return newest ? [[serverId, newest]] : [];
  });
  if (found.length > 0) return found;
  const whose = server === undefined ? '' : ` of ${server}`;
  throw new Failure('findings', `there is no checkpoint${whose}`, 'webjobctl custody checkpoint --key FILE makes one');
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`);
  }
}

function write(path: string, bytes: Buffer): void {
  try {
    writeFileSync(path, bytes, { mode: 0o644 });
  } catch (error) {
    throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`);
  }
}
