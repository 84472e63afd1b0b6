// The clients of a site, and the targets of an assignment among them.

import { isClientId, matchesGlob } from 'webjob-protocol';
import type { Assignment } from '../../fleet/assignment.ts';
import { type Groups, makeMembership, namedClients } from '../../fleet/groups.ts';
import { listCertificates } from '../clients/certificates.ts';
import type { Desk } from '../clients/desk.ts';
import { listProfiles } from '../clients/profiles.ts';
import { readUserFile } from '../clients/userfile.ts';

/**
 * The clients of a site, sorted: those with a password or a valid certificate. At a site without
 * either, those with a directory below profiles. Throws Failure `failed`.
 */
export function listClientIds({ settings, etcDirectory, userFile }: Desk): string[] {
  const users = readUserFile(userFile).map(({ name }) => name);
  const certified = listCertificates(etcDirectory)
    .filter(({ state }) => state === 'valid')
    .map(({ client }) => client);
  const known = new Set([...users, ...certified].filter(isClientId));
  return [...(known.size > 0 ? known : listProfiles(settings))].sort();
}

/**
 * The clients that an assignment is for, and those it names that the site does not know. Sorted.
 */
export function findTargets({ to }: Pick<Assignment, 'to'>, groups: Groups, clientIds: readonly string[]): string[] {
  // A word that is not a group always means the same clients.
  const [named, globs] = [to.filter((word) => groups.has(word)), to.filter((word) => !groups.has(word))];
  const meant = clientIds.filter(
    (clientId) =>
      globs.some((glob) => matchesGlob(glob, clientId)) ||
      (named.length > 0 && named.some(makeMembership(groups, clientId))),
  );
  return [...new Set([...meant, ...namedClients(groups, to)])].sort();
}
