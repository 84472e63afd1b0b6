// Directories below ProfilesDirectory that belong to one client.
import { readdirSync } from 'node:fs';
import { isClientId } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';

/**
 * Clients with a directory of their own; those in FolderList are shared by all. Throws Failure
 * `failed`.
 */
export function listProfiles({ profilesDirectory, folderList }: ServerSettings): string[] {
  const shared = folderList.split(':');
  try {
    const entries = readdirSync(profilesDirectory, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && isClientId(entry.name) && !shared.includes(entry.name))
      .map(({ name }) => name);
  } catch (error) {
    throw new Failure('failed', `${profilesDirectory} cannot be read: ${errorCode(error)}`);
  }
}
