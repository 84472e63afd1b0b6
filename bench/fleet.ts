// A day of a fleet, scaled down in time: clients arrive spread over the hour, an outage stops both
// servers, and the clients return; meanwhile an operator's work goes on: the ledger is refreshed,
// metrics are written, people read the view, and the new evidence is verified. Prints how long
// clients waited, the backlog after the outage, what grows by how much, and what each part costs in
// a day. Fails when verify has findings.
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { configure, makeSite, type Site } from '../scripts/site.ts';
import { Gate, live, makeTally, type Tally } from './arrivals.ts';
import { run } from './cost.ts';
import { findFamily } from './footprint.ts';
import { type ServerNode, startBalancer, startServerNode } from './nodes.ts';
import { parseCount } from './options.ts';
import { quantile } from './quantile.ts';
import { ask, cpuMilliseconds, startWorker, VIEW } from './view-worker.ts';

const HELP = `Usage: node bench/fleet.ts [--fleet N] [--rate N] [--seconds N] [--outage N] [--processes N] [--open N] [--readers N]

A fleet whose clients run a job every hour, each at its own moment, against two servers of one locker behind a balancer. Time runs
some times as fast as in the day that is measured: arrivals, and the pauses between the operator's commands. Nothing else is scaled:
programs, disks and clients take the time they take.

  --fleet N      how many clients (default 100000)
  --rate N       how many times as fast time runs (default 4)
  --seconds N    how long clients arrive (default 300, which is 20 minutes of the day)
  --outage N     for how many seconds both servers are dead, from the middle on (default 15, one minute of the day)
  --processes N  persistent workers for each server (default 2)
  --open N       connections at once at most (default 300)
  --readers N    people who read the view, a page a second each (default 2)
Needs dist/ and Linux.
`;
const CONTROL = join(import.meta.dirname, '..', 'bin', 'webjobctl');
/** Pauses in seconds of the day: between metrics, between refreshes, and between verifications. */
const PAUSES = { metrics: 60, index: 300, verify: 600 };
const TICK_MS = 10;
/** The findings of verify about PUTs that were not answered. */
const LEFT_BY_KILLED = ['incomplete', 'lock-abandoned'];

interface Options {
  fleet: number;
  rate: number;
  seconds: number;
  outage: number;
  processes: number;
  open: number;
  readers: number;
}

/** Processor time by part, in seconds. */
type Costs = Map<string, number>;

/** One look at the clients. */
interface Look {
  /** Seconds since the first arrival. */
  at: number;
  /** Clients that have arrived and have not finished. */
  waiting: number;
}

function addCost(costs: Costs, part: string, seconds: number): void {
  costs.set(part, (costs.get(part) ?? 0) + seconds);
}

/** Processor time of processes and their descendants so far, also of those that have ended. */
function processSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of findFamily(pids)) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
      ticks += fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    } catch {
      // It has just ended.
    }
  }
  return (ticks * TICK_MS) / 1000;
}

/** Two servers that can be killed together and come back. */
class Servers {
  readonly #site: Site;
  readonly #processes: number;
  readonly #costs: Costs;
  nodes: ServerNode[] = [];

  constructor(site: Site, processes: number, costs: Costs) {
    this.#site = site;
    this.#processes = processes;
    this.#costs = costs;
  }

  async start(): Promise<void> {
    const ports = this.nodes.map(({ port }) => port);
    this.nodes = [];
    for (const [index, name] of ['node_1', 'node_2'].entries())
      this.nodes.push(
        await startServerNode(this.#site, name, 'mod_proxy_fcgi', { processes: this.#processes, port: ports[index] }),
      );
  }

  async kill(): Promise<void> {
    this.count();
    for (const node of this.nodes) await node.kill();
  }

  async stop(): Promise<void> {
    for (const node of this.nodes) await node.stop();
  }

  count(): void {
    for (const { pids } of this.nodes) addCost(this.#costs, 'servers', processSeconds(pids));
  }
}

/** Work that goes on until the day is over. */
class Day {
  readonly costs: Costs;
  /** Seconds that each run of a command took. */
  readonly runs = new Map<string, number[]>();
  readonly pageMilliseconds: number[] = [];
  readonly looks: Look[] = [];
  arrived = 0;
  finished = 0;
  #isOver = false;
  readonly #site: Site;
  readonly #begin = performance.now();
  readonly #looking: NodeJS.Timeout;

  constructor(site: Site, costs: Costs) {
    this.#site = site;
    this.costs = costs;
    this.#looking = setInterval(() => {
      this.looks.push({ at: this.elapsed, waiting: this.arrived - this.finished });
    }, 500);
  }

