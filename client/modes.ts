// The small modes beside --execute: --get-url, --hashsum, --flush.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { print, say } from '../cli/program.ts';
import { EXIT_CODES, Failure, failureOf } from './failure.ts';
import { type ClientSettings, parseTarget } from './settings.ts';
import { flushSpool } from './spool.ts';
import { exchange } from './wire.ts';

/** Writes what a URL gives to stdout, with the credentials, TLS and proxy of the settings. Throws Failure. */
export async function getUrl(settings: ClientSettings, text: string): Promise<number> {
  if (!/^https?:\/\//i.test(text)) throw new Failure('usage', 'the URL is not http://... or https://...');
  // The user and password of a WebJob server are for that server alone.
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
    throw new Failure('output', `standard output cannot be written: ${(error as NodeJS.ErrnoException).code}`);
  }
}

export const DIGESTS = ['MD5', 'SHA1', 'SHA256', 'SHA512'] as const;

/** Prints the digest of a file, or of stdin, in lower-case hex. Throws Failure. */
export async function printDigest(type: string, file: string | undefined): Promise<number> {
  const name = DIGESTS.find((digest) => digest === type.toUpperCase());
  if (!name) throw new Failure('usage', `the digest is none of ${DIGESTS.join(', ')}`);
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

/** Delivers what waits in SpoolDirectory. Throws Failure `put` when something is left. */
export async function flush(settings: ClientSettings): Promise<number> {
  if (settings.spoolDirectory === '') throw new Failure('settings', 'SpoolDirectory is required for --flush');
  const { delivered, left, failure } = await flushSpool(settings);
  if (delivered > 0) say(`webjob: delivered ${delivered} of ${delivered + left} jobs`);
  if (failure) throw new Failure('put', `${left} jobs wait in the spool: ${failure.message}`, failure.hint);
  return EXIT_CODES.ok;
}
