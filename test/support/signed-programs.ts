// Programs with manifests, valid ones by a site's signers, and forged ones.
import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { formatVerifierKey, signerOf } from '../../notes/ed25519.ts';
import { formatManifest, type Manifest } from '../../notes/manifest.ts';
import { type NoteSigner, signNote } from '../../notes/note.ts';
import { formatAnswer } from './client-server.ts';

export interface Signer extends NoteSigner {
  publicKey: KeyObject;
  privateKey: KeyObject;
  /** The line for a file of trusted keys. */
  verifierKey: string;
}

export function makeSigner(name: string): Signer {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const verifierKey = formatVerifierKey(name, publicKey);
  return { ...signerOf(name, privateKey), publicKey, privateKey, verifierKey };
}

export const HOUR = 3600_000;
const DAY = 24 * HOUR;

const seconds = Math.floor(Date.now() / 1000) * 1000;

/** A manifest of these bytes for collect.sh on client1, valid now; the same at every call. */
export function manifestOf(program: string | Buffer, more: Partial<Manifest> = {}): Manifest {
  return {
    name: 'collect.sh',
    clients: ['client1'],
    size: Buffer.byteLength(program),
    serial: 100,
    sha256: createHash('sha256').update(program).digest('hex'),
    notBefore: new Date(seconds - HOUR),
    notAfter: new Date(seconds + DAY),
    ...more,
  };
}

/** The note of a manifest with these signatures. */
export function signedManifest(manifest: Manifest, signers: readonly NoteSigner[]): string {
  return signNote(formatManifest(manifest), signers);
}

/** The header line with a note, or with any bytes instead. */
export function manifestHeader(note: string | Buffer): string {
  return `WebJob-Payload-Manifest: ${Buffer.from(note).toString('base64')}\r\n`;
}

/** The answer of a server that serves these bytes with this note. */
export function answerOf(program: string | Buffer, note: string | Buffer): Buffer {
  return formatAnswer(program, '200 OK', manifestHeader(note));
}
