// Delays: between tries on a bad network, and before a job, so that ten thousand clients with the
// same crontab do not connect at once.
import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { WireError, warn } from './failure.ts';
import type { ClientSettings } from './settings.ts';

const LONGEST_SECONDS = 3600;
/**
 * The longest Retry-After that webjob honours, because a waiting run holds its lock, and the job is
 * safe in the spool.
 */
const LONGEST_ASKED_SECONDS = 300;

/**
 * Calls a function, and calls it again up to RetryLimit times after failures that may be temporary.
 * Throws the error of the last try.
 */
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

/**
 * Whether to wait for a server. A server that asks for more than five minutes, or more than the
 * current delay if that is longer, is left to the next run.
 */
export function isWorthWaiting(retryDelay: number, attempt: number, retryAfter: number): boolean {
  return retryAfter <= Math.max(LONGEST_ASKED_SECONDS, backoffSeconds(retryDelay, attempt));
}

/**
 * RetryDelay, doubled with every attempt and increased at random by up to half, but at least the
 * delay that the server asked for.
 */
export function delaySeconds(retryDelay: number, attempt: number, retryAfter: number, chance: number): number {
  return Math.max(retryAfter, backoffSeconds(retryDelay, attempt)) * (1 + chance / 2);
}

function backoffSeconds(retryDelay: number, attempt: number): number {
  return Math.min(LONGEST_SECONDS, retryDelay * 2 ** attempt);
}

/**
 * Waits for the delay of this client and program within the Splay window. The delay is the same in
 * every run.
 */
export async function waitSplay({ splay, clientId }: ClientSettings, program: string): Promise<void> {
  if (splay > 0) await sleep(splaySeconds(splay, [hostname(), clientId, program]) * 1000);
}

/**
 * The delay of a client within a window, in seconds: always the same for the same names, and spread
 * evenly over the window for different ones.
 */
export function splaySeconds(windowSeconds: number, names: string[]): number {
  const digest = createHash('sha256').update(names.join('\0')).digest();
  return (digest.readUInt32BE(0) / 2 ** 32) * windowSeconds;
}
