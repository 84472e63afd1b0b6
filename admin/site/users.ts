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

export function findUserName(uid: number): string {
  return readUsers().find((user) => user.uid === uid)?.name ?? String(uid);
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
