// The result keys of one client at a site: a file with a verifier key on each line, followed by the
// time from which the client uses it, and the time at which it ended. Ended keys stay in the file,
// to verify earlier results.
import { formatVerifierKey, type NoteKey, parseVerifierKey } from './ed25519.ts';
import { formatSeconds } from './manifest.ts';
import { NoteError } from './note.ts';

export interface ResultKey extends NoteKey {
  /** From this time on results must be signed. */
  readonly from: Date;
  /** From this time on results of this key are rejected; undefined while it is in use. */
  readonly until: Date | undefined;
}

/** The largest file of result keys that is read. */
export const MAX_RESULT_KEYS_BYTES = 64 * 1024;

/**
 * Parses the result keys of a client: lines `KEY FROM` or `KEY FROM UNTIL`, blank lines, and
 * comments that begin with `#`.
 *
 * @throws NoteError that names the line, also for a key whose name is not the client's
 */
export function parseResultKeys(text: string, clientId: string): ResultKey[] {
  const keys: ResultKey[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.trim();
    if (words === '' || words.startsWith('#')) continue;
    try {
      const key = parseResultKey(words);
      if (key.name !== clientId) throw new NoteError(`the key of ${key.name}, not of ${clientId}`);
      keys.push(key);
    } catch (error) {
      if (!(error instanceof NoteError)) throw error;
      throw new NoteError(`line ${index + 1}: ${error.message}`);
    }
  }
  return keys;
}

/** Formats the whole file. */
export function formatResultKeys(keys: readonly ResultKey[]): string {
  const lines = keys.map(({ name, publicKey, from, until }) =>
    [formatVerifierKey(name, publicKey), formatSeconds(from), ...(until ? [formatSeconds(until)] : [])].join(' '),
  );
  return `# verifier key, in use from, until\n${lines.map((line) => `${line}\n`).join('')}`;
}

/**
 * Whether a key was in use at a time: results that arrived then must be signed, and this key could
 * have signed them.
 */
export function isInUse({ from, until }: ResultKey, at: Date): boolean {
  return from <= at && (until === undefined || at < until);
}

function parseResultKey(line: string): ResultKey {
  const [text = '', from, until, ...more] = line.split(/[ \t]+/);
  if (from === undefined || more.length > 0) throw new NoteError('not a verifier key and two times');
  return {
    ...parseVerifierKey(text),
    from: parseTime(from),
    until: until === undefined ? undefined : parseTime(until),
  };
}

function parseTime(text: string): Date {
  const date = new Date(text);
  if (Number.isNaN(date.getTime()) || formatSeconds(date) !== text) throw new NoteError(`${text} is not a time`);
  return date;
}
