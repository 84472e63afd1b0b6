// Waiting: between tries on a bad network, and before a job, so that ten thousand clients of one cron do not come at once.
import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { WireError, warn } from './failure.ts';
import type { ClientSettings } from './settings.ts';

const LONGEST_SECONDS = 3600;
/** Of Retry-After: a run that waits holds its lock, and the job is safe in the spool. */
const LONGEST_ASKED_SECONDS = 300;

/** Does it, and again up to RetryLimit times when what went wrong may pass. Throws what the last try threw. */
export async function withRetries<Result>(
  settings: ClientSettings,
  what: string,
  action: () => Promise<Result>,
): Promise<Result> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof WireError) || attempt >= settings.retryLimit) throw error;
      const { retryAfter } = error;
      if (retryAfter === undefined || !isWorthWaiting(settings.retryDelay, attempt, retryAfter)) throw error;
      const seconds = delaySeconds(settings.retryDelay, attempt, retryAfter, Math.random());
      warn(`${what} failed: ${error.message}; trying again in ${seconds.toFixed(1)} seconds`);
      await sleep(seconds * 1000);
    }
  }
}

/** A server that is away for longer than five minutes, or than RetryDelay comes to by now, is left to the next run. */
export function isWorthWaiting(retryDelay: number, attempt: number, retryAfter: number): boolean {
  return retryAfter <= Math.max(LONGEST_ASKED_SECONDS, backoffSeconds(retryDelay, attempt));
}

/** RetryDelay, doubled with every attempt, then up to half of it more by chance; never less than the server asked for. */
export function delaySeconds(retryDelay: number, attempt: number, retryAfter: number, chance: number): number {
  return Math.max(retryAfter, backoffSeconds(retryDelay, attempt)) * (1 + chance / 2);
}

function backoffSeconds(retryDelay: number, attempt: number): number {
  return Math.min(LONGEST_SECONDS, retryDelay * 2 ** attempt);
}

/** Waits this client's part of the Splay window for this program, which is the same at every run. */
export async function waitSplay({ splay, clientId }: ClientSettings, program: string): Promise<void> {
  if (splay > 0) await sleep(splaySeconds(splay, [hostname(), clientId, program]) * 1000);
}

/** Evenly spread over the window by the names. */
export function splaySeconds(windowSeconds: number, names: string[]): number {
  const digest = createHash('sha256').update(names.join('\0')).digest();
  return (digest.readUInt32BE(0) / 2 ** 32) * windowSeconds;
}
