// The result keys of a site's clients, each read when it is first needed.
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { isClientId } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { NoteError } from '../notes/note.ts';
import { MAX_RESULT_KEYS_BYTES, parseResultKeys, type ResultKey } from '../notes/result-keys.ts';

/** The directory beside nph-webjob.cfg with the result keys of a site, one file for each client. */
const FOLDER = 'webjob-result-keys';

/** The directory with the result keys of a site's clients, or the file with those of one client. */
export function resultKeysPath(etcDirectory: string, clientId = ''): string {
  return join(etcDirectory, FOLDER, clientId);
}

/** The directory with the result keys of the site that an nph-webjob.cfg configures. */
export function resultKeysFolder(propertiesFile: string): string {
  return resultKeysPath(dirname(resolve(propertiesFile)));
}

/**
 * Reads the result keys of one client from these directories, oldest first. Throws Failure
 * `failed`.
 */
export function readResultKeys(folders: readonly string[], clientId: string): ResultKey[] {
  if (!isClientId(clientId)) return [];
  return folders.flatMap((folder) => {
    const path = join(folder, clientId);
    const text = readTrusted(path);
    try {
      return text === undefined ? [] : parseResultKeys(text, clientId);
    } catch (error) {
      if (error instanceof NoteError) throw new Failure('failed', `${path}: ${error.message}`);
      throw error;
    }
  });
}

/** Reads result keys and caches them. */
export class ResultKeys {
  readonly #folders: readonly string[];
  readonly #known = new Map<string, readonly ResultKey[]>();

  constructor(folders: readonly string[]) {
    this.#folders = [...new Set(folders)];
  }

  /**
   * The result keys of a client, oldest first; empty for a client without keys. Throws Failure
   * `failed`.
   */
  of(clientId: string): readonly ResultKey[] {
    const known = this.#known.get(clientId);
    if (known) return known;
    const keys = readResultKeys(this.#folders, clientId);
    this.#known.set(clientId, keys);
    return keys;
  }
}

/** Reads a file that only trusted users can write; undefined when it does not exist. */
function readTrusted(path: string): string | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { mode, size } = fstatSync(fd);
      if ((mode & 0o022) !== 0) throw new Failure('failed', `others can write to ${path}`, `chmod go-w ${path}`);
      if (size > MAX_RESULT_KEYS_BYTES)
        throw new Failure('failed', `${path} is longer than ${MAX_RESULT_KEYS_BYTES} bytes`);
      return readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path} cannot be read: ${code}`);
  }
}
