// What lies in a locker: every group of files below IncomingDirectory with what each file is, and what belongs to no group. Reads names and
// inodes, opens nothing; the server never loads it.
import { type Dir, type Dirent, lstatSync, opendirSync, type Stats } from 'node:fs';
import { reach, reachFolder } from './reach.ts';

/** The files that a group may have. */
export const EXTENSIONS = ['out', 'err', 'env', 'rdy', 'lck'] as const;

export type Extension = (typeof EXTENSIONS)[number];

/** A group as it stands at this moment. */
export interface Group {
  /** Its path below the locker, without an extension: `client1_20040523163210_00724_host.sh`. */
  name: string;
  /** Which of its files are there. */
  has: ReadonlySet<Extension>;
}

/** What one walk finds: a group, or the path below the locker of something that belongs to none. */
export type Found = { group: Group; stray?: undefined } | { stray: string; group?: undefined };

/** One bit for each extension, so that hundreds of thousands of groups fit in memory. */
const BITS: ReadonlyMap<string, number> = new Map(EXTENSIONS.map((extension, index) => [extension, 1 << index]));

/** Every set of extensions there can be, by its bits. */
const SETS: readonly ReadonlySet<Extension>[] = Array.from(
  { length: 1 << EXTENSIONS.length },
  (_, bits) => new Set(EXTENSIONS.filter((_, index) => bits & (1 << index))),
);

/** No upload is below a folder whose path is longer, and who makes one only wants to be in the way. */
const MAX_PATH_LENGTH = 4095;

/**
 * Walks a locker, folder by folder, names in order. Follows no link. What disappears meanwhile is passed over. Throws the error of the
 * system call for the locker itself.
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
 * What lies in one folder of a locker: its uploads, what belongs to none, and then its folders, each in the order of names.
 *
 * @param isWanted is asked of each file of an upload; of those that are not wanted nothing is kept
 */
export function* listFolder(
  locker: string,
  folder: string,
  isWanted: (file: string, extension: Extension) => boolean = () => true,
): Generator<(Found & { folder?: undefined }) | { folder: string; group?: undefined; stray?: undefined }> {
  const groups = new Map<string, number>();
  const folders: string[] = [];
  const strays: string[] = [];
  const prefix = folder === '' ? '' : `${folder}/`;
  for (const entry of readFolder(locker, folder)) {
    const dot = entry.name.lastIndexOf('.');
    const bit = dot > 0 ? BITS.get(entry.name.slice(dot + 1)) : undefined;
    if (bit === undefined || !entry.isFile()) {
      const path = prefix + entry.name;
      if (entry.isDirectory() && path.length <= MAX_PATH_LENGTH) folders.push(path);
      else strays.push(path);
    } else if (isWanted(entry.name, entry.name.slice(dot + 1) as Extension)) {
      const name = entry.name.slice(0, dot);
      groups.set(name, (groups.get(name) ?? 0) | bit);
    }
  }
  for (const name of [...groups.keys()].sort())
    yield { group: { name: prefix + name, has: SETS[groups.get(name) ?? 0] ?? new Set() } };
  for (const stray of strays.sort()) yield { stray };
  for (const child of folders.sort()) yield { folder: child };
}

/** Entry by entry: of a large folder, all of them at once would take most of the memory, and twice the time. */
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

/** Opens a folder to be read entry by entry. Node's own error does not say which it was. */
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

/** The group of a name at this moment; undefined when none of its files is there. */
export function findGroup(locker: string, name: string): Group | undefined {
  const has = new Set(EXTENSIONS.filter((extension) => statGroupFile(locker, name, extension) !== undefined));
  return has.size > 0 ? { name, has } : undefined;
}

/** What is known of one file of a group; undefined when it is not there or no regular file. */
export function statGroupFile(locker: string, name: string, extension: Extension): Stats | undefined {
  const found = lstatSync(reach(locker, `${name}.${extension}`), { throwIfNoEntry: false });
  return found?.isFile() ? found : undefined;
}
