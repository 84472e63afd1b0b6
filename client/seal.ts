// SealTo: stdout and stderr leave this client encrypted to the examiners
// (https://age-encryption.org/v1), so that a compromised server cannot read them. Only this file
// loads the age package.
//
// In the directory of a job the sealed streams are written beside the originals, and take effect
// with env.sealed:
//
//   out, err, env                      as the program left them
//   and out.age, err.age               sealed, maybe partly: will be done again
//   and env.sealed                     everything is on disk; only renames are left, which the next
//                                      run finishes if necessary
//   out, err, env                      sealed; nothing is in plain text
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatRecord, NOT_APPLICABLE, parseRecord } from 'webjob-protocol';
import type { StreamFacts } from '../notes/result.ts';
import { type Captured, readCaptured, writeAll } from './captured.ts';
import { codeOf, Failure } from './failure.ts';
import type { ResultSigner } from './result.ts';
import { sync } from './spool.ts';

/** Encrypts streams to valid recipients. */
export interface Sealer {
  recipients: readonly string[];
  seal(source: ReadableStream<Uint8Array>): Promise<AsyncIterable<Uint8Array>>;
}

const SEALED_RECORD = 'env.sealed';
const STREAMS = ['out', 'err'] as const;
const X25519 = /^age1[02-9ac-hj-np-z]{58}$/;
const HYBRID = /^age1pq1[02-9ac-hj-np-z]+$/;

/** Parses SealTo. Throws Failure `settings` for an empty list, or one with an invalid recipient. */
export async function openSealer(sealTo: string): Promise<Sealer> {
  const recipients = sealTo.split(',').map((text) => text.trim());
  const fail = (why: string, hint?: string): Failure => new Failure('settings', `SealTo: ${why}`, hint);
  if (recipients.every((text) => text === '')) throw fail('it names no recipient');
  const { Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    if (/^AGE-SECRET-KEY-/i.test(recipient))
      throw fail('it contains the secret key of an examiner', 'age-keygen -y FILE prints the recipient');
    const shown = recipient.length > 24 ? `${recipient.slice(0, 20)}...` : recipient;
    if (!X25519.test(recipient) && !HYBRID.test(recipient))
      throw fail(`${shown === '' ? 'an empty entry' : shown} is not an age recipient`, 'as age1..., or age1pq1...');
    try {
      encrypter.addRecipient(recipient);
    } catch (error) {
      throw fail(`${shown} is not an age recipient: ${(error as Error).message}`);
    }
  }
  if (recipients.some((text) => HYBRID.test(text)) && recipients.some((text) => X25519.test(text)))
    throw fail(
      'age1pq1... cannot be combined with other recipients',
      'the weakest recipient would determine the protection',
    );
  try {
    await encrypter.encrypt(new Uint8Array());
  } catch (error) {
    throw fail(`nothing can be sealed to it: ${(error as Error).message}`);
  }
  return { recipients, seal: async (source) => await encrypter.encrypt(source) };
}

/** A job in its directory. */
export interface PlainJob {
  folder: string;
  out: Captured;
  err: Captured;
  /** The run record, without the fields that describe the streams. */
  record: string;
}

/**
 * Seals the streams of a job, signs its run record, and replaces the plain text. If webjob is
 * killed at any moment, either the plain or the sealed files are complete. Returns the record.
 * Throws the error of a system call; the job is then unchanged.
 */
export async function sealJob(job: PlainJob, sealer: Sealer, signer: ResultSigner): Promise<string> {
  const { HashType } = parseRecord(job.record).fields;
  const sealed = {
    out: await sealStream(job, 'out', sealer, HashType),
    err: await sealStream(job, 'err', sealer, HashType),
  };
  const plain = { out: sealed.out.plain, err: sealed.err.plain };
  const streams = { out: sealed.out.sealed, err: sealed.err.sealed };
  const record = withHashes(job.record, sealed.out.hash, sealed.err.hash);
  const signed = signer.sign(record, streams, { recipients: sealer.recipients, plain });
  const next = join(job.folder, `${SEALED_RECORD}.new`);
  writeFileSync(next, signed, { mode: 0o600 });
  sync(next);
  sync(job.folder);
  renameSync(next, join(job.folder, SEALED_RECORD));
  sync(job.folder);
  finishSealing(job.folder);
  return signed;
}

/**
 * Finishes the work of a webjob that was killed after sealing. Throws the error of a system call.
 */
export function finishSealing(folder: string): void {
  const record = join(folder, SEALED_RECORD);
  if (!existsSync(record)) return;
  for (const stream of STREAMS) {
    const sealed = join(folder, `${stream}.age`);
    if (existsSync(sealed)) renameSync(sealed, join(folder, stream));
  }
  sync(folder);
  renameSync(record, join(folder, 'env'));
  sync(folder);
}

interface Sealed {
  plain: StreamFacts;
  sealed: StreamFacts;
  /** The digest by HashType. */
  hash: string;
}

async function sealStream(
  { folder, ...streams }: PlainJob,
  name: (typeof STREAMS)[number],
  sealer: Sealer,
  hashType: string,
): Promise<Sealed> {
  const path = join(folder, `${name}.age`);
  const captured = streams[name];
  const [plainHash, sealedHash, hash] = ['sha256', 'sha256', hashType.toLowerCase()].map((type) => createHash(type));
  let bytes = 0;
  const fd = openSync(path, 'w', 0o600);
  try {
    const pieces = readCaptured(captured);
    const source = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        const { value, done } = pieces.next();
        if (done) return controller.close();
        plainHash?.update(value);
        // Enqueues a copy, because the next piece arrives in the same buffer.
        controller.enqueue(Uint8Array.from(value));
      },
    });
    for await (const piece of await sealer.seal(source)) {
      const buffer = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
      writeAll(fd, buffer);
      sealedHash?.update(buffer);
      hash?.update(buffer);
      bytes += buffer.length;
    }
    fsyncSync(fd);
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
  return {
    plain: { bytes: captured.length, sha256: plainHash?.digest('hex') ?? '' },
    sealed: { bytes, sha256: sealedHash?.digest('hex') ?? '' },
    hash: hash?.digest('hex') ?? '',
  };
}

/**
 * Updates StdOutHash and StdErrHash, which readers compare with the stored streams. The record of a
 * run that was cut short has neither.
 */
function withHashes(text: string, out: string, err: string): string {
  const { fields, extra } = parseRecord(text);
  const either = (was: string, is: string): string => (was === NOT_APPLICABLE ? was : is);
  const hashes = { StdOutHash: either(fields.StdOutHash, out), StdErrHash: either(fields.StdErrHash, err) };
  return formatRecord({ fields: { ...fields, ...hashes }, extra });
}

/** Converts an error of sealing to the failure of a job. */
export function sealFailure(error: unknown, shown = 'the output'): Failure {
  return error instanceof Failure ? error : new Failure('put', `${shown} cannot be sealed: ${codeOf(error)}`);
}
