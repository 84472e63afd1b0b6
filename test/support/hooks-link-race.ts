// A race for a link: one process swaps it between two targets while another looks at it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';

const MIN_LOOKS = 2_000;
/** Long enough for a busy machine: the race ends as soon as both sides have been seen. */
const RACE_LIMIT_MS = 10_000;

/**
 * Looks while another process swaps the link between its targets, until each of `wanted` was seen.
 * Counts what was seen.
 */
export async function raceLink(
  link: string,
  targets: readonly [string, string],
  look: () => string,
  wanted: readonly string[],
): Promise<Map<string, number>> {
  const swapper = await startSwapper(link, targets);
  const seen = new Map<string, number>();
  try {
    const deadline = Date.now() + RACE_LIMIT_MS;
    for (
      let looks = 0;
      looks < MIN_LOOKS || (!wanted.every((one) => seen.has(one)) && Date.now() < deadline);
      looks++
    ) {
      const result = look();
      seen.set(result, (seen.get(result) ?? 0) + 1);
    }
  } finally {
    await endSwapper(swapper);
  }
  return seen;
}

/**
 * Starts swapping a link, which from then on always leads to one of its targets; resolves when it
 * does.
 */
export async function startSwapper(link: string, targets: readonly [string, string]): Promise<ChildProcess> {
  rmSync(link, { force: true });
  symlinkSync(targets[0], link);
  const program = join(import.meta.dirname, 'link-swapper.ts');
  const child = spawn(process.execPath, [program, link, ...targets], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

export async function endSwapper(swapper: ChildProcess): Promise<void> {
  swapper.kill('SIGKILL');
  if (swapper.exitCode === null && swapper.signalCode === null) await once(swapper, 'exit');
}
