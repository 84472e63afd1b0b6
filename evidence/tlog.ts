// The texts of a transparency log, as other tools read them: checkpoints (c2sp.org/tlog-checkpoint),
// proofs of an entry (c2sp.org/tlog-proof), proofs that a later checkpoint extends an earlier one, as
// a request to a witness has them (c2sp.org/tlog-witness), and cosignatures (c2sp.org/tlog-cosignature).
import { type KeyObject, verify } from 'node:crypto';
import { keyId, type NoteKey, parseKeyLine, rawKey } from '../notes/ed25519.ts';
import { decodeBase64, type Note, parseNote } from '../notes/note.ts';
import { HASH_BYTES } from './merkle.ts';

/** The head of a Merkle tree. */
export interface TreeHead {
  /** Which log it is. */
  origin: string;
  /** How many entries it has. */
  size: number;
  root: Buffer;
}

/** A text that is not what it should be; the message says why. */
export class TlogError extends Error {}

/** The text of a checkpoint, to be signed. */
export function formatTreeHead({ origin, size, root }: TreeHead): string {
  return `${origin}\n${size}\n${root.toString('base64')}\n`;
}

/** The text of a note as the head of a tree; lines of others behind the three are allowed. Throws TlogError. */
export function parseTreeHead(text: string): TreeHead {
  const [origin = '', size = '', encoded = '', ...more] = text.split('\n');
  const isWhole = more.length > 0 && more.at(-1) === '' && !more.slice(0, -1).includes('');
  if (origin === '' || !isWhole) throw new TlogError('not a checkpoint');
  return { origin, size: parseCount(size), root: parseHash(encoded) };
}

/** That an entry is in a log. */
export interface EntryProof {
  index: number;
  path: Buffer[];
  /** The entry itself; undefined when the proof does not hold it. */
  entry: Buffer | undefined;
  /** The checkpoint of the tree that it is in, verbatim. */
  checkpoint: string;
}

const PROOF_LINE = 'c2sp.org/tlog-proof@v1';
const MAX_PATH = 63;

/** The entry goes into the line of extra data, so that the proof needs nothing else. */
export function formatProof({ index, path, entry, checkpoint }: EntryProof): string {
  const extra = entry === undefined ? '' : `extra ${entry.toString('base64')}\n`;
  return `${PROOF_LINE}\n${extra}index ${index}\n${formatPath(path)}\n${checkpoint}`;
}

/** Throws TlogError. */
export function parseProof(text: string): EntryProof {
  const lines = text.split('\n');
  if (lines.shift() !== PROOF_LINE) throw new TlogError(`the first line is not ${PROOF_LINE}`);
  const [, extra] = /^extra (.*)$/.exec(lines[0] ?? '') ?? [];
  const entry = extra === undefined ? undefined : decodeBase64(extra);
  if (extra !== undefined && (entry === undefined || extra === '')) throw new TlogError('the extra data is not base64');
  if (entry) lines.shift();
  const [, index] = /^index (.*)$/.exec(lines.shift() ?? '') ?? [];
  if (index === undefined) throw new TlogError('no line of the index');
  return { index: parseCount(index), entry, ...parsePath(lines) };
}

/** The proofs in a text, one behind another. Throws TlogError. */
export function splitProofs(text: string): string[] {
  const parts = text.split(new RegExp(`^(?=${PROOF_LINE.replaceAll('.', '\\.')}$)`, 'm'));
  if (parts.length === 0 || !text.startsWith(PROOF_LINE)) throw new TlogError(`the first line is not ${PROOF_LINE}`);
  return parts;
}

/** That a later tree begins with an earlier one. */
export interface Extension {
  /** The size of the earlier one. */
  older: number;
  path: Buffer[];
  /** The checkpoint of the later one, verbatim. */
  checkpoint: string;
}

export function formatExtension({ older, path, checkpoint }: Extension): string {
  return `old ${older}\n${formatPath(path)}\n${checkpoint}`;
}

/** Throws TlogError. */
export function parseExtension(text: string): Extension {
  const lines = text.split('\n');
  const [, older] = /^old (.*)$/.exec(lines.shift() ?? '') ?? [];
  if (older === undefined) throw new TlogError('the first line does not say the old size');
  return { older: parseCount(older), ...parsePath(lines) };
}

function formatPath(path: readonly Buffer[]): string {
  return path.map((hash) => `${hash.toString('base64')}\n`).join('');
}

/** The hashes up to a blank line, and the checkpoint behind it. */
function parsePath(lines: readonly string[]): { path: Buffer[]; checkpoint: string } {
  const end = lines.indexOf('');
  if (end < 0 || end > MAX_PATH) throw new TlogError('no blank line behind the hashes');
  return { path: lines.slice(0, end).map(parseHash), checkpoint: lines.slice(end + 1).join('\n') };
}

function parseCount(text: string): number {
  const count = /^(?:0|[1-9]\d{0,15})$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(count)) throw new TlogError('a number is not one');
  return count;
}

function parseHash(text: string): Buffer {
  const hash = decodeBase64(text);
  if (hash?.length !== HASH_BYTES) throw new TlogError('a hash is not one');
  return hash;
}

/** A piece of a file of checkpoints, and the number of its first line. */
export interface Piece {
  line: number;
  text: string;
}

/**
 * The checkpoints of a file to which they were appended: notes, and in files that an earlier version began a line of JSON each. A
 * note ends where a line behind its signatures is none.
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
    // Behind a blank line come signatures, or what stands before it was cut off: the next note is whole all the same.
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

/** The bytes of a note taken apart. Throws NoteError and TlogError. */
export function parseCheckpoint(text: string): { note: Note; head: TreeHead } {
  const note = parseNote(Buffer.from(text));
  return { note, head: parseTreeHead(note.text) };
}

/** The identifier of Ed25519 cosignatures (c2sp.org/tlog-cosignature, "Format"). */
const COSIGNATURE = 0x04;
const TIME_BYTES = 8;
/** What a script of the shell can count to, and far behind every clock. */
const MAX_SECONDS = 253_402_300_799n;

/** A witness, by its key. */
export type Cosigner = NoteKey;

/** When a witness made a cosignature that is good. */
export function cosignedAt(bytes: Uint8Array): Date {
  return new Date(Number(Buffer.from(bytes).readBigUInt64BE()) * 1000);
}

/** The key of a witness. Throws NoteError. */
export function parseWitnessKey(text: string): Cosigner {
  const { name, publicKey } = parseKeyLine(text, COSIGNATURE);
  return cosignerOf(name, publicKey);
}

/** What checks the cosignatures of a witness: each signs the time and the checkpoint. */
export function cosignerOf(name: string, publicKey: KeyObject): Cosigner {
  return {
    ...{ name, id: keyId(name, COSIGNATURE, rawKey(publicKey)), publicKey },
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
