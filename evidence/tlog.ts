// The text formats of transparency logs that other tools read: checkpoints
// (c2sp.org/tlog-checkpoint), inclusion proofs (c2sp.org/tlog-proof), consistency proofs in the
// form of a request to a witness (c2sp.org/tlog-witness), and cosignatures
// (c2sp.org/tlog-cosignature).
import { type KeyObject, verify } from 'node:crypto';
import { keyId, type NoteKey, parseKeyLine, rawKey } from '../notes/ed25519.ts';
import { decodeBase64, type Note, parseNote } from '../notes/note.ts';
import { HASH_BYTES } from './merkle.ts';

/** The head of a Merkle tree. */
export interface TreeHead {
  /** The name of the log. */
  origin: string;
  /** The number of entries. */
  size: number;
  root: Buffer;
}

/** A text that is malformed or does not verify; the message says why. */
export class TlogError extends Error {}

/** Formats the text of a checkpoint to be signed (c2sp.org/tlog-checkpoint). */
export function formatTreeHead({ origin, size, root }: TreeHead): string {
  return `${origin}\n${size}\n${root.toString('base64')}\n`;
}

/**
 * Parses the text of a note as a checkpoint; extension lines after the first three are allowed.
 * Throws TlogError.
 */
export function parseTreeHead(text: string): TreeHead {
  const [origin = '', size = '', encoded = '', ...more] = text.split('\n');
  const isWhole = more.length > 0 && more.at(-1) === '' && !more.slice(0, -1).includes('');
  if (origin === '' || !isWhole) throw new TlogError('not a checkpoint');
  return { origin, size: parseCount(size), root: parseHash(encoded) };
}

/** The proof that a log contains an entry. */
export interface EntryProof {
  index: number;
  path: Buffer[];
  /** The entry itself; undefined when the proof does not contain it. */
  entry: Buffer | undefined;
  /** The checkpoint of the tree with the entry, verbatim. */
  checkpoint: string;
}

const PROOF_LINE = 'c2sp.org/tlog-proof@v1';
const MAX_PATH = 63;

/**
 * Formats a proof (c2sp.org/tlog-proof). The entry goes into the line of extra data, so that the
 * proof is complete by itself.
 */
export function formatProof({ index, path, entry, checkpoint }: EntryProof): string {
  const extra = entry === undefined ? '' : `extra ${entry.toString('base64')}\n`;
  return `${PROOF_LINE}\n${extra}index ${index}\n${formatPath(path)}\n${checkpoint}`;
}

/** Parses a proof (c2sp.org/tlog-proof). Throws TlogError. */
export function parseProof(text: string): EntryProof {
  const lines = text.split('\n');
  if (lines.shift() !== PROOF_LINE) throw new TlogError(`the first line is not ${PROOF_LINE}`);
  const [, extra] = /^extra (.*)$/.exec(lines[0] ?? '') ?? [];
  const entry = extra === undefined ? undefined : decodeBase64(extra);
  if (extra !== undefined && (entry === undefined || extra === '')) throw new TlogError('the extra data is not base64');
  if (entry) lines.shift();
  const [, index] = /^index (.*)$/.exec(lines.shift() ?? '') ?? [];
  if (index === undefined) throw new TlogError('the index line is missing');
  return { index: parseCount(index), entry, ...parsePath(lines) };
}

/** Splits a text of several proofs. Throws TlogError. */
export function splitProofs(text: string): string[] {
  const parts = text.split(new RegExp(`^(?=${PROOF_LINE.replaceAll('.', '\\.')}$)`, 'm'));
  if (parts.length === 0 || !text.startsWith(PROOF_LINE)) throw new TlogError(`the first line is not ${PROOF_LINE}`);
  return parts;
}

/** The proof that a later tree begins with an earlier one. */
export interface Extension {
  /** The size of the earlier tree. */
  older: number;
  path: Buffer[];
  /** The checkpoint of the later tree, verbatim. */
  checkpoint: string;
}

export function formatExtension({ older, path, checkpoint }: Extension): string {
  return `old ${older}\n${formatPath(path)}\n${checkpoint}`;
}

