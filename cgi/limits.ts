// The limits of one client (docs/protocol.md, section 5): concurrent requests, and uploads and
// bytes a day. Both are counted by client id, after the caller's right to act for that id was
// checked.
import type { Body, CgiRequest } from 'node-cgi-compat';
import { failureOf, type Reservation, reserve, type Slot, takeSlot } from 'webjob-locker';
import { parseGetQuery, parsePutQuery } from 'webjob-protocol';
import { checkCaller } from './authorize.ts';
import type { Exchange } from './exchange.ts';
import { logProblem } from './log.ts';
import { overrideSettings } from './overrides.ts';
import { Refusal } from './refusal.ts';
import type { ServerSettings } from './setting-table.ts';
import type { Configuration } from './settings.ts';

const DAY_SECONDS = 86_400;
/** The delay after which a client with too many concurrent requests may try again. */
const SLOT_RETRY_SECONDS = 5;

/**
 * Takes a slot of the client for the duration of the request, when MaxRequestsAtOnce is set. Throws
 * Refusal 503, 507 or 550.
 */
export function takeClientSlot(settings: ServerSettings, clientId: string): Slot | undefined {
  const { maxRequestsAtOnce: limit, limitsDirectory, serverId } = settings;
  if (limit === 0) return undefined;
  const slot = refuseFailures(() => takeSlot(`${limitsDirectory}/${clientId}`, serverId, limit));
  if (!slot) throw new Refusal(503, 'over MaxRequestsAtOnce', SLOT_RETRY_SECONDS);
  return slot;
}

/**
 * Takes the slot before a body has arrived, for a program that receives the body itself; the result
 * is passed to handleRequest() later. Undefined when the main file has no limit, and for a request
 * that will be refused for another reason.
 */
export function admitEarly(
  request: CgiRequest,
  { settings, given, problems }: Configuration,
): Slot | Refusal | undefined {
  if (settings.maxRequestsAtOnce === 0 || problems.length > 0) return undefined;
  let own = settings;
  let clientId: string;
  try {
    const query = (request.method === 'PUT' ? parsePutQuery : parseGetQuery)(request.query);
    clientId = query.clientId;
    // handleRequest() reports problems with overrides.
    if (settings.enableConfigOverrides) own = overrideSettings(settings, given, clientId, query.fileName, () => {});
    checkCaller({ request, settings: own }, clientId);
  } catch {
    // handleRequest() finds the same problem and reports it in its order.
    return undefined;
  }
  try {
    return takeClientSlot(own, clientId);
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

/** The share of the daily limits that an upload uses. */
export interface DayShare {
  /** The body to read from now on, instead of the original one. */
  body: Body;
  /** Counts the upload, once. Throws Refusal 507 or 550. */
  reserve(): void;
  /** Settles the count: the reserved part that was not stored is returned. */
  settle(outcome: 'stored' | 'broken' | 'nothing'): void;
}

/** Opens the share of an upload; undefined when no limit is set. */
export function openDayShare(exchange: Exchange, clientId: string, announced: number): DayShare | undefined {
  const { settings, receivedAt, body } = exchange;
  const limits = { bytes: settings.maxBytesPerDay, uploads: settings.maxUploadsPerDay };
  if (limits.bytes === 0 && limits.uploads === 0) return undefined;
  let held: Reservation | undefined;
  let arrived = 0;
  return {
    body: {
      read(buffer) {
        const count = body.read(buffer);
        arrived += count;
        return count;
      },
    },
    reserve() {
      if (held) return;
      const names = { ...daysOf(receivedAt), serverId: settings.serverId };
      const folder = `${settings.limitsDirectory}/${clientId}`;
      const found = refuseFailures(() => reserve(folder, names, announced, limits));
      if (typeof found === 'string')
        throw overLimit(found === 'bytes' ? 'MaxBytesPerDay' : 'MaxUploadsPerDay', receivedAt);
      held = found;
    },
    settle(outcome) {
      if (!held) return;
      const stays = { stored: announced, broken: Math.min(arrived, announced), nothing: 0 }[outcome];
      try {
        held.giveBack({ bytes: announced - stays, uploads: outcome === 'nothing' ? 1 : 0 });
      } catch (error) {
        // The upload stays counted for this day. The answer to the client is already decided.
        logProblem(`LimitsDirectory: ${failureOf(error).message}`);
      } finally {
        held.close();
      }
    },
  };
}

function overLimit(control: string, at: Date): Refusal {
  const seconds = DAY_SECONDS - (Math.floor(at.getTime() / 1000) % DAY_SECONDS);
  return new Refusal(507, `over ${control} until midnight UTC`, seconds);
}

/**
 * The day in UTC, and the oldest day that another server with a slow clock may still be counting.
 */
function daysOf(at: Date): { day: string; oldest: string } {
  const format = (time: number): string => new Date(time).toISOString().slice(0, 10).replaceAll('-', '');
  return { day: format(at.getTime()), oldest: format(at.getTime() - DAY_SECONDS * 1000) };
}

/**
 * Turns failures into refusals: a site with limits that cannot count refuses all requests, so that
 * the problem is noticed now and not when a disk is full.
 */
function refuseFailures<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    const { kind, message } = failureOf(error);
    throw new Refusal(kind === 'full' ? 507 : 550, `LimitsDirectory: ${message}`);
  }
}
