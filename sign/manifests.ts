// Manifests beside programs: makes, countersigns, shows, and checks them as a client does
// (docs/protocol.md, section 10).
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { isFileName, MANIFEST_SUFFIX, MAX_MANIFEST_BYTES } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { errorCode, replaceFile } from '../cli/files.ts';
import {
  findMismatch,
  formatManifest,
  formatSeconds,
  type Manifest,
  openManifest,
  parseManifest,
} from '../notes/manifest.ts';
import { addSignature, NoteError, type NoteSignature, type NoteSigner, parseNote, signNote } from '../notes/note.ts';
import { MAX_TRUST_BYTES, parseTrustedKeys, type TrustedKey } from '../notes/trust.ts';

/** The facts that the signer states about a program; all others come from its file. */
export interface ManifestWishes {
  /** The name of the program; undefined for that of its file. */
  name: string | undefined;
  /** The clients; undefined for those of the existing manifest, or all clients. */
  clients: string[] | undefined;
  notBefore: Date | undefined;
  /** Seconds from now, or from a later `notBefore`. */
  lifetime: number;
  /**
   * The serial number; undefined for the current time in milliseconds, or one more than the serial
   * of the existing manifest.
   */
  serial: number | undefined;
}

/** A manifest beside its program. */
export interface FoundManifest {
  path: string;
  manifest: Manifest;
  /** The signatures, which are not verified. */
  signatures: NoteSignature[];
  /** Whether the program beside it is the one in the manifest. */
  program: 'same' | 'different' | 'missing';
}

/** Clients whose clocks are behind by up to this accept a manifest that was just signed. */
const CLOCK_SKEW_MS = 10 * 60_000;

/** The path of the program, for the path of the program or of its manifest. */
export function programOf(path: string): string {
  return path.endsWith(MANIFEST_SUFFIX) ? path.slice(0, -MANIFEST_SUFFIX.length) : path;
}

/**
 * Writes FILE.manifest, replacing an older one. Throws Failure `failed`, and `usage` for wishes
 * that a manifest cannot express.
 */
export function writeManifest(program: string, signer: NoteSigner, wishes: ManifestWishes): FoundManifest {
  const bytes = readProgram(program);
  const path = program + MANIFEST_SUFFIX;
  const old = findOld(path);
  const now = Date.now();
  const notBefore = wholeSeconds(wishes.notBefore?.getTime() ?? now - CLOCK_SKEW_MS);
  const name = wishes.name ?? basename(program);
  if (!isFileName(name)) throw new Failure('usage', `${name} is not a name that clients can ask for`, '--name');
  const manifest: Manifest = {
    name,
    clients: wishes.clients ?? old?.clients ?? ['*'],
    size: bytes.length,
    sha256: hashOf(bytes),
    serial: wishes.serial ?? Math.max(now, (old?.serial ?? 0) + 1),
    notBefore,
    notAfter: wholeSeconds(Math.max(now, notBefore.getTime()) + wishes.lifetime * 1000),
  };
  try {
    const note = signNote(formatManifest(manifest), [signer]);
    write(path, note);
    return { path, manifest, signatures: parseNote(Buffer.from(note)).signatures, program: 'same' };
  } catch (error) {
    throw failureOf(path, error);
  }
}

/**
 * Adds a signature to the manifest of a program, which must be for this program. Throws Failure
 * `failed`.
 */
export function addToManifest(program: string, signer: NoteSigner): FoundManifest {
  const path = program + MANIFEST_SUFFIX;
  const found = readManifest(program);
  if (found.program !== 'same')
    throw new Failure(
      'failed',
      `${path} is not of the program beside it, which is ${found.program}`,
      `sign it: webjobctl sign payload`,
    );
  try {
    const note = addSignature(parseNote(readBytes(path)), signer);
    write(path, note);
    return { ...found, signatures: parseNote(Buffer.from(note)).signatures };
  } catch (error) {
    throw failureOf(path, error);
  }
}

