// A socket on the way to its place: made under a name that nobody knows, then renamed, so that at no moment nobody is found there.
import { lstatSync, renameSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:net';
import type { Listening, ListeningPlace } from './listener.ts';

/** The mask of a process that makes a socket at a path. */
export const OWNER_ALONE = 0o177;

/** Throws Error when something else than a socket has the path. */
export function checkPlace(place: ListeningPlace): void {
  if ('path' in place && lstatSync(place.path, { throwIfNoEntry: false })?.isSocket() === false)
    throw new Error('something that is no socket has this path');
}

/**
 * Where a socket is made before it takes its place. Node removes the name that it made when it stops to listen; by then another process may
 * have the path.
 */
export function firstPlace(place: ListeningPlace, pid = process.pid): ListeningPlace {
  return 'path' in place ? { path: `${place.path}.${pid}` } : place;
}

/** Gives the socket that was made at `first` its place. */
export function takePlace(place: ListeningPlace, first: ListeningPlace): Listening {
  if (!('path' in place && 'path' in first)) return { isOurs: () => true, leave: () => {} };
  const { path } = place;
  const { ino } = lstatSync(first.path);
  renameSync(first.path, path);
  const isOurs = (): boolean => lstatSync(path, { throwIfNoEntry: false })?.ino === ino;
  return { isOurs, leave: () => isOurs() && unlinkSync(path) };
}

/** Makes the socket, under the name that is given and no other. */
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
