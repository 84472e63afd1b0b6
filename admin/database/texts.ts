// The part of a refresh that reads the locker: the texts of every group that changed, and from the same bytes whose group it is and how its run
// ended, which the jobs need. In transactions of some thousands, so that a run that is killed is not lost.
import { EXTENSIONS, type Extension, walkLocker } from 'webjob-locker';
import type { Ending } from '../history/ending.ts';
import type { KnownGroup } from '../history/known.ts';
import { readAside } from './aside.ts';
import { type FreshGroup, formatFiles, makeReader, stampGroup } from './reading.ts';
import type { Database } from './sqlite.ts';

/** Groups a transaction. */
const BATCH = 5000;

export interface ReadTexts {
  /** Every group, in the order of walkLocker. */
  groups: Map<string, KnownGroup>;
  /** How many of them were read. */
  read: number;
  removed: number;
}

interface Row {
  id: number;
  stamp: string;
  job_id: string | null;
  exit_code: number | null;
  signal: number | null;
  is_good: number | null;
  clock_skew: number | null;
}

export async function refreshTexts(
  database: Database,
  locker: string,
  maxTextBytes: number,
  advance: () => void,
): Promise<ReadTexts> {
  const find = database.prepare(
    'SELECT id, stamp, job_id, exit_code, signal, is_good, clock_skew FROM groups WHERE name = ?',
  );
  const see = database.prepare('UPDATE groups SET seen = ? WHERE id = ?');
  const last = database.prepare('SELECT max(seen) AS run, max(id) AS id FROM groups').get();
  const run = Number(last?.run ?? 0) + 1;
  const done: ReadTexts = { groups: new Map(), read: 0, removed: 0 };
  const write = makeWriter(database, run, Number(last?.id ?? 0) + 1);
  const add = (fresh: FreshGroup, id?: number): void => {
    if (++done.read % BATCH === 0) database.exec('COMMIT; BEGIN IMMEDIATE');
    const { name, jobId, ending } = fresh;
    done.groups.set(name, { name, has: parseFiles(fresh.files), jobId, ending });
    write(fresh, id);
  };
  database.exec('BEGIN IMMEDIATE');
  if (run === 1) {
    for await (const block of readAside(locker, maxTextBytes))
      for (const fresh of block) {
        advance();
        add(fresh);
      }
  } else {
    const read = makeReader(locker, maxTextBytes);
    for (const { group } of walkLocker(locker)) {
      if (!group) continue;
      advance();
      const known = find.get(group.name) as Row | undefined;
      const { stamp, jobId } = stampGroup(locker, group, known?.stamp);
      if (known?.stamp === stamp) {
        see.run(run, known.id);
        done.groups.set(group.name, { ...group, jobId: known.job_id ?? undefined, ending: parseEnding(known) });
      } else add({ name: group.name, files: formatFiles(group.has), stamp, jobId, ...read(group) }, known?.id);
    }
  }
  database.exec('COMMIT; BEGIN IMMEDIATE');
  database.prepare('DELETE FROM texts WHERE rowid IN (SELECT id FROM groups WHERE seen <> ?)').run(run);
  done.removed = Number(database.prepare('DELETE FROM groups WHERE seen <> ?').run(run).changes);
  database.exec('COMMIT');
  return done;
}

/** Writes what was read of a group, over the row of an id or into one of its own. */
function makeWriter(database: Database, run: number, nextId: number): (fresh: FreshGroup, id?: number) => void {
  const columns = ['stamp', 'whole', 'seen', 'job_id', 'exit_code', 'signal', 'is_good', 'clock_skew'];
  // No INSERT OR REPLACE: a statement that SQLite may have to take back makes FTS5 write down at once what it has.
  const insert = database.prepare(
    `INSERT INTO groups (${columns.join(', ')}, id, name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const update = database.prepare(`UPDATE groups SET ${columns.map((name) => `${name} = ?`).join(', ')} WHERE id = ?`);
  const forget = database.prepare('DELETE FROM texts WHERE rowid = ?');
  const learn = database.prepare('INSERT INTO texts (rowid, body) VALUES (?, ?)');
  return ({ name, stamp, isWhole, jobId, ending, body }, known) => {
    const id = known ?? nextId++;
    const facts = [stamp, Number(isWhole), run, jobId ?? null, ...formatEnding(ending)];
    if (known === undefined) insert.run(...facts, id, name);
    else {
      forget.run(id);
      update.run(...facts, id);
    }
    learn.run(id, body);
  };
}

function formatEnding(ending: Ending | undefined): (number | null)[] {
  if (!ending) return [null, null, null, null];
  return [ending.exitCode ?? null, ending.signal ?? null, Number(ending.isGood), ending.clockSkew ?? null];
}

function parseEnding({ exit_code: exitCode, signal, is_good: isGood, clock_skew: clockSkew }: Row): Ending | undefined {
  if (isGood === null) return undefined;
  return {
    ...{ isGood: isGood === 1, exitCode: exitCode ?? undefined, signal: signal ?? undefined },
    clockSkew: clockSkew ?? undefined,
  };
}

/** One set for all groups that have the same files. */
const sets = new Map<string, ReadonlySet<Extension>>();

function parseFiles(files: string): ReadonlySet<Extension> {
  const known = sets.get(files) ?? new Set(EXTENSIONS.filter((extension) => files.split(' ').includes(extension)));
  sets.set(files, known);
  return known;
}
