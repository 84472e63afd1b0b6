// GET: fetches a program into a private file, either completely or not at all, with retries, and
// verifies the program.
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { formatGetQuery, isJobId } from 'webjob-protocol';
import { codeOf, Failure, failureOf, WireError, warn } from './failure.ts';
import { openGarbage } from './garbage.ts';
import type { Identity } from './record.ts';
import { withRetries } from './retry.ts';
import type { ClientSettings } from './settings.ts';
import { isProgram } from './status.ts';
import { exchange, readAnswer } from './wire.ts';

/** Checks a program as it arrives. */
export interface PayloadCheck {
  update(piece: Uint8Array): void;
  /** Called once, after the last piece. Throws Failure `get` for a program that must not be run. */
  finish(): void;
}

/**
 * Begins a check when the header of an answer has arrived; undefined when there is nothing to
 * check. Throws Failure `get`.
 */
type BeginCheck = (answer: IncomingMessage, size: number) => PayloadCheck | undefined;

/**
 * The warning about an empty program. An empty program may be intended, but a middlebox may also
 * have replaced the status of a refusal, which has no content.
 */
const EMPTY =
  'the program is empty: an older script under fcgiwrap refuses like this, with the reason in nph-webjob.log';

/** The hint for an unsigned batch: the server generates batches and has no key to sign them. */
const UNSIGNED_BATCH =
  'a batch has no signature: sign assignments, set DsvVerifyManifest=Y, and run webjob --batch (docs/guide/fleet.md)';

/**
 * Fetches `fileName` into `path`. Returns the job id from the server, or undefined if the server
 * sent none. A batch that webjob itself interprets is not checked as a program, because each of its
 * assignments is checked. Throws Failure.
 */
export async function fetchProgram(
  settings: ClientSettings,
  identity: Identity,
  fileName: string,
  path: string,
  isBatch = false,
): Promise<string | undefined> {
  const checks = await prepareChecks(settings, fileName, isBatch);
  try {
    return await withRetries(settings, `GET of ${fileName}`, async () => {
      rmSync(path, { force: true });
      return await fetchOnce(settings, identity, fileName, path, checks);
    });
  } catch (error) {
    throw failureOf('get', `GET of ${fileName}`, error);
  }
}

/** Prepares the configured checks; the code of a check is loaded only when the check is enabled. */
async function prepareChecks(settings: ClientSettings, fileName: string, isBatch: boolean): Promise<BeginCheck[]> {
  const checks: BeginCheck[] = [];
  const { dsvVerifySignature, dsvVerifyManifest, dsvRequireManifest } = settings;
  if (dsvVerifySignature && !(isBatch && dsvVerifyManifest && dsvRequireManifest)) {
    const { USUAL_BATCH } = await import('./batch.ts');
    const hint = isBatch || fileName === USUAL_BATCH ? UNSIGNED_BATCH : undefined;
    const begin = (await import('./signature.ts')).prepareCheck(settings.dsvPublicKeyFile, hint);
    checks.push(({ headers: { 'webjob-payload-signature': line } }) =>
      begin(typeof line === 'string' ? line : undefined),
    );
  }
  if (dsvVerifyManifest && !isBatch) checks.push((await import('./manifest.ts')).prepareManifest(settings, fileName));
  return checks;
}

async function fetchOnce(
  settings: ClientSettings,
  identity: Identity,
  fileName: string,
  path: string,
  checks: readonly BeginCheck[],
): Promise<string | undefined> {
  return await exchange(
    {
      settings,
      method: 'GET',
      target: settings.get,
      contentLength: 0,
      limitSeconds: settings.getTimeLimit,
      query: formatGetQuery({ ...identity.onWire, clientId: settings.clientId, fileName }),
      expected: { name: 'a program', matches: isProgram },
      send: (request) => request.end(),
    },
    async (answer, contentLength) => {
      // Nothing beyond Content-Length arrives, because the HTTP parser discards it.
      if (settings.urlDownloadLimit > 0 && contentLength > settings.urlDownloadLimit) {
        throw new WireError('the program is larger than URLDownloadLimit');
      }
      if (contentLength === 0) warn(EMPTY);
      const { 'job-id': jobId } = answer.headers;
      const begun = checks.flatMap((begin) => begin(answer, contentLength) ?? []);
      await save(answer, path, begun);
      for (const check of begun) check.finish();
      return typeof jobId === 'string' && isJobId(jobId) ? jobId : undefined;
    },
  );
}

/**
 * Writes the answer to disk as it arrives. Throws Failure `get` when the disk accepts no more data.
 */
async function save(answer: IncomingMessage, path: string, checks: readonly PayloadCheck[]): Promise<void> {
  const fd = openSync(path, 'wx', 0o600);
  const discard = openGarbage();
  try {
    await readAnswer(answer, (piece) => {
      for (const check of checks) check.update(piece);
      write(fd, piece);
      discard(piece.length);
    });
  } finally {
    closeSync(fd);
  }
}

function write(fd: number, piece: Buffer): void {
  try {
    for (let at = 0; at < piece.length; ) at += writeSync(fd, piece, at);
  } catch (error) {
    const hint = 'make space, or set TempDirectory to a directory that has some';
    throw new Failure('get', `the program cannot be written: ${codeOf(error)}`, hint);
  }
}
