// Resolves options that take client ids, globs and groups: jobs --client, latest --to, and so on.
import { existsSync, readFileSync } from 'node:fs';
import { isClientId, matchesGlob } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { errorCode } from '../cli/files.ts';
import { type Groups, GroupsError, makeMembership, membersOf, parseGroups } from '../fleet/groups.ts';
import { fleetPaths } from '../fleet/paths.ts';
import type { Site } from './site.ts';

/** The groups of a site; empty without a file. Throws Failure `failed`. */
export function readGroups(settings: Site['settings']): Groups {
  const { groups } = fleetPaths(settings);
  return existsSync(groups) ? readGroupsFile(groups) : new Map();
}

/** The groups in a file. Throws Failure `failed`. */
export function readGroupsFile(path: string): Groups {
  try {
    return parseGroups(readFileSync(path, 'utf8'));
  } catch (error) {
    const isWrong = error instanceof GroupsError;
    const reason = isWrong ? error.message : errorCode(error);
    throw new Failure(
      'failed',
      `${path} cannot be read: ${reason}`,
      isWrong ? 'each line is: name = member member' : undefined,
    );
  }
}

/**
 * The client ids and globs in a list, with each group replaced by its members. Throws Failure
 * `failed`.
 */
export function expandClients({ settings, remote }: Pick<Site, 'settings' | 'remote'>, text: string): string[] {
  return [...membersOf(remote ? new Map() : readGroups(settings), text.split(','))];
}

/**
 * The client ids of a group; undefined for a name that is not a group. Throws Failure `failed` when
 * the groups cannot be read, and `usage` when the group contains a glob.
 */
export function clientsOfGroup(settings: Site['settings'], name: string): string[] | undefined {
  const groups = readGroups(settings);
  if (!groups.has(name)) return undefined;
  const members = [...membersOf(groups, [name])];
  const glob = members.find((member) => !isClientId(member));
  if (glob === undefined) return members;
  throw new Failure('usage', `the group ${name} contains the glob ${glob}, and client ids are required`);
}

export interface ClientFilter {
  /** The client id, when the text is nothing but one client id. */
  exact: string | undefined;
  /** Whether a client is included. `-` and undefined stand for an unknown client. */
  includes(clientId: string | undefined): boolean;
}

/**
 * Parses client ids, globs and group names separated by commas, as --to takes them. A log may
 * contain names that are not client ids: an empty glob matches none of them, `*` all. Throws
 * Failure `failed` when the groups cannot be read.
 */
export function makeClientFilter({ settings, remote }: Pick<Site, 'settings' | 'remote'>, text: string): ClientFilter {
  // The groups of a site are defined in its files, which a remote site does not have here.
  const groups: Groups = remote ? new Map() : readGroups(settings);
  const words = text.split(',');
  const [first = ''] = words;
  const isOne = words.length === 1 && !groups.has(first);
  // A cache, because there are many jobs and few clients.
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
