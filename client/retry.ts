// Waiting: between tries on a bad network, and before a job, so that ten thousand clients of one cron do not come at once.
import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { WireError, warn } from './failure.ts';
import type { ClientSettings } from './settings.ts';

const LONGEST_SECONDS = 3600;

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
      if (!(error instanceof WireError) || !isWorthWaiting(error.retryAfter) || attempt >= settings.retryLimit)
        throw error;
      const seconds = delaySeconds(settings.retryDelay, attempt, error.retryAfter, Math.random());
      warn(`${what} failed: ${error.message}; trying again in ${seconds.toFixed(1)} seconds`);
      await sleep(seconds * 1000);
    }
  }
}

/** A server that is away for longer than an hour is for the next run: this one would hold its lock all the time. */
function isWorthWaiting(retryAfter: number | undefined): retryAfter is number {
  return retryAfter !== undefined && retryAfter <= LONGEST_SECONDS;
}

/** RetryDelay, doubled with every attempt, then up to half of it more by chance; never less than the server asked for. */
export function delaySeconds(retryDelay: number, attempt: number, retryAfter: number, chance: number): number {
  const backoff = Math.min(LONGEST_SECONDS, retryDelay * 2 ** attempt);
  return Math.max(retryAfter, backoff) * (1 + chance / 2);
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
