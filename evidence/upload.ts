// Checks one upload of a locker: its files, the run record in its `.env`, and the custody record.
import type { Stats } from 'node:fs';
import {
  EXTENSIONS,
  type Extension,
  formatReady,
  groupPaths,
  isAbandoned,
  parseReady,
  reach,
  STREAMS,
  type StreamName,
  splitNumbered,
  statGroupFile,
} from 'webjob-locker';
import { parseRecord, type RunRecord } from 'webjob-protocol';
import type { Finding, FindingKind } from './finding.ts';
import { type Reading, readFile, statFile } from './reading.ts';
import type { Deposit } from './records.ts';
import { compareSigned, type JudgedResult, judgeResult, type ResultFacts } from './result.ts';
import type { ResultKeys } from './result-keys.ts';
import type { StreamVerdict, Verdict } from './verdict.ts';

/** The user ids that may own files in a locker. */
export type Owners = ReadonlySet<number>;

export interface UploadReport extends Verdict {
  findings: Finding[];
  /** The number of bytes read. */
  bytes: number;
  /** When the upload was announced, in milliseconds; undefined when it was not. */
  announcedAt: number | undefined;
  /** The content of the `.rdy`; undefined when there is none or it cannot be read. */
  ready: string | undefined;
  /** Whether a process is still writing the upload. */
  inProgress: boolean;
}

/**
 * The finding on an announced upload that was stored beside another of its name, as `NAME~2`;
 * undefined for any other. `place` is its name in the finding when it is in an archive.
 */
export function findDiffering(name: string, place = name): Finding | undefined {
  const numbered = splitNumbered(name);
  if (!numbered) return undefined;
  const detail = `a client sent it under the same name as ${numbered.base}, which has other bytes or another job id`;
  return { kind: 'differing', place, detail };
}

/** How thoroughly to check. */
export interface Care {
  /** Whether to read the streams, and not only names, permissions, run record and `.rdy`. */
  contents: boolean;
  /**
   * Whether to compute the SHA-256 of every stream, even when there is nothing to compare it with.
   */
  digests?: boolean;
  /** The client and command, when known from elsewhere, such as the log. */
  as?: Pick<ResultFacts, 'clientId' | 'command'> | undefined;
}

/** Facts about an upload that come from elsewhere than its files. */
export interface Sources {
  /** The upload as the custody record describes it. */
  deposit: Deposit | undefined;
  /** The user ids that may own files in a locker. */
  owners: Owners;
  /** The result keys of the site; undefined when signatures are not to be checked. */
  keys?: ResultKeys | undefined;
}

type Files = Partial<Record<Extension, Stats>>;

/** The largest run record, and the largest `.rdy`, that is read. */
export const MAX_ENV_BYTES = 1024 * 1024;
const MAX_READY_BYTES = 512;
const ALGORITHMS: ReadonlyMap<string, string> = new Map([
  ['MD5', 'md5'],
  ['SHA1', 'sha1'],
  ['SHA256', 'sha256'],
  ['SHA512', 'sha512'],
]);

/** Stats of the files of an upload at this moment. */
export function statUpload(locker: string, name: string): Files {
  const files: Files = {};
  for (const extension of EXTENSIONS) {
    const found = statGroupFile(locker, name, extension);
    if (found) files[extension] = found;
  }
  return files;
}

/**
 * When a file of the upload last changed in any way, in milliseconds, by ctime, which cannot be set
 * back.
 */
export function touchedAt(files: Files): number {
  return Math.max(...Object.values(files).flatMap(({ mtimeMs, ctimeMs }) => [mtimeMs, ctimeMs]));
}

type Look = (extension: Extension, reading: Reading | undefined) => Reading | undefined;