/** Reads the manifest of a program without verifying its signatures. Throws Failure `failed`. */
export function readManifest(program: string): FoundManifest {
  const path = program + MANIFEST_SUFFIX;
  try {
    const { text, signatures } = parseNote(readBytes(path));
    const manifest = parseManifest(text);
    return { path, manifest, signatures, program: compare(program, manifest) };
  } catch (error) {
    throw failureOf(path, error);
  }
}

/** A client's verdict on the manifest of a program. */
export interface Judgement {
  verdict: 'good' | 'wrong' | 'missing';
  /** Why the manifest is wrong. */
  why?: string;
  /** The signers, as `name+id`. */
  signers?: string[];
}

/**
 * Judges the manifest of a program as a client does, except for the serials that a client has seen.
 * Throws Failure `failed`.
 */
export function judgeManifest(
  program: string,
  trusted: readonly TrustedKey[],
  threshold: number,
  wanted: { name: string | undefined; clientId: string | undefined; at: Date },
): Judgement {
  const bytes = readProgram(program);
  let note: Buffer;
  try {
    note = readBytes(program + MANIFEST_SUFFIX);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { verdict: 'missing' };
    throw failureOf(program + MANIFEST_SUFFIX, error);
  }
  try {
    const { manifest, signers } = openManifest(note, trusted, threshold);
    const { clientId, at } = wanted;
    const facts = { name: wanted.name ?? basename(program), at, ...(clientId !== undefined && { clientId }) };
    const isSame = manifest.size === bytes.length && manifest.sha256 === hashOf(bytes);
    const why = findMismatch(manifest, facts) ?? (isSame ? undefined : 'it is for other bytes');
    if (why !== undefined) return { verdict: 'wrong', why };
    return { verdict: 'good', signers: signers.map(({ name, id }) => `${name}+${id}`) };
  } catch (error) {
    if (error instanceof NoteError) return { verdict: 'wrong', why: error.message };
    throw error;
  }
}

/** Reads DsvTrustedKeysFile. Throws Failure `failed`. */
export function readTrustedKeys(path: string): TrustedKey[] {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > MAX_TRUST_BYTES) throw new NoteError(`longer than ${MAX_TRUST_BYTES} bytes`);
    return parseTrustedKeys(bytes.toString());
  } catch (error) {
    if (error instanceof NoteError) throw new Failure('failed', `${path} ${error.message}`);
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`);
  }
}

function compare(program: string, { size, sha256 }: Manifest): FoundManifest['program'] {
  try {
    const bytes = readFileSync(program);
    return bytes.length === size && hashOf(bytes) === sha256 ? 'same' : 'different';
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return 'missing';
    throw new Failure('failed', `${program} cannot be read: ${errorCode(error)}`);
  }
}

function readProgram(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`);
  }
}

function readBytes(path: string): Buffer {
  const bytes = readFileSync(path);
  if (bytes.length > MAX_MANIFEST_BYTES) throw new NoteError(`longer than ${MAX_MANIFEST_BYTES} bytes`);
  return bytes;
}

/** The manifest that is replaced; undefined when there is none, or it is malformed. */
function findOld(path: string): Manifest | undefined {
  try {
    return parseManifest(parseNote(readBytes(path)).text);
  } catch {
    return undefined;
  }
}

function write(path: string, note: string): void {
  if (Buffer.byteLength(note) > MAX_MANIFEST_BYTES)
    throw new NoteError(`it would be longer than ${MAX_MANIFEST_BYTES} bytes`);
  replaceFile(path, note, { mode: 0o644 });
}

function failureOf(path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof NoteError) return new Failure('failed', `${path}: ${error.message}`);
  return new Failure('failed', `${path} cannot be used: ${errorCode(error)}`);
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function wholeSeconds(milliseconds: number): Date {
  return new Date(Math.floor(milliseconds / 1000) * 1000);
}

/** The manifest in the form that --json prints. */
export function describeManifest({ manifest, signatures, program }: FoundManifest) {
  const { notBefore, notAfter, ...rest } = manifest;
  return {
    ...rest,
    clients: [...rest.clients],
    notBefore: formatSeconds(notBefore),
    notAfter: formatSeconds(notAfter),
    program,
    signers: signatures.map(({ name, id }) => `${name}+${id}`),
  };
}
