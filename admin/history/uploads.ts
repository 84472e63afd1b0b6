// Which files belong to a PUT. Their names give hints, the job id in the .rdy file decides; only where no hint helps are the .rdy files of
// all the groups read that PutNameFormat as it is now could not have named.
import { opendirSync } from 'node:fs';
import { join } from 'node:path';
import { findGroup, type Group, parseReady, walkLocker } from 'webjob-locker';
import { encodeField, type LogLine } from 'webjob-protocol';
import { Failure } from '../failure.ts';
import type { Site } from '../site.ts';
import { readHead } from './head.ts';
import { compileNames, type Guess, makeGuesser } from './names.ts';

export interface Uploads {
  /** The complete groups of the PUTs under one job id that were answered with 200. */
  findComplete(puts: readonly LogLine[]): Group[];
  /** What a PUT left that broke off, if one can be told to be its. */
  findBroken(put: LogLine): Group | undefined;
  /** Looks anew, for a locker that has changed. */
  forget(): void;
  /** Every group that none of these calls has found. */
  others(): Generator<Group>;
}

/** Folders of which the names are kept in memory. */
const MAX_LISTINGS = 64;

export function openUploads(site: Site): Uploads {
  const locker = site.settings.incomingDirectory;
  const claimed = new Set<string>();
  const listings = new Map<string, string[]>();
  const list = makeLister(locker, listings);
  let strangers: Map<string, string[]> | undefined;
  const guessNames = makeGuesser(site);
  const guess = (put: LogLine, extension: 'rdy' | 'out'): string[] =>
    guessNames(put).flatMap((one) => select(list(one.folder, extension), one));
  const findStrangers = (jobId: string): string[] => {
    strangers ??= indexStrangers(site);
    return strangers.get(jobId) ?? [];
  };
  return {
    findComplete(puts) {
      const [{ jobId } = {}] = puts;
      const guessed = puts.flatMap((put) => guess(put, 'rdy'));
      const names = new Set(guessed.filter((name) => readJobId(locker, name) === (jobId ?? 'NA')));
      if (names.size < puts.length && jobId !== undefined) for (const name of findStrangers(jobId)) names.add(name);
      return [...names].flatMap((name) => {
        claimed.add(name);
        return findGroup(locker, name) ?? [];
      });
    },
    findBroken(put) {
      const groups = guess(put, 'out').flatMap((name) => (claimed.has(name) ? [] : (findGroup(locker, name) ?? [])));
      const [group, another] = groups.filter(({ has }) => !has.has('rdy'));
      if (!group || another) return undefined;
      claimed.add(group.name);
      return group;
    },
    forget() {
      listings.clear();
      strangers = undefined;
    },
    *others() {
      for (const { group } of walk(locker)) if (group && !claimed.has(group.name)) yield group;
    },
  };
}

/** The job id in the .rdy file, or with `lck` in the lock, of a group, as the log writes it; undefined when there is none. */
export function readJobId(locker: string, name: string, extension: 'rdy' | 'lck' = 'rdy'): string | undefined {
  const text = readHead(join(locker, `${name}.${extension}`));
  try {
    return text === undefined ? undefined : encodeField(parseReady(text));
  } catch {
    return undefined;
  }
}

function* walk(locker: string): ReturnType<typeof walkLocker> {
  try {
    yield* walkLocker(locker);
  } catch (error) {
    throw new Failure('failed', `${locker}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}

/** The complete groups whose names are not of the form that PutNameFormat has now, by their job ids. */
function indexStrangers(site: Site): Map<string, string[]> {
  const locker = site.settings.incomingDirectory;
  const parseName = compileNames(site.settings.putNameFormat);
  const index = new Map<string, string[]>();
  for (const { group } of walk(locker)) {
    if (!group?.has.has('rdy') || parseName(group.name)) continue;
    const jobId = readJobId(locker, group.name);
    if (jobId !== undefined) index.set(jobId, [...(index.get(jobId) ?? []), group.name]);
  }
  return index;
}

/** Lists names, without their extension, of the files of a folder that have it, in order. */
function makeLister(
  locker: string,
  listings: Map<string, string[]>,
): (folder: string, extension: 'rdy' | 'out') => string[] {
  return (folder, extension) => {
    const key = `${extension}:${folder}`;
    const known = listings.get(key);
    if (known) return known;
    const suffix = `.${extension}`;
    const names = readNames(join(locker, folder), suffix)
      .map((name) => (folder === '.' ? name : `${folder}/${name}`).slice(0, -suffix.length))
      .sort();
    if (listings.size >= MAX_LISTINGS) listings.delete(listings.keys().next().value ?? '');
    listings.set(key, names);
    return names;
  };
}

/** Entry by entry: of the names of a large folder all at once, most of the memory and half of the time is wasted. */
function readNames(path: string, suffix: string): string[] {
  const names: string[] = [];
  try {
    const folder = opendirSync(path, { bufferSize: 1024 });
    try {
      for (let entry = folder.readSync(); entry; entry = folder.readSync())
        if (entry.name.endsWith(suffix)) names.push(entry.name);
    } finally {
      folder.closeSync();
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR')
      throw new Failure('failed', `${path}: ${code}`, undefined, { cause: error });
  }
  return names;
}

/** The names of an ordered list that a guess fits. */
function select(names: string[], { prefix, pattern }: Guess): string[] {
  let low = 0;
  for (let high = names.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((names[middle] ?? '') < prefix) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (names[end]?.startsWith(prefix)) end++;
  return end === low ? [] : names.slice(low, end).filter((name) => pattern().test(name));
}
