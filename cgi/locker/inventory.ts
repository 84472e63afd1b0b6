// What lies in a locker: every group of files below IncomingDirectory with what each file is, and what belongs to no group. Reads names and
// inodes, opens nothing; the server never loads it.
import { type Dirent, lstatSync, readdirSync, type Stats } from 'node:fs';
import { join } from 'node:path';

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

const FILE = new RegExp(`^(.+)\\.(${EXTENSIONS.join('|')})$`);

/**
 * Walks a locker, folder by folder, names in order. Follows no link. What disappears meanwhile is passed over. Throws the error of the
 * system call for the locker itself.
 */
export function* walkLocker(locker: string, folder = ''): Generator<Found> {
  const groups = new Map<string, Set<Extension>>();
  const folders: string[] = [];
  const strays: string[] = [];
  for (const entry of readFolder(join(locker, folder), folder === '')) {
    const place = join(folder, entry.name);
    const [, name, extension] = FILE.exec(entry.name) ?? [];
    if (entry.isDirectory()) folders.push(place);
    else if (!entry.isFile() || name === undefined) strays.push(place);
    else {
      const has = groups.get(name);
      if (has) has.add(extension as Extension);
      else groups.set(name, new Set([extension as Extension]));
    }
  }
  for (const name of [...groups.keys()].sort())
    yield { group: { name: join(folder, name), has: groups.get(name) ?? new Set() } };
  for (const stray of strays.sort()) yield { stray };
  for (const child of folders.sort()) yield* walkLocker(locker, child);
}

function readFolder(path: string, isRoot: boolean): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch (error) {
    if (isRoot || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return [];
  }
}

/** The group of a name at this moment; undefined when none of its files is there. */
export function findGroup(locker: string, name: string): Group | undefined {
  const has = new Set(EXTENSIONS.filter((extension) => statGroupFile(locker, name, extension) !== undefined));
  return has.size > 0 ? { name, has } : undefined;
}

/** What is known of one file of a group; undefined when it is not there or no regular file. */
export function statGroupFile(locker: string, name: string, extension: Extension): Stats | undefined {
  const found = lstatSync(join(locker, `${name}.${extension}`), { throwIfNoEntry: false });
  return found?.isFile() ? found : undefined;
}
