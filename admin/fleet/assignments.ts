// The files of assignments: active ones, which the server reads, and past ones.
import { existsSync, readFileSync, statSync } from 'node:fs';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { type Access, errorCode, replaceFile } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { type Assignment, formatAssignment, parseAssignments } from '../../fleet/assignment.ts';
import { fleetPaths } from '../../fleet/paths.ts';
import { withSiteLock } from '../site/site-lock.ts';
import { findUserById, isRoot } from '../site/users.ts';

/** The assignments of a site. */
export interface Book {
  /** Assignments that clients may still fetch. */
  active: Assignment[];
  /** Assignments that are cancelled or over. */
  past: Assignment[];
}

const PAST = '.past';

/** Reads the assignments. Throws Failure `failed`. */
export function readBook(settings: ServerSettings): Book {
  const { assignments } = fleetPaths(settings);
  return { active: readFile(assignments), past: readFile(`${assignments}${PAST}`) };
}

function readFile(path: string): Assignment[] {
  try {
    return existsSync(path) ? parseAssignments(readFileSync(path, 'utf8')) : [];
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : errorCode(error);
    throw new Failure(
      'failed',
      `${path} cannot be read: ${reason}`,
      `mv ${quote(path)} ${quote(`${path}.bad`)}  # or correct it`,
    );
  }
}

/**
 * Changes the assignments under a lock. Those that are over are moved to the past ones first. The
 * files are written in an order in which a kill leaves an assignment in both of them, never in
 * none. Throws Failure `failed`.
 */
export async function changeBook<Result>(settings: ServerSettings, change: (book: Book) => Result): Promise<Result> {
  return await withSiteLock(settings, 'assignments', () => {
    const book = readBook(settings);
    const known = new Set(book.active.map(({ id }) => id));
    book.past = book.past.filter(({ id }) => !known.has(id));
    const now = Math.floor(Date.now() / 1000);
    const result = change(book);
    const isOver = ({ state, until }: Assignment): boolean =>
      state === 'cancelled' || (until !== undefined && now >= until);
    const over = book.active.filter(isOver);
    const { assignments } = fleetPaths(settings);
    const access = findAccess(settings);
    if (over.length > 0) replaceFile(`${assignments}${PAST}`, format([...book.past, ...over]), access);
    replaceFile(assignments, format(book.active.filter((one) => !isOver(one))), access);
    return result;
  });
}

/**
 * Arguments may be confidential: root gives the file only to the web user, who owns
 * DynamicDirectory.
 */
function findAccess({ dynamicDirectory }: ServerSettings): Access {
  const { uid } = statSync(dynamicDirectory, { throwIfNoEntry: false }) ?? {};
  const webUser = isRoot() && uid !== undefined && uid !== 0 ? findUserById(uid) : undefined;
  return webUser ? { mode: 0o640, owner: { uid: 0, gid: webUser.gid } } : { mode: 0o644 };
}

function format(list: readonly Assignment[]): string {
  return list.map((assignment) => `${formatAssignment(assignment)}\n`).join('');
}

/** The number of the next assignment. */
export function nextId({ active, past }: Book): string {
  return String(Math.max(0, ...[...active, ...past].map(({ id }) => Number(id))) + 1);
}

/** Finds an assignment by its number. Throws Failure `findings` when there is none. */
export function findAssignment({ active, past }: Book, id: string): Assignment {
  const found = [...active, ...past].find((assignment) => assignment.id === id);
  if (!found) throw new Failure('findings', `there is no assignment ${id}`, 'webjobctl assign list --all');
  return found;
}
