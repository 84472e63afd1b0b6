// Users of this machine, and what they may reach: the web user above all.
import { readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { Failure } from '../../cli/failure.ts';

export interface User {
  name: string;
  uid: number;
  gid: number;
}

/** Who an httpd that root starts turns into, on one system or another. */
const WEB_USERS = ['www-data', 'apache', '_www', 'www', 'httpd', 'nobody'];

export const isRoot = (): boolean => process.getuid?.() === 0;

/** A user of /etc/passwd. */
export function findUser(name: string): User | undefined {
  return readUsers().find((user) => user.name === name);
}

/** The same by its number. */
export function findUserById(uid: number): User | undefined {
  return readUsers().find((user) => user.uid === uid);
}

export function findUserName(uid: number): string {
  return findUserById(uid)?.name ?? String(uid);
}

/** The user given, or the first of the usual ones. Throws Failure `failed`. */
export function findWebUser(given: string | undefined): User {
  if (given !== undefined) {
    const user = findUser(given);
    if (user) return user;
    throw new Failure('failed', `--web-user: there is no user ${given}`);
  }
  const users = readUsers();
  const found = WEB_USERS.flatMap((name) => users.find((user) => user.name === name) ?? [])[0];
  if (found) return found;
  throw new Failure('failed', 'no usual web user is in /etc/passwd', 'say who httpd runs as: --web-user NAME');
}

function readUsers(): User[] {
  return readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [name = '', , uid = '', gid = ''] = line.split(':');
      return /^\d+$/.test(uid) && /^\d+$/.test(gid) ? { name, uid: Number(uid), gid: Number(gid) } : [];
    });
}

/** The number of a group of /etc/group. Throws Failure `failed`. */
export function findGroup(name: string): number {
  const lines = readFileSync('/etc/group', 'utf8').split('\n');
  const [, , gid = ''] = lines.map((line) => line.split(':')).find(([own]) => own === name) ?? [];
  if (/^\d+$/.test(gid)) return Number(gid);
  throw new Failure('failed', `--private: there is no group ${name}`, `groupadd ${name}`);
}

/** What a user may do by the modes on the way and at the end; groups beside the user's own are not asked. */
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

/** Whether this process can do something as that user: it is that user, or root. */
export function canBecome(user: User): boolean {
  return isRoot() || user.uid === process.getuid?.();
}

/**
 * Does something with the rights of a user, for whom `canBecome` holds, and of all groups of that user. The real user stays, which
 * access(2) goes by: only a call that does what it asks about tells what the user may do.
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

/** By /etc/group, which is where httpd's user gets its groups from. */
function groupsOf({ name, gid }: User): number[] {
  const others = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .filter(([, , number = '', members = '']) => /^\d+$/.test(number) && members.split(',').includes(name))
    .map(([, , number]) => Number(number));
  return [gid, ...others];
}

/** The first folder on the way to a path that the user cannot enter; undefined when there is none. */
export function findClosedFolder(user: User, path: string): string | undefined {
  const folders: string[] = [];
  for (let folder = dirname(path); !folders.includes(folder); folder = dirname(folder)) folders.unshift(folder);
  return folders.find((folder) => !hasBit(user, folder, 1));
}
