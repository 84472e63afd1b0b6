// Trusted keys: a file with a verifier key on each line, and the weight of its signature. A
// threshold of 2 with keys of weight 1 means that two people must sign.
import { formatVerifierKey, type NoteKey, parseVerifierKey } from './ed25519.ts';
import { NoteError } from './note.ts';

export interface TrustedKey extends NoteKey {
  /** 1 to 99. */
  readonly weight: number;
}

/** The largest file of trusted keys that is read. */
export const MAX_TRUST_BYTES = 64 * 1024;

/**
 * Parses a file of trusted keys: lines `KEY` or `KEY WEIGHT`, blank lines, and comments that begin
 * with `#`.
 *
 * @throws NoteError that names the line; also for a key that is listed twice under any names,
 * because its owner would count twice
 */
export function parseTrustedKeys(text: string): TrustedKey[] {
  const keys: TrustedKey[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.trim();
    if (words === '' || words.startsWith('#')) continue;
    try {
      const key = parseTrustedKey(words);
      const twin = keys.find((other) => other.publicKey.equals(key.publicKey));
      if (twin) throw new NoteError(`the same key as ${twin.name}+${twin.id}`);
      keys.push(key);
    } catch (error) {
      if (!(error instanceof NoteError)) throw error;
      throw new NoteError(`line ${index + 1}: ${error.message}`);
    }
  }
  return keys;
}

/** Formats the line of a key, without its newline. */
export function formatTrustedKey({ name, publicKey, weight }: TrustedKey): string {
  return `${formatVerifierKey(name, publicKey)} ${weight}`;
}

/** The total weight of signatures by all of these keys. */
export function weightOf(keys: readonly TrustedKey[]): number {
  return keys.reduce((sum, { weight }) => sum + weight, 0);
}

function parseTrustedKey(line: string): TrustedKey {
  const [, text = '', weight = '1'] = /^(\S+)(?:[ \t]+([1-9]\d?))?$/.exec(line) ?? [];
  if (text === '') throw new NoteError('not a verifier key and a weight of 1 to 99');
  return { ...parseVerifierKey(text), weight: Number(weight) };
}
