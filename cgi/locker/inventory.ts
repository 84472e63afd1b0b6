// The contents of a locker: every upload below IncomingDirectory with its files, and foreign files.
// Reads names and inodes and opens no file. The server does not load this file.
import { type Dir, type Dirent, lstatSync, opendirSync, type Stats } from 'node:fs';
import { reach, reachFolder } from './reach.ts';

/** The files that an upload may have. */
export const EXTENSIONS = ['out', 'err', 'env', 'rdy', 'lck'] as const;

export type Extension = (typeof EXTENSIONS)[number];

/** An upload, with the files that it has at this moment. */
export interface Group {
  /** The path below the locker, without an extension: `client1_20040523163210_00724_host.sh`. */
  name: string;
  /** The files that exist. */
  has: ReadonlySet<Extension>;
}

/** A result of a walk: an upload, or the path of a foreign file below the locker. */
export type Found = { group: Group; foreignFile?: undefined } | { foreignFile: string; group?: undefined };

/** One bit for each extension, so that hundreds of thousands of uploads fit into memory. */
const BITS: ReadonlyMap<string, number> = new Map(EXTENSIONS.map((extension, index) => [extension, 1 << index]));

/** Every possible set of extensions, by its bits. */
const SETS: readonly ReadonlySet<Extension>[] = Array.from(
  { length: 1 << EXTENSIONS.length },
  (_, bits) => new Set(EXTENSIONS.filter((_, index) => bits & (1 << index))),
);

/**
 * No upload is in a directory with a longer path; such directories can only be meant to obstruct.
 */
const MAX_PATH_LENGTH = 4095;

/**
 * Walks a locker directory by directory, names in order, without following links. Files that
 * disappear meanwhile are skipped. Throws the error of the system call on the locker itself.
 */
export function* walkLocker(locker: string, folder = ''): Generator<Found> {
  const folders: string[] = [];
  for (const { folder: inner, ...found } of listFolder(locker, folder)) {
    if (inner === undefined) yield found as Found;
    else folders.push(inner);
  }
  for (const inner of folders) yield* walkLocker(locker, inner);
}

/**
 * Yields the contents of one directory of a locker: its uploads, foreign files, and then its
 * subdirectories, each sorted by name.
 *
 * @param isWanted selects files of uploads; the others are ignored
 */
export function* listFolder(
  locker: string,
  folder: string,
  isWanted: (file: string, extension: Extension) => boolean = () => true,
): Generator<(Found & { folder?: undefined }) | { folder: string; group?: undefined; foreignFile?: undefined }> {
  const groups = new Map<string, number>();
  const folders: string[] = [];
  const foreignFiles: string[] = [];
  const prefix = folder === '' ? '' : `${folder}/`;
  for (const entry of readFolder(locker, folder)) {
    const dot = entry.name.lastIndexOf('.');
    const bit = dot > 0 ? BITS.get(entry.name.slice(dot + 1)) : undefined;
    if (bit === undefined || !entry.isFile()) {
      const path = prefix + entry.name;
      if (entry.isDirectory() && path.length <= MAX_PATH_LENGTH) folders.push(path);
      else foreignFiles.push(path);
    } else if (isWanted(entry.name, entry.name.slice(dot + 1) as Extension)) {
      const name = entry.name.slice(0, dot);
      groups.set(name, (groups.get(name) ?? 0) | bit);
    }
  }
  for (const name of [...groups.keys()].sort())
    yield { group: { name: prefix + name, has: SETS[groups.get(name) ?? 0] ?? new Set() } };
  for (const foreignFile of foreignFiles.sort()) yield { foreignFile };
  for (const child of folders.sort()) yield { folder: child };
}

/**
 * Reads a directory entry by entry: all entries of a large directory at once would take most of the
 * memory and twice the time.
 */
export function* readFolder(locker: string, name: string): Generator<Dirent> {
  let folder: Dir;
  try {
    folder = openFolder(locker, name);
  } catch (error) {
    if (name === '' || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return;
  }
  try {
    for (let entry = folder.readSync(); entry; entry = folder.readSync()) yield entry;
  } finally {
    folder.closeSync();
  }
}

/**
 * Opens a directory to be read entry by entry. Node's error does not name the directory, so this
 * function adds the name.
 */
function openFolder(locker: string, name: string): Dir {
  const path = reachFolder(locker, name || '.');
  try {
    return opendirSync(path, { bufferSize: 1024 });
  } catch (error) {
    const failure = error as Error;
    if (!failure.message.includes(path)) failure.message += ` '${path}'`;
    throw failure;
  }
}

/** The upload with this name; undefined when none of its files exists. */
export function findGroup(locker: string, name: string): Group | undefined {
  const has = new Set(EXTENSIONS.filter((extension) => statGroupFile(locker, name, extension) !== undefined));
  return has.size > 0 ? { name, has } : undefined;
}

/** Stats of one file of an upload; undefined unless it is a regular file. */
export function statGroupFile(locker: string, name: string, extension: Extension): Stats | undefined {
  const found = lstatSync(reach(locker, `${name}.${extension}`), { throwIfNoEntry: false });
  return found?.isFile() ? found : undefined;
}
