// Where a persistent process listens: on a socket that was passed to it (by mod_fcgid on descriptor
// 0, by systemd), at a path, or at a port of the loopback address. FastCGI has no authentication:
// every process that can connect to the socket is trusted.
import type { Server } from 'node:net';
import { checkPlace, firstPlace, listenUnder, OWNER_ALONE, takePlace } from './place.ts';

/** An open listening socket, a path for one, or a port of 127.0.0.1. */
export type ListeningPlace = { fd: number } | { path: string } | { port: number };

/** A socket that listens. */
export interface Listening {
  /** Whether the path still leads to this socket; false when another process has taken it. */
  isOurs(): boolean;
  /** Hides this process from new clients. Connections made earlier may still arrive. */
  leave(): void;
}

/** The first descriptor that systemd passes (sd_listen_fds(3)). */
const FIRST_PASSED_FD = 3;
/** The shortest limit for the path of a socket among all systems, less `.` and a process id. */
const MAX_PATH_BYTES = 95;

/**
 * The socket that systemd passed to the process `pid`; undefined when it passed none. Throws
 * RangeError for more than one.
 */
export function findPassedSocket(env: NodeJS.ProcessEnv, pid = process.pid): { fd: number } | undefined {
  if (env.LISTEN_PID !== String(pid) || env.LISTEN_FDS === undefined) return undefined;
  if (env.LISTEN_FDS !== '1') throw new RangeError('LISTEN_FDS is not 1: one socket for one service');
  return { fd: FIRST_PASSED_FD };
}

/** Parses `8080` or an absolute path. Throws RangeError. */
export function parseListeningPlace(text: string): ListeningPlace {
  if (/^[0-9]{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535) return { port: Number(text) };
  if (!text.startsWith('/') || text.includes('\0')) throw new RangeError('neither a port nor an absolute path');
  if (Buffer.byteLength(text) > MAX_PATH_BYTES) throw new RangeError(`a path of more than ${MAX_PATH_BYTES} bytes`);
  return { path: text };
}

/**
 * Listens; rejects when that fails. A socket at a path belongs to its owner only (mode 0600). It
 * replaces an existing socket, dead or alive, in one step, so that clients always find one.
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
