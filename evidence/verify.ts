// Verifies a site: the custody records, every upload against them and against its own run record,
// and foreign files. It reports and never repairs.
import { createHash } from 'node:crypto';
import { lstatSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import {
  custodyPath,
  type Extension,
  findGroup,
  type Group,
  groupPaths,
  isAbandoned,
  listCustodyFiles,
  listFolder,
  parseReady,
  reach,
  reachFolder,
  statGroupFile,
  walkLocker,
} from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { Evidence, type EvidenceSite } from './evidence.ts';
import type { Finding } from './finding.ts';
import type { MetNames } from './met-names.ts';
import { isInShare, type Share } from './names.ts';
import { checkPacks } from './packs.ts';
import { readFile } from './reading.ts';
import { TooManyNames } from './records.ts';
import type { ResultVerdict } from './result.ts';
import { findRights, statUpload, touchedAt } from './upload.ts';
import type { Verdict } from './verdict.ts';
import type { WitnessState } from './witness.ts';

export interface Scope extends EvidenceSite {
  /**
   * Only uploads that arrived since this time, according to their custody records or in directories
   * that changed since, and archives made since.
   */
  since?: Date | undefined;
  /** Only uploads with files that were changed since this time, whatever their records say. */
  touchedSince?: Date | undefined;
  /** Only a sample of the uploads, chosen by name and seed. */
  sample?: { fraction: number; seed: string } | undefined;
  /** Whether to read the streams, and not only names, run records and `.rdy` files. */
  contents: boolean;
  /** Called for every upload. */
  advance?: () => void;
  /** Called with the verdict on the signature of each upload. */
  tell?: (name: string, result: ResultVerdict) => void;
  /** Called when the custody records were walked and everything in them was checked. */
  done?: (evidence: Evidence) => void;
  /**
   * The size of the custody records that are checked in one pass, in bytes (default 1 GiB). Each
   * upload in them takes about fifty bytes of memory.
   */
  turnBytes?: number | undefined;
}

export interface Summary {
  groups: number;
  bytes: number;
  findings: number;
  /** Uploads that a process is still writing. */
  inProgress: number;
  /** Uploads older than the custody record: only their run records confirm them. */
  older: number;
  /**
   * Uploads signed by their clients with keys that the site has, and uploads that are not signed.
   */
  signed: number;
  unsigned: number;
  /** Whether the custody records could be compared with what root saw before. */
  witness: WitnessState;
}

const TURN_BYTES = 1024 ** 3;
/** The minimum size of the entry of one upload in a custody record. */
const RECORD_BYTES = 640;

/**
 * Verifies a site; yields findings and returns a summary. Throws the error of a system call on the
 * locker and the logs themselves.
 */
export function* verifySite(scope: Scope): Generator<Finding, Summary> {
  const summary = emptySummary();
  const count = countTurns(scope);
  const atOnce = count > 1 && scope.since ? verifyAtOnce(scope) : undefined;
  if (atOnce) {
    yield* atOnce.findings;
    return atOnce.summary;
  }
  for (let index = 0; index < count; index++) yield* verifyTurn(scope, summary, { index, count });
  return summary;
}

/**
 * Verifies new records and uploads in one pass. However large a custody record is, only the part
 * that root has not seen is read. Returns undefined if that part names more uploads than may be
 * kept in memory.
 */
function verifyAtOnce(scope: Scope): { findings: Finding[]; summary: Summary } | undefined {
  const summary = emptySummary();
  const mostNames = Math.ceil((scope.turnBytes ?? TURN_BYTES) / RECORD_BYTES);
  try {
    return { findings: [...verifyTurn(scope, summary, { index: 0, count: 1 }, mostNames)], summary };
  } catch (error) {
    if (error instanceof TooManyNames) return undefined;
    throw error;
  }
}

function* verifyTurn(scope: Scope, summary: Summary, share: Share, mostNames?: number): Generator<Finding> {
  const evidence = new Evidence(scope, { share, since: scope.since, mostNames });
  summary.witness = evidence.witnessState;
  try {
    for (const finding of findAll(scope, evidence, summary, share)) {
      summary.findings++;
      yield finding;
    }
  } finally {
    evidence.close();
  }
}

/**
 * Verifies the uploads of one job and the custody records about them. `part` is the job id, or its
 * beginning or end. Throws Failure `findings` when there is no such job, and `usage` when there are
 * several.
 */
export function* verifyJob(scope: Scope, part: string): Generator<Finding, Summary> {
  const isMeant = (jobId: string): boolean => jobId.startsWith(part) || jobId.endsWith(part);
  const evidence = new Evidence(scope, { watch: isMeant });
  const { records } = evidence;
  const summary = { ...emptySummary(), witness: evidence.witnessState };
  const report = function* (findings: readonly Finding[]): Generator<Finding> {
    summary.findings += findings.length;
    yield* findings;
  };
  try {
    if (records.watched.size === 0) findUnrecorded(scope, evidence, isMeant);
    for (const [name, pack] of chooseJob(evidence, part)) {
      summary.groups++;
      if (findGroup(scope.incomingDirectory, name)) {
        const { findings, bytes, result } = evidence.judge(name, { contents: scope.contents });
        summary.bytes += bytes;
        countSignature(summary, result);
        if (result) scope.tell?.(name, result);
        yield* report(findings);
      } else if (records.isExpected(name)) yield* report([describeMissing({ name })]);
      else if (pack !== undefined && records.packs().some((known) => known.name === pack))
        yield* reportPacked(scope, summary, name, evidence.judgePack(pack, new Set([name]))(name), report);
    }
    yield* report(evidence.findFaults());
    return summary;
  } finally {
    evidence.close();
  }
}

function* reportPacked(
  scope: Scope,
  summary: Summary,
  name: string,
  { findings, result }: Verdict,
  report: (findings: readonly Finding[]) => Generator<Finding>,
): Generator<Finding> {
  countSignature(summary, result);
  if (result) scope.tell?.(name, result);
  yield* report(findings);
}

/** The uploads of the job, each with its archive. */
function chooseJob({ records: { watched } }: Evidence, part: string): Map<string, string | undefined> {
  const exact = [...watched].filter(([, { jobId }]) => jobId === part);
  const all = exact.length > 0 ? exact : [...watched];
  const jobIds = [...new Set(all.map(([, { jobId }]) => jobId))].sort();
  if (jobIds.length === 0)
    throw new Failure(
      'findings',
      `no upload has a job id that is, begins or ends with ${part}`,
      'webjobctl jobs lists them',
    );
  if (jobIds.length > 1) {
    const some = jobIds.slice(0, 10).map((jobId) => `\n  ${jobId}`);
    throw new Failure(
      'usage',
      `job id ${part} is ambiguous (${jobIds.length} matches):${some.join('')}`,
      'use more of the id',
    );
  }
  return new Map(all.map(([name, { pack }]) => [name, pack]));
}

/** The uploads of a job without custody records, found by the job id in their `.rdy`. */
export function findUnrecorded(
  { incomingDirectory }: EvidenceSite,
  { records }: Evidence,
  isMeant: (jobId: string) => boolean,
): void {
  for (const { group } of walkLocker(incomingDirectory)) {
    const jobId = group?.has.has('rdy') ? readJobId(reach(incomingDirectory, `${group.name}.rdy`)) : undefined;
    if (group && jobId !== undefined && isMeant(jobId)) records.watched.set(group.name, { jobId, pack: undefined });
  }
}

function readJobId(path: string): string | undefined {
  try {
    return parseReady(readFile(path, { maxTextBytes: 512 })?.text ?? '');
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** The finding on an upload that was recorded, not removed, and is missing. */
export function describeMissing({ name }: { name: string }): Finding {
  return { kind: 'group-missing', place: name, detail: 'the custody record has it, and it is missing' };
}

function emptySummary(): Summary {
  return { groups: 0, bytes: 0, findings: 0, inProgress: 0, older: 0, signed: 0, unsigned: 0, witness: 'none' };
}

function countTurns({ servers, turnBytes = TURN_BYTES }: Scope): number {
  const folders = [...new Set(servers.map(({ logfilesDirectory }) => logfilesDirectory))];
  const sizes = folders.flatMap((folder) =>
    listCustodyFiles(folder).map(({ file }) => statSync(join(folder, file)).size),
  );
  return Math.max(1, Math.ceil(sizes.reduce((sum, size) => sum + size, 0) / turnBytes));
}

/**
 * Yields all findings of one pass. Foreign files and the records themselves are checked in the
 * first pass only.
 */
function* findAll(scope: Scope, evidence: Evidence, summary: Summary, share: Share): Generator<Finding> {
  const { incomingDirectory: locker } = scope;
  const isFirst = share.index === 0;
  if (scope.since) return yield* findSince(scope, evidence, summary, share, scope.since.getTime());
  if (isFirst) yield* checkFiles(scope, evidence);
  const folders = new Set<string>();
  for (const { group, foreignFile } of walkLocker(locker)) {
    const folder = dirname(group?.name ?? foreignFile ?? '');
    if (isFirst && !folders.has(folder)) {
      folders.add(folder);
      yield* checkFolder(locker, folder, evidence);
    }
    if (group === undefined) {
      if (isFirst) yield* checkForeignFile(locker, foreignFile);
      continue;
    }
    if (!isInShare(group.name, share)) continue;
    if (group.has.has('rdy')) evidence.records.markSeen(group.name);
    if (isMeant(scope, group.name)) yield* verifyUpload(scope, evidence, group.name, summary);
  }
  yield* findMissing(scope, evidence);
  yield* findInPacks(scope, evidence, summary, share);
  evidence.records.refresh();
  if (!isFirst) return;
  yield* evidence.findFaults();
  yield* findReplaced(scope, evidence);
  scope.done?.(evidence);
}

/**
 * Checks uploads that arrived since a time, at a cost that depends only on their number. A stream
 * overwritten in place in an older upload goes unnoticed.
 */
function* findSince(
  scope: Scope,
  evidence: Evidence,
  summary: Summary,
  share: Share,
  since: number,
): Generator<Finding> {
  const { incomingDirectory: locker, sample } = scope;
  const isFirst = share.index === 0;
  const isMeant = (name: string): boolean => isInShare(name, share) && !(sample && !isPicked(name, sample));
  const done = new Set<string>();
  if (!evidence.isIdle) {
    if (isFirst) yield* checkFiles(scope, evidence);
    for (const { name } of evidence.records.since(since)) {
      if (!isMeant(name)) continue;
      const isThere = findGroup(locker, name) !== undefined;
      if (!isThere && !evidence.records.isExpected(name)) continue;
      done.add(name);
      if (isThere) yield* verifyUpload(scope, evidence, name, summary);
      else if (evidence.isMissing(name)) yield describeMissing({ name });
    }
    if (isFirst) yield* findReplaced(scope, evidence);
  }
  for (const found of walkChanged(locker, evidence, since)) {
    if (found.folder !== undefined) {
      if (isFirst) yield* checkFolder(locker, found.folder, evidence);
    } else if (found.foreignFile !== undefined) {
      if (isFirst) yield* checkForeignFile(locker, found.foreignFile);
    } else if (isMeant(found.group.name) && !done.has(found.group.name)) {
      const at = cameAt(locker, found.group);
      if (at >= since) yield* verifyUpload(scope, evidence, found.group.name, summary);
      if (found.group.has.has('rdy')) found.met?.note(found.group.name, at);
    }
  }
  if (!evidence.isIdle || isChangedSince(scope.packsFolder, since)) yield* findInPacks(scope, evidence, summary, share);
  if (!isFirst) return;
  yield* evidence.findFaults();
  scope.done?.(evidence);
}

/**
 * When an upload was announced, by mtime or ctime of the `.rdy`; if it was not announced, when it
 * last changed.
 */
function cameAt(locker: string, { name, has }: Group): number {
  // In a directory of hundreds of thousands, only one file of each upload is looked at.
  const ready = has.has('rdy') ? statGroupFile(locker, name, 'rdy') : undefined;
  return touchedAt(ready ? { rdy: ready } : statUpload(locker, name));
}

type Met =
  | { group: Group; met: MetNames | undefined; folder?: undefined; foreignFile?: undefined }
  | { folder: string; group?: undefined; foreignFile?: undefined }
  | { foreignFile: string; group?: undefined; folder?: undefined };

/**
 * Yields the directories of a locker in which a name was added, removed or changed since a time,
 * with their contents; other directories are not read. Uploads that root has seen and that arrived
 * before this time are left out.
 */
function* walkChanged(locker: string, evidence: Evidence, since: number, folder = ''): Generator<Met> {
  const stats = lstatSync(reachFolder(locker, folder || '.'), { throwIfNoEntry: false });
  if (!stats?.isDirectory()) return;
  const isChanged = Math.max(stats.mtimeMs, stats.ctimeMs) >= since;
  // A directory has one link from itself, one from its parent and one from each subdirectory; file
  // systems that do not count links report 1.
  if (!isChanged && stats.nlink === 2) return;
  if (isChanged) yield { folder: folder || '.' };
  const met = isChanged ? evidence.metNames(folder) : undefined;
  const isWanted = (file: string, extension: Extension): boolean =>
    met === undefined || met.cameAt(file, extension === 'rdy') >= since;
  const folders: string[] = [];
  for (const { group, foreignFile, folder: inner } of listFolder(locker, folder, isWanted)) {
    if (inner !== undefined) folders.push(inner);
    else if (isChanged) yield group ? { group, met } : { foreignFile: foreignFile ?? '' };
  }
  for (const inner of folders) yield* walkChanged(locker, evidence, since, inner);
}

function isChangedSince(path: string | undefined, since: number): boolean {
  const stats = path === undefined ? undefined : lstatSync(path, { throwIfNoEntry: false });
  return stats !== undefined && Math.max(stats.mtimeMs, stats.ctimeMs) >= since;
}

/** Checks the custody records as files. */
function* checkFiles({ servers }: Scope, { records, owners }: Evidence): Generator<Finding> {
  const folders = new Map<string, string>();
  for (const { place, stats, number, folder, file } of records.books) {
    for (const [kind, detail] of findRights(stats, owners)) yield { kind, place, detail };
    if (number > 1 && folder !== undefined) folders.set(join(folder, dirname(file)), dirname(place));
  }
  for (const [path, place] of folders)
    for (const [kind, detail] of findRights(lstatSync(path), owners)) yield { kind, place: `${place}/`, detail };
  for (const { logfilesDirectory, serverId } of servers) {
    if (serverId === undefined) continue;
    const path = custodyPath(logfilesDirectory, serverId);
    const logs = realpathSync(logfilesDirectory);
    // For a record that continues in other segments, the records themselves report a missing first
    // one.
    const goesOn = records.books.some((book) => book.folder === logs && book.serverId === serverId);
    if (goesOn || lstatSync(path, { throwIfNoEntry: false })) continue;
    yield { kind: 'custody-missing', place: basename(path), detail: 'EnableCustody=Y, but there is no custody record' };
  }
}

function* checkFolder(locker: string, folder: string, { owners }: Evidence): Generator<Finding> {
  const stats = lstatSync(reachFolder(locker, folder), { throwIfNoEntry: false });
  if (stats) for (const [kind, detail] of findRights(stats, owners)) yield { kind, place: `${folder}/`, detail };
}

function* checkForeignFile(locker: string, place: string): Generator<Finding> {
  const stats = lstatSync(reach(locker, place), { throwIfNoEntry: false });
  // The file was temporary, and its process has removed it.
  if (!stats || isSuccessor(locker, place)) return;
  if (stats.isFile()) yield { kind: 'unexpected', place, detail: 'a file that belongs to no upload' };
  else yield { kind: 'link', place, detail: stats.isSymbolicLink() ? 'a link' : 'neither a file nor a directory' };
}

/**
 * Whether a file is a stream that waits beside the upload it will replace, or is being unpacked.
 */
function isSuccessor(locker: string, place: string): boolean {
  const [, name] = /^(.+)\.(?:out|err|env|rdy)\.(?:new|unpack)$/.exec(place) ?? [];
  if (name === undefined) return false;
  const paths = groupPaths(reach(locker, name));
  return lstatSync(paths.lck, { throwIfNoEntry: false }) !== undefined && !isAbandoned(paths);
}

function isMeant({ incomingDirectory, touchedSince, sample }: Scope, name: string): boolean {
  if (sample && !isPicked(name, sample)) return false;
  return touchedSince === undefined || touchedAt(statUpload(incomingDirectory, name)) >= touchedSince.getTime();
}

function isPicked(name: string, { fraction, seed }: { fraction: number; seed: string }): boolean {
  return createHash('sha256').update(`${seed}\0${name}`).digest().readUInt32BE() < fraction * 2 ** 32;
}

function* verifyUpload(scope: Scope, evidence: Evidence, name: string, summary: Summary): Generator<Finding> {
  scope.advance?.();
  const { findings, bytes, inProgress, isOlder, result } = evidence.judge(name, { contents: scope.contents });
  summary.groups++;
  summary.bytes += bytes;
  countSignature(summary, result);
  if (inProgress) summary.inProgress++;
  else if (isOlder) summary.older++;
  yield* findings;
}

function countSignature(summary: Summary, result: ResultVerdict | undefined): void {
  if (result?.state === 'good') summary.signed++;
  else if (result?.state === 'none') summary.unsigned++;
}

function* findInPacks(scope: Scope, evidence: Evidence, summary: Summary, share: Share): Generator<Finding> {
  const { packsFolder: folder, contents, sample } = scope;
  const since = scope.since ?? scope.touchedSince;
  if (folder === undefined) return;
  const isMeant = (name: string, at: number): boolean =>
    !(sample && !isPicked(name, sample)) && (since === undefined || at >= since.getTime());
  const count = (bytes: number): void => {
    summary.bytes += bytes;
  };
  const isStored = (name: string): boolean => statGroupFile(scope.incomingDirectory, name, 'rdy') !== undefined;
  const tell = (result: ResultVerdict | undefined): void => countSignature(summary, result);
  const { resultKeys: keys } = scope;
  yield* checkPacks({ folder, contents, isMeant, isStored, count, share, keys, tell }, evidence.records);
}

/** Reports uploads that were replaced by others of the same name, at a site that overwrites. */
function* findReplaced(scope: Scope, { records }: Evidence): Generator<Finding> {
  const since = scope.since ?? scope.touchedSince;
  for (const { name, time, jobId } of records.replaced()) {
    if ((scope.sample && !isPicked(name, scope.sample)) || (since && time < since)) continue;
    const detail = `another upload replaced it at ${time.toISOString()}; it was job ${jobId ?? 'unknown'}`;
    yield { kind: 'replaced', place: name, detail };
  }
}

function* findMissing({ touchedSince: since, sample }: Scope, evidence: Evidence): Generator<Finding> {
  for (const { name, time } of evidence.missing()) {
    if ((sample && !isPicked(name, sample)) || (since && time < since)) continue;
    yield describeMissing({ name });
  }
}
