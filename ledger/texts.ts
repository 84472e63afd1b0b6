// Trigrams of the streams that clients sent, in the store. They show which uploads may contain a
// text, so that a search reads only those.
import { fstatSync, readSync } from 'node:fs';
import { reach, STREAMS, type StreamName, statGroupFile } from 'webjob-locker';
import { withFile } from './head.ts';
import { packFiles, type ReadStreams, unpackFiles } from './read-upload.ts';
import type { Database } from './sqlite.ts';

/**
 * The number of bytes of a stream that are indexed, unless `index --max-text` says otherwise;
 * search reads the rest itself.
 */
export const MAX_TEXT_BYTES = 262_144;

/** The number of uploads in one transaction. */
const BATCH = 2000;

/**
 * Reads the uploads in the locker that were not read yet, or not to their end; returns their
 * number. It uses its own transactions, so that a killed process loses little.
 */
export function indexTexts(
  database: Database,
  locker: string,
  maxBytes: number | undefined,
  advance: () => void,
): number {
  const limit = settleLimit(database, maxBytes);
  const read = makeReader(locker, limit);
  const next = database.prepare(
    // The first condition is the one of the partial index.
    "SELECT id, name, has FROM uploads WHERE whole IS NOT 1 AND whole IS NULL AND place = '' AND id > ? ORDER BY id LIMIT ?",
  );
  const learn = database.prepare('INSERT INTO texts (rowid, body) VALUES (?, ?)');
  const mark = database.prepare('UPDATE uploads SET whole = ? WHERE id = ?');
  let count = 0;
  for (let last = 0; ; ) {
    database.exec('BEGIN IMMEDIATE');
    const rows = next.all(last, BATCH) as unknown as { id: number; name: string; has: number }[];
    for (const { id, name, has } of rows) {
      const { body, isWhole } = read(name, has);
      learn.run(id, body);
      mark.run(Number(isWhole), id);
      last = id;
      count++;
      advance();
    }
    database.exec('COMMIT');
    if (rows.length < BATCH) return count;
  }
}

/**
 * Stores the limit, if a new one is given, and returns the limit in use. With a new limit, all
 * uploads count as unread.
 */
function settleLimit(database: Database, maxBytes: number | undefined): number {
  const known = database.prepare("SELECT value FROM facts WHERE name = 'maxText'").get()?.value;
  const limit = maxBytes ?? Number(known ?? MAX_TEXT_BYTES);
  if (known === String(limit)) return limit;
  database.exec('BEGIN IMMEDIATE');
  database.exec("DELETE FROM texts WHERE rowid IN (SELECT id FROM uploads WHERE whole IS NOT NULL AND place = '')");
  database.exec("UPDATE uploads SET whole = NULL WHERE place = ''");
  noteLimit(database, limit);
  database.exec('COMMIT');
  return limit;
}

/** Stores the number of bytes of a stream that are indexed, in the caller's transaction. */
function noteLimit(database: Database, limit: number): void {
  database.prepare("INSERT OR REPLACE INTO facts VALUES ('maxText', ?)").run(String(limit));
  // Merging four segments of the index at a time, the default of FTS5, takes a quarter of the time.
  // With more than `automerge` segments, each transaction merges a little; with more than
  // `crisismerge`, one transaction merges a whole level, which can take seconds. The default of
  // `crisismerge` is 16 too, which would leave no room for small merges.
  database.exec("INSERT INTO texts (texts, rank) VALUES ('automerge', 16), ('crisismerge', 128)");
}

/** The streams of an upload and the part of their text that is stored. */
export interface ReadText extends ReadStreams {
  body: string;
  /** Whether the streams were read to their ends. */
  isWhole: boolean;
}

/** Reads the streams of an upload. `has` are its files in the form of packFiles(). */
export type ReadTexts = (name: string, has: number) => ReadText;

/**
 * Prepares an empty store to index uploads as they are found, in the caller's transaction, because
 * opening every file twice would double the cost.
 */
export function beginTexts(database: Database, locker: string, maxBytes: number): ReadTexts {
  noteLimit(database, maxBytes);
  return makeReader(locker, maxBytes);
}

