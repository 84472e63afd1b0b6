// Other processes: is one alive, and end one with all that it started.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs';

/** True for a process that exists, whoever's it is. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** When a process started, in ticks since the machine did: a process id comes again, both together do not. `0` where no /proc tells. */
export function startOf(pid: number): string {
  try {
    // Behind the name, which may hold anything, it is the twentieth field.
    return /.*\) (?:\S+ ){19}(\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '0';
  } catch {
    return '0';
  }
}

/** Whether a process has a file open; undefined where no /proc tells, or not us. */
export function hasOpen(pid: number, { dev, ino }: Stats): boolean | undefined {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder).some((fd) => {
      // It may be closed meanwhile.
      const found = statSync(`${folder}/${fd}`, { throwIfNoEntry: false });
      return found?.ino === ino && found.dev === dev;
    });
  } catch {
    return undefined;
  }
}

/** Whether an argument of a process matches; undefined where no /proc tells. */
export function hasArgument(pid: number, pattern: RegExp): boolean | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
      .split('\0')
      .some((argument) => pattern.test(argument));
  } catch {
    return undefined;
  }
}

/** Sends a signal to a process that was started detached and to its group. On Windows (untested) it ends the whole tree instead. */
export function signalGroup(pid: number | undefined, signal: NodeJS.Signals | number): void {
  if (pid === undefined) return;
  if (process.platform === 'win32') {
    spawnSync('taskkill', ['/pid', String(pid), '/T', '/F'], { stdio: 'ignore' });
    return;
  }
  try {
    process.kill(-pid, signal);
  } catch {
    // Nothing is left of it.
  }
}
