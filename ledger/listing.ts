// Lists directories of a locker and keeps the sorted names of uploads for a few directories at a
// time, as of the first listing. Opens no file.
import type { Dirent } from 'node:fs';
import { join } from 'node:path';
import { EXTENSIONS, type Extension, type Group, readFolder } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import type { Guess } from './names.ts';
import { FILE_BITS } from './read-upload.ts';

/** The contents of a directory. Names are paths below the locker without an extension. */
export interface Listing {
  /** Complete uploads, sorted by name. */
  complete(): readonly string[];
  /** Uploads without a .rdy, sorted by name. */
  incomplete(): Incomplete;
  folders: readonly string[];
}

export interface Incomplete {
  names: readonly string[];
  groups: ReadonlyMap<string, Group>;
}

/** The number of directories whose names are kept in memory. */
const MAX_LISTINGS = 64;

export interface Lister {
  list(folder: string): Listing;
  /** Every upload in a directory with its files in the form of packFiles(), sorted by name. */
  listGroups(folder: string): { groups: Map<string, number>; folders: readonly string[]; foreignFiles: number };
  /**
   * Finds uploads without a .rdy whose names fit, in constant memory however large the directories
   * are.
   */
  findIncomplete(guesses: readonly Guess[]): Group[];
  /** Forgets all listings, because the locker has changed. */
  forget(): void;
}

/**
 * Makes a lister of directories; `.` is the locker itself. A directory that does not exist counts
 * as empty.
 */
export function makeLister(locker: string): Lister {
  const listings = new Map<string, Listing>();
  return {
    list(folder) {
      const known = listings.get(folder);
      if (known) return known;
      const listing = readListing(locker, folder);
      if (listings.size >= MAX_LISTINGS) listings.delete(listings.keys().next().value ?? '');
      listings.set(folder, listing);
      return listing;
    },
    listGroups: (folder) => readGroups(locker, folder),
    findIncomplete: (guesses) =>
      [...new Set(guesses.map(({ folder }) => folder))].flatMap((folder) => {
        const own = guesses.filter((guess) => guess.folder === folder);
        return findFitting(locker, folder, own);
      }),
    forget: () => listings.clear(),
  };
}

function readListing(locker: string, folder: string): Listing {
  const prefix = folder === '.' ? '' : `${folder}/`;
  const ready: string[] = [];
  const folders: string[] = [];
  const others: string[] = [];
  for (const entry of readEntries(locker, folder)) {
    const { name } = entry;
    if (entry.isDirectory()) folders.push(prefix + name);
    else if (!entry.isFile()) continue;
    else if (name.length > 4 && name.endsWith('.rdy')) ready.push(prefix + name.slice(0, -4));
    else others.push(name);
  }
  // In a large directory, computing either of these takes longer than the listing, and usually only
  // one is used.
  return {
    complete: once(() => ready.toSorted()),
    incomplete: once(() => collectIncomplete(others, prefix, new Set(ready))),
    folders: folders.sort(),
  };
}

function once<Value>(find: () => Value): () => Value {
  let found: { value: Value } | undefined;
  return () => {
    found ??= { value: find() };
    return found.value;
  };
}

const BITS: ReadonlyMap<string, number> = new Map(FILE_BITS.map((extension, bit) => [extension, 1 << bit]));

function readGroups(locker: string, folder: string): ReturnType<Lister['listGroups']> {
  const prefix = folder === '.' ? '' : `${folder}/`;
  const found = new Map<string, number>();
  const folders: string[] = [];
  let foreignFiles = 0;
  for (const entry of readEntries(locker, folder)) {
    const dot = entry.name.lastIndexOf('.');
    const bit = dot > 0 ? BITS.get(entry.name.slice(dot + 1)) : undefined;
    if (entry.isDirectory()) folders.push(prefix + entry.name);
    else if (!entry.isFile() || bit === undefined) foreignFiles++;
    if (!entry.isFile() || bit === undefined) continue;
    const name = prefix + entry.name.slice(0, dot);
    found.set(name, (found.get(name) ?? 0) | bit);
  }
  return { groups: found, folders: folders.sort(), foreignFiles };
}

function findFitting(locker: string, folder: string, guesses: readonly Guess[]): Group[] {
  const prefix = folder === '.' ? '' : `${folder}/`;
  // Even among hundreds of thousands of names, nearly all differ from every guess at their
  // beginnings. One lookup of a beginning as long as the shortest guess rejects most of them before
  // any further check.
  const byPrefix = groupByPrefix(guesses);
  const lengths = [...new Set([...byPrefix.keys()].map(({ length }) => length))].sort((a, b) => a - b);
  const common = Math.max(0, (lengths[0] ?? 0) - prefix.length);
  const beginnings = new Set([...byPrefix.keys()].map((text) => text.slice(prefix.length, prefix.length + common)));
  const groups = new Map<string, Set<Extension>>();
  for (const entry of readEntries(locker, folder)) {
    if (!beginnings.has(entry.name.slice(0, common)) || !entry.isFile()) continue;
    const dot = entry.name.lastIndexOf('.');
    const extension = dot > 0 ? EXTENSIONS.find((known) => known === entry.name.slice(dot + 1)) : undefined;
    if (extension === undefined) continue;
    const name = prefix + entry.name.slice(0, dot);
    if (!lengths.some((length) => byPrefix.get(name.slice(0, length))?.some(({ fits }) => fits(name)))) continue;
    groups.set(name, (groups.get(name) ?? new Set()).add(extension));
  }
  return [...groups].flatMap(([name, has]) => (has.has('rdy') ? [] : [{ name, has }]));
}

function groupByPrefix(guesses: readonly Guess[]): Map<string, Guess[]> {
  const groups = new Map<string, Guess[]>();
  for (const guess of guesses) {
    const same = groups.get(guess.prefix);
    if (same) same.push(guess);
    else groups.set(guess.prefix, [guess]);
  }
  return groups;
}

function collectIncomplete(names: readonly string[], prefix: string, complete: ReadonlySet<string>): Incomplete {
  const groups = new Map<string, Set<Extension>>();
  for (const file of names) {
    const dot = file.lastIndexOf('.');
    const name = prefix + file.slice(0, Math.max(0, dot));
    if (dot <= 0 || complete.has(name)) continue;
    const extension = EXTENSIONS.find((known) => known === file.slice(dot + 1));
    if (extension) groups.set(name, (groups.get(name) ?? new Set()).add(extension));
  }
  return {
    names: [...groups.keys()].sort(),
    groups: new Map([...groups].map(([name, has]) => [name, { name, has }])),
  };
}

/**
 * Reads a directory entry by entry: all names of a large directory at once would take most of the
 * memory and twice the time.
 */
function* readEntries(locker: string, path: string): Generator<Dirent> {
  try {
    yield* readFolder(locker, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR')
      throw new Failure('failed', `${join(locker, path)}: ${code}`, undefined, { cause: error });
  }
}
