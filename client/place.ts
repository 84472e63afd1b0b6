// Which folders may hold what is ours: none that another user could exchange, or in which they could exchange a file.
import { lstatSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { dirname, join, parse, relative, resolve, sep } from 'node:path';
import { Failure, warn } from './failure.ts';
import type { ClientSettings } from './settings.ts';

const WRITABLE = 0o022;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;

/** Who reads and writes there, in the words of a message. */
interface Rule {
  setting: 'SpoolDirectory' | 'TempDirectory';
  stage: Failure['kind'];
  /** A folder that others write in, each their own files. */
  mayBeShared: boolean;
}

/** Throws Failure `settings`: what others put there would be sent in our name. Throws the error of the system call where there is none. */
export function checkSpoolDirectory(path: string): void {
  check(path, { setting: 'SpoolDirectory', stage: 'settings', mayBeShared: false });
}

/** Throws Failure `run`: another program could run in our name. Throws the error of the system call where there is none. */
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
      `${setting}: others may ${what} in ${path}`,
      `chmod ${mayBeShared ? 'go-w' : '700'} ${path}`,
    );
  }
  const weak = findWeakness(path);
  if (weak) throw new Failure(stage, `${setting}: ${weak}`, `set ${setting} to a folder of your own`);
}

/**
 * What of a path lets another user exchange what it leads to: a folder or a link on the way that is neither ours nor
 * root's, or a folder that everybody may write in and that is not sticky. Undefined for none. A group that may write in
 * a folder above has been given that on purpose, as `staff` in Debian's /usr/local.
 */
export function findWeakness(path: string): string | undefined {
  for (const [step, found] of stepsTo(resolve(path))) {
    if (!isTrusted(found.uid)) return `${step} belongs to another user`;
    if (found.isDirectory() && (found.mode & WRITABLE_BY_ALL) !== 0 && !isSticky(found))
      return `others may replace files in ${step}`;
  }
  return undefined;
}

/** Warns of a file that decides what runs here, or who is trusted, and that another user could change or exchange. */
export function warnOfOthers(path: string): void {
  if (process.platform === 'win32') return;
  try {
    const isOpen = (statSync(path).mode & WRITABLE) !== 0;
    const weak = isOpen ? `others may write in ${path}` : findWeakness(path);
    if (weak) warn(`${path} decides what runs here, but ${weak}${isOpen ? `: chmod go-w ${path}` : ''}`);
  } catch {
    // It is a pipe, or gone: who reads it will say so.
  }
}

/** Our own, or root's, who can do anything anyway. */
export function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

function isSticky({ mode }: Stats): boolean {
  return (mode & STICKY) !== 0;
}

/** Every folder and link that the kernel passes on its way, the path itself last. */
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
