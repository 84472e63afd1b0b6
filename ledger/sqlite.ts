// Opens SQLite databases with Node's built-in module.
import type { DatabaseSync } from 'node:sqlite';
import { Failure } from '../cli/failure.ts';

export type Database = DatabaseSync;

/** `webj`, the application_id that distinguishes our databases from others. */
export const APPLICATION_ID = 0x7765626a;

/** Readers can fall back to the files, so they do not wait long for a writer. */
const TIMEOUT_MS = { read: 200, write: 5000 };

/**
 * Opens a database. Throws Failure `failed` for a Node without SQLite, and for a file that is not a
 * database.
 */
export function openDatabase(path: string, readOnly: boolean): Database {
  const { DatabaseSync } = loadSqlite();
  try {
    return new DatabaseSync(path, { readOnly, timeout: readOnly ? TIMEOUT_MS.read : TIMEOUT_MS.write });
  } catch (error) {
    throw new Failure('failed', `${path}: ${(error as Error).message}`, undefined, { cause: error });
  }
}

export function hasSqlite(): boolean {
  return findSqlite() !== undefined;
}

function loadSqlite(): typeof import('node:sqlite') {
  const found = findSqlite();
  if (!found) throw new Failure('failed', `requires Node 22.13 or later (running ${process.version})`);
  return found;
}

/**
 * Node warns that its SQLite is experimental. Only this warning is suppressed, because it is of no
 * use to an operator.
 */
function findSqlite(): typeof import('node:sqlite') | undefined {
  const { emitWarning } = process;
  process.emitWarning = ((warning: string | Error, ...rest: never[]) => {
    if (!String(warning).includes('SQLite')) emitWarning.call(process, warning, ...rest);
  }) as typeof emitWarning;
  try {
    return process.getBuiltinModule('node:sqlite');
  } finally {
    process.emitWarning = emitWarning;
  }
}
