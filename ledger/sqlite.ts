// Opens SQLite databases with what Node has built in.
import type { DatabaseSync } from 'node:sqlite';
import { Failure } from '../cli/failure.ts';

export type Database = DatabaseSync;

/** `webj`: what tells our databases from those of others. */
export const APPLICATION_ID = 0x7765626a;

/** Who only asks has the files to go to, and does not wait for one who writes. */
const TIMEOUT_MS = { read: 200, write: 5000 };

/** Throws Failure `failed` on a Node that has none, and for a file that is no database. */
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
  if (!found) throw new Failure('failed', `this needs Node 22.13 or later, and here runs ${process.version}`);
  return found;
}

/** Node warns that its SQLite is an experiment; of this one thing, and of nothing else, the operator need not hear. */
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
