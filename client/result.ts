// ResultKeyFile: the key with which this client signs its results (docs/protocol.md, section 11),
// so that a compromised server can neither change nor invent a result.
import { createHash, createPrivateKey } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { signerOf } from '../notes/ed25519.ts';
import { NoteError, type NoteSigner } from '../notes/note.ts';
import { type ResultStreams, resultFields, type Sealing, signResult } from '../notes/result.ts';
import { codeOf, Failure } from './failure.ts';
import type { ClientSettings } from './settings.ts';

/** Signs run records with the key of this client. */
export interface ResultSigner {
  /** The name and id of the key, `client1+5782c125`. */
  key: string;
  /** Returns the run record with descriptions of the streams and the signature appended. */
  sign(record: string, streams: ResultStreams, sealing?: Sealing): string;
}

/** The streams of a job whose program was never run. */
export const NOTHING: ResultStreams = {
  out: { bytes: 0, sha256: createHash('sha256').digest('hex') },
  err: { bytes: 0, sha256: createHash('sha256').digest('hex') },
};

/**
 * Reads ResultKeyFile. Throws Failure `settings` for a key that is unusable or that other users can
 * read.
 */
export function openResultSigner(settings: ClientSettings): ResultSigner {
  const signer = readKey(settings);
  return {
    key: `${signer.name}+${signer.id}`,
    sign: (record, streams, sealing) => signResult(appendFields(record, resultFields(streams, sealing)), signer),
  };
}

function appendFields(record: string, fields: readonly [name: string, value: string][]): string {
  return record + fields.map(([name, value]) => `${name}=${value}\n`).join('');
}

/** Reads the key, which must have the name of this client. */
function readKey({ resultKeyFile: path, clientId }: ClientSettings): NoteSigner {
  const fail = (why: string, hint?: string): Failure => new Failure('settings', `ResultKeyFile: ${path} ${why}`, hint);
  let pem: Buffer;
  try {
    pem = readSecret(path, () => fail('may be read by others, who could sign for this client', `chmod 600 ${path}`));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw fail(`cannot be read: ${codeOf(error)}`);
  }
  try {
    return signerOf(clientId, createPrivateKey(pem));
  } catch (error) {
    throw fail(`is not a private key in PEM: ${error instanceof NoteError ? error.message : codeOf(error)}`);
  }
}

function readSecret(path: string, fail: () => Failure): Buffer {
  const fd = openSync(path, 'r');
  try {
    if (process.platform !== 'win32' && (fstatSync(fd).mode & 0o077) !== 0) throw fail();
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}
