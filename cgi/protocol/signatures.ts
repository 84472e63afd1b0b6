// Signatures of programs (docs/protocol.md, section 7): the kinds of keys, and the form of the
// signature line. Both signers and verifiers use this file; node:crypto does the cryptography.

/** The properties of a key; a KeyObject of node:crypto has them. */
export interface SigningKey {
  asymmetricKeyType?: string | undefined;
  asymmetricKeyDetails?: { namedCurve?: string | undefined } | undefined;
}

/** The kinds that signatureDigest() accepts, to follow "neither" in messages. */
export const KEY_KINDS = 'Ed25519 nor P-256';

/**
 * The digest for signatures of a kind of key: null for Ed25519, which signs the bytes themselves.
 * Undefined for all other kinds.
 */
export function signatureDigest(key: SigningKey): 'sha256' | null | undefined {
  if (key.asymmetricKeyType === 'ed25519') return null;
  const isP256 = key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1';
  return isP256 ? 'sha256' : undefined;
}

/** Whether a text is one line of base64, short enough for the header. */
export function isSignature(text: string): boolean {
  return /^[A-Za-z0-9+/]{4,340}={0,2}$/.test(text);
}

/**
 * The suffix that turns the name of a program into the name of its manifest (docs/protocol.md,
 * section 10).
 */
export const MANIFEST_SUFFIX = '.manifest';
/**
 * The longest manifest. In base64 its header line stays below the 8,190 bytes that httpd accepts in
 * one.
 */
export const MAX_MANIFEST_BYTES = 4096;
