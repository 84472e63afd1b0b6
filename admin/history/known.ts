// The uploads of a locker of which everything is known already: which group holds which job id, and how its run ended. Reads no file.
import type { Group } from 'webjob-locker';
import type { LogLine } from 'webjob-protocol';
import type { Site } from '../site.ts';
import type { Ending } from './ending.ts';
import { compileNames, guessAll, makeGuesser } from './names.ts';
import { claimOnly, select, type Uploads } from './uploads.ts';

export interface KnownGroup extends Group {
  /** As the log writes it; undefined for an incomplete group. */
  jobId: string | undefined;
  ending: Ending | undefined;
}

/** Groups in the order of walkLocker. */
export function openKnown(site: Site, groups: ReadonlyMap<string, KnownGroup>): Uploads {
  const guessNames = makeGuesser(site);
  const parseName = compileNames(site.settings.putNameFormat);
  const claimed = new Set<string>();
  const byJob = new Map<string, string[]>();
  const incomplete: string[] = [];
  for (const { name, has, jobId } of groups.values()) {
    if (!has.has('rdy')) incomplete.push(name);
    else if (jobId !== undefined) {
      const same = byJob.get(jobId);
      if (same) same.push(name);
      else byJob.set(jobId, [name]);
    }
  }
  for (const names of [incomplete, ...byJob.values()]) if (names.length > 1) names.sort();
  const find = (names: readonly string[], put: LogLine): string[] => {
    const found: string[] = [];
    if (names.length > 0)
      for (const guess of guessNames(put)) {
        found.push(...select(names, guess));
        // Mostly the only one there is: then no other guess can find more.
        if (names.length === 1 && found.length === 1) break;
      }
    return found;
  };
  const findAll = (names: readonly string[], puts: readonly LogLine[]): string[] =>
    [...guessAll(puts, guessNames)].flatMap((guess) => select(names, guess));
  return {
    findComplete(puts) {
      const [{ jobId } = {}] = puts;
      const same = byJob.get(jobId ?? 'NA') ?? [];
      const [put, another] = puts;
      const names = new Set(put && !another ? find(same, put) : findAll(same, puts));
      if (names.size < puts.length && jobId !== undefined)
        for (const name of same) if (!parseName(name)) names.add(name);
      return [...names].flatMap((name) => {
        claimed.add(name);
        return groups.get(name) ?? [];
      });
    },
    findBroken: (put) =>
      claimOnly(
        find(incomplete, put).flatMap((name) => groups.get(name) ?? []),
        claimed,
      ),
    findEnding: ({ name }) => groups.get(name)?.ending,
    forget() {},
    *others() {
      for (const { name, has } of groups.values()) if (!claimed.has(name)) yield { name, has };
    },
  };
}
