// One job from beginning to end: GET, RUN, PUT. All files are in private directories, which are
// removed afterwards unless they contain the only copy of a result.
import { copyFileSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { isFileName, NOT_APPLICABLE } from 'webjob-protocol';
import { quote, quoteFile } from '../cli/shell.ts';
import type { Captured } from './captured.ts';
import { openCleanup } from './cleanup.ts';
import { checkArguments } from './exact.ts';
import { codeOf, EXIT_CODES, Failure, warn } from './failure.ts';
import { fetchProgram } from './fetch.ts';
import { KeptRun } from './kept-run.ts';
import { takeLock } from './lock.ts';
import { checkProgramName, PlacedProgram } from './program.ts';
import { describeClient, type Ending, formatJob, type Job, nowMicros, OUTER_JOB_VARIABLE } from './record.ts';
import type { ResultSigner } from './result.ts';
import { waitSplay } from './retry.ts';
import { runProgram } from './run.ts';
import { checkTempDirectory } from './safe-directory.ts';
import type { Sealer } from './seal.ts';
import type { ClientSettings } from './settings.ts';
import { type UploadFacts, uploadStreams } from './upload.ts';

type Cleanup = ReturnType<typeof openCleanup>;

/** The ending that the run record states until the run has ended. */
const CUT_SHORT: Ending = {
  pid: undefined,
  status: undefined,
  signal: undefined,
  reason: NOT_APPLICABLE,
  error: 'was still running when webjob was ended',
};

/** Tells a batch script the configuration file of the client that runs the script. */
const FILE_VARIABLE = 'WEBJOB_FILE';
const PROGRAM_VARIABLE = 'WEBJOB_PROGRAM';

/**
 * The private directory of a job, whether its content must not be lost, and how to deliver that
 * content when a signal ends the upload.
 */
interface Workplace {
  folder: string;
  keep: boolean;
  waiting: string | undefined;
  /** The value of --file. */
  conf: string;
  /** Signs the run record; undefined without ResultKeyFile. */
  signer: ResultSigner | undefined;
  /** Seals the program's output; undefined without SealTo. */
  sealer: Sealer | undefined;
}

/**
 * Fetches a program, runs it with `args` and uploads its output. Returns the exit code of webjob,
 * which without URLPutURL is that of the program. `conf` is the value of --file. If `runner` is
 * given, that command runs the program. Throws Failure.
 */
export async function executeJob(
  settings: ClientSettings,
  conf: string,
  program: string,
  args: string[],
  runner?: readonly string[],
): Promise<number> {
  if (!isFileName(program)) {
    throw new Failure(
      'usage',
      'the program is not 1 to 1024 letters, digits and _ + . : -',
      'use its name in the profile, without a path',
    );
  }
  checkProgramName(settings, program);
  checkArguments(join(settings.tempDirectory, 'webjob-RANDOM', program), args);
  const signer = await findSigner(settings);
  const sealer = settings.sealTo === '' ? undefined : await (await import('./seal.ts')).openSealer(settings.sealTo);
  tellWhoRuns(conf);
  const cleanup = openCleanup();
  try {
    cleanup.add(takeLock(settings.lockFile));
    // A job inside a job does not wait, because it is not a client of its own.
    if (process.env[OUTER_JOB_VARIABLE] === undefined) await waitSplay(settings, program);
    return await runJob(newJob(settings, program, args, runner), { conf, signer, sealer }, cleanup);
  } finally {
    cleanup.run();
  }
}

/** The signer for ResultKeyFile; undefined without one. Throws Failure `settings`. */
async function findSigner(settings: ClientSettings): Promise<ResultSigner | undefined> {
  return settings.resultKeyFile === '' ? undefined : (await import('./result.ts')).openResultSigner(settings);
}

/**
 * Passes the command line and configuration file of this webjob, by environment variables, to a
 * program that itself runs webjob, as a batch does (docs/protocol.md, section 12).
 */
function tellWhoRuns(conf: string): void {
  // In a standalone executable, execPath and argv[1] are the same file.
  const words = [...new Set([process.execPath, process.argv[1] ?? process.execPath])];
  process.env[FILE_VARIABLE] = conf === '-' ? '' : resolve(conf);
  process.env[PROGRAM_VARIABLE] = words.map(quote).join(' ');
}

function newJob(settings: ClientSettings, program: string, args: string[], runner?: readonly string[]): Job {
  return {
    settings,
    identity: describeClient(),
    program,
    args,
    runner,
    jobId: undefined,
    startedAt: nowMicros(),
    // No GetHook makes the batch that `webjob --batch` fetches.
    request: settings.getHookEnable && !runner ? program + settings.getHookSuffix : program,
    getAt: undefined,
    getError: undefined,
    runAt: undefined,
    ending: undefined,
    outHash: 'NA',
    errHash: 'NA',
  };
}

async function runJob(
  job: Job,
  given: Pick<Workplace, 'conf' | 'signer' | 'sealer'>,
  cleanup: Cleanup,
): Promise<number> {
  const { settings, program } = job;
  const { conf } = given;
  const path = join(settings.tempDirectory, program);
  const work: Workplace = { folder: makePrivateFolder(settings), keep: false, waiting: undefined, ...given };
  cleanup.add(() => work.keep || removePrivateFolder(work.folder));
  cleanup.add(
    (signal) =>
      signal &&
      work.waiting &&
      warn(`ended by ${signal} before the upload was complete; to deliver it: ${work.waiting}`),
  );
  const placed = await getProgram(job, work, path, cleanup);
  const refused = job.runner ? await (await import('./batch.ts')).countRefused(settings, placed.path) : 0;
  if (settings.put === undefined) {
    job.ending = await runProgram(job, placed, 'inherit');
    return exitCodeOf(program, job.ending);
  }
  await runAndUpload(job, work, placed);
  if (settings.spoolDirectory !== '') await (await import('./flush.ts')).flushAfterRun(settings, conf);
  if (job.ending?.error !== undefined)
    throw new Failure('run', `${program} ${job.ending.error}`, remedyOf(job.ending.error, settings));
  if (refused > 0 || (job.runner && job.ending?.status === EXIT_CODES.get))
    throw new Failure('get', 'assignments of the batch were refused, and did not run', 'webjobctl sign assignment');
  return EXIT_CODES.ok;
}

/**
 * GET and the hook, after which the executable program is in its place. If the settings say so, a
 * failure is reported to the server.
 */
async function getProgram(
  job: Job,
  { folder, signer }: Workplace,
  path: string,
  cleanup: Cleanup,
): Promise<PlacedProgram> {
  const { settings, identity, program, request } = job;
  job.getAt = nowMicros();
  try {
    const isBatch = job.runner !== undefined;
    job.jobId = await fetchProgram(settings, identity, request, join(folder, request), isBatch);
    if (settings.getHookEnable && !isBatch) {
      const { runGetHook } = await import('./hook.ts');
      await runGetHook(settings, folder, request, program, (end) => cleanup.add(end));
    }
  } catch (error) {
    if (settings.uploadOnGetFailure && settings.put && error instanceof Failure && error.kind === 'get')
      await reportGetFailure(job, signer, error);
    throw error;
  }
  // A program in TempDirectory could be replaced, before it is read, by the batch of another run
  // with different assignments.
  const isAlone = job.runner ? true : undefined;
  const placed = new PlacedProgram(join(folder, program), path, settings.overwriteExecutable, isAlone);
  cleanup.add(() => (settings.unlinkExecutable ? placed.remove() : placed.leave()));
  return placed;
}

/**
 * Uploads a run record with GetError and no output. Failures are only warned about, because the job
 * has failed anyway.
 */
async function reportGetFailure(job: Job, signer: ResultSigner | undefined, failure: Failure): Promise<void> {
  job.getError = failure.message;
  const nothing: Captured = { fd: -1, length: 0 };
  const record = formatJob(job, nowMicros());
  const env = Buffer.from(signer ? signer.sign(record, (await import('./result.ts')).NOTHING) : record);
  try {
    await uploadStreams(job.settings, uploadFactsOf(job), { out: nothing, err: nothing, env });
  } catch (error) {
    warn((error as Error).message);
  }
}

/**
 * RUN and PUT. The output is on disk from its first byte, because there is no other copy until the
 * server has stored it.
 */
async function runAndUpload(job: Job, work: Workplace, placed: PlacedProgram): Promise<void> {
  const { settings, program } = job;
  const { signer, sealer } = work;
  job.runAt = nowMicros();
  const facts = { ...uploadFactsOf(job), resultKey: signer?.key, sealTo: sealer?.recipients };
  const run = KeptRun.open(settings, work.folder, facts, formatJob({ ...job, ending: CUT_SHORT }, undefined));
  try {
    work.keep = !run.isInSpool;
    const ending = await runProgram(job, placed, { sinks: run.sinks, folder: work.folder });
    const { outHash, errHash, streams, troubles } = run.finish();
    const error = [ending.error, ...troubles].filter((text) => text !== undefined).join('; ');
    Object.assign(job, { outHash, errHash, ending: { ...ending, error: error === '' ? undefined : error } });
    const record = formatJob(job, nowMicros());
    if (signer && sealer) await seal(job, work, run, { record, signer, sealer });
    else run.complete(signer ? signer.sign(record, streams) : record);
    work.keep = !run.isInSpool;
    await send(job, work, run);
  } finally {
    run.close();
  }
  if (!settings.unlinkOutput) nameOutput(run.path, work.folder, program);
  run.remove();
  work.keep = !settings.unlinkOutput;
}

/**
 * Seals the output. If that fails, the job waits on disk, and the hint of the Failure is the
 * command that seals and delivers it.
 */
async function seal(
  job: Job,
  work: Workplace,
  run: KeptRun,
  { record, signer, sealer }: { record: string; signer: ResultSigner; sealer: Sealer },
): Promise<void> {
  try {
    run.complete(await run.seal(record, sealer, signer));
  } catch (error) {
    throw leave(job, work, run, error);
  }
}

/**
 * PUT. If it fails, the job waits on disk, and the hint of the Failure is the command that delivers
 * it.
 */
async function send(job: Job, work: Workplace, run: KeptRun): Promise<void> {
  work.waiting = run.describe(work.conf);
  try {
    await uploadStreams(job.settings, uploadFactsOf(job), run.streams);
  } catch (error) {
    throw leave(job, work, run, error);
  } finally {
    work.waiting = undefined;
  }
}

/** The error to throw for a job that could not be sent and was kept. */
function leave(job: Job, work: Workplace, run: KeptRun, error: unknown): unknown {
  if (!(error instanceof Failure)) return error;
  if (job.ending?.error !== undefined) warn(`${job.program} ${job.ending.error}`);
  const hint = run.stay(work.conf);
  work.keep = !run.isInSpool;
  return new Failure(error.kind, error.message, [...error.hints, hint], { cause: error });
}

/**
 * Names the output after its program in TempDirectory, for UnlinkOutput=N. The server already has a
 * copy.
 */
function nameOutput(from: string, to: string, program: string): void {
  for (const stream of ['out', 'err']) {
    const path = join(to, `${program}.${stream}`);
    try {
      move(join(from, stream), path);
    } catch (error) {
      warn(`UnlinkOutput=N: ${path} cannot be written: ${codeOf(error)}`);
    }
  }
}

function move(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    // The spool may be on another file system.
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    copyFileSync(from, to);
  }
}

