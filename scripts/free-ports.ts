// Finds free ports of this machine, for servers whose configuration must contain a port.
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';

const FIRST_PORT = 10_240;
const USUAL_EPHEMERAL_PORT = 32_768;
const ATTEMPTS = 1000;

/**
 * Ports of 127.0.0.1 on which nothing listens. They are below the range that the kernel uses for
 * outgoing connections, which could otherwise take one before its server binds it, or while a
 * killed server restarts.
 */
export async function findFreePorts(count: number): Promise<number[]> {
  const end = firstEphemeralPort();
  const held: Server[] = [];
  const ports: number[] = [];
  try {
    for (let attempt = 0; ports.length < count; attempt++) {
      if (attempt === ATTEMPTS) throw new Error('no free port');
      const port = randomInt(FIRST_PORT, end);
      const server = await hold(port);
      if (!server) continue;
      held.push(server);
      ports.push(port);
    }
    return ports;
  } finally {
    await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))));
  }
}

/**
 * Listens on a port, so that no other process takes it; undefined when another process has the
 * port.
 */
function hold(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(undefined)).listen(port, '127.0.0.1', () => resolve(server));
  });
}

function firstEphemeralPort(): number {
  try {
    const first = Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1'), 10);
    return first > 2 * FIRST_PORT ? first : USUAL_EPHEMERAL_PORT;
  } catch {
    return USUAL_EPHEMERAL_PORT;
  }
}
