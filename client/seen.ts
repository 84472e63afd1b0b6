// Files in which a client notes the signed texts that it has accepted, one per line, so that a
// server cannot replay them. A line is on disk before anything runs, and if the file cannot be
// read, nothing runs.
import { readFileSync } from 'node:fs';
import { KnownFailure } from '../cli/failure.ts';
import { replaceFile } from '../cli/files.ts';
import { withLock } from '../cli/lockfile.ts';
import { codeOf, Failure } from './failure.ts';

/**
 * Parses the lines of a file, each split into words; a missing file has no lines. Throws Failure
 * `settings` for an unreadable file, and for a line for which `parse` returns undefined.
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
  // An incomplete last line is an error too, which is reported with the line number.
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
 * Replaces a file, under a lock, with the text that `change` returns, unless that is undefined. The
 * text is on disk when this returns. Throws the Failure of `change`, and Failure `get` when the
 * file cannot be written.
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
