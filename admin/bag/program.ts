// The manifest of the program that a job ran. The site has the current one, and the log says how
// many bytes were sent.
import { closeSync, readFileSync } from 'node:fs';
import { isClientId, isFileName, isSuccess, MANIFEST_SUFFIX, MAX_MANIFEST_BYTES, matchesGlob } from 'webjob-protocol';
import { findCommand } from '../../cgi/commands.ts';
import { openContained, UnusableFile } from '../../cgi/contained.ts';
import { instantOf } from '../../ledger/instant.ts';
import type { Job } from '../../ledger/job.ts';
import { findMismatch, parseManifest } from '../../notes/manifest.ts';
import { type Note, NoteError, parseNote } from '../../notes/note.ts';
import type { Site } from '../site/site.ts';

export interface FoundManifest {
  bytes: Buffer;
  note: Note;
}

/** Finds the manifest, or the reason why there is none to hand over. */
export function findProgramManifest(site: Site, { get, clientId = '' }: Job): FoundManifest | string {
  const { fileName = '', status = 0, bytesSent } = get ?? {};
  if (!get || !isSuccess(status)) return 'the log does not say which program the client got';
  if (!isClientId(clientId) || !isFileName(fileName)) return 'no program has such a name';
  try {
    const command = findCommand(site.settings, clientId, fileName);
    if (!command) return `the site no longer has ${fileName}`;
    closeSync(command.fd);
    const bytes = readBounded(site.settings.profilesDirectory, command.place + MANIFEST_SUFFIX);
    if (!bytes) return `${fileName} has no manifest`;
    const note = parseNote(bytes);
    const manifest = parseManifest(note.text);
    if (manifest.size !== bytesSent) return `the manifest of ${fileName} is not for the program that was sent`;
    // Its globs could name other clients.
    if (!manifest.clients.every((glob) => matchesGlob(glob, clientId)))
      return `the manifest of ${fileName} names other clients, too`;
    const mismatch = findMismatch(manifest, { name: fileName, clientId, at: instantOf(get, site) });
    return mismatch === undefined ? { bytes, note } : `the manifest of ${fileName} was not for this run: ${mismatch}`;
  } catch (error) {
    if (error instanceof NoteError || error instanceof UnusableFile)
      return `the manifest of ${fileName} cannot be used: ${error.message}`;
    throw error;
  }
}

function readBounded(root: string, place: string): Buffer | undefined {
  const file = openContained(root, place);
  if (!file) return undefined;
  try {
    if (file.size > MAX_MANIFEST_BYTES) throw new UnusableFile(`longer than ${MAX_MANIFEST_BYTES} bytes`);
    return readFileSync(file.fd);
  } finally {
    closeSync(file.fd);
  }
}