/** Checks an upload in the locker. */
export function checkUpload(
  locker: string,
  name: string,
  { deposit, owners, keys }: Sources,
  { contents, digests = false, as }: Care,
): UploadReport {
  const paths = groupPaths(reach(locker, name));
  const report = emptyReport();
  const find = (kind: FindingKind, detail: string, extension?: Extension): void => {
    report.findings.push({ kind, place: extension ? `${name}.${extension}` : name, detail });
  };
  const look: Look = (extension, reading) => {
    if (reading) for (const [kind, detail] of findRights(reading.stats, owners)) find(kind, detail, extension);
    if (reading?.failure) find('unreadable', reading.failure, extension);
    return reading;
  };
  if (look('lck', statFile(paths.lck))) {
    if (isAbandoned(paths)) find('lock-abandoned', 'a lock whose upload has not changed for an hour', 'lck');
    else report.inProgress = true;
  }
  const ready = look('rdy', readFile(paths.rdy, { maxTextBytes: MAX_READY_BYTES }));
  report.announcedAt = ready?.stats.mtimeMs;
  report.isAnnounced = ready !== undefined;
  report.ready = ready?.failure ? undefined : ready?.text;
  const isRead = contents && ready !== undefined;
  const sha256 = isRead && (deposit || digests) ? ['sha256'] : [];
  const env = look('env', readFile(paths.env, { algorithms: sha256, maxTextBytes: MAX_ENV_BYTES }));
  if (env && !env.failure) Object.assign(report, readRunRecord(env.text, env.size));
  if (ready && !ready.failure)
    for (const detail of findReady(ready.text, deposit, report.record?.fields.Jid)) find('ready-wrong', detail, 'rdy');
  const result = ready && env && keys && judgeEnv(env, report.ready, { deposit, readyAt: ready.stats.mtime, as }, keys);
  report.result = result?.verdict;
  if (result?.problem) find(result.problem[0], result.problem[1], 'env');
  for (const stream of STREAMS) {
    const claim = findClaim(stream, report.record);
    const signed = isRead && result?.streams ? ['sha256'] : [];
    const wanted = { algorithms: [...new Set([...sha256, ...signed, ...(claim ? [claim.algorithm] : [])])] };
    const read = (path: string): Reading | undefined => (isRead ? readFile(path, wanted) : statFile(path));
    const reading = stream === 'env' ? env : look(stream, read(paths[stream]));
    if (!reading && ready) find('stream-missing', 'a .rdy without this stream', stream);
    if (reading && !reading.failure && isRead) report.bytes += reading.size;
    const [verdict, differences] = judgeStream(reading, stream, isRead, deposit, claim);
    const is = reading && !reading.failure ? { bytes: reading.size, sha256: verdict.sha256 } : undefined;
    const unlike = is && result?.streams && compareSigned(result.streams, stream, is);
    if (unlike && result) {
      differences.push(unlike);
      report.result = { ...result.verdict, state: 'bad', words: `.${stream} is not what ${result.verdict.key} signed` };
    }
    report.streams[stream] = verdict;
    for (const [kind, detail] of differences) find(kind, detail, stream);
  }
  const isStarted = STREAMS.some((stream) => report.streams[stream].bytes !== undefined);
  if (!ready && isStarted && !report.inProgress) find('incomplete', 'streams without .rdy');
  return report;
}

export function emptyReport(): UploadReport {
  const missing = (): StreamVerdict => ({ state: 'missing', bytes: undefined, sha256: undefined, proof: undefined });
  return {
    streams: { out: missing(), err: missing(), env: missing() },
    findings: [],
    record: undefined,
    recordProblem: undefined,
    isAnnounced: false,
    result: undefined,
    bytes: 0,
    announcedAt: undefined,
    ready: undefined,
    inProgress: false,
  };
}

/** Findings on the owner and the permissions of a file or directory. */
export function findRights({ mode, uid }: Stats, owners: Owners): [FindingKind, string][] {
  const found: [FindingKind, string][] = [];
  if (mode & 0o022)
    found.push(['mode', `mode ${(mode & 0o7777).toString(8).padStart(4, '0')}: others can write to it`]);
  if (!owners.has(uid)) found.push(['owner', `belongs to user ${uid}`]);
  return found;
}

function* findReady(ready: string, deposit: Deposit | undefined, jobId: string | undefined): Generator<string> {
  if (deposit) {
    if (ready !== formatReady(deposit.jobId)) yield 'not the job id of the custody record';
    return;
  }
  try {
    const announced = parseReady(ready);
    if (jobId !== undefined && jobId !== 'NA' && jobId !== announced) yield 'not the job id of the run record';
  } catch {
    yield 'no line Jid=<job id>';
  }
}

