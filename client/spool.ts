// SpoolDirectory: results that could not be uploaded, each in a private folder of its own, until --flush or a later run delivers them.
//
//   run-RANDOM            output of a run that goes on, or of a client that was killed
//   job-<millis>-<pid>    a complete job: out, err, env and parcel.json
//   sending-<pid>-<start>-job-…   one that the process is delivering
//
// A folder gets its name by one rename, when everything in it is on disk.
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isClientId, isFileName, isJobId } from 'webjob-protocol';
import { type Captured, takeLength } from './captured.ts';
import { Failure, WireError, warn } from './failure.ts';
import { checkSpoolDirectory } from './place.ts';
import { isAlive, startOf } from './processes.ts';
import type { ClientSettings } from './settings.ts';
import { type Parcel, uploadParcel } from './upload.ts';

export const WAITS_IN_SPOOL = 'the result waits in SpoolDirectory: webjob --flush delivers it';

/** What a job consists of besides its parcel.json. */
const FILES = ['out', 'err', 'env'] as const;

/** A folder for the output of a run. Throws Failure `settings`. */
export function makeRunFolder(spool: string): string {
  try {
    mkdirSync(spool, { recursive: true, mode: 0o700 });
    checkSpoolDirectory(spool);
    return mkdtempSync(join(spool, 'run-'));
  } catch (error) {
    throw unusable(error);
  }
}

function unusable(error: unknown): Failure {
  if (error instanceof Failure) return error;
  return new Failure('settings', `SpoolDirectory cannot be used: ${(error as NodeJS.ErrnoException).code}`);
}

/**
 * Keeps a run, whose files out and err lie in its folder already, and then sends it: a client that is killed while it sends loses nothing.
 * Returns the folder of the delivered job. Throws Failure; the job then waits in the spool, or the hint says where it is.
 */
export async function sendThroughSpool(
  settings: ClientSettings,
  folder: string,
  parcel: Parcel,
  streams: { out: Captured; err: Captured; env: Buffer },
): Promise<string> {
  const { spoolDirectory } = settings;
  const job = `job-${Date.now()}-${process.pid}`;
  const sending = keep(settings, folder, join(spoolDirectory, claimedName(job)), parcel, streams.env);
  const isOver = sending === folder;
  try {
    await uploadParcel(settings, parcel, streams);
    return sending;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (!isOver) renameSync(sending, join(spoolDirectory, job));
    const hint = isOver
      ? `the spool is over SpoolLimit: the result stays in ${folder} and is not sent again`
      : WAITS_IN_SPOOL;
    throw new Failure(error.stage, error.message, hint, { cause: error });
  }
}

/** Completes the folder of a run on disk and gives it the name of a job, or leaves its name when the spool is full; returns its path. */
function keep(settings: ClientSettings, folder: string, wanted: string, parcel: Parcel, env: Buffer): string {
  const { spoolDirectory: spool, spoolLimit } = settings;
  try {
    writeFileSync(join(folder, 'env'), env, { mode: 0o600 });
    writeFileSync(join(folder, 'parcel.json'), `${JSON.stringify(parcel)}\n`, { mode: 0o600 });
    for (const name of [...FILES, 'parcel.json', '']) sync(join(folder, name));
    const isOver =
      [...findAllJobs(spool).map((name) => join(spool, name)), folder].reduce(
        (sum, path) => sum + folderBytes(path),
        0,
      ) > spoolLimit;
    if (!isOver) renameSync(folder, wanted);
    sync(spool);
    return isOver ? folder : wanted;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure('put', `the result cannot be kept in SpoolDirectory: ${code}`, `the output stays in ${folder}`);
  }
}

/**
 * Delivers what waits in the spool, the oldest first. A job that is damaged, or that the server refuses, keeps no other waiting; where the
 * network fails it ends. Returns how many were delivered, how many are left, and the first reason why. Throws Failure `settings`.
 */
