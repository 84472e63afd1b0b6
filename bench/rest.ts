// The memory of a Node process at rest, measured from within and from without: after a collection that it was told to make, so that what the
// collector has not come to yet is not taken for growth.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Site } from '../scripts/site.ts';

/** Megabytes, but for the descriptors. */
export interface Rest {
  /** Heap in use and what belongs to it outside, after a collection. */
  live: number;
  /** Of the process, after the collection. */
  rss: number;
  /** The same before it. */
  before: number;
  /** The most since the last rest. */
  peak: number;
  descriptors: number;
}

const MEGABYTE = 1024 * 1024;
const TIME_LIMIT_MS = 30_000;

/** NODE_OPTIONS with which a process collects its garbage at SIGUSR2 and says what is left. Its folder `run` must be the web user's. */
export function installRestReport(site: Site): string {
  const hook = join(site.root, 'rest.cjs');
  const report = JSON.stringify(reportPath(site));
  writeFileSync(
    hook,
    `const { renameSync, writeFileSync } = require('node:fs');
require('node:v8').setFlagsFromString('--expose-gc');
const collect = require('node:vm').runInNewContext('gc');
process.on('SIGUSR2', () => {
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  writeFileSync(${report} + '.new', String(heapUsed + external));
  renameSync(${report} + '.new', ${report});
});
`,
  );
  return `--require=${hook}`;
}

function reportPath(site: Site): string {
  return join(site.root, 'run', 'rest');
}

/** Makes the process collect, and measures it. Throws Error when it does not answer. */
export async function takeRest(site: Site, pid: number): Promise<Rest> {
  const report = reportPath(site);
  rmSync(report, { force: true });
  const [before, peak] = [readStatus(pid, 'VmRSS'), readStatus(pid, 'VmHWM')];
  process.kill(pid, 'SIGUSR2');
  for (const deadline = Date.now() + TIME_LIMIT_MS; !existsSync(report); await sleep(10))
    if (Date.now() > deadline) throw new Error('the process does not say what it holds');
  const live = Number(readFileSync(report, 'utf8')) / MEGABYTE;
  const rss = readStatus(pid, 'VmRSS');
  // From here on VmHWM counts anew (proc_pid_clear_refs(5)).
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
  return { live, rss, before, peak, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

/** Megabytes. */
function readStatus(pid: number, name: string): number {
  const line = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1]) / 1024;
}
