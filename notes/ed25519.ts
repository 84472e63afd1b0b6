// Ed25519 keys of signed notes, and the one-line form of verifier keys.
import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { decodeBase64, isKeyName, NoteError, type NoteSigner, type NoteVerifier } from './note.ts';

/** The identifier of plain Ed25519 signatures (https://c2sp.org/signed-note, "Signature types"). */
const ED25519 = 0x01;

/** The public half of a key that signs notes. */
export interface NoteKey extends NoteVerifier {
  readonly publicKey: KeyObject;
}

/** The first four bytes of SHA-256(name || newline || type || key), as 8 hexadecimal digits. */
export function keyId(name: string, type: number, key: Uint8Array): string {
  return createHash('sha256').update(`${name}\n`).update(Uint8Array.of(type)).update(key).digest('hex').slice(0, 8);
}

/**
 * Parses NAME+ID+BASE64, a verifier key.
 *
 * @throws NoteError for any other text, for a key that is not Ed25519, and for an id that does not
 * match the key
 */
export function parseVerifierKey(text: string): NoteKey {
  const { name, publicKey } = parseKeyLine(text, ED25519);
  return verifierOf(name, publicKey);
}

/**
 * Parses an Ed25519 verifier key with another signature type, such as that of a witness. Throws
 * NoteError.
 */
export function parseKeyLine(text: string, type: number): { name: string; publicKey: KeyObject } {
  const [, name = '', id = '', encoded = ''] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(text) ?? [];
  const bytes = decodeBase64(encoded);
  if (!isKeyName(name) || bytes === undefined || bytes.length === 0) throw new NoteError('not a verifier key');
  if (bytes[0] !== type || bytes.length !== 33)
    throw new NoteError(type === ED25519 ? 'not an Ed25519 key' : `not an Ed25519 key of type ${type}`);
  const key = bytes.subarray(1);
  if (keyId(name, type, key) !== id) throw new NoteError('the id does not belong to this name and key');
  return { name, publicKey: publicKeyOf(key) };
}

/**
 * Formats a public key as a verifier key, without a newline. Throws NoteError for a bad name or a
 * key that is not Ed25519.
 */
export function formatVerifierKey(name: string, publicKey: KeyObject): string {
  const key = rawKey(publicKey);
  return `${name}+${noteKeyId(name, key)}+${Buffer.concat([Uint8Array.of(ED25519), key]).toString('base64')}`;
}

/**
 * A verifier for the signatures of a public key under a name. Throws NoteError for a bad name or a
 * key that is not Ed25519.
 */
export function verifierOf(name: string, publicKey: KeyObject): NoteKey {
  const id = noteKeyId(name, rawKey(publicKey));
  const isGood = (text: string, signature: Uint8Array): boolean =>
    verify(null, Buffer.from(text), publicKey, signature);
  return { name, id, publicKey, isGood };
}

/**
 * A signer with a private key under a name. Throws NoteError for a bad name or a key that is not
 * Ed25519.
 */
export function signerOf(name: string, privateKey: KeyObject): NoteSigner {
  const id = noteKeyId(name, rawKey(createPublicKey(privateKey)));
  return { name, id, sign: (text) => sign(null, Buffer.from(text), privateKey) };
}

function noteKeyId(name: string, key: Buffer): string {
  if (!isKeyName(name)) throw new NoteError('a key name must not contain white space or a plus sign');
  return keyId(name, ED25519, key);
}

/** The 32 bytes of a public key. Throws NoteError for one that is not Ed25519. */
export function rawKey(publicKey: KeyObject): Buffer {
  if (publicKey.asymmetricKeyType !== 'ed25519') throw new NoteError('not an Ed25519 key');
  return Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url');
}

function publicKeyOf(key: Buffer): KeyObject {
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: key.toString('base64url') }, format: 'jwk' });
}
