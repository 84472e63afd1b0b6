// PUT: sends stdout, stderr and the run record one after the other, each with its length on disk.
import type { ClientRequest } from 'node:http';
import { formatPutQuery, type RunType } from 'webjob-protocol';
import { type Captured, readCaptured } from './captured.ts';
import { Failure, failureOf } from './failure.ts';
import type { Delivery } from './journal.ts';
import { withRetries } from './retry.ts';
import type { ClientSettings, Target } from './settings.ts';
import { isAcknowledgement } from './status.ts';
import { exchange, readAnswer } from './wire.ts';

/** The facts about a finished job that the server needs, immediately or with a later --flush. */
export interface UploadFacts {
  version: string;
  system: string;
  clientId: string;
  fileName: string;
  runType: RunType;
  jobId: string | undefined;
}

/** The streams of a job, in the order in which they are sent. */
export interface Streams {
  out: Captured;
  err: Captured;
  env: Buffer<ArrayBufferLike>;
}

/** Uploads a job to URLPutURL, with up to RetryLimit retries. Throws Failure `put`. */
export async function uploadStreams(settings: ClientSettings, facts: UploadFacts, streams: Streams): Promise<void> {
  if (settings.put === undefined) throw new Failure('settings', 'URLPutURL is required');
  const { put } = settings;
  const what = `PUT of ${facts.fileName}`;
  const startedAt = new Date();
  const delivery: Delivery = { facts, url: put.url, startedAt, tries: 0, answer: undefined, error: undefined };
  try {
    await withRetries(settings, what, async () => {
      delivery.tries += 1;
      delivery.answer = undefined;
      await uploadOnce(settings, put, streams, delivery);
    });
  } catch (error) {
    delivery.error = (error as Error).message;
    throw failureOf('put', what, error);
  } finally {
    if (settings.journalFile !== '')
      (await import('./journal.ts')).writeJournal(settings.journalFile, delivery, streams);
  }
}

/**
 * Uploads a job once. Every try sends the same bytes, so that a server recognises a job that it has
 * already stored.
 */
async function uploadOnce(
  settings: ClientSettings,
  target: Target,
  streams: Streams,
  delivery: Delivery,
): Promise<void> {
  const { facts } = delivery;
  const { out, err, env } = streams;
  const lengths = { outLength: out.length, errLength: err.length, envLength: env.length };
  await exchange(
    {
      settings,
      method: 'PUT',
      target,
      limitSeconds: settings.putTimeLimit,
      jobId: facts.jobId,
      query: formatPutQuery({ ...facts, ...lengths }),
      contentLength: out.length + err.length + env.length,
      expected: { name: 'an acknowledgement', matches: (answer) => isAcknowledgement(answer, facts.runType) },
      onAnswer: ({ statusCode: status = 0, statusMessage: reason = '' }) => {
        delivery.answer = { status, reason };
      },
      send: (request) => {
        sendStreams(request, streams).catch((error) => request.destroy(error));
      },
    },
    (answer) => readAnswer(answer, () => {}),
  );
}

/**
 * Sends the streams piece by piece, each after the previous one was written. When a server refuses
 * and closes the connection, this returns without an error, because the answer says more.
 */
async function sendStreams(request: ClientRequest, { out, err, env }: Streams): Promise<void> {
  for (const stream of [readCaptured(out), readCaptured(err), [env]]) {
    for (const piece of stream) if (!(await write(request, piece))) return;
  }
  request.end();
}

/** Writes a piece; false when the connection accepts no more data. */
function write(request: ClientRequest, piece: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    request.write(piece, (error) => resolve(!error));
  });
}