  /** Seconds since the first arrival. */
  get elapsed(): number {
    return (performance.now() - this.#begin) / 1000;
  }

  end(): void {
    this.#isOver = true;
    clearInterval(this.#looking);
  }

  /** Runs webjobctl. Throws when verify finds more than what killed servers leave. */
  async control(...words: string[]): Promise<void> {
    const command = [process.execPath, CONTROL, '--config', this.#site.propertiesFile, '--json', ...words];
    const { cpuSeconds, seconds, output } = await run(command);
    for (const [, kind = ''] of words[0] === 'verify' ? output.matchAll(/"finding":"([\w-]+)"/g) : [])
      if (!LEFT_BY_KILLED.includes(kind)) throw new Error(`verify: ${output}`);
    const name = words.slice(0, 2).join(' ');
    addCost(this.costs, name, cpuSeconds);
    this.runs.set(name, [...(this.runs.get(name) ?? []), seconds]);
  }

  /** The first error of work that goes on beside the clients. */
  failure: unknown;

  /** Does work beside the clients; what fails is reported at the end. */
  async beside(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.failure ??= error;
    }
  }

  /** Runs a command again and again, with a pause in seconds. */
  async repeat(pause: number, ...words: string[]): Promise<void> {
    for (let next = pause; !this.#isOver; next = Math.max(next, this.elapsed) + pause) {
      while (!this.#isOver && this.elapsed < next) await sleep(100);
      if (!this.#isOver) await this.control(...words);
    }
  }

  async readPages(socket: string, environment: Record<string, string>): Promise<void> {
    const pages = ['/', '/jobs', '/clients', '/commands'];
    for (let turn = 0; !this.#isOver; turn++) {
      const { milliseconds } = await ask(socket, { ...environment, PATH_INFO: pages[turn % pages.length] ?? '/' });
      this.pageMilliseconds.push(milliseconds);
      await sleep(Math.max(0, 1000 - milliseconds));
    }
  }
}

async function measure(site: Site, options: Options): Promise<{ day: Day; tally: Tally }> {
  const { rate, readers, processes } = options;
  const socket = join(site.root, 'view-socket');
  const environment = {
    REQUEST_METHOD: 'GET',
    SCRIPT_NAME: '/webjob-view',
    SERVER_PROTOCOL: 'HTTP/1.1',
    REMOTE_USER: 'alice',
    QUERY_STRING: '',
    WEBJOB_PROPERTIES_FILE: site.propertiesFile,
    WEBJOB_VIEW_DIRECTORY: join(site.root, 'view'),
  };
  const costs: Costs = new Map();
  const servers = new Servers(site, processes, costs);
  await servers.start();
  const balancer = await startBalancer(site, servers.nodes);
  const view = await startWorker(VIEW, socket);
  const day = new Day(site, costs);
  try {
    const work = [
      day.repeat(PAUSES.metrics / rate, 'metrics', '--textfile', join(site.root, 'metrics.prom')),
      day.repeat(PAUSES.index / rate, 'index'),
      day.repeat(PAUSES.verify / rate, 'verify', '--since', '10m'),
      ...Array.from({ length: readers }, () => day.readPages(socket, environment)),
    ].map((one) => day.beside(one));
    const tally = await release(day, servers, balancer.secondPort, options);
    day.end();
    await Promise.all(work);
    if (day.failure) throw day.failure;
    addCost(costs, 'balancer', processSeconds([balancer.pid]));
    addCost(costs, 'view', cpuMilliseconds(view) / 1000);
    servers.count();
    await day.control('verify');
    return { day, tally };
  } finally {
    day.end();
    view.kill();
    await balancer.stop();
    await servers.stop();
  }
}

/** Lets the clients arrive; in the middle both servers are dead for a while. */
async function release(day: Day, servers: Servers, port: number, options: Options): Promise<Tally> {
  const { fleet, seconds, outage, open } = options;
  const [tally, gate] = [makeTally(), new Gate(open)];
  const count = countJobs(options);
  const fail = async (): Promise<void> => {
    await sleep((seconds * 1000) / 2);
    await servers.kill();
    process.stderr.write('both servers killed\n');
    await sleep(outage * 1000);
    await servers.start();
    process.stderr.write('both servers are back\n');
  };
  const lives = Array.from({ length: count }, async (_, number) => {
    await sleep((number / count) * seconds * 1000);
    day.arrived++;
    await live({ number, clientId: `client${number % fleet}` }, tally, gate, port);
    day.finished++;
    tally.elapsedSeconds = day.elapsed;
  });
  await Promise.all([...lives, fail()]);
  return tally;
}

const countJobs = ({ fleet, rate, seconds }: Options): number => Math.round((fleet / 3600) * rate * seconds);

/** Bytes and files below a path. */
function sizeOf(path: string): { bytes: number; files: number } {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (!stats) return { bytes: 0, files: 0 };
  if (!stats.isDirectory()) return { bytes: stats.size, files: 1 };
  const all = readdirSync(path).map((name) => sizeOf(join(path, name)));
  return all.reduce((sum, one) => ({ bytes: sum.bytes + one.bytes, files: sum.files + one.files }), {
    bytes: 0,
    files: 0,
  });
}

function print(site: Site, options: Options, day: Day, tally: Tally): void {
  const { fleet, rate, seconds } = options;
  const jobs = tally.putMilliseconds.length;
  say(
    `${fleet} clients, a job an hour each, ${rate} times as fast: ${(countJobs(options) / seconds).toFixed(0)} a second`,
  );
  say(
    `${jobs} jobs in ${tally.elapsedSeconds.toFixed(0)} s; ${tally.gaveUp} clients gave up, ${tally.retries} retries`,
  );
  say(`answers: ${[...tally.answers].map(([outcome, count]) => `${outcome} ${count}`).join(', ')}\n`);
  say('ms        p50     p95     p99    most');
  printTail('GET', tally.getMilliseconds);
  printTail('PUT', tally.putMilliseconds);
  printTail('view', day.pageMilliseconds);
  printBacklog(options, day.looks);
  say('\ngrowth      bytes a job           files');
  for (const name of ['incoming', 'logfiles', 'index']) {
    const { bytes, files } = sizeOf(join(site.base, name));
    say(`${name.padEnd(12)}${(bytes / jobs).toFixed(0).padStart(11)}${String(files).padStart(16)}`);
  }
  say('\nprocessor time    ms a job  of a core, all day  longest run s');
  for (const [part, cpu] of day.costs) {
    const longest = day.runs.get(part)?.reduce((most, took) => Math.max(most, took), 0);
    const share = `${((100 * cpu) / (seconds * rate)).toFixed(1)} %`;
    const cells = [((1000 * cpu) / jobs).toFixed(2).padStart(8), share.padStart(20)];
    say(`${part.padEnd(18)}${cells.join('')}${(longest?.toFixed(1) ?? '').padStart(15)}`);
  }
  say(`\nload ${loadavg()[0]?.toFixed(1)}`);
}

const say = (text: string): boolean => process.stdout.write(`${text}\n`);

function printTail(name: string, milliseconds: number[]): void {
  const cells = [0.5, 0.95, 0.99, 1].map((part) => quantile(milliseconds, part).toFixed(0).padStart(8));
  say(`${name.padEnd(5)}${cells.join('')}`);
}

function printBacklog({ seconds, outage }: Options, looks: readonly Look[]): void {
  const before = looks.filter(({ at }) => at < seconds / 2).map(({ waiting }) => waiting);
  const usual = quantile(before, 0.95);
  const most = looks.reduce((sum, { waiting }) => Math.max(sum, waiting), 0);
  const back = seconds / 2 + outage;
  const drained = looks.find(({ at, waiting }) => at > back && waiting <= Math.max(usual, 1));
  const then = drained ? `as before ${(drained.at - back).toFixed(0)} s after the outage` : 'never as before';
  say(`\nclients at once: ${usual} before the outage (p95), ${most} at most, ${then}`);
}

function readOptions(): Options | undefined {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const { values } = parseArgs({
    options: {
      fleet: text('100000'),
      rate: text('4'),
      seconds: text('300'),
      outage: text('15'),
      processes: text('2'),
      open: text('300'),
      readers: text('2'),
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const numbers = Object.entries(values).flatMap(([name, value]) =>
    typeof value === 'string' ? [[name, parseCount(name, value)] as const] : [],
  );
  return Object.fromEntries(numbers) as unknown as Options;
}

async function main(): Promise<void> {
  const options = readOptions();
  if (!options) {
    process.stdout.write(HELP);
    return;
  }
  const site = makeSite({ resident: true });
  try {
    const logs = join(site.base, 'logfiles');
    configure(site, {
      PutNameFormat: '%Y%m%d/%H%M/%cid_%S_%sid_%pid_%cmd',
      RequireMatch: 'N',
      SiteServers: `node_1:${logs},node_2:${logs}`,
    });
    mkdirSync(join(site.profiles, 'common', 'commands'), { recursive: true });
    writeFileSync(join(site.profiles, 'common', 'commands', 'host.sh'), '#!/bin/sh\nhostname\n');
    const { day, tally } = await measure(site, options);
    print(site, options, day, tally);
  } finally {
    site.remove();
  }
}

await main();
