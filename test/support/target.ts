// What a raw request can be sent to: the script as a bare process, or a real httpd. Each target has
// one site; requests and answers are bytes, and nothing here knows what is correct.
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Server, startHttpd } from '../../scripts/httpd.ts';
import { findProcesses } from '../../scripts/resident.ts';
import { addUser, makeSite, type Site } from '../../scripts/site.ts';
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
        isAlone: true,
      });
      return result.stdout.toString('latin1');
    },
    close: async () => site.remove(),
  };
}

async function startTarget(mpm: 'prefork' | 'event'): Promise<Target> {
  const { site, server, close } = await startServer(mpm);
  return { kind: 'httpd', site, ask: (request) => sendRaw(server.port, request, watchForScript(site)), close };
}

/**
 * A site under httpd. `/webjob/` requires a password as in the shipped files; `/open/` is the same
 * script without.
 */
export async function startServer(
  mpm: 'prefork' | 'event',
): Promise<{ site: Site; server: Server; close(): Promise<void> }> {
  const site = makeSite();
  addUser(site, 'client2', 'bar');
  // httpd would keep a connection that it answered itself for five seconds.
  const after = `
KeepAlive Off
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

const TIME_LIMIT_MS = 60_000;

/**
 * Sends bytes and reads to the end. When they are fewer than announced, ends its half of the
 * connection after `scriptWaits`: a script that httpd gives up before its Node has started dies
 * without a trace.
 */
export function sendRaw(port: number, request: Buffer, scriptWaits = async (): Promise<void> => {}): Promise<string> {
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
      if (isCut(request)) scriptWaits().then(() => socket.end(), reject);
    });
  });
}

/** Whether a request has fewer bytes than it announces. */
export function isCut(request: Buffer): boolean {
  const text = request.toString('latin1');
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return true;
  const length = /^content-length:\s*(\d+)\s*$/im.exec(text.slice(0, end))?.[1];
  return length !== undefined && text.length - end - 4 < Number(length);
}

const SAMPLE_MS = 50;

/**
 * Must be called before a request. The returned function resolves when a new script of the site
 * waits for input: asleep in two samples, without processor time between them. Rejects after
 * TIME_LIMIT_MS.
 */
export function watchForScript(site: Site): () => Promise<void> {
  const known = findProcesses(site);
  return async () => {
    let before = '';
    for (const deadline = Date.now() + TIME_LIMIT_MS; Date.now() < deadline; await sleep(SAMPLE_MS)) {
      const pid = findProcesses(site).find((found) => !known.includes(found));
      const sample = pid === undefined ? '' : sampleProcess(pid);
      if (sample.startsWith('S ') && sample === before) return;
      before = sample;
    }
    throw new Error('no script was started that waits for input');
  };
}

/**
 * Resolves when a process has got as far as it can: asleep in four samples, without processor time
 * between them.
 */
export async function untilAsleep(pid: number): Promise<void> {
  let [before, same] = ['', 0];
  for (const deadline = Date.now() + TIME_LIMIT_MS; Date.now() < deadline; await sleep(SAMPLE_MS)) {
    const sample = sampleProcess(pid);
    same = sample.startsWith('S ') && sample === before ? same + 1 : 0;
    if (same === 3) return;
    before = sample;
  }
  throw new Error(`process ${pid} does not come to rest`);
}

/** State and processor time of a process from proc(5); empty when it has ended. */
function sampleProcess(pid: number): string {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ');
    return `${fields[0]} ${pid} ${fields[11]} ${fields[12]}`;
  } catch {
    return '';
  }
}
