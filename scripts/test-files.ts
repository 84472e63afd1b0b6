// The test files, what each needs, and their order. Runs nothing.
import { existsSync, globSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const root = join(import.meta.dirname, '..');

/**
 * Test files by their paths below test/, slowest first: they start first, so that no long one runs
 * alone at the end, and test:fast leaves them out.
 */
const SLOW_FILES = readFileSync(join(root, 'test', 'slow.txt'), 'utf8')
  .split('\n')
  .flatMap((line) => /^ *\d+ {2}(\S+)$/.exec(line)?.[1] ?? []);

/** Rewrites test/slow.txt. */
export function renewSlow(times: readonly (readonly [file: string, seconds: number])[]): void {
  const slow = times.filter(([, seconds]) => seconds >= SLOW_SECONDS);
  const lines = slow.map(([file, seconds]) => `${seconds.toFixed(0).padStart(4)}  ${nameOf(file)}\n`);
  writeFileSync(join(root, 'test', 'slow.txt'), `${SLOW_HEAD}${lines.join('')}`);
}

const SLOW_HEAD = `# Files that take more than a second of processor time, and how many. They start first, so that no long one is alone at
# the end, and npm run test:fast leaves them out. Written by npm test -- --renew-slow.
`;

/** A file that takes longer does not belong to test:fast. */
export const SLOW_SECONDS = 1;

/** Files that get or start a web server, a browser, a Debian package or another Node. */
const OUTSIDE = ['scripts/debian.ts', 'scripts/httpd-package.ts', 'scripts/node-release.ts', 'playwright-core'];

/** The path of a test file below test/. */
function nameOf(file: string): string {
  return relative(join(root, 'test'), resolve(root, file));
}

/** Every test file by its path in the project, slowest first. */
export function findTestFiles(): string[] {
  const files = globSync('test/**/*.test.ts', { cwd: root }).sort();
  const rank = (file: string): number => SLOW_FILES.indexOf(nameOf(file)) + 1 || Number.POSITIVE_INFINITY;
  return files.sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
}

/**
 * The test files that are not slow and need nothing of OUTSIDE, judged by their imports and the
 * programs they run.
 */
export function findFastFiles(): string[] {
  return findTestFiles().filter((file) => !isSlow(file) && !reachesOutside(file));
}

export function isSlow(file: string): boolean {
  return SLOW_FILES.includes(nameOf(file));
}

export function reachesOutside(file: string): boolean {
  return [...reach(file)].some((name) => OUTSIDE.includes(name));
}

/** Names in test/slow.txt without a file; a test checks that there are none. */
export function findStaleNames(): string[] {
  const names = findTestFiles().map(nameOf);
  return SLOW_FILES.filter((name) => !names.includes(name));
}

/**
 * The sources of a test file as one text: itself and everything of the project that it imports or
 * runs.
 */
export function readSources(file: string): string {
  return [...reach(file)].map((name) => readText(join(root, name))).join('\n');
}

const IMPORT = /^(?:import|export)\s(?!type\s)[^;]*?from '([^']+)';|\bimport\('([^']+)'\)/gm;
/** A program of the project that is run, as in `join(root, 'scripts', 'start.ts')`. */
const PROGRAM = /'(?:\.\.\/)*(?:(?:scripts|bench)\/)?([\w-]+\.ts)'/g;

/**
 * A file and everything that it imports or runs, directly or indirectly: paths in the project, and
 * names of packages.
 */
function reach(file: string, found = new Set<string>()): Set<string> {
  const name = relative(root, resolve(root, file));
  if (found.has(name)) return found;
  found.add(name);
  const text = readText(join(root, name));
  for (const [, from, dynamic] of text.matchAll(IMPORT)) {
    const target = from ?? dynamic ?? '';
    if (target.startsWith('.')) reach(join(dirname(name), target), found);
    else found.add(target);
  }
  for (const [, program = ''] of text.matchAll(PROGRAM)) {
    for (const folder of [dirname(name), 'test/support', 'scripts', 'bench'])
      if (existsSync(join(root, folder, program))) reach(join(folder, program), found);
  }
  return found;
}

function readText(path: string): string {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ? readFileSync(path, 'utf8') : '';
}

/** Directories from which dist/ is not built. */
const NOT_BUILT = ['bench', 'bin', 'dist', 'node_modules', 'scripts', 'test'];

/** Whether a source is newer than a built program, or a program is missing. */
export function isStale(): boolean {
  const built = globSync('dist/*', { cwd: root });
  const programs = built.filter((file) => file !== 'dist/package.json');
  if (programs.length === 0) return true;
  const changedAt = (file: string): number => statSync(join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const oldest = Math.min(...programs.map(changedAt));
  const sources = readdirSync(root).filter((name) => !name.startsWith('.') && !NOT_BUILT.includes(name));
  const files = sources.flatMap((name) => [name, ...globSync(`${name}/**`, { cwd: root })]);
  return [...files, 'scripts/build.ts'].some((file) => changedAt(file) > oldest);
}
