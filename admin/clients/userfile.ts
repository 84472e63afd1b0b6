// The user file as httpd reads it: lists users, adds and removes lines. Other lines keep every
// byte. htpasswd computes bcrypt and receives the password on stdin.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { isClientId } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import { runProgram } from '../site/programs.ts';

/** bcrypt ignores further bytes without notice. */
const MAX_PASSWORD_BYTES = 72;

export interface UserLine {
  name: string;
  scheme: 'bcrypt' | 'sha1' | 'md5' | 'other';
}

/**
 * The users in a file; of two lines with the same name, httpd uses the first. Empty when the file
 * does not exist. Throws Failure `failed`.
 */
export function readUserFile(path: string): UserLine[] {
  const users = new Map<string, UserLine>();
  for (const { name, hash } of readEntries(path)) {
    if (name !== undefined && !users.has(name)) users.set(name, { name: decodeName(name), scheme: findScheme(hash) });
  }
  return [...users.values()];
}

/** A name that is a client id, at the beginning of a line. */
const PLAIN_ID = /[A-Za-z0-9_-]{1,64}(?=:)/y;

/**
 * The users in a file whose names are client ids, sorted, without parsing the rest of their lines.
 * Empty when the file does not exist. Throws Failure `failed`.
 */
export function readClientIds(path: string): string[] {
  const text = readText(path);
  // httpd joins a line that ends in a backslash with the next one.
  const ids = text.includes('\\') ? readUserFile(path).flatMap(({ name }) => clientIdOf(name)) : listIds(text);
  ids.sort();
  return ids.filter((id, index) => index === 0 || id !== ids[index - 1]);
}

/** The client ids in a text without lines that continue. */
function listIds(text: string): string[] {
  const ids: string[] = [];
  for (let at = 0; at < text.length; ) {
    PLAIN_ID.lastIndex = at;
    const isPlain = PLAIN_ID.test(text);
    const end = text.indexOf('\n', Math.max(at, PLAIN_ID.lastIndex));
    const next = end < 0 ? text.length : end + 1;
    if (isPlain) ids.push(text.slice(at, PLAIN_ID.lastIndex));
    else ids.push(...clientIdOf(parseEntry(text.slice(at, next)).name));
    at = next;
  }
  return ids;
}

const clientIdOf = (name: string | undefined): string[] => (name !== undefined && isClientId(name) ? [name] : []);

/** Decodes a name for people, and for comparison with client ids, which are ASCII. */
function decodeName(bytes: string): string {
  // A quick test, because a decoder for each name takes most of the time for a large file.
  if (/^[\x20-\x7e]*$/.test(bytes)) return bytes;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(bytes, 'latin1'));
  } catch {
    return bytes;
  }
}

function findScheme(hash: string): UserLine['scheme'] {
  if (/^\$2[aby]\$/.test(hash)) return 'bcrypt';
  if (hash.startsWith('{SHA}')) return 'sha1';
  return hash.startsWith('$apr1$') ? 'md5' : 'other';
}

/**
 * Checks a password, one character for each byte. Throws Failure `usage` for one that webjob.conf
 * or bcrypt cannot hold, with a message that does not contain it.
 */
export function checkPassword(password: string): void {
  const bytes = password.length;
  if (bytes === 0 || bytes > MAX_PASSWORD_BYTES)
    throw new Failure('usage', `password must be 1 to ${MAX_PASSWORD_BYTES} bytes (got ${bytes})`);
  if (/[\x00-\x1f\x7f#]/.test(password) || /^[ \t]|[ \t]$/.test(password))
    throw new Failure(
      'usage',
      'the password contains a number sign, a control character, or a space at either end',
      'webjob.conf cannot represent it',
    );
}

/** Sets a user's password, one character for each byte, replacing an earlier one. */
export function setUser(path: string, name: string, password: string): void {
  checkPassword(password);
  const line = runProgram('htpasswd', ['-niB', name], { input: Buffer.from(`${password}\n`, 'latin1') }).trim();
  if (!line.startsWith(`${name}:$2`)) throw new Failure('failed', 'htpasswd did not return a bcrypt hash');
  changeEntries(path, (entries) => `${joinOthers(entries, name)}${line}\n`);
}

/** Removes a user; false when there was none. */
export function removeUser(path: string, name: string): boolean {
  if (!existsSync(path)) return false;
  return changeEntries(path, (entries) =>
    entries.some((entry) => entry.name === name) ? joinOthers(entries, name) : undefined,
  );
}

/**
 * The lines of all other users, ended so that a line can be appended: after a backslash, it would
 * continue the last one.
 */
function joinOthers(entries: readonly Entry[], name: string): string {
  const text = entries.map((entry) => (entry.name === name ? '' : entry.raw)).join('');
  const ended = text === '' || text.endsWith('\n') ? text : `${text}\n`;
  return /\\\r?\n$/.test(ended) ? `${ended}\n` : ended;
}

/**
 * Changes the file, keeping owner and mode, because the web user reads it through its group. False
 * when nothing changes.
 */
function changeEntries(path: string, change: (entries: readonly Entry[]) => string | undefined): boolean {
  try {
    return withLock(path, () => {
      const { mode, uid, gid } = statSync(path);
      removeUnfinished(path);
      const text = change(readEntries(path));
      if (text === undefined) return false;
      const owner = process.getuid?.() === 0 ? { uid, gid } : undefined;
      replaceFile(path, Buffer.from(text, 'latin1'), { mode: mode & 0o777, owner });
      return true;
    });
  } catch (error) {
    // A lock that cannot be created beside the file means that the file cannot be replaced either.
    const reason = error instanceof Failure ? error.cause : error;
    if (reason === undefined) throw error;
    const code = errorCode(reason);
    const hint = code === 'ENOENT' ? 'webjobctl init creates it; if it is elsewhere, use --user-file FILE' : undefined;
    throw new Failure('failed', `the user file ${path} cannot be changed: ${code}`, hint);
  }
}

/**
 * A line as httpd reads it, joined with the next one by a backslash at its end. One character for
 * each byte.
 */
interface Entry {
  raw: string;
  /** The user's name; undefined for a comment or an empty line. */
  name: string | undefined;
  hash: string;
}

/** Reads the lines; empty when the file does not exist. */
function readEntries(path: string): Entry[] {
  return (readText(path).match(/(?:[^\n]*\\\r?\n)*[^\n]*(?:\n|$)/g) ?? []).filter(Boolean).map(parseEntry);
}

/** Reads the file; empty when it does not exist. Throws Failure `failed`. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') return '';
    throw new Failure('failed', `the user file ${path} cannot be read: ${code}`);
  }
}

/** httpd trims what isspace(3) counts as blank at both ends. */
function parseEntry(raw: string): Entry {
  const line = raw.replace(/\\\r?\n/g, '').replace(/^[ \t-\r]+|[ \t-\r]+$/g, '');
  if (line === '' || line.startsWith('#')) return { raw, name: undefined, hash: '' };
  const [name = '', hash = ''] = line.split(/:+/);
  return { raw, name, hash };
}
