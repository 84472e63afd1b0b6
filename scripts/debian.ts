// Installs Debian packages that the tests and benchmarks need, if the machine lacks them. Only for
// root.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * The packages of programs, besides httpd and those that individual tests get for themselves;
 * without some of them tests are skipped.
 */
const TEST_PROGRAMS: Readonly<Record<string, string>> = {
  age: 'age',
  htpasswd: 'apache2-utils',
  logrotate: 'logrotate',
  curl: 'curl',
  faketime: 'faketime',
  gpg: 'gnupg',
  openssl: 'openssl',
  perl: 'perl',
  strace: 'strace',
  unionfs: 'unionfs-fuse',
  uudecode: 'sharutils',
  busybox: 'busybox',
  fish: 'fish',
  ksh: 'ksh93u+m',
  mandoc: 'mandoc',
  mksh: 'mksh',
  shellcheck: 'shellcheck',
  zsh: 'zsh',
};

/**
 * Installs the missing packages together; with `sources`, only those of programs named in that
 * text.
 */
export function installTestPrograms(sources?: string): void {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const isThere = (program: string): boolean => folders.some((folder) => existsSync(join(folder, program)));
  const isWanted = (program: string): boolean => sources === undefined || new RegExp(`\\b${program}\\b`).test(sources);
  const missing = Object.entries(TEST_PROGRAMS).filter(([program]) => isWanted(program) && !isThere(program));
  if (missing.length > 0) installPackages(missing.map(([, name]) => name));
}

/**
 * Installs packages. Concurrent processes wait for each other, which apt-get itself does not do.
 * Returns false when this is not Debian, for users other than root, and when apt-get fails, which
 * has then reported why.
 */
export function installPackages(names: readonly string[]): boolean {
  refuseWhenFast(`packages (${names.join(', ')})`);
  if (process.getuid?.() !== 0 || spawnSync('apt-get', ['--version']).status !== 0) return false;
  process.stderr.write(`webjob: getting ${names.join(', ')} from the Debian packages (once)\n`);
  const script = 'apt-get update -q && apt-get install -y -q --no-install-recommends "$@"';
  const { status } = spawnSync('flock', ['/run/lock/webjob-packages', 'sh', '-c', script, 'sh', ...names], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return status === 0;
}

/**
 * Throws Error under `npm run test:fast`, whose tests must do without `what`: scripts/test-files.ts
 * chooses them by their imports.
 */
export function refuseWhenFast(what: string): void {
  if (process.env.WEBJOB_TEST_FAST) throw new Error(`a test of test:fast asks for ${what}`);
}
