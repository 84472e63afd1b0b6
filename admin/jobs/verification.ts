// The verdict on one job's uploads, as `webjobctl show` prints it.
import { STREAMS, type StreamName } from 'webjob-locker';
import { encodeField, findJobIdParts, NOT_APPLICABLE } from 'webjob-protocol';
import type { Finding } from '../../evidence/finding.ts';
import { judgeAll, STREAM_WORDS, type Verdict } from '../../evidence/verdict.ts';
import { describeMissing } from '../../evidence/verify.ts';
import type { Job } from '../../ledger/job.ts';
import { openEvidence } from '../site/evidence.ts';
import type { Site } from '../site/site.ts';

export interface JobVerification {
  /** `verified`, `does not verify`, `not checked` and the like. */
  words: string;
  /** Of the last upload, each stream in words; undefined when none is there. */
  streams: Record<StreamName, string> | undefined;
  /** Whose signature is on the last upload, in words; undefined when none is there. */
  signature: string | undefined;
  /** The key that it is of; null for none. */
  key: string | null;
  findings: readonly Finding[];
}

/** What is longer is not read to be shown: verify reads it. */
const MAX_READ_BYTES = 64 * 1024 * 1024;

/**
 * Judges the uploads of a job, in the locker or in a pack, of which the last one has `bytes`.
 * Undefined for a job that has none. Throws Failure `failed`.
 */
export function verifyShown(site: Site, job: Job, bytes: number): JobVerification | undefined {
  const { uploads, group, packed } = job;
  const names = [
    ...new Set([...uploads, ...(group ? [group] : []), ...(packed ? [packed] : [])].map(({ name }) => name)),
  ];
  const jobId = searchable(job.jobId);
  if (names.length === 0 && jobId === undefined) return undefined;
  const issued = jobId === undefined ? undefined : findJobIdParts(jobId)?.epochSeconds;
  const since = issued === undefined ? undefined : issued * 1000;
  const evidence = openEvidence(site, { only: { names, jobId, since } });
  try {
    const care = { contents: bytes <= MAX_READ_BYTES, as: { clientId: job.clientId, command: job.command } };
    const judged = new Map<string, Verdict>(uploads.map(({ name }) => [name, evidence.judge(name, care)]));
    if (group && !judged.has(group.name)) judged.set(group.name, evidence.judge(group.name, care));
    if (packed && !group) {
      const { pack, name } = packed;
      const archive = evidence.records.packs().find((known) => known.name === pack);
      const isShort = (archive?.archiveBytes ?? 0) <= MAX_READ_BYTES;
      judged.set(name, evidence.judgePack(pack, new Set([name]), isShort)(name));
    }
    const missing = [...evidence.missing()].filter((deposit) => jobId !== undefined && deposit.jobId === jobId);
    const verdict = judgeAll([...judged.values()], missing.length > 0);
    const last = judged.get((group ?? packed)?.name ?? '');
    const streams = last && STREAMS.map((name) => [name, STREAM_WORDS[last.streams[name].state]]);
    return (
      verdict && {
        words: verdict.words,
        streams: streams && (Object.fromEntries(streams) as Record<StreamName, string>),
        ...{ signature: last?.result?.words, key: last?.result?.key ?? null },
        findings: [...judged.values()].flatMap(({ findings }) => findings).concat(missing.map(describeMissing)),
      }
    );
  } finally {
    evidence.close();
  }
}

/** A job id by which records can be found: one that the log writes as it is. */
function searchable(jobId: string | undefined): string | undefined {
  const isPlain =
    jobId !== undefined && jobId !== NOT_APPLICABLE && encodeField(jobId) === jobId && !/[%\\]/.test(jobId);
  return isPlain ? jobId : undefined;
}
