// Which clients an option means that takes client ids, globs and groups: jobs --client, latest --to, and so on.
import { existsSync, readFileSync } from 'node:fs';
import { matchesGlob } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { errorCode } from '../cli/files.ts';
import { type Groups, GroupsError, makeMembership, parseGroups } from '../fleet/groups.ts';
import { fleetPaths } from '../fleet/paths.ts';
import type { Site } from './site.ts';

/** The groups of a site; none where there is no file. Throws Failure `failed`. */
export function readGroups(settings: Site['settings']): Groups {
  const { groups } = fleetPaths(settings);
  try {
    return existsSync(groups) ? parseGroups(readFileSync(groups, 'utf8')) : new Map();
  } catch (error) {
    const reason = error instanceof GroupsError ? error.message : errorCode(error);
    throw new Failure('failed', `${groups} cannot be read: ${reason}`, 'a line is: name = member member');
  }
}

export interface ClientFilter {
  /** The one client that is meant, where the text says no more. */
  exact: string | undefined;
  /** `-` and undefined are a client that is not known. */
  includes(clientId: string | undefined): boolean;
}

/**
 * Reads client ids, globs and names of groups with commas between them, as --to has them. What a log names may be no client id: an empty glob
 * matches nothing, and `*` all. Throws Failure `failed` for groups that cannot be read.
 */
export function makeClientFilter({ settings, remote }: Pick<Site, 'settings' | 'remote'>, text: string): ClientFilter {
  // The groups of a site are among its files.
  const groups: Groups = remote ? new Map() : readGroups(settings);
  const words = text.split(',');
  const [first = ''] = words;
  const isOne = words.length === 1 && !groups.has(first);
  // Jobs are many and clients few.
  const known = new Map<string, boolean>();
  const isMeant = (clientId: string): boolean => {
    if (isOne) return matchesGlob(first, clientId);
    let isIn = known.get(clientId);
    if (isIn === undefined) {
      isIn = words.some(makeMembership(groups, clientId));
      known.set(clientId, isIn);
    }
    return isIn;
  };
  return {
    exact: isOne && !/[*?]|^-$/.test(first) ? first : undefined,
    includes: (clientId = '-') => isMeant(clientId),
  };
}
