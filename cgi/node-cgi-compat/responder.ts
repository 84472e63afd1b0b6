// A FastCGI responder: serves CGI requests in a persistent process (FastCGI 1.0). It holds the
// connections and can end without losing one. Its caller decides where it listens.
import { createServer, type Server, type Socket } from 'node:net';
import { Connection, type ConnectionOptions } from './connection.ts';

export type { ConnectionOptions } from './connection.ts';
export * from './fastcgi.ts';
export * from './listener.ts';
export * from './workers.ts';

/** How a responder serves. */
export interface ResponderOptions extends Omit<ConnectionOptions, 'maxConnections'> {
  /**
   * The maximum number of connections; further ones are closed immediately. Each costs one
   * descriptor, and two more while its request has large bodies.
   */
  maxConnections?: number;
  /** A connection without traffic for this long is closed. */
  silenceSeconds?: number;
}

/** A responder, for `listenAt`. */
export interface Responder {
  server: Server;
  /** True while a request is being received, served or answered. */
  isBusy(): boolean;
  /** Increases with every connection and every request. */
  activity(): number;
  /**
   * Accepts no more connections after `quietMilliseconds` without one, or `limitMilliseconds` in
   * total, and ends each connection with its current request. Later clients reach another process,
   * when one also holds the listening socket.
   */
  end(quietMilliseconds: number, limitMilliseconds?: number): void;
}

const MAX_CONNECTIONS = 1000;
const SILENCE_SECONDS = 600;
/**
 * While the responder ends, silent peers are given up after this time. A web server with a slow
 * client can be silent for many seconds.
 */
const ENDING_SILENCE_MS = 30_000;

/**
 * Creates a responder. Requests go to `handler` in the order in which they are complete; their
 * bodies arrive and their answers leave concurrently.
 */
export function createResponder(options: ResponderOptions): Responder {
  const { maxConnections = MAX_CONNECTIONS, silenceSeconds = SILENCE_SECONDS } = options;
  const connections = new Set<Connection>();
  let activity = 0;
  let isEnding = false;
  let came = 0;

  const endConnection = (connection: Connection): void => {
    limitSilence(connection.socket, ENDING_SILENCE_MS);
    connection.end();
  };
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    came += 1;
    activity += 1;
    const connection = new Connection(socket, { ...options, maxConnections });
    connections.add(connection);
    if (isEnding) endConnection(connection);
    else limitSilence(socket, silenceSeconds * 1000);
    socket.on('close', () => {
      activity += connection.served;
      connections.delete(connection);
    });
  });
  server.maxConnections = maxConnections;

  /**
   * A handler may block the process for long, and Node accepts one connection at a time, so quiet
   * also means that nobody waits at the socket.
   */
  const closeWhenQuiet = (quietMilliseconds: number, deadline: number): void => {
    const before = came;
    const look = (): void => {
      if (came === before || performance.now() > deadline) server.close();
      else closeWhenQuiet(quietMilliseconds, deadline);
    };
    setTimeout(setImmediate, quietMilliseconds, look);
  };
  return {
    server,
    isBusy: () => [...connections].some((connection) => connection.isBusy),
    activity: () => [...connections].reduce((sum, connection) => sum + connection.served, activity),
    end: (quietMilliseconds, limitMilliseconds = Number.POSITIVE_INFINITY) => {
      if (isEnding) return;
      isEnding = true;
      for (const connection of connections) endConnection(connection);
      if (quietMilliseconds === 0) server.close();
      else closeWhenQuiet(quietMilliseconds, performance.now() + limitMilliseconds);
    },
  };
}

/**
 * A handler may have blocked the process for long: bytes that arrived meanwhile are read first and
 * count as traffic.
 */
function limitSilence(socket: Socket, milliseconds: number): void {
  const moved = (): number => socket.bytesRead + socket.bytesWritten;
  socket.removeAllListeners('timeout');
  socket.setTimeout(milliseconds, () => {
    const before = moved();
    setImmediate(() => moved() === before && socket.destroy());
  });
}
