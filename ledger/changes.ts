// What of a store another database was not yet told: the units and clients that changed, in the order in which they did. SQLite itself notes
// them by triggers, which only a store has that is pushed somewhere: all others pay nothing.
import type { Database } from './sqlite.ts';

/** `unit` has the unit of jobs, `client` the sums of a client. */
export type ChangeKind = 'unit' | 'client';

export interface Change {
  /** Goes up with every change; no number comes twice. */
  number: number;
  name: string;
}

const note = (kind: ChangeKind, name: string): string =>
  `INSERT OR REPLACE INTO changes (kind, name) VALUES ('${kind}', ${name});`;

/** AUTOINCREMENT: what changes again while it is told gets another number, also when it was the last. */
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

/** To which database a store was told, and how far. */
export interface Told {
  database: string;
  /** Which telling of everything this is. */
  telling: string;
  /** The last change that was told. */
  number: number;
  /** The last row of jobs when it began; what came later is among the changes. */
  lastRow: number;
}

/** What the store says it has told; undefined when it never told anything. */
export function readTold(database: Database): Told | undefined {
  const value = database.prepare("SELECT value FROM facts WHERE name = 'told'").get()?.value;
  return value === undefined ? undefined : (JSON.parse(value as string) as Told);
}

/** From now on whatever changes is noted; what is there already are the rows up to `lastRow`, and all clients. */
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

/** The next of what changed, the oldest change first. */
export function nextChanges(database: Database, kind: ChangeKind, limit: number): Change[] {
  return database
    .prepare('SELECT number, name FROM changes WHERE kind = ? ORDER BY number LIMIT ?')
    .all(kind, limit) as unknown as Change[];
}

export function countChanges(database: Database): number {
  return Number(database.prepare('SELECT count(*) AS count FROM changes').get()?.count);
}

/** These were told; what has changed again since keeps its new number. */
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
