// The cost of a checkpoint and a proof with a long custody record: CPU time as a multiple of an
// empty Node process, with a hundred new entries before each. Prints a table; asserts nothing.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Cost, run } from './cost.ts';
import { addJobs, addRecords, makeLocker } from './locker.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/checkpoint.ts [--entries N] [--runs N] [--keep DIRECTORY]

Measures the CPU time of webjobctl custody checkpoint, prove and consistency as a multiple of an empty Node process,
with 100 new entries before each.

  --entries N       entries of the custody record (default 1000000)
  --runs N          runs of each command, whose median counts (default 5)
  --keep DIRECTORY  make the site there, or use an existing one
`;
const WEBJOBCTL = join(import.meta.dirname, '..', 'dist', 'webjobctl');
const NEW_ENTRIES = 100;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      entries: { type: 'string', default: '1000000' },
      runs: { type: 'string', default: '5' },
      keep: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const [entries, runs] = [Number(values.entries), Number(values.runs)];
  if (![entries, runs].every((count) => Number.isSafeInteger(count) && count > 0))
    throw new RangeError('--entries and --runs are whole numbers from 1');
  const root = mkdtempSync(join(tmpdir(), 'webjob-checkpoint-'));
  const folder = values.keep ?? join(root, 'site');
  try {
    if (!existsSync(folder)) {
      process.stderr.write(`${entries} entries\n`);
      makeLocker({ folder, uploads: 1000, lines: 3000, clients: 50, seed: 1, end: Date.now() });
      addRecords(folder, entries);
    }
    await measure(folder, root, runs);
  } finally {
    rmSync(root, { recursive: true });
  }
}

async function measure(folder: string, root: string, runs: number): Promise<void> {
  const config = join(folder, 'etc', 'nph-webjob.cfg');
  const ask = (...words: string[]): Promise<Cost & { output: string }> =>
    run([process.execPath, WEBJOBCTL, '--config', config, ...words]);
  const key = join(root, 'custody');
  await ask('sign', 'keygen', key);
  const checkpoint = (): ReturnType<typeof ask> => ask('custody', 'checkpoint', '--key', `${key}.key`);
  const first = await checkpoint();
  const costs: Record<string, Cost[]> = { 'an empty Node': [], checkpoint: [], prove: [], consistency: [] };
  for (let turn = 0; turn < runs; turn++) {
    const jobId = addJobs(folder, NEW_ENTRIES);
    costs['an empty Node']?.push(await run([process.execPath, '-e', '0']));
    const next = await checkpoint();
    costs.checkpoint?.push(next);
    costs.prove?.push(await ask('custody', 'prove', jobId));
    for (const [name, { output }] of [
      ['old', first],
      ['new', next],
    ] as const)
      writeFileSync(
        join(root, name),
        `${output.split('\n\n')[0]}\n\n${output.split('\n').find((line) => line.startsWith('— '))}\n`,
      );
    costs.consistency?.push(await ask('custody', 'consistency', join(root, 'old'), join(root, 'new')));
  }
  const median = (name: string): number =>
    quantile(
      (costs[name] ?? []).map(({ cpuSeconds }) => cpuSeconds),
      0.5,
    );
  const empty = median('an empty Node');
  process.stdout.write(
    `the first checkpoint: ${first.cpuSeconds.toFixed(1)} s of CPU, ${first.megabytes.toFixed(0)} MB\n`,
  );
  for (const [name, all] of Object.entries(costs)) {
    const megabytes = Math.max(...all.map((cost) => cost.megabytes));
    process.stdout.write(
      `${name.padEnd(16)}${median(name).toFixed(3)} s  x ${(median(name) / empty).toFixed(1)}  ${megabytes.toFixed(0)} MB\n`,
    );
  }
}

await main();
