// What waits in the inbox, for those who watch a site: how much, and since when.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ServerSettings } from '../../cgi/controls.ts';
import { listAll } from './answers.ts';
import { actFile, actFolders } from './request.ts';

export interface Waiting {
  count: number;
  /** When the oldest was asked for. */
  oldest: Date | undefined;
}

/** Undefined where no acts are set up, or this user may not look. */
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
