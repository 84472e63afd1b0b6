// The user that runs scripts of a web server, and what that user can access.
import { chmodSync, constants, copyFileSync, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/**
 * The user that an httpd started by root switches to; undefined when none of the usual ones exists.
 */
export function findWebUser(): { name: string; uid: number; gid: number } | undefined {
  for (const name of ['www-data', 'apache', '_www', 'www', 'nobody']) {
    const entry = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find((line) => line.startsWith(`${name}:`));
    const [, , uid, gid] = entry?.split(':') ?? [];
    if (uid && gid) return { name, uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}

/**
 * A path at which every user can run the program: its own or, for root, that of a copy in
 * `folder()` when the file or a parent directory is closed to others. Web users start scripts, and
 * root's checkouts are often closed.
 */
export function openProgram(program: string, folder: () => string): string {
  if (process.getuid?.() !== 0 || isOpenToAll(program)) return program;
  const copy = join(folder(), basename(program));
  if (!existsSync(copy)) copyFileSync(program, copy, constants.COPYFILE_FICLONE);
  chmodSync(copy, 0o755);
  return copy;
}

/**
 * Makes a copied directory readable for every user, and programs executable, whatever the umask was
 * at its checkout.
 */
export function openTree(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(path, 0o755);
    else if (entry.isFile()) chmodSync(path, statSync(path).mode & 0o100 ? 0o755 : 0o644);
  }
}

function isOpenToAll(path: string): boolean {
  if ((statSync(path).mode & 0o001) === 0) return false;
  return path === '/' || isOpenToAll(dirname(path));
}
