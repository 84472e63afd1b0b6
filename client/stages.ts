// One job from end to end: GET, RUN, PUT, in a private folder that is gone afterwards.
import { chmodSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isFileName } from 'webjob-protocol';
import { hashCaptured, takeLength } from './captured.ts';
import { EXIT_CODES, Failure } from './failure.ts';
import { fetchProgram } from './fetch.ts';
import { describeClient, type Job, nowMicros } from './record.ts';
import { type Ending, placeProgram, runProgram } from './run.ts';
import type { ClientSettings, Target } from './settings.ts';
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
    const ending =
      settings.put === undefined
        ? await runProgram(settings, path, args, 'inherit')
        : await runAndUpload(job, settings.put, path, folder);
    if (ending.error !== undefined) throw new Failure('run', `${program} ${ending.error}`);
    return settings.put === undefined ? exitCodeOf(ending) : EXIT_CODES.ok;
  } finally {
    stopListening();
    cleanUp();
  }
}

async function runAndUpload(
  known: Omit<Job, 'runAt' | 'ending' | 'outHash' | 'errHash'>,
  target: Target,
  path: string,
  folder: string,
): Promise<Ending> {
  const { settings, program, args } = known;
  const outFile = join(folder, `${program.slice(0, 200)}.out`);
  const errFile = join(folder, `${program.slice(0, 200)}.err`);
  const writers = [openSync(outFile, 'wx', 0o600), openSync(errFile, 'wx', 0o600)] as const;
  // Opened before the program runs, which may remove or replace what it finds in TempDirectory.
  const readers = [openSync(outFile, 'r'), openSync(errFile, 'r')] as const;
  const runAt = nowMicros();
  const ending = await runProgram(settings, path, args, writers);
  const out = takeLength(readers[0]);
  const err = takeLength(readers[1]);
  const job = {
    ...{ ...known, runAt, ending },
    outHash: hashCaptured(settings.hashType, out),
    errHash: hashCaptured(settings.hashType, err),
  };
  await uploadJob(job, target, out, err);
  return ending;
}

/** As a shell reports it: the program's status, or 128 and the number of the signal. */
function exitCodeOf({ signal, status }: Ending): number {
  return signal ? 128 + signal : (status ?? 0);
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
