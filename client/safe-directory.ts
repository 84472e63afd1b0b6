// Which directories may hold our files: none that another user could replace, or in which another
// user could replace a file.
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
 * Checks SpoolDirectory. Throws Failure `settings` when others can write to it: their files would
 * be sent in our name. Throws the error of the system call when it does not exist.
 */
export function checkSpoolDirectory(path: string): void {
  check(path, { setting: 'SpoolDirectory', stage: 'settings', mayBeShared: false });
}

/**
 * Checks TempDirectory. Throws Failure `run` when others can replace files in it: another program
 * could run in our name. Throws the error of the system call when it does not exist.
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
 * The part of a path by which another user could change its target: a directory or link that
 * belongs neither to us nor to root, or a world-writable directory without the sticky bit.
 * Undefined for none. Write access for a group on a parent directory counts as intended, as for
 * `staff` on Debian's /usr/local.
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
 * Warns of a file that decides what runs here, or who is trusted, and that another user could
 * change or replace.
 */
export function warnOfOthers(path: string): void {
  if (process.platform === 'win32') return;
  try {
    const isOpen = (statSync(path).mode & WRITABLE) !== 0;
    const weak = isOpen ? `others can write to ${path}` : findWeakness(path);
    if (weak) warn(`${path} decides what runs here, but ${weak}${isOpen ? `: chmod go-w ${path}` : ''}`);
  } catch {
    // The file is a pipe, or gone; reading it will report that.
  }
}

/** Whether this is our own user or root, who can do anything anyway. */
export function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

function isSticky({ mode }: Stats): boolean {
  return (mode & STICKY) !== 0;
}

/** Yields every directory and link on the way of a path, and finally the path itself. */
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
