// Jobs on disk: the directory of a run, from its first byte until the server has it. It is in
// SpoolDirectory, or without one in the private directory of the job in TempDirectory. Its name
// shows its state:
//
//   run-<pid>-<start>-RANDOM      a run in progress, or one whose webjob was killed
//   sending-<pid>-<start>-job-…   a complete job that the process is delivering
//   job-<millis>-<pid>            a complete job that waits
//   over-job-<millis>-<pid>       one over SpoolLimit, which waits until it is asked for by name
//   sent-<pid>-<start>-job-…      one that the server has, being removed
//
// Each state begins with one rename, when everything in the directory is on disk.
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
import { checkSpoolDirectory } from './safe-directory.ts';
import type { UploadFacts } from './upload.ts';

/** The files of a job besides its parcel.json. */
export const FILES = ['out', 'err', 'env'] as const;

/** The content of parcel.json: the facts that the upload needs besides the streams. */
export interface KeptFacts extends UploadFacts {
  /** URLPutURL without user and password: the server that the job is for. */
  putUrl?: string | undefined;
  /**
   * The age recipients to whom the streams are sealed when the job is complete; undefined for none.
   */
  sealTo?: readonly string[] | undefined;
  /** The name and id of the key that signs the job when it is complete; undefined for none. */
  resultKey?: string | undefined;
}

/**
 * Creates SpoolDirectory if it does not exist. Throws Failure `settings` for a directory that is
 * refused, or the error of the system call.
 */
export function openSpool(spool: string): void {
  const made = mkdirSync(spool, { recursive: true, mode: 0o700 });
  if (made !== undefined) {
    for (let path = spool; path.length >= made.length; path = dirname(path)) sync(dirname(path));
  }
  checkSpoolDirectory(spool);
}

/** The failure for the error of a system call on SpoolDirectory. */
export function unusable(error: unknown): Failure {
  if (error instanceof Failure) return error;
  return new Failure('settings', `SpoolDirectory cannot be used: ${codeOf(error)}`);
}

/** The directory of one job, whatever its current name. */
export class JobFolder {
  /** The parent directory. */
  readonly place: string;
  #name: string;

  constructor(place: string, name: string) {
    this.place = place;
    this.#name = name;
  }

  /** Creates a directory for a run of this process. Throws the error of the system call. */
  static makeRun(place: string): JobFolder {
    return new JobFolder(place, basename(mkdtempSync(join(place, `run-${markOfOurs()}-`))));
  }

  get name(): string {
    return this.#name;
  }

