// Jobs on disk: the folder of a run from its first byte until the server has it. They lie in SpoolDirectory, or without
// one in the private folder of the job in TempDirectory, and their names say what they are:
//
//   run-<pid>-<start>-RANDOM      a run that goes on, or whose webjob was killed
//   sending-<pid>-<start>-job-…   a complete job that the process is delivering
//   job-<millis>-<pid>            a complete job that waits
//   over-job-<millis>-<pid>       one over SpoolLimit, which waits until it is asked for by name
//   sent-<pid>-<start>-job-…      one that the server has, being removed
//
// A folder gets its name by one rename, when everything in it is on disk.
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { isClientId, isFileName, isJobId } from 'webjob-protocol';
import { isAlive, startOf } from '../cli/processes.ts';
import { quoteFile } from '../cli/shell.ts';
import { writeAll } from './captured.ts';
import { codeOf, Failure, warn } from './failure.ts';
import { checkSpoolDirectory } from './place.ts';
import type { Parcel } from './upload.ts';

/** What a job consists of besides its parcel.json. */
export const FILES = ['out', 'err', 'env'] as const;

/** What is in parcel.json: what the upload needs besides the streams. */
export interface KeptParcel extends Parcel {
  /** URLPutURL, without user and password: the server that the job is for. */
  putUrl?: string | undefined;
  /** age recipients to whom its streams are sealed when it is complete; undefined for none. */
  sealTo?: readonly string[] | undefined;
  /** The name and id of the key that signs it when it is complete; undefined for none. */
  resultKey?: string | undefined;
}

/** Makes SpoolDirectory when it is not there. Throws Failure `settings` for one that is refused, or the error of the system call. */
export function openSpool(spool: string): void {
  const made = mkdirSync(spool, { recursive: true, mode: 0o700 });
  if (made !== undefined) {
    for (let path = spool; path.length >= made.length; path = dirname(path)) sync(dirname(path));
  }
  checkSpoolDirectory(spool);
}

/** For an error of a system call on SpoolDirectory. */
export function unusable(error: unknown): Failure {
  if (error instanceof Failure) return error;
  return new Failure('settings', `SpoolDirectory cannot be used: ${codeOf(error)}`);
}

/** The folder of one job, under whatever name it has at the moment. */
export class JobFolder {
  /** The folder it lies in. */
  readonly place: string;
  #name: string;

  constructor(place: string, name: string) {
    this.place = place;
    this.#name = name;
  }

  /** A new one for a run of this process. Throws the error of the system call. */
  static makeRun(place: string): JobFolder {
    return new JobFolder(place, basename(mkdtempSync(join(place, `run-${markOfOurs()}-`))));
  }

  get name(): string {
    return this.#name;
  }

