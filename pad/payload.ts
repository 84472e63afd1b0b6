// The payload of a PaD file: one file as it is, or a directory as a tar.
import { basename, resolve } from 'node:path';
import { Failure } from '../cli/failure.ts';
import { type Entry, listEntries, readPieces } from './files.ts';
import { tarPieces } from './tar.ts';

export interface Payload {
  kind: 'file' | 'directory';
  /** The default name, if the PaD file has lost its own. */
  name: string;
  /** The mode of a file: only the user who unpacks it can read it, or run it. */
  mode: '600' | '700';
  /**
   * The bytes of the payload, the same every time. Throws Failure `failed` when the size of a file
   * has changed.
   */
  pieces(): Generator<Buffer>;
}

const SEVERAL = 'payload';

/**
 * A single file or directory is the payload itself; several are put into a new directory. Throws
 * Failure `usage` for an impossible name, `failed` for a file that cannot be read.
 */
export function openPayload(paths: readonly string[], givenName: string | undefined): Payload {
  const names = paths.map((path) => basename(resolve(path)));
  const [path = '', ...more] = paths;
  const name = checkName(givenName ?? (more.length > 0 ? SEVERAL : (names[0] ?? '')));
  if (more.length > 0) return folderOf(name, listSeveral(paths, names));
  const entries = listEntries(path, '.');
  const [first] = entries;
  if (first?.kind === 'file') {
    const { size, mode } = first;
    return { kind: 'file', name, mode: mode & 0o111 ? '700' : '600', pieces: () => readPieces(path, size) };
  }
  return folderOf(
    name,
    entries.slice(1).map((entry) => ({ ...entry, name: entry.name.slice('./'.length) })),
  );
}

function folderOf(name: string, entries: readonly Entry[]): Payload {
  return { kind: 'directory', name, mode: '700', pieces: () => tarPieces(entries) };
}

function listSeveral(paths: readonly string[], names: readonly string[]): Entry[] {
  const repeated = names.find((name, index) => names.indexOf(name) !== index);
  if (repeated !== undefined) {
    throw new Failure(
      'usage',
      `two payloads are called ${repeated}`,
      'pack one directory that has them in different subdirectories',
    );
  }
  return paths.flatMap((path, index) => listEntries(path, checkName(names[index] ?? '')));
}

function checkName(name: string): string {
  if (name === '' || name === '.' || name === '..' || name.includes('/') || Buffer.byteLength(name) > 255) {
    throw new Failure('usage', `'${name}' cannot be the name of a file`, 'give one with --name');
  }
  return name;
}
