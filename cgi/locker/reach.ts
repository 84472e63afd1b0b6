// Access to files of a locker for root. The directories in it belong to the web user, who can
// replace any of them by a link between a check and the use. So no path leads through such a
// directory: each is opened by its name in its parent, with O_NOFOLLOW, and stays open.
// `/proc/self/fd/17/NAME` is in that very directory wherever it is moved and whatever takes its
// place. Node has no openat(); this is equivalent (proc(5), open(2), "Rationale for openat"). The
// server does not load this file.
import { closeSync, constants, existsSync, lstatSync, mkdirSync, openSync, readlinkSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from './durable.ts';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;

const DESCRIPTORS = '/proc/self/fd';
/** A path below which nothing can exist, and that nobody can change. */
const NOWHERE = `${DESCRIPTORS}/-`;
/** A directory that was removed and created again is noticed after this time. */
const FRESH_MS = 1000;
const MAX_FOLDERS = 128;
const MAX_LINKS = 40;

/** A directory that is held open. */
interface Held {
  fd: number;
  until: number;
}

/** The open directories by path, the least recently used first. */
const held = new Map<string, Held>();
/** The path of the directory that each descriptor stands for, for messages. */
const folders: string[] = [];
/** The resolved paths of lockers. */
const ways = new Map<string, Way>();
let hasDescriptors: boolean | undefined;

/** A resolved path. */
interface Way {
  /** The path without links. */
  path: string;
  /** Whether nobody but root can make the path lead elsewhere. */
  isFixed: boolean;
  /** A link in the path that others can change; undefined when there is none. */
  link: string | undefined;
}

/**
 * The path of a file in a locker. `name` is a path below the locker, as in Group, with or without
 * an extension. Use the returned path immediately, because the next call may close the directory it
 * leads through. A name in no directory of the locker gets a path at which nothing exists. The
 * caller must not follow a link in place of the file itself. Throws the error of a system call for
 * a directory that may not be entered.
 */
export function reach(locker: string, name: string): string {
  const slash = name.lastIndexOf('/');
  if (slash < 0) return isFixed(locker) ? `${locker}/${name}` : `${hold(locker, '')}/${name}`;
  return `${hold(locker, name.slice(0, slash))}${name.slice(slash)}`;
}

/**
 * The path of a directory in a locker; `.` is the locker itself. Use the returned path immediately,
 * because the next call may close the directory it leads through.
 */
export function reachFolder(locker: string, folder: string): string {
  const name = folder === '.' ? '' : folder;
  if (name === '' && isFixed(locker)) return locker;
  // Without the dot, the path would name the link to the directory.
  return `${hold(locker, name)}/.`;
}

/**
 * Creates the missing directories of a file in a locker with mode 0755. The name of each is on disk
 * before the next one is created. Stops at anything that is in the way.
 */
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

/** Replaces paths from reach() in a text by paths that an operator knows. */
export function nameReached(text: string): string {
  return text.replace(/\/proc\/self\/fd\/(\d+)(?=\/)(?:\/\.(?![^/']))?/g, (path, fd) => folders[Number(fd)] ?? path);
}

/** The path of a directory, which stays open. */
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

/** Opens a directory; undefined when it does not exist or is a link or a file. */
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

/**
 * Whether this process runs as root. The result is kept, because geteuid() is a system call and
 * paths are requested several times for each upload.
 */
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

/**
 * Whether a path cannot mislead this process. For a user other than root, a replaced directory
 * opens nothing that the user could not open directly.
 */
function isFixed(locker: string): boolean {
  return !isRoot() || wayOf(locker).isFixed;
}

function wayOf(locker: string): Way {
  const known = ways.get(locker);
  if (known) return known;
  const way = follow(locker);
  ways.set(locker, way);
  return way;
}

/**
 * Opens the path step by step from the root, none of them a link. Throws ELOOP for a link that
 * users other than root can change.
 */
function openLocker(locker: string): number | undefined {
  const { path, link } = wayOf(locker);
  if (link !== undefined)
    throw errorOf(
      'ELOOP',
      `${link} is a link that users other than root can change: name the directory itself in nph-webjob.cfg`,
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

/** Resolves a path as the system does. */
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

/**
 * Whether nobody but root can replace an entry of a directory. In one with the sticky bit, such as
 * /tmp, users cannot rename other users' files.
 */
function isRoots(folder: Stats, entry: Stats): boolean {
  const isShared = (folder.mode & 0o022) !== 0;
  return folder.uid === 0 && (!isShared || ((folder.mode & 0o1000) !== 0 && entry.uid === 0));
}
