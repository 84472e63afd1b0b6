// The batch command: a GET for it is answered with a script that runs everything currently assigned
// to the client (docs/protocol.md, section 12). Every assignment is claimed on disk before it is
// handed out, and is never handed out again.
import { type ClaimKey, claim, failureOf, LockerFailure, leavePlaces, readClaims } from 'webjob-locker';
import { NOT_APPLICABLE } from 'webjob-protocol';
import { type Assignment, dueFor, parseAssignments } from '../fleet/assignment.ts';
import { formatBatch, type Order } from '../fleet/batch-script.ts';
import { type Groups, makeMembership, parseGroups } from '../fleet/groups.ts';
import { type FleetPaths, fleetPaths } from '../fleet/paths.ts';
import { recordBatch } from './custody.ts';
import type { Exchange } from './exchange.ts';
import { readKept } from './kept-file.ts';
import { Refusal } from './refusal.ts';

/** The maximum number of assignments in one batch; the rest follow in the next batch. */
const MOST_ORDERS = 100;

/** Answers a GET for the batch command. Throws Refusal 459, 500, 507 or 550. */
export function serveBatch(exchange: Exchange, clientId: string): { status: 200; content: Buffer } {
  if (exchange.settings.dsvRequireSignatures)
    throw new Refusal(459, 'a batch has no signature: webjobctl assign says what to do');
  return { status: 200, content: Buffer.from(formatBatch(clientId, takeOrders(exchange, clientId), exchange.jobId)) };
}

/** Frees the slots of a batch for other clients, once its output has arrived. */
export function endBatch({ settings, jobId = NOT_APPLICABLE }: Exchange, clientId: string): void {
  leavePlaces(fleetPaths(settings).claims, { clientId, jobId });
}

function takeOrders(exchange: Exchange, clientId: string): Order[] {
  const { settings, receivedAt, jobId = NOT_APPLICABLE } = exchange;
  const paths = fleetPaths(settings);
  const due = findDue(paths, clientId, Math.floor(receivedAt.getTime() / 1000));
  if (due.length === 0) return [];
  try {
    const claims = readClaims(paths.claims, clientId);
    const open = due.filter(({ id, due }) => due > (claims.get(id) ?? -1)).slice(0, MOST_ORDERS);
    if (open.length === 0) return [];
    const claimant = { clientId, serverId: settings.serverId, jobId };
    return claim(paths.claims, claimant, open, (claimed) => recordBatch(exchange, claimed));
  } catch (error) {
    const { kind, message } = failureOf(error);
    const detail = `the batch: ${message}`;
    if (error instanceof LockerFailure || kind === 'full') throw new Refusal(kind === 'full' ? 507 : 500, detail);
    throw new Refusal(550, `DynamicDirectory: ${message}`);
  }
}

/** The assignments that are due for a client, in the order of assignment. Throws Refusal 550. */
function findDue(paths: FleetPaths, clientId: string, now: number): (Order & ClaimKey)[] {
  const assignments = readAs<Assignment[]>('assignments', paths.assignments, parseAssignments);
  if (!assignments?.length) return [];
  const groups: Groups = readAs('groups', paths.groups, parseGroups) ?? new Map();
  const reached = { clientId, isMeant: makeMembership(groups, clientId) };
  return assignments.flatMap((assignment) => {
    const due = dueFor(assignment, reached, now);
    const { id, command, args, limit, note } = assignment;
    return due === undefined ? [] : [{ id, due, command, args, limit, note }];
  });
}

/** Reads and parses a file; undefined when it does not exist. */
function readAs<Value>(name: string, path: string, parse: (text: string) => Value): Value | undefined {
  try {
    return readKept(path, parse);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new Refusal(550, `${name}: ${code ?? message}`);
  }
}
