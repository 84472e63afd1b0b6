// C2SP signed notes (https://c2sp.org/signed-note): a text followed by a line for each signature on
// it. The format of manifests and of checkpoints of the custody record, which other tools can read
// and verify too.
import { isUtf8 } from 'node:buffer';

/** A parsed note. Only its form has been checked: see verifyNote(). */
export interface Note {
  /** The signed text, including its last newline. */
  text: string;
  signatures: NoteSignature[];
}

/** A signature line. */
export interface NoteSignature {
  /**
   * The name of the key. Anyone can have written it: escape it before printing it to a terminal.
   */
  name: string;
  /** The key id: 8 hexadecimal digits. */
  id: string;
  /** The signature on the text. */
  bytes: Buffer;
}

/** Verifies signatures of one key. Name and id together identify the key of a signature line. */
export interface NoteVerifier {
  readonly name: string;
  readonly id: string;
  isGood(text: string, signature: Uint8Array): boolean;
}

/** Makes signatures with one key. */
export interface NoteSigner {
  readonly name: string;
  readonly id: string;
  sign(text: string): Buffer;
}

/** Bytes that are not a note, or a note that must be rejected as a whole. The message says why. */
export class NoteError extends Error {}

/** The longest note. The format requires support for 16 signatures of almost 5 kB. */
export const MAX_NOTE_BYTES = 128 * 1024;
/** The most signature lines. */
export const MAX_SIGNATURES = 100;

const DASH = '— ';
const ID_BYTES = 4;

/** Parses a note. Throws NoteError unless the bytes are exactly one note. */
export function parseNote(bytes: Uint8Array): Note {
  if (bytes.length > MAX_NOTE_BYTES) throw new NoteError(`longer than ${MAX_NOTE_BYTES} bytes`);
  if (!isUtf8(bytes)) throw new NoteError('not UTF-8');
  const whole = Buffer.from(bytes).toString('utf8');
  assertNoControls(whole);
  // The last blank line, because the text may contain others.
  const blank = whole.lastIndexOf('\n\n');
  if (blank < 0) throw new NoteError('no blank line before signatures');
  const lines = whole.slice(blank + 2).split('\n');
  if (lines.pop() !== '') throw new NoteError('the last line has no newline');
  if (lines.length === 0) throw new NoteError('no signature');
  if (lines.length > MAX_SIGNATURES) throw new NoteError(`more than ${MAX_SIGNATURES} signatures`);
  return { text: whole.slice(0, blank + 1), signatures: lines.map(parseSignatureLine) };
}

/** Formats a note. Throws NoteError for what parseNote() would reject. */
export function formatNote({ text, signatures }: Note): string {
  const lines = signatures.map((signature) => `${DASH}${formatSignature(signature)}\n`);
  const whole = `${text}\n${lines.join('')}`;
  const parsed = parseNote(Buffer.from(whole));
  if (parsed.text !== text || parsed.signatures.length !== signatures.length)
    throw new NoteError('not the text of a note');
  return whole;
}

/**
 * Finds out which of these keys signed the text. Signatures of other keys are ignored, as the
 * format requires.
 *
 * @returns each key that signed, once; at least one
 * @throws NoteError when none did, or when a signature that claims to be of one of these keys is
 * wrong
 */
export function verifyNote<Verifier extends NoteVerifier>(note: Note, verifiers: readonly Verifier[]): Verifier[] {
  const signed = new Set<Verifier>();
  for (const { name, id, bytes } of note.signatures)
    for (const verifier of verifiers) {
      if (verifier.name !== name || verifier.id !== id) continue;
      if (!verifier.isGood(note.text, bytes)) throw new NoteError(`the signature of ${name}+${id} is wrong`);
      signed.add(verifier);
    }
  if (signed.size === 0) throw new NoteError('no signature of a trusted key');
  return [...signed];
}

/**
 * Makes a note: the text, signed by each of these keys in order. Throws NoteError for a text that a
 * note cannot have.
 */
export function signNote(text: string, signers: readonly NoteSigner[]): string {
  return formatNote({ text, signatures: signers.map((signer) => signatureOf(text, signer)) });
}

/** The note with another signature. Throws NoteError when this key has already signed it. */
export function addSignature(note: Note, signer: NoteSigner): string {
  if (note.signatures.some(({ name, id }) => name === signer.name && id === signer.id))
    throw new NoteError(`already signed by ${signer.name}+${signer.id}`);
  return formatNote({ ...note, signatures: [...note.signatures, signatureOf(note.text, signer)] });
}

/** Signs a text with a key. */
export function signatureOf(text: string, { name, id, sign }: NoteSigner): NoteSignature {
  return { name, id, bytes: sign(text) };
}

/**
 * Whether a key may have this name: not empty, without white space, plus signs and control
 * characters.
 */
export function isKeyName(name: string): boolean {
  // The format would allow control characters above U+001F, but terminals interpret some of them.
  return /^[^\p{White_Space}\p{Cc}\p{Cs}+]+$/u.test(name);
}

/** Decodes base64 in its canonical form; undefined for any other text. */
export function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : undefined;
}

/**
 * Formats a signature line after its dash: the name of the key, and base64 of its id and the
 * signature.
 */
export function formatSignature({ name, id, bytes }: NoteSignature): string {
  return `${name} ${Buffer.concat([Buffer.from(id, 'hex'), bytes]).toString('base64')}`;
}

/** Parses what formatSignature() returns; undefined for any other text. */
export function parseSignature(text: string): NoteSignature | undefined {
  const [, name = '', encoded = ''] = /^([^ ]+) ([^ ]+)$/.exec(text) ?? [];
  const bytes = decodeBase64(encoded);
  if (!isKeyName(name) || bytes === undefined || bytes.length <= ID_BYTES) return undefined;
  return { name, id: bytes.toString('hex', 0, ID_BYTES), bytes: bytes.subarray(ID_BYTES) };
}

function parseSignatureLine(line: string): NoteSignature {
  const signature = line.startsWith(DASH) ? parseSignature(line.slice(DASH.length)) : undefined;
  if (!signature) throw new NoteError('a line below the text is not a signature');
  return signature;
}

function assertNoControls(text: string): void {
  if (/[\0-\x09\x0b-\x1f]/.test(text)) throw new NoteError('a control character');
}
