// Streams that clients sealed to examiners (SealTo): their recipients, and their contents for
// anyone with an age identity.
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { Decrypter } from 'age-encryption';
import { Option } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { warn } from '../../cli/output.ts';
import { readPackedRecord, type Stored, type StoredStream } from '../../ledger/streams.ts';
import { describeSealing, SEALED_MAGIC, sealedTo } from '../../notes/result.ts';

/** Opens sealed streams. */
export type Identities = Decrypter;

export type SealedName = 'out' | 'err';

const MAX_IDENTITY_BYTES = 1024 * 1024;

/** The --identity option of every command that shows contents of streams. */
export function identityOption(): Option {
  return new Option('--identity <FILE>', 'open sealed streams with this age identity file; - for stdin');
}

/**
 * Reads a file of identities, as age-keygen writes it; undefined when none is named. Throws Failure
 * `failed`.
 */
export async function readIdentities(path: string | undefined): Promise<Identities | undefined> {
  if (path === undefined) return undefined;
  const fail = (why: string, hint?: string): Failure => new Failure('failed', `--identity: ${path} ${why}`, hint);
  let text: string;
  try {
    // age-keygen warns of this too.
    if (path !== '-' && (statSync(path).mode & 0o007) !== 0)
      warn(`${path} contains a secret key, and others can read it`);
    text = readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    throw fail(`cannot be read: ${errorCode(error)}`);
  }
  if (text.startsWith(SEALED_MAGIC) || text.startsWith('-----BEGIN AGE ENCRYPTED FILE'))
    throw fail('is encrypted itself', `age -d ${path} | webjobctl ... --identity -`);
  if (text.length > MAX_IDENTITY_BYTES) throw fail('is too long');
  const { Decrypter } = await import('age-encryption');
  const decrypter = new Decrypter();
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  let count = 0;
  for (const [index, line] of lines.entries()) {
    if (line === '' || line.startsWith('#')) continue;
    try {
      decrypter.addIdentity(line);
      count++;
    } catch {
      throw fail(`line ${index + 1} is not an age identity`, 'as AGE-SECRET-KEY-1...');
    }
  }
  if (count === 0) throw fail('contains no identity');
  return decrypter;
}

/**
 * The recipients of sealed streams according to the run record; undefined for streams that are not
 * sealed.
 */
export function findRecipients(record: ReadonlyMap<string, string> | undefined): string[] | undefined {
  return record && sealedTo(record);
}

/**
 * Opens a sealed stream to be read like any other. Reading fails at its end when the contents are
 * not those that the client sealed.
 */
export function unseal(
  name: SealedName,
  stream: StoredStream,
  record: ReadonlyMap<string, string>,
  identities: Identities,
): StoredStream {
  const field = (what: string): string => record.get(`Plain${name === 'out' ? 'Out' : 'Err'}${what}`) ?? '';
  return {
    bytes: Number(field('Bytes')) || 0,
    open: undefined,
    read: () => readSealed(name, stream, field('Sha256'), identities),
  };
}

async function* readSealed(
  name: SealedName,
  stream: StoredStream,
  sha256: string,
  identities: Identities,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  for await (const bytes of openSealed(name, stream, identities)) {
    hash.update(bytes);
    yield bytes;
  }
  if (hash.digest('hex') !== sha256)
    throw new Failure('failed', `.${name} is not what the client sealed`, 'webjobctl verify JOB');
}

/**
 * Yields the contents of a sealed stream, whatever the run record says. Throws Failure `failed`
 * when it cannot be opened to its end.
 */
export async function* openSealed(
  name: SealedName,
  stream: Pick<StoredStream, 'read'>,
  identities: Identities,
): AsyncGenerator<Buffer> {
  const pieces = stream.read()[Symbol.asyncIterator]();
  const source = new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      const { value, done } = await pieces.next();
      if (done) controller.close();
      else controller.enqueue(Uint8Array.from(value));
    },
  });
  try {
    for await (const piece of await identities.decrypt(source)) {
      const bytes = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
      if (bytes.length > 0) yield bytes;
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(
      'failed',
      `.${name} cannot be opened: ${(error as Error).message}`,
      'is it the right --identity?',
    );
  } finally {
    await pieces.return?.();
  }
}

/** The streams of an upload, with sealed ones opened if an identity fits. */
export function unsealAll(
  stored: Stored,
  record: ReadonlyMap<string, string> | undefined,
  identities: Identities | undefined,
): Stored {
  if (!record || !identities || !findRecipients(record)) return stored;
  const { out, err } = stored;
  return {
    ...stored,
    ...(out && { out: unseal('out', out, record, identities) }),
    ...(err && { err: unseal('err', err, record, identities) }),
  };
}

/**
 * The streams of an upload, with sealed ones opened. The run record is read when a stream begins
 * like a sealed one. Throws Failure `failed` without an identity.
 */
export async function unsealNamed(
  stored: Stored,
  name: SealedName,
  identities: Identities | undefined,
): Promise<StoredStream | undefined> {
  const stream = stored[name];
  if (!stream || !(await beginsSealed(stream))) return stream;
  const record = await readPackedRecord(stored);
  const recipients = findRecipients(record);
  if (!recipients) return stream;
  if (identities) return unseal(name, stream, record, identities);
  throw new Failure('failed', `.${name} is ${describeSealing(recipients)}`, '--identity FILE opens it');
}

async function beginsSealed({ read, bytes }: StoredStream): Promise<boolean> {
  if (bytes < SEALED_MAGIC.length) return false;
  for await (const piece of read()) return piece.toString('latin1', 0, SEALED_MAGIC.length) === SEALED_MAGIC;
  return false;
}
