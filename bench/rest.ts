// The memory of an idle Node process, measured from inside and outside after a forced garbage
// collection, so that garbage is not mistaken for growth.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Site } from '../scripts/site.ts';

/** Megabytes, except for the number of descriptors. */
export interface Rest {
  /** Used heap and external memory after a collection. */
  live: number;
  /** The resident size after the collection. */
  rss: number;
  /** The resident size before the collection. */
  before: number;
  /** The peak resident size since the last measurement. */
  peak: number;
  descriptors: number;
}

const MEGABYTE = 1024 * 1024;
const TIME_LIMIT_MS = 30_000;

/**
 * NODE_OPTIONS with which a process collects garbage at SIGUSR2 and reports the rest. The directory
 * `run` must belong to the web user.
 */
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

/** Makes the process collect garbage, and measures it. Throws Error when it does not answer. */
export async function takeRest(site: Site, pid: number): Promise<Rest> {
  const report = reportPath(site);
  rmSync(report, { force: true });
  const [before, peak] = [readStatus(pid, 'VmRSS'), readStatus(pid, 'VmHWM')];
  process.kill(pid, 'SIGUSR2');
  for (const deadline = Date.now() + TIME_LIMIT_MS; !existsSync(report); await sleep(10))
    if (Date.now() > deadline) throw new Error('the process does not say what it holds');
  const live = Number(readFileSync(report, 'utf8')) / MEGABYTE;
  const rss = readStatus(pid, 'VmRSS');
  // Resets VmHWM (proc_pid_clear_refs(5)).
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
  return { live, rss, before, peak, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

/** Megabytes. */
function readStatus(pid: number, name: string): number {
  const line = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1]) / 1024;
}
