// Two servers of one locker and a balancer in front of them, each an httpd of its own on the
// loopback address, with the shipped files; and a way to kill a server like a power failure. Each
// runs its script in one of the shipped configurations.
import { chownSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { custodyPath } from 'webjob-locker';
import { type HttpdOptions, type HttpdServer, startHttpd } from '../scripts/httpd.ts';
import { startWay, WAYS, type Way } from '../scripts/resident.ts';
import type { Site } from '../scripts/site.ts';
import { findWebUser } from '../scripts/web-user.ts';
import { findFamily } from './footprint.ts';

export const NODE_WAYS = ['cgi', ...WAYS] as const;
export type NodeWay = 'cgi' | Way;

const SHIPPED = join(import.meta.dirname, '..', 'apache');
const START_LIMIT_MS = 20_000;
const BALANCER_MODULES =
  'proxy proxy_http proxy_balancer proxy_hcheck watchdog lbmethod_byrequests slotmem_shm headers'.split(' ');
/**
 * The number of concurrent requests of an httpd; the default of event is 400. Further clients wait
 * in the listen queue.
 */
const ROOM = 'ServerLimit 32\nMaxRequestWorkers 800\nListenBacklog 511';
/** Fewer, because each request is a Node process. */
const ROOM_FOR_PROCESSES = 'StartServers 1\nServerLimit 1\nThreadsPerChild 8\nMaxRequestWorkers 8\nListenBacklog 511';

export interface ServerNode {
  port: number;
  /** The processes of httpd, and those behind it. */
  pids: number[];
  /** Sends SIGKILL to httpd, its scripts and persistent workers. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

export interface NodeOptions {
  /** The number of workers behind mod_proxy_fcgi. */
  processes?: number;
  /** The port of a killed server that comes back. */
  port?: number | undefined;
}

export async function startServerNode(
  site: Site,
  name: string,
  way: NodeWay,
  { processes = 1, port }: NodeOptions = {},
): Promise<ServerNode> {
  const own = makeOwn(site, name);
  const options: Partial<HttpdOptions> = {
    modules: ['remoteip', 'setenvif'],
    before: `Define WEBJOB_BALANCER_ADDRESSES "127.0.0.2"
Include "${join(SHIPPED, 'webjob-behind-proxy.conf')}"
${way === 'cgi' ? ROOM_FOR_PROCESSES : ROOM}`,
    ...(port !== undefined && { port }),
  };
  const { server, resident, close } =
    way === 'cgi'
      ? await startCgi(own, options)
      : await startWay(way, own, options, ['--processes', String(processes)]);
  const pids = [server.pid, ...(resident ? [resident.pid] : [])];
  const kill = async (): Promise<void> => {
    for (const pid of [...findFamily(pids), -server.pid]) signal(pid);
    await untilGone(server.port);
  };
  return { port: server.port, pids, kill, stop: close };
}

async function startCgi(site: Site, options: Partial<HttpdOptions>) {
  const server = await startHttpd({ ...options, site, mpm: 'event' });
  return { server, resident: undefined, close: () => server.stop() };
}

/** The process may have ended because another one did. */
function signal(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    return;
  }
}

function makeOwn(site: Site, name: string): Site {
  const root = join(site.root, name);
  const own = {
    ...site,
    root,
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

/** The balancer in a virtual host of its own, which listens on `secondPort`. */
export function startBalancer(site: Site, [first, second]: ServerNode[]): Promise<HttpdServer> {
  const root = join(site.root, 'balancer');
  mkdirSync(root);
  return startHttpd({
    site: { ...site, root },
    mpm: 'event',
    modules: BALANCER_MODULES,
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
    if (!(await isListening(port))) return;
  }
  throw new Error('a killed server still listens');
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}
