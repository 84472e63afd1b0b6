// Files of trusted keys (DsvTrustedKeysFile), changed line by line so that comments stay.
import { existsSync, readFileSync } from 'node:fs';
import { Failure } from '../cli/failure.ts';
import { errorCode, replaceFile } from '../cli/files.ts';
import { withLock } from '../cli/lockfile.ts';
import { formatVerifierKey, type NoteKey, parseVerifierKey } from '../notes/ed25519.ts';
import { NoteError } from '../notes/note.ts';
import { formatTrustedKey, parseTrustedKeys, type TrustedKey } from '../notes/trust.ts';
import { readVerifierKey } from './keys.ts';
import { readTrustedKeys } from './manifests.ts';

/** The key of a given verifier key, or of a file with one. Throws Failure `failed`. */
export function findVerifierKey(given: string): NoteKey {
  try {
    return parseVerifierKey(given);
  } catch (error) {
    if (!(error instanceof NoteError)) throw error;
    return readVerifierKey(given);
  }
}

/**
 * The key in a file that is named by `name`, `name+id`, a verifier key, or a file with one. Throws
 * Failure `failed`.
 */
export function findTrustedKey(file: string, given: string): TrustedKey {
  const keys = readTrustedKeys(file);
  const named = keys.filter((key) => [key.name, `${key.name}+${key.id}`, verifierKeyOf(key)].includes(given));
  const found =
    named.length > 0 || !existsSync(given) ? named : keys.filter((key) => isSame(key, readVerifierKey(given)));
  const [key, another] = found;
  if (key === undefined)
    throw new Failure('failed', `${file} has no key ${given}`, `webjobctl sign trust list ${file}`);
  if (another !== undefined)
    throw new Failure('failed', `${found.length} keys have the name ${given}`, `one is ${key.name}+${key.id}`);
  return key;
}

/**
 * Replaces the line of a key, adds it, or with `by` undefined removes it. Throws Failure `failed`,
 * also when no client would accept the resulting file.
 */
export function changeTrustedKeys(file: string, key: NoteKey, by: TrustedKey | undefined): void {
  try {
    withLock(file, () => {
      const was = existsSync(file) ? readFileSync(file, 'utf8') : '';
      parseTrustedKeys(was);
      const lines = was.split('\n');
      if (lines.at(-1) === '') lines.pop();
      const at = lines.findIndex((line) => parseTrustedKeys(line).some((other) => isSame(other, key)));
      const line = by && formatTrustedKey(by);
      if (at >= 0) lines.splice(at, 1, ...(line === undefined ? [] : [line]));
      else if (line !== undefined) lines.push(line);
      const text = lines.map((one) => `${one}\n`).join('');
      // Throws for a file that a client would reject.
      parseTrustedKeys(text);
      replaceFile(file, text, { mode: 0o644 });
    });
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (error instanceof NoteError) throw new Failure('failed', `${file} ${error.message}`);
    throw new Failure('failed', `${file} cannot be written: ${errorCode(error)}`);
  }
}

/** The key in the form that --json prints. */
export function describeKey(key: TrustedKey): { name: string; id: string; weight: number; key: string } {
  return { name: key.name, id: key.id, weight: key.weight, key: verifierKeyOf(key) };
}

function isSame(one: NoteKey, other: NoteKey): boolean {
  return one.name === other.name && one.publicKey.equals(other.publicKey);
}

function verifierKeyOf({ name, publicKey }: NoteKey): string {
  return formatVerifierKey(name, publicKey);
}
