// npm run test:faults: puts each deliberate fault of test/faults.json, alone, into a copy of the
// project, and checks that the tests which should notice it fail. Arguments select files of the
// product, by default all.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { makeEnvironment } from './test-environment.ts';
import { removeLeftovers } from './test-leftovers.ts';
import { makeWorkingCopy, type WorkingCopy } from './working-copy.ts';

const USAGE = `usage: npm run test:faults -- [--since REV] [--jobs N] [--limit SECONDS] [--check] [--json] [FILE...]

Puts each fault of test/faults.json into a copy of the project and runs the tests that should notice it.

  FILE             only the faults in these files, or below these directories
  --since REV      only the faults in files that changed since this commit
  --jobs N         faults tried at once (default: half of the processors)
  --limit SECONDS  longest time of a test file (default: 30 s and five times what it takes without a fault)
  --check          run nothing; only report the entries that no longer fit
  --json           one JSON value a line in place of the table

Exit codes: 0 all noticed, 1 not all, 2 wrong command line
`;

/** One entry of test/faults.json. */
export interface Fault {
  /** The file, relative to the project's root. */
  place: string;
  /** The text to replace, which occurs exactly once in the file. */
  before: string;
  after: string;
  /** The test files, at least one of which must fail. */
  tests: string[];
  /** What goes wrong for a user. */
  why: string;
}

/** The outcome for a fault. `untested`: its tests fail even without the fault. */
type Outcome = 'noticed' | 'unnoticed' | 'stale' | 'did-not-build' | 'untested';

interface Result extends Fault {
  outcome: Outcome;
  /** The line of `before`; undefined when it is not in the file. */
  line: number | undefined;
  seconds: number;
  /** The first test that failed, or why none ran. */
  by: string | undefined;
}

/** The duration of each test file without a fault; undefined when it failed. */
type Baselines = ReadonlyMap<string, number | undefined>;

class UsageError extends Error {}

const MIN_LIMIT_SECONDS = 30;
const BUILD_LIMIT_SECONDS = 120;

async function main(): Promise<number> {
  const { values, positionals } = parseArguments();
  const root = process.cwd();
  const faults = selectFaults(root, readFaults(root), positionals, values.since);
  const results: Result[] = [];
  const fitting: Fault[] = [];
  for (const fault of faults) {
    const obstacle = findObstacle(root, fault);
    if (obstacle === undefined) fitting.push(fault);
    else results.push(resultOf(root, fault, 'stale', 0, obstacle));
  }
  if (!values.check && fitting.length > 0) {
    const jobs = Math.min(parseNumber('jobs', values.jobs) ?? Math.ceil(availableParallelism() / 2), fitting.length);
    results.push(...(await tryFaults(root, fitting, jobs, parseNumber('limit', values.limit))));
  }
  const order = new Map(faults.map((fault, index) => [fault.place + fault.before + fault.after, index]));
  const indexOf = (fault: Fault): number => order.get(fault.place + fault.before + fault.after) ?? 0;
  results.sort((a, b) => indexOf(a) - indexOf(b));
  process.stdout.write(values.json ? results.map((result) => `${JSON.stringify(result)}\n`).join('') : format(results));
  say(values.check ? `${fitting.length} of ${faults.length} faults fit` : summarize(results));
  return results.every(({ outcome }) => outcome === 'noticed') ? 0 : 1;
}

function parseArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        since: { type: 'string' },
        jobs: { type: 'string' },
        limit: { type: 'string' },
        check: { type: 'boolean' },
        json: { type: 'boolean' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function parseNumber(option: string, text: string | undefined): number | undefined {
  if (text !== undefined && !/^[1-9]\d{0,5}$/.test(text)) throw new UsageError(`--${option} must be a positive number`);
  return text === undefined ? undefined : Number(text);
}

function readFaults(root: string): Fault[] {
  const path = join(root, 'test', 'faults.json');
  if (!existsSync(path)) throw new UsageError(`${path} does not exist: run this in the project's root`);
  return JSON.parse(readFileSync(path, 'utf8')) as Fault[];
}

/**
 * The faults in the named files or directories, and with `since` only those in files that changed.
 */
function selectFaults(root: string, faults: Fault[], named: string[], since: string | undefined): Fault[] {
  const paths = named.map((path) => relative(root, resolve(path)));
  for (const path of paths) if (!existsSync(join(root, path))) throw new UsageError(`${path} does not exist`);
  const changed = since === undefined ? undefined : new Set(listChanged(root, since));
  const isNamed = (place: string): boolean => paths.some((path) => place === path || place.startsWith(`${path}/`));
  return faults.filter(({ place }) => (paths.length === 0 || isNamed(place)) && (changed?.has(place) ?? true));
}

function listChanged(root: string, since: string): string[] {
  return [
    ['diff', '--name-only', '--relative', since, '--'],
    ['ls-files', '--others', '--exclude-standard'],
  ].flatMap((args) => {
    const { status, stdout, stderr } = spawnSync('git', args, { cwd: root, encoding: 'utf8' });
    if (status !== 0) throw new UsageError(`git ${args[0]}: ${stderr.trim()}`);
    return stdout.split('\n').filter(Boolean);
  });
}

/** Why an entry cannot be tried; undefined when it can. */
function findObstacle(root: string, { place, before, after, tests }: Fault): string | undefined {
  const path = join(root, place);
  if (!existsSync(path)) return 'the file does not exist';
  const count = readFileSync(path, 'utf8').split(before).length - 1;
  if (count !== 1) return count === 0 ? 'the text is not in the file' : `the text is ${count} times in the file`;
  if (before === after) return 'before and after are the same';
  const missing = tests.filter((test) => !existsSync(join(root, test)));
  if (tests.length === 0 || missing.length > 0) return `${missing[0] ?? 'a test file'} does not exist`;
  return undefined;
}

async function tryFaults(root: string, faults: Fault[], jobs: number, limit: number | undefined): Promise<Result[]> {
  const copies: WorkingCopy[] = [];
  const environment = makeEnvironment(false);
  const removeCopies = (): void => {
    for (const copy of copies) copy.remove();
    // Servers in process groups of their own, which a killed test could not end.
    removeLeftovers(environment.notes);
    environment.remove();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      removeCopies();
      process.exit(130);
    });
  try {
    for (let count = 0; count < jobs; count++) copies.push(makeWorkingCopy(root, environment));
    for (const copy of copies) if (!(await build(copy))) throw new Error('the project does not build without a fault');
    const baselines = await measure(copies, faults, limit);
    let done = 0;
    return await share(copies, faults, async (copy, fault) => {
      const result = await tryFault(root, copy, fault, baselines, limit);
      say(`${++done} of ${faults.length}: ${result.outcome} ${describePlace(result)} ${result.seconds.toFixed(1)} s`);
      return result;
    });
  } finally {
    removeCopies();
  }
}

/** Runs every named test file once without a fault. */
async function measure(copies: WorkingCopy[], faults: Fault[], limit: number | undefined): Promise<Baselines> {
  const files = [...new Set(faults.flatMap(({ tests }) => tests))];
  let done = 0;
  const measured = await share(copies, files, async (copy, file): Promise<[string, number | undefined]> => {
    const { exitCode, seconds, output } = await runTest(copy, file, limit ?? 1200);
    const isGood = exitCode === 0;
    const verdict = isGood ? `passes in ${seconds.toFixed(1)} s` : `fails: ${findFailed(output) ?? `exit ${exitCode}`}`;
    say(`${++done} of ${files.length} test files: ${file} ${verdict}`);
    return [file, isGood ? seconds : undefined];
  });
  return new Map(measured);
}

