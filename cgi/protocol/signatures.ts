// Signatures of programs (docs/protocol.md, section 7): which keys make them, and what their one line looks like. Who signs and who
// checks both ask here; the arithmetic is node:crypto's.

/** What there is to know of a key; a KeyObject of node:crypto is one. */
export interface SigningKey {
  asymmetricKeyType?: string | undefined;
  asymmetricKeyDetails?: { namedCurve?: string | undefined } | undefined;
}

/** What signatureDigest knows, for messages. */
export const KEY_KINDS = 'Ed25519 nor P-256';

/** The digest that a key of this kind signs: none of its own for Ed25519, which signs the bytes. Undefined for all other kinds. */
export function signatureDigest(key: SigningKey): 'sha256' | null | undefined {
  if (key.asymmetricKeyType === 'ed25519') return null;
  const isP256 = key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1';
  return isP256 ? 'sha256' : undefined;
}

/** One line of base64, short enough for the header. */
export function isSignature(text: string): boolean {
  return /^[A-Za-z0-9+/]{4,340}={0,2}$/.test(text);
}

/** What is behind the name of a program in the name of its manifest (docs/protocol.md, section 10). */
export const MANIFEST_SUFFIX = '.manifest';
/** The longest manifest. In base64 its header line stays below the 8,190 bytes that httpd takes in one. */
export const MAX_MANIFEST_BYTES = 4096;
