// A herd of clients against two servers of one locker behind a balancer, while one server is killed
// and comes back: every client arrives at its own moment, fetches a program and uploads 1 KiB, and
// retries when it is refused. Prints their results, then checks the locker: exits with 1 when an
// upload that was answered 200 is not stored byte for byte.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { walkLocker } from 'webjob-locker';
import { configure, makeSite, type Site } from '../scripts/site.ts';
import { NODE_WAYS, type NodeWay, type ServerNode, startBalancer, startServerNode } from './nodes.ts';
import { quantile } from './quantile.ts';

const HELP = `Usage: node bench/herd.ts [--clients N] [--seconds N] [--way WAY] [--processes N] [--open N]
                           [--no-kill]

Clients that arrive evenly within some seconds, each a GET and a PUT of 1 KiB through a balancer before two servers. One server is
killed after a third of the time and comes back after another.

  --clients N    how many (default 300; 10000 for the herd of docs/scale.md)
  --seconds N    within how many they arrive (default 10; 60)
  --way WAY      cgi, mod_fcgid or mod_proxy_fcgi: how a server runs the script (default mod_proxy_fcgi)
  --processes N  behind mod_proxy_fcgi, for each server (default 2)
  --open N       connections at once at most; who finds none free waits (default 300)
  --no-kill      both servers live
`;
const TRIES = 30;
const PAUSE_MS = 1_000;
const TIME_LIMIT_MS = 60_000;
const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=herd&CLIENTID=client1&FILENAME=host.sh';
const PUT_QUERY = `${QUERY}&RUNTYPE=snapshot&STDOUT_LENGTH=1024&STDERR_LENGTH=0&STDENV_LENGTH=0`;

interface Tally {
  /** Counts by status, or by the code of a broken connection. */
  answers: Map<string, number>;
  retries: number;
  /** From the arrival to the last byte, including the delays before retries. */
  getMilliseconds: number[];
  putMilliseconds: number[];
  jobIds: string[];
  /** Numbers of clients whose PUT was answered 200, by job id. */
  acknowledged: Map<string, number>;
  gaveUp: number;
  /** From the first arrival to the last answer. */
  elapsedSeconds: number;
}

interface Reply {
  status: number;
  jobId: string;
}

/** Limits the number of concurrent requests. */
class Gate {
  readonly #waiting: (() => void)[] = [];
  #free: number;
  constructor(free: number) {
    this.#free = free;
  }
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}

/** The upload of a client: 1 KiB that is different for every number. */
function bodyOf(client: number): Buffer {
  const digest = createHash('sha512').update(String(client)).digest('hex');
  return Buffer.from(`${String(client).padStart(10)} ${digest.repeat(8)}`.slice(0, 1024));
}

function ask(port: number, method: 'GET' | 'PUT', body: Buffer, jobId?: string): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const path = `/webjob/nph-webjob.cgi?${method === 'GET' ? QUERY : PUT_QUERY}`;
    const asked = request({
      ...{ host: '127.0.0.1', port, method, path, agent: false, auth: 'client1:foo', timeout: TIME_LIMIT_MS },
      headers: { 'Content-Length': body.length, ...(jobId !== undefined && { 'Job-Id': jobId }) },
    });
    asked.on('timeout', () => asked.destroy(Object.assign(new Error('no answer'), { code: 'no answer' })));
    asked.on('error', reject).on('response', (answer) => {
      answer.on('error', reject).on('end', () => {
        resolve({ status: answer.statusCode ?? 0, jobId: String(answer.headers['job-id'] ?? '') });
      });
      answer.resume();
    });
    asked.end(body);
  });
}

/** Repeats a request until it is answered 200; undefined when the client gives up. */
async function insist(tally: Tally, gate: Gate, send: () => Promise<Reply>): Promise<Reply | undefined> {
  for (let tried = 0; tried < TRIES; tried++) {
    if (tried > 0) {
      tally.retries += 1;
      await sleep(PAUSE_MS * (0.5 + Math.random()));
    }
    const reply = await gate.pass(send).catch((error: NodeJS.ErrnoException) => error);
    const outcome = reply instanceof Error ? String(reply.code ?? reply.message) : String(reply.status);
    tally.answers.set(outcome, (tally.answers.get(outcome) ?? 0) + 1);
    if (!(reply instanceof Error) && reply.status === 200) return reply;
  }
  tally.gaveUp += 1;
  return undefined;
}

async function live(client: number, tally: Tally, gate: Gate, port: number): Promise<void> {
  let start = performance.now();
  const got = await insist(tally, gate, () => ask(port, 'GET', Buffer.alloc(0)));
  if (!got) return;
  tally.getMilliseconds.push(performance.now() - start);
  tally.jobIds.push(got.jobId);
  start = performance.now();
  if (!(await insist(tally, gate, () => ask(port, 'PUT', bodyOf(client), got.jobId)))) return;
  tally.putMilliseconds.push(performance.now() - start);
  tally.acknowledged.set(got.jobId, client);
}

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
  const tally: Tally = {
    ...{ answers: new Map(), retries: 0, getMilliseconds: [], putMilliseconds: [], jobIds: [] },
    ...{ acknowledged: new Map(), gaveUp: 0, elapsedSeconds: 0 },
  };
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
      await live(client, tally, gate, balancer.secondPort);
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
