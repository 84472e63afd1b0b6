// The uploads of a locker that may contain some texts, for search: those that the store finds or,
// without a store, all of them.
import { posix } from 'node:path';
import { type Group, statGroupFile, walkLocker } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { compileNames, type NameFacts } from './names.ts';
import { readUpload } from './read-upload.ts';
import type { Site } from './site.ts';
import { openKnownStore, type Store } from './store.ts';
import { formatMatch, indexTexts, SELECT_UNREAD } from './texts.ts';
import { parseUpload } from './writer.ts';

/** An upload in the locker. Its facts are computed on first use. */
export interface Candidate {
  name: string;
  group: Group;
  facts(): NameFacts;
  jobId(): string | undefined;
  /** When the upload was announced or, if it was not, when it last changed. */
  at(): Date | undefined;
}

/** Yields the uploads, ordered by directory and name. Throws Failure `failed`. */
export async function findCandidates(site: Site, texts: readonly string[]): Promise<Iterable<Candidate>> {
  const store = await openKnownStore(site);
  if (!store) return walkCandidates(site);
  try {
    if (store.isShared) indexTexts(store.database, site.settings.incomingDirectory, undefined, () => {});
    return queryCandidates(store, formatMatch(texts));
  } finally {
    store.close();
  }
}

interface Row {
  name: string;
  facts: string;
}

function queryCandidates({ database }: Store, match: string | undefined): Candidate[] {
  const columns = 'SELECT name, facts FROM uploads';
  // Unless the ids come first in the query, SQLite reads every upload.
  const rows = (match === undefined
    ? database.prepare(`${columns} WHERE place = ''`).all()
    : database
        .prepare(
          `${columns} WHERE id IN (SELECT rowid FROM texts WHERE texts MATCH ? UNION ALL ${SELECT_UNREAD}) AND place = ''`,
        )
        .all(match)) as unknown as Row[];
  const key = ({ name }: Row): string => `${posix.dirname(name).replaceAll('/', '\0')}\0\0${name}`;
  return rows
    .map((row) => ({ row, key: key(row) }))
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .map(({ row: { name, facts } }) => {
      const upload = once(() => parseUpload(facts));
      return {
        name,
        facts: upload,
        get group() {
          return upload();
        },
        jobId: () => (upload().has.has('rdy') ? upload().jobId : undefined),
        at: () => new Date(upload().at),
      };
    });
}

function* walkCandidates(site: Site): Generator<Candidate> {
  const locker = site.settings.incomingDirectory;
  const parseName = compileNames(site);
  try {
    for (const { group } of walkLocker(locker)) {
      if (!group) continue;
      const { name, has } = group;
      const read = once(() => readUpload(locker, name, parseName, group));
      yield {
        name,
        group,
        facts() {
          const { clientId, command } = parseName(name) ?? {};
          return clientId !== undefined && command !== undefined ? { clientId, command } : (read() ?? {});
        },
        jobId: () => (has.has('rdy') ? read()?.jobId : undefined),
        at() {
          const ready = has.has('rdy') ? statGroupFile(locker, name, 'rdy')?.mtimeMs : read()?.at;
          return ready === undefined ? undefined : new Date(ready);
        },
      };
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof Failure || code === undefined) throw error;
    throw new Failure('failed', `${locker}: ${code}`, undefined, { cause: error });
  }
}

function once<Value>(find: () => Value): () => Value {
  let found: { value: Value } | undefined;
  return () => {
    found ??= { value: find() };
    return found.value;
  };
}
