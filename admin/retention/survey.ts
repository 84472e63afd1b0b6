// What a locker holds, as those see it who remove or pack: every group with its age and size, and whose it is. Small for each group, for
// there may be hundreds of thousands.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { EXTENSIONS, parseReady, removeDeadLock, statGroupFile, walkLocker } from 'webjob-locker';
import { encodeField, formatTime } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/controls.ts';
import { isDeadLock } from '../../cli/lockfile.ts';
import { readHead } from '../../ledger/head.ts';
import { readLogLines } from '../../ledger/log.ts';
import type { Site } from '../site/site.ts';
import { lockSource } from '../site/turn.ts';
import { isNamed } from './holds.ts';

export interface Surveyed {
  name: string;
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

/** Takes away the locks that a killed webjobctl left; whoever calls has the turn. */
export function removeDeadLocks(locker: string): void {
  rmSync(lockSource(locker), { force: true });
  for (const { group, stray } of walkLocker(locker)) {
    const lock = join(locker, group ? `${group.name}.lck` : stray);
    if (group?.has.has('lck') && isDeadLock(lock)) removeDeadLock(lock, isDeadLock);
    // One that was put aside to be removed when its remover was killed.
    if (stray !== undefined && /\.lck\.[0-9]+$/.test(stray) && isDeadLock(lock)) rmSync(lock, { force: true });
  }
}

/** Walks the locker. A lock that a killed webjobctl left counts as none. */
export function* surveyLocker(locker: string): Generator<Surveyed> {
  for (const { group } of walkLocker(locker)) {
    if (!group) continue;
    const { name, has } = group;
    const isLocked = has.has('lck') && !isDeadLock(join(locker, `${name}.lck`));
    let [at, bytes, announced] = [0, 0, 0];
    for (const extension of EXTENSIONS) {
      const found = has.has(extension) ? statGroupFile(locker, name, extension) : undefined;
      if (!found || (extension === 'lck' && !isLocked)) continue;
      bytes += found.size;
      at = Math.max(at, found.mtimeMs);
      if (extension === 'rdy') announced = found.mtimeMs;
    }
    const isComplete = has.has('rdy');
    const facts = { name, isComplete, isLocked, at: isComplete ? announced : at, bytes };
    yield { ...facts, jobId: undefined, clients: [], owner: undefined };
  }
}

/** Groups of which that is known by now. */
const learned = new WeakSet<Surveyed>();

/**
 * Adds job ids, clients and owners. Only the log tells whose a group is, for httpd vouched for what stands there; where clients gave the
 * same job id, the name decides between them, and where it cannot, the group has no owner.
 */
export async function learnOwners(site: Site, groups: readonly Surveyed[]): Promise<void> {
  const locker = site.settings.incomingDirectory;
  const fresh = groups.filter((group) => !learned.has(group));
  if (fresh.length === 0) return;
  // By job id, which a client may give to as many uploads as it likes: the command of each client.
  const byJob = new Map<string, Map<string, string>>();
  for (const group of fresh) {
    group.jobId = readJobId(locker, group);
    group.clients = readClaims(locker, group);
    if (group.jobId !== undefined) byJob.set(encodeField(group.jobId), new Map());
  }
  // A log that should be there and is not must not pass for one that knows nothing.
  if (!site.settings.enableLogging) return;
  for await (const { method, status, jobId, clientId, fileName } of readLogLines(site, { contains: ' PUT ' }))
    if (method === 'PUT' && status === 200 && clientId && fileName) byJob.get(jobId ?? '')?.set(clientId, fileName);
  for (const group of fresh) {
    learned.add(group);
    const commands = byJob.get(encodeField(group.jobId)) ?? new Map<string, string>();
    group.clients = [...new Set([...group.clients, ...commands.keys()])];
    const named = [...commands].filter(([clientId]) => commands.size === 1 || isNamed(group.name, clientId));
    const [first] = named;
    if (first && named.length === 1) group.owner = { clientId: first[0], command: first[1] };
  }
}

/** A group without .rdy may still say it in its lock. */
export function readJobId(locker: string, { name, isComplete }: Surveyed): string | undefined {
  const text = readHead(join(locker, `${name}.${isComplete ? 'rdy' : 'lck'}`)) ?? '';
  return tryParse(() => parseReady(text));
}

/** Throws what keeps a record from being read: it must not pass for one of nobody. */
function readClaims(locker: string, { name }: Surveyed): string[] {
  const text = readHead(join(locker, `${name}.env`)) ?? '';
  return [...text.matchAll(/^ClientId=([A-Za-z0-9_-]{1,64})\r?$/gm)].map(([, clientId = '']) => clientId);
}

function tryParse<Value>(parse: () => Value): Value | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
