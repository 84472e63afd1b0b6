// What staying is worth: GET and PUT of 1 KiB by CGI, under mod_fcgid, behind mod_proxy_fcgi, and by an nph script in Perl of the same work
// (bench/peer.pl), in turn in one run, so that all of them see the same machine. Prints figures and ratios; asserts nothing.
import { chmodSync, copyFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startHttpd } from '../scripts/httpd.ts';
import { obtainFcgid } from '../scripts/httpd-package.ts';
import { startWay, WAYS } from '../scripts/resident.ts';
import { addCommand, configure, makeSite, type Site } from '../scripts/site.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/resident.ts [--rounds N] [--seconds N]

  --rounds N   requests of each kind, one at a time (default 100)
  --seconds N  how long eight clients ask at once, each kind (default 5)
`;
const KILOBYTE = Buffer.alloc(1024, 'x');
const CLIENTS = 8;
const WARM_UP = 10;
/** Several turns of each kind: what the machine does besides falls on all of them. */
const TURNS = 3;

interface Peer {
  name: string;
  port: number;
  script: string;
  close: () => Promise<void>;
}

interface Figures {
  milliseconds: number[];
  /** Requests a second, one figure a turn. */
  rates: number[];
  /** With eight clients. */
  waits: number[];
}

let count = 0;

async function main(): Promise<void> {
  const number = (value: string) => ({ type: 'string', default: value }) as const;
  const flags = { rounds: number('100'), seconds: number('5'), help: { type: 'boolean', default: false } } as const;
  const { rounds, seconds, help } = parseArgs({ options: flags }).values;
  if (help) {
    process.stdout.write(HELP);
    return;
  }
  for (const value of [rounds, seconds])
    if (!/^[1-9][0-9]{0,5}$/.test(value)) throw new RangeError('--rounds and --seconds are whole numbers from 1');
  const site = makeSite({ resident: true });
  const peers: Peer[] = [];
  try {
    configure(site, { PutNameFormat: '%cid_%jid' });
    addCommand(site, 'client1', 'kilobyte', KILOBYTE);
    await startPeers(site, peers);
    for (const method of ['GET', 'PUT'] as const)
      print(method, await measure(peers, method, Number(rounds), Number(seconds)));
  } finally {
    for (const peer of peers) await peer.close();
    site.remove();
  }
}

/** Each httpd has a folder of its own beside the others', so the sites are four and their files the same. */
async function startPeers(site: Site, peers: Peer[]): Promise<void> {
  const perl = join(site.cgiDirectory, 'nph-peer.cgi');
  copyFileSync(join(import.meta.dirname, 'peer.pl'), perl);
  chmodSync(perl, 0o755);
  const cgi = await startHttpd({ site, mpm: 'prefork' });
  peers.push({ name: 'nph script in Perl', port: cgi.port, script: 'nph-peer.cgi', close: () => cgi.stop() });
  peers.push({ name: 'webjob, CGI', port: cgi.port, script: 'nph-webjob.cgi', close: async () => {} });
  for (const way of WAYS) {
    if (way === 'mod_fcgid' && !obtainFcgid()) continue;
    const own = makeSite({ resident: true });
    configure(own, { PutNameFormat: '%cid_%jid' });
    addCommand(own, 'client1', 'kilobyte', KILOBYTE);
    const serving = await startWay(way, own);
    const close = async (): Promise<void> => {
      await serving.close();
      own.remove();
    };
    peers.push({ name: `webjob, ${way}`, port: serving.server.port, script: 'nph-webjob.cgi', close });
  }
}

async function measure(
  peers: Peer[],
  method: 'GET' | 'PUT',
  rounds: number,
  seconds: number,
): Promise<Map<Peer, Figures>> {
  const figures = new Map(peers.map((peer): [Peer, Figures] => [peer, { milliseconds: [], rates: [], waits: [] }]));
  for (let round = -WARM_UP; round < rounds; round += 1) {
    for (const [peer, { milliseconds }] of figures) {
      const took = await ask(peer, method);
      if (round >= 0) milliseconds.push(took);
    }
  }
  for (let turn = 0; turn < TURNS; turn += 1) {
    for (const [peer, { rates, waits }] of figures) {
      process.stderr.write(`${method} ${peer.name}, turn ${turn + 1} of ${TURNS}\n`);
      const before = waits.length;
      const startedAt = performance.now();
      const end = startedAt + (seconds * 1000) / TURNS;
      const client = async (): Promise<void> => {
        while (performance.now() < end) waits.push(await ask(peer, method));
      };
      await Promise.all(Array.from({ length: CLIENTS }, client));
      rates.push(((waits.length - before) * 1000) / (performance.now() - startedAt));
    }
  }
  return figures;
}

/** One request on a connection of its own; returns the milliseconds until its answer was there. */
function ask({ name, port, script }: Peer, method: 'GET' | 'PUT'): Promise<number> {
  count += 1;
  const query = 'VERSION=webjob+1.4.0&SYSTEM=bench&CLIENTID=client1&FILENAME=kilobyte';
  const put = `&RUNTYPE=snapshot&STDOUT_LENGTH=${KILOBYTE.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  const body = method === 'PUT' ? KILOBYTE : Buffer.alloc(0);
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    const asked = request({
      ...{ host: '127.0.0.1', port, method, agent: false, auth: 'client1:foo' },
      path: `/webjob/${script}?${query}${method === 'PUT' ? put : ''}`,
      headers: { 'Content-Length': body.length, ...(method === 'PUT' && { 'Job-Id': `bench_${count}` }) },
    });
    asked.on('error', reject).on('response', (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`${name} answered ${answer.statusCode}`));
      answer.resume().on('end', () => resolve(performance.now() - startedAt));
    });
    asked.end(body);
  });
}

function print(method: string, figures: Map<Peer, Figures>): void {
  const median = (values: number[]): number => quantile(values, 0.5);
  const perl = [...figures.values()][0];
  const heading = ['p50 ms', 'p99 ms', 'requests/s', 'to Perl', 'p99 ms, 8'].map((text) => text.padStart(12)).join('');
  process.stdout.write(`${`${method} 1 KiB`.padEnd(24)}${heading}\n`);
  for (const [peer, { milliseconds, rates, waits }] of figures) {
    const ratio = median(rates) / median(perl?.rates ?? []);
    const values = [median(milliseconds), quantile(milliseconds, 0.99), median(rates), ratio, quantile(waits, 0.99)];
    process.stdout.write(
      `${peer.name.padEnd(24)}${values.map((it) => it.toFixed(it < 100 ? 2 : 0).padStart(12)).join('')}\n`,
    );
  }
  process.stdout.write('\n');
}

await main();
