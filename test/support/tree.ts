// The directory tree of one test server, laid out as in the article: made again for every vector,
// and inspected afterwards. Works with files only.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { SetupStep } from './vectors.ts';

/**
 * The user that runs the web server's scripts; undefined when the tests do not run as root, and
 * scripts run as the current user.
 */
export interface WebUser {
  uid: number;
  gid: number;
}

/** The 19 bytes of the article's `host.sh`. */
export const HOST_SH = '#!/bin/sh\nhostname\n';

/**
 * Debian's web user, because with root's rights no mode would restrict a script. Throws when
 * there is no such user.
 */
export function findWebUser(): WebUser | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const entry = /^www-data:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8'));
  if (!entry) throw new Error('tests that run as root need a user www-data to run scripts as');
  return { uid: Number(entry[1]), gid: Number(entry[2]) };
}

/**
 * Makes `base` again: an empty locker, an empty log, and `host.sh` for client1; then applies the
 * steps.
 */
export function resetTree(base: string, user: WebUser | undefined, steps: readonly SetupStep[] = []): void {
  removeTree(base);
  for (const folder of ['incoming', 'logfiles', 'profiles/client1']) mkdirSync(join(base, folder), { recursive: true });
  writeFileSync(join(base, 'logfiles/nph-webjob.log'), '');
  writeFileSync(join(base, 'profiles/client1/host.sh'), HOST_SH);
  if (user) {
    chownSync(join(base, 'incoming'), user.uid, user.gid);
    chownSync(join(base, 'logfiles/nph-webjob.log'), user.uid, user.gid);
  }
  for (const step of steps) {
    if (step.kind === 'remove') rmSync(join(base, step.path), { recursive: true });
    else takeStep(base, user, step);
  }
}

function takeStep(base: string, user: WebUser | undefined, step: SetupStep): void {
  const path = join(base, step.path);
  mkdirSync(dirname(path), { recursive: true });
  if (step.kind === 'file') writeFileSync(path, step.content, 'latin1');
  if (step.kind === 'folder') mkdirSync(path, { recursive: true });
  if (step.kind === 'link') symlinkSync(step.content, path);
  if (step.kind === 'fifo') spawnSync('mkfifo', [path]);
  if (user && step.path.startsWith('incoming')) lchownSync(path, user.uid, user.gid);
  if (step.mode !== undefined) chmodSync(path, step.mode);
}

/** Removes a tree whatever the modes of its directories. */
export function removeTree(base: string): void {
  if (!existsSync(base)) return;
  openFolders(base);
  rmSync(base, { recursive: true });
}

function openFolders(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) openFolders(join(folder, entry.name));
  }
}

/**
 * Every file below `folder` by relative path, bytes as latin1; a link as `-> target`, anything else
 * as its kind.
 */
export function readFiles(folder: string): Map<string, string> {
  const files = new Map<string, string>();
  if (!existsSync(folder)) return files;
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(folder.length + 1), describeFile(path));
  }
  return files;
}

function describeFile(path: string): string {
  const found = lstatSync(path);
  if (found.isSymbolicLink()) return `-> ${readlinkSync(path)}`;
  return found.isFile() ? readFileSync(path, 'latin1') : 'neither file nor folder';
}

/** The lines of the log so far. Throws when the last one is incomplete. */
export function readLog(base: string): string[] {
  const path = join(base, 'logfiles/nph-webjob.log');
  const lines = existsSync(path) ? readFileSync(path, 'latin1').split('\n') : [''];
  if (lines.pop() !== '') throw new Error('the last line of nph-webjob.log has no newline');
  return lines;
}