async function tryFault(
  root: string,
  copy: WorkingCopy,
  fault: Fault,
  baselines: Baselines,
  limit: number | undefined,
): Promise<Result> {
  const broken = fault.tests.filter((file) => baselines.get(file) === undefined);
  if (broken.length > 0) return resultOf(root, fault, 'untested', 0, `${broken.join(' ')} fails without it`);
  const path = join(copy.path, fault.place);
  const good = readFileSync(path, 'utf8');
  const startedAt = performance.now();
  const elapsed = (): number => (performance.now() - startedAt) / 1000;
  writeFileSync(
    path,
    good.replace(fault.before, () => fault.after),
  );
  try {
    if (!(await build(copy))) return resultOf(root, fault, 'did-not-build', elapsed());
    for (const file of fault.tests) {
      const longest = limit ?? MIN_LIMIT_SECONDS + 5 * (baselines.get(file) ?? 0);
      const { exitCode, isHung, output } = await runTest(copy, file, longest);
      if (exitCode === 0) continue;
      const by = isHung ? `still running after ${Math.round(longest)} s` : (findFailed(output) ?? `exit ${exitCode}`);
      return resultOf(root, fault, 'noticed', elapsed(), `${file}: ${by}`);
    }
    return resultOf(root, fault, 'unnoticed', elapsed());
  } finally {
    writeFileSync(path, good);
  }
}

function runTest(copy: WorkingCopy, file: string, limitSeconds: number) {
  return copy.run(['--test-reporter=tap', file], limitSeconds);
}

async function build(copy: WorkingCopy): Promise<boolean> {
  const { exitCode } = await copy.run([join('scripts', 'build.ts')], BUILD_LIMIT_SECONDS);
  return exitCode === 0;
}

/** The name of the innermost test that failed first: in TAP a test follows its subtests. */
function findFailed(tap: string): string | undefined {
  return /^ *not ok \d+ - (.*)$/m.exec(tap)?.[1];
}

/**
 * Gives each copy the next item when it has finished one; results are in the order of the items.
 */
async function share<Thing, Value>(
  copies: readonly WorkingCopy[],
  things: readonly Thing[],
  work: (copy: WorkingCopy, thing: Thing) => Promise<Value>,
): Promise<Value[]> {
  const values: Value[] = [];
  const queue = things.entries();
  await Promise.all(
    copies.map(async (copy) => {
      for (const [index, thing] of queue) values[index] = await work(copy, thing);
    }),
  );
  return values;
}

function resultOf(root: string, fault: Fault, outcome: Outcome, seconds = 0, by?: string): Result {
  const path = join(root, fault.place);
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const at = text.indexOf(fault.before);
  const line = at < 0 ? undefined : text.slice(0, at).split('\n').length;
  return { ...fault, outcome, line, seconds, by };
}

function describePlace({ place, line }: Result): string {
  return line === undefined ? place : `${place}:${line}`;
}

function format(results: Result[]): string {
  const rows = results.map((result) => {
    const { outcome, seconds, before, after, by } = result;
    const change = `${shorten(before)} → ${shorten(after)}`;
    return [outcome, `${seconds.toFixed(1)} s`.padStart(7), describePlace(result), change, by ?? ''];
  });
  const widths = [0, 1, 2, 3].map((column) => Math.max(0, ...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, index) => cell.padEnd(widths[index] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

function shorten(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim() || '(nothing)';
  return line.length > 48 ? `${line.slice(0, 47)}…` : line;
}

function summarize(results: Result[]): string {
  const outcomes: Outcome[] = ['noticed', 'unnoticed', 'stale', 'did-not-build', 'untested'];
  return outcomes
    .map((outcome) => [outcome, results.filter((result) => result.outcome === outcome).length] as const)
    .filter(([outcome, count]) => count > 0 || outcome === 'noticed')
    .map(([outcome, count]) => `${count} ${outcome}`)
    .join(', ');
}

function say(text: string): void {
  process.stderr.write(`faults: ${text}\n`);
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`faults: error: ${error.message}\n${USAGE}`);
  process.exitCode = 2;
}
