// What the tests note in a file of their run. Servers in process groups of their own, and mounts, which live on without the test: the
// run ends and unmounts what is still there at its end. And the processor time of each file, which tells more than its duration on a
// machine that has other work.
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';

/** The variable that names the file; without it, as under `npm start`, nothing is noted. */
export const NOTES = 'WEBJOB_TEST_NOTES';

/** Of proc(5): what Linux counts in for every program, whatever its own clock is. */
const TICKS_PER_SECOND = 100;

/** Notes a process that leads a group and lives on when the test that started it is ended. */
export function noteGroup(pid: number | undefined): void {
  const startedAt = pid === undefined ? undefined : readStart(pid);
  if (startedAt !== undefined) note(`group ${pid} ${startedAt}`);
}

export function noteMount(path: string): void {
  note(`mount ${path}`);
}

/** Notes what a process and all that it has started and waited for have used. */
export function noteProcessorTime(file: string, pid = process.pid): void {
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = readFields(pid).slice(11, 15).map(Number);
  note(`used ${(user + system + childUser + childSystem) / TICKS_PER_SECOND} ${file}`);
}

/** Seconds by path of the file, of all processes that noted it; empty where there is no /proc. */
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

/** Ends and unmounts what is noted in the file and still there; returns what that was. */
export function removeLeftovers(file: string): string[] {
  const lines = readLines(file);
  const groups = lines.filter((line) => line.startsWith('group ') && endGroup(line));
  const mounted = new Set(readMounts());
  const mounts = lines.filter((line) => mounted.has(line.slice('mount '.length)));
  for (const line of mounts) spawnSync('umount', ['-l', line.slice('mount '.length)]);
  return [...groups, ...mounts];
}

/** Ends the processes that a process has started, those that they have started, and so on. */
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
      // It has ended meanwhile.
    }
  }
}

/** A process id that another process has by now is none of ours: it began at another time. */
function endGroup(line: string): boolean {
  const [, pid = '', startedAt] = line.split(' ');
  if (readStart(Number(pid)) !== startedAt) return false;
  try {
    return process.kill(-Number(pid), 'SIGKILL');
  } catch {
    return false;
  }
}

/** When a process began, as proc(5) has it; undefined for one that has ended, and where there is no /proc. */
function readStart(pid: number): string | undefined {
  const fields = readFields(pid);
  return fields[0] === 'Z' ? undefined : fields[19];
}

/** The fields of /proc/PID/stat from the state on; none for a process that is not there. */
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
