// Verifies a site: the custody records, every group of the locker against them and against itself, and what belongs to no group. Reports and
// never repairs. What looks wrong is looked at again before it is told, because the server goes on meanwhile.
import { createHash } from 'node:crypto';
import { lstatSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { custodyPath, findGroup, groupPaths, isAbandoned, statGroupFile, walkLocker } from 'webjob-locker';
import type { Finding } from './finding.ts';
import { checkGroup, findRights, type GroupReport, type Owners, statGroup, touchedAt } from './group.ts';
import { checkPacks } from './packs.ts';
import { CustodyRecords } from './records.ts';

export interface Scope {
  incomingDirectory: string;
  logfilesDirectory: string;
  /** The site's own, which must have a custody record; undefined with EnableCustody=N. */
  serverId?: string | undefined;
  /** Only groups in which something was written or changed since, and records since. */
  since?: Date | undefined;
  /** Only this part of the groups, picked by name and seed. */
  sample?: { fraction: number; seed: string } | undefined;
  /** Where packs are; undefined: they are not looked at. */
  packsFolder?: string | undefined;
  /** Read the streams; else names, records and ready lines alone. */
  contents: boolean;
  /** Told of every group. */
  advance?: () => void;
}

export interface Summary {
  groups: number;
  bytes: number;
  findings: number;
  /** Somebody is at work on them. */
  inProgress: number;
  /** Older than the custody record: nothing but the record of the run vouches for them. */
  older: number;
}

/** How often a group that changes under our eyes is looked at. */
const LOOKS = 5;

/** Throws the error of a system call for the locker and the logs themselves. */
export function* verifySite(scope: Scope): Generator<Finding, Summary> {
  const summary: Summary = { groups: 0, bytes: 0, findings: 0, inProgress: 0, older: 0 };
  const records = new CustodyRecords(scope.logfilesDirectory);
  try {
    for (const finding of findAll(scope, records, summary)) {
      summary.findings++;
      yield finding;
    }
  } finally {
    records.close();
  }
  return summary;
}

function* findAll(scope: Scope, records: CustodyRecords, summary: Summary): Generator<Finding> {
  const { incomingDirectory: locker } = scope;
  const owners: Owners = new Set([0, statSync(locker).uid]);
  records.refresh();
  yield* checkFiles(scope, records, owners);
  const folders = new Set<string>();
  for (const { group, stray } of walkLocker(locker)) {
    const folder = dirname(group?.name ?? stray ?? '');
    if (!folders.has(folder)) {
      folders.add(folder);
      yield* checkFolder(locker, folder, owners);
    }
    if (group === undefined) yield* checkStray(locker, stray);
    else if (isMeant(scope, group.name)) yield* verifyGroup(scope, records, owners, group.name, summary);
  }
  yield* findMissing(scope, records);
  yield* findInPacks(scope, records, summary);
  records.refresh();
  yield* records.findFaults();
}

/** The custody records as files. */
function* checkFiles(
  { logfilesDirectory, serverId }: Scope,
  records: CustodyRecords,
  owners: Owners,
): Generator<Finding> {
  for (const { file, stats } of records.files)
    for (const [kind, detail] of findRights(stats, owners)) yield { kind, place: file, detail };
  if (serverId === undefined) return;
  const own = basename(custodyPath(logfilesDirectory, serverId));
  if (!records.files.some(({ file }) => file === own))
    yield { kind: 'custody-missing', place: own, detail: 'EnableCustody=Y, and there is no custody record' };
}

function* checkFolder(locker: string, folder: string, owners: Owners): Generator<Finding> {
  const stats = lstatSync(join(locker, folder), { throwIfNoEntry: false });
  if (stats) for (const [kind, detail] of findRights(stats, owners)) yield { kind, place: `${folder}/`, detail };
}

function* checkStray(locker: string, place: string): Generator<Finding> {
  const stats = lstatSync(join(locker, place), { throwIfNoEntry: false });
  // It was somebody's at work.
  if (!stats || isSuccessor(locker, place)) return;
  if (stats.isFile()) yield { kind: 'unexpected', place, detail: 'a file that belongs to no group' };
  else yield { kind: 'link', place, detail: stats.isSymbolicLink() ? 'a link' : 'neither a file nor a folder' };
}

/** A stream that waits beside the group which it is to replace, or is being unpacked. */
function isSuccessor(locker: string, place: string): boolean {
  const [, name] = /^(.+)\.(?:out|err|env|rdy)\.(?:new|unpack)$/.exec(place) ?? [];
  if (name === undefined) return false;
  const paths = groupPaths(join(locker, name));
  return lstatSync(paths.lck, { throwIfNoEntry: false }) !== undefined && !isAbandoned(paths);
}

function isMeant({ incomingDirectory, since, sample }: Scope, name: string): boolean {
  if (sample && !isPicked(name, sample)) return false;
  return since === undefined || touchedAt(statGroup(incomingDirectory, name)) >= since.getTime();
}

function isPicked(name: string, { fraction, seed }: { fraction: number; seed: string }): boolean {
  return createHash('sha256').update(`${seed}\0${name}`).digest().readUInt32BE() < fraction * 2 ** 32;
}

function* verifyGroup(
  scope: Scope,
  records: CustodyRecords,
  owners: Owners,
  name: string,
  summary: Summary,
): Generator<Finding> {
  scope.advance?.();
  let report = lookAt(scope, records, owners, name);
  for (let look = 1; report.findings.length > 0 && look < LOOKS; look++) {
    const before = JSON.stringify(report.findings);
    records.refresh();
    report = lookAt(scope, records, owners, name);
    if (JSON.stringify(report.findings) === before) break;
  }
  summary.groups++;
  summary.bytes += report.bytes;
  if (report.inProgress) summary.inProgress++;
  else if (report.isOlder) summary.older++;
  yield* report.findings;
}

function lookAt(
  { incomingDirectory, contents }: Scope,
  records: CustodyRecords,
  owners: Owners,
  name: string,
): GroupReport & { isOlder: boolean } {
  const deposit = records.find(name);
  const report = checkGroup(incomingDirectory, name, deposit, owners, contents);
  const { announcedAt, findings } = report;
  const isUnrecorded = announcedAt !== undefined && deposit === undefined;
  const isDue = announcedAt !== undefined && records.covers(announcedAt);
  if (isUnrecorded && isDue)
    findings.push({ kind: 'unrecorded', place: name, detail: 'the custody record does not have it' });
  return { ...report, isOlder: isUnrecorded && !isDue };
}

function* findInPacks(scope: Scope, records: CustodyRecords, summary: Summary): Generator<Finding> {
  const { packsFolder: folder, contents, since, sample } = scope;
  if (folder === undefined) return;
  const isMeant = (name: string, at: number): boolean =>
    !(sample && !isPicked(name, sample)) && (since === undefined || at >= since.getTime());
  const count = (bytes: number): void => {
    summary.bytes += bytes;
  };
  yield* checkPacks({ folder, contents, isMeant, count }, records);
}

function* findMissing(scope: Scope, records: CustodyRecords): Generator<Finding> {
  const { incomingDirectory: locker, since, sample } = scope;
  for (const name of records.names()) {
    if (statGroupFile(locker, name, 'rdy') || (sample && !isPicked(name, sample))) continue;
    records.refresh();
    const deposit = records.find(name);
    if (!deposit || !records.isExpected(name) || findGroup(locker, name) || (since && deposit.time < since)) continue;
    yield { kind: 'group-missing', place: name, detail: 'the custody record has it, and it is not there' };
  }
}
