// Waits for a slow reader, so that output does not pile up in memory.
import { once } from 'node:events';

/** Resolves when the reader of stdout has caught up, possibly at once. */
export async function drained(): Promise<void> {
  if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain');
}