function uploadFactsOf({ settings, identity, program, jobId }: Job): UploadFacts {
  return { ...identity.onWire, clientId: settings.clientId, fileName: program, runType: settings.runType, jobId };
}

/** The remedy when output did not fit on the disk. */
function remedyOf(error: string, { tempDirectory }: ClientSettings): string | undefined {
  if (/: EFBIG\b/.test(error)) return 'ulimit -f unlimited';
  return /: (?:ENOSPC|EDQUOT)\b/.test(error) ? `df ${quoteFile(tempDirectory)}` : undefined;
}

/**
 * The exit code as a shell reports it: the program's status, or 128 plus the number of the signal.
 * Throws Failure if the program did not end by itself.
 */
function exitCodeOf(program: string, { error, signal, status }: Ending): number {
  if (error !== undefined) throw new Failure('run', `${program} ${error}`);
  return signal ? 128 + signal : (status ?? 0);
}

const FULL = new Set(['ENOSPC', 'EDQUOT']);

/** Creates a directory with mode 0700 and an unpredictable name. */
function makePrivateFolder(settings: ClientSettings): string {
  try {
    checkTempDirectory(settings);
    return mkdtempSync(join(settings.tempDirectory, 'webjob-'));
  } catch (error) {
    if (error instanceof Failure) throw error;
    const code = codeOf(error);
    const hint = FULL.has(code) ? `df -i ${quoteFile(settings.tempDirectory)}` : 'it must exist and be writable';
    throw new Failure('run', `TempDirectory cannot be used: ${code}`, hint);
  }
}

/**
 * Removes the private directory. On Windows, virus scanners and processes that the program or the
 * hook started may hold it open.
 */
function removePrivateFolder(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  } catch (error) {
    if (process.platform === 'win32') warn(`${folder} cannot be removed (${codeOf(error)}): another process uses it`);
  }
}
