// Is a process alive, and is it the one that it was? For locks and leftovers that name one.
import { readFileSync } from 'node:fs';

/** True for a process that exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** When a process started, in ticks since the machine did: a process id comes again, both together do not. `0` where no /proc tells. */
export function startOf(pid: number): string {
  // On Windows anybody may make a folder of that name.
  if (process.platform === 'win32') return '0';
  try {
    // Behind the name, which may hold anything, it is the twentieth field.
    return /.*\) (?:\S+ ){19}(\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '0';
  } catch {
    return '0';
  }
}
