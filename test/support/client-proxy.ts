// A small real proxy: forwards requests with a whole URL, opens tunnels for CONNECT, and records
// every byte from clients.
import { connect, createServer, type Socket } from 'node:net';

export interface FakeProxy {
  port: number;
  /** The first header of each connection. */
  headers(): string[];
  /** Every byte from every client, including those inside of tunnels. */
  received(): Buffer;
  /** Replaces the proxy's answer when it returns bytes; an empty answer is silence. */
  refuse: (header: string) => string | undefined;
  close(): Promise<void>;
}

/**
 * Whatever host a client asks for, the proxy connects to 127.0.0.1, because resolving names is its
 * task.
 */
export async function startProxy(host = '127.0.0.1'): Promise<FakeProxy> {
  const headers: string[] = [];
  const chunks: Buffer[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    keep(socket);
    let begun = Buffer.of();
    const onData = (chunk: Buffer): void => {
      begun = Buffer.concat([begun, chunk]);
      const end = begun.indexOf('\r\n\r\n') + 4;
      if (end < 4) return;
      socket.off('data', onData);
      const header = begun.toString('latin1', 0, end);
      headers.push(header);
      const answer = proxy.refuse(header);
      if (answer === undefined) serve(socket, header, begun.subarray(end));
      // After a complete answer the connection stays open, as with a real proxy.
      else if (answer.includes('\r\n\r\n')) socket.write(answer);
      else if (answer !== '') socket.end(answer);
    };
    socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('data', onData);
  });

  function keep(socket: Socket): void {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
  }

  function serve(socket: Socket, header: string, rest: Buffer): void {
    const [, method = '', target = ''] = /^(\S+) (\S+) HTTP\/1\.1\r\n/.exec(header) ?? [];
    const url = new URL(method === 'CONNECT' ? `http://${target}` : target);
    const upstream = connect(Number(url.port || 80), '127.0.0.1', () => {
      if (method === 'CONNECT') socket.write('HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n');
      else upstream.write(`${method} ${url.pathname}${url.search} HTTP/1.1\r\n${forwarded(header)}`);
      upstream.write(rest);
      socket.pipe(upstream).pipe(socket);
    });
    keep(upstream);
    upstream.on('error', () => socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n'));
  }

  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(0, host, resolve));
  const address = server.address();
  const proxy: FakeProxy = {
    port: typeof address === 'object' && address ? address.port : 0,
    headers: () => headers,
    received: () => Buffer.concat(chunks),
    refuse: () => undefined,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return proxy;
}

/** The header lines without those for the proxy. */
function forwarded(header: string): string {
  return header.slice(header.indexOf('\r\n') + 2).replace(/^Proxy-[^\r]*\r\n/gim, '');
}
