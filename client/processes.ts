// Other processes: whether one is alive, and how to end one with all processes that it started.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { warn } from './failure.ts';
import { findSystemProgram } from './windows.ts';

const POLL_MS = 50;
/** The number of rounds of SIGKILL; a process that survives them is waiting for a device. */
const MOST_LOOKS = 20;
const TASKKILL_MS = 10_000;
/**
 * Whether the system can have a /proc. On Windows, anyone could create a directory with that name.
 */
const HAS_PROC = process.platform !== 'win32';

/** Whether a process has a file open; undefined when that cannot be determined. */
export function hasOpen(pid: number, { dev, ino }: Stats): boolean | undefined {
  if (!HAS_PROC) return undefined;
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder).some((fd) => {
      // The file may have been closed meanwhile.
      const found = statSync(`${folder}/${fd}`, { throwIfNoEntry: false });
      return found?.ino === ino && found.dev === dev;
    });
  } catch {
    return undefined;
  }
}

/** Whether any argument of a process matches; undefined without /proc. */
export function hasArgument(pid: number, pattern: RegExp): boolean | undefined {
  if (!HAS_PROC) return undefined;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
      .split('\0')
      .some((argument) => pattern.test(argument));
  } catch {
    return undefined;
  }
}

/**
 * Sends a signal to a detached process and its group; on Linux to its whole session, because
 * `timeout` and shells with job control create further groups. On Windows, any signal ends the
 * process and those that it started.
 */
export function signalSession(pid: number | undefined, signal: NodeJS.Signals | number): void {
  if (pid === undefined) return;
  if (process.platform === 'win32') {
    endTree(pid);
    return;
  }
  // The group comes first, in one call: otherwise a process could react to the end of another
  // before it gets the signal itself.
  const others = findSession(pid).filter(({ group }) => group !== pid);
  for (const target of [-pid, ...others.map((other) => other.pid)]) {
    try {
      process.kill(target, signal);
    } catch {
      // None of the processes is left.
    }
  }
}

/** Ends a Windows process and those that it started; if taskkill fails, only the process itself. */
function endTree(pid: number): void {
  const taskkill = findSystemProgram('taskkill.exe');
  if (taskkill !== undefined) {
    const options = { stdio: 'ignore', timeout: TASKKILL_MS, windowsHide: true } as const;
    if (spawnSync(taskkill, ['/pid', String(pid), '/t', '/f'], options).status === 0) return;
  }
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // The process has ended.
    return;
  }
  warn(`taskkill failed: process ${pid} was ended, but processes that it started may continue`);
}

/**
 * Waits up to `graceMs` for the session of an ended process to become empty, and then kills the
 * remaining processes. Does not wait without /proc.
 */
export async function endSession(pid: number, graceMs: number): Promise<void> {
  const end = performance.now() + graceMs;
  while (findSession(pid).length > 0 && performance.now() < end) await sleep(POLL_MS);
  // Processes that start between a look and its signals are found by the next look.
  for (let looks = 0; findSession(pid).length > 0 && looks < MOST_LOOKS; looks++) {
    signalSession(pid, 'SIGKILL');
    await sleep(POLL_MS);
  }
}

interface Member {
  pid: number;
  group: number;
}

/** The living processes of a session; empty without /proc. */
function findSession(session: number): Member[] {
  if (process.platform !== 'linux') return [];
  try {
    return readdirSync('/proc').flatMap((name) => (/^[0-9]+$/.test(name) ? readMember(Number(name), session) : []));
  } catch {
    return [];
  }
}

/**
 * Reads a process: an array of one, or empty for a zombie, for a process of another session and for
 * a process that no longer exists.
 */
function readMember(pid: number, session: number): Member[] {
  try {
    // The fields after the name, which may itself contain any character: state, parent, group,
    // session.
    const [, state, group, id] = /.*\) (\S) \S+ (\d+) (\d+) /s.exec(readFileSync(`/proc/${pid}/stat`, 'latin1')) ?? [];
    return state !== 'Z' && Number(id) === session ? [{ pid, group: Number(group) }] : [];
  } catch {
    return [];
  }
}
