// The site lock: only one webjobctl at a time changes the stored data of a site.
import { join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import { packsFolder } from '../../archive/packs.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { requireRootsOwn } from '../../cli/files.ts';
import { openLocks } from '../../cli/lockfile.ts';

/** The directory of webjobctl's own files for a site. */
export function keepFolder(settings: ServerSettings): string {
  return join(settings.configDirectory, 'nph-webjob');
}

/**
 * Runs work under the site lock, or without it for `undefined`, when nothing is changed. Throws
 * Failure `failed` when another process holds it, and for root when others could replace the files
 * that it writes.
 */
export async function withSiteLock<Type>(
  settings: ServerSettings,
  thing: 'keep' | 'holds' | 'index' | 'ledger' | 'assignments' | 'acts' | 'alert' | undefined,
  act: () => Type | Promise<Type>,
): Promise<Type> {
  const endTurn = thing === undefined ? () => {} : takeTurn(settings, thing);
  try {
    return await act();
  } finally {
    endTurn();
  }
}

function takeTurn(settings: ServerSettings, thing: string): () => void {
  const folder = keepFolder(settings);
  for (const path of [settings.baseDirectory, packsFolder(settings), folder]) requireRootsOwn(path);
  makeFolder(folder);
  const path = join(folder, `${thing}.lck`);
  const locks = openLocks(`${path}.${process.pid}.new`);
  if (locks.take(path)) return locks.release;
  locks.release();
  throw new Failure('failed', `another webjobctl is running on this site (${path})`, 'try again when it has ended');
}
