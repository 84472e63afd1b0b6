// A herd of clients against two servers of one locker behind a balancer, while one server is killed
// and comes back: every client arrives at its own moment, fetches a program and uploads 1 KiB, and
// retries when it is refused. Prints their results, then checks the locker: exits with 1 when an
// upload that was answered 200 is not stored byte for byte.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { walkLocker } from 'webjob-locker';
import { configure, makeSite, type Site } from '../scripts/site.ts';
import { bodyOf, Gate, live, makeTally, type Tally } from './arrivals.ts';
import { NODE_WAYS, type NodeWay, type ServerNode, startBalancer, startServerNode } from './nodes.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/herd.ts [--clients N] [--seconds N] [--way WAY] [--processes N] [--open N]
                           [--no-kill]

Sends a GET and a PUT of 1 KiB from each client through a balancer to two servers; the clients arrive evenly spread over
a period. One server is killed after a third of the period and comes back after another third.

  --clients N    number of clients (default 300; 10000 for the herd of docs/scale.md)
  --seconds N    length of the period (default 10; 60 for that herd)
  --way WAY      how a server runs the script: cgi, mod_fcgid or mod_proxy_fcgi (default mod_proxy_fcgi)
  --processes N  workers of each server behind mod_proxy_fcgi (default 2)
  --open N       maximum number of concurrent connections; further clients wait (default 300)
  --no-kill      let both servers live
`;
interface Options {
  clients: number;
  seconds: number;
  way: NodeWay;
  processes: number;
  open: number;
  kill: boolean;
}

async function release(site: Site, options: Options): Promise<Tally> {
  const { clients, seconds, way, processes, open, kill } = options;
  const tally = makeTally();
  const gate = new Gate(open);
  const nodes: ServerNode[] = [];
  for (const name of ['node_1', 'node_2']) nodes.push(await startServerNode(site, name, way, { processes }));
  const balancer = await startBalancer(site, nodes);
  const disturb = async (): Promise<void> => {
    await sleep((seconds * 1000) / 3);
    await nodes[0]?.kill();
    process.stderr.write('node_1 killed\n');
    await sleep((seconds * 1000) / 3);
    nodes[0] = await startServerNode(site, 'node_1', way, { processes, port: nodes[0]?.port });
    process.stderr.write('node_1 is back\n');
  };
  const start = performance.now();
  try {
    const lives = Array.from({ length: clients }, async (_, client) => {
      await sleep(Math.random() * seconds * 1000);
      await live({ number: client, clientId: 'client1' }, tally, gate, balancer.secondPort);
      tally.elapsedSeconds = (performance.now() - start) / 1000;
    });
    await Promise.all([...lives, ...(kill ? [disturb()] : [])]);
  } finally {
    await balancer.stop();
    for (const node of nodes) await node.stop();
  }
  return tally;
}

/** Whether everything that was acknowledged is stored; prints the contents of the locker. */
function verify(site: Site, { acknowledged, jobIds }: Tally): boolean {
  const found = { whole: 0, unfinished: 0, wrong: 0, unacknowledged: 0 };
  const missing = new Set(acknowledged.keys());
  for (const { group } of walkLocker(site.incoming)) {
    if (!group) continue;
    if (!group.has.has('rdy')) {
      found.unfinished += 1;
      continue;
    }
    const read = (extension: string): Buffer => readFileSync(join(site.incoming, `${group.name}.${extension}`));
    const [jobId, out] = [read('rdy').toString().slice(4, -1), read('out')];
    const isWhole = out.equals(bodyOf(Number(out.toString('latin1', 0, 10))));
    found[isWhole ? 'whole' : 'wrong'] += 1;
    const client = acknowledged.get(jobId);
    if (client === undefined) found.unacknowledged += 1;
    else if (isWhole && out.equals(bodyOf(client))) missing.delete(jobId);
  }
  const repeated = jobIds.length - new Set(jobIds).size;
  process.stdout.write(`
locker: ${found.whole} whole groups, ${found.wrong} wrong, ${found.unfinished} without .rdy, ${found.unacknowledged} of clients that heard no 200
acknowledged: ${acknowledged.size}, of them missing: ${missing.size}; job ids issued twice: ${repeated}
`);
  return missing.size === 0 && found.wrong === 0 && repeated === 0;
}

function print(tally: Tally, options: Options): void {
  const { answers, retries, gaveUp, getMilliseconds, putMilliseconds, elapsedSeconds } = tally;
  const { way, clients, seconds } = options;
  const lines = [
    `${way}: ${clients} clients in ${seconds} s, ${(clients / seconds).toFixed(1)}/s, a GET and a PUT each`,
    `answers: ${[...answers].map(([outcome, count]) => `${outcome} ${count}`).join(', ')}`,
    `served: ${(putMilliseconds.length / elapsedSeconds).toFixed(1)} jobs/s in ${elapsedSeconds.toFixed(1)} s`,
    `retries: ${retries}, clients that gave up: ${gaveUp}`,
    ...([['GET', getMilliseconds] as const, ['PUT', putMilliseconds] as const] as const).map(([name, values]) => {
      const [median, last] = [0.5, 0.99].map((part) => quantile(values, part).toFixed(0));
      return `${name}: p50 ${median} ms, p99 ${last} ms`;
    }),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      clients: { type: 'string', default: '300' },
      seconds: { type: 'string', default: '10' },
      way: { type: 'string', default: 'mod_proxy_fcgi' },
      processes: { type: 'string', default: '2' },
      open: { type: 'string', default: '300' },
      'no-kill': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  for (const name of ['clients', 'seconds', 'open', 'processes'] as const)
    if (!/^[1-9][0-9]{0,5}$/.test(values[name])) throw new RangeError(`--${name} is a whole number from 1`);
  const way = NODE_WAYS.find((known) => known === values.way);
  if (!way) throw new RangeError(`--way is ${NODE_WAYS.join(', ')}`);
  const numbers = { clients: Number(values.clients), seconds: Number(values.seconds), open: Number(values.open) };
  return { ...numbers, processes: Number(values.processes), way, kill: !values['no-kill'] };
}

async function main(): Promise<void> {
  const options = readOptions();
  if (!options) {
    process.stdout.write(HELP);
    return;
  }
  const site = makeSite({ resident: true });
  try {
    configure(site, { PutNameFormat: '%cid_%Y%m%d%H%M%S_%sid_%pid_%cmd' });
    const tally = await release(site, options);
    print(tally, options);
    if (!verify(site, tally)) process.exitCode = 1;
  } finally {
    site.remove();
  }
}

await main();
