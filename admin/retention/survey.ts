// What a locker holds, as those see it who remove or pack: every group with its age and size, and whose it is. Small for each group, for
// there may be hundreds of thousands.
import { EXTENSIONS, type Group, parseReady, reach, statGroupFile, walkLocker } from 'webjob-locker';
import { encodeField, formatTime } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/controls.ts';
import { removeFile } from '../../cli/files.ts';
import { isDeadLock } from '../../cli/lockfile.ts';
import { readHead } from '../../ledger/head.ts';
import { attribute } from '../../ledger/owners.ts';
import type { Site } from '../site/site.ts';
import { endDeadLock } from './upload-locks.ts';

export interface Surveyed extends Group {
  /** Its .rdy stands. */
  isComplete: boolean;
  /** Somebody is writing it, or was until an hour ago. */
  isLocked: boolean;
  /** Milliseconds: when it was announced; of an incomplete group, when it last changed. */
  at: number;
  bytes: number;
  jobId: string | undefined;
  /** Every client id that the log or the record gives it. */
  clients: readonly string[];
  /** Whose it is, and of what command, where that can be told for sure. */
  owner: { clientId: string; command: string } | undefined;
}

/** The day of an instant, as the site counts them: `2026-11-01`. */
export function dayOf(at: number, settings: ServerSettings): string {
  return formatTime(new Date(at), settings.useGMT).slice(0, 10);
}

export interface SurveyOptions {
  /** Milliseconds: what was announced since then is left out. */
  before?: number | undefined;
  /** Takes away the locks that a killed webjobctl left; whoever calls has the turn. */
  isTidying?: boolean;
  /** Sizes are of no interest, and 0. */
  isUnmeasured?: boolean;
}

function removeIfDead(path: string): void {
  if (isDeadLock(path)) removeFile(path);
}

/** Walks the locker. A lock that a killed webjobctl left counts as none. */
export function* surveyLocker(locker: string, options: SurveyOptions = {}): Generator<Surveyed> {
  const { isTidying } = options;
  for (const { group, stray } of walkLocker(locker)) {
    // One that was put aside to be removed when its remover was killed.
    if (!group && isTidying && /\.lck\.[0-9]+$/.test(stray)) removeIfDead(reach(locker, stray));
    const isDead = group?.has.has('lck') && isDeadLock(reach(locker, `${group.name}.lck`));
    if (group && isDead && isTidying) endDeadLock(locker, group.name);
    const found = group && surveyGroup(locker, group, isDead === true, options);
    if (found) yield found;
  }
}

function surveyGroup(
  locker: string,
  { name, has }: Group,
  isDead: boolean,
  { before = Number.POSITIVE_INFINITY, isUnmeasured }: SurveyOptions,
): Surveyed | undefined {
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

/** Groups of which that is known by now. */
const learned = new WeakSet<Surveyed>();

/** Adds job ids, clients and owners: the log tells whose a group is, and both log and record whose it may be. Throws Failure `failed`. */
export async function learnOwners(site: Site, groups: readonly Surveyed[]): Promise<void> {
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
  // A log that should be there and is not must not pass for one that knows nothing.
  const known = site.settings.enableLogging ? await attribute(site, uploads) : undefined;
  for (const group of fresh) {
    learned.add(group);
    const { owner, clients = [] } = known?.get(group.name) ?? {};
    group.owner = owner;
    group.clients = [...new Set([...group.clients, ...clients])];
  }
}

/** A group without .rdy may still say it in its lock. */
export function readJobId(locker: string, { name, isComplete }: Surveyed): string | undefined {
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
