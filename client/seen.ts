// Files in which a client keeps what it has taken of what was signed, a line each, so that a server
// cannot give it again: they are on disk before anything runs, and one that cannot be read lets
// nothing run.
import { readFileSync } from 'node:fs';
import { KnownFailure } from '../cli/failure.ts';
import { replaceFile } from '../cli/files.ts';
import { withLock } from '../cli/lockfile.ts';
import { codeOf, Failure } from './failure.ts';

/**
 * What the lines of a file say, word by word; nothing where there is no file. Throws Failure
 * `settings` for one that cannot be read, or that has a line of which `parse` makes nothing.
 */
export function readSeen<Value extends object>(
  setting: string,
  path: string,
  parse: (words: string[]) => Value | undefined,
): Value[] {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Failure('settings', `${setting}: ${path} cannot be read: ${codeOf(error)}`);
  }
  const lines = text.split('\n');
  // A file that was cut off names its unfinished line.
  const end = lines.pop();
  if (end !== '') lines.push('');
  return lines.map((line, index) => {
    const value = parse(line.split(' '));
    if (value === undefined)
      throw new Failure('settings', `${setting}: ${path} line ${index + 1} was not written by webjob`);
    return value;
  });
}

/**
 * Writes what `change` makes of a file, unless that is undefined, while no other run does; it is on
 * disk when this returns. Throws the Failure of `change`, and Failure `get` when it cannot be
 * written.
 */
export function changeSeen(setting: string, path: string, change: () => string | undefined): void {
  try {
    withLock(path, () => {
      const text = change();
      if (text !== undefined) replaceFile(path, text, { mode: 0o600 });
    });
  } catch (error) {
    if (error instanceof Failure) throw error;
    const why = error instanceof KnownFailure ? error.message : codeOf(error);
    throw new Failure('get', `${setting}: ${path} cannot be written: ${why}`);
  }
}
