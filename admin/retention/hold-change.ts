// Code shared by hold add and hold remove: their options, and the change of the file.
import type { Command } from 'commander';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { operatorName, recordEvent } from '../../evidence/events.ts';
import { clientsOfGroup } from '../../ledger/groups.ts';
import { withSiteLock } from '../site/site-lock.ts';
import { type Hold, isHoldId, readHolds, writeHolds } from './holds.ts';

export interface HoldOptions {
  client?: string;
  job?: string;
  reason: string;
}

/** The explanation in the help of every command about holds. */
export const HOLD_EXPLANATION = `
prune and pack skip uploads on hold. A client's hold covers every upload with its id in the log, the run record or the
name. For a group, a hold is set for each client that is in it now.

Examples:
  webjobctl hold add --client client1 --reason 'case 4711'
  webjobctl hold list
  webjobctl hold remove --client client1 --reason 'case 4711 is closed'

Exit codes:
  0  done
  1  list: no holds; remove: no such hold; add: already on hold
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  a file cannot be read or written`;

/** Adds the options to a command. */
export function addHoldOptions(command: Command): Command {
  return command
    .option('--client <CLIENT>', 'all uploads of a client, or of each client of a group')
    .option('--job <JOB>', 'the uploads of one job')
    .requiredOption('--reason <TEXT>', 'the reason, for the custody record');
}

/**
 * The holds that the options describe, set or ended now by this operator: for a group, one for each
 * of its clients. Throws Failure `usage`, and `failed` when the groups cannot be read.
 */
export function parseHolds(settings: ServerSettings, options: HoldOptions): Hold[] {
  const { client } = options;
  const clients = client === undefined ? undefined : clientsOfGroup(settings, client);
  return clients ? clients.map((id) => parseHold({ ...options, client: id })) : [parseHold(options)];
}

function parseHold({ client, job, reason }: HoldOptions): Hold {
  const kind = client === undefined ? 'job' : 'client';
  const id = client ?? job;
  if (id === undefined || (client !== undefined && job !== undefined))
    throw new Failure('usage', 'a hold is for --client or for --job');
  if (!isHoldId(kind, id)) throw new Failure('usage', `--${kind} is not a ${kind} id`);
  if (reason.trim() === '') throw new Failure('usage', '--reason is empty');
  return { kind, id, reason, by: operatorName(), at: new Date().toISOString() };
}

/**
 * Sets a hold. It takes effect before it is recorded: a kill in between leaves too much held, never
 * too little. Returns false when it exists already.
 */
export function setHold(settings: ServerSettings, hold: Hold): Promise<boolean> {
  const { kind, id, reason, by } = hold;
  return withSiteLock(settings, 'holds', () => {
    const holds = readHolds(settings);
    if (holds.some((other) => other.kind === kind && other.id === id)) return false;
    writeHolds(settings, [...holds, hold]);
    recordEvent(settings, { event: 'hold', kind, id, reason }, by);
    return true;
  });
}

/**
 * Ends a hold. The end is recorded before the hold is removed, so that a kill in between
 * leaves uploads on hold and never frees one early. Returns false when the hold does not exist.
 */
export function endHold(settings: ServerSettings, { kind, id, reason, by }: Hold): Promise<boolean> {
  return withSiteLock(settings, 'holds', () => {
    const holds = readHolds(settings);
    const others = holds.filter((hold) => hold.kind !== kind || hold.id !== id);
    if (others.length === holds.length) return false;
    recordEvent(settings, { event: 'release', kind, id, reason }, by);
    writeHolds(settings, others);
    return true;
  });
}
