// findCommand: which file a GET means (docs/protocol.md, section 5).
import { type ContainedFile, openContained } from './contained.ts';
import type { ServerSettings } from './controls.ts';

export interface CommandFile extends ContainedFile {
  /** Its path below ProfilesDirectory. */
  place: string;
}

/**
 * Opens the first file of that name in `<client>/commands`, `<client>`, then the same two of every folder of FolderList.
 * Undefined when there is none. Throws Refusal 457 for one that is there but cannot be served: a broken file of the
 * client's own must not silently give way to a common one. The caller closes the descriptor.
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
