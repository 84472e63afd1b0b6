// Checkpoints: how long a custody record's last segment was at a moment and the SHA-256 of all of
// it, signed, one line of JSON each. Kept elsewhere, a line tells whether anything before that
// moment was changed or taken away since (docs/protocol.md, section 8).
import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestRange } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import type { Finding } from './finding.ts';

export interface Checkpoint {
  /**
   * The custody record's last segment then, by its path below LogfilesDirectory: each is bound to
   * the one before.
   */
  file: string;
  /** Bytes of it, and their SHA-256: `head -c SIZE FILE | sha256sum`. */
  size: number;
  head: string;
  time: string;
}

/** The line without its newline. Signed is the object without the signature, and a newline. */
export function formatCheckpoint({ file, size, head, time }: Checkpoint, key: KeyObject): string {
  const text = JSON.stringify({ file, size, head, time });
  const signature = sign(null, Buffer.from(`${text}\n`), key).toString('base64');
  return `${text.slice(0, -1)},"signature":"${signature}"}`;
}

/** The checkpoint in a line; undefined for what is none, or not signed with the key's other half. */
function parseCheckpoint(line: string, key: KeyObject): Checkpoint | undefined {
  const pattern =
    /^(\{"file":"nph-webjob-custody\.[A-Za-z0-9_.-]+(?:\.d\/\d{6})?\.jsonl","size":\d{1,15},"head":"[0-9a-f]{64}","time":"[0-9TZ:.-]+"),"signature":"([A-Za-z0-9+/]{86}==)"\}$/;
  const [, text, signature] = pattern.exec(line) ?? [];
  if (text === undefined || signature === undefined) return undefined;
  const isSigned = verify(null, Buffer.from(`${text}}\n`), key, Buffer.from(signature, 'base64'));
  return isSigned ? JSON.parse(`${text}}`) : undefined;
}

/**
 * Holds the custody records in some folders of logs against every checkpoint of a file. A checkpoint does not say of which folder it is: one
 * of them must hold what it tells. Throws Failure for a file that cannot be read or holds none.
 */
export function* compareCheckpoints(path: string, key: KeyObject, folders: readonly string[]): Generator<Finding> {
  const lines = readText(path)
    .split('\n')
    .filter((line) => line !== '');
  if (lines.length === 0) throw new Failure('failed', `${path} holds no checkpoint`);
  for (const [index, line] of lines.entries()) {
    const checkpoint = parseCheckpoint(line, key);
    if (checkpoint) yield* compareAny(checkpoint, folders);
    else {
      const detail = `line ${index + 1} is no checkpoint that this key has signed`;
      yield { kind: 'checkpoint-invalid', place: path, detail };
    }
  }
}

function compareAny(checkpoint: Checkpoint, folders: readonly string[]): Finding[] {
  const found = [...new Set(folders)].map((folder) => [...compare(checkpoint, folder)]);
  return found.some((findings) => findings.length === 0) ? [] : found.flat().slice(0, 1);
}

function* compare({ file, size, head, time }: Checkpoint, logfilesDirectory: string): Generator<Finding> {
  const found = digestStart(join(logfilesDirectory, file), size);
  if (found.size < size) {
    const detail = `${found.size} bytes, ${size} at the checkpoint of ${time}`;
    yield { kind: 'checkpoint-truncated', place: file, detail };
  } else if (found.head !== head) {
    const detail = `its first ${size} bytes are not what they were at the checkpoint of ${time}`;
    yield { kind: 'checkpoint-changed', place: file, detail };
  }
}

/** The first bytes of a file, as far as it has them; one that is gone has none. Throws Failure. */
export function digestStart(path: string, size: number): { size: number; head: string } {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { size: 0, head: '' };
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  try {
    return { size: fstatSync(fd).size, head: digestRange(fd, 0, size) };
  } finally {
    closeSync(fd);
  }
}

/** An Ed25519 key in PEM. Throws Failure. */
export function readSigningKey(path: string): KeyObject {
  return readKey(path, createPrivateKey, 'private');
}

export function readCheckingKey(path: string): KeyObject {
  return readKey(path, createPublicKey, 'public');
}

function readKey(path: string, create: (pem: string) => KeyObject, half: string): KeyObject {
  const pem = readText(path);
  let key: KeyObject | undefined;
  try {
    key = create(pem);
  } catch {
    // OpenSSL's own words could name what is in the file.
  }
  if (key?.asymmetricKeyType !== 'ed25519')
    throw new Failure('failed', `${path} is no ${half} Ed25519 key in PEM`, 'webjobctl sign keygen makes a pair');
  return key;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
}
