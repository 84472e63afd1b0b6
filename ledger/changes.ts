// The changes in a store that were not pushed to another database yet: units and clients, in the
// order in which they changed. SQLite triggers note them; the triggers exist only in a store that
// is pushed, so that other stores pay nothing.
import type { Database } from './sqlite.ts';

/** `unit` stands for the jobs of a unit, `client` for the sums of a client. */
export type ChangeKind = 'unit' | 'client';

export interface Change {
  /** Increases with every change and is never used twice. */
  number: number;
  name: string;
}

const note = (kind: ChangeKind, name: string): string =>
  `INSERT OR REPLACE INTO changes (kind, name) VALUES ('${kind}', ${name});`;

/**
 * The queue of changes. With AUTOINCREMENT, a row that changes again while it is being pushed gets
 * a new number, even if its old number was the last.
 */
const QUEUE = `
CREATE TABLE IF NOT EXISTS changes (
  number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (kind, name)
);
CREATE TRIGGER IF NOT EXISTS changes_new_job AFTER INSERT ON jobs BEGIN ${note('unit', 'NEW.unit')} END;
CREATE TRIGGER IF NOT EXISTS changes_gone_job AFTER DELETE ON jobs BEGIN ${note('unit', 'OLD.unit')} END;
CREATE TRIGGER IF NOT EXISTS changes_new_sum AFTER INSERT ON sums BEGIN ${note('client', 'NEW.client')} END;
CREATE TRIGGER IF NOT EXISTS changes_sum AFTER UPDATE ON sums BEGIN ${note('client', 'NEW.client')} END;
CREATE TRIGGER IF NOT EXISTS changes_gone_sum AFTER DELETE ON sums BEGIN ${note('client', 'OLD.client')} END;
`;

/** The database to which a store was pushed, and which part was pushed. */
export interface Told {
  database: string;
  /** The id of the push that began with the whole store. */
  telling: string;
  /** The last change that was pushed. */
  number: number;
  /**
   * The last row of `jobs` when the push of the whole store began; later rows are among the
   * changes.
   */
  lastRow: number;
}

/** Reads how far the store was pushed; undefined when it never was. */
export function readTold(database: Database): Told | undefined {
  const value = database.prepare("SELECT value FROM facts WHERE name = 'told'").get()?.value;
  return value === undefined ? undefined : (JSON.parse(value as string) as Told);
}

/**
 * Begins to note changes, with all existing clients among them. The rows of `jobs` that exist now
 * end at `lastRow`.
 */
export function beginTelling(database: Database, given: Pick<Told, 'database' | 'telling'>): Told {
  database.exec(`BEGIN IMMEDIATE; ${QUEUE}`);
  try {
    database.exec("DELETE FROM changes; INSERT INTO changes (kind, name) SELECT 'client', client FROM sums");
    const lastRow = Number(database.prepare('SELECT max(id) AS id FROM jobs').get()?.id ?? 0);
    const told = { ...given, number: 0, lastRow };
    saveTold(database, told);
    database.exec('COMMIT');
    return told;
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}

function saveTold(database: Database, told: Told): void {
  database.prepare("INSERT OR REPLACE INTO facts VALUES ('told', ?)").run(JSON.stringify(told));
}

/** The next changes of a kind, oldest first. */
export function nextChanges(database: Database, kind: ChangeKind, limit: number): Change[] {
  return database
    .prepare('SELECT number, name FROM changes WHERE kind = ? ORDER BY number LIMIT ?')
    .all(kind, limit) as unknown as Change[];
}

export function countChanges(database: Database): number {
  return Number(database.prepare('SELECT count(*) AS count FROM changes').get()?.count);
}

/** Removes changes that were pushed. A row that has changed again since keeps its new number. */
export function endChanges(database: Database, kind: ChangeKind, changes: readonly Change[]): void {
  const told = readTold(database);
  const last = changes.at(-1)?.number;
  if (!told || last === undefined) return;
  const end = database.prepare('DELETE FROM changes WHERE kind = ? AND number = ?');
  database.exec('BEGIN IMMEDIATE');
  try {
    for (const { number } of changes) end.run(kind, number);
    saveTold(database, { ...told, number: Math.max(told.number, last) });
    database.exec('COMMIT');
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}
