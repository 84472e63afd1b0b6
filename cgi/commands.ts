// findCommand: finds the file that a GET asks for (docs/protocol.md, section 5).
import { type ContainedFile, openContained } from './contained.ts';
import type { ServerSettings } from './setting-table.ts';

export interface CommandFile extends ContainedFile {
  /** The path below ProfilesDirectory. */
  place: string;
}

/**
 * Opens the file of a command: the first one found in `<client>/commands`, `<client>`, and then in
 * `<directory>/commands` and `<directory>` for each directory in FolderList. Undefined when no file
 * exists. Throws Refusal 457 for a file that exists but cannot be served: a shared file must not
 * silently replace a client's broken one. The caller closes the descriptor.
 */
export function findCommand(settings: ServerSettings, clientId: string, fileName: string): CommandFile | undefined {
  for (const folder of [clientId, ...settings.folderList.split(':').filter(Boolean)]) {
    for (const place of [`${folder}/commands/${fileName}`, `${folder}/${fileName}`]) {
      const file = openContained(settings.profilesDirectory, place);
      if (file) return { ...file, place };
    }
  }
  return undefined;
}
