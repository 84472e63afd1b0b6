// Waiting for other processes: polls often enough to be quick, and never forever.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const TIME_LIMIT_MS = 60_000;
const LOOK_MS = 10;

/**
 * Polls until `isSo` is true. Throws Error after a minute; `isOver` ends it earlier when there is
 * nothing to wait for.
 */
export async function waitFor(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  isOver: () => string | undefined = () => undefined,
): Promise<void> {
  for (const deadline = Date.now() + TIME_LIMIT_MS; Date.now() < deadline; await sleep(LOOK_MS)) {
    // Checked first, because what ends the wait may happen between the two calls.
    const over = isOver();
    if (await isSo()) return;
    if (over !== undefined) throw new Error(`it never came to pass: ${what}; ${over}`);
  }
  throw new Error(`it never came to pass: ${what}`);
}

/** The living children of a process. */
export function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
}

/**
 * Makes httpd reload its configuration, and waits until its old processes are gone, because until
 * then both accept connections.
 */
export async function reloadHttpd(pid: number, reload = (): unknown => process.kill(pid, 'SIGUSR1')): Promise<void> {
  const old = new Set(childrenOf(pid));
  await reload();
  await waitFor('the end of the old processes of httpd', () => !childrenOf(pid).some((child) => old.has(child)));
}
