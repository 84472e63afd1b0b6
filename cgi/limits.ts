// What one client may take of the server (docs/protocol.md, section 5): requests at once, and uploads and bytes a day. Counted by client id,
// and only once it is known that the caller may act for it.
import type { Body, CgiRequest } from 'node-cgi-compat';
import { failureOf, type Reservation, reserve, type Slot, takeSlot } from 'webjob-locker';
import { parseGetQuery, parsePutQuery } from 'webjob-protocol';
import { checkCaller } from './authorize.ts';
import type { ServerSettings } from './controls.ts';
import type { Exchange } from './exchange.ts';
import { complain } from './log.ts';
import { overrideSettings } from './overrides.ts';
import { Refusal } from './refusal.ts';
import type { Configuration } from './settings.ts';

const DAY_SECONDS = 86_400;
/** When a client that had too many requests at once may try again. */
const SLOT_RETRY_SECONDS = 5;

/** Holds a slot of the client while the request runs, where MaxRequestsAtOnce says so. Throws Refusal 503, 507 or 550. */
export function takeClientSlot(settings: ServerSettings, clientId: string): Slot | undefined {
  const { maxRequestsAtOnce: limit, limitsDirectory, serverId } = settings;
  if (limit === 0) return undefined;
  const slot = refuseFailures(() => takeSlot(`${limitsDirectory}/${clientId}`, serverId, limit));
  if (!slot) throw new Refusal(503, 'over MaxRequestsAtOnce', SLOT_RETRY_SECONDS);
  return slot;
}

/**
 * The same before a body has come, for a shell that receives it by itself: what handleRequest is given later. Undefined where the main file
 * has no limit, and for a request that will be refused for another reason.
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
    // What is wrong with an override is told once, by handleRequest.
    if (settings.enableConfigOverrides) own = overrideSettings(settings, given, clientId, query.fileName, () => {});
    checkCaller({ request, settings: own }, clientId);
  } catch {
    // handleRequest finds the same and says it, in its order.
    return undefined;
  }
  try {
    return takeClientSlot(own, clientId);
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

/** What an upload takes of the limits of a day. */
export interface DayShare {
  /** The body, as it is read from now on. */
  body: Body;
  /** Counts it, once. Throws Refusal 507 or 550. */
  reserve(): void;
  /** What it came to: what was reserved and not stored is given back. */
  settle(outcome: 'stored' | 'broken' | 'nothing'): void;
}

/** Undefined where no limit is set. */
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
        // It counts for this day, then. What the client is told is already certain.
        complain(`LimitsDirectory: ${failureOf(error).message}`);
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

/** The day of UTC, and the oldest that another server, whose clock is behind, may still be counting. */
function daysOf(at: Date): { day: string; oldest: string } {
  const format = (time: number): string => new Date(time).toISOString().slice(0, 10).replaceAll('-', '');
  return { day: format(at.getTime()), oldest: format(at.getTime() - DAY_SECONDS * 1000) };
}

/** A site that wants limits and cannot count serves nobody: what is wrong is seen at once, not when a disk is full. */
function refuseFailures<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    const { kind, message } = failureOf(error);
    throw new Refusal(kind === 'full' ? 507 : 550, `LimitsDirectory: ${message}`);
  }
}
