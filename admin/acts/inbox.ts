// Reads the inbox as root. The view's user owns it and can put anything there at any moment: links,
// FIFOs, hard links to other users' files, endless files. So the directory is held open, each file
// is opened in it without following a link, and the open file is checked instead of its name.
import {
  closeSync,
  constants,
  fstatSync,
  opendirSync,
  openSync,
  readSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { errorCode, requireRootsOwn } from '../../cli/files.ts';
import { findUserById, isRoot, mayAccess, type User } from '../site/users.ts';
import {
  ACT_LIFETIME_MS,
  type ActRequest,
  MAX_REQUEST_BYTES,
  parseActId,
  parseRequest,
  subjectOf,
  tagOf,
} from './request.ts';

/** Further names are left for the next run. */
const MAX_NAMES = 2000;
/** Tolerated differences between clocks. */
const AHEAD_MS = 300_000;
/** A newer file may still be incomplete. */
const WRITING_MS = 600_000;

export interface Asked {
  id: string;
  /** The time of the request file; the id contains the time of the form. */
  at: Date;
  request: ActRequest;
}

export interface Inbox {
  /** The owner of the inbox. */
  owner: Pick<User, 'uid' | 'gid'>;
  /** The requests in it, oldest first. Everything else is removed and reported. */
  read(now: number, report: (message: string) => void): Asked[];
  remove(id: string): void;
  close(): void;
}

/** Opens an inbox. Throws Failure `failed` for one that does not exist or is not safe to read. */
export function openInbox(path: string, locker: string): Inbox {
  requireRootsOwn(dirname(path));
  const fd = openFolder(path);
  try {
    const { uid, gid, mode } = fstatSync(fd);
    if ((mode & 0o022) !== 0) throw unsafe(path, 'users other than its owner can write to it', `chmod 700 ${path}`);
    if (isRoot()) checkOwner(path, uid, locker);
    // Without the dot, the path would name the link to the directory.
    const folder = `/proc/self/fd/${fd}/.`;
    return {
      owner: { uid, gid },
      read: (now, report) => readAll(folder, uid, now, report),
      remove: (id) => unlinkSync(`${folder}/${id}.json`),
      close: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openFolder(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (error) {
    throw new Failure(
      'failed',
      `${path} cannot be opened: ${errorCode(error)}`,
      'docs/guide/view.md says how to make it',
    );
  }
}

function unsafe(path: string, why: string, hint: string): Failure {
  return new Failure('failed', `${path} is not safe: ${why}`, hint);
}

/**
 * A user who can write to the locker could forge evidence, and then also record that it was
 * verified and released.
 */
function checkOwner(path: string, uid: number, locker: string): void {
  const owner = findUserById(uid);
  const hint = 'give it to the user of the persistent process, as docs/guide/view.md says';
  if (uid === 0) throw unsafe(path, 'it belongs to root', hint);
  if (!owner) throw unsafe(path, `its owner, user id ${uid}, does not exist`, hint);
  if (statSync(locker).uid === uid || mayAccess(owner, locker, 'write'))
    throw unsafe(path, `it belongs to ${owner.name}, who can write to the locker`, hint);
}

function readAll(folder: string, owner: number, now: number, report: (message: string) => void): Asked[] {
  const asked: Asked[] = [];
  for (const name of listNames(folder)) {
    const id = /^(.*)\.json$/.exec(name)?.[1] ?? '';
    const parsed = parseActId(id);
    if (!parsed && isBeingWritten(name, now)) continue;
    try {
      if (!parsed) throw new SyntaxError('its name is not that of a request');
      const { at, tag } = parsed;
      if (at > now + AHEAD_MS || at < now - ACT_LIFETIME_MS)
        throw new SyntaxError('its time is too old or in the future');
      const { text, askedAt } = readFile(`${folder}/${name}`, owner);
      const request = parseRequest(text);
      if (tagOf(subjectOf(request)) !== tag) throw new SyntaxError('its name is that of another job');
      asked.push({ id, at: askedAt, request });
    } catch (error) {
      report(`removed ${name} from the inbox, which is not a request: ${reasonOf(error)}`);
      removeAny(`${folder}/${name}`, report);
    }
  }
  return asked.sort((a, b) => a.at.getTime() - b.at.getTime() || (a.id < b.id ? -1 : 1));
}

function reasonOf(error: unknown): string {
  if (error instanceof SyntaxError) return error.message;
  if ((error as NodeJS.ErrnoException).syscall !== undefined) return errorCode(error);
  throw error;
}

function listNames(folder: string): string[] {
  const names: string[] = [];
  const listed = opendirSync(folder);
  try {
    for (let entry = listed.readSync(); entry && names.length < MAX_NAMES; entry = listed.readSync())
      names.push(entry.name);
  } finally {
    listed.closeSync();
  }
  return names;
}

/** The view renames a file to its final name when it is complete. */
function isBeingWritten(name: string, now: number): boolean {
  const { at } = parseActId(/^\.(.*)\.new$/.exec(name)?.[1] ?? '') ?? {};
  return at !== undefined && Math.abs(now - at) < WRITING_MS;
}

/**
 * Reads a small file with a single link that belongs to the owner of the inbox. Throws SyntaxError
 * for anything else.
 */
function readFile(path: string, owner: number): { text: string; askedAt: Date } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const found = fstatSync(fd);
    if (!found.isFile()) throw new SyntaxError('it is not a regular file');
    if (found.nlink !== 1) throw new SyntaxError('it has other hard links');
    if (found.uid !== owner) throw new SyntaxError('it belongs to another user');
    const buffer = Buffer.alloc(MAX_REQUEST_BYTES + 1);
    let length = 0;
    for (let count = -1; count !== 0 && length < buffer.length; length += count)
      count = readSync(fd, buffer, length, buffer.length - length, length);
    if (length > MAX_REQUEST_BYTES) throw new SyntaxError('it is too long');
    const text = new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, length));
    return { text, askedAt: found.mtime };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_ENCODING_INVALID_ENCODED_DATA')
      throw new SyntaxError('it is not UTF-8');
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Removes only the name; the target of a link stays. */
function removeAny(path: string, report: (message: string) => void): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return;
    try {
      rmdirSync(path);
    } catch {
      report(`${path.slice(path.lastIndexOf('/') + 1)} in the inbox cannot be removed: ${errorCode(error)}`);
    }
  }
}
