// The part of a refresh that reads the locker: the texts of every group that changed, and from the same bytes whose group it is and how its run
// ended, which the jobs need. In transactions of some thousands, so that a run that is killed is not lost.
import { readSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { type Group, STREAMS, statGroupFile, walkLocker } from 'webjob-locker';
import { describeEnding, type Ending, parseRecordFields } from '../history/ending.ts';
import { MAX_HEAD_BYTES, readHeadAndStats, withFile } from '../history/head.ts';
import type { KnownGroup } from '../history/known.ts';
import { parseJobId } from '../history/uploads.ts';
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
}

export function refreshTexts(database: Database, locker: string, maxTextBytes: number, advance: () => void): ReadTexts {
  const find = database.prepare('SELECT id, stamp, job_id, exit_code, signal, is_good FROM groups WHERE name = ?');
  const see = database.prepare('UPDATE groups SET seen = ? WHERE id = ?');
  const columns = ['stamp', 'whole', 'seen', 'job_id', 'exit_code', 'signal', 'is_good'];
  // No INSERT OR REPLACE: a statement that SQLite may have to take back makes FTS5 write down at once what it has.
  const insert = database.prepare(
    `INSERT INTO groups (${columns.join(', ')}, id, name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  const update = database.prepare(`UPDATE groups SET ${columns.map((name) => `${name} = ?`).join(', ')} WHERE id = ?`);
  const forget = database.prepare('DELETE FROM texts WHERE rowid = ?');
  const learn = database.prepare('INSERT INTO texts (rowid, body) VALUES (?, ?)');
  const last = database.prepare('SELECT max(seen) AS run, max(id) AS id FROM groups').get();
  const run = Number(last?.run ?? 0) + 1;
  let nextId = Number(last?.id ?? 0) + 1;
  const isNew = nextId === 1;
  const done: ReadTexts = { groups: new Map(), read: 0, removed: 0 };
  const readGroup = makeReader(locker, maxTextBytes);
  database.exec('BEGIN IMMEDIATE');
  for (const { group } of walkLocker(locker)) {
    if (!group) continue;
    advance();
    const known = isNew ? undefined : (find.get(group.name) as Row | undefined);
    const { stamp, jobId } = stampGroup(locker, group, known?.stamp);
    if (known?.stamp === stamp) {
      see.run(run, known.id);
      done.groups.set(group.name, { ...group, jobId: known.job_id ?? undefined, ending: parseEnding(known) });
      continue;
    }
    if (++done.read % BATCH === 0) database.exec('COMMIT; BEGIN IMMEDIATE');
    const { body, isWhole, ending } = readGroup(group);
    done.groups.set(group.name, { ...group, jobId, ending });
    const id = known?.id ?? nextId++;
    const facts = [stamp, Number(isWhole), run, jobId ?? null, ...formatEnding(ending)];
    if (known) {
      forget.run(id);
      update.run(...facts, id);
    } else insert.run(...facts, id, group.name);
    learn.run(id, body);
  }
  database.exec('COMMIT; BEGIN IMMEDIATE');
  database.prepare('DELETE FROM texts WHERE rowid IN (SELECT id FROM groups WHERE seen <> ?)').run(run);
  done.removed = Number(database.prepare('DELETE FROM groups WHERE seen <> ?').run(run).changes);
  database.exec('COMMIT');
  return done;
}

function formatEnding(ending: Ending | undefined): (number | null)[] {
  return ending ? [ending.exitCode ?? null, ending.signal ?? null, Number(ending.isGood)] : [null, null, null];
}

function parseEnding({ exit_code: exitCode, signal, is_good: isGood }: Row): Ending | undefined {
  return isGood === null
    ? undefined
    : { isGood: isGood === 1, exitCode: exitCode ?? undefined, signal: signal ?? undefined };
}

/**
 * A complete group is what it was while its .rdy is: whoever replaces a group replaces that too. The job id comes with the stamp of a complete
 * group that is not the one that is known.
 */
function stampGroup(
  locker: string,
  { name, has }: Group,
  known: string | undefined,
): { stamp: string; jobId: string | undefined } {
  const format = (...found: (Pick<Stats, 'ino' | 'mtimeMs' | 'size'> | undefined)[]): string => {
    const marks = found.map((stats) => (stats ? `${stats.ino}:${stats.mtimeMs}:${stats.size}` : ''));
    return `${[...has].sort().join(' ')} ${marks.join(' ')}`;
  };
  if (!has.has('rdy'))
    return { stamp: format(...STREAMS.map((stream) => statGroupFile(locker, name, stream))), jobId: undefined };
  if (known !== undefined) {
    const stamp = format(statGroupFile(locker, name, 'rdy'));
    if (stamp === known) return { stamp, jobId: undefined };
  }
  const ready = readHeadAndStats(join(locker, `${name}.rdy`));
  return { stamp: format(ready?.stats), jobId: ready && parseJobId(ready.text) };
}

interface ReadGroup {
  body: string;
  /** The body is all of it. */
  isWhole: boolean;
  ending: Ending | undefined;
}

/** Reads the streams of one group after the other into the same memory. */
function makeReader(locker: string, maxBytes: number): (group: Group) => ReadGroup {
  let buffer = Buffer.allocUnsafe(64 * 1024);
  /** Reads a file behind what is there already; where it ends. */
  const read = (fd: number, from: number): number => {
    for (let end = from; ; ) {
      if (end === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
      const asked = Math.min(buffer.length, from + maxBytes + 1) - end;
      const count = readSync(fd, buffer, end, asked, end - from);
      end += count;
      // Of a file that ends, less is read than was asked for.
      if (count < asked || end > from + maxBytes) return end;
    }
  };
  return ({ name, has }) => {
    let isWhole = has.has('rdy');
    let ending: Ending | undefined;
    let length = 0;
    for (const stream of STREAMS) {
      const from = length;
      const end = has.has(stream) ? withFile(join(locker, `${name}.${stream}`), (fd) => read(fd, from)) : from;
      if (end === undefined || end - length > maxBytes) isWhole = false;
      if (end === undefined) continue;
      if (stream === 'env' && has.has('env'))
        ending = describeEnding(
          parseRecordFields(buffer.toString('latin1', length, Math.min(end, length + MAX_HEAD_BYTES))),
        );
      length = Math.min(end, length + maxBytes);
      if (length === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
      buffer[length++] = 10;
    }
    // NUL would end the text for the tokenizer. What is no UTF-8 becomes U+FFFD, as it is for whoever searches.
    return { body: buffer.toString('utf8', 0, length).replaceAll('\0', '\ufffd'), isWhole, ending };
  };
}
