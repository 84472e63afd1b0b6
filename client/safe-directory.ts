// Which directories may contain our files: only those that other users can neither replace nor
// replace files in.
import { lstatSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { dirname, join, parse, relative, resolve, sep } from 'node:path';
import { Failure, warn } from './failure.ts';
import type { ClientSettings } from './settings.ts';

const WRITABLE = 0o022;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;

/** The use of a directory, in the words of a message. */
interface Rule {
  setting: 'SpoolDirectory' | 'TempDirectory';
  stage: Failure['kind'];
  /** Whether other users may write their own files to the directory. */
  mayBeShared: boolean;
}

/**
 * Checks SpoolDirectory. Throws Failure `settings` if other users can write to it: their files
 * would be sent in our name. Throws the error of the system call when it does not exist.
 */
export function checkSpoolDirectory(path: string): void {
  check(path, { setting: 'SpoolDirectory', stage: 'settings', mayBeShared: false });
}

/**
 * Checks TempDirectory. Throws Failure `run` if other users can replace files in it: another
 * program could run in our name. Throws the error of the system call when it does not exist.
 */
export function checkTempDirectory({ tempDirectory }: ClientSettings): void {
  check(tempDirectory, { setting: 'TempDirectory', stage: 'run', mayBeShared: true });
}

function check(path: string, { setting, stage, mayBeShared }: Rule): void {
  const found = statSync(path);
  if (process.platform === 'win32') return;
  if ((found.mode & WRITABLE) !== 0 && !(mayBeShared && isSticky(found))) {
    const what = mayBeShared ? 'replace files' : 'write';
    throw new Failure(
      stage,
      `${setting}: others can ${what} in ${path}`,
      `chmod ${mayBeShared ? 'go-w' : '700'} ${path}`,
    );
  }
  const weak = findWeakness(path);
  if (weak) throw new Failure(stage, `${setting}: ${weak}`, `set ${setting} to a directory of your own`);
}

/**
 * Finds the part of a path through which another user could change its target: a directory or link
 * owned by neither us nor root, or a world-writable directory without the sticky bit. Returns
 * undefined when there is none. Group write access on a parent directory counts as intended, like
 * that of `staff` on Debian's /usr/local.
 */
export function findWeakness(path: string): string | undefined {
  for (const [step, found] of stepsTo(resolve(path))) {
    if (!isTrusted(found.uid)) return `${step} belongs to another user`;
    if (found.isDirectory() && (found.mode & WRITABLE_BY_ALL) !== 0 && !isSticky(found))
      return `others can replace files in ${step}`;
  }
  return undefined;
}

/**
 * Warns about a file that decides what runs here, or who is trusted, if another user could change
 * or replace it.
 */
export function warnOfOthers(path: string): void {
  if (process.platform === 'win32') return;
  try {
    const isOpen = (statSync(path).mode & WRITABLE) !== 0;
    const weak = isOpen ? `others can write to ${path}` : findWeakness(path);
    if (weak) warn(`${path} decides what runs here, but ${weak}${isOpen ? `: chmod go-w ${path}` : ''}`);
  } catch {
    // The file is a pipe or does not exist; reading it will report the error.
  }
}

/** Whether the user id is our own or root's; root can do anything anyway. */
export function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

function isSticky({ mode }: Stats): boolean {
  return (mode & STICKY) !== 0;
}

/** Yields every directory and link along a path, and finally the path itself. */
function* stepsTo(path: string): Generator<[step: string, found: Stats]> {
  const { root } = parse(path);
  let at = root;
  const rest = relative(root, path).split(sep);
  for (let next = rest.shift(); next !== undefined && next !== ''; next = rest.shift()) {
    at = join(at, next);
    const found = lstatSync(at);
    yield [at, found];
    if (found.isSymbolicLink()) return yield* stepsTo(resolve(dirname(at), readlinkSync(at), ...rest));
  }
}