  get path(): string {
    return join(this.place, this.#name);
  }

  /**
   * Renames the directory, unless it already has that name. Throws the error of the system call.
   */
  rename(name: string): void {
    if (name === this.#name) return;
    renameSync(this.path, join(this.place, name));
    this.#name = name;
  }

  /**
   * Overwrites a file of the job in place, from its first byte: even a full disk has room for as
   * many bytes as the file had before.
   */
  write(name: 'env' | 'parcel.json', bytes: Buffer): void {
    const fd = openSync(join(this.path, name), constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      writeAll(fd, bytes);
      ftruncateSync(fd, bytes.length);
    } finally {
      closeSync(fd);
    }
  }

  /** Syncs the files of the job and its directory to disk. Throws the error of the system call. */
  sync(): void {
    for (const name of [...FILES, 'parcel.json', '']) sync(join(this.path, name));
  }

  /**
   * Removes a job that the server has. The job is renamed first, so that it is never sent again
   * even if the removal is incomplete.
   */
  remove(): void {
    try {
      this.rename(ownName('sent', jobName(this.#name)));
      rmSync(this.path, { recursive: true });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') warn(`the server has the job in ${this.path}, but it cannot be removed: ${code}`);
    }
  }

  /** Removes a run that is no longer needed because it is stored elsewhere or never began. */
  discard(): void {
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      // --flush reports the files that are left.
    }
  }
}

/**
 * The name of a job that is kept at this moment. A clock before 1970 counts as 0, because a minus
 * sign would make the name invalid.
 */
export function newJobName(): string {
  return `job-${Math.max(0, Date.now())}-${process.pid}`;
}

let mark: string | undefined;

/** This process as part of a directory name: `<pid>-<start>`. */
function markOfOurs(): string {
  mark ??= `${process.pid}-${startOf(process.pid)}`;
  return mark;
}

/** The name of a job that this process is sending or has sent. */
export function ownName(state: 'sending' | 'sent', job: string): string {
  return `${state}-${markOfOurs()}-${job}`;
}

/** The name of a job without the state and process. */
export function jobName(name: string): string {
  return name.replace(/^(?:over-|(?:sending|sent)-[0-9]+-[0-9]+-)/, '');
}

/** Lists the jobs in the order in which they were kept, without those over SpoolLimit. */
function findAllJobs(place: string): string[] {
  const names = readdirSync(place).filter((name) => /^(?:sending-[0-9]+-[0-9]+-)?job-[0-9]+-[0-9]+$/.test(name));
  // Before September 2001 the milliseconds have fewer digits.
  return names.sort((a, b) => jobName(a).localeCompare(jobName(b), 'en', { numeric: true }));
}

/** Lists the jobs that no process is delivering. */
export function findFreeJobs(place: string): string[] {
  return findAllJobs(place).filter(isFree);
}

/**
 * Matches only names that `makeRun` and `newJobName` create: a name created by another user may
 * contain terminal escape sequences.
 */
const LEFTOVER = /^(?:run-(?:[0-9]+-[0-9]+-)?[A-Za-z0-9]{6}|over-job-[0-9]+-[0-9]+)$/;

/**
 * Lists the other directories that no process uses: runs whose webjob was killed, and jobs over
 * SpoolLimit.
 */
export function findLeftovers(place: string): string[] {
  return readdirSync(place).filter((name) => LEFTOVER.test(name) && isFree(name));
}

/** Removes delivered jobs whose process was killed before it could remove them. */
export function removeSent(place: string): void {
  const names = readdirSync(place).filter((name) => /^sent-[0-9]+-[0-9]+-/.test(name) && isFree(name));
  for (const name of names) new JobFolder(place, name).remove();
}

/**
 * Whether no process uses a directory: the process in its name has ended, even if the id has been
 * reused.
 */
export function isFree(name: string): boolean {
  const [, pid, start] = /^(?:run|sending|sent)-([0-9]+)-([0-9]+)-/.exec(name) ?? [];
  const owner = Number(pid ?? process.pid);
  return owner === process.pid || !isAlive(owner) || startOf(owner) !== start;
}

/** The size in bytes of the jobs that wait or are being sent. */
export function spoolBytes(place: string): number {
  return findAllJobs(place).reduce((sum, name) => sum + folderBytes(join(place, name)), 0);
}

/** The size of a directory in bytes; 0 for a job that has been delivered meanwhile. */
export function folderBytes(folder: string): number {
  try {
    return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  } catch {
    return 0;
  }
}

/**
 * Opens a regular file of a job without following a link and without blocking. Throws the error of
 * the system call, with code EFTYPE when it is not a regular file.
 */
export function openJobFile(folder: string, name: string): number {
  const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants as Partial<typeof constants>;
  const fd = openSync(join(folder, name), (O_RDONLY ?? 0) | O_NOFOLLOW | O_NONBLOCK);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw Object.assign(new Error(`${name} is not a regular file`), { code: 'EFTYPE' });
}

function readJobFile(folder: string, name: string): Buffer {
  const fd = openJobFile(folder, name);
  try {
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Reads parcel.json. Throws Failure `put` when its content is not what webjob writes. */
export function readKeptFacts(folder: string, shown: string): KeptFacts {
  try {
    const facts = JSON.parse(readJobFile(folder, 'parcel.json').toString()) as KeptFacts;
    const { clientId, fileName, jobId, runType, version, system } = facts;
    if (typeof version !== 'string' || typeof system !== 'string') throw new SyntaxError();
    if (!isClientId(clientId) || !isFileName(fileName) || !/^(?:snapshot|linktest)$/.test(runType))
      throw new SyntaxError();
    if (jobId !== undefined && !isJobId(jobId)) throw new SyntaxError();
    return facts;
  } catch {
    throw new Failure('put', `${shown} has no valid parcel.json`, 'it was not written by webjob, or is damaged');
  }
}

/**
 * The command, quoted for a shell, that delivers all waiting jobs, or those in one directory, with
 * the same settings.
 */
export function flushCommand(conf: string, folder?: string): string {
  const files = conf.split(',').map((file) => resolve(file));
  return [
    'webjob --flush',
    ...(folder === undefined ? [] : [quoteFile(resolve(folder))]),
    '--file',
    quoteFile(files.join(',')),
  ].join(' ');
}

/** The command, quoted for a shell, that removes a directory. */
export function removeCommand(folder: string): string {
  return `${process.platform === 'win32' ? 'rmdir /s' : 'rm -r'} ${quoteFile(folder)}`;
}

/** Syncs a file or directory to disk. Throws the error of the system call. */
export function sync(path: string): void {
  // Windows cannot open directories.
  if (process.platform === 'win32' && statSync(path).isDirectory()) return;
  const fd = openSync(path, process.platform === 'win32' ? 'r+' : 'r');
  try {
    fsyncSync(fd);
  } catch (error) {
    // Some file systems cannot sync a directory.
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
}
