// A server that misbehaves as a test requires: one raw connection for each request, with every
// received byte recorded.
import { createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';

/** Answers a request whose header has arrived; `received` is everything so far. */
export type Behaviour = (socket: Socket, received: () => Buffer) => void;

export interface FakeServer {
  url: string;
  port: number;
  /** What it does with a new connection before anything has arrived. */
  greet: (socket: Socket) => void;
  get: Behaviour;
  put: Behaviour;
  /** The bytes received over each connection so far, in order. */
  requests(): Buffer[];
  /** Waits until no client is connected. */
  idle(): Promise<void>;
  /** Ends open connections and accepts no more. */
  close(): Promise<void>;
}

/** `HTTP/1.1 200 OK` with the exact Content-Length, as a correct server sends it. */
export function formatAnswer(body: string | Buffer = '', statusLine = '200 OK', more = ''): Buffer {
  const head = `HTTP/1.1 ${statusLine}\r\nContent-Type: application/octet-stream\r\n${more}Content-Length: ${body.length}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, 'latin1'), Buffer.from(body)]);
}

/** Sends these bytes, whatever they are, and ends the connection. */
export function reply(bytes: string | Buffer): Behaviour {
  return (socket) => socket.end(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
}

/** Serves a program like a correct server. */
export function serve(program: string | Buffer): Behaviour {
  return reply(formatAnswer(program, '200 OK', 'Job-Id: server_1_1085355126_00723\r\n'));
}

/** Reads the body to its end, then sends these bytes, as every server must. */
export function afterBody(bytes: Buffer): Behaviour {
  return (socket, received) => {
    const answer = (): void => {
      if (isComplete(received())) socket.end(bytes);
    };
    socket.on('data', answer);
    answer();
  };
}

/** A server that serves the program and accepts the upload, until a test changes its behaviour. */
export async function startFake(program = '#!/bin/sh\n', tls?: TlsOptions): Promise<FakeServer> {
  const conversations: Buffer[][] = [];
  const sockets = new Set<Socket>();
  const converse = (socket: Socket): void => {
    const chunks: Buffer[] = [];
    let isAnswered = false;
    conversations.push(chunks);
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    fake.greet(socket);
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      if (isAnswered) return;
      const received = (): Buffer => Buffer.concat(chunks);
      if (!received().includes('\r\n\r\n')) return;
      isAnswered = true;
      (received().toString('latin1', 0, 3) === 'PUT' ? fake.put : fake.get)(socket, received);
    });
  };
  const server = tls ? createTlsServer(tls, converse) : createServer({ allowHalfOpen: true }, converse);
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  const fake: FakeServer = {
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}/cgi/nph-webjob.cgi`,
    port,
    greet: () => {},
    get: serve(program),
    put: afterBody(formatAnswer()),
    requests: () => conversations.map((chunks) => Buffer.concat(chunks)),
    idle: async () => {
      const count = (): Promise<number> =>
        new Promise((resolve, reject) =>
          server.getConnections((error, open) => (error ? reject(error) : resolve(open))),
        );
      for (const deadline = Date.now() + 60_000; (await count()) > 0; await sleep(5))
        if (Date.now() > deadline) throw new Error('clients stay connected');
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return fake;
}

export function splitRequest(request: Buffer): { head: string; body: Buffer } {
  const end = request.indexOf('\r\n\r\n') + 4;
  return { head: request.toString('latin1', 0, end), body: request.subarray(end) };
}

function isComplete(request: Buffer): boolean {
  const { head, body } = splitRequest(request);
  return body.length >= Number(/^Content-Length: (\d+)\r$/m.exec(head)?.[1] ?? Number.NaN);
}
