// The file of users that httpd reads: who is in it, and how a line gets in and out. bcrypt is htpasswd's; a password travels on its stdin.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { runProgram } from '../site/programs.ts';

/** What bcrypt looks at; more would be cut off without a word. */
const MAX_PASSWORD_BYTES = 72;

export interface UserLine {
  name: string;
  scheme: 'bcrypt' | 'sha1' | 'md5' | 'other';
}

/** Nobody when there is no file. Throws Failure `failed`. */
export function readUserFile(path: string): UserLine[] {
  return readLines(path).flatMap((line) => {
    const [, name, hash = ''] = /^([^:#]+):(.*)$/.exec(line) ?? [];
    return name === undefined ? [] : [{ name, scheme: findScheme(hash) }];
  });
}

function findScheme(hash: string): UserLine['scheme'] {
  if (/^\$2[aby]\$/.test(hash)) return 'bcrypt';
  if (hash.startsWith('{SHA}')) return 'sha1';
  return hash.startsWith('$apr1$') ? 'md5' : 'other';
}

/** Throws Failure `usage` for a password, a byte a character, that webjob.conf or bcrypt cannot hold; never says what it is. */
export function checkPassword(password: string): void {
  const bytes = password.length;
  if (bytes === 0 || bytes > MAX_PASSWORD_BYTES)
    throw new Failure('usage', `password must be 1 to ${MAX_PASSWORD_BYTES} bytes (got ${bytes})`);
  if (/[\x00-\x1f\x7f#]/.test(password) || /^[ \t]|[ \t]$/.test(password))
    throw new Failure(
      'usage',
      'the password holds a number sign, a control character, or a blank at an end',
      'webjob.conf could not hold it',
    );
}

/** Sets a user's password, a byte a character, in the place of an earlier one. */
export function setUser(path: string, name: string, password: string): void {
  checkPassword(password);
  const line = runProgram('htpasswd', ['-niB', name], { input: Buffer.from(`${password}\n`, 'latin1') }).trim();
  if (!line.startsWith(`${name}:$2`)) throw new Failure('failed', 'htpasswd made no bcrypt of the password');
  changeLines(path, (lines) => [...lines.filter((present) => !isOf(present, name)), line]);
}

/** False when there was none. */
export function removeUser(path: string, name: string): boolean {
  if (!existsSync(path)) return false;
  return changeLines(path, (lines) => lines.filter((present) => !isOf(present, name)));
}

const isOf = (line: string, name: string): boolean => line.startsWith(`${name}:`);

/** Owner and mode stay: the web user reads it by its group. False when nothing is to be changed. */
function changeLines(path: string, change: (lines: string[]) => string[]): boolean {
  try {
    return withLock(path, () => {
      const { mode, uid, gid } = statSync(path);
      removeUnfinished(path);
      const present = readLines(path);
      const lines = change(present);
      if (lines.join('\n') === present.join('\n')) return false;
      const owner = process.getuid?.() === 0 ? { uid, gid } : undefined;
      replaceFile(path, lines.map((line) => `${line}\n`).join(''), { mode: mode & 0o777, owner });
      return true;
    });
  } catch (error) {
    // A lock beside it that cannot be made says the same of the file.
    const reason = error instanceof Failure ? error.cause : error;
    if (reason === undefined) throw error;
    const code = errorCode(reason);
    const hint = code === 'ENOENT' ? 'webjobctl init makes it; --user-file says where else it is' : undefined;
    throw new Failure('failed', `the user file ${path} cannot be changed: ${code}`, hint);
  }
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') return [];
    throw new Failure('failed', `the user file ${path} cannot be read: ${code}`);
  }
}
