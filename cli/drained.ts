// Output that waits for whoever reads it, so that what is printed is never piled up in memory.
import { once } from 'node:events';

/** Resolves at once, or when the reader of our stdout has caught up. */
export async function drained(): Promise<void> {
  if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain');
}
