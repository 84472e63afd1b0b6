// The result keys of the clients of a site, read when a client is asked for.
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { isClientId } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { NoteError } from '../notes/note.ts';
import { MAX_RESULT_KEYS_BYTES, parseResultKeys, type ResultKey } from '../notes/result-keys.ts';

/** The folder beside nph-webjob.cfg in which a site keeps them, a file a client. */
const FOLDER = 'webjob-result-keys';

/** Where a site keeps the result keys of its clients, or those of one. */
export function resultKeysPath(etcDirectory: string, clientId = ''): string {
  return join(etcDirectory, FOLDER, clientId);
}

/** The same by its nph-webjob.cfg. */
export function resultKeysFolder(propertiesFile: string): string {
  return resultKeysPath(dirname(resolve(propertiesFile)));
}

/** The result keys of one client in these folders, oldest first. Throws Failure `failed`. */
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

/** Looks up result keys and remembers them. */
export class ResultKeys {
  readonly #folders: readonly string[];
  readonly #known = new Map<string, readonly ResultKey[]>();

  constructor(folders: readonly string[]) {
    this.#folders = [...new Set(folders)];
  }

  /** Those of a client, oldest first; none for one that the site has no key of. Throws Failure `failed`. */
  of(clientId: string): readonly ResultKey[] {
    const known = this.#known.get(clientId);
    if (known) return known;
    const keys = readResultKeys(this.#folders, clientId);
    this.#known.set(clientId, keys);
    return keys;
  }
}

/** Undefined for a file that is not there. */
function readTrusted(path: string): string | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { mode, size } = fstatSync(fd);
      if ((mode & 0o022) !== 0) throw new Failure('failed', `others may write in ${path}`, `chmod go-w ${path}`);
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
