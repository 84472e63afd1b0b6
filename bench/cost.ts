// The cost of a command in CPU time and memory. Needs bash and Linux.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** The cost of a command, including its children. */
export interface Cost {
  cpuSeconds: number;
  seconds: number;
  megabytes: number;
  output: string;
}

/** Prints the user and system time of a command and its children on the last line. */
const TIMED = 'TIMEFORMAT="%3U %3S"; time "$@"';

/**
 * Runs a command to its end; the memory is the largest resident size of one of its processes.
 * Throws for another exit status.
 */
export function run(
  command: string[],
  isExpected = (status: number | null): boolean => (status ?? 9) < 2,
): Promise<Cost> {
  const startedAt = performance.now();
  const child = spawn('bash', ['-c', TIMED, 'bash', ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [output, said, most] = ['', '', 0];
  const look = setInterval(() => {
    most = Math.max(most, measureFamily(child.pid));
  }, 5);
  child.stdout.on('data', (chunk) => {
    if (output.length < 10_000) output += chunk;
  });
  child.stderr.on('data', (chunk) => {
    said = (said + chunk).slice(-10_000);
  });
  return new Promise((done, reject) => {
    child.on('error', reject).on('close', (status) => {
      clearInterval(look);
      const [user, system] = said.trimEnd().split('\n').at(-1)?.split(' ').map(Number) ?? [];
      const cpuSeconds = (user ?? Number.NaN) + (system ?? Number.NaN);
      if (!isExpected(status) || Number.isNaN(cpuSeconds))
        reject(new Error(`${command.join(' ')} ended with ${status}: ${said}`));
      done({ cpuSeconds, seconds: (performance.now() - startedAt) / 1000, megabytes: most / 1024, output });
    });
  });
}

/** The largest resident size in kilobytes of all processes below the shell so far. */
function measureFamily(pid: number | undefined): number {
  let most = 0;
  for (const child of readText(`/proc/${pid}/task/${pid}/children`).split(' ')) {
    if (child === '') continue;
    most = Math.max(most, Number(/^VmHWM:\s+(\d+) kB/m.exec(readText(`/proc/${child}/status`))?.[1] ?? 0));
  }
  return most;
}

/** Empty for a process that has just ended. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
