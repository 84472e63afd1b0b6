// The users of this machine and their access rights, above all the web user.
import { readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { Failure } from '../../cli/failure.ts';

export interface User {
  name: string;
  uid: number;
  gid: number;
}

/** The user that httpd switches to, on various systems. */
const WEB_USERS = ['www-data', 'apache', '_www', 'www', 'httpd', 'nobody'];

export const isRoot = (): boolean => process.getuid?.() === 0;

/** Finds a user in /etc/passwd by name. */
export function findUser(name: string): User | undefined {
  return readUsers().find((user) => user.name === name);
}

/** Finds a user in /etc/passwd by number. */
export function findUserById(uid: number): User | undefined {
  return readUsers().find((user) => user.uid === uid);
}

export function findUserName(uid: number): string {
  return findUserById(uid)?.name ?? String(uid);
}

/** The given web user, or the first of the usual ones. Throws Failure `failed`. */
export function findWebUser(given: string | undefined): User {
  if (given !== undefined) {
    const user = findUser(given);
    if (user) return user;
    throw new Failure('failed', `--web-user: there is no user ${given}`);
  }
  const users = readUsers();
  const found = WEB_USERS.flatMap((name) => users.find((user) => user.name === name) ?? [])[0];
  if (found) return found;
  throw new Failure(
    'failed',
    'no usual web user is in /etc/passwd',
    'name the user that httpd runs as: --web-user USER',
  );
}

function readUsers(): User[] {
  return readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [name = '', , uid = '', gid = ''] = line.split(':');
      return /^\d+$/.test(uid) && /^\d+$/.test(gid) ? { name, uid: Number(uid), gid: Number(gid) } : [];
    });
}

/** The number of a group in /etc/group. Throws Failure `failed`. */
export function findGroup(name: string): number {
  const [, , gid = ''] = readGroups().find(([own]) => own === name) ?? [];
  if (/^\d+$/.test(gid)) return Number(gid);
  throw new Failure('failed', `--private: there is no group ${name}`, `groupadd ${name}`);
}

/** The name of a group in /etc/group, or its number. */
export function findGroupName(gid: number): string {
  return readGroups().find(([, , own]) => own === String(gid))?.[0] ?? String(gid);
}

function readGroups(): string[][] {
  return readFileSync('/etc/group', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
}

/**
 * Whether the mode bits of a path and its parents allow an access. Supplementary groups of the user
 * are not considered.
 */
export function mayAccess(user: User, path: string, wanted: 'read' | 'write' | 'enter' | 'run'): boolean {
  const bit = { read: 4, write: 2, enter: 1, run: 1 }[wanted];
  if (!hasBit(user, path, bit)) return false;
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    if (!hasBit(user, folder, 1)) return false;
    if (folder === '/' || folder === '.') return true;
  }
}

function hasBit(user: User, path: string, bit: number): boolean {
  const { uid, gid, mode } = statSync(path);
  if (user.uid === 0) return true;
  const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0;
  return ((mode >> shift) & bit) !== 0;
}

/** Whether this process can act as that user: it is that user, or root. */
export function canBecome(user: User): boolean {
  return isRoot() || user.uid === process.getuid?.();
}

/**
 * Acts with the rights of a user and all of that user's groups; `canBecome` must hold. The real
 * user id stays, and access(2) uses that, so only doing something shows whether the user may do it.
 */
export function asUser<Result>(user: User, work: () => Result): Result {
  if (!isRoot()) return work();
  const groups = process.getgroups?.() ?? [];
  const gid = process.getegid?.() ?? 0;
  try {
    process.setgroups?.(groupsOf(user));
    process.setegid?.(user.gid);
    process.seteuid?.(user.uid);
    return work();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(gid);
    process.setgroups?.(groups);
  }
}

/** The groups in /etc/group, which are also those of httpd's user. */
function groupsOf({ name, gid }: User): number[] {
  const others = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .filter(([, , number = '', members = '']) => /^\d+$/.test(number) && members.split(',').includes(name))
    .map(([, , number]) => Number(number));
  return [gid, ...others];
}

/** The first directory on a path that the user cannot enter; undefined when there is none. */
export function findClosedFolder(user: User, path: string): string | undefined {
  const folders: string[] = [];
  for (let folder = dirname(path); !folders.includes(folder); folder = dirname(folder)) folders.unshift(folder);
  return folders.find((folder) => !hasBit(user, folder, 1));
}
