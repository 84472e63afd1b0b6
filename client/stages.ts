// One job from end to end: GET, RUN, PUT. Everything of ours lies in private folders that are gone afterwards, unless they hold a result
// that is nowhere else.
import { copyFileSync, mkdtempSync, openSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isFileName } from 'webjob-protocol';
import { type Captured, hashCaptured, takeLength } from './captured.ts';
import { openCleanup } from './cleanup.ts';
import { EXIT_CODES, Failure, warn } from './failure.ts';
import { fetchProgram } from './fetch.ts';
import { runGetHook } from './hook.ts';
import { takeLock } from './lock.ts';
import { checkTempDirectory } from './place.ts';
import { checkProgramName, PlacedProgram } from './program.ts';
import { describeClient, type Ending, formatJob, type Job, nowMicros, OUTER_JOB_VARIABLE } from './record.ts';
import { waitSplay } from './retry.ts';
import { runProgram } from './run.ts';
import type { ClientSettings } from './settings.ts';
import { flushAfterRun, makeRunFolder, sendThroughSpool, WAITS_IN_SPOOL } from './spool.ts';
import { type Parcel, uploadParcel } from './upload.ts';

type Cleanup = ReturnType<typeof openCleanup>;

/** The private folder of a job, whether it holds what must not be lost, and what to say when a signal ends the upload. */
interface Workplace {
  folder: string;
  keep: boolean;
  waiting: string | undefined;
}

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
  checkProgramName(settings, program);
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
  return {
    ...{ settings, identity: describeClient(), program, args, jobId: undefined, startedAt: nowMicros() },
    request: settings.getHookEnable ? program + settings.getHookSuffix : program,
    ...{ getAt: undefined, getError: undefined, runAt: undefined, ending: undefined, outHash: 'NA', errHash: 'NA' },
  };
}

async function runJob(job: Job, cleanup: Cleanup): Promise<number> {
  const { settings, program, args } = job;
  const path = join(settings.tempDirectory, program);
  const work: Workplace = { folder: makePrivateFolder(settings), keep: false, waiting: undefined };
  cleanup.add(() => work.keep || rmSync(work.folder, { recursive: true, force: true }));
  cleanup.add(
    (signal) => signal && work.waiting && warn(`ended by ${signal} before the upload was done; ${work.waiting}`),
  );
  const placed = await getProgram(job, work.folder, path, cleanup);
  if (settings.put === undefined) {
    job.ending = await runProgram(settings, placed, args, 'inherit', job.jobId);
    return exitCodeOf(program, job.ending);
  }
  await runAndUpload(job, work, placed);
  await flushAfterRun(settings);
  if (job.ending?.error !== undefined) throw new Failure('run', `${program} ${job.ending.error}`);
  return EXIT_CODES.ok;
}

/** GET, the hook, and the program at its place, executable. A failure is reported to the server when that is wanted. */
async function getProgram(job: Job, folder: string, path: string, cleanup: Cleanup): Promise<PlacedProgram> {
  const { settings, identity, program, request } = job;
  job.getAt = nowMicros();
  try {
    job.jobId = await fetchProgram(settings, identity, request, join(folder, request));
    if (settings.getHookEnable) await runGetHook(settings, folder, request, program, (end) => cleanup.add(end));
  } catch (error) {
    if (settings.uploadOnGetFailure && settings.put && error instanceof Failure && error.stage === 'get')
      await reportGetFailure(job, error);
    throw error;
  }
  const placed = new PlacedProgram(join(folder, program), path, settings.overwriteExecutable);
  if (settings.unlinkExecutable) cleanup.add(() => placed.remove());
  return placed;
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

/** RUN and PUT. With a spool the output is written there at once: until the server has it, it is nowhere else. */
async function runAndUpload(job: Job, work: Workplace, placed: PlacedProgram): Promise<void> {
  const { settings, program, args } = job;
  const spooled = settings.spoolDirectory !== '';
  const folder = spooled ? makeRunFolder(settings.spoolDirectory) : work.folder;
  const writers = openOutput(folder, 'wx');
  // Opened before the program runs, which may remove or replace what it finds.
  const readers = openOutput(folder, 'r');
  job.runAt = nowMicros();
  job.ending = await runProgram(settings, placed, args, writers, job.jobId);
  const [out, err] = [takeLength(readers[0]), takeLength(readers[1])];
  job.outHash = hashCaptured(settings.hashType, out);
  job.errHash = hashCaptured(settings.hashType, err);
  const streams = { out, err, env: Buffer.from(formatJob(job, nowMicros())) };
  work.keep = !spooled || !settings.unlinkOutput;
  work.waiting = spooled ? WAITS_IN_SPOOL : staysIn(folder);
  const place = spooled
    ? await sendThroughSpool(settings, folder, parcelOf(job), streams)
    : await sendFrom(folder, () => uploadParcel(settings, parcelOf(job), streams));
  work.waiting = undefined;
  if (!settings.unlinkOutput) nameOutput(place, work.folder, program);
  if (spooled) rmSync(place, { recursive: true });
  else work.keep = !settings.unlinkOutput;
}

/** The folder in which the output lies. Throws Failure with the folder in its hint when it could not be sent. */
async function sendFrom(folder: string, send: () => Promise<void>): Promise<string> {
  try {
    await send();
    return folder;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    throw new Failure(error.stage, error.message, staysIn(folder), { cause: error });
  }
}

function staysIn(folder: string): string {
  return `the output stays in ${folder}`;
}

function openOutput(folder: string, flags: 'wx' | 'r'): readonly [number, number] {
  try {
    return [openSync(join(folder, 'out'), flags, 0o600), openSync(join(folder, 'err'), flags, 0o600)];
  } catch (error) {
    throw new Failure('run', `the output cannot be kept in ${folder}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** What stays because of UnlinkOutput=N lies in TempDirectory and is named after its program. */
function nameOutput(from: string, to: string, program: string): void {
  for (const stream of ['out', 'err']) {
    const name = `${program.slice(0, 200)}.${stream}`;
    try {
      renameSync(join(from, stream), join(to, name));
    } catch (error) {
      // The spool may lie on another file system.
      if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
      copyFileSync(join(from, stream), join(to, name));
    }
  }
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
function makePrivateFolder(settings: ClientSettings): string {
  try {
    checkTempDirectory(settings);
    return mkdtempSync(join(settings.tempDirectory, 'webjob-'));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(
      'run',
      `TempDirectory cannot be used: ${(error as NodeJS.ErrnoException).code}`,
      'it must exist and be writable',
    );
  }
}
