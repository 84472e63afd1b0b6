// The notes of the tests during a run: servers in process groups of their own and mounts, so that
// the run can end or unmount those that outlive a killed test; and the processor time of each file,
// which says more than its duration on a busy machine.
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';

/** The variable with the name of the file; without it, as under `npm start`, nothing is noted. */
export const NOTES = 'WEBJOB_TEST_NOTES';

/** The unit of proc(5): Linux uses it for every program, whatever its own clock is. */
const TICKS_PER_SECOND = 100;

/** Notes a process that leads a group and would outlive the test that started it. */
export function noteGroup(pid: number | undefined): void {
  const startedAt = pid === undefined ? undefined : readStart(pid);
  if (startedAt !== undefined) note(`group ${pid} ${startedAt}`);
}

export function noteMount(path: string): void {
  note(`mount ${path}`);
}

/** Notes the processor time of a process and of its children that it has waited for. */
export function noteProcessorTime(file: string, pid = process.pid): void {
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = readFields(pid).slice(11, 15).map(Number);
  note(`used ${(user + system + childUser + childSystem) / TICKS_PER_SECOND} ${file}`);
}

/** Processor time in seconds by path of the file; empty without /proc. */
export function readProcessorTimes(notes: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of readLines(notes)) {
    const [, seconds, file = ''] = /^used (\d\S*) (.+)$/.exec(line) ?? [];
    if (Number(seconds) > 0) found.set(file, (found.get(file) ?? 0) + Number(seconds));
  }
  return found;
}

function readLines(file: string): string[] {
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
}

function note(line: string): void {
  const file = process.env[NOTES];
  if (file) appendFileSync(file, `${line}\n`);
}

/**
 * Ends the processes and unmounts the mounts that the file lists and that still exist; returns
 * their lines.
 */
export function removeLeftovers(file: string): string[] {
  const lines = readLines(file);
  const groups = lines.filter((line) => line.startsWith('group ') && endGroup(line));
  const mounted = new Set(readMounts());
  const mounts = lines.filter((line) => mounted.has(line.slice('mount '.length)));
  for (const line of mounts) spawnSync('umount', ['-l', line.slice('mount '.length)]);
  return [...groups, ...mounts];
}

/** Ends all descendants of a process. */
export function endDescendants(ancestor: number): void {
  const children = new Map<string, string[]>();
  const processes = existsSync('/proc') ? readdirSync('/proc') : [];
  for (const pid of processes.filter((name) => /^\d+$/.test(name))) {
    const [, parent = ''] = readFields(pid);
    children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const found = [String(ancestor)];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  for (const pid of found.slice(1)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // The process has already ended.
    }
  }
}

/** A process with the same id but another start time is a different one. */
function endGroup(line: string): boolean {
  const [, pid = '', startedAt] = line.split(' ');
  if (readStart(Number(pid)) !== startedAt) return false;
  try {
    return process.kill(-Number(pid), 'SIGKILL');
  } catch {
    return false;
  }
}

/**
 * When a process started, in the form of proc(5); undefined for one that has ended, and without
 * /proc.
 */
function readStart(pid: number): string | undefined {
  const fields = readFields(pid);
  return fields[0] === 'Z' ? undefined : fields[19];
}

/** The fields of /proc/PID/stat from the state on; empty for a process that does not exist. */
function readFields(pid: number | string): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
}

function readMounts(): string[] {
  try {
    return readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '');
  } catch {
    return [];
  }
}
