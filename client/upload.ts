// PUT: sends stdout, stderr and the record one after the other, with the lengths they have on disk.
import type { ClientRequest } from 'node:http';
import { formatPutQuery, type RunType } from 'webjob-protocol';
import { type Captured, readCaptured } from './captured.ts';
import { Failure } from './failure.ts';
import type { ClientSettings } from './settings.ts';
import { exchange } from './wire.ts';

/** A finished job as it goes to the server, now or at a later --flush. */
export interface Parcel {
  version: string;
  system: string;
  clientId: string;
  fileName: string;
  runType: RunType;
  jobId: string | undefined;
}

/** Uploads a job to URLPutURL. Throws Failure `put`. */
export async function uploadParcel(
  settings: ClientSettings,
  parcel: Parcel,
  streams: { out: Captured; err: Captured; env: Buffer },
): Promise<void> {
  const { out, err, env } = streams;
  if (settings.put === undefined) throw new Failure('settings', 'URLPutURL is required');
  const lengths = { outLength: out.length, errLength: err.length, envLength: env.length };
  try {
    await exchange(
      {
        ...{ settings, method: 'PUT', target: settings.put, limitSeconds: settings.putTimeLimit, jobId: parcel.jobId },
        query: formatPutQuery({ ...parcel, ...lengths }),
        contentLength: out.length + err.length + env.length,
        send: (request) => {
          sendStreams(request, out, err, env).catch((error) => request.destroy(error));
        },
      },
      async (answer) => {
        for await (const _ of answer);
      },
    );
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('put', `PUT of ${parcel.fileName} failed: ${(error as Error).message}`, undefined, {
      cause: error,
    });
  }
}

/** Sends piece by piece, each when the one before has left. A server that refuses and closes ends it: what it answered says more. */
async function sendStreams(request: ClientRequest, out: Captured, err: Captured, env: Buffer): Promise<void> {
  for (const stream of [readCaptured(out), readCaptured(err), [env]]) {
    for (const piece of stream) if (!(await write(request, piece))) return;
  }
  request.end();
}

/** False when the connection took no more. */
function write(request: ClientRequest, piece: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    request.write(piece, (error) => resolve(!error));
  });
}
