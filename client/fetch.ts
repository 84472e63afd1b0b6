// GET: brings a program into a private file, whole or not at all.
import { closeSync, openSync, writeSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { formatGetQuery, isJobId } from 'webjob-protocol';
import { Failure } from './failure.ts';
import { openGarbage } from './garbage.ts';
import type { Identity } from './record.ts';
import type { ClientSettings } from './settings.ts';
import { exchange, WireError } from './wire.ts';

export interface Fetched {
  /** The server's name for this job; undefined when it gave none (servers up to 1.3). */
  jobId: string | undefined;
}

/** Fetches `fileName` into `path`, which must not exist. Throws Failure `get`. */
export async function fetchProgram(
  settings: ClientSettings,
  identity: Identity,
  fileName: string,
  path: string,
): Promise<Fetched> {
  const query = formatGetQuery({ ...identity.onWire, clientId: settings.clientId, fileName });
  try {
    return await exchange(
      {
        method: 'GET',
        target: settings.get,
        query,
        contentLength: 0,
        limitSeconds: settings.getLimitSeconds,
        send: (request) => request.end(),
      },
      async (answer, contentLength) => {
        if (settings.downloadLimitBytes > 0 && contentLength > settings.downloadLimitBytes) {
          throw new WireError('the program is larger than URLDownloadLimit');
        }
        await save(answer, path);
        const jobId = answer.headers['job-id'];
        return { jobId: typeof jobId === 'string' && isJobId(jobId) ? jobId : undefined };
      },
    );
  } catch (error) {
    throw new Failure('get', `GET of ${fileName} failed: ${(error as Error).message}`, undefined, { cause: error });
  }
}

/** Writes as it comes, at the pace of the disk. */
async function save(answer: IncomingMessage, path: string): Promise<void> {
  const fd = openSync(path, 'wx', 0o600);
  const discard = openGarbage();
  try {
    for await (const piece of answer as AsyncIterable<Buffer>) {
      for (let at = 0; at < piece.length; ) at += writeSync(fd, piece, at);
      discard(piece.length);
    }
  } finally {
    closeSync(fd);
  }
}
