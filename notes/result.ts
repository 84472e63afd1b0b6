// Signed results: the run record of a job with the sizes and digests of its output, signed by the
// client with its result key (docs/protocol.md, section 11). The run record and its signature are a
// signed note, whose text is a fixed first line and the record up to the signature. Both signers
// and verifiers use this file.
import { isUtf8 } from 'node:buffer';
import { parseRecord, type RunRecord } from 'webjob-protocol';
import {
  formatSignature,
  NoteError,
  type NoteSignature,
  type NoteSigner,
  parseSignature,
  signatureOf,
} from './note.ts';

/** The size and digest of a stream. */
export interface StreamFacts {
  bytes: number;
  /** In lower-case hex. */
  sha256: string;
}

/** The two streams of a program. */
export type ResultStreams = Readonly<Record<'out' | 'err', StreamFacts>>;

/** How streams were sealed: the recipients, and the streams before sealing. */
export interface Sealing {
  /** age recipients. */
  recipients: readonly string[];
  plain: ResultStreams;
}

/** A parsed signed run record. Only its form has been checked: see isSignedBy(). */
export interface SignedResult {
  record: RunRecord;
  /** The streams as they were sent. */
  streams: ResultStreams;
  /** Undefined for streams that are not sealed. */
  sealing: Sealing | undefined;
  signature: NoteSignature;
  /** The signed text. */
  text: string;
}

/** Keeps a key that signs results from signing anything else. */
const FIRST_LINE = 'webjob-result/v1\n';
const SIGNATURE = 'ResultSignature';
const SEALED_TO = 'SealedTo';
/** How a sealed stream begins, in the format of age. */
export const SEALED_MAGIC = 'age-encryption.org/v1\n';
const SIZES = /^(?:0|[1-9][0-9]{0,15})$/;
const SHA256 = /^[0-9a-f]{64}$/;

/** The fields that describe the streams, which follow all others in a run record. */
export function resultFields(streams: ResultStreams, sealing?: Sealing): [name: string, value: string][] {
  const own = fieldsOf('Std', streams);
  return sealing ? [...own, [SEALED_TO, sealing.recipients.join(',')], ...fieldsOf('Plain', sealing.plain)] : own;
}

function fieldsOf(start: string, { out, err }: ResultStreams): [name: string, value: string][] {
  return [
    [`${start}OutBytes`, String(out.bytes)],
    [`${start}OutSha256`, out.sha256],
    [`${start}ErrBytes`, String(err.bytes)],
    [`${start}ErrSha256`, err.sha256],
  ];
}

/** Signs a run record, which must end with resultFields(), by adding a signature line. */
export function signResult(record: string, signer: NoteSigner): string {
  return `${record}${SIGNATURE}=${formatSignature(signatureOf(FIRST_LINE + record, signer))}\n`;
}

/** Whether a run record has a signature, valid or not. */
export function isSigned(env: Buffer): boolean {
  return env.includes(`\n${SIGNATURE}=`);
}

/** Whether a run record says that the streams are sealed. */
export function isSealed(env: Buffer): boolean {
  return env.includes(`\n${SEALED_TO}=`);
}

/**
 * The recipients of sealed streams according to a run record; undefined for streams that are not
 * sealed.
 */
export function sealedTo(fields: ReadonlyMap<string, string>): string[] | undefined {
  return fields.get(SEALED_TO)?.split(',');
}

/**
 * `sealed to age1r8sp…, age1xyz…`, shortened because hybrid recipients have two thousand
 * characters.
 */
export function describeSealing(recipients: readonly string[]): string {
  return `sealed to ${recipients.map((one) => (one.length > 70 ? `${one.slice(0, 40)}...` : one)).join(', ')}`;
}

/**
 * Parses a run record with a signature, or with fields that belong to one.
 *
 * @returns undefined for a run record with neither
 * @throws NoteError when it is not what signResult() makes
 */
export function openResult(env: Uint8Array): SignedResult | undefined {
  const whole = Buffer.from(env.buffer, env.byteOffset, env.byteLength);
  const at = whole.lastIndexOf(`\n${SIGNATURE}=`) + 1;
  if (at === 0) {
    if (/^(?:(?:Std|Plain)(?:Out|Err)(?:Bytes|Sha256)|SealedTo)=/m.test(whole.toString('latin1')))
      throw new NoteError('its signature was removed');
    return undefined;
  }
  if (!isUtf8(whole)) throw new NoteError('the record is not UTF-8');
  const [line = '', ...rest] = whole.toString('utf8', at).split('\n');
  if (rest.length !== 1 || rest[0] !== '') throw new NoteError('something follows its signature');
  const signature = parseSignature(line.slice(SIGNATURE.length + 1));
  if (!signature) throw new NoteError('its signature is malformed');
  const text = whole.toString('utf8', 0, at);
  const record = parseWhole(text);
  const fields = new Map(record.extra);
  if (fields.size < record.extra.length || fields.has(SIGNATURE)) throw new NoteError('a field is repeated');
  const recipients = sealedTo(fields);
  const sealing = recipients && { recipients, plain: readStreams('Plain', fields) };
  return { record, streams: readStreams('Std', fields), sealing, signature, text: FIRST_LINE + text };
}

function parseWhole(text: string): RunRecord {
  try {
    return parseRecord(text);
  } catch (error) {
    throw new NoteError((error as Error).message);
  }
}

function readStreams(start: string, fields: ReadonlyMap<string, string>): ResultStreams {
  const read = (stream: string): StreamFacts => {
    const [bytes = '', sha256 = ''] = ['Bytes', 'Sha256'].map((what) => fields.get(`${start}${stream}${what}`));
    if (!SIZES.test(bytes) || !SHA256.test(sha256))
      throw new NoteError(`${start}${stream}Bytes and ${start}${stream}Sha256 do not say what was printed`);
    return { bytes: Number(bytes), sha256 };
  };
  return { out: read('Out'), err: read('Err') };
}
