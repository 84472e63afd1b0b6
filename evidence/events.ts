// What webjobctl puts on record before it touches anything: who removes, packs or holds what. It has a custody file of its own, as every
// server has, so that none depends on who made the file of another.
import { createHash } from 'node:crypto';
import { closeSync, constants, existsSync, openSync } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import {
  appendCustody,
  Chain,
  custodyPath,
  type Extension,
  formatCustody,
  listCustodyFiles,
  type StreamName,
} from 'webjob-locker';
import { isRootsOwn } from '../cli/files.ts';
import type { FileFacts } from './reading.ts';

/** Its name among the servers. */
export const WRITER = 'webjobctl';

/** Where a site has its custody records. */
export interface Logs {
  logfilesDirectory: string;
  custodySegmentLimit: number;
}

/** What a record of `prune` or `unpack` says of each group. */
export interface RemovedGroup {
  name: string;
  jobId: string | undefined;
  files: Partial<Record<Extension, FileFacts>>;
}

/** An upload that had no custody record, as it was when it was adopted. */
export interface AdoptedUpload {
  name: string;
  jobId: string;
  bytes: Record<StreamName, number>;
  sha256: Record<StreamName, string>;
}

/** A pack as records name it. */
export interface PackFacts {
  pack: string;
  /** How many it holds. */
  count: number;
  archiveBytes: number;
  archiveSha256: string;
  manifestSha256: string;
}

/** What was handed over in a package of evidence; of more jobs than BATCH there are several records. */
export interface PackageFacts {
  /** Where it was made. */
  directory: string;
  jobs: string[];
  caseNumber: string | undefined;
  examiner: string;
  description: string | undefined;
  /** What was wrong with what is in it. */
  findings: number;
  /** How many sealed streams it holds as they were before they were sealed. */
  opened: number | undefined;
  /** Of the list of all its files that are not data, which names the list of the others. */
  tagListSha256: string;
}

/** `names` is what a reader of the custody record goes by: the groups that were taken out of the locker, at most BATCH in a record. */
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
  /** `jobId` as the log writes it. */
  | { event: 'note'; jobId: string; text: string }
  /** `job` and not `jobId`: what proves a deposit does not tell who looked at it. */
  | { event: 'verify'; job: string; words: string; findings: number }
  | { event: 'download'; job: string; client: string | undefined; stream: StreamName };

/** So many groups fit into a record, however long their names are. */
export const BATCH = 100;

/** Appends a record, on disk when it returns. `by`: for whom this was done, else who runs this. */
export function recordEvent(
  { logfilesDirectory, custodySegmentLimit }: Logs,
  event: KeepEvent,
  by = operatorName(),
): void {
  const path = custodyPath(logfilesDirectory, WRITER);
  const facts = { time: new Date().toISOString(), by, ...event };
  appendCustody(path, facts, {
    mayCreate: true,
    segmentLimit: mayFollow(logfilesDirectory) ? custodySegmentLimit : undefined,
  });
}

/** Appends the record by which root vouches for what stands before it in the record of a server. */
export function recordGenesis(path: string, reason: string): void {
  const facts = { time: new Date().toISOString(), event: 'genesis', by: operatorName(), reason };
  // The server makes its segments itself: it could not write to one that root made.
  appendCustody(path, facts, { segmentLimit: mayFollow(dirname(path)) ? Number.POSITIVE_INFINITY : undefined });
}

/**
 * Root enters no folder that others can put elsewhere: there webjobctl keeps to the first segment.
 */
function mayFollow(logfilesDirectory: string): boolean {
  return process.getuid?.() !== 0 || isRootsOwn(logfilesDirectory);
}

/** The first line of a custody record, which whoever lays out a site writes: a record that does not begin with it was cut, or is not adopted. */
export function formatGenesis(serverId: string): string {
  const nothing = createHash('sha256').digest('hex');
  const facts = { time: new Date().toISOString(), event: 'genesis', by: operatorName(), serverId };
  return `${formatCustody([0, 0], nothing, facts)}\n`;
}

/** The records of one kind, the oldest first; what is no whole record is passed over. None when there is no file yet. */
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

/** What a record of an event is nothing without. */
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

/** Whoever can write in the folder of logs can write a record with anything in it. */
function isWhole(facts: Record<string, unknown>, event: KeepEvent['event']): boolean {
  const { groups = [], names = [], pack = '' } = facts;
  const areNames = Array.isArray(names) && names.every((name) => typeof name === 'string');
  const areGroups = Array.isArray(groups) && groups.every((group) => typeof group?.name === 'string' && group.files);
  return facts[TELLS[event]] !== undefined && areNames && areGroups && typeof pack === 'string';
}

/** `alice`, or `root (alice)` behind sudo. */
export function operatorName(): string {
  const { username } = userInfo();
  const { SUDO_USER } = process.env;
  return SUDO_USER && SUDO_USER !== username ? `${username} (${SUDO_USER})` : username;
}
