// WebJob-Payload-Signature: one line of base64 over the exact bytes of a program, by a key whose other half the server never sees
// (docs/protocol.md, section 7). Ed25519, or ECDSA on P-256 with SHA-256 in DER as openssl writes it.
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isSignature, KEY_KINDS, signatureDigest } from 'webjob-protocol';
import { Failure } from './failure.ts';

/** Throws Failure `get` for a program whose signature is missing or wrong, `settings` for a key that is none. */
export function checkSignature(keyFile: string, path: string, signature: string | undefined): void {
  const key = readKey(keyFile);
  if (signature === undefined)
    throw new Failure('get', 'the program is not signed', 'DsvVerifySignature=Y takes signed ones only');
  if (!isSignature(signature)) throw new Failure('get', "the program's signature is not base64");
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
