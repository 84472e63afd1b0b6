// The memory of a server with all that it runs: of the processes given, of what they started, and of what that started, together. Pages that
// several of them share count once (PSS).
import { readdirSync, readFileSync } from 'node:fs';

const LOOK_MS = 50;

/** Looks again and again until it is told to stop; then returns the most megabytes that were seen. */
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

/** The processes given, and all that they and their like started. */
export function findFamily(pids: readonly number[]): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // The name of the program stands in parentheses and may hold anything.
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

/** The most that was resident of a process so far, as the kernel counts it; 0 for one that is gone. */
export function residentKilobytes(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
