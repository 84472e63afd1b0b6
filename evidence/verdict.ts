// What is found out about an upload, in words that every command uses. The worst of its streams counts, and what was not read is not checked.
import { STREAMS, type StreamName } from 'webjob-locker';
import type { RunRecord } from 'webjob-protocol';
import type { Finding } from './finding.ts';
import type { ResultVerdict } from './result.ts';

/** What one stream turned out to be, the worst first. */
export const STREAM_STATES = [
  'missing',
  'unreadable',
  'changed', // not what the custody record says
  'contradicted', // not what the run record says of it
  'unread', // nobody read it
  'unproven', // read, and nothing says what it was
  'claimed', // what the run record says, which the client wrote
  'received', // what the custody record says
] as const;

export type StreamState = (typeof STREAM_STATES)[number];

/** `good` and `bad` were found out, `plain` could not be. */
export type Look = 'good' | 'bad' | 'plain';

export interface StreamVerdict {
  state: StreamState;
  /** Bytes that are there; undefined for a stream that is missing. */
  bytes: number | undefined;
  /** Lower-case hex; undefined where nobody took it. */
  sha256: string | undefined;
  /** The hashes that differ: `SHA-256 was …`. */
  proof: string | undefined;
}

/** What is known of one upload. */
export interface Verdict {
  streams: Record<StreamName, StreamVerdict>;
  /** All that is wrong with it; `verify` reports each. */
  findings: readonly Finding[];
  /** The run record, where there is one that can be read. */
  record: RunRecord | undefined;
  /** Why it cannot be read although it is there. */
  recordProblem: string | undefined;
  /** It has a `.rdy`; of what was never announced nothing is claimed. */
  isAnnounced: boolean;
  /** Whose signature is on it; undefined where nobody looked. */
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
 * The verdict on all that a job uploaded: the worst counts. Undefined when there is nothing to
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
  // A record of the run says nothing of itself.
  const worst = STREAM_STATES.find((state) => states.has(state) && !(state === 'unproven' && states.has('claimed')));
  if (worst === undefined || lookOf(worst) === 'bad') return { look: 'bad', words: 'does not verify' };
  return worst === 'received' ? { look: 'good', words: 'verified' } : { look: 'plain', words: STREAM_WORDS[worst] };
}
