// One group of a locker against what is known of it: its files, the record of the run in its `.env`, and the custody record.
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type Stats } from 'node:fs';
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
import { parseRecord } from 'webjob-protocol';
import type { Finding, FindingKind } from './finding.ts';
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
const HASHES: Record<string, string | undefined> = { MD5: 'md5', SHA1: 'sha1', SHA256: 'sha256', SHA512: 'sha512' };
/** Everything here is synchronous: one is enough. */
const buffer = Buffer.allocUnsafe(1024 * 1024);

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

/** Looks at a group as it stands. `deposit` is what the custody record says of it; without `contents` no stream is read. */
export function checkGroup(
  locker: string,
  name: string,
  deposit: Deposit | undefined,
  owners: Owners,
  contents: boolean,
): GroupReport {
  const paths = groupPaths(join(locker, name));
  const files = statGroup(locker, name);
  const report: GroupReport = { findings: [], bytes: 0, inProgress: false };
  const find = (kind: FindingKind, detail: string, extension?: Extension): void => {
    report.findings.push({ kind, place: extension ? `${name}.${extension}` : name, detail });
  };
  for (const extension of EXTENSIONS) {
    const stats = files[extension];
    if (stats) for (const [kind, detail] of findRights(stats, owners)) find(kind, detail, extension);
  }
  if (files.lck) {
    if (isAbandoned(paths)) find('lock-abandoned', 'a lock beside which nothing changed for an hour', 'lck');
    else report.inProgress = true;
  }
  const missing = STREAMS.filter((stream) => !files[stream]);
  if (!files.rdy) {
    if (missing.length < STREAMS.length && !report.inProgress) find('incomplete', 'streams without .rdy');
    return report;
  }
  report.announcedAt = files.rdy.mtimeMs;
  for (const stream of missing) find('stream-missing', 'a .rdy without this stream', stream);
  try {
    const env = files.env ? parseEnv(readSmall(paths.env, MAX_ENV_BYTES)) : undefined;
    const ready = readSmall(paths.rdy, MAX_READY_BYTES);
    for (const detail of findReady(ready, deposit, env?.get('Jid'))) find('ready-wrong', detail, 'rdy');
    for (const stream of STREAMS) {
      if (!contents || !files[stream]) continue;
      report.bytes += files[stream].size;
      for (const [kind, detail] of checkStream(paths[stream], stream, deposit, env)) find(kind, detail, stream);
    }
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    find(
      'unreadable',
      code,
      EXTENSIONS.find((extension) => path === paths[extension]),
    );
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
function parseEnv(text: string): Map<string, string> | undefined {
  try {
    return new Map(Object.entries(parseRecord(text).fields));
  } catch {
    return undefined;
  }
}

function checkStream(
  path: string,
  stream: StreamName,
  deposit: Deposit | undefined,
  env: Map<string, string> | undefined,
): [FindingKind, string][] {
  const claimed = stream === 'env' ? undefined : env?.get(stream === 'out' ? 'StdOutHash' : 'StdErrHash');
  const type = claimed === undefined || claimed === 'NA' ? undefined : HASHES[env?.get('HashType') ?? ''];
  const wanted = new Set([...(deposit ? ['sha256'] : []), ...(type ? [type] : [])]);
  const { size, digests } = digestFile(path, [...wanted]);
  const found: [FindingKind, string][] = [];
  if (deposit && size !== deposit.bytes[stream])
    found.push(['size-changed', `${size} bytes, ${deposit.bytes[stream]} when it was deposited`]);
  else if (deposit && digests.get('sha256') !== deposit.sha256[stream])
    found.push(['digest-changed', 'not the SHA-256 of the custody record']);
  if (type && digests.get(type) !== claimed?.toLowerCase())
    found.push(['hash-wrong', `not the ${env?.get('HashType')} of the record of the run`]);
  return found;
}

/** Reads a file once; the digests are in lower-case hex. */
function digestFile(path: string, algorithms: string[]): { size: number; digests: Map<string, string> } {
  const hashes = algorithms.map((algorithm) => ({ algorithm, hash: createHash(algorithm) }));
  let size = 0;
  withFile(path, (fd) => {
    if (hashes.length === 0) size = fstatSync(fd).size;
    else
      for (let count = readSync(fd, buffer); count > 0; count = readSync(fd, buffer)) {
        for (const { hash } of hashes) hash.update(buffer.subarray(0, count));
        size += count;
      }
  });
  return { size, digests: new Map(hashes.map(({ algorithm, hash }) => [algorithm, hash.digest('hex')])) };
}

/** The text of a file up to a limit; one byte more tells that it went on. */
function readSmall(path: string, limit: number): string {
  return withFile(path, (fd) => {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, limit), 0);
    return buffer.toString('latin1', 0, count) + (fstatSync(fd).size > count ? '\0' : '');
  });
}

/** Opens without following a link, and without waiting for what is no file. */
function withFile<Type>(path: string, work: (fd: number) => Type): Type {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    return work(fd);
  } catch (error) {
    throw Object.assign(error as Error, { path });
  } finally {
    closeSync(fd);
  }
}
