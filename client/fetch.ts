// GET: brings a program into a private file, whole or not at all.
import { createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { formatGetQuery, isJobId } from 'webjob-protocol';
import { Failure } from './failure.ts';
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
        await pipeline(answer, createWriteStream(path, { flags: 'wx', mode: 0o600 }));
        const jobId = answer.headers['job-id'];
        return { jobId: typeof jobId === 'string' && isJobId(jobId) ? jobId : undefined };
      },
    );
  } catch (error) {
    throw new Failure('get', `GET of ${fileName} failed: ${(error as Error).message}`, undefined, { cause: error });
  }
}
