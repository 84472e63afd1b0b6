// The memory of a server including everything it runs: the given processes with all of their
// descendants together. Shared pages count once (PSS).
import { readdirSync, readFileSync } from 'node:fs';

const LOOK_MS = 50;

/**
 * Samples the memory until the returned function is called, which returns the maximum in megabytes.
 */
export function watchFootprint(pids: readonly number[]): () => number {
  let peak = measureFootprint(pids);
  const looking = setInterval(() => {
    peak = Math.max(peak, measureFootprint(pids));
  }, LOOK_MS);
  return () => {
    clearInterval(looking);
    return Math.max(peak, measureFootprint(pids));
  };
}

function measureFootprint(pids: readonly number[]): number {
  return findFamily(pids).reduce((sum, pid) => sum + readKilobytes(pid), 0) / 1024;
}

/** The given processes and all of their descendants. */
export function findFamily(pids: readonly number[]): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // The name of the program is in parentheses and may contain any character.
    const parent = Number(/.*\) \S (\d+) /.exec(read(`/proc/${name}/stat`))?.[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const family: number[] = [];
  const add = (pid: number): void => {
    family.push(pid);
    for (const child of children.get(pid) ?? []) add(child);
  };
  for (const pid of pids) add(pid);
  return family;
}

function readKilobytes(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0);
}

/** Empty for a process that has just ended. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

/** The peak resident size of a process according to the kernel; 0 for one that is gone. */
export function residentKilobytes(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
