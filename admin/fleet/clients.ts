// The clients of a site, and the targets of an assignment among them.

import { isClientId, matchesGlob } from 'webjob-protocol';
import type { Assignment } from '../../fleet/assignment.ts';
import { type Groups, makeMembership, namedClients } from '../../fleet/groups.ts';
import { listCertificates } from '../clients/certificates.ts';
import type { Context } from '../clients/context.ts';
import { listProfiles } from '../clients/profiles.ts';
import { readClientIds } from '../clients/userfile.ts';

/**
 * The clients of a site, sorted: those with a password or a valid certificate. At a site without
 * either, those with a directory below profiles. Throws Failure `failed`.
 */
export function listClientIds({ settings, etcDirectory, userFile }: Context): string[] {
  const users = readClientIds(userFile);
  const certified = listCertificates(etcDirectory)
    .filter(({ state }) => state === 'valid')
    .map(({ client }) => client);
  // The users are sorted already; sorting a large fleet again would be expensive.
  if (certified.length === 0 && users.length > 0) return users;
  const known = [...new Set([...users, ...certified.filter(isClientId)])];
  return (known.length > 0 ? known : listProfiles(settings)).sort();
}

/**
 * The targets of an assignment, sorted, including clients that it names and the site does not know.
 */
export function findTargets({ to }: Pick<Assignment, 'to'>, groups: Groups, clientIds: readonly string[]): string[] {
  // A word that is not a group always means the same clients.
  const [named, globs] = [to.filter((word) => groups.has(word)), to.filter((word) => !groups.has(word))];
  const isAll = globs.includes('*');
  const meant = clientIds.filter(
    (clientId) =>
      isAll ||
      globs.some((glob) => matchesGlob(glob, clientId)) ||
      (named.length > 0 && named.some(makeMembership(groups, clientId))),
  );
  const others = namedClients(groups, to);
  // The clients are sorted already; sorting a large fleet again would be expensive.
  return others.size === 0 ? meant : [...new Set([...meant, ...others])].sort();
}
