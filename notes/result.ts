// Signed results: the run record of a job with the sizes and digests of what it printed, signed by the client with its
// result key (docs/protocol.md, section 11). The record and its signature are a signed note, whose text is a first line
// and the record up to the signature. Clients that sign and those who check both ask here.
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

/** What one stream is. */
export interface StreamFacts {
  bytes: number;
  /** In lower-case hex. */
  sha256: string;
}

/** The two streams of a program. */
export type ResultStreams = Readonly<Record<'out' | 'err', StreamFacts>>;

/** How streams were sealed: to whom, and what they were before. */
export interface Sealing {
  /** age recipients. */
  recipients: readonly string[];
  plain: ResultStreams;
}

/** A signed record taken apart. Nothing in it has been checked but its form: see isSignedBy. */
export interface SignedResult {
  record: RunRecord;
  /** As they were sent. */
  streams: ResultStreams;
  /** Undefined for streams that are not sealed. */
  sealing: Sealing | undefined;
  signature: NoteSignature;
  /** What is signed. */
  text: string;
}

/** Keeps a key that signs results from signing anything else. */
const FIRST_LINE = 'webjob-result/v1\n';
const SIGNATURE = 'ResultSignature';
const SEALED_TO = 'SealedTo';
const SIZES = /^(?:0|[1-9][0-9]{0,15})$/;
const SHA256 = /^[0-9a-f]{64}$/;

/** The fields that say what the streams are, to follow all others of a run record. */
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

/** A run record, which ends with resultFields, and behind it the line of its signature. */
export function signResult(record: string, signer: NoteSigner): string {
  return `${record}${SIGNATURE}=${formatSignature(signatureOf(FIRST_LINE + record, signer))}\n`;
}

/** Whether a run record has a signature, good or not. */
export function isSigned(env: Buffer): boolean {
  return env.includes(`\n${SIGNATURE}=`);
}

/** Whether a run record says that the streams are sealed. */
export function isSealed(env: Buffer): boolean {
  return env.includes(`\n${SEALED_TO}=`);
}

/** The recipients that a record says the streams are sealed to; undefined for a record of streams that are not. */
export function sealedTo(fields: ReadonlyMap<string, string>): string[] | undefined {
  return fields.get(SEALED_TO)?.split(',');
}

/**
 * Takes a run record apart that has a signature, or fields that belong to one.
 *
 * @returns undefined for a record that has neither
 * @throws NoteError when it is not what signResult makes
 */
export function openResult(env: Uint8Array): SignedResult | undefined {
  const whole = Buffer.from(env.buffer, env.byteOffset, env.byteLength);
  const at = whole.lastIndexOf(`\n${SIGNATURE}=`) + 1;
  if (at === 0) {
    if (/^(?:(?:Std|Plain)(?:Out|Err)(?:Bytes|Sha256)|SealedTo)=/m.test(whole.toString('latin1')))
      throw new NoteError('its signature was taken out');
    return undefined;
  }
  if (!isUtf8(whole)) throw new NoteError('the record is not UTF-8');
  const [line = '', ...rest] = whole.toString('utf8', at).split('\n');
  if (rest.length !== 1 || rest[0] !== '') throw new NoteError('something follows its signature');
  const signature = parseSignature(line.slice(SIGNATURE.length + 1));
  if (!signature) throw new NoteError('its signature is not one');
  const text = whole.toString('utf8', 0, at);
  const record = parseWhole(text);
  const fields = new Map(record.extra);
  if (fields.size < record.extra.length || fields.has(SIGNATURE)) throw new NoteError('a field is there twice');
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
