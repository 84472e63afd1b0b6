// A FastCGI responder: a handler of CGI requests that stays (FastCGI 1.0). Holds the connections and knows how to end without losing one;
// where it listens is said by whoever starts it.
import { createServer, type Server, type Socket } from 'node:net';
import { Connection, type ConnectionOptions } from './connection.ts';

export type { ConnectionOptions } from './connection.ts';
export * from './fastcgi.ts';
export * from './listener.ts';
export * from './workers.ts';

/** How a responder serves. */
export interface ResponderOptions extends Omit<ConnectionOptions, 'maxConnections'> {
  /** More are closed at once. Each costs one descriptor, and two more while its request has large bodies. */
  maxConnections?: number;
  /** A connection on which nothing moves for so long is closed. */
  silenceSeconds?: number;
}

/** A responder, for `listenAt`. */
export interface Responder {
  server: Server;
  /** True while a request is being received, served or answered. */
  isBusy(): boolean;
  /** Grows with every connection and every request. */
  activity(): number;
  /**
   * Takes no more connections once `quietMilliseconds` passed without one, or `limitMilliseconds` in all, and ends each with the request
   * that it is for. Those who come later are another process's, when somebody else holds the listening socket too.
   */
  end(quietMilliseconds: number, limitMilliseconds?: number): void;
}

const MAX_CONNECTIONS = 1000;
const SILENCE_SECONDS = 600;
/** While it ends, no silent peer is waited for any longer. A web server whose client reads slowly takes nothing for many seconds. */
const ENDING_SILENCE_MS = 30_000;

/** Every request goes to `handler`, in the order in which they are whole; their bodies come and their answers go side by side. */
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

  /** A handler may hold the process for long, and Node takes one connection at a time: quiet is when nobody waits at the socket, either. */
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

/** A handler may have held the process for long: what came meanwhile is read first, and counts. */
function limitSilence(socket: Socket, milliseconds: number): void {
  const moved = (): number => socket.bytesRead + socket.bytesWritten;
  socket.removeAllListeners('timeout');
  socket.setTimeout(milliseconds, () => {
    const before = moved();
    setImmediate(() => moved() === before && socket.destroy());
  });
}
