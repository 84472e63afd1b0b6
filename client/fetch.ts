// GET: brings a program into a private file, whole or not at all, again when the network asks for it, and verified.
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { formatGetQuery, isJobId } from 'webjob-protocol';
import { codeOf, Failure, failureOf, WireError } from './failure.ts';
import { openGarbage } from './garbage.ts';
import type { Identity } from './record.ts';
import { withRetries } from './retry.ts';
import type { ClientSettings } from './settings.ts';
import type { prepareCheck, SignatureCheck } from './signature.ts';
import { isProgram } from './status.ts';
import { exchange, readAnswer } from './wire.ts';

/** Fetches `fileName` into `path`. Returns the server's name for this job, undefined when it gave none. Throws Failure. */
export async function fetchProgram(
  settings: ClientSettings,
  identity: Identity,
  fileName: string,
  path: string,
): Promise<string | undefined> {
  const check = await prepareSignature(settings);
  try {
    return await withRetries(settings, `GET of ${fileName}`, async () => {
      rmSync(path, { force: true });
      return await fetchOnce(settings, identity, fileName, path, check);
    });
  } catch (error) {
    throw failureOf('get', `GET of ${fileName}`, error);
  }
}

/** Who checks no signature does not load what it takes. */
async function prepareSignature(settings: ClientSettings): Promise<ReturnType<typeof prepareCheck> | undefined> {
  if (!settings.dsvVerifySignature) return undefined;
  return (await import('./signature.ts')).prepareCheck(settings.dsvPublicKeyFile);
}

async function fetchOnce(
  settings: ClientSettings,
  identity: Identity,
  fileName: string,
  path: string,
  check: ReturnType<typeof prepareCheck> | undefined,
): Promise<string | undefined> {
  return await exchange(
    {
      ...{ settings, method: 'GET', target: settings.get, contentLength: 0, limitSeconds: settings.getTimeLimit },
      query: formatGetQuery({ ...identity.onWire, clientId: settings.clientId, fileName }),
      expected: { name: 'a program', matches: isProgram },
      send: (request) => request.end(),
    },
    async (answer, contentLength) => {
      // No more than Content-Length comes: the reader of HTTP cuts the rest off.
      if (settings.urlDownloadLimit > 0 && contentLength > settings.urlDownloadLimit) {
        throw new WireError('the program is larger than URLDownloadLimit');
      }
      const { 'job-id': jobId, 'webjob-payload-signature': signature } = answer.headers;
      const checking = check?.(typeof signature === 'string' ? signature : undefined);
      await save(answer, path, checking);
      checking?.finish();
      return typeof jobId === 'string' && isJobId(jobId) ? jobId : undefined;
    },
  );
}

/** Writes as it comes, at the pace of the disk. Throws Failure `get` when that takes no more. */
async function save(answer: IncomingMessage, path: string, checking: SignatureCheck | undefined): Promise<void> {
  const fd = openSync(path, 'wx', 0o600);
  const discard = openGarbage();
  try {
    await readAnswer(answer, (piece) => {
      checking?.update(piece);
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
    const hint = 'make room, or set TempDirectory to a folder that has it';
    throw new Failure('get', `the program cannot be written: ${codeOf(error)}`, hint);
  }
}
