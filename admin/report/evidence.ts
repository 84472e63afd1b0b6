// What the locker holds of one job, read once while its page is made: the beginning of each stream, its SHA-256, and whether it is what
// the record of the run says. Never holds a stream whole.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { type Group, STREAMS, type StreamName } from 'webjob-locker';
import { parseRecord, type RunRecord } from 'webjob-protocol';
import { MAX_TEXT_BYTES, type StreamHead } from './stream.ts';

/** A stream above this is shown but not read to its end: a report is made every hour. */
export const MAX_HASHED_BYTES = 256 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

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

/** Throws the error of the system call for what is there and cannot be read. */
export function readEvidence(locker: string, group: Group | undefined): Evidence {
  const evidence: Evidence = { streams: {}, record: undefined, recordProblem: undefined };
  if (!group) return evidence;
  const path = (name: StreamName): string => join(locker, `${group.name}.${name}`);
  const env = readStream(path('env'), undefined);
  if (env) {
    evidence.streams.env = env;
    readRecord(evidence, env);
  }
  for (const name of STREAMS) {
    if (name === 'env') continue;
    const stream = readStream(path(name), findClaim(evidence.record, name));
    if (stream) evidence.streams[name] = stream;
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

/** Follows no link. Undefined for what is not there, or no regular file. */
function readStream(path: string, said: Said | undefined): StreamEvidence | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return undefined;
    const isHashed = stat.size <= MAX_HASHED_BYTES;
    const sha256 = createHash('sha256');
    const other = said && said.type !== 'SHA256' ? createHash(said.type.toLowerCase()) : undefined;
    const head = readAll(fd, isHashed ? [sha256, ...(other ? [other] : [])] : []);
    const digest = isHashed ? sha256.digest('hex') : undefined;
    const found = digest && (other ? other.digest('hex') : digest);
    return { head, size: stat.size, sha256: digest, claim: said && found ? { ...said, found } : undefined };
  } finally {
    closeSync(fd);
  }
}

/** Gives what there is to the hashes, if any, and returns its beginning. */
function readAll(fd: number, hashes: Hash[]): Buffer {
  const head = Buffer.alloc(MAX_TEXT_BYTES);
  let headLength = 0;
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  for (;;) {
    const count = readSync(fd, chunk);
    if (count === 0) break;
    headLength += chunk.copy(head, headLength, 0, Math.min(count, MAX_TEXT_BYTES - headLength));
    for (const hash of hashes) hash.update(chunk.subarray(0, count));
    if (hashes.length === 0 && headLength === MAX_TEXT_BYTES) break;
  }
  return head.subarray(0, headLength);
}
