// Waiting for what another process does: often enough to be quick, and never for ever.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const TIME_LIMIT_MS = 60_000;
const LOOK_MS = 10;

/** Looks until `isSo` holds. Throws Error when it does not within a minute; `isOver` ends it earlier, where there is nothing to wait for any more. */
export async function waitFor(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  isOver: () => string | undefined = () => undefined,
): Promise<void> {
  for (const deadline = Date.now() + TIME_LIMIT_MS; Date.now() < deadline; await sleep(LOOK_MS)) {
    // What ends it may come between the look and the question: so the question comes first.
    const over = isOver();
    if (await isSo()) return;
    if (over !== undefined) throw new Error(`it never came to pass: ${what}; ${over}`);
  }
  throw new Error(`it never came to pass: ${what}`);
}

/** The processes that one has started and that have not ended. */
export function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
}

/** Has httpd read its configuration again, and waits until its old processes have gone: until then both take connections. */
export async function reloadHttpd(pid: number, reload = (): unknown => process.kill(pid, 'SIGUSR1')): Promise<void> {
  const old = new Set(childrenOf(pid));
  await reload();
  await waitFor('the end of the old processes of httpd', () => !childrenOf(pid).some((child) => old.has(child)));
}
