// One job from end to end: GET, RUN, PUT, in a private folder that is gone afterwards.
import { createHash } from 'node:crypto';
import { chmodSync, createReadStream, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { isFileName, NOT_APPLICABLE } from 'webjob-protocol';
import { EXIT_CODES, Failure } from './failure.ts';
import { fetchProgram } from './fetch.ts';
import { describeClient, type Job, nowMicros } from './record.ts';
import { type Ending, placeProgram, runProgram } from './run.ts';
import type { ClientSettings } from './settings.ts';
import { uploadJob } from './upload.ts';

/**
 * Gets a program, runs it with `args` and uploads what came out; returns the exit code of webjob. Without URLPutURL that is the
 * program's own. Throws Failure.
 */
export async function executeJob(settings: ClientSettings, program: string, args: string[]): Promise<number> {
  const startedAt = nowMicros();
  if (!isFileName(program)) {
    throw new Failure(
      'usage',
      'the program is not 1 to 1024 letters, digits and _ + . : -',
      'name it as it is named in the profile, without a path',
    );
  }
  const folder = makePrivateFolder(settings.tempDirectory);
  const path = join(settings.tempDirectory, program);
  let placed = false;
  const cleanUp = (): void => {
    if (placed && settings.unlinkExecutable) rmSync(path, { force: true });
    if (settings.unlinkOutput || settings.put === undefined || !placed)
      rmSync(folder, { recursive: true, force: true });
  };
  const stopListening = onEnd(cleanUp);
  try {
    const identity = describeClient();
    const getAt = nowMicros();
    const { jobId } = await fetchProgram(settings, identity, program, join(folder, 'program'));
    chmodSync(join(folder, 'program'), 0o700);
    placeProgram(join(folder, 'program'), path, settings.overwriteExecutable);
    placed = true;
    const job = { settings, identity, program, args, jobId, startedAt, getAt };
    return settings.put === undefined
      ? exitCodeOf(await runProgram(settings, path, args, 'inherit'))
      : await runAndUpload(job, path, folder);
  } finally {
    stopListening();
    cleanUp();
  }
}

async function runAndUpload(
  known: Omit<Job, 'runAt' | 'ending' | 'outHash' | 'errHash'>,
  path: string,
  folder: string,
): Promise<number> {
  const { settings, program, args } = known;
  const outFile = join(folder, `${program.slice(0, 200)}.out`);
  const errFile = join(folder, `${program.slice(0, 200)}.err`);
  const runAt = nowMicros();
  const ending = await runProgram(settings, path, args, [
    openSync(outFile, 'wx', 0o600),
    openSync(errFile, 'wx', 0o600),
  ]);
  const job = {
    ...{ ...known, runAt, ending },
    outHash: await hashFile(settings.hashType, outFile),
    errHash: await hashFile(settings.hashType, errFile),
  };
  if (settings.put) await uploadJob(job, settings.put, outFile, errFile);
  if (ending.error !== undefined) throw new Failure('run', `${program} ${ending.error}`);
  return EXIT_CODES.ok;
}

/** As a shell reports it: the program's status, 128 and the number of the signal, or 126 when it never started. */
function exitCodeOf(ending: Ending): number {
  if (ending.signal) return 128 + ending.signal;
  return ending.status ?? 126;
}

/** Mode 0700, a name nobody can foresee. */
function makePrivateFolder(tempDirectory: string): string {
  try {
    return mkdtempSync(join(tempDirectory, 'webjob-'));
  } catch (error) {
    throw new Failure(
      'run',
      `TempDirectory cannot be used: ${(error as NodeJS.ErrnoException).code}`,
      'it must exist and be writable',
    );
  }
}

async function hashFile(type: ClientSettings['hashType'], path: string): Promise<string> {
  const hash = createHash(type.toLowerCase());
  await pipeline(createReadStream(path, { highWaterMark: 256 * 1024 }), hash);
  return hash.digest('hex') || NOT_APPLICABLE;
}

/** Outside RUN a signal ends webjob, but not before it has cleaned up. Returns what takes the listeners away. */
function onEnd(cleanUp: () => void): () => void {
  const end = (signal: NodeJS.Signals, number: number): void => {
    // While a program runs, the signal is its own: it ends, and its end is reported.
    if (process.listenerCount(signal) > 1) return;
    cleanUp();
    process.exit(128 + number);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  return () => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, end);
  };
}
