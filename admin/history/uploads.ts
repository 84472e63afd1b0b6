// Which files belong to a PUT. Their names give hints, the job id in the .rdy file decides; only where no hint helps are the .rdy files of
// all the groups read that PutNameFormat as it is now could not have named.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { findGroup, type Group, parseReady } from 'webjob-locker';
import { encodeField, type LogLine } from 'webjob-protocol';
import { Failure } from '../failure.ts';
import type { Site } from '../site.ts';
import { type Ending, readEnding } from './ending.ts';
import { readHead } from './head.ts';
import { makeLister } from './listing.ts';
import { compileNames, type Guess, guessAll, makeGuesser } from './names.ts';

export interface Uploads {
  /** The complete groups of the PUTs under one job id that were answered with 200. */
  findComplete(puts: readonly LogLine[]): Group[];
  /** What a PUT left that broke off, if one can be told to be its. */
  findBroken(put: LogLine): Group | undefined;
  /** How the run of a group ended; undefined when its record is not there. */
  findEnding(group: Group): Ending | undefined;
  /** Looks anew, for a locker that has changed. */
  forget(): void;
  /** Every group that none of these calls has found, in the order of walkLocker; what else is known of a complete one must be looked up. */
  others(): Generator<Pick<Group, 'name'> & Partial<Group>>;
}

export function openUploads(site: Site): Uploads {
  const locker = site.settings.incomingDirectory;
  const claimed = new Set<string>();
  const lister = makeLister(locker);
  let strangers: Map<string, string[]> | undefined;
  const guessNames = makeGuesser(site);
  const walk = (): Generator<Pick<Group, 'name'> & Partial<Group>> => {
    checkLocker(locker);
    return walkListings(lister.list, '.');
  };
  const findStrangers = (jobId: string): string[] => {
    strangers ??= indexStrangers(site, walk());
    return strangers.get(jobId) ?? [];
  };
  return {
    findComplete(puts) {
      const [{ jobId } = {}] = puts;
      const guessed = new Set<string>();
      for (const one of guessAll(puts, guessNames))
        for (const name of select(lister.list(one.folder).complete, one)) guessed.add(name);
      const names = new Set([...guessed].filter((name) => readJobId(locker, name) === (jobId ?? 'NA')));
      if (names.size < puts.length && jobId !== undefined) for (const name of findStrangers(jobId)) names.add(name);
      return [...names].flatMap((name) => {
        claimed.add(name);
        return findGroup(locker, name) ?? [];
      });
    },
    findBroken(put) {
      const guessed = [...guessNames(put)].flatMap((one) =>
        lister
          .list(one.folder)
          .incomplete()
          .filter(({ name }) => one.fits(name)),
      );
      return claimOnly(guessed, claimed);
    },
    findEnding: (group) => readEnding(site, group),
    forget() {
      lister.forget();
      strangers = undefined;
    },
    *others() {
      for (const group of walk()) if (!claimed.has(group.name)) yield group;
    },
  };
}

/** The one group of several that nobody has; undefined when there are more. */
export function claimOnly(groups: readonly Group[], claimed: Set<string>): Group | undefined {
  const [group, another] = groups.filter(({ name, has }) => has.has('out') && !claimed.has(name));
  if (!group || another) return undefined;
  claimed.add(group.name);
  return group;
}

/** The job id in the .rdy file, or with `lck` in the lock, of a group, as the log writes it; undefined when there is none. */
export function readJobId(locker: string, name: string, extension: 'rdy' | 'lck' = 'rdy'): string | undefined {
  const text = readHead(join(locker, `${name}.${extension}`));
  return text === undefined ? undefined : parseJobId(text);
}

/** What a .rdy file says, as the log writes it. */
export function parseJobId(text: string): string | undefined {
  try {
    return encodeField(parseReady(text));
  } catch {
    return undefined;
  }
}

/** Throws Failure `failed` when there is no locker. */
function checkLocker(locker: string): void {
  try {
    statSync(locker);
  } catch (error) {
    throw new Failure('failed', `${locker}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}

function* walkListings(
  list: ReturnType<typeof makeLister>['list'],
  folder: string,
): Generator<Pick<Group, 'name'> & Partial<Group>> {
  const { complete, incomplete, folders } = list(folder);
  const broken = incomplete();
  let at = 0;
  for (const name of complete) {
    for (let group = broken[at]; group && group.name < name; group = broken[++at]) yield group;
    yield { name };
  }
  yield* broken.slice(at);
  for (const child of folders) yield* walkListings(list, child);
}

/** The complete groups whose names are not of the form that PutNameFormat has now, by their job ids. */
function indexStrangers(site: Site, groups: Iterable<{ name: string; has?: unknown }>): Map<string, string[]> {
  const parseName = compileNames(site.settings.putNameFormat);
  const index = new Map<string, string[]>();
  for (const { name, has } of groups) {
    if (has || parseName(name)) continue;
    const jobId = readJobId(site.settings.incomingDirectory, name);
    if (jobId === undefined) continue;
    const same = index.get(jobId);
    if (same) same.push(name);
    else index.set(jobId, [name]);
  }
  return index;
}

/** The names of an ordered list that a guess fits. */
export function select(names: readonly string[], { prefix, fits }: Guess): string[] {
  let low = 0;
  for (let high = names.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((names[middle] ?? '') < prefix) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (names[end]?.startsWith(prefix)) end++;
  return end === low ? [] : names.slice(low, end).filter(fits);
}
