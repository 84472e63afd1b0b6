// PUT: sends stdout, stderr and the record one after the other, with the lengths they have on disk.
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
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
          // A server may refuse and close early; its answer then says more than the broken pipe, which also ends the request.
          pipeline(Readable.from(joinStreams(out, err, env)), request).catch(() => {});
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

async function* joinStreams(out: Captured, err: Captured, env: Buffer): AsyncGenerator<Buffer> {
  yield* readCaptured(out);
  yield* readCaptured(err);
  yield env;
}