/** Returns a function that reads the streams of uploads into one reused buffer. */
function makeReader(locker: string, maxBytes: number): ReadTexts {
  let buffer = Buffer.allocUnsafe(64 * 1024);
  /**
   * Reads a file into the buffer at `from`; returns the end of the text and the size of the file.
   */
  const read = (fd: number, from: number): { end: number; size: number } => {
    for (let end = from; ; ) {
      if (end === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
      const asked = Math.min(buffer.length, from + maxBytes + 1) - end;
      const count = readSync(fd, buffer, end, asked, end - from);
      end += count;
      // A file that ends early yields fewer bytes.
      if (count < asked) return { end, size: end - from };
      if (end > from + maxBytes) return { end, size: fstatSync(fd).size };
    }
  };
  return (name, bits) => {
    const has = unpackFiles(bits);
    const sizes = new Map<StreamName, number>();
    let record: string | undefined;
    let isWhole = has.has('rdy');
    let length = 0;
    for (const stream of STREAMS) {
      const from = length;
      if (!has.has(stream)) continue;
      // Most programs write nothing to stderr, and asking for the size of a file takes a third of
      // the time of opening it.
      const isEmpty = stream === 'err' && statGroupFile(locker, name, stream)?.size === 0;
      const found = isEmpty
        ? { end: from, size: 0 }
        : withFile(reach(locker, `${name}.${stream}`), (fd) => read(fd, from));
      if (!found || found.size > maxBytes) isWhole = false;
      if (!found) continue;
      sizes.set(stream, found.size);
      if (stream === 'env' && found.size <= maxBytes) record = buffer.toString('latin1', from, found.end);
      length = Math.min(found.end, length + maxBytes);
      if (length === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
      buffer[length++] = 10;
    }
    // A NUL would end the text for the tokenizer. Invalid UTF-8 becomes U+FFFD, as it does in
    // search.
    return { body: buffer.toString('utf8', 0, length).replaceAll('\0', '\ufffd'), isWhole, sizes, record };
  };
}

/** The maximum number of trigrams in a query; more of them do not narrow the result further. */
const MAX_TRIGRAMS = 48;

/**
 * A query for all trigrams of the texts, each quoted so that none is an operator. Undefined when
 * the texts are too short for a trigram.
 */
export function formatMatch(texts: readonly string[]): string | undefined {
  const trigrams = new Set<string>();
  for (const text of texts) {
    // The index contains U+FFFD in place of a NUL and of invalid UTF-8.
    const characters = [...text.replaceAll('\0', '\ufffd')];
    for (let at = 0; at + 3 <= characters.length && trigrams.size < MAX_TRIGRAMS; at++)
      trigrams.add(characters.slice(at, at + 3).join(''));
  }
  if (trigrams.size === 0) return undefined;
  return [...trigrams].map((trigram) => `"${trigram.replaceAll('"', '""')}"`).join(' AND ');
}

/** The bits of `.rdy` and of `.lck`. */
const [READY, LOCK] = [packFiles(new Set(['rdy'])), packFiles(new Set(['lck']))];

/**
 * The ids of uploads that the index does not cover: not read yet, longer than the indexed part, or
 * still being written. The index covers all of a broken-off upload: a later PUT of its name has a
 * log line, after which the upload is read again. The first condition is the one of the partial
 * index.
 */
export const SELECT_UNREAD = `SELECT id FROM uploads INDEXED BY uploads_unread
  WHERE whole IS NOT 1 AND (whole IS NULL OR has & ${READY | LOCK}
  OR bytes > (SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'maxText'))`;

/**
 * The units with an upload in the locker that may contain a text; undefined when every unit may.
 * Broken-off uploads are found by their content when they were indexed, because reading all of them
 * for every search would take too long.
 */
export function findUnits(database: Database, text: string): string[] | undefined {
  const match = formatMatch([text]);
  if (match === undefined) return undefined;
  // Unless the query fixes the order of the join and the index, SQLite reads every upload.
  const rows = database
    .prepare(
      `SELECT unit FROM texts CROSS JOIN uploads ON uploads.id = texts.rowid WHERE texts MATCH ? AND place = ''
       UNION SELECT unit FROM uploads INDEXED BY uploads_unread WHERE whole IS NOT 1 AND (whole IS NULL OR has & ${READY})`,
    )
    .all(match);
  return rows.map(({ unit }) => unit as string);
}
