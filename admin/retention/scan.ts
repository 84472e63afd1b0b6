// Scans a locker for removal or archiving: every upload with its age, size and attribution, in a
// compact form, because there may be hundreds of thousands.
import { EXTENSIONS, type Group, parseReady, reach, statGroupFile, walkLocker } from 'webjob-locker';
import { encodeField, formatTime } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { removeFile } from '../../cli/files.ts';
import { isDeadLock } from '../../cli/lockfile.ts';
import { readHead } from '../../ledger/head.ts';
import { attribute } from '../../ledger/owners.ts';
import type { Site } from '../site/site.ts';
import { endDeadLock } from './upload-locks.ts';

export interface Scanned extends Group {
  /** Whether the upload has a .rdy. */
  isComplete: boolean;
  /** Whether a process is writing the upload, or was within the last hour. */
  isLocked: boolean;
  /**
   * When the upload was announced, in milliseconds; for an incomplete upload, when it last changed.
   */
  at: number;
  bytes: number;
  jobId: string | undefined;
  /** Every client id in the log or the run record. */
  clients: readonly string[];
  /** The client and command, when they can be determined reliably. */
  owner: { clientId: string; command: string } | undefined;
}

/** The day of a time by the site's clock: `2026-11-01`. */
export function dayOf(at: number, settings: ServerSettings): string {
  return formatTime(new Date(at), settings.useGMT).slice(0, 10);
}

export interface ScanOptions {
  /** Leave out uploads announced at or after this time in milliseconds. */
  before?: number | undefined;
  /** Remove the locks that a killed webjobctl left; the caller holds the lock of the site. */
  isTidying?: boolean;
  /** Do not measure uploads; report their sizes as 0. */
  isUnmeasured?: boolean;
}

function removeIfDead(path: string): void {
  if (isDeadLock(path)) removeFile(path);
}

/** Scans the locker. A lock that a killed webjobctl left is ignored. */
export function* scanLocker(locker: string, options: ScanOptions = {}): Generator<Scanned> {
  const { isTidying } = options;
  for (const { group, foreignFile } of walkLocker(locker)) {
    // A lock that was renamed for removal when its process was killed.
    if (!group && isTidying && /\.lck\.[0-9]+$/.test(foreignFile)) removeIfDead(reach(locker, foreignFile));
    const isDead = group?.has.has('lck') && isDeadLock(reach(locker, `${group.name}.lck`));
    if (group && isDead && isTidying) endDeadLock(locker, group.name);
    const found = group && scanUpload(locker, group, isDead === true, options);
    if (found) yield found;
  }
}

function scanUpload(
  locker: string,
  { name, has }: Group,
  isDead: boolean,
  { before = Number.POSITIVE_INFINITY, isUnmeasured }: ScanOptions,
): Scanned | undefined {
  const isLocked = has.has('lck') && !isDead;
  const ready = has.has('rdy') ? statGroupFile(locker, name, 'rdy') : undefined;
  if (ready && ready.mtimeMs >= before) return undefined;
  let [at, bytes] = [ready?.mtimeMs ?? 0, ready?.size ?? 0];
  for (const extension of EXTENSIONS) {
    if (ready && isUnmeasured) break;
    if (!has.has(extension) || extension === 'rdy' || (extension === 'lck' && !isLocked)) continue;
    const found = statGroupFile(locker, name, extension);
    if (!found) continue;
    bytes += found.size;
    if (!ready) at = Math.max(at, found.mtimeMs);
  }
  return {
    name,
    has,
    isComplete: has.has('rdy'),
    isLocked,
    at,
    bytes,
    jobId: undefined,
    clients: [],
    owner: undefined,
  };
}

/** Uploads whose attribution is known. */
const learned = new WeakSet<Scanned>();

/**
 * Adds job ids, clients and owners: the log attributes an upload, and log and run record name the
 * clients it may belong to. Throws Failure `failed`.
 */
export async function attributeUploads(site: Site, groups: readonly Scanned[]): Promise<void> {
  const locker = site.settings.incomingDirectory;
  const fresh = groups.filter((group) => !learned.has(group));
  if (fresh.length === 0) return;
  const uploads = fresh.map((group) => {
    const { name, has, at } = group;
    const record = readHead(reach(locker, `${name}.env`));
    group.jobId = readJobId(locker, group);
    group.clients = claimsOf(record);
    return { name, has, at, jobId: group.jobId === undefined ? undefined : encodeField(group.jobId), record };
  });
  // A missing log must not be mistaken for one without entries.
  const known = site.settings.enableLogging ? await attribute(site, uploads) : undefined;
  for (const group of fresh) {
    learned.add(group);
    const { owner, clients = [] } = known?.get(group.name) ?? {};
    group.owner = owner;
    group.clients = [...new Set([...group.clients, ...clients])];
  }
}

/** The job id of an upload; one without .rdy may still have it in its lock. */
export function readJobId(locker: string, { name, isComplete }: Scanned): string | undefined {
  const text = readHead(reach(locker, `${name}.${isComplete ? 'rdy' : 'lck'}`)) ?? '';
  return tryParse(() => parseReady(text));
}

function claimsOf(record = ''): string[] {
  return [...record.matchAll(/^ClientId=([A-Za-z0-9_-]{1,64})\r?$/gm)].map(([, clientId = '']) => clientId);
}

function tryParse<Value>(parse: () => Value): Value | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
