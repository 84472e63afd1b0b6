// Streams that clients sealed to examiners. The view has no identity that could open them; it names
// the recipients.
import type { StreamName } from 'webjob-locker';
import { readPackedRecord, type Stored, type StoredStream } from '../ledger/streams.ts';
import { SEALED_MAGIC, sealedTo } from '../notes/result.ts';

/** A sealed stream. */
export interface Sealed {
  recipients: readonly string[];
  /** The size and SHA-256 of the plain text, as the client states them. */
  plain: { bytes: number; sha256: string };
}

/** Returns undefined for a stream that is not sealed. Throws the errors of reading the stream. */
export async function findSealed(stored: Stored, name: StreamName): Promise<Sealed | undefined> {
  const stream = stored[name];
  if (name === 'env' || !stream || !(await beginsSealed(stream))) return undefined;
  const record = await readPackedRecord(stored);
  const recipients = sealedTo(record);
  const field = (what: string): string => record.get(`Plain${name === 'out' ? 'Out' : 'Err'}${what}`) ?? '';
  return recipients && { recipients, plain: { bytes: Number(field('Bytes')) || 0, sha256: field('Sha256') } };
}

async function beginsSealed({ bytes, read }: StoredStream): Promise<boolean> {
  if (bytes < SEALED_MAGIC.length) return false;
  for await (const piece of read()) return piece.toString('latin1', 0, SEALED_MAGIC.length) === SEALED_MAGIC;
  return false;
}
