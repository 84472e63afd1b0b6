// WebJob-Payload-Signature: one line of base64 over the exact bytes of a program, by a key whose other half the server never sees
// (docs/protocol.md, section 7). Ed25519, or ECDSA on P-256 with SHA-256 in DER as openssl writes it.
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Failure } from './failure.ts';

/** What signatureDigest knows, for messages. */
export const KEY_KINDS = 'Ed25519 nor P-256';

/** The digest that a key of this kind signs: none of its own for Ed25519, which signs the bytes. Undefined for all other kinds. */
export function signatureDigest(key: KeyObject): 'sha256' | null | undefined {
  if (key.asymmetricKeyType === 'ed25519') return null;
  const isP256 = key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1';
  return isP256 ? 'sha256' : undefined;
}

/** Throws Failure `get` for a program whose signature is missing or wrong, `settings` for a key that is none. */
export function checkSignature(keyFile: string, path: string, signature: string | undefined): void {
  const key = readKey(keyFile);
  if (signature === undefined)
    throw new Failure('get', 'the program is not signed', 'DsvVerifySignature=Y takes signed ones only');
  if (!/^[A-Za-z0-9+/]{4,340}={0,2}$/.test(signature))
    throw new Failure('get', "the program's signature is not base64");
  if (!verify(signatureDigest(key), readFileSync(path), key, Buffer.from(signature, 'base64')))
    throw new Failure('get', "the program's signature is wrong", 'it was changed, or signed with another key');
}

function readKey(keyFile: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey(readFileSync(keyFile));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure('settings', `DsvPublicKeyFile: ${keyFile} is no public key in PEM: ${code}`);
  }
  if (signatureDigest(key) === undefined)
    throw new Failure('settings', `DsvPublicKeyFile: ${keyFile} is neither ${KEY_KINDS}`);
  return key;
}