/** Parses a consistency proof (c2sp.org/tlog-witness). Throws TlogError. */
export function parseExtension(text: string): Extension {
  const lines = text.split('\n');
  const [, older] = /^old (.*)$/.exec(lines.shift() ?? '') ?? [];
  if (older === undefined) throw new TlogError('the first line does not give the old size');
  return { older: parseCount(older), ...parsePath(lines) };
}

function formatPath(path: readonly Buffer[]): string {
  return path.map((hash) => `${hash.toString('base64')}\n`).join('');
}

/** Parses hashes up to a blank line, and the checkpoint after it. */
function parsePath(lines: readonly string[]): { path: Buffer[]; checkpoint: string } {
  const end = lines.indexOf('');
  if (end < 0 || end > MAX_PATH) throw new TlogError('no blank line after the hashes');
  return { path: lines.slice(0, end).map(parseHash), checkpoint: lines.slice(end + 1).join('\n') };
}

function parseCount(text: string): number {
  const count = /^(?:0|[1-9]\d{0,15})$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(count)) throw new TlogError('not a number');
  return count;
}

function parseHash(text: string): Buffer {
  const hash = decodeBase64(text);
  if (hash?.length !== HASH_BYTES) throw new TlogError('not a hash');
  return hash;
}

/** A checkpoint in a file, and the number of its first line. */
export interface Piece {
  line: number;
  text: string;
}

/**
 * Splits a file to which checkpoints were appended: notes, and in files that an earlier version
 * began, a line of JSON for each checkpoint. A note ends before the first line after its signatures
 * that is not a signature.
 */
export function splitCheckpoints(text: string): Piece[] {
  const pieces: Piece[] = [];
  let [part, from, isSigned] = [[] as string[], 1, false];
  const end = (): void => {
    if (part.some((line) => line !== '')) pieces.push({ line: from, text: part.map((line) => `${line}\n`).join('') });
    part = [];
    isSigned = false;
  };
  const lines = text.replace(/\n$/, '').split('\n');
  for (const [index, line] of lines.entries()) {
    const isSignature = line.startsWith('— ');
    // A blank line is followed by signatures; otherwise the note was cut off there, and the next
    // one is still whole.
    const isCut = line === '' && !lines[index + 1]?.startsWith('— ');
    if ((isSigned && !isSignature) || isCut) end();
    if (part.length === 0 && line === '') continue;
    if (part.length === 0) from = index + 1;
    isSigned = isSignature || (part.length === 0 && line.startsWith('{'));
    part.push(line);
  }
  end();
  return pieces;
}

/** Parses the bytes of a signed checkpoint. Throws NoteError and TlogError. */
export function parseCheckpoint(text: string): { note: Note; head: TreeHead } {
  const note = parseNote(Buffer.from(text));
  return { note, head: parseTreeHead(note.text) };
}

/** The signature type of Ed25519 cosignatures (c2sp.org/tlog-cosignature, "Format"). */
const COSIGNATURE = 0x04;
const TIME_BYTES = 8;
/** The largest time that shell arithmetic can handle, far beyond any clock. */
const MAX_SECONDS = 253_402_300_799n;

/** A witness and its key. */
export type Cosigner = NoteKey;

/** The time in a valid cosignature. */
export function cosignedAt(bytes: Uint8Array): Date {
  return new Date(Number(Buffer.from(bytes).readBigUInt64BE()) * 1000);
}

/** Parses the verifier key of a witness. Throws NoteError. */
export function parseWitnessKey(text: string): Cosigner {
  const { name, publicKey } = parseKeyLine(text, COSIGNATURE);
  return cosignerOf(name, publicKey);
}

/** Returns a verifier for a witness's cosignatures, which sign a time and the checkpoint. */
export function cosignerOf(name: string, publicKey: KeyObject): Cosigner {
  return {
    name,
    id: keyId(name, COSIGNATURE, rawKey(publicKey)),
    publicKey,
    isGood(text, bytes) {
      if (bytes.length <= TIME_BYTES) return false;
      const signature = Buffer.from(bytes);
      const seconds = signature.readBigUInt64BE();
      if (seconds > MAX_SECONDS) return false;
      const message = `cosignature/v1\ntime ${seconds}\n${text}`;
      return verify(null, Buffer.from(message), publicKey, signature.subarray(TIME_BYTES));
    },
  };
}
