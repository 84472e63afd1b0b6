// Which test files there are, what each of them needs, and in which order they run. Runs nothing.
import { existsSync, globSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';

const root = join(import.meta.dirname, '..');

/** Names of test files, slowest first: they start first, so that no long one is alone at the end, and test:fast leaves them out. */
const SLOW_FILES = readFileSync(join(root, 'test', 'slow.txt'), 'utf8')
  .split('\n')
  .flatMap((line) => /^ *\d+ {2}(\S+)$/.exec(line)?.[1] ?? []);

/** Rewrites test/slow.txt. */
export function renewSlow(times: readonly (readonly [file: string, seconds: number])[]): void {
  const slow = times.filter(([, seconds]) => seconds >= SLOW_SECONDS);
  const lines = slow.map(([file, seconds]) => `${seconds.toFixed(0).padStart(4)}  ${basename(file)}\n`);
  writeFileSync(join(root, 'test', 'slow.txt'), `${SLOW_HEAD}${lines.join('')}`);
}

const SLOW_HEAD = `# Files that take more than a few seconds of processor time, and how many. They start first, so that no long one is alone at
# the end, and npm run test:fast leaves them out. Written by npm test -- --renew-slow.
`;

/** Above that a file does not belong into test:fast. */
export const SLOW_SECONDS = 4;

/** What gets or starts a web server, a browser, a Debian package or another Node. */
const OUTSIDE = ['scripts/debian.ts', 'scripts/httpd-package.ts', 'scripts/node-release.ts', 'playwright-core'];

/** Every test file by its path in the project, slowest first. */
export function findTestFiles(): string[] {
  const files = globSync('test/**/*.test.ts', { cwd: root }).sort();
  const rank = (file: string): number => SLOW_FILES.indexOf(basename(file)) + 1 || Number.POSITIVE_INFINITY;
  return files.sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
}

/** Those that reach nothing of OUTSIDE, by what they import and the programs that they run, and are not slow. */
export function findFastFiles(): string[] {
  return findTestFiles().filter((file) => !isSlow(file) && !reachesOutside(file));
}

export function isSlow(file: string): boolean {
  return SLOW_FILES.includes(basename(file));
}

export function reachesOutside(file: string): boolean {
  return [...reach(file)].some((name) => OUTSIDE.includes(name));
}

/** The names in test/slow.txt that are no files: a test holds it empty. */
export function findStaleNames(): string[] {
  const names = findTestFiles().map((file) => basename(file));
  return SLOW_FILES.filter((name) => !names.includes(name));
}

/** The sources of a test file: itself and all that it imports or runs of the project, as one text. */
export function readSources(file: string): string {
  return [...reach(file)].map((name) => readText(join(root, name))).join('\n');
}

const IMPORT = /^(?:import|export)\s(?!type\s)[^;]*?from '([^']+)';|\bimport\('([^']+)'\)/gm;
/** A program of the project that is run, as in `join(root, 'scripts', 'start.ts')`. */
const PROGRAM = /'(?:\.\.\/)*(?:(?:scripts|bench)\/)?([\w-]+\.ts)'/g;

/** A file and all that it imports or runs, directly or not: paths in the project, and names of packages. */
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
    for (const folder of [dirname(name), 'scripts', 'bench'])
      if (existsSync(join(root, folder, program))) reach(join(folder, program), found);
  }
  return found;
}

function readText(path: string): string {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ? readFileSync(path, 'utf8') : '';
}

/** Of what is in the project, what dist/ is not built from. */
const NOT_BUILT = ['bench', 'bin', 'dist', 'node_modules', 'scripts', 'test'];

/** True when a source is newer than a built program, or one is missing. */
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
