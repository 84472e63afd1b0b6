// One group of a locker against what is known of it: its files, the record of the run in its `.env`, and the custody record.
import { lstatSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import {
  EXTENSIONS,
  type Extension,
  formatReady,
  groupPaths,
  isAbandoned,
  parseReady,
  STREAMS,
  type StreamName,
} from 'webjob-locker';
import { parseRecord, type RunRecord } from 'webjob-protocol';
import type { Finding, FindingKind } from './finding.ts';
import { type Reading, readFile, statFile } from './reading.ts';
import type { Deposit } from './records.ts';

/** Whose files may lie in a locker. */
export type Owners = ReadonlySet<number>;

export interface GroupReport {
  findings: Finding[];
  /** Bytes that were read. */
  bytes: number;
  /** When it was announced; undefined for a group that is not. */
  announcedAt?: number;
  /** Somebody is at work on it. */
  inProgress: boolean;
}

type Files = Partial<Record<Extension, Stats>>;

/** The longest record of a run, and the longest `.rdy`, that are read as such. */
const MAX_ENV_BYTES = 1024 * 1024;
const MAX_READY_BYTES = 512;
const ALGORITHMS: ReadonlyMap<string, string> = new Map([
  ['MD5', 'md5'],
  ['SHA1', 'sha1'],
  ['SHA256', 'sha256'],
  ['SHA512', 'sha512'],
]);

/** The files of a group as they are at this moment. */
export function statGroup(locker: string, name: string): Files {
  const files: Files = {};
  for (const extension of EXTENSIONS) {
    const found = lstatSync(join(locker, `${name}.${extension}`), { throwIfNoEntry: false });
    if (found?.isFile()) files[extension] = found;
  }
  return files;
}

/** When a file of the group was last written, or changed in any other way: that cannot be set back. */
export function touchedAt(files: Files): number {
  return Math.max(...Object.values(files).flatMap(({ mtimeMs, ctimeMs }) => [mtimeMs, ctimeMs]));
}

type Look = (extension: Extension, reading: Reading | undefined) => Reading | undefined;

/** Looks at a group as it stands. `deposit` is what the custody record says of it; without `contents` no stream is read. */
export function checkGroup(
  locker: string,
  name: string,
  deposit: Deposit | undefined,
  owners: Owners,
  contents: boolean,
): GroupReport {
  const paths = groupPaths(join(locker, name));
  const report: GroupReport = { findings: [], bytes: 0, inProgress: false };
  const find = (kind: FindingKind, detail: string, extension?: Extension): void => {
    report.findings.push({ kind, place: extension ? `${name}.${extension}` : name, detail });
  };
  const look: Look = (extension, reading) => {
    if (reading) for (const [kind, detail] of findRights(reading.stats, owners)) find(kind, detail, extension);
    if (reading?.failure) find('unreadable', reading.failure, extension);
    return reading;
  };
  if (look('lck', statFile(paths.lck))) {
    if (isAbandoned(paths)) find('lock-abandoned', 'a lock beside which nothing changed for an hour', 'lck');
    else report.inProgress = true;
  }
  const ready = look('rdy', readFile(paths.rdy, { maxTextBytes: MAX_READY_BYTES }));
  if (!ready) {
    const started = STREAMS.filter((stream) => look(stream, statFile(paths[stream])));
    if (started.length > 0 && !report.inProgress) find('incomplete', 'streams without .rdy');
    return report;
  }
  report.announcedAt = ready.stats.mtimeMs;
  const sha256 = deposit && contents ? ['sha256'] : [];
  const env = look('env', readFile(paths.env, { algorithms: sha256, maxTextBytes: MAX_ENV_BYTES }));
  const record = env && parseEnv(env.text);
  if (!ready.failure)
    for (const detail of findReady(ready.text, deposit, record?.Jid)) find('ready-wrong', detail, 'rdy');
  for (const stream of STREAMS) {
    const claim = findClaim(stream, record);
    const wanted = { algorithms: claim ? [...new Set([...sha256, claim.algorithm])] : sha256 };
    const read = (path: string): Reading | undefined => (contents ? readFile(path, wanted) : statFile(path));
    const reading = stream === 'env' ? env : look(stream, read(paths[stream]));
    if (!reading) find('stream-missing', 'a .rdy without this stream', stream);
    if (!reading || reading.failure || !contents) continue;
    report.bytes += reading.size;
    for (const [kind, detail] of checkStream(reading, stream, deposit, claim)) find(kind, detail, stream);
  }
  return report;
}

/** What is wrong with who may change a file or folder. */
export function findRights({ mode, uid }: Stats, owners: Owners): [FindingKind, string][] {
  const found: [FindingKind, string][] = [];
  if (mode & 0o022)
    found.push(['mode', `mode ${(mode & 0o7777).toString(8).padStart(4, '0')}: others may write to it`]);
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
    if (jobId !== undefined && jobId !== 'NA' && jobId !== announced) yield 'not the job id of the record of the run';
  } catch {
    yield 'no line Jid=<job id>';
  }
}

/** The fields of a record of a run; undefined for what is none. */
function parseEnv(text: string): RunRecord['fields'] | undefined {
  try {
    return parseRecord(text).fields;
  } catch {
    return undefined;
  }
}

/** What the record of a run says that a stream is. */
interface Claim {
  hashType: string;
  algorithm: string;
  digest: string;
}

function findClaim(stream: StreamName, record: RunRecord['fields'] | undefined): Claim | undefined {
  if (!record || stream === 'env') return undefined;
  const [hashType, digest] = [record.HashType, stream === 'out' ? record.StdOutHash : record.StdErrHash];
  const algorithm = ALGORITHMS.get(hashType);
  return algorithm && digest !== 'NA' ? { hashType, algorithm, digest } : undefined;
}

function* checkStream(
  { size, digests }: Reading,
  stream: StreamName,
  deposit: Deposit | undefined,
  claim: Claim | undefined,
): Generator<[FindingKind, string]> {
  if (deposit && size !== deposit.bytes[stream])
    yield ['size-changed', `${size} bytes, ${deposit.bytes[stream]} when it was deposited`];
  else if (deposit && digests.get('sha256') !== deposit.sha256[stream])
    yield ['digest-changed', 'not the SHA-256 of the custody record'];
  if (claim && digests.get(claim.algorithm) !== claim.digest.toLowerCase())
    yield ['hash-wrong', `not the ${claim.hashType} of the record of the run`];
}
