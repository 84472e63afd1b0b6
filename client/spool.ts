// SpoolDirectory: results that could not be uploaded, each in a private folder of its own, until --flush or a later run delivers them.
//
//   run-XXXXXX            output of a run that goes on, or of a client that was killed
//   job-<millis>-<pid>    a complete job: out, err, env and parcel.json
//   sending-<pid>-job-…   one that the process is delivering
//
// A folder gets its name by one rename, when everything in it is on disk.
import {
  closeSync,
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
import { Failure, warn } from './failure.ts';
import { isAlive } from './processes.ts';
import type { ClientSettings } from './settings.ts';
import { type Parcel, uploadParcel } from './upload.ts';

/** A folder for the output of a run. Throws Failure `settings`. */
export function makeRunFolder(spool: string): string {
  try {
    mkdirSync(spool, { recursive: true, mode: 0o700 });
    if (process.platform !== 'win32' && (statSync(spool).mode & 0o022) !== 0)
      throw new Failure('settings', `SpoolDirectory: others may write in ${spool}`, `chmod 700 ${spool}`);
    return mkdtempSync(join(spool, 'run-'));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('settings', `SpoolDirectory cannot be used: ${(error as NodeJS.ErrnoException).code}`);
  }
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
  const { spoolDirectory, spoolLimit } = settings;
  writeFileSync(join(folder, 'env'), streams.env, { mode: 0o600 });
  writeFileSync(join(folder, 'parcel.json'), `${JSON.stringify(parcel)}\n`, { mode: 0o600 });
  const others = findJobs(spoolDirectory).reduce((sum, name) => sum + folderBytes(join(spoolDirectory, name)), 0);
  const isOver = others + folderBytes(folder) > spoolLimit;
  for (const name of ['out', 'err', 'env', 'parcel.json', '']) sync(join(folder, name));
  const job = `job-${Date.now()}-${process.pid}`;
  const sending = isOver ? folder : join(spoolDirectory, `sending-${process.pid}-${job}`);
  if (!isOver) renameSync(folder, sending);
  sync(spoolDirectory);
  try {
    await uploadParcel(settings, parcel, streams);
    return sending;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (!isOver) renameSync(sending, join(spoolDirectory, job));
    const hint = isOver
      ? `the spool is over SpoolLimit: the result stays in ${folder} and is not sent again`
      : 'the result waits in SpoolDirectory: webjob --flush delivers it';
    throw new Failure(error.stage, error.message, hint, { cause: error });
  }
}

/**
 * Delivers what waits in the spool, the oldest first; ends at the first upload that fails. Returns how many were delivered and how many are
 * left, and why.
 */
export async function flushSpool(
  settings: ClientSettings,
): Promise<{ delivered: number; left: number; failure: Failure | undefined }> {
  const spool = settings.spoolDirectory;
  let delivered = 0;
  for (const name of findJobs(spool)) {
    const claimed = claim(spool, name);
    if (claimed === undefined) continue;
    try {
      await deliver(settings, join(spool, claimed));
      rmSync(join(spool, claimed), { recursive: true });
      delivered += 1;
    } catch (error) {
      renameSync(join(spool, claimed), join(spool, jobName(name)));
      if (!(error instanceof Failure)) throw error;
      return { delivered, left: findJobs(spool).length, failure: error };
    }
  }
  return { delivered, left: findJobs(spool).length, failure: undefined };
}

async function deliver(settings: ClientSettings, folder: string): Promise<void> {
  const parcel = readParcel(folder);
  const [out, err] = [openSync(join(folder, 'out'), 'r'), openSync(join(folder, 'err'), 'r')];
  try {
    const env = readFileSync(join(folder, 'env'));
    await uploadParcel(settings, parcel, { out: takeLength(out), err: takeLength(err), env });
  } finally {
    closeSync(out);
    closeSync(err);
  }
}

function readParcel(folder: string): Parcel {
  try {
    const parcel = JSON.parse(readFileSync(join(folder, 'parcel.json'), 'utf8')) as Parcel;
    const { clientId, fileName, jobId, runType } = parcel;
    if (!isClientId(clientId) || !isFileName(fileName) || !/^(?:snapshot|linktest)$/.test(runType))
      throw new SyntaxError();
    if (jobId !== undefined && !isJobId(jobId)) throw new SyntaxError();
    return parcel;
  } catch {
    throw new Failure('put', `${folder} holds no parcel.json of a job`, 'it was not written by webjob, or damaged');
  }
}

/** Jobs in the order in which they were kept; those in delivery by a process that is gone count again. */
function findJobs(spool: string): string[] {
  const names = readdirSync(spool).filter((name) => /^(?:sending-[0-9]+-)?job-[0-9]+-[0-9]+$/.test(name));
  const isFree = (name: string): boolean => !/^sending-/.test(name) || !isAlive(Number(name.split('-')[1]));
  return names.filter(isFree).sort((a, b) => jobName(a).localeCompare(jobName(b)));
}

function jobName(name: string): string {
  return name.replace(/^sending-[0-9]+-/, '');
}

/** Takes a job for this process; undefined when another one was faster. */
function claim(spool: string, name: string): string | undefined {
  const claimed = `sending-${process.pid}-${jobName(name)}`;
  try {
    renameSync(join(spool, name), join(spool, claimed));
    return claimed;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function folderBytes(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + (statSync(join(folder, name)).size ?? 0), 0);
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
  const { left, failure } = await flushSpool(settings);
  if (failure) warn(`${left} jobs wait in the spool: ${failure.message}`);
}
