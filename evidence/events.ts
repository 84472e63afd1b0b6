// The events that webjobctl records before it changes anything: who removes, archives or holds
// which uploads. Like every server, webjobctl has its own custody record, so that no writer depends
// on another's file.
import { createHash } from 'node:crypto';
import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import {
  appendCustody,
  appendCustodyAll,
  Chain,
  custodyPath,
  type Extension,
  formatCustody,
  listCustodyFiles,
  type StreamName,
} from 'webjob-locker';
import { isRootsOwn } from '../cli/files.ts';
import type { FileFacts } from './reading.ts';

/** The name of webjobctl's record among those of the servers. */
export const WRITER = 'webjobctl';

/** The log directory with the custody records of a site, and their owner. */
export interface Logs {
  logfilesDirectory: string;
  custodySegmentLimit: number;
}

/** An upload in a record of `prune` or `unpack`. */
export interface RemovedGroup {
  name: string;
  jobId: string | undefined;
  files: Partial<Record<Extension, FileFacts>>;
}

/** An upload without a custody record, as found when it was adopted. */
export interface AdoptedUpload {
  name: string;
  jobId: string;
  bytes: Record<StreamName, number>;
  sha256: Record<StreamName, string>;
}

/** An archive as records name it. */
export interface PackFacts {
  pack: string;
  /** The number of uploads in the archive. */
  count: number;
  archiveBytes: number;
  archiveSha256: string;
  manifestSha256: string;
}

/**
 * An evidence package that was handed over. A package of more than BATCH jobs has several records.
 */
export interface PackageFacts {
  /** The directory in which the package was made. */
  directory: string;
  jobs: string[];
  caseNumber: string | undefined;
  examiner: string;
  description: string | undefined;
  /** The number of findings in the package. */
  findings: number;
  /** The number of sealed streams that it contains decrypted. */
  opened: number | undefined;
  /** The SHA-256 of the list of tag files, which contains the digest of the list of data files. */
  tagListSha256: string;
}

/**
 * The events that webjobctl records. `names` are the uploads that were removed from the locker, at
 * most BATCH in one record; readers of the custody record rely on that limit.
 */
export type KeepEvent =
  | { event: 'prune'; rule: string; names: string[]; groups: RemovedGroup[]; pack?: string }
  | ({ event: 'pack'; names: string[] } & PackFacts)
  | ({ event: 'unpack' } & PackFacts)
  | ({ event: 'prune-pack'; rule: string } & PackFacts)
  | { event: 'adopt'; reason: string; uploads: AdoptedUpload[] }
  | { event: 'hold' | 'release'; kind: 'client' | 'job'; id: string; reason: string }
  | { event: 'assign'; assignment: Record<string, unknown> }
  | { event: 'assign-change'; id: string; state: string; reason: string | undefined }
  | { event: 'alert'; begun: string[]; ended: string[] }
  | ({ event: 'evidence' } & PackageFacts)
  /** `jobId` in the escaped form of the log. */
  | { event: 'note'; jobId: string; text: string }
  /**
   * The field is `job` and not `jobId`, so that a proof of a deposit does not reveal who looked at
   * it.
   */
  | { event: 'verify'; job: string; words: string; findings: number }
  | { event: 'download'; job: string; client: string | undefined; stream: StreamName };

/** A record holds this many uploads, however long their names are. */
export const BATCH = 100;

/**
 * Appends a record, which is on disk when this returns. `by` is the person on whose behalf
 * webjobctl acts, by default the user who runs this process.
 */
export function recordEvent(logs: Logs, event: KeepEvent, by = operatorName()): void {
  recordEvents(logs, [event], by);
}

/**
 * Appends several records with two waits for the disk: the last one is appended alone, because
 * records that are appended together do not cover one another.
 */
export function recordEvents(
  { logfilesDirectory, custodySegmentLimit }: Logs,
  events: readonly KeepEvent[],
  by = operatorName(),
): void {
  const segmentLimit = mayFollow(logfilesDirectory) ? custodySegmentLimit : undefined;
  for (const some of [events.slice(0, -1), events.slice(-1)]) {
    const time = new Date().toISOString();
    const all = some.map((event) => ({ time, by, ...event }));
    const path = custodyPath(logfilesDirectory, WRITER);
    if (all.length > 0) appendCustodyAll(path, all, { mayCreate: true, segmentLimit });
  }
}

/** Appends the record by which root confirms everything before it in the record of a server. */
export function recordGenesis(path: string, reason: string): void {
  const facts = { time: new Date().toISOString(), event: 'genesis', by: operatorName(), reason };
  // The server makes its segments itself, because it could not write to one that root made.
  appendCustody(path, facts, { segmentLimit: mayFollow(dirname(path)) ? Number.POSITIVE_INFINITY : undefined });
}

/**
 * Whether records may continue in further segments. Root does not enter a directory that others can
 * replace, so there webjobctl writes only to the first segment.
 */
function mayFollow(logfilesDirectory: string): boolean {
  return process.getuid?.() !== 0 || isRootsOwn(logfilesDirectory);
}

/**
 * The first line of a custody record, written when a site is set up. A record without this first
 * line was cut, or has not been adopted.
 */
export function formatGenesis(serverId: string): string {
  const nothing = createHash('sha256').digest('hex');
  const facts = { time: new Date().toISOString(), event: 'genesis', by: operatorName(), serverId };
  return `${formatCustody([0, 0], nothing, facts)}\n`;
}

/**
 * Reads the records of one kind, oldest first. Skips incomplete records. Yields nothing while the
 * file does not exist.
 */
export function* readEvents<Name extends KeepEvent['event']>(
  { logfilesDirectory }: Pick<Logs, 'logfilesDirectory'>,
  name: Name,
): Generator<Extract<KeepEvent, { event: Name }>> {
  const files = existsSync(logfilesDirectory) ? listCustodyFiles(logfilesDirectory) : [];
  for (const { file, serverId } of files) {
    if (serverId !== WRITER) continue;
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const fd = openSync(join(logfilesDirectory, file), flags);
    try {
      for (const { facts, fault } of new Chain(fd).walk())
        if (facts?.event === name && fault !== 'edited' && isWhole(facts, name))
          yield facts as Extract<KeepEvent, { event: Name }>;
    } finally {
      closeSync(fd);
    }
  }
}

/** The fields that are required in a record of each event. */
const TELLS = {
  prune: 'groups',
  pack: 'names',
  unpack: 'pack',
  'prune-pack': 'pack',
  hold: 'id',
  release: 'id',
  adopt: 'uploads',
  assign: 'assignment',
  'assign-change': 'state',
  alert: 'begun',
  evidence: 'jobs',
  note: 'text',
  verify: 'words',
  download: 'stream',
};

/**
 * Whether a record has all fields of its event. Every field is checked, because any process that
 * can write to the log directory can append a record with any content.
 */
function isWhole(facts: Record<string, unknown>, event: KeepEvent['event']): boolean {
  const { groups = [], names = [], pack = '' } = facts;
  const areNames = Array.isArray(names) && names.every((name) => typeof name === 'string');
  const areGroups = Array.isArray(groups) && groups.every((group) => typeof group?.name === 'string' && group.files);
  return facts[TELLS[event]] !== undefined && areNames && areGroups && typeof pack === 'string';
}

/** The operator's name: `alice`, or `root (alice)` when sudo was used. */
export function operatorName(): string {
  const { username } = userInfo();
  const { SUDO_USER } = process.env;
  return SUDO_USER && SUDO_USER !== username ? `${username} (${SUDO_USER})` : username;
}
