// The verdict on one job's uploads, as `webjobctl show` prints it.
import { STREAMS, type StreamName } from 'webjob-locker';
import { encodeField, findJobIdParts, NOT_APPLICABLE } from 'webjob-protocol';
import type { Finding } from '../../evidence/finding.ts';
import type { Deposit } from '../../evidence/records.ts';
import { judgeAll, STREAM_WORDS, type Verdict } from '../../evidence/verdict.ts';
import { describeMissing } from '../../evidence/verify.ts';
import type { WitnessState } from '../../evidence/witness.ts';
import type { Job } from '../../ledger/job.ts';
import { openEvidence } from '../site/evidence.ts';
import type { Site } from '../site/site.ts';

export interface JobVerification {
  /** `verified`, `does not verify`, `not checked` and the like. */
  words: string;
  /** Each stream of the last upload in words; undefined when there is no upload. */
  streams: Record<StreamName, string> | undefined;
  /** The signature on the last upload in words; undefined when there is no upload. */
  signature: string | undefined;
  /** The key of the signature; null for none. */
  key: string | null;
  findings: readonly Finding[];
}

/** Larger uploads are not read for this; verify reads them. */
const MAX_READ_BYTES = 64 * 1024 * 1024;

/**
 * Judges the uploads of a job, in the locker or in an archive; the last one has `bytes`. Undefined
 * for a job without uploads. Throws Failure `failed`.
 */
export function verifyShown(site: Site, job: Job, bytes: number): JobVerification | undefined {
  const judged = judgeJob(site, job, { isRead: bytes <= MAX_READ_BYTES, maxPackBytes: MAX_READ_BYTES });
  if (!judged) return undefined;
  const { verdicts, missing } = judged;
  const verdict = judgeAll([...verdicts.values()], missing.length > 0);
  const last = verdicts.get((job.group ?? job.packed)?.name ?? '');
  const streams = last && STREAMS.map((name) => [name, STREAM_WORDS[last.streams[name].state]]);
  return (
    verdict && {
      words: verdict.words,
      streams: streams && (Object.fromEntries(streams) as Record<StreamName, string>),
      signature: last?.result?.words,
      key: last?.result?.key ?? null,
      findings: [...verdicts.values()].flatMap(({ findings }) => findings).concat(missing.map(describeMissing)),
    }
  );
}

/** The verdicts on the uploads of a job. */
export interface JudgedJob {
  /** The verdicts by the names of the uploads. */
  verdicts: ReadonlyMap<string, Verdict>;
  /** Uploads that were recorded under the job's id and are missing. */
  missing: readonly Deposit[];
  /** The deposit of the last upload. */
  deposit: Deposit | undefined;
  /** The state of root's witness. */
  witnessState: WitnessState;
}

/** How thoroughly to judge a job. */
export interface JudgeCare {
  /** Read the job's streams. */
  isRead: boolean;
  /** Compute the SHA-256 of every stream, even when there is nothing to compare it with. */
  digests?: boolean;
  /** Read archives up to this size in bytes. */
  maxPackBytes: number;
  /**
   * While the job's upload exists and is on record, entries recorded long after the job are not
   * read.
   */
  isBounded?: boolean;
}

/**
 * Judges a job; undefined for one without uploads and without an id to look for them. Throws
 * Failure `failed`.
 */
export function judgeJob(
  site: Site,
  job: Job,
  { isRead, digests, maxPackBytes, isBounded }: JudgeCare,
): JudgedJob | undefined {
  const { uploads, group, packed } = job;
  const names = [
    ...new Set([...uploads, ...(group ? [group] : []), ...(packed ? [packed] : [])].map(({ name }) => name)),
  ];
  const jobId = searchable(job.jobId);
  if (names.length === 0 && jobId === undefined) return undefined;
  const issued = jobId === undefined ? undefined : findJobIdParts(jobId)?.epochSeconds;
  const since = issued === undefined ? undefined : issued * 1000;
  const until = isBounded && group ? job.at.getTime() : undefined;
  const evidence = openEvidence(site, { only: { names, jobId, since, until } });
  try {
    const as = { clientId: job.clientId, command: job.command };
    const care = { contents: isRead, digests: digests === true, as };
    const verdicts = new Map<string, Verdict>(uploads.map(({ name }) => [name, evidence.judge(name, care)]));
    if (group && !verdicts.has(group.name)) verdicts.set(group.name, evidence.judge(group.name, care));
    if (packed && !group) {
      const { pack, name } = packed;
      const archive = evidence.records.packs().find((known) => known.name === pack);
      const isShort = (archive?.archiveBytes ?? 0) <= maxPackBytes;
      verdicts.set(name, evidence.judgePack(pack, new Set([name]), isShort)(name));
    }
    const missing = [...evidence.missing()].filter((deposit) => jobId !== undefined && deposit.jobId === jobId);
    const deposit = evidence.records.find((group ?? packed)?.name ?? '');
    return { verdicts, missing, deposit, witnessState: evidence.witnessState };
  } finally {
    evidence.close();
  }
}

/** A job id by which records can be found: one that the log writes unescaped. */
function searchable(jobId: string | undefined): string | undefined {
  const isPlain =
    jobId !== undefined && jobId !== NOT_APPLICABLE && encodeField(jobId) === jobId && !/[%\\]/.test(jobId);
  return isPlain ? jobId : undefined;
}
