// Keys for signing programs, and signatures beside programs, which client/signature.ts verifies
// (docs/protocol.md, section 7).
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { isSignature, KEY_KINDS, signatureDigest } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';
import { formatVerifierKey, parseVerifierKey, signerOf } from '../notes/ed25519.ts';
import { isKeyName, NoteError, type NoteSigner } from '../notes/note.ts';

export const KEY_TYPES = ['ed25519', 'p256'] as const;

/**
 * Makes NAME.key, readable only for its owner, NAME.pub for the clients, and for an Ed25519 key
 * NAME.vkey, the verifier key for its manifests, under `keyName`. Returns the verifier key. Throws
 * Failure `failed` rather than overwrite a file.
 */
export function makeKey(name: string, type: (typeof KEY_TYPES)[number], keyName = nameAfter(name)): string | undefined {
  if (!isKeyName(keyName))
    throw new Failure('usage', 'the name of a key has no spaces and no plus signs', 'as in site.example/alice');
  const { privateKey, publicKey } =
    type === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const verifierKey = type === 'ed25519' ? formatVerifierKey(keyName, publicKey) : undefined;
  const files: [path: string, text: string | Buffer, mode: number][] = [
    [`${name}.key`, privateKey.export({ type: 'pkcs8', format: 'pem' }), 0o600],
    [`${name}.pub`, publicKey.export({ type: 'spki', format: 'pem' }), 0o644],
    ...(verifierKey === undefined ? [] : [[`${name}.vkey`, `${verifierKey}\n`, 0o644] as [string, string, number]]),
  ];
  const made: string[] = [];
  try {
    for (const [path, text, mode] of files) {
      writeKey(path, text, mode);
      made.push(path);
    }
  } catch (error) {
    for (const path of made) rmSync(path);
    throw error;
  }
  return verifierKey;
}

/** The default name of a key: that of its file. */
function nameAfter(path: string): string {
  return basename(path).replace(/[\p{White_Space}\p{Cc}\p{Cs}+]/gu, '-');
}

/**
 * A signer with a private key. Its name is `keyName`, or the name in the .vkey beside the .key, or
 * that of the file. Throws Failure `usage` for a name that no key may have, `failed` for a key that
 * is not Ed25519 and for a .vkey of another key.
 */
export function readNoteSigner(path: string, key: KeyObject, keyName: string | undefined): NoteSigner {
  const start = path.replace(/\.key$/, '');
  const name = keyName ?? readName(`${start}.vkey`, key) ?? nameAfter(start);
  try {
    return signerOf(name, key);
  } catch (error) {
    if (!(error instanceof NoteError)) throw error;
    throw new Failure(isKeyName(name) ? 'failed' : 'usage', `${path} cannot sign manifests: ${error.message}`);
  }
}

function readName(path: string, key: KeyObject): string | undefined {
  if (!existsSync(path)) return undefined;
  const { name, publicKey } = readVerifierKey(path);
  if (publicKey.equals(createPublicKey(key))) return name;
  throw new Failure('failed', `${path} is of another key`, 'give the name of this key: --key-name');
}

/** Reads a verifier key from a file. Throws Failure `failed`. */
export function readVerifierKey(path: string): ReturnType<typeof parseVerifierKey> {
  try {
    return parseVerifierKey(readFileSync(path, 'utf8').trim());
  } catch (error) {
    const why = error instanceof NoteError ? error.message : (error as NodeJS.ErrnoException).code;
    throw new Failure('failed', `${path} is not a verifier key: ${why}`);
  }
}

function writeKey(path: string, pem: string | Buffer, mode: number): void {
  try {
    writeFileSync(path, pem, { mode, flag: 'wx' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A partly written key is useless, and would prevent another one of that name.
    if (code !== 'EEXIST') rmSync(path, { force: true });
    const hint = code === 'EEXIST' ? 'a key is never overwritten: choose another name' : undefined;
    throw new Failure('failed', `${path} cannot be written: ${code}`, hint);
  }
}

/**
 * Reads a private key. Throws Failure `failed` for a file that is not a private key, or one of a
 * kind that clients do not accept.
 */
export function readPrivateKey(path: string): KeyObject {
  return readKey(path, 'private', createPrivateKey);
}

/**
 * Reads a public key. Throws Failure `failed` for a file that is not a public key, or one of a kind
 * that clients do not accept.
 */
export function readPublicKey(path: string): KeyObject {
  return readKey(path, 'public', createPublicKey);
}

function readKey(path: string, half: string, create: (pem: Buffer) => KeyObject): KeyObject {
  let key: KeyObject;
  try {
    key = create(readFileSync(path));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure('failed', `${path} is not a ${half} key in PEM: ${code}`);
  }
  if (signatureDigest(key) === undefined)
    throw new Failure('failed', `${path} is neither ${KEY_KINDS}`, 'make one of either kind, as ed25519');
  return key;
}

/**
 * Writes FILE.sig, one line, replacing an older one atomically for a server that reads it. Throws
 * Failure `failed`.
 */
export function signFile(path: string, key: KeyObject): void {
  const target = `${path}.sig`;
  const unfinished = `${target}.${process.pid}`;
  try {
    const signature = sign(signatureDigest(key), readFileSync(path), key);
    writeFileSync(unfinished, `${signature.toString('base64')}\n`, { mode: 0o644, flag: 'wx' });
    renameSync(unfinished, target);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw new Failure('failed', `${path} cannot be signed: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/**
 * Checks the signature beside FILE as a client would. Throws Failure `failed` when FILE cannot be
 * read.
 */
export function checkFile(path: string, key: KeyObject): 'good' | 'wrong' | 'missing' {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  const line = readSignature(`${path}.sig`);
  if (line === undefined) return 'missing';
  if (!isSignature(line)) return 'wrong';
  return verify(signatureDigest(key), bytes, key, Buffer.from(line, 'base64')) ? 'good' : 'wrong';
}

/** The signature without its newline, as the server sends it. */
function readSignature(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1').replace(/\r?\n$/, '');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path} cannot be read: ${code}`);
  }
}