export async function flushSpool(
  settings: ClientSettings,
): Promise<{ delivered: number; left: number; failure: Failure | undefined }> {
  const spool = settings.spoolDirectory;
  let delivered = 0;
  let failure: Failure | undefined;
  try {
    if (!existsSync(spool)) return { delivered, left: 0, failure };
    checkSpoolDirectory(spool);
    for (const name of findFreeJobs(spool)) {
      const claimed = claim(spool, name);
      if (claimed === undefined) continue;
      const problem = await deliver(settings, spool, claimed);
      if (problem === undefined) delivered += 1;
      failure ??= problem;
      if (problem?.cause instanceof WireError && problem.cause.retryAfter !== undefined) break;
    }
    return { delivered, left: findFreeJobs(spool).length, failure };
  } catch (error) {
    throw unusable(error);
  }
}

/** Sends a job and removes it; one that cannot be sent gets its name back, and is why. */
async function deliver(settings: ClientSettings, spool: string, claimed: string): Promise<Failure | undefined> {
  const folder = join(spool, claimed);
  const waiting = join(spool, jobName(claimed));
  const open: number[] = [];
  try {
    const parcel = readParcel(folder, waiting);
    const [out = -1, err = -1, env = -1] = FILES.map((name) => open[open.push(openJobFile(folder, name, waiting)) - 1]);
    await uploadParcel(settings, parcel, { out: takeLength(out), err: takeLength(err), env: readFileSync(env) });
  } catch (error) {
    renameSync(folder, waiting);
    if (error instanceof Failure) return error;
    throw error;
  } finally {
    for (const fd of open) closeSync(fd);
  }
  rmSync(folder, { recursive: true });
  return undefined;
}

function openJobFile(folder: string, name: string, shown: string): number {
  try {
    return openSync(join(folder, name), 'r');
  } catch (error) {
    throw new Failure('put', `${join(shown, name)} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function readParcel(folder: string, shown: string): Parcel {
  try {
    const parcel = JSON.parse(readFileSync(join(folder, 'parcel.json'), 'utf8')) as Parcel;
    const { clientId, fileName, jobId, runType, version, system } = parcel;
    if (typeof version !== 'string' || typeof system !== 'string') throw new SyntaxError();
    if (!isClientId(clientId) || !isFileName(fileName) || !/^(?:snapshot|linktest)$/.test(runType))
      throw new SyntaxError();
    if (jobId !== undefined && !isJobId(jobId)) throw new SyntaxError();
    return parcel;
  } catch {
    throw new Failure('put', `${shown} holds no parcel.json of a job`, 'it was not written by webjob, or damaged');
  }
}

/** Jobs in the order in which they were kept. */
function findAllJobs(spool: string): string[] {
  const names = readdirSync(spool).filter((name) => /^(?:sending-[0-9]+-[0-9]+-)?job-[0-9]+-[0-9]+$/.test(name));
  return names.sort((a, b) => jobName(a).localeCompare(jobName(b)));
}

/** Those that nobody delivers: what bears the name of a process that is gone is free again, also when another has its process id by now. */
function findFreeJobs(spool: string): string[] {
  return findAllJobs(spool).filter((name) => {
    const [, pid, start] = /^sending-([0-9]+)-([0-9]+)-/.exec(name) ?? [];
    const sender = Number(pid ?? process.pid);
    return sender === process.pid || !isAlive(sender) || startOf(sender) !== start;
  });
}

/** What a job is called while this process delivers it. */
function claimedName(job: string): string {
  return `sending-${process.pid}-${startOf(process.pid)}-${job}`;
}

function jobName(name: string): string {
  return name.replace(/^sending-[0-9]+-[0-9]+-/, '');
}

/** Takes a job for this process; undefined when another one was faster. */
function claim(spool: string, name: string): string | undefined {
  const claimed = claimedName(jobName(name));
  try {
    renameSync(join(spool, name), join(spool, claimed));
    return claimed;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** 0 for a folder that was delivered meanwhile. */
function folderBytes(folder: string): number {
  try {
    return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  } catch {
    return 0;
  }
}

function sync(path: string): void {
  // Windows opens no folder.
  if (process.platform === 'win32' && statSync(path).isDirectory()) return;
  const fd = openSync(path, process.platform === 'win32' ? 'r+' : 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** What a run does with the spool when its own upload went well: the network works. */
export async function flushAfterRun(settings: ClientSettings): Promise<void> {
  if (settings.spoolDirectory === '') return;
  try {
    const { left, failure } = await flushSpool(settings);
    if (failure) warn(`${left} jobs wait in the spool: ${failure.message}`);
  } catch (error) {
    warn((error as Error).message);
  }
}
