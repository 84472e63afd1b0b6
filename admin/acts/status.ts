// The status of a site: facts that only root can collect and that the view shows. `webjobctl acts`
// leaves them in a small database beside its answers; the view reads one page of it at a time.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, openDatabase } from '../../ledger/sqlite.ts';

/** The parts of a status; each may fail without the others. */
export const STATUS_PARTS = ['certificates', 'expectations', 'verification', 'rollouts', 'assignments'] as const;
export type StatusPart = (typeof STATUS_PARTS)[number];

export const STATUS_TABLES = `
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE problems (
  id INTEGER PRIMARY KEY, part TEXT NOT NULL, client TEXT, command TEXT, kind TEXT NOT NULL, what TEXT NOT NULL, job TEXT
);
CREATE TABLE assignments (number INTEGER PRIMARY KEY, facts TEXT NOT NULL, states TEXT);
CREATE TABLE progress (
  assignment INTEGER NOT NULL, client TEXT NOT NULL, state TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY KEY (assignment, client)
) WITHOUT ROWID;
`;
/** Created after the tables are filled. */
export const STATUS_INDEXES = `
CREATE INDEX problems_part ON problems (part, id);
CREATE INDEX problems_client ON problems (client, part) WHERE client IS NOT NULL;
CREATE INDEX progress_state ON progress (assignment, state, client);
`;

export function statusFile(answers: string): string {
  return join(answers, 'status.sqlite');
}

/** A problem that root found. */
export interface StatusProblem {
  id: number;
  /** The client that has the problem; null for a problem of the site. */
  client: string | null;
  command: string | null;
  kind: string;
  what: string;
  job: string | null;
}

/** An assignment in the form of `webjobctl --json assign list`. */
export interface StatusAssignment {
  number: number;
  facts: Record<string, unknown> & { command: string; args: string[]; to: string[]; state: string };
  /** The number of clients in each state; null where root no longer follows them. */
  states: Record<string, number> | null;
}

/** A client of an assignment in the form of `webjobctl --json assign show`. */
export interface StatusClient {
  client: string;
  state: string;
  due: string | null;
  jobId: string | null;
  exit: string | null;
  webjobExit: number | null;
}

/** A status that is open for reading. */
export class Status {
  readonly #database: Database;
  /** When root collected the facts. */
  readonly at: Date;

  constructor(database: Database) {
    this.#database = database;
    this.at = new Date(this.#fact('at') ?? Number.NaN);
  }

  #fact(name: string): string | undefined {
    return this.#database.prepare('SELECT value FROM facts WHERE name = ?').get(name)?.value as string | undefined;
  }

  /**
   * The time of the last verification in milliseconds, and the seconds between two verifications;
   * undefined where none is configured.
   */
  get verified(): { at: number | null; every: number } | undefined {
    const value = this.#fact('verified');
    return value === undefined ? undefined : JSON.parse(value);
  }

  /** The golden runs that the rules of the site name. */
  get goldens(): { who: string; command: string; job: string }[] {
    return JSON.parse(this.#fact('goldens') ?? '[]');
  }

  /** Why a part could not be read. */
  failureOf(part: StatusPart): string | undefined {
    return this.#fact(`failed ${part}`);
  }

  count(part: StatusPart): number {
    return Number(this.#database.prepare('SELECT count(*) AS count FROM problems WHERE part = ?').get(part)?.count);
  }

  problems(part: StatusPart, after: number, limit: number): StatusProblem[] {
    return this.#database
      .prepare(
        'SELECT id, client, command, kind, what, job FROM problems WHERE part = ? AND id > ? ORDER BY id LIMIT ?',
      )
      .all(part, after, limit) as unknown as StatusProblem[];
  }

  problemsOf(client: string, part: StatusPart, limit: number): StatusProblem[] {
    return this.#database
      .prepare('SELECT id, client, command, kind, what, job FROM problems WHERE client = ? AND part = ? LIMIT ?')
      .all(client, part, limit) as unknown as StatusProblem[];
  }

  /** Assignments with numbers below `before`, newest first. */
  assignments(before: number, limit: number): StatusAssignment[] {
    return this.#database
      .prepare('SELECT number, facts, states FROM assignments WHERE number < ? ORDER BY number DESC LIMIT ?')
      .all(before, limit)
      .map(parseAssignment);
  }

  assignment(number: number): StatusAssignment | undefined {
    const row = this.#database.prepare('SELECT number, facts, states FROM assignments WHERE number = ?').get(number);
    return row && parseAssignment(row);
  }

  /** Clients of an assignment by name, after `after`. */
  clients(assignment: number, state: string | undefined, after: string, limit: number): StatusClient[] {
    const only = state === undefined ? '' : 'AND state = ?';
    return this.#database
      .prepare(`SELECT facts FROM progress WHERE assignment = ? ${only} AND client > ? ORDER BY client LIMIT ?`)
      .all(assignment, ...(state === undefined ? [] : [state]), after, limit)
      .map(({ facts }) => JSON.parse(facts as string));
  }

  close(): void {
    this.#database.close();
  }
}

function parseAssignment({ number, facts, states }: Record<string, unknown>): StatusAssignment {
  return {
    number: Number(number),
    facts: JSON.parse(facts as string),
    states: states === null ? null : JSON.parse(states as string),
  };
}

let kept: { mark: string; status: Status } | undefined;

/**
 * Opens the newest status; undefined when there is none that this user may read. It stays open
 * until another one replaces it. Throws Failure `failed`.
 */
export function openStatus(answers: string): Status | undefined {
  const path = statusFile(answers);
  let mark = '';
  try {
    const { dev, ino, mtimeMs } = statSync(path);
    mark = `${path} ${dev} ${ino} ${mtimeMs}`;
  } catch {
    // Neither a missing file nor a directory of another user is an error: the page says how to set
    // up the status.
  }
  if (kept?.mark === mark) return kept.status;
  kept?.status.close();
  kept = mark === '' ? undefined : { mark, status: new Status(openDatabase(path, true)) };
  return kept?.status;
}
