// One job from end to end: GET, RUN, PUT. Everything of ours lies in private folders that are gone afterwards, unless they hold a result
// that is nowhere else.
import { chmodSync, lstatSync, mkdtempSync, openSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isFileName } from 'webjob-protocol';
import { type Captured, hashCaptured, takeLength } from './captured.ts';
import { openCleanup } from './cleanup.ts';
import { EXIT_CODES, Failure, warn } from './failure.ts';
import { fetchProgram } from './fetch.ts';
import { runGetHook } from './hook.ts';
import { takeLock } from './lock.ts';
import { describeClient, type Ending, formatJob, type Job, nowMicros, OUTER_JOB_VARIABLE } from './record.ts';
import { waitSplay } from './retry.ts';
import { placeProgram, runProgram } from './run.ts';
import type { ClientSettings } from './settings.ts';
import { flushAfterRun, keepParcel, makeRunFolder } from './spool.ts';
import { type Parcel, uploadParcel } from './upload.ts';

type Cleanup = ReturnType<typeof openCleanup>;

/**
 * Gets a program, runs it with `args` and uploads what came out; returns the exit code of webjob. Without URLPutURL that is the
 * program's own. Throws Failure.
 */
export async function executeJob(settings: ClientSettings, program: string, args: string[]): Promise<number> {
  if (!isFileName(program)) {
    throw new Failure(
      'usage',
      'the program is not 1 to 1024 letters, digits and _ + . : -',
      'name it as it is named in the profile, without a path',
    );
  }
  const cleanup = openCleanup();
  try {
    cleanup.add(takeLock(settings.lockFile));
    // A job inside a job is no client of its own.
    if (process.env[OUTER_JOB_VARIABLE] === undefined) await waitSplay(settings, program);
    return await runJob(newJob(settings, program, args), cleanup);
  } finally {
    cleanup.run();
  }
}

function newJob(settings: ClientSettings, program: string, args: string[]): Job {
  const now = nowMicros();
  return {
    ...{ settings, identity: describeClient(), program, args, jobId: undefined, startedAt: now, getAt: now },
    request: settings.getHookEnable ? program + settings.getHookSuffix : program,
    ...{ getError: undefined, runAt: undefined, ending: undefined, outHash: 'NA', errHash: 'NA' },
  };
}

async function runJob(job: Job, cleanup: Cleanup): Promise<number> {
  const { settings, program, args } = job;
  const path = join(settings.tempDirectory, program);
  await getProgram(job, path, cleanup);
  if (settings.put === undefined) {
    job.ending = await runProgram(settings, path, args, 'inherit', job.jobId);
    return exitCodeOf(program, job.ending);
  }
  await runAndUpload(job, path, cleanup);
  await flushAfterRun(settings);
  if (job.ending?.error !== undefined) throw new Failure('run', `${program} ${job.ending.error}`);
  return EXIT_CODES.ok;
}

/** GET, the hook, and the program at its place, executable. A failure is reported to the server when that is wanted. */
async function getProgram(job: Job, path: string, cleanup: Cleanup): Promise<void> {
  const { settings, identity, program, request } = job;
  const folder = makePrivateFolder(settings.tempDirectory);
  cleanup.add(() => rmSync(folder, { recursive: true, force: true }));
  try {
    job.jobId = await fetchProgram(settings, identity, request, join(folder, request));
    if (settings.getHookEnable) await runGetHook(settings, folder, request, program);
  } catch (error) {
    if (settings.uploadOnGetFailure && settings.put && error instanceof Failure && error.stage === 'get')
      await reportGetFailure(job, error);
    throw error;
  }
  chmodSync(join(folder, program), 0o700);
  placeProgram(join(folder, program), path, settings.overwriteExecutable);
  if (settings.unlinkExecutable) cleanup.add(unlinker(path));
}

/** What removes the program, if it is still the one that was placed there. */
function unlinker(path: string): () => void {
  const { ino, dev } = lstatSync(path);
  return () => {
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found?.ino === ino && found.dev === dev) rmSync(path, { force: true });
  };
}

/** An upload of nothing but the record, which carries GetError. The job has failed either way. */
async function reportGetFailure(job: Job, failure: Failure): Promise<void> {
  job.getError = failure.message;
  const nothing: Captured = { fd: -1, length: 0 };
  const env = Buffer.from(formatJob(job, nowMicros()));
  try {
    await uploadParcel(job.settings, parcelOf(job), { out: nothing, err: nothing, env });
  } catch (error) {
    warn((error as Error).message);
  }
}

async function runAndUpload(job: Job, path: string, cleanup: Cleanup): Promise<void> {
  const { settings, args } = job;
  const folder =
    settings.spoolDirectory === '' ? makePrivateFolder(settings.tempDirectory) : makeRunFolder(settings.spoolDirectory);
  let keep = !settings.unlinkOutput;
  cleanup.add(() => keep || rmSync(folder, { recursive: true, force: true }));
  const writers = openBoth(folder, 'wx');
  // Opened before the program runs, which may remove or replace what it finds.
  const readers = openBoth(folder, 'r');
  job.runAt = nowMicros();
  job.ending = await runProgram(settings, path, args, writers, job.jobId);
  const [out, err] = [takeLength(readers[0]), takeLength(readers[1])];
  job.outHash = hashCaptured(settings.hashType, out);
  job.errHash = hashCaptured(settings.hashType, err);
  const env = Buffer.from(formatJob(job, nowMicros()));
  keep = true;
  try {
    await uploadParcel(settings, parcelOf(job), { out, err, env });
    keep = !settings.unlinkOutput;
    if (keep) nameOutput(folder, job.program);
  } catch (error) {
    keepResult(job, folder, env, error);
  }
}

function openBoth(folder: string, flags: 'wx' | 'r'): readonly [number, number] {
  try {
    return [openSync(join(folder, 'out'), flags, 0o600), openSync(join(folder, 'err'), flags, 0o600)];
  } catch (error) {
    throw new Failure('run', `the output cannot be kept in ${folder}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** What stays because of UnlinkOutput=N is named after its program. */
function nameOutput(folder: string, program: string): void {
  for (const stream of ['out', 'err'])
    renameSync(join(folder, stream), join(folder, `${program.slice(0, 200)}.${stream}`));
}

/** The result is nowhere but here. Always throws Failure `put`. */
function keepResult(job: Job, folder: string, env: Buffer, error: unknown): never {
  if (!(error instanceof Failure)) throw error;
  if (job.settings.spoolDirectory === '')
    throw new Failure('put', error.message, `the output stays in ${folder}`, { cause: error });
  keepParcel(job.settings, folder, parcelOf(job), env);
  throw new Failure('put', error.message, 'the result waits in SpoolDirectory: webjob --flush delivers it', {
    cause: error,
  });
}

function parcelOf({ settings, identity, program, jobId }: Job): Parcel {
  return { ...identity.onWire, clientId: settings.clientId, fileName: program, runType: settings.runType, jobId };
}

/** As a shell reports it: the program's status, or 128 and the number of the signal. Throws Failure for one that did not run its course. */
function exitCodeOf(program: string, { error, signal, status }: Ending): number {
  if (error !== undefined) throw new Failure('run', `${program} ${error}`);
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
