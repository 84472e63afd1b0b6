// The cost of queries about a site: CPU time of every command that reads jobs, as a multiple of
// an empty Node process measured in the same run, and the peak memory; compared with another build
// when one is given. Before each measured run a new job arrives. Prints results; asserts nothing.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Cost, run } from './cost.ts';
import { addJobs, clientsOf, makeLocker, NEEDLE } from './locker.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/find.ts [--uploads N] [--lines M] [--locker DIRECTORY] [--against DIRECTORY] [--runs R]
                          [--only TEXT] [--pack N]

Measures the CPU time of webjobctl at a site of N uploads (default 100000) and M log lines (default ten times as many)
as a multiple of an empty Node process, and its peak memory. The median of R runs counts (default 5; one for a slow run).

  --locker DIRECTORY   a site made by bench/locker.ts, whose index is rebuilt (default: make one and remove it)
  --against DIRECTORY  a checkout of another version with its dist/, measured first, with an index of its own. The site
                       that is made then has custody records of one segment, because old versions know no others
  --only TEXT          only rows whose names contain TEXT
  --pack N             compare packing N uploads with tar and gzip (default 2000; 0 for none)
Needs dist/, bash and Linux.
`;
/** A CustodySegmentLimit that no record reaches. */
const ONE_SEGMENT = 999_999_999_999_999;
const OURS = join(import.meta.dirname, '..', 'bin', 'webjobctl');

interface Question {
  name: string;
  /** The allowed multiple of an empty process. */
  target: string;
  words: (site: Asked) => string[];
  /** Jobs that arrive before each run (default 1). */
  news?: number;
  /** Measured once only. */
  isLong?: true;
  /** Not run with the other build, which does not have the command. */
  isNew?: true;
}

interface Asked {
  folder: string;
  lastJobId: string;
  key: string;
}

/** `target`: for a site with 100,000 uploads, and with 1,000,000. */
const QUESTIONS: readonly Question[] = [
  { name: 'show JOB', target: '5 / 6', words: ({ lastJobId }) => ['show', lastJobId] },
  { name: 'jobs --limit 20', target: '5 / 6', words: () => ['jobs', '--limit', '20'] },
  { name: 'jobs --since 2m', target: '6 / 8 + rows', words: () => ['jobs', '--since', '2m'] },
  { name: 'clients', target: '10 / 40', words: () => ['clients'] },
  { name: 'clients --expect 24h', target: '10 / 40', words: () => ['clients', '--expect', '24h'] },
  { name: 'metrics', target: '10 / 12', words: () => ['metrics', '--textfile', '-'] },
  { name: 'search, a rare word', target: '8 / 10', words: () => ['search', NEEDLE] },
  { name: 'index, 1 new job', target: '8', words: () => ['index'] },
  { name: 'jobs, 10,000 new jobs', target: '60', words: () => ['jobs', '--limit', '20'], news: 10_000, isLong: true },
  { name: 'index, after these', target: '', words: () => ['index'], isLong: true },
  { name: 'custody checkpoint', target: '8', words: ({ key }) => ['custody', 'checkpoint', '--key', key] },
  { name: 'verify --since 1m', target: '8', words: () => ['verify', '--since', '1m'] },
];

class Bench {
  readonly #folder: string;
  readonly #runs: number;
  readonly #only: string;
  readonly #key: string;

  constructor(folder: string, runs: number, only: string) {
    this.#folder = folder;
    this.#runs = runs;
    this.#only = only;
    this.#key = join(folder, 'custody-key.key');
  }

  ask(program: string, words: readonly string[]): Promise<Cost> {
    const config = join(this.#folder, 'etc', 'nph-webjob.cfg');
    return run([process.execPath, program, '--config', config, ...words]);
  }

  async empty(): Promise<number> {
    const costs: number[] = [];
    for (let turn = 0; turn < 11; turn++) costs.push((await run([process.execPath, '-e', '0'])).cpuSeconds);
    return quantile(costs, 0.5);
  }

  /** Makes everything from nothing, then asks every question. */
  async measure(program: string, name: string): Promise<void> {
    rmSync(join(this.#folder, 'index'), { recursive: true, force: true });
    const empty = await this.empty();
    process.stdout.write(
      `\n${name}: an empty Node takes ${(empty * 1000).toFixed(0)} ms; load ${loadavg()[0]?.toFixed(1)}\n`,
    );
    process.stdout.write(
      `${'x empty Node'.padStart(36)}${'target'.padStart(14)}${'CPU s'.padStart(9)}${'MB'.padStart(6)}\n`,
    );
    if (!existsSync(this.#key)) await this.ask(OURS, ['sign', 'keygen', this.#key.replace(/\.key$/, '')]);
    const filled = await this.ask(program, ['index']);
    const jobs = await this.#countJobs(program);
    print('index, from nothing', filled, empty, '');
    process.stdout.write(
      `${jobs} jobs from nothing: ${(jobs / filled.cpuSeconds).toFixed(0)} a CPU second (target 20000)\n`,
    );
    // A full verification first, after which unchanged files need not be read again.
    if (this.#isWanted('verify --since 1m')) await this.ask(program, ['verify', '--custody']);
    // The first checkpoint builds the tree over all entries; the ones after it add what is new.
    if (this.#isWanted('custody checkpoint')) {
      const first = await this.ask(program, ['custody', 'checkpoint', '--key', this.#key]);
      print('custody checkpoint, 1st', first, empty, '');
    }
    for (const question of QUESTIONS) if (this.#isWanted(question.name)) await this.#askOften(program, question, empty);
  }

  #isWanted(name: string): boolean {
    return name.includes(this.#only);
  }

  async #countJobs(program: string): Promise<number> {
    const config = join(this.#folder, 'etc', 'nph-webjob.cfg');
    const { output } = await run([
      'sh',
      '-c',
      '"$0" "$@" | grep "^webjob_jobs{"',
      process.execPath,
      program,
      '--config',
      config,
      'metrics',
      '--textfile',
      '-',
    ]);
    return [...output.matchAll(/^webjob_jobs\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  async #askOften(program: string, { name, target, words, news = 1, isLong }: Question, empty: number): Promise<void> {
    const costs: Cost[] = [];
    for (let turn = 0; turn < (isLong ? 1 : this.#runs); turn++) {
      const lastJobId = addJobs(this.#folder, news);
      const cost = await this.ask(program, words({ folder: this.#folder, lastJobId, key: this.#key }));
      costs.push(cost);
      if (cost.cpuSeconds > 20) break;
    }
    const megabytes = Math.max(...costs.map((cost) => cost.megabytes));
    const cpuSeconds = quantile(
      costs.map((cost) => cost.cpuSeconds),
      0.5,
    );
    print(name, { cpuSeconds, megabytes }, empty, target);
  }
}

function print(name: string, cost: Pick<Cost, 'cpuSeconds' | 'megabytes'>, empty: number, target: string): void {
  const { cpuSeconds, megabytes } = cost;
  const times = (cpuSeconds / empty).toFixed(1);
  process.stdout.write(
    `${name.padEnd(24)}${times.padStart(12)}${target.padStart(14)}${cpuSeconds.toFixed(2).padStart(9)}${megabytes.toFixed(0).padStart(6)}\n`,
  );
}

/** Compares `pack` with tar and gzip on the same uploads. */
async function comparePack(program: string, count: number): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'webjob-pack-'));
  try {
    const folder = join(root, 'site');
    const end = Date.now() - 5 * 86_400_000;
    const config = makeLocker({ folder, uploads: count, lines: count * 3, clients: 500, seed: 1, end });
    const byHand = await run(['sh', '-c', 'tar cf - -C "$0" incoming | gzip > "$0/by-hand.tar.gz"', folder]);
    const ours = await run([process.execPath, program, '--config', config, 'pack', '--older-than', '1d']);
    const packed = readdirSync(join(folder, 'incoming')).length;
    process.stdout.write(
      `pack of ${count} uploads (${packed} files stay): ${ours.cpuSeconds.toFixed(2)} s of CPU, tar and gzip ${byHand.cpuSeconds.toFixed(2)} s: x ${(ours.cpuSeconds / byHand.cpuSeconds).toFixed(1)} (target 5), ${ours.megabytes.toFixed(0)} MB\n`,
    );
  } finally {
    rmSync(root, { recursive: true });
  }
}

async function main(): Promise<void> {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const { values } = parseArgs({
    options: {
      uploads: text('100000'),
      runs: text('5'),
      only: text(''),
      pack: text('2000'),
      lines: { type: 'string' },
      locker: { type: 'string' },
      against: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const root = mkdtempSync(join(tmpdir(), 'webjob-find-'));
  try {
    const uploads = parseCount('uploads', values.uploads);
    const lines = values.lines === undefined ? uploads * 10 : parseCount('lines', values.lines);
    const folder = values.locker ?? join(root, 'site');
    const segment = values.against === undefined ? undefined : ONE_SEGMENT;
    const plan = { folder, uploads, lines, clients: clientsOf(uploads), seed: 1, end: Date.now(), segment };
    if (values.locker === undefined) makeLocker(plan);
    const bench = new Bench(folder, parseCount('runs', values.runs), values.only);
    const builds: [string, string][] = [[OURS, 'this build']];
    if (values.against !== undefined)
      builds.unshift([join(resolve(values.against), 'dist', 'webjobctl'), values.against]);
    for (const [program, name] of builds) {
      await bench.measure(program, name);
      if (values.pack !== '0') await comparePack(program, parseCount('pack', values.pack));
    }
  } finally {
    rmSync(root, { recursive: true });
  }
}

await main();
