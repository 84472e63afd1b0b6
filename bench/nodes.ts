// Two servers of one locker and the balancer before them, each an httpd of its own on the loopback, with the shipped files; and a way to
// kill a server as a power cut would. Each runs its script in one of the ways that are shipped.
import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { custodyPath } from '../cgi/locker/index.ts';
import { type HttpdServer, startHttpd } from '../scripts/httpd.ts';
import { findWebUser, obtainFcgid, obtainHttpd } from '../scripts/httpd-package.ts';
import type { Site } from '../scripts/site.ts';

export const WAYS = ['cgi', 'fcgid', 'proxy'] as const;
export type Way = (typeof WAYS)[number];

const SHIPPED = join(import.meta.dirname, '..', 'apache');
const START_LIMIT_MS = 20_000;
const NODE_MODULES = ['remoteip', 'setenvif'];
const WAY_MODULES: Record<Way, string[]> = { cgi: [], fcgid: ['fcgid'], proxy: ['proxy', 'proxy_fcgi'] };
const BALANCER_MODULES =
  'proxy proxy_http proxy_balancer proxy_hcheck watchdog lbmethod_byrequests slotmem_shm headers'.split(' ');
/** How many requests an httpd takes at once; the default of event is 400. Who comes on top waits in the listen queue. */
const ROOM = 'ServerLimit 32\nMaxRequestWorkers 800\nListenBacklog 511';
/** Each of them a Node of its own. */
const ROOM_FOR_PROCESSES = 'StartServers 1\nServerLimit 1\nThreadsPerChild 8\nMaxRequestWorkers 8\nListenBacklog 511';

export interface ServerNode {
  port: number;
  /** SIGKILL for httpd, its scripts and the process that stays. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** `port` is that of a server that was killed and comes back. */
export async function startServerNode(site: Site, name: string, way: Way, port?: number): Promise<ServerNode> {
  const own = makeOwn(site, name);
  const resident = way === 'proxy' ? await startResident(own) : undefined;
  const server = await startHttpd({
    ...{ site: own, mpm: 'event', modules: [...NODE_MODULES, ...WAY_MODULES[way]] },
    ...(port !== undefined && { port }),
    program: (way === 'fcgid' ? obtainFcgid() : undefined) ?? obtainHttpd(),
    ...linesOf(own, way),
  });
  return {
    port: server.port,
    kill: async () => {
      for (const pid of [-server.pid, resident?.pid]) if (pid !== undefined) process.kill(pid, 'SIGKILL');
      await untilGone(server.port);
    },
    stop: async () => {
      await server.stop();
      resident?.kill('SIGTERM');
    },
  };
}

function makeOwn(site: Site, name: string): Site {
  const root = join(site.root, name);
  const own = {
    ...{ ...site, root },
    cgiDirectory: join(root, 'webjob'),
    propertiesFile: join(root, 'nph-webjob.cfg'),
  };
  if (existsSync(root)) return own;
  cpSync(site.cgiDirectory, own.cgiDirectory, { recursive: true });
  const common = readFileSync(site.propertiesFile, 'utf8');
  writeFileSync(own.propertiesFile, `${common}ServerId=${name}\n`);
  mkdirSync(join(root, 'run'));
  const custody = custodyPath(dirname(site.logFile), name);
  writeFileSync(custody, '');
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  if (user) for (const path of [join(root, 'run'), custody]) chownSync(path, user.uid, user.gid);
  return own;
}

function linesOf(own: Site, way: Way): { before: string; after: string } {
  const include = (name: string): string => `Include "${join(SHIPPED, name)}"`;
  const run = join(own.root, 'httpd-event');
  const proxied = `Define WEBJOB_BALANCER_ADDRESSES "127.0.0.2"\n${include('webjob-behind-proxy.conf')}
${way === 'cgi' ? ROOM_FOR_PROCESSES : ROOM}`;
  if (way === 'cgi') return { before: proxied, after: '' };
  const before = {
    fcgid: `FcgidIPCDir "${run}/fcgid"
FcgidProcessTableFile "${run}/fcgid_shm"
Define WEBJOB_PATH ${run}:${dirname(process.execPath)}:/usr/bin:/bin`,
    proxy: `Define WEBJOB_SOCKET "${join(own.root, 'run', 'socket')}"`,
  }[way];
  return { before: `${proxied}\n${before}`, after: include(`webjob-${way === 'proxy' ? 'proxy-fcgi' : way}.conf`) };
}

async function startResident(own: Site): Promise<ChildProcess> {
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  const socket = join(own.root, 'run', 'socket');
  const child = spawn(process.execPath, [join(own.cgiDirectory, 'nph-webjob.cgi'), '--listen', socket], {
    stdio: ['ignore', 'ignore', 'inherit'],
    ...(user && { uid: user.uid, gid: user.gid }),
    env: {},
    cwd: '/',
  });
  for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline; await sleep(10)) {
    if (child.exitCode !== null) break;
    if (await isListening({ path: socket })) return child;
  }
  throw new Error('the script does not listen');
}

/** The balancer on a virtual host of its own: where it listens is `secondPort`. */
export function startBalancer(site: Site, [first, second]: ServerNode[]): Promise<HttpdServer> {
  const root = join(site.root, 'balancer');
  mkdirSync(root);
  return startHttpd({
    ...{ site: { ...site, root }, mpm: 'event', modules: BALANCER_MODULES },
    before: `${ROOM}\nProxySourceAddress 127.0.0.2\nDefine WEBJOB_HEALTH_INTERVAL 1`,
    second: (port) => `<VirtualHost 127.0.0.1:${port}>
  Define WEBJOB_NODE_1 http://127.0.0.1:${first?.port}
  Define WEBJOB_NODE_2 http://127.0.0.1:${second?.port}
  Include "${join(SHIPPED, 'webjob-balancer.conf')}"
</VirtualHost>`,
  });
}

async function untilGone(port: number): Promise<void> {
  for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline; await sleep(10)) {
    if (!(await isListening({ port, host: '127.0.0.1' }))) return;
  }
  throw new Error('a killed server still listens');
}

function isListening(place: { path: string } | { port: number; host: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(place, () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}
