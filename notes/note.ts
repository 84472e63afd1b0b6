// C2SP signed notes (https://c2sp.org/signed-note): a text, and below it a line of each signature over it. The format of
// manifests of programs and of checkpoints of the custody record; other tools read and check both.
import { isUtf8 } from 'node:buffer';

/** A note taken apart. Nothing in it has been checked but its form: see verifyNote. */
export interface Note {
  /** What is signed, with its last newline. */
  text: string;
  signatures: NoteSignature[];
}

/** One signature line. */
export interface NoteSignature {
  /** The name of the key. It may be anybody's words: escape it before it reaches a terminal. */
  name: string;
  /** The key id: 8 hexadecimal digits. */
  id: string;
  /** What the key made of the text. */
  bytes: Buffer;
}

/** Checks signatures of one key. Name and id together say which key a signature line means. */
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

/** Bytes that are not a note, or a note that must be refused as a whole. The message says why. */
export class NoteError extends Error {}

/** The longest note. The format asks for 16 signatures of nearly 5 kB at least. */
export const MAX_NOTE_BYTES = 128 * 1024;
/** The most signature lines. */
export const MAX_SIGNATURES = 100;

const DASH = '— ';
const ID_BYTES = 4;

/** Throws NoteError unless the bytes are exactly one note. */
export function parseNote(bytes: Uint8Array): Note {
  if (bytes.length > MAX_NOTE_BYTES) throw new NoteError(`longer than ${MAX_NOTE_BYTES} bytes`);
  if (!isUtf8(bytes)) throw new NoteError('not UTF-8');
  const whole = Buffer.from(bytes).toString('utf8');
  assertNoControls(whole);
  // The last blank line: a text may have others.
  const blank = whole.lastIndexOf('\n\n');
  if (blank < 0) throw new NoteError('no blank line before signatures');
  const lines = whole.slice(blank + 2).split('\n');
  if (lines.pop() !== '') throw new NoteError('the last line has no end');
  if (lines.length === 0) throw new NoteError('no signature');
  if (lines.length > MAX_SIGNATURES) throw new NoteError(`more than ${MAX_SIGNATURES} signatures`);
  return { text: whole.slice(0, blank + 1), signatures: lines.map(parseSignatureLine) };
}

/** The note as bytes of a file. Throws NoteError for what parseNote would not take. */
export function formatNote({ text, signatures }: Note): string {
  const lines = signatures.map((signature) => `${DASH}${formatSignature(signature)}\n`);
  const whole = `${text}\n${lines.join('')}`;
  const parsed = parseNote(Buffer.from(whole));
  if (parsed.text !== text || parsed.signatures.length !== signatures.length)
    throw new NoteError('not a text of a note');
  return whole;
}

/**
 * Finds out which of these keys signed the text. Signatures of other keys are ignored, as the format asks.
 *
 * @returns each key that signed, once; at least one
 * @throws NoteError when none did, or when a signature that claims to be of one of these keys is wrong
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

/** A new note: this text, signed by each of these keys in their order. Throws NoteError for what is not a text of a note. */
export function signNote(text: string, signers: readonly NoteSigner[]): string {
  return formatNote({ text, signatures: signers.map((signer) => signatureOf(text, signer)) });
}

/** The note with one more signature line. Throws NoteError when this key has signed it already. */
export function addSignature(note: Note, signer: NoteSigner): string {
  if (note.signatures.some(({ name, id }) => name === signer.name && id === signer.id))
    throw new NoteError(`already signed by ${signer.name}+${signer.id}`);
  return formatNote({ ...note, signatures: [...note.signatures, signatureOf(note.text, signer)] });
}

/** What a key makes of a text. */
export function signatureOf(text: string, { name, id, sign }: NoteSigner): NoteSignature {
  return { name, id, bytes: sign(text) };
}

/** Whether a key may have this name: not empty, no white space, no plus, no control character. */
export function isKeyName(name: string): boolean {
  // The format would allow the control characters above U+001F; terminals obey some of them.
  return /^[^\p{White_Space}\p{Cc}\p{Cs}+]+$/u.test(name);
}

/** The bytes of base64 in its one canonical form; undefined for any other text. */
export function decodeBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : undefined;
}

/** What follows the dash in a signature line: the name of the key, and base64 of its id and the signature. */
export function formatSignature({ name, id, bytes }: NoteSignature): string {
  return `${name} ${Buffer.concat([Buffer.from(id, 'hex'), bytes]).toString('base64')}`;
}

/** The signature that formatSignature wrote; undefined for any other text. */
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
