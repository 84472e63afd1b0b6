// npm test: checks types and style, builds, installs what the tests need from Debian, then runs
// every test. `npm test NAME…` runs the test files of these names or paths, and only builds what is
// out of date. `npm run test:fast` checks types and style and runs every test that needs no web
// server, browser or package. `npm run test:thorough` runs all cases of the long series of which
// `npm test` runs only a part (test/support/thorough.ts). `npm test -- --renew-slow` rewrites
// test/slow.txt from the processor times of this run.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { run } from 'node:test';
import { installTestPrograms } from './debian.ts';
import { obtainHttpd } from './httpd-package.ts';
import { makeEnvironment } from './test-environment.ts';
import { findFastFiles, findTestFiles, isSlow, isStale, readSources, renewSlow, SLOW_SECONDS } from './test-files.ts';
import { endDescendants, readProcessorTimes, removeLeftovers } from './test-leftovers.ts';
import { type Outcome, report } from './test-report.ts';

const root = join(import.meta.dirname, '..');
const COMPILED = join(root, 'node_modules', '.cache', 'compiled');
const TEST_LIMIT_MS = 1_200_000;
const STAGE_LIMIT_MS = 600_000;
/** A check in addition to the tests: its name and its command. */
const CHECKS: readonly (readonly [name: string, command: string, ...args: string[]])[] = [
  ['types', 'tsc', '--noEmit'],
  ['style', 'biome', 'check', '--error-on-warnings', '--diagnostic-level=warn', '.'],
];

const given = process.argv.slice(2);
const isFast = given.includes('--fast');
const wanted = given.filter((word) => !/^--(?:fast|thorough|renew-slow)$/.test(word)).flatMap(resolveFiles);
if (given.includes('--thorough')) process.env.WEBJOB_TEST_THOROUGH = '1';
const environment = makeEnvironment(isFast);
for (const [signal, code] of Object.entries({ SIGHUP: 129, SIGINT: 130, SIGTERM: 143 }))
  process.on(signal, () => {
    end();
    process.exit(code);
  });
let isGood = false;
try {
  isGood = await main();
} finally {
  end();
}
process.exit(isGood ? 0 : 1);

/** Ends the processes that killed tests could not end themselves. */
function end(): void {
  endDescendants(process.pid);
  for (const line of removeLeftovers(environment.notes))
    process.stderr.write(`webjob: left behind and ended: ${line}\n`);
  environment.remove();
}

async function main(): Promise<boolean> {
  if (wanted.length > 0) {
    if (isStale() && !stage('build', 'node', 'scripts/build.ts')) return false;
    installTestPrograms(wanted.map(readSources).join('\n'));
    return (await runTests(wanted)).isGood;
  }
  if (isFast) return stage('build', 'node', 'scripts/build.ts') && (await runFast());
  const isReady =
    CHECKS.every(([name, ...command]) => stage(name, ...command)) && stage('build', 'node', 'scripts/build.ts');
  if (!isReady) return false;
  installTestPrograms();
  process.stderr.write(`webjob: httpd: ${obtainHttpd().binary}\n`);
  const { isGood, times } = await runTests(findTestFiles());
  if (isGood && given.includes('--renew-slow')) renewSlow(times);
  return isGood;
}

/** Types and style are checked while the tests run. */
async function runFast(): Promise<boolean> {
  const checks = CHECKS.map(([name, ...command]) => check(name, ...command));
  const { isGood, times } = await runTests(findFastFiles());
  for (const [file, seconds] of times.filter((time) => time[1] > SLOW_SECONDS && !isSlow(time[0])))
    process.stderr.write(
      `webjob: ${file} took ${seconds.toFixed(1)} s: if it does on a quiet machine, add it to test/slow.txt\n`,
    );
  const failed = (await Promise.all(checks)).filter((outcome) => outcome !== undefined);
  for (const { name, said } of failed) process.stderr.write(`${said}webjob: error: ${name} failed\n`);
  return isGood && failed.length === 0;
}

/**
 * One process for each file, and two at a time for each processor, because most of them wait most
 * of the time.
 */
async function runTests(files: readonly string[]): Promise<Outcome> {
  process.stderr.write('webjob: tests\n');
  process.execPath = environment.node;
  const events = run({
    files: files.map((file) => join(root, file)),
    concurrency: 2 * availableParallelism(),
    timeout: TEST_LIMIT_MS,
    cwd: root,
    // The compiled sources of the tests save half of the time of a small file. The preload removes
    // the variable for programs that a test starts.
    env: { ...environment.variables, NODE_COMPILE_CACHE: COMPILED },
    execArgv: ['--import', join(import.meta.dirname, 'test-preload.ts')],
  });
  return await report(events, root, () => readProcessorTimes(environment.notes));
}

/** Runs a check; returns undefined when it succeeds, otherwise its output. */
async function check(name: string, command: string, ...args: string[]) {
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: STAGE_LIMIT_MS,
    env: environment.variables,
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk;
    });
  const [code] = await once(child, 'close');
  return code === 0 ? undefined : { name, said };
}

/** npm has put node_modules/.bin first in PATH, so `node` is the project's own. */
function stage(name: string, command: string, ...args: string[]): boolean {
  process.stderr.write(`webjob: ${name}\n`);
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: STAGE_LIMIT_MS,
    env: environment.variables,
  });
  if (status !== 0) process.stderr.write(`webjob: error: ${name} failed\n`);
  return status === 0;
}

/**
 * Converts a path relative to the directory in which npm was called into a path in the project.
 * Names such as `conf` and `client/units` stand for the test files of that name.
 */
function resolveFiles(word: string): string[] {
  const places = [process.env.INIT_CWD ?? process.cwd(), root].map((folder) => resolve(folder, word));
  const path = places.find((place) => statSync(place, { throwIfNoEntry: false })?.isFile());
  if (path) return [relative(root, path)];
  const named = findTestFiles().filter(
    (file) => file === `test/${word}.test.ts` || basename(file) === `${word}.test.ts`,
  );
  if (named.length > 0) return named;
  process.stderr.write(`webjob: error: ${word} is not a test file\nwebjob: hint: npm test conf\n`);
  process.exit(2);
}