  get path(): string {
    return join(this.place, this.#name);
  }

  /** Takes another name, if it has not got it. Throws the error of the system call. */
  rename(name: string): void {
    if (name === this.#name) return;
    renameSync(this.path, join(this.place, name));
    this.#name = name;
  }

  /** A file of the job, from its first byte and in its place: on a full disk there is room for what was there before. */
  write(name: 'env' | 'parcel.json', bytes: Buffer): void {
    const fd = openSync(join(this.path, name), constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      writeAll(fd, bytes);
      ftruncateSync(fd, bytes.length);
    } finally {
      closeSync(fd);
    }
  }

  /** Everything in it, and its own entries, on disk. Throws the error of the system call. */
  sync(): void {
    for (const name of [...FILES, 'parcel.json', '']) sync(join(this.path, name));
  }

  /** Of a job that the server has. Under its new name nobody sends it again, whatever is left of it. */
  remove(): void {
    try {
      this.rename(ownName('sent', jobName(this.#name)));
      rmSync(this.path, { recursive: true });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') warn(`the server has the job in ${this.path}, but it cannot be removed: ${code}`);
    }
  }

  /** Of a run that nobody needs: it lies somewhere else, or never began. */
  discard(): void {
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      // --flush names what is left.
    }
  }
}

/** The name of a job that was kept in this moment; before 1970 at 0: a minus sign would make it the name of nothing. */
export function newJobName(): string {
  return `job-${Math.max(0, Date.now())}-${process.pid}`;
}

let mark: string | undefined;

/** This process, as the names of folders tell it: `<pid>-<start>`. */
function markOfOurs(): string {
  mark ??= `${process.pid}-${startOf(process.pid)}`;
  return mark;
}

/** What a job is called while this process sends it, or has sent it. */
export function ownName(state: 'sending' | 'sent', job: string): string {
  return `${state}-${markOfOurs()}-${job}`;
}

/** What a job is called when nobody sends it. */
export function jobName(name: string): string {
  return name.replace(/^(?:over-|(?:sending|sent)-[0-9]+-[0-9]+-)/, '');
}

/** Jobs in the order in which they were kept, those over SpoolLimit left out. */
function findAllJobs(place: string): string[] {
  const names = readdirSync(place).filter((name) => /^(?:sending-[0-9]+-[0-9]+-)?job-[0-9]+-[0-9]+$/.test(name));
  // Before September 2001 the milliseconds have fewer digits.
  return names.sort((a, b) => jobName(a).localeCompare(jobName(b), 'en', { numeric: true }));
}

/** Those that nobody delivers. */
export function findFreeJobs(place: string): string[] {
  return findAllJobs(place).filter(isFree);
}

/** What `makeRun` and `newJobName` make, and no other name: those of others may hold what takes a terminal over. */
const LEFTOVER = /^(?:run-(?:[0-9]+-[0-9]+-)?[A-Za-z0-9]{6}|over-job-[0-9]+-[0-9]+)$/;

/** What else is there and nobody works at: runs whose webjob was killed, and jobs over SpoolLimit. */
export function findLeftovers(place: string): string[] {
  return readdirSync(place).filter((name) => LEFTOVER.test(name) && isFree(name));
}

/** Removes what was delivered by a process that was killed before it could. */
export function removeSent(place: string): void {
  const names = readdirSync(place).filter((name) => /^sent-[0-9]+-[0-9]+-/.test(name) && isFree(name));
  for (const name of names) new JobFolder(place, name).remove();
}

/** What bears the name of a process that is gone is free again, also when another has its process id by now. */
export function isFree(name: string): boolean {
  const [, pid, start] = /^(?:run|sending|sent)-([0-9]+)-([0-9]+)-/.exec(name) ?? [];
  const owner = Number(pid ?? process.pid);
  return owner === process.pid || !isAlive(owner) || startOf(owner) !== start;
}

/** Bytes of the jobs that wait or are being sent. */
export function spoolBytes(place: string): number {
  return findAllJobs(place).reduce((sum, name) => sum + folderBytes(join(place, name)), 0);
}

/** 0 for a folder that was delivered meanwhile. */
export function folderBytes(folder: string): number {
  try {
    return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  } catch {
    return 0;
  }
}

/**
 * Opens a file of a job. A link, a pipe or a device is none, and nothing is waited for. Throws the error of the system call, with the
 * code EFTYPE for what is no file.
 */
export function openJobFile(folder: string, name: string): number {
  const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants as Partial<typeof constants>;
  const fd = openSync(join(folder, name), (O_RDONLY ?? 0) | O_NOFOLLOW | O_NONBLOCK);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw Object.assign(new Error(`${name} is no file`), { code: 'EFTYPE' });
}

function readJobFile(folder: string, name: string): Buffer {
  const fd = openJobFile(folder, name);
  try {
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Throws Failure `put` when it is not what a webjob wrote. */
export function readParcel(folder: string, shown: string): KeptParcel {
  try {
    const parcel = JSON.parse(readJobFile(folder, 'parcel.json').toString()) as KeptParcel;
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

/** The command that delivers what waits, or one folder of it, with the same settings, to be pasted into a shell. */
export function flushCommand(conf: string, folder?: string): string {
  const files = conf.split(',').map((file) => resolve(file));
  return [
    'webjob --flush',
    ...(folder === undefined ? [] : [quoteFile(resolve(folder))]),
    '--file',
    quoteFile(files.join(',')),
  ].join(' ');
}

/** The command that removes a folder, to be pasted into a shell. */
export function removeCommand(folder: string): string {
  return `${process.platform === 'win32' ? 'rmdir /s' : 'rm -r'} ${quoteFile(folder)}`;
}

/** Puts a file or a folder on disk. Throws the error of the system call. */
export function sync(path: string): void {
  // Windows opens no folder.
  if (process.platform === 'win32' && statSync(path).isDirectory()) return;
  const fd = openSync(path, process.platform === 'win32' ? 'r+' : 'r');
  try {
    fsyncSync(fd);
  } catch (error) {
    // Some file systems sync no folder.
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
}
