// Keys for signing programs, and signatures beside them: what client/signature.ts checks, too (docs/protocol.md, section 7).
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isSignature, KEY_KINDS, signatureDigest } from 'webjob-protocol';
import { Failure } from '../cli/failure.ts';

export const KEY_TYPES = ['ed25519', 'p256'] as const;

/** Makes NAME.key, which only its owner can read, and NAME.pub for the clients. Throws Failure `failed` before it would overwrite one. */
export function makeKey(name: string, type: (typeof KEY_TYPES)[number]): void {
  const { privateKey, publicKey } =
    type === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeKey(`${name}.key`, privateKey.export({ type: 'pkcs8', format: 'pem' }), 0o600);
  try {
    writeKey(`${name}.pub`, publicKey.export({ type: 'spki', format: 'pem' }), 0o644);
  } catch (error) {
    rmSync(`${name}.key`);
    throw error;
  }
}

function writeKey(path: string, pem: string | Buffer, mode: number): void {
  try {
    writeFileSync(path, pem, { mode, flag: 'wx' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // The beginning of a key is none, and would keep the next one from its name.
    if (code !== 'EEXIST') rmSync(path, { force: true });
    const hint = code === 'EEXIST' ? 'a key is never overwritten: choose another name' : undefined;
    throw new Failure('failed', `${path} cannot be written: ${code}`, hint);
  }
}

/** Throws Failure `failed` for what is no private key, or one of a kind that clients do not take. */
export function readPrivateKey(path: string): KeyObject {
  return readKey(path, 'private', createPrivateKey);
}

/** The same for a public one. */
export function readPublicKey(path: string): KeyObject {
  return readKey(path, 'public', createPublicKey);
}

function readKey(path: string, half: string, create: (pem: Buffer) => KeyObject): KeyObject {
  let key: KeyObject;
  try {
    key = create(readFileSync(path));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure('failed', `${path} is no ${half} key in PEM: ${code}`);
  }
  if (signatureDigest(key) === undefined)
    throw new Failure('failed', `${path} is neither ${KEY_KINDS}`, 'make one of either kind, as ed25519');
  return key;
}

/** Writes FILE.sig, one line, in the place of an older one: a server that reads it meanwhile finds one or the other. Throws Failure `failed`. */
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

/** What a client would find: the signature beside FILE. Throws Failure `failed` when FILE cannot be read. */
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

/** Without its line end, as the server sends it. */
function readSignature(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1').replace(/\r?\n$/, '');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Failure('failed', `${path} cannot be read: ${code}`);
  }
}
