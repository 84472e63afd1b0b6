// The way to a file of a locker for whoever may do more than the web user, to whom the folders in it belong: he can put a
// link in the place of any of them between a look and the use. So no path leads through such a folder. Each is opened by
// its name in the one above it, with O_NOFOLLOW, and stays open: `/proc/self/fd/17/NAME` is in that very folder, wherever
// somebody moves it and whatever takes its place. Node has no openat; this is the same (proc(5), open(2), "Rationale for
// openat"). The server never loads it.
import { closeSync, constants, existsSync, lstatSync, mkdirSync, openSync, readlinkSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from './durable.ts';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;

const DESCRIPTORS = '/proc/self/fd';
/** Below it there is nothing, and nobody can change that. */
const NOWHERE = `${DESCRIPTORS}/-`;
/** What takes a folder away and makes another of its name is noticed after so long. */
const FRESH_MS = 1000;
const MAX_FOLDERS = 128;
const MAX_LINKS = 40;

/** A folder that is held open. */
interface Held {
  fd: number;
  until: number;
}

/** By its path, the one longest unused first. */
const held = new Map<string, Held>();
/** What descriptors stand for, in messages. */
const folders: string[] = [];
/** Where the paths of lockers lead. */
const ways = new Map<string, Way>();
let hasDescriptors: boolean | undefined;

/** Where a path leads. */
interface Way {
  /** The same without a link in it. */
  path: string;
  /** Nobody but root can have it lead elsewhere. */
  isFixed: boolean;
  /** A link in it that others can put there; undefined when there is none. */
  link: string | undefined;
}

/**
 * The path of a file in a locker: `name` is below the locker, as Group has it, with or without an extension. To be used at once: the next
 * call may end what it leads through. What is in no folder of the locker has a path at which nothing is. A link in the place of the file
 * itself is for the caller not to follow. Throws the error of a system call for a folder that may not be entered.
 */
export function reach(locker: string, name: string): string {
  const slash = name.lastIndexOf('/');
  if (slash < 0) return isFixed(locker) ? `${locker}/${name}` : `${hold(locker, '')}/${name}`;
  return `${hold(locker, name.slice(0, slash))}${name.slice(slash)}`;
}

/** The same for a folder of a locker, `.` for the locker itself. */
export function reachFolder(locker: string, folder: string): string {
  const name = folder === '.' ? '' : folder;
  if (name === '' && isFixed(locker)) return locker;
  // Without the dot it would be the link to the folder.
  return `${hold(locker, name)}/.`;
}

/** Makes the folders of a file in a locker that are missing, mode 0755, each one's name on disk before the next, as far as nothing is in the way. */
export function makeFolders(locker: string, name: string): void {
  for (let slash = name.indexOf('/'); slash > 0; slash = name.indexOf('/', slash + 1)) {
    const folder = name.slice(0, slash);
    const path = reach(locker, folder);
    try {
      mkdirSync(path, 0o755);
    } catch (error) {
      if (!['EEXIST', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      continue;
    }
    syncFolder(dirname(path));
  }
}

/** A text with the paths that `reach` gave as an operator knows them. */
export function nameReached(text: string): string {
  return text.replace(/\/proc\/self\/fd\/(\d+)(?=\/)(?:\/\.(?![^/']))?/g, (path, fd) => folders[Number(fd)] ?? path);
}

/** The path of a folder that stays open. */
function hold(locker: string, folder: string): string {
  const path = folder === '' ? locker : `${locker}/${folder}`;
  hasDescriptors ??= existsSync(DESCRIPTORS);
  if (!hasDescriptors) return withoutDescriptors(path);
  const known = held.get(path);
  if (known && performance.now() < known.until) {
    held.delete(path);
    held.set(path, known);
    return `${DESCRIPTORS}/${known.fd}`;
  }
  if (known) release(path, known);
  const fd = openBelow(locker, folder);
  if (fd === undefined) return NOWHERE;
  held.set(path, { fd, until: performance.now() + FRESH_MS });
  folders[fd] = path;
  for (const [oldest, one] of held) {
    if (held.size <= MAX_FOLDERS) break;
    release(oldest, one);
  }
  return `${DESCRIPTORS}/${fd}`;
}

function release(path: string, { fd }: Held): void {
  held.delete(path);
  closeSync(fd);
}

/** Undefined for a folder that is not there, and for a link or a file in its place. */
function openBelow(locker: string, folder: string): number | undefined {
  if (folder === '') return openLocker(locker);
  const slash = folder.lastIndexOf('/');
  const part = folder.slice(slash + 1);
  if (['', '.', '..'].includes(part)) return undefined;
  const above = slash < 0 && isFixed(locker) ? locker : hold(locker, folder.slice(0, Math.max(0, slash)));
  return openPart(above, part, `${locker}/${folder}`);
}

function openPart(above: string, part: string, path: string): number | undefined {
  try {
    return openSync(`${above}/${part}`, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return undefined;
    throw errorOf(code, `${code}: ${syscall} '${path}'`);
  }
}

function errorOf(code: string | undefined, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(message), { code, syscall: 'open' });
}

let wasRoot: boolean | undefined;

/** Asked once: it is a system call, and a path is asked for several times for each upload. */
function isRoot(): boolean {
  wasRoot ??= process.geteuid?.() === 0;
  return wasRoot;
}

function withoutDescriptors(path: string): string {
  if (isRoot())
    throw errorOf(
      'ENOSYS',
      `${path} cannot be entered safely by root without ${DESCRIPTORS}: mount /proc, or be the web user`,
    );
  return path;
}

/** Somebody who is not root can do no more by a path than by himself. */
function isFixed(locker: string): boolean {
  return !isRoot() || wayOf(locker).isFixed;
}

function wayOf(locker: string): Way {
  const known = ways.get(locker) ?? follow(locker);
  ways.set(locker, known);
  return known;
}

/** Step by step from the root, each step without a link. Throws ELOOP for a link that others than root can change. */
function openLocker(locker: string): number | undefined {
  const { path, link } = wayOf(locker);
  if (link !== undefined)
    throw errorOf(
      'ELOOP',
      `${link} is a link that others than root can change: name the folder itself in nph-webjob.cfg`,
    );
  let fd = openSync('/', O_RDONLY | O_DIRECTORY);
  for (const part of path.split('/').filter((step) => step !== '')) {
    const above = fd;
    try {
      const below = openPart(`${DESCRIPTORS}/${above}`, part, locker);
      if (below === undefined) return undefined;
      fd = below;
    } finally {
      closeSync(above);
    }
  }
  return fd;
}

/** Follows a path as the system does. */
function follow(locker: string): Way {
  const parts = (locker.startsWith('/') ? locker : `${process.cwd()}/${locker}`).split('/');
  const way: Way = { path: '', isFixed: true, link: undefined };
  for (let links = 0; parts.length > 0; ) {
    const part = parts.shift() ?? '';
    if (part === '' || part === '.') continue;
    if (part === '..') {
      way.path = dirname(way.path || '/').replace(/^\/$/, '');
      continue;
    }
    const next = `${way.path}/${part}`;
    const found = lstatSync(next, { throwIfNoEntry: false });
    if (found) way.isFixed &&= isRoots(lstatSync(way.path || '/'), found);
    if (!found?.isSymbolicLink() || ++links > MAX_LINKS) way.path = next;
    else {
      if (!way.isFixed) way.link ??= next;
      const target = readlinkSync(next);
      if (target.startsWith('/')) way.path = '';
      parts.unshift(...target.split('/'));
    }
  }
  return way;
}

/** True when nobody but root can put something else in the place of what is in a folder. In one as /tmp nobody moves what is another's. */
function isRoots(folder: Stats, entry: Stats): boolean {
  const isShared = (folder.mode & 0o022) !== 0;
  return folder.uid === 0 && (!isShared || ((folder.mode & 0o1000) !== 0 && entry.uid === 0));
}
