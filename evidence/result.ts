// The only judge of result signatures: who signed the upload of a job, and whether the signature
// verifies. docs/protocol.md, section 11, says byte for byte what a client signs.
import type { StreamName } from 'webjob-locker';
import { NoteError } from '../notes/note.ts';
import { openResult, type ResultStreams, type Sealing, type SignedResult } from '../notes/result.ts';
import { isInUse, type ResultKey } from '../notes/result-keys.ts';
import type { FindingKind } from './finding.ts';
import type { ResultKeys } from './result-keys.ts';

/** The verdict on the signature of an upload. */
export interface ResultVerdict {
  /**
   * `good` for a signature by a key that the site has for this client, `none` where no signature is
   * required, and `bad` otherwise.
   */
  state: 'good' | 'none' | 'bad';
  /** `signed by client1+5782c125`, `not signed`, or why the signature does not count. */
  words: string;
  /** The name and id of the key that the signature claims. Anyone can have written it. */
  key: string | undefined;
  /** The age recipients of the sealed streams, from the run record. */
  sealedTo: readonly string[] | undefined;
}

/** The facts about an upload that come from the server, not from the client. */
export interface ResultFacts {
  clientId: string | undefined;
  /** The job id in the `.rdy`. */
  jobId: string | undefined;
  command: string | undefined;
  /** When the upload arrived. */
  at: Date | undefined;
}

/** A verdict with its findings, and the streams that were signed. */
export interface JudgedResult {
  verdict: ResultVerdict;
  problem: [kind: FindingKind, detail: string] | undefined;
  /** The streams as they were signed; undefined without a valid signature. */
  streams: ResultStreams | undefined;
}

/**
 * Judges the signature in a run record.
 *
 * @param env the bytes of the run record; empty when it cannot be read
 * @param facts the server's facts about the upload, as far as they are known
 * @param keys the result keys of the site
 */
export function judgeResult(env: Uint8Array, facts: ResultFacts, keys: ResultKeys): JudgedResult {
  let result: SignedResult | undefined;
  try {
    result = openResult(env);
  } catch (error) {
    if (!(error instanceof NoteError)) throw error;
    return bad('signature-wrong', `the record is not as a client signs it: ${error.message}`);
  }
  return result ? judgeSigned(result, facts, keys) : judgeUnsigned(env, facts, keys);
}

function judgeSigned(result: SignedResult, facts: ResultFacts, keys: ResultKeys): JudgedResult {
  const { signature, record, sealing, streams, text } = result;
  const { ClientId: client, Jid, Command } = record.fields;
  const key = `${signature.name}+${signature.id}`;
  const fail = (kind: FindingKind, detail: string): JudgedResult => bad(kind, detail, key, sealing);
  if (signature.name !== client) return fail('signature-key', `signed by ${key}, which is not a key of ${client}`);
  const known = keys.of(client).find(({ id }) => id === signature.id);
  if (!known) return fail('signature-key', `signed by ${key}, a key that the site does not have`);
  if (!known.isGood(text, signature.bytes)) return fail('signature-wrong', `not the record that ${key} signed`);
  if (hasEnded(known, facts.at))
    return fail('signature-key', `signed by ${key}, which expired before the upload arrived`);
  const moved = findMoved({ client, Jid, Command }, facts);
  if (moved !== undefined) return fail('signature-moved', `${key} signed it ${moved}`);
  const verdict = { state: 'good', words: `signed by ${key}`, key, sealedTo: sealing?.recipients } as const;
  return { verdict, problem: undefined, streams };
}

function hasEnded({ until }: ResultKey, at: Date | undefined): boolean {
  return until !== undefined && at !== undefined && at >= until;
}

/** Reports the fields of an upload that differ from what the client signed. */
function findMoved(
  signed: { client: string; Jid: string; Command: string },
  { clientId, jobId, command }: ResultFacts,
): string | undefined {
  if (clientId !== undefined && clientId !== signed.client)
    return `as ${signed.client}, but it is stored as ${clientId}'s`;
  if (jobId !== undefined && jobId !== signed.Jid) return `as job ${signed.Jid}, but it is stored as ${jobId}`;
  if (command !== undefined && command !== signed.Command)
    return `as the output of ${signed.Command}, but it is stored as that of ${command}`;
  return undefined;
}

/**
 * Judges an upload without a signature. Anyone who removed the signature may also have changed the
 * client in the run record, so the server's own record of the sender counts too.
 */
function judgeUnsigned(env: Uint8Array, { clientId, at }: ResultFacts, keys: ResultKeys): JudgedResult {
  const claimed = /^ClientId=(.*)$/m.exec(Buffer.from(env).toString('latin1'))?.[1];
  for (const client of new Set([clientId, claimed])) {
    const key = client === undefined ? undefined : keys.of(client).find((one) => isInUse(one, at ?? new Date()));
    if (key)
      return bad(
        'signature-missing',
        `not signed, and ${client} has had the key ${key.name}+${key.id} since ${dayOf(key.from)}`,
      );
  }
  return { verdict: UNSIGNED, problem: undefined, streams: undefined };
}

const UNSIGNED: ResultVerdict = { state: 'none', words: 'not signed', key: undefined, sealedTo: undefined };

function bad(kind: FindingKind, detail: string, key?: string, sealing?: Sealing): JudgedResult {
  const verdict = { state: 'bad', words: detail, key, sealedTo: sealing?.recipients } as const;
  return { verdict, problem: [kind, detail], streams: undefined };
}

function dayOf(date: Date): string {
  return date.toISOString().slice(0, 10);
}

/**
 * Describes how a stream differs from the signed one; undefined when it does not, and for the run
 * record itself.
 */
export function compareSigned(
  streams: ResultStreams,
  stream: StreamName,
  { bytes, sha256 }: { bytes: number; sha256: string | undefined },
): [FindingKind, string] | undefined {
  if (stream === 'env') return undefined;
  const signed = streams[stream];
  if (bytes !== signed.bytes) return ['signature-wrong', `${bytes} bytes, and the client signed ${signed.bytes}`];
  if (sha256 !== undefined && sha256 !== signed.sha256)
    return ['signature-wrong', 'not the SHA-256 that the client signed'];
  return undefined;
}
