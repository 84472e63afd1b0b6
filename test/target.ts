// What a raw request can be sent to: the script as a bare process, or a real httpd. Each target owns one site; what is sent to it comes
// out as bytes, and nothing here knows what should.
import { connect } from 'node:net';
import { type Server, startHttpd } from '../scripts/httpd.ts';
import { addUser, makeSite, type Site } from '../scripts/site.ts';
import { runBare } from './bare.ts';
import { findWebUser } from './tree.ts';
import type { Vector } from './vectors.ts';

export interface Target {
  kind: 'bare' | 'httpd';
  site: Site;
  /** Sends the bytes and resolves with everything that came back, as latin1. */
  ask(request: Buffer, vector?: Vector): Promise<string>;
  close(): Promise<void>;
}

export const TARGETS = {
  'bare process': startBare,
  'prefork and mod_cgi': () => startTarget('prefork'),
  'event and mod_cgid': () => startTarget('event'),
} as const;

async function startBare(): Promise<Target> {
  const site = makeSite();
  return {
    kind: 'bare',
    site,
    ask: async (request, vector) => {
      const result = await runBare(request, {
        settingsFile: site.propertiesFile,
        user: findWebUser(),
        environment: vector?.bareEnvironment ?? [],
      });
      return result.stdout.toString('latin1');
    },
    close: async () => site.remove(),
  };
}

async function startTarget(mpm: 'prefork' | 'event'): Promise<Target> {
  const { site, server, close } = await startServer(mpm);
  return { kind: 'httpd', site, ask: (request) => sendRaw(server.port, request), close };
}

/** A site under httpd. `/webjob/` asks for a password as the shipped files have it; `/open/` is the same script without. */
export async function startServer(
  mpm: 'prefork' | 'event',
): Promise<{ site: Site; server: Server; close(): Promise<void> }> {
  const site = makeSite();
  addUser(site, 'client2', 'bar');
  const after = `
ScriptAlias /open/ "${site.cgiDirectory}/"
<Location "/open/">
  Require all granted
</Location>`;
  const server = await startHttpd({ site, mpm, after });
  const close = async (): Promise<void> => {
    await server.stop();
    site.remove();
  };
  return { site, server, close };
}

const TIME_LIMIT_MS = 30_000;
/** A script that httpd gives up before its Node has started dies without a trace. */
const START_MS = 1_000;

/** Sends bytes, ends its half of the connection when they are fewer than announced, and reads to the end. */
export function sendRaw(port: number, request: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
    socket.setTimeout(TIME_LIMIT_MS, () => socket.destroy(new Error('no answer in time')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('end', () => {
      socket.end();
      resolve(Buffer.concat(chunks).toString('latin1'));
    });
    socket.write(request, () => {
      if (isCut(request)) setTimeout(() => socket.end(), START_MS);
    });
  });
}

function isCut(request: Buffer): boolean {
  const text = request.toString('latin1');
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return true;
  const length = /^content-length:\s*(\d+)\s*$/im.exec(text.slice(0, end))?.[1];
  return length !== undefined && text.length - end - 4 < Number(length);
}
