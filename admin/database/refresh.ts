// Brings an index up to date. Texts come group by group, in transactions of their own, so that a run that is killed is not lost; the jobs
// come in one, together with the stamp that says what the index was made of.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { type Extension, type Group, STREAMS, statGroupFile, walkLocker } from 'webjob-locker';
import { readFromFiles } from '../history/jobs.ts';
import type { Site } from '../site.ts';
import { JOB_COLUMNS } from './columns.ts';
import { takeStamp } from './freshness.ts';
import type { Database } from './sqlite.ts';

export interface Refreshed {
  groups: number;
  /** Groups of which the texts were read. */
  read: number;
  removed: number;
  jobs: number;
}

/** Groups a transaction. */
const BATCH = 5000;

export async function refreshIndex(
  database: Database,
  site: Site,
  maxTextBytes: number,
  advance: () => void,
): Promise<Refreshed> {
  const stamp = await takeStamp(site);
  const old = database.prepare("SELECT value FROM facts WHERE name = 'stamp'").get()?.value;
  const text = JSON.stringify({ ...stamp, maxTextBytes });
  if (old === text)
    return { groups: countOf(database, 'groups'), read: 0, removed: 0, jobs: countOf(database, 'jobs') };
  database.exec("DELETE FROM facts WHERE name = 'stamp'");
  const texts = refreshTexts(database, site.settings.incomingDirectory, maxTextBytes, advance);
  database.exec('BEGIN IMMEDIATE');
  try {
    const jobs = await refillJobs(database, site);
    database.prepare("INSERT OR REPLACE INTO facts VALUES ('stamp', ?)").run(text);
    database.exec('COMMIT');
    return { ...texts, jobs };
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}

function countOf(database: Database, table: 'groups' | 'jobs'): number {
  return Number(database.prepare(`SELECT count(*) AS count FROM ${table}`).get()?.count);
}

function refreshTexts(
  database: Database,
  locker: string,
  maxTextBytes: number,
  advance: () => void,
): Omit<Refreshed, 'jobs'> {
  const find = database.prepare('SELECT id, stamp FROM groups WHERE name = ?');
  const see = database.prepare('UPDATE groups SET seen = ? WHERE id = ?');
  const insert = database.prepare('INSERT INTO groups (name, stamp, whole, seen) VALUES (?, ?, ?, ?)');
  const update = database.prepare('UPDATE groups SET stamp = ?, whole = ?, seen = ? WHERE id = ?');
  const forget = database.prepare('DELETE FROM texts WHERE rowid = ?');
  const learn = database.prepare('INSERT INTO texts (rowid, body) VALUES (?, ?)');
  const run = Number(database.prepare('SELECT max(seen) AS last FROM groups').get()?.last ?? 0) + 1;
  const done = { groups: 0, read: 0, removed: 0 };
  database.exec('BEGIN IMMEDIATE');
  for (const { group } of walkLocker(locker)) {
    if (!group) continue;
    if (++done.groups % BATCH === 0) database.exec('COMMIT; BEGIN IMMEDIATE');
    advance();
    const stamp = stampGroup(locker, group);
    const known = find.get(group.name) as { id: number; stamp: string } | undefined;
    if (known?.stamp === stamp) {
      see.run(run, known.id);
      continue;
    }
    done.read++;
    const { body, isWhole } = readBody(locker, group, maxTextBytes);
    if (known) {
      forget.run(known.id);
      update.run(stamp, Number(isWhole), run, known.id);
      learn.run(known.id, body);
    } else {
      const { lastInsertRowid } = insert.run(group.name, stamp, Number(isWhole), run);
      learn.run(lastInsertRowid, body);
    }
  }
  database.exec('COMMIT; BEGIN IMMEDIATE');
  database.prepare('DELETE FROM texts WHERE rowid IN (SELECT id FROM groups WHERE seen <> ?)').run(run);
  done.removed = Number(database.prepare('DELETE FROM groups WHERE seen <> ?').run(run).changes);
  database.exec('COMMIT');
  return done;
}

/** A complete group is what it was while its .rdy is: whoever replaces a group replaces that too. */
function stampGroup(locker: string, { name, has }: Group): string {
  const extensions: readonly Extension[] = has.has('rdy') ? ['rdy'] : STREAMS;
  const marks = extensions.map((extension) => {
    const found = statGroupFile(locker, name, extension);
    return found ? `${found.ino}:${found.mtimeMs}:${found.size}` : '';
  });
  return `${[...has].sort().join(' ')} ${marks.join(' ')}`;
}

/** What is no UTF-8 becomes U+FFFD, as it is for whoever searches; so does NUL, at which the tokenizer would end. */
function readBody(locker: string, { name, has }: Group, maxBytes: number): { body: string; isWhole: boolean } {
  let isWhole = has.has('rdy');
  const parts = STREAMS.filter((stream) => has.has(stream)).map((stream) => {
    const { text, isCut } = readStart(join(locker, `${name}.${stream}`), maxBytes);
    if (isCut) isWhole = false;
    return text;
  });
  return { body: parts.join('\n').replaceAll('\0', '\ufffd'), isWhole };
}

function readStart(path: string, maxBytes: number): { text: string; isCut: boolean } {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return { text: '', isCut: true };
  }
  try {
    const { size } = fstatSync(fd);
    const buffer = Buffer.allocUnsafe(Math.min(size, maxBytes));
    let length = 0;
    while (length < buffer.length) {
      const count = readSync(fd, buffer, length, buffer.length - length, length);
      if (count === 0) break;
      length += count;
    }
    return { text: buffer.toString('utf8', 0, length), isCut: length < size };
  } finally {
    closeSync(fd);
  }
}

async function refillJobs(database: Database, site: Site): Promise<number> {
  database.exec('DELETE FROM jobs');
  const names = JOB_COLUMNS.map(({ name }) => name);
  const insert = database.prepare(`INSERT INTO jobs (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`);
  let count = 0;
  for await (const job of readFromFiles(site)) {
    insert.run(...JOB_COLUMNS.map(({ value }) => value(job, site)));
    count++;
  }
  return count;
}