/** Judges the signature in a run record against the server's facts about the upload. */
function judgeEnv(
  { failure, text }: Reading,
  ready: string | undefined,
  { deposit, readyAt, as }: Pick<Sources, 'deposit'> & Pick<Care, 'as'> & { readyAt: Date },
  keys: ResultKeys,
): JudgedResult {
  const facts = {
    clientId: deposit?.clientId ?? as?.clientId,
    jobId: deposit?.jobId ?? jobIdOf(ready),
    command: deposit?.fileName ?? as?.command,
    at: deposit?.time ?? readyAt,
  };
  return judgeResult(Buffer.from(failure ? '' : text, 'latin1'), facts, keys);
}

function jobIdOf(ready: string | undefined): string | undefined {
  try {
    return ready === undefined ? undefined : parseReady(ready);
  } catch {
    return undefined;
  }
}

/**
 * Parses a run record. A run record that cannot be parsed is intact evidence, stored as the client
 * sent it, but claims nothing.
 */
export function readRunRecord(text: string, size: number): Pick<Verdict, 'record' | 'recordProblem'> {
  try {
    if (size > MAX_ENV_BYTES) throw new SyntaxError(`it has ${size} bytes, more than any run record`);
    if (size === 0) throw new SyntaxError('it is empty');
    return { record: parseRecord(text), recordProblem: undefined };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { record: undefined, recordProblem: error.message };
  }
}

/** The hash of a stream according to the run record. */
export interface Claim {
  hashType: string;
  algorithm: string;
  digest: string;
}

/**
 * Finds the hash of a stream in the run record; undefined when there is none that can be checked.
 */
export function findClaim(stream: StreamName, record: RunRecord | undefined): Claim | undefined {
  if (!record || stream === 'env') return undefined;
  const { HashType, StdOutHash, StdErrHash } = record.fields;
  const digest = stream === 'out' ? StdOutHash : StdErrHash;
  const algorithm = ALGORITHMS.get(HashType.toUpperCase());
  return algorithm && digest !== 'NA' ? { hashType: HashType, algorithm, digest: digest.toLowerCase() } : undefined;
}

/** The state of a stream, with the finding when it differs. */
export function judgeStream(
  reading: Pick<Reading, 'size' | 'digests' | 'failure'> | undefined,
  stream: StreamName,
  isRead: boolean,
  deposit: Deposit | undefined,
  claim: Claim | undefined,
): [StreamVerdict, [FindingKind, string][]] {
  const sha256 = reading?.digests.get('sha256');
  const verdict: StreamVerdict = { state: 'missing', bytes: reading?.size, sha256, proof: undefined };
  const differences: [FindingKind, string][] = [];
  if (!reading) return [verdict, differences];
  verdict.state = reading.failure ? 'unreadable' : isRead ? 'unproven' : 'unread';
  if (verdict.state !== 'unproven') return [verdict, differences];
  const found = claim && reading.digests.get(claim.algorithm);
  if (claim) verdict.state = found === claim.digest ? 'claimed' : 'contradicted';
  if (claim && verdict.state === 'contradicted') {
    verdict.proof = `the run record says ${claim.hashType} ${claim.digest}, it is ${found}`;
    differences.push(['hash-wrong', `not the ${claim.hashType} of the run record`]);
  }
  if (!deposit) return [verdict, differences];
  const difference = compareDeposit(deposit, stream, { bytes: reading.size, sha256 });
  if (difference) {
    verdict.state = 'changed';
    verdict.proof = `SHA-256 was ${deposit.sha256[stream]}`;
    differences.unshift(difference);
  } else if (verdict.state !== 'contradicted') verdict.state = 'received';
  return [verdict, differences];
}

/** Describes how a stream differs from its deposit; undefined when it does not. */
export function compareDeposit(
  deposit: Deposit,
  stream: StreamName,
  { bytes, sha256 }: { bytes: number; sha256: string | undefined },
): [FindingKind, string] | undefined {
  if (bytes !== deposit.bytes[stream])
    return ['size-changed', `${bytes} bytes, ${deposit.bytes[stream]} when it was deposited`];
  if (sha256 !== deposit.sha256[stream]) return ['digest-changed', 'not the SHA-256 of the custody record'];
  return undefined;
}
