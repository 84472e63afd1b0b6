// Whether a process is alive, and whether it is still the same one, for locks and leftover files
// that name a process.
import { readFileSync } from 'node:fs';

/** Whether a process exists, whichever user owns it. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * When a process started, in clock ticks since boot. A process id is reused, but not together with
 * its start time. `0` on systems without /proc.
 */
export function startOf(pid: number): string {
  // On Windows anyone could create a directory with that name.
  if (process.platform === 'win32') return '0';
  try {
    // The twentieth field after the name, which may contain any character.
    return /.*\) (?:\S+ ){19}(\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '0';
  } catch {
    return '0';
  }
}
