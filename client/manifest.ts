// WebJob-Payload-Manifest: a signed note that binds a program to its name, its clients, a time and
// a serial number (docs/protocol.md, section 10). A compromised server can only deliver what
// trusted keys signed for this client, this name and this time.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { findMismatch, openManifest, type SignedManifest } from '../notes/manifest.ts';
import { decodeBase64, NoteError } from '../notes/note.ts';
import { MAX_TRUST_BYTES, parseTrustedKeys, type TrustedKey, weightOf } from '../notes/trust.ts';
import { codeOf, Failure } from './failure.ts';
import type { PayloadCheck } from './fetch.ts';
import { Serials } from './serials.ts';
import type { ClientSettings } from './settings.ts';
import { printable } from './status.ts';

/**
 * Returns a function that begins the check of a program against its manifest. Everything except the
 * hash and the stored serial is checked before the first byte of the program. Throws Failure
 * `settings` for unusable keys. The returned function throws Failure `get`, and returns undefined
 * for a program that has no manifest and needs none.
 */
export function prepareManifest(
  settings: ClientSettings,
  name: string,
): (answer: IncomingMessage, size: number) => PayloadCheck | undefined {
  const keys = readTrustedKeys(settings);
  const serials = new Serials(settings.dsvSerialFile, settings.clientId);
  return ({ headersDistinct }, size) => {
    const values = headersDistinct['webjob-payload-manifest'] ?? [];
    if (values.length === 0 && !settings.dsvRequireManifest) return undefined;
    const { manifest, text } = open(values, keys, settings.dsvThreshold);
    const mismatch =
      findMismatch(manifest, { name, clientId: settings.clientId, at: new Date() }) ??
      (manifest.size === size ? undefined : `it is for ${manifest.size} bytes, and ${size} were sent`);
    if (mismatch !== undefined) throw refused(mismatch);
    const offered = { serial: manifest.serial, textHash: createHash('sha256').update(text).digest('hex') };
    serials.check(name, offered);
    const hash = createHash('sha256');
    return {
      update: (piece) => hash.update(piece),
      finish: () => {
        if (hash.digest('hex') !== manifest.sha256) throw refused('it is for a program with another SHA-256');
        serials.take(name, offered);
      },
    };
  };
}

function open(values: readonly string[], keys: readonly TrustedKey[], threshold: number): SignedManifest {
  const [value] = values;
  if (value === undefined)
    throw new Failure(
      'get',
      'the program has no manifest',
      'DsvRequireManifest=Y accepts only programs with a manifest',
    );
  if (values.length > 1) throw refused(`${values.length} came`);
  const bytes = decodeBase64(value);
  if (bytes === undefined) throw refused('it is not base64');
  try {
    return openManifest(bytes, keys, threshold);
  } catch (error) {
    if (error instanceof NoteError) throw refused(error.message);
    throw error;
  }
}

function refused(why: string): Failure {
  return new Failure('get', `the program's manifest is refused: ${printable(why)}`);
}

/**
 * Reads the keys in DsvTrustedKeysFile. Throws Failure `settings` for an unusable file, or when all
 * keys together do not reach the threshold.
 */
export function readTrustedKeys({ dsvTrustedKeysFile: path, dsvThreshold }: ClientSettings): TrustedKey[] {
  const fail = (why: string, hint?: string): Failure =>
    new Failure('settings', `DsvTrustedKeysFile: ${path} ${why}`, hint);
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw fail(`cannot be read: ${codeOf(error)}`);
  }
  if (bytes.length > MAX_TRUST_BYTES) throw fail(`is longer than ${MAX_TRUST_BYTES} bytes`);
  try {
    const keys = parseTrustedKeys(bytes.toString());
    const weight = weightOf(keys);
    if (weight >= dsvThreshold) return keys;
    throw fail(`has keys with a total weight of ${weight}, and DsvThreshold is ${dsvThreshold}`);
  } catch (error) {
    if (error instanceof NoteError) throw fail(printable(error.message), 'webjobctl sign trust list');
    throw error;
  }
}
