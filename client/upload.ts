// PUT: sends stdout, stderr and the record one after the other, with the lengths they have on disk.
import type { ClientRequest } from 'node:http';
import { formatPutQuery } from 'webjob-protocol';
import { type Captured, readCaptured } from './captured.ts';
import { Failure } from './failure.ts';
import { formatJob, type Job, nowMicros } from './record.ts';
import type { Target } from './settings.ts';
import { exchange } from './wire.ts';

/** Uploads a finished job. Throws Failure `put`. */
export async function uploadJob(job: Job, target: Target, out: Captured, err: Captured): Promise<void> {
  const env = Buffer.from(formatJob(job, nowMicros()));
  const query = formatPutQuery({
    ...{
      ...job.identity.onWire,
      clientId: job.settings.clientId,
      fileName: job.program,
      runType: job.settings.runType,
    },
    ...{ outLength: out.length, errLength: err.length, envLength: env.length },
  });
  try {
    await exchange(
      {
        ...{ method: 'PUT', target, query, contentLength: out.length + err.length + env.length, jobId: job.jobId },
        limitSeconds: job.settings.putLimitSeconds,
        send: (request) => {
          sendStreams(request, out, err, env).catch((error) => request.destroy(error));
        },
      },
      async (answer) => {
        for await (const _ of answer);
      },
    );
  } catch (error) {
    throw new Failure('put', `PUT of ${job.program} failed: ${(error as Error).message}`, undefined, { cause: error });
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
