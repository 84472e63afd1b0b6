// What the locker or a pack holds of one job, read once while its page is made: the beginning of each stream, its SHA-256, and whether it is what
// the record of the run says. Never holds a stream whole.
import { createHash, type Hash } from 'node:crypto';
import type { StreamName } from 'webjob-locker';
import { parseRecord, type RunRecord } from 'webjob-protocol';
import type { Stored, StoredStream } from '../history/streams.ts';
import { MAX_TEXT_BYTES, type StreamHead } from './stream.ts';

/** A stream above this is shown but not read to its end: a report is made every hour. */
export const MAX_HASHED_BYTES = 256 * 1024 * 1024;

export interface StreamEvidence extends StreamHead {
  /** Lower-case hex; undefined for a stream above MAX_HASHED_BYTES. */
  sha256: string | undefined;
  /** What the record says the hash is, of which kind, and what it is. */
  claim: { type: string; said: string; found: string } | undefined;
}

export interface Evidence {
  streams: Partial<Record<StreamName, StreamEvidence>>;
  record: RunRecord | undefined;
  /** Why there is no record although there is an `.env`. */
  recordProblem: string | undefined;
}

/** Throws the error of the system call for what is there and cannot be read, and Failure for a pack that is damaged. */
export async function readEvidence(stored: Stored): Promise<Evidence> {
  const evidence: Evidence = { streams: {}, record: undefined, recordProblem: undefined };
  if (stored.env) {
    evidence.streams.env = await readStream(stored.env, undefined);
    readRecord(evidence, evidence.streams.env);
  }
  for (const name of ['out', 'err'] as const) {
    const stream = stored[name];
    if (stream) evidence.streams[name] = await readStream(stream, findClaim(evidence.record, name));
  }
  return evidence;
}

function readRecord(evidence: Evidence, env: StreamEvidence): void {
  try {
    if (env.size > env.head.length) throw new SyntaxError('the record is longer than any record');
    evidence.record = parseRecord(env.head.toString());
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    evidence.recordProblem = env.size === 0 ? 'the record is empty' : error.message;
  }
}

const HASH_TYPES = ['MD5', 'SHA1', 'SHA256'] as const;

interface Said {
  type: (typeof HASH_TYPES)[number];
  said: string;
}

/** What the record says of a stream; nothing where it names no hash that we know. */
function findClaim(record: RunRecord | undefined, name: 'out' | 'err'): Said | undefined {
  const said = record?.fields[name === 'out' ? 'StdOutHash' : 'StdErrHash'].toLowerCase();
  const type = HASH_TYPES.find((known) => known === record?.fields.HashType.toUpperCase());
  return said && type && /^[0-9a-f]{32,64}$/.test(said) ? { type, said } : undefined;
}

async function readStream(stored: StoredStream, said: Said | undefined): Promise<StreamEvidence> {
  const isHashed = stored.bytes <= MAX_HASHED_BYTES;
  const sha256 = createHash('sha256');
  const other = said && said.type !== 'SHA256' ? createHash(said.type.toLowerCase()) : undefined;
  const { head, size } = await readAll(stored, isHashed ? [sha256, ...(other ? [other] : [])] : []);
  if (!isHashed) return { head, size: stored.bytes, sha256: undefined, claim: undefined };
  const digest = sha256.digest('hex');
  const claim = said && { ...said, found: other ? other.digest('hex') : digest };
  return { head, size, sha256: digest, claim };
}

/** Gives what there is to the hashes, and returns its beginning; without hashes it stops there. */
async function readAll(stored: StoredStream, hashes: readonly Hash[]): Promise<StreamHead> {
  const head = Buffer.alloc(Math.min(MAX_TEXT_BYTES, stored.bytes));
  let headLength = 0;
  let size = 0;
  for await (const chunk of stored.read()) {
    headLength += chunk.copy(head, headLength);
    size += chunk.length;
    for (const hash of hashes) hash.update(chunk);
    if (hashes.length === 0 && headLength === head.length) break;
  }
  return { head: head.subarray(0, headLength), size };
}
