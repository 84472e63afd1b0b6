// Whose turn it is: one webjobctl at a time changes what is kept. Its locks name the process that holds them, so that those of a process
// that was killed are known for what they are and taken away.
import { closeSync, linkSync, lstatSync, readFileSync, renameSync, rmSync, unlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { LockerFailure } from 'webjob-locker';
import { makeFolder, openNew, writeAll } from 'webjob-locker/durable';
import type { ServerSettings } from '../../cgi/controls.ts';
import { Failure } from '../failure.ts';

/** What a lock of ours holds: the process, its machine, and when it started, for a process id comes again. */
const HOLDER = /^webjobctl (\d{1,10}) (\S{1,255}) (\d{1,20})\n$/;

/** Where webjobctl keeps what it must remember of a site. */
export function keepFolder(settings: ServerSettings): string {
  return join(settings.configDirectory, 'nph-webjob');
}

/** The line of this process. */
function holderLine(): string {
  return `webjobctl ${process.pid} ${hostname()} ${startTicks(process.pid)}\n`;
}

/**
 * Does what only one may do at a time; what only looks (`undefined`) need not wait. Throws Failure `failed` when another is at it, and for
 * every file that cannot be read or written.
 */
export async function inTurn(
  settings: ServerSettings,
  thing: 'keep' | 'holds' | 'index' | undefined,
  act: () => void | Promise<void>,
): Promise<void> {
  try {
    const endTurn = thing === undefined ? () => {} : takeTurn(settings, thing);
    try {
      await act();
    } finally {
      endTurn();
    }
  } catch (error) {
    const { syscall, code, message } = error as NodeJS.ErrnoException;
    if (syscall !== undefined || code === 'ERR_SQLITE_ERROR' || error instanceof LockerFailure)
      throw new Failure('failed', message, undefined, { cause: error });
    throw error;
  }
}

function takeTurn(settings: ServerSettings, thing: string): () => void {
  const folder = keepFolder(settings);
  makeFolder(folder);
  const path = join(folder, `${thing}.lck`);
  const locks = openLocks(`${path}.${process.pid}.new`);
  if (locks.take(path)) return locks.release;
  locks.release();
  throw new Failure('failed', `another webjobctl is at work on this site (${path})`, 'try again when it has ended');
}

export interface Locks {
  /** False when somebody else holds it. */
  take(path: string): boolean;
  /** Ends all that were taken. */
  release(): void;
}

/**
 * Locks that never stand without the line that says whose they are, as one would between its creation and the first write: a file is written,
 * and each lock is a link to it, which takes a name only when it is free.
 */
export function openLocks(source: string): Locks {
  rmSync(source, { force: true });
  const fd = openNew(source);
  try {
    writeAll(fd, Buffer.from(holderLine()));
  } finally {
    closeSync(fd);
  }
  const { ino } = lstatSync(source);
  const held: string[] = [];
  return {
    take(path) {
      removeDeadLock(path);
      try {
        linkSync(source, path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
        throw error;
      }
      held.push(path);
      return true;
    },
    release() {
      for (const path of held)
        if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true });
      rmSync(source, { force: true });
    },
  };
}

/** What the locks of groups are links to; a killed webjobctl leaves it to the next. */
export function lockSource(locker: string): string {
  return join(locker, '.webjobctl.lock');
}

/** True for a lock of ours whose process is gone. */
export function isDeadLock(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isFile() || found.size > 512) return false;
  const [, pid, host, ticks] = HOLDER.exec(readText(path)) ?? [];
  return pid !== undefined && host === hostname() && startTicks(Number(pid)) !== ticks;
}

/** Takes it away when it is one. Two may judge the same lock: the late one has caught the lock of the faster, and gives it back. */
export function removeDeadLock(path: string): void {
  if (!isDeadLock(path)) return;
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return;
  }
  try {
    if (!isDeadLock(aside)) linkSync(aside, path);
  } finally {
    unlinkSync(aside);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

/** When a process started, in ticks since the machine did; 0 where no /proc tells, `gone` when there is no such process. */
function startTicks(pid: number): string {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return 'gone';
  }
  // Behind the name, which may hold anything, it is the twentieth field.
  return /.*\) (?:\S+ ){19}(\d+)/s.exec(readText(`/proc/${pid}/stat`))?.[1] ?? '0';
}
