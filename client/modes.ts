// The modes other than --execute: --get-url, --hashsum and --flush.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { countOf } from '../cli/counts.ts';
import { print, say } from '../cli/streams.ts';
import { codeOf, EXIT_CODES, Failure, failureOf } from './failure.ts';
import { countJobs, flushAll, flushFolder } from './flush.ts';
import { type ClientSettings, parseTarget } from './settings.ts';
import { exchange } from './wire.ts';

/**
 * Writes the content of a URL to stdout, with the credentials, TLS options and proxy of the
 * settings. Throws Failure.
 */
export async function getUrl(settings: ClientSettings, text: string): Promise<number> {
  if (!/^https?:\/\//i.test(text)) throw new Failure('usage', 'the URL is not http://... or https://...');
  // The user and password for the WebJob server are never sent to another server.
  const bare = parseTarget('the URL', text, undefined);
  const known = [settings.get, settings.put].find((target) => target?.url.origin === bare.url.origin);
  const request = {
    settings,
    method: 'GET',
    query: undefined,
    contentLength: 0,
    limitSeconds: settings.getTimeLimit,
  } as const;
  try {
    await exchange(
      {
        ...request,
        target: { ...bare, credentials: bare.credentials ?? known?.credentials },
        send: (asked) => asked.end(),
      },
      async (answer) => {
        for await (const piece of answer) await write(piece);
      },
    );
    return EXIT_CODES.ok;
  } catch (error) {
    throw failureOf('get', 'GET', error);
  }
}

/** Writes to stdout. Throws Failure `output`. */
export async function write(piece: string | Buffer): Promise<void> {
  try {
    await print(piece);
  } catch (error) {
    throw new Failure('output', `standard output cannot be written: ${codeOf(error)}`);
  }
}

export const DIGESTS = ['MD5', 'SHA1', 'SHA256', 'SHA512'] as const;

/** Prints the digest of a file, or of stdin, in lower-case hex. Throws Failure. */
export async function printDigest(type: string, file: string | undefined): Promise<number> {
  const name = DIGESTS.find((digest) => digest === type.toUpperCase());
  if (!name) throw new Failure('usage', `the digest must be one of ${DIGESTS.join(', ')}`);
  const hash = createHash(name.toLowerCase());
  try {
    const source = file === undefined ? process.stdin : createReadStream(file, { highWaterMark: 256 * 1024 });
    for await (const piece of source) hash.update(piece);
  } catch (error) {
    throw new Failure('usage', `${file ?? 'stdin'} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  await write(`${hash.digest('hex')}\n`);
  return EXIT_CODES.ok;
}

/**
 * Delivers the jobs in SpoolDirectory and TempDirectory, or in one directory. `conf` is the value
 * of --file. Prints one line for each job that is left. Throws Failure.
 */
export async function flush(settings: ClientSettings, conf: string, folder: string | undefined): Promise<number> {
  const { delivered, left, failure } = await (folder === undefined
    ? flushAll(settings, conf)
    : flushFolder(settings, conf, folder));
  if (delivered > 0) say(`webjob: delivered ${delivered} of ${countOf(delivered + left.size, 'job')}`);
  if (left.size === 0) return EXIT_CODES.ok;
  const reasons = [...left].map(([path, reason]) => `${path}: ${reason}`);
  say(`webjob: error: ${countJobs(left.size)} in the spool${failure ? `: ${failure.message}` : ''}`);
  for (const hint of failure?.hints ?? []) say(`webjob: hint: ${hint}`);
  for (const reason of reasons) say(`webjob: warning: ${reason}`);
  return EXIT_CODES.put;
}
