// WebJob-Payload-Signature: one line of base64 with a signature of the exact bytes of a program,
// made with a private key that the server never sees (docs/protocol.md, section 7). The signature
// is Ed25519, or ECDSA on P-256 with SHA-256 in DER as openssl writes it.
import { createPublicKey, createVerify, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isSignature, KEY_KINDS, signatureDigest } from 'webjob-protocol';
import { type Verifier, verifyEd25519 } from './ed25519.ts';
import { Failure } from './failure.ts';
import type { PayloadCheck } from './fetch.ts';

/**
 * Returns a function that begins the check of a program in constant memory. Throws Failure
 * `settings` for an invalid key. The returned function throws Failure `get` for a missing or
 * malformed signature.
 */
export function prepareCheck(
  keyFile: string,
  hint = 'DsvVerifySignature=Y accepts only signed programs',
): (signature: string | undefined) => PayloadCheck {
  const key = readKey(keyFile);
  return (signature) => {
    if (signature === undefined) throw new Failure('get', 'the program is not signed', hint);
    if (!isSignature(signature)) throw new Failure('get', "the program's signature is not base64");
    const verifier = verifierOf(key, Buffer.from(signature, 'base64'));
    return {
      update: (piece) => verifier.update(piece),
      finish: () => {
        if (!verifier.isGood())
          throw new Failure('get', "the program's signature is wrong", 'it was changed, or signed with another key');
      },
    };
  };
}

function verifierOf(key: KeyObject, signature: Buffer): Verifier {
  const digest = signatureDigest(key);
  if (!digest) return verifyEd25519(Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url'), signature);
  const verify = createVerify(digest);
  return { update: (piece) => verify.update(piece), isGood: () => verify.verify(key, signature) };
}

function readKey(keyFile: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey(readFileSync(keyFile));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure('settings', `DsvPublicKeyFile: ${keyFile} is not a public key in PEM: ${code}`);
  }
  if (signatureDigest(key) === undefined)
    throw new Failure('settings', `DsvPublicKeyFile: ${keyFile} is neither ${KEY_KINDS}`);
  return key;
}
