// Signed results, valid and forged ones, planted into a locker with its custody record.
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Encrypter } from 'age-encryption';
import type { NoteSigner } from '../../notes/note.ts';
import { type ResultStreams, resultFields, signResult } from '../../notes/result.ts';
import type { Site } from '../../scripts/site.ts';
import type { Signer } from './signed-programs.ts';
import { type Planted, plantGroup } from './verify-site.ts';

/** The size and digest of these streams. */
export function streamsOf(out: string | Buffer, err: string | Buffer): ResultStreams {
  const factsOf = (bytes: string | Buffer) => ({
    bytes: Buffer.byteLength(bytes),
    sha256: createHash('sha256').update(bytes).digest('hex'),
  });
  return { out: factsOf(out), err: factsOf(err) };
}

/** A run record with the fields and the signature of a client. */
export function signEnv(env: string, streams: ResultStreams, signer: NoteSigner): string {
  const fields = resultFields(streams).map(([name, value]) => `${name}=${value}\n`);
  return signResult(env + fields.join(''), signer);
}

/**
 * Plants an upload whose streams a client sealed to an examiner; `plainOut` is what it claims to
 * have sealed.
 */
export async function plantSealed(
  site: Site,
  {
    name,
    signer,
    out,
    err,
    recipient,
    plainOut = out,
    client = 'client1',
  }: {
    name: string;
    signer: NoteSigner;
    out: string;
    err: string;
    recipient: string;
    plainOut?: string;
    client?: string;
  },
): Promise<void> {
  const encrypter = new Encrypter();
  encrypter.addRecipient(recipient);
  const seal = async (text: string): Promise<Buffer> => Buffer.from(await encrypter.encrypt(text));
  const sealed = { out: await seal(out), err: await seal(err) };
  const sealing = { recipients: [recipient], plain: streamsOf(plainOut, err) };
  const fields = resultFields(streamsOf(sealed.out, sealed.err), sealing).map(([key, value]) => `${key}=${value}\n`);
  plantGroup({
    incomingDirectory: site.incoming,
    logfilesDirectory: join(site.base, 'logfiles'),
    name,
    ...sealed,
    fields: { ClientId: client },
    custody: { clientId: client },
    changeEnv: (env) => signResult(env + fields.join(''), signer),
  });
}

export interface SignedUpload extends Partial<Omit<Planted, 'changeEnv'>> {
  name: string;
  signer: NoteSigner;
  /** The stored streams, if they differ from what was signed. */
  kept?: { out?: string | Buffer; err?: string | Buffer };
  /** The part of the signed run record that is stored. */
  edit?: (env: string) => string;
}

/**
 * Plants an upload that a client signed, stored as the server likes, with a matching custody
 * record.
 */
export function plantSigned(site: Site, { signer, kept = {}, edit = (env) => env, ...planted }: SignedUpload): void {
  const { out = 'out of host.sh\n', err = 'err of host.sh\n' } = planted;
  plantGroup({
    incomingDirectory: site.incoming,
    logfilesDirectory: join(site.base, 'logfiles'),
    jobId: planted.name,
    ...planted,
    out,
    err,
    ...kept,
    changeEnv: (env) => edit(signEnv(hashesOf(env, out, err), streamsOf(out, err), signer)),
    custody: { fileName: 'host.sh', ...planted.custody },
  });
}

/** A run record of the program's output, whatever is stored. */
function hashesOf(env: string, out: string | Buffer, err: string | Buffer): string {
  const md5 = (bytes: string | Buffer): string => createHash('md5').update(bytes).digest('hex');
  return env
    .replace(/^StdOutHash=.*$/m, `StdOutHash=${md5(out)}`)
    .replace(/^StdErrHash=.*$/m, `StdErrHash=${md5(err)}`);
}

/** A line of a client's result keys, in use since the beginning of time. */
export function keyLine(signer: Signer, from = '2000-01-01T00:00:00Z', until?: string): string {
  return `${[signer.verifierKey, from, ...(until === undefined ? [] : [until])].join(' ')}\n`;
}

/** Adds result keys of a client to the site, or to a copy. */
export function writeResultKeys(folder: string, client: string, lines: readonly string[]): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, client), lines.join(''), { mode: 0o644 });
}

/** The path at a site. */
export function resultKeysOf({ propertiesFile }: Site): string {
  return join(dirname(propertiesFile), 'webjob-result-keys');
}
