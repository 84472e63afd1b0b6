// Where a resident process listens: on a socket that it was given (by mod_fcgid on descriptor 0, by systemd), at a path, or at a port of
// the loopback. FastCGI knows no passwords: who reaches the socket is believed whatever he says.
import type { Server } from 'node:net';
import { checkPlace, firstPlace, listenUnder, OWNER_ALONE, takePlace } from './place.ts';

/** A listening socket that is there, a path for one, or a port of 127.0.0.1. */
export type ListeningPlace = { fd: number } | { path: string } | { port: number };

/** What was made, and how it is left. */
export interface Listening {
  /** False when the path has become another process's. */
  isOurs(): boolean;
  /** Nobody who looks for us from now on finds us. Those who did before still come. */
  leave(): void;
}

/** systemd's first (sd_listen_fds(3)). */
const FIRST_PASSED_FD = 3;
/** The shortest limit of a path among the systems that have such sockets, less `.` and a process id. */
const MAX_PATH_BYTES = 95;

/** The socket that systemd passed to the process `pid`; undefined when it passed none. Throws RangeError for more than one. */
export function findPassedSocket(env: NodeJS.ProcessEnv, pid = process.pid): { fd: number } | undefined {
  if (env.LISTEN_PID !== String(pid) || env.LISTEN_FDS === undefined) return undefined;
  if (env.LISTEN_FDS !== '1') throw new RangeError('LISTEN_FDS is not 1: one socket for one service');
  return { fd: FIRST_PASSED_FD };
}

/** `8080`, or an absolute path. Throws RangeError. */
export function parseListeningPlace(text: string): ListeningPlace {
  if (/^[0-9]{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535) return { port: Number(text) };
  if (!text.startsWith('/') || text.includes('\0')) throw new RangeError('neither a port nor an absolute path');
  if (Buffer.byteLength(text) > MAX_PATH_BYTES) throw new RangeError(`a path of more than ${MAX_PATH_BYTES} bytes`);
  return { path: text };
}

/**
 * Listens; rejects when it cannot. A socket at a path is its owner's alone (mode 0600). It takes the path over from the socket that was
 * there, dead or alive, in one step, so that no client finds nobody.
 */
export async function listenAt(server: Server, place: ListeningPlace): Promise<Listening> {
  checkPlace(place);
  const first = firstPlace(place);
  const mask = process.umask(OWNER_ALONE);
  try {
    await listenUnder(server, first);
  } finally {
    process.umask(mask);
  }
  return takePlace(place, first);
}
