// The verdict on an upload, in words that every command uses. The worst of its streams decides, and
// a stream that was not read counts as not checked.
import { STREAMS, type StreamName } from 'webjob-locker';
import type { RunRecord } from 'webjob-protocol';
import type { Finding } from './finding.ts';
import type { ResultVerdict } from './result.ts';

/** The state of one stream, worst first. */
export const STREAM_STATES = [
  'missing',
  'unreadable',
  'changed', // differs from the custody record
  'contradicted', // differs from the run record
  'unread', // was not read
  'unproven', // was read, but there is nothing to compare it with
  'claimed', // matches the run record, which the client wrote
  'received', // matches the custody record
] as const;

export type StreamState = (typeof STREAM_STATES)[number];

/** `good` and `bad` are proven; `plain` could not be decided. */
export type Look = 'good' | 'bad' | 'plain';

export interface StreamVerdict {
  state: StreamState;
  /** Size in bytes; undefined for a stream that is missing. */
  bytes: number | undefined;
  /** SHA-256 in lower-case hex; undefined when it was not computed. */
  sha256: string | undefined;
  /** The hashes that differ: `SHA-256 was …`. */
  proof: string | undefined;
}

/** The verdict on one upload. */
export interface Verdict {
  streams: Record<StreamName, StreamVerdict>;
  /** All problems of the upload; `verify` reports each. */
  findings: readonly Finding[];
  /** The run record, when it can be parsed. */
  record: RunRecord | undefined;
  /** Why an existing run record cannot be parsed. */
  recordProblem: string | undefined;
  /** Whether the upload has a `.rdy`. An upload that was never announced claims nothing. */
  isAnnounced: boolean;
  /** The verdict on the upload's signature; undefined when it was not checked. */
  result: ResultVerdict | undefined;
}

export const STREAM_WORDS: Record<StreamState, string> = {
  missing: 'missing',
  unreadable: 'cannot be read',
  changed: 'changed since it was received',
  contradicted: 'differs from the run record',
  unread: 'not checked',
  unproven: 'nothing to compare with',
  claimed: 'as the client stated',
  received: 'as received',
};

const BAD: readonly StreamState[] = ['missing', 'unreadable', 'changed', 'contradicted'];

export function lookOf(state: StreamState): Look {
  if (state === 'received') return 'good';
  return BAD.includes(state) ? 'bad' : 'plain';
}

/**
 * The verdict on all uploads of a job: the worst one decides. Undefined when there is nothing to
 * judge.
 */
export function judgeAll(verdicts: readonly Verdict[], isMissing: boolean): ReturnType<typeof judge> | undefined {
  if (isMissing) return { look: 'bad', words: 'does not verify' };
  const all = verdicts.map(judge);
  return all.find(({ look }) => look === 'bad') ?? all.find(({ look }) => look === 'plain') ?? all[0];
}

/** The verdict on an upload as a whole. */
export function judge({ streams, findings, isAnnounced }: Verdict): { look: Look; words: string } {
  if (findings.length > 0) return { look: 'bad', words: 'does not verify' };
  if (!isAnnounced) return { look: 'plain', words: 'not announced' };
  const states = new Set(STREAMS.map((name) => streams[name].state));
  // The run record has no entry for itself.
  const worst = STREAM_STATES.find((state) => states.has(state) && !(state === 'unproven' && states.has('claimed')));
  if (worst === undefined || lookOf(worst) === 'bad') return { look: 'bad', words: 'does not verify' };
  return worst === 'received' ? { look: 'good', words: 'verified' } : { look: 'plain', words: STREAM_WORDS[worst] };
}
