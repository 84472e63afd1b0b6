// Replaces a directory by a new one, so that readers see either the old or the new one, never a
// mixture. The next run removes what a killed run leaves: temporary names contain the pid, and a
// directory of a dead process is no longer needed.
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { isAlive } from '../../cli/processes.ts';

/** Marks a directory made by replaceFolder(); only such a directory is ever replaced. */
const MARK = '.webjobctl';
const MAX_SWAPS = 5;
/** Codes by which a rename fails when another run is faster. */
const FASTER: ReadonlySet<string> = new Set(['ENOTEMPTY', 'EEXIST', 'ENOENT']);

/**
 * Removes what killed runs left. An old directory whose replacement did not arrive is put back.
 * Throws Failure.
 */
export function tidyFolder(path: string): void {
  try {
    for (const name of readdirSync(dirname(path)).sort().reverse()) {
      const kind = kindOfLeftover(path, name);
      const leftover = join(dirname(path), name);
      if (kind === 'old' && !existsSync(path) && isOurs(leftover)) renameSync(leftover, path);
      else if (kind) rmSync(leftover, { recursive: true, force: true });
    }
  } catch (error) {
    throw failureOf(path, error);
  }
}

function kindOfLeftover(path: string, name: string): string | undefined {
  const prefix = `.${basename(path)}.`;
  if (!name.startsWith(prefix)) return undefined;
  const [, pid, kind] = /^([0-9]{1,10})\.(new|old)$/.exec(name.slice(prefix.length)) ?? [];
  return pid === undefined || isAlive(Number(pid)) ? undefined : kind;
}

/** Whether only this user can have written to the report. */
function isOursAlone(path: string): boolean {
  try {
    const folders = readdirSync(path, { withFileTypes: true }).filter((entry) => !entry.isFile());
    return ['', ...folders.map(({ name }) => name)].every((name) => {
      const found = lstatSync(join(path, name));
      return found.isDirectory() && found.uid === process.geteuid?.() && (found.mode & 0o022) === 0;
    });
  } catch {
    // Another run has just replaced it.
    return false;
  }
}

/** Whether a path is a directory made here, and not a link to one. */
function isOurs(path: string): boolean {
  return lstatSync(path).isDirectory() && existsSync(join(path, MARK));
}

/**
 * Lets `fill` write to an empty directory beside `path`, and then renames that directory to `path`.
 * `fill` may link files of `old`, the existing directory, which is undefined when others can change
 * it. The existing directory must be empty or made here; it passes on its mode and owner, and is
 * removed. Throws Failure `failed`, and the errors of `fill`; then nothing has changed.
 */
export async function replaceFolder(
  path: string,
  fill: (folder: string, old: string | undefined) => Promise<void>,
): Promise<void> {
  const fresh = ownName(path, 'new');
  try {
    tidyFolder(path);
    const old = checkReplaceable(path);
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh, 0o700);
    writeFileSync(join(fresh, MARK), 'made by webjobctl, which will replace this folder\n', { flag: 'wx' });
    await fill(fresh, old && isOursAlone(path) ? path : undefined);
    chmodSync(fresh, old ? old.mode & 0o7777 : 0o755);
    if (old && (old.uid !== process.getuid?.() || old.gid !== process.getgid?.())) chownSync(fresh, old.uid, old.gid);
    swap(path, fresh);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    throw failureOf(path, error);
  }
}

/**
 * Two renames, because Node has no system call that exchanges directories: for a moment, no
 * directory exists.
 */
function swap(path: string, fresh: string): void {
  const old = ownName(path, 'old');
  for (let attempt = 1; ; attempt++) {
    rmSync(old, { recursive: true, force: true });
    try {
      if (checkReplaceable(path)) renameSync(path, old);
      renameSync(fresh, path);
      break;
    } catch (error) {
      // Another run has moved its own report there, or has just removed the old one.
      const isFaster = FASTER.has((error as NodeJS.ErrnoException).code ?? '') && existsSync(fresh);
      if (isFaster && attempt < MAX_SWAPS) continue;
      // Readers find the previous report again.
      if (!existsSync(path) && existsSync(old)) renameSync(old, path);
      throw error;
    }
  }
  syncFolder(dirname(path));
  rmSync(old, { recursive: true, force: true });
}

/**
 * The stats of an existing directory; undefined when there is none. Throws Failure for one that
 * must not be removed.
 */
function checkReplaceable(path: string): Stats | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return undefined;
  if (!found.isDirectory()) throw new Failure('failed', `${path} exists and is not a directory`);
  if (!isOurs(path) && readdirSync(path).length > 0)
    throw new Failure(
      'failed',
      `${path} contains other files`,
      'name a directory that is new, empty, or made by this command',
    );
  return found;
}

function ownName(path: string, kind: 'new' | 'old'): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.${kind}`);
}

function failureOf(path: string, error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof Failure || code === undefined) return error;
  return new Failure('failed', `${path}: ${message}`, undefined, { cause: error });
}
