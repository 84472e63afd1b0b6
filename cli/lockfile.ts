// Lock files of webjobctl. Each names the process that holds it, so that locks of killed processes
// are recognised and removed.
import { closeSync, linkSync, lstatSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { removeDeadLock } from 'webjob-locker';
import { openNew, writeAll } from 'webjob-locker/durable';
import { Failure } from './failure.ts';
import { errorCode, removeFile } from './files.ts';
import { isAlive, startOf } from './processes.ts';

const WAIT_MS = 20_000;
const LOOK_MS = 20;

/**
 * The content of a lock: the process id, its machine, and its start time, because process ids are
 * reused.
 */
const HOLDER = /^webjobctl (\d{1,10}) (\S{1,255}) (\d{1,20})\n$/;

/**
 * Runs `work` while it holds PATH.lock, for which it waits. Throws Failure `failed` when another
 * process holds it for 20 seconds.
 */
export function withLock<Type>(path: string, work: () => Type): Type {
  const lock = `${path}.lock`;
  const locks = openLocks(`${lock}.${process.pid}.new`);
  try {
    for (const deadline = Date.now() + WAIT_MS; !locks.take(lock); pause()) {
      if (Date.now() > deadline) throw new Failure('failed', `another process holds ${lock}`);
    }
    removeLeft(lock);
    return work();
  } finally {
    locks.release();
  }
}

/** Removes files of locks that killed processes left here. */
function removeLeft(lock: string): void {
  const start = `${basename(lock)}.`;
  for (const name of readdirSync(dirname(lock))) {
    const path = join(dirname(lock), name);
    if (name.startsWith(start) && /^\d+(?:\.new)?$/.test(name.slice(start.length)) && isDeadLock(path))
      rmSync(path, { force: true });
  }
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS);
}

export interface Locks {
  /** Takes a lock; false when another process holds it. */
  take(path: string): boolean;
  /** Releases all locks that were taken. */
  release(): void;
}

/**
 * Opens locks that never exist without the line that names their holder, unlike a new file before
 * its first write: one file is written, and each lock is a link to it. Making a link fails when the
 * name is taken.
 */
export function openLocks(source: string): Locks {
  rmSync(source, { force: true });
  writeHolder(source);
  const { ino } = lstatSync(source);
  const held: string[] = [];
  return {
    take(path) {
      let isTaken = tryLink(source, path);
      if (!isTaken && isDeadLock(path)) {
        removeDeadLock(path, isDeadLock);
        isTaken = tryLink(source, path);
      }
      if (isTaken) held.push(path);
      return isTaken;
    },
    release() {
      for (const path of held) if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) removeFile(path);
      rmSync(source, { force: true });
    },
  };
}

/** Makes a link; false when the name is taken. */
function tryLink(source: string, path: string): boolean {
  try {
    linkSync(source, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Writes the file of a holder. Throws Failure `failed`, and then there is no such file. */
function writeHolder(path: string): void {
  try {
    const fd = openNew(path);
    try {
      writeAll(fd, Buffer.from(formatHolder()));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    rmSync(path, { force: true });
    throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`, undefined, { cause: error });
  }
}

/** The content of a lock of this process. */
export function formatHolder(): string {
  return `webjobctl ${process.pid} ${hostname()} ${startOf(process.pid)}\n`;
}

/**
 * The mode of a lock whose line is written after its creation. No server makes one that its owner
 * may not write.
 */
export const LOCK_MODE = 0o444;

/**
 * Whether this is a lock of webjobctl whose process is gone, even before it wrote its line. The
 * caller holds the site lock, so that no other process is about to write it.
 */
export function isDeadLock(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isFile() || found.size > 512) return false;
  if (found.size === 0) return (found.mode & 0o222) === 0;
  const [, pid, host, ticks] = HOLDER.exec(readText(path)) ?? [];
  return pid !== undefined && host === hostname() && (!isAlive(Number(pid)) || startOf(Number(pid)) !== ticks);
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
