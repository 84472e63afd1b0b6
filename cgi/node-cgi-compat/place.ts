// Creates a socket under a temporary name and renames it, so that there is no moment without a
// socket at its path.
import { lstatSync, renameSync, rmSync } from 'node:fs';
import type { Server } from 'node:net';
import type { Listening, ListeningPlace } from './listener.ts';

/** The umask while a socket is created at a path. */
export const OWNER_ALONE = 0o177;

/** Checks a place. Throws Error when its path is occupied by something that is not a socket. */
export function checkPlace(place: ListeningPlace): void {
  if ('path' in place && lstatSync(place.path, { throwIfNoEntry: false })?.isSocket() === false)
    throw new Error('this path is taken by something that is not a socket');
}

/**
 * Where a socket is created before it takes its place. When Node stops listening it removes the
 * name that it created, and by then the path may belong to another process.
 */
export function firstPlace(place: ListeningPlace, pid = process.pid): ListeningPlace {
  return 'path' in place ? { path: `${place.path}.${pid}` } : place;
}

/** Moves the socket that was created at `first` to its place. */
export function takePlace(place: ListeningPlace, first: ListeningPlace): Listening {
  if (!('path' in place && 'path' in first)) return { isOurs: () => true, leave: () => {} };
  const { path } = place;
  const { ino } = lstatSync(first.path);
  renameSync(first.path, path);
  const isOurs = (): boolean => lstatSync(path, { throwIfNoEntry: false })?.ino === ino;
  return { isOurs, leave: () => isOurs() && rmSync(path, { force: true }) };
}

/** Creates the socket under exactly the given name. */
export function listenUnder(server: Server, place: ListeningPlace): Promise<void> {
  const where = 'port' in place ? { ...place, host: '127.0.0.1' } : place;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...where, backlog: 511 }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
