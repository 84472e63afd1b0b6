// Counts the requests that wait in the inbox, for monitoring.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { listAll } from './answers.ts';
import { actFile, actFolders } from './request.ts';

export interface Waiting {
  count: number;
  /** When the oldest waiting act was requested. */
  oldest: Date | undefined;
}

/**
 * Reads how many requests wait; undefined when acts are not set up, or this user may not read the
 * inbox.
 */
export function readWaiting(settings: ServerSettings): Waiting | undefined {
  const { inbox } = actFolders(settings);
  try {
    if (!existsSync(inbox)) return undefined;
    readdirSync(inbox);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined;
    throw error;
  }
  const times = listAll(inbox).flatMap(
    (id) => statSync(join(inbox, actFile(id)), { throwIfNoEntry: false })?.mtime ?? [],
  );
  times.sort((a, b) => a.getTime() - b.getTime());
  return { count: times.length, oldest: times[0] };
}
