// The peers: one httpd for static files and for CGI scripts, one for each configuration with
// persistent workers, and two of the fastest kind behind a balancer. All with the shipped files,
// and each with a locker of its own.
import { chmodSync, copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startHttpd } from '../scripts/httpd.ts';
import { obtainFcgid } from '../scripts/httpd-package.ts';
import { startWay, WAYS } from '../scripts/resident.ts';
import { addCommand, makeSite, type Site } from '../scripts/site.ts';
import type { Target } from './load.ts';
import { startBalancer, startServerNode } from './nodes.ts';

export interface Peer extends Target {
  methods: readonly ('GET' | 'PUT')[];
  /** Whether the peer does nothing. */
  isEmpty?: boolean;
  /** Whether a PUT is on disk when it is answered. */
  isDurable?: boolean;
  /** The processes of httpd, and those that it did not start. */
  pids: readonly number[];
  /** The directory of its uploads. */
  incoming: string;
}

export interface Peers {
  peers: Peer[];
  close(): Promise<void>;
}

export const PERL = 'nph script in Perl';
export const CAT = 'sh: cat > file; sync';
export const KILOBYTE = 1024;
const EMPTY_ANSWER = 'HTTP/1.1 200 OK\\r\\nContent-Type: application/octet-stream\\r\\nContent-Length: 0\\r\\n\\r\\n';
/** The smallest possible nph script in Node. */
export const EMPTY_NODE = `#!/usr/bin/env node\nrequire('node:fs').writeSync(1, '${EMPTY_ANSWER}');\n`;
const SCRIPTS = {
  'nph-empty-sh.cgi': `#!/bin/sh\nprintf '${EMPTY_ANSWER}'\n`,
  'nph-empty-node.cgi': EMPTY_NODE,
};
/** The files of a persistent worker. */
const PROGRAMS = ['nph-webjob.cgi', 'nph-webjob-resident.cjs'];
const SETTINGS = { PutNameFormat: '%cid_%jid' };

/** The suffix in the names of peers that run another build. */
export const OTHER = ', other build';

/**
 * Starts all peers. If the directory of another build is given, also starts that build in each
 * configuration with persistent workers.
 */
export async function startPeers(processes: number, against?: string): Promise<Peers> {
  const closing: (() => unknown)[] = [];
  const close = async (): Promise<void> => {
    for (const step of closing.reverse()) await step();
  };
  const make = (): Site => {
    const site = makeSite({ resident: true, settings: SETTINGS });
    closing.push(() => site.remove());
    addCommand(site, 'client1', 'kilobyte', Buffer.alloc(KILOBYTE, 'x'));
    return site;
  };
  try {
    const peers = await startScripts(make(), closing);
    const builds = [undefined, ...(against === undefined ? [] : [against])];
    for (const [way, build] of WAYS.flatMap((way) => builds.map((build) => [way, build] as const))) {
      if (way === 'mod_fcgid' && !obtainFcgid()) continue;
      const site = make();
      if (build) for (const name of PROGRAMS) copyFileSync(join(build, name), join(site.cgiDirectory, name));
      const { server, resident, close: stop } = await startWay(way, site, {}, ['--processes', String(processes)]);
      closing.push(stop);
      const name = `webjob, ${way}${build ? OTHER : ''}`;
      peers.push({
        name,
        port: server.port,
        path: '/webjob/nph-webjob.cgi',
        isDurable: true,
        methods: ['GET', 'PUT'],
        incoming: site.incoming,
        pids: [server.pid, ...(resident ? [resident.pid] : [])],
      });
    }
    peers.push(await startBalanced(make(), processes, closing));
    return { peers, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function startScripts(site: Site, closing: (() => unknown)[]): Promise<Peer[]> {
  const { incoming } = site;
  const add = (name: string, text: string): void => {
    writeFileSync(join(site.cgiDirectory, name), text);
    chmodSync(join(site.cgiDirectory, name), 0o755);
  };
  for (const [name, text] of Object.entries(SCRIPTS)) add(name, text);
  // The closest to "on disk" that a shell script can get.
  add('nph-cat.cgi', `#!/bin/sh\ncat > "${incoming}/$HTTP_JOB_ID"\nsync\nprintf '${EMPTY_ANSWER}'\n`);
  const perl = join(site.cgiDirectory, 'nph-peer.cgi');
  copyFileSync(join(import.meta.dirname, 'peer.pl'), perl);
  chmodSync(perl, 0o755);
  const open = `Alias /static "${site.profiles}/client1"\n<Directory "${site.profiles}">\n  Require all granted\n</Directory>`;
  const server = await startHttpd({ site, mpm: 'event', after: open });
  closing.push(() => server.stop());
  const common = { port: server.port, pids: [server.pid], incoming };
  const script = { ...common, methods: ['GET', 'PUT'] as const };
  return [
    { name: 'static file', ...common, path: '/static/kilobyte', methods: ['GET'] },
    { name: 'empty nph script, sh', ...common, path: '/webjob/nph-empty-sh.cgi', methods: ['GET'], isEmpty: true },
    { name: 'empty nph script, Node', ...common, path: '/webjob/nph-empty-node.cgi', methods: ['GET'], isEmpty: true },
    { name: CAT, ...common, path: '/webjob/nph-cat.cgi', methods: ['PUT'], isDurable: true },
    { name: PERL, ...script, path: '/webjob/nph-peer.cgi' },
    { name: 'webjob, CGI', ...script, path: '/webjob/nph-webjob.cgi', isDurable: true },
  ];
}

async function startBalanced(site: Site, processes: number, closing: (() => unknown)[]): Promise<Peer> {
  const nodes = [];
  for (const name of ['node_1', 'node_2']) {
    const node = await startServerNode(site, name, 'mod_proxy_fcgi', { processes });
    closing.push(() => node.stop());
    nodes.push(node);
  }
  const balancer = await startBalancer(site, nodes);
  closing.push(() => balancer.stop());
  return {
    name: 'webjob, two servers',
    port: balancer.secondPort,
    path: '/webjob/nph-webjob.cgi',
    isDurable: true,
    methods: ['GET', 'PUT'],
    incoming: site.incoming,
    pids: [balancer.pid, ...nodes.flatMap(({ pids }) => pids)],
  };
}
