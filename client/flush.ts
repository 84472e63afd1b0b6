// Delivers the jobs that wait on disk: in SpoolDirectory, and in TempDirectory, where runs without
// a spool leave them.
import { closeSync, existsSync, lstatSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { NOT_APPLICABLE, parseRecord, type RunRecord } from 'webjob-protocol';
import { countOf } from '../cli/counts.ts';
import { type Captured, hashCaptured, takeLength } from './captured.ts';
import { Failure, WireError, warn } from './failure.ts';
import { checkSpoolDirectory } from './safe-directory.ts';
import type { ClientSettings } from './settings.ts';
import {
  FILES,
  findFreeJobs,
  findLeftovers,
  flushCommand,
  isFree,
  JobFolder,
  jobName,
  type KeptFacts,
  newJobName,
  openJobFile,
  ownName,
  readKeptFacts,
  removeCommand,
  removeSent,
  unusable,
} from './spool.ts';
import { type Streams, uploadStreams } from './upload.ts';

/** The result of a delivery. */
export interface Flushed {
  delivered: number;
  /** Why each job still waits, by the directory of the job. */
  left: Map<string, string>;
  /** Why the first job was not delivered. */
  failure: Failure | undefined;
}

type IsMeant = (facts: KeptFacts) => boolean;

/**
 * Delivers the jobs in SpoolDirectory and those for the same server that this client left in
 * TempDirectory. `conf` is the value of --file. Throws Failure `settings` when neither directory
 * exists.
 */
export async function flushAll(settings: ClientSettings, conf: string): Promise<Flushed> {
  const flushed = nothingYet();
  const folders = findPrivateFolders(settings.tempDirectory);
  if (settings.spoolDirectory !== '') await flushSpool(settings, conf, flushed);
  else if (folders.length === 0) throw new Failure('settings', 'SpoolDirectory is required for --flush');
  const isOurs: IsMeant = ({ clientId, putUrl }) => clientId === settings.clientId && putUrl === settings.put?.url.href;
  for (const folder of folders) await flushPlace(settings, folder, conf, flushed, isOurs);
  return flushed;
}

/**
 * Delivers the jobs in a directory, or one job if `folder` is its directory. The user named the
 * directory, so jobs for any server are delivered. Throws Failure.
 */
export async function flushFolder(settings: ClientSettings, conf: string, folder: string): Promise<Flushed> {
  const path = resolve(folder);
  const flushed = nothingYet();
  try {
    checkSpoolDirectory(path);
    if (existsSync(join(path, 'parcel.json'))) await flushJob(settings, path, flushed);
    else await flushPlace(settings, path, conf, flushed);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('settings', `${path} cannot be used: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (flushed.delivered === 0 && flushed.left.size === 0)
    throw new Failure('usage', `${path} contains no job to deliver`);
  return flushed;
}

/**
 * Delivers the spool after the upload of a run succeeded. Each job is tried only once, because the
 * run holds its lock meanwhile.
 */
export async function flushAfterRun(settings: ClientSettings, conf: string): Promise<void> {
  const flushed = nothingYet();
  try {
    await flushSpool({ ...settings, retryLimit: 0 }, conf, flushed);
    if (flushed.failure) warn(`${countJobs(flushed.left.size)} in the spool: ${flushed.failure.message}`);
  } catch (error) {
    warn((error as Error).message);
  }
}

/** `1 job waits`, `2 jobs wait`. */
export function countJobs(count: number): string {
  return countOf(count, 'job waits', 'jobs wait');
}

function nothingYet(): Flushed {
  return { delivered: 0, left: new Map(), failure: undefined };
}

/** Delivers the jobs in SpoolDirectory. Throws Failure `settings`. */
async function flushSpool(settings: ClientSettings, conf: string, flushed: Flushed): Promise<void> {
  const { spoolDirectory: spool } = settings;
  try {
    if (!existsSync(spool)) return;
    checkSpoolDirectory(spool);
    await flushPlace(settings, spool, conf, flushed);
  } catch (error) {
    throw unusable(error);
  }
}

/**
 * Delivers the oldest job first. A job that is damaged or refused by the server does not hold up
 * the others; a network failure stops the delivery. Throws the error of a system call on the
 * directory itself.
 */
async function flushPlace(
  settings: ClientSettings,
  place: string,
  conf: string,
  flushed: Flushed,
  isMeant: IsMeant = () => true,
): Promise<void> {
  removeSent(place);
  const find = (names: string[]): string[] => names.filter((name) => isMeantIn(join(place, name), isMeant));
  for (const name of find(findFreeJobs(place))) {
    const problem = await deliver(settings, new JobFolder(place, name), flushed);
    if (problem?.cause instanceof WireError && problem.cause.retryAfter !== undefined) break;
  }
  for (const name of find(findFreeJobs(place))) {
    const path = join(place, name);
    if (!flushed.left.has(path)) flushed.left.set(path, 'it was not tried');
  }
  for (const name of find(findLeftovers(place)))
    flushed.left.set(join(place, name), describeLeftover(join(place, name), conf));
  if (flushed.delivered > 0) removePrivateFolder(place);
}

async function flushJob(settings: ClientSettings, path: string, flushed: Flushed): Promise<void> {
  if (!isFree(basename(path))) throw new Failure('put', `${path} is in use by a running webjob`);
  await deliver(settings, new JobFolder(dirname(path), basename(path)), flushed);
  if (flushed.delivered > 0) removePrivateFolder(dirname(path));
}

/** Whether to deliver a job. True for an unreadable job, so that it is reported. */
function isMeantIn(folder: string, isMeant: IsMeant): boolean {
  try {
    return isMeant(readKeptFacts(folder, folder));
  } catch {
    return true;
  }
}

function describeLeftover(path: string, conf: string): string {
  const isSendable = existsSync(join(path, 'parcel.json')) && existsSync(join(path, 'env'));
  const what = basename(path).startsWith('over-') ? 'over SpoolLimit' : 'left by a webjob that was killed';
  const remove = `to remove it: ${removeCommand(path)}`;
  return isSendable
    ? `${what}; to deliver it: ${flushCommand(conf, path)}; ${remove}`
    : `${what}, without a record; ${remove}`;
}

/**
 * Sends a job and removes it. A job that cannot be sent keeps its name and is listed with the
 * reason.
 */
async function deliver(settings: ClientSettings, folder: JobFolder, flushed: Flushed): Promise<Failure | undefined> {
  const waiting = folder.name.startsWith('sending-') ? jobName(folder.name) : folder.name;
  const shown = join(folder.place, waiting);
  try {
    if (!claim(folder)) return undefined;
    await sendJob(settings, folder.path, shown);
    folder.remove();
    flushed.delivered += 1;
    return undefined;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    giveBack(folder, waiting);
    flushed.failure ??= error;
    flushed.left.set(folder.path, error.message);
    return error;
  }
}

/** Claims a job for this process; false when another process was faster. Throws Failure. */
function claim(folder: JobFolder): boolean {
  const { path } = folder;
  const job = jobName(folder.name);
  try {
    folder.rename(ownName('sending', /^job-/.test(job) ? job : newJobName()));
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return false;
    throw new Failure('put', `${path} cannot be taken: ${code}`);
  }
}

/**
 * Returns a claimed job. If this fails, the job keeps the name of a process that has ended, and so
 * still waits.
 */
function giveBack(folder: JobFolder, name: string): void {
  try {
    folder.rename(name);
  } catch {
    // The reason why the job was not sent is more useful.
  }
}

async function sendJob(settings: ClientSettings, folder: string, shown: string): Promise<void> {
  const open: number[] = [];
  try {
    const { resultKey, sealTo, ...facts } = readKeptFacts(folder, shown);
    if (sealTo) await (await import('./late-seal.ts')).finishKept(folder, shown);
    const [out = -1, err = -1, env = -1] = FILES.map((name) => open[open.push(openStream(folder, name, shown)) - 1]);
    const streams: Streams = { out: takeLength(out), err: takeLength(err), env: readFileSync(env) };
    checkStreams(streams, shown);
    const late = { folder, shown, resultKey: resultKey ?? '', streams };
    if (sealTo) {
      const isSealed = await (await import('./late-seal.ts')).sealKept(settings, { ...late, sealTo });
      if (!isSealed) return await sendJob(settings, folder, shown);
    } else if (resultKey !== undefined) streams.env = (await import('./late-signature.ts')).signKept(settings, late);
    await uploadStreams(settings, facts, streams);
  } finally {
    for (const fd of open) closeSync(fd);
  }
}

/**
 * Compares the streams with the digests in the run record. After a crash of the machine, files may
 * be short or full of zeros: without SpoolDirectory nothing is synced before a PUT fails. The
 * record of a run that was cut short contains no digests. Throws Failure `put`.
 */
function checkStreams({ out, err, env }: Streams, shown: string): void {
  const { HashType, StdOutHash, StdErrHash } = readRecord(env, shown);
  for (const [name, stream, expected] of [['out', out, StdOutHash] as const, ['err', err, StdErrHash] as const]) {
    if (expected !== NOT_APPLICABLE && digestOf(HashType, stream, shown) !== expected)
      throw damaged(shown, `${join(shown, name)} is not what the program printed: its ${HashType} differs`);
  }
}

function readRecord(env: Buffer, shown: string): RunRecord['fields'] {
  try {
    return parseRecord(env.toString('latin1')).fields;
  } catch (error) {
    throw damaged(shown, `${join(shown, 'env')} is not a complete run record: ${(error as Error).message}`);
  }
}

function digestOf(type: string, stream: Captured, shown: string): string {
  try {
    return hashCaptured(type, stream);
  } catch (error) {
    throw damaged(shown, `${shown} cannot be compared with its record: ${(error as Error).message}`);
  }
}

function damaged(shown: string, message: string): Failure {
  return new Failure('put', message, `the machine may have crashed; to remove what is left: ${removeCommand(shown)}`);
}

function openStream(folder: string, name: string, shown: string): number {
  try {
    return openJobFile(folder, name);
  } catch (error) {
    throw new Failure('put', `${join(shown, name)} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** Our private directories in TempDirectory that contain a job. */
function findPrivateFolders(tempDirectory: string): string[] {
  try {
    return readdirSync(tempDirectory)
      .map((name) => join(tempDirectory, name))
      .filter((path) => isPrivateFolder(path) && holdsJobs(path));
  } catch {
    return [];
  }
}

/** Whether only this user can have made a directory or written to it. */
function isPrivateFolder(path: string): boolean {
  if (!/^webjob-[A-Za-z0-9]{6}$/.test(basename(path))) return false;
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isDirectory()) return false;
  return process.platform === 'win32' || (found.uid === process.geteuid?.() && (found.mode & 0o077) === 0);
}

function holdsJobs(folder: string): boolean {
  return readdirSync(folder).some((name) => /^(?:run|job|sending|sent|over)-/.test(name));
}

/** Removes a private directory after its only job has been delivered. */
function removePrivateFolder(folder: string): void {
  if (!isPrivateFolder(folder) || holdsJobs(folder)) return;
  try {
    rmSync(folder, { recursive: true });
  } catch (error) {
    warn(`${folder} cannot be removed: ${(error as NodeJS.ErrnoException).code}`);
  }
}
