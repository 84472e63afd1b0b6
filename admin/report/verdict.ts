// Whether the files of a job are what was received, as the custody record says, and what the client sent, as its record says.
import { type ChainFault, STREAMS, type StreamName } from 'webjob-locker';
import type { Job } from '../job.ts';
import { formatBytes } from '../output.ts';
import type { Deposit } from './custody.ts';
import { type Evidence, MAX_HASHED_BYTES, type StreamEvidence } from './evidence.ts';

/** `good` and `bad` were found out, `plain` could not be. */
export type Look = 'good' | 'bad' | 'plain';

export interface Verdict {
  look: Look;
  words: string;
  /** The hashes that differ: `said …, is …`. */
  proof?: string;
}

export interface JobVerdict {
  streams: Record<StreamName, Verdict>;
  /** The worst of them; of an upload that was never announced nothing is claimed. */
  look: Look;
  /** A sentence on what is wrong with its entry in the custody record. */
  custody: string | undefined;
}

const FAULTS: Record<ChainFault, string> = {
  edited: 'The entry of this upload in the custody record was changed.',
  // Says nothing against the entry itself.
  broken: 'Something before the entry of this upload in the custody record was changed.',
  torn: 'The entry of this upload in the custody record was cut off.',
};

export function judgeJob({ group, packed }: Job, evidence: Evidence, deposit: Deposit | undefined): JobVerdict {
  const verdicts = STREAMS.map((name) => [name, judgeStream(evidence.streams[name], deposit?.sha256[name])] as const);
  const looks = verdicts.map(([, { look }]) => look);
  const isBad = looks.includes('bad') || deposit?.fault === 'edited' || evidence.recordProblem !== undefined;
  const look = isBad ? 'bad' : looks.includes('good') ? 'good' : 'plain';
  return {
    streams: Object.fromEntries(verdicts) as JobVerdict['streams'],
    // Only what was announced is packed.
    look: group?.has.has('rdy') || packed ? look : 'plain',
    custody: deposit?.fault && FAULTS[deposit.fault],
  };
}

function judgeStream(stream: StreamEvidence | undefined, received: string | undefined): Verdict {
  if (!stream) return { look: 'bad', words: 'missing' };
  const { sha256, claim } = stream;
  if (sha256 === undefined) return { look: 'plain', words: `not read, above ${formatBytes(MAX_HASHED_BYTES)}` };
  if (received !== undefined && received !== sha256)
    return { look: 'bad', words: 'changed since it was received', proof: `SHA-256 was ${received}` };
  if (claim && claim.said !== claim.found)
    return {
      ...{ look: 'bad', words: 'differs from the record' },
      proof: `the record says ${claim.type} ${claim.said}, it is ${claim.found}`,
    };
  if (received !== undefined)
    return { look: 'good', words: claim ? 'as received, and as the record says' : 'as received' };
  return claim ? { look: 'good', words: 'as the record says' } : { look: 'plain', words: 'nothing to compare with' };
}
