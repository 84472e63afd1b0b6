// A fleet of original clients and ours that fetches its batches from two servers on one locker,
// while the servers are killed at random moments, runs of one client overlap, and the clocks of the
// servers are set: every assignment is run at most once for each due time, an assignment that was
// not run is never shown as done, and the numbers always add up. WEBJOB_TEST_CLIENTS=500 sets the
// size of the fleet.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { custodyPath, segmentFolder } from 'webjob-locker';
import { startHttpd } from '../../scripts/httpd.ts';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { findProcesses, linesOfWay, MODULES_OF_WAY, startResident } from '../../scripts/resident.ts';
import { addCommand, addUser, configure, makeSite, type Site } from '../../scripts/site.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { type FakeClock, makeFakeClock, needsFakeClock } from '../support/clock-fake.ts';
import { readRecords } from '../support/custody-record.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';
import { WEBJOB } from '../support/program-runs.ts';

const COUNT = Number(process.env.WEBJOB_TEST_CLIENTS ?? 12);
/** One in this many clients is ours. */
const OURS = 4;
const AT_ONCE = 4;
const SERVERS = ['server_1', 'server_2'] as const;
const SETTINGS = { BatchCommand: 'batch', PutNameFormat: '%cid/%jid_%cmd', OverwriteExistingFiles: 'Y' };
const NO_CURL = spawnSync('curl', ['--version']).error ? 'no curl' : false;

type ServerId = (typeof SERVERS)[number];

/** A server that can be killed with all its processes, and is restarted at the same port. */
interface Node {
  port: number;
  clock: FakeClock;
  start(): Promise<void>;
  kill(): Promise<void>;
}

let site: Site;
let nodes: Record<ServerId, Node>;
/** The runs: a line `CLIENT NUMBER` for each. */
let runs: string;
const clients = Array.from({ length: COUNT }, (_, index) => `h${index}`);
const isOurs = (client: string): boolean => Number(client.slice(1)) % OURS === 0;
const pick = <Item>(items: readonly Item[]): Item => items[Math.floor(Math.random() * items.length)] as Item;

before(async () => {
  obtainHtpasswd();
  site = makeSite({ resident: true });
  configure(site, { ...SETTINGS, ServerId: 'server_1' });
  runs = join(site.root, 'runs');
  writeFileSync(runs, '');
  const bin = join(site.root, 'bin');
  mkdirSync(bin);
  copyFileSync(join(import.meta.dirname, '..', 'support', 'c-like-webjob.sh'), join(bin, 'webjob'));
  chmodSync(join(bin, 'webjob'), 0o755);
  nodes = { server_1: await makeNode(site, 'server_1'), server_2: await makeNode(makeSecond(), 'server_2') };
  for (const client of clients) makeClient(client);
});
after(async () => {
  for (const node of Object.values(nodes ?? {})) await node.kill();
  site?.remove();
});

/** The same site, by settings of its own. */
function makeSecond(): Site {
  const second = { ...site, propertiesFile: `${site.propertiesFile}.second` };
  configure(second, { ...SETTINGS, ServerId: 'server_2' });
  const custody = custodyPath(join(site.base, 'logfiles'), 'server_2');
  writeFileSync(custody, '', { mode: 0o644 });
  mkdirSync(segmentFolder(custody), 0o755);
  const user = findWebUser();
  if (user && process.getuid?.() === 0)
    for (const path of [custody, segmentFolder(custody)]) chownSync(path, user.uid, user.gid);
  return second;
}

/** The first server runs a script for each request, the second one has a persistent worker. */
async function makeNode(own: Site, id: ServerId): Promise<Node> {
  const clock = makeFakeClock(join(site.root, `clock-${id}`));
  const variables = Object.entries(clock.environment).filter(([name]) => name !== 'TZ');
  const isStaying = id === 'server_2';
  const way = linesOfWay('mod_proxy_fcgi', own, site.root);
  const stops: (() => Promise<unknown>)[] = [];
  const start = async (): Promise<void> => {
    if (isStaying) {
      const resident = await startResident(own, [], '', [
        'env',
        ...variables.map(([name, value]) => `${name}=${value}`),
      ]);
      stops.push(() => resident.stop());
    }
    const server = await startHttpd({
      site: own,
      mpm: isStaying ? 'event' : 'prefork',
      ...(node.port > 0 && { port: node.port }),
      ...(isStaying && { modules: MODULES_OF_WAY.mod_proxy_fcgi, before: way.before }),
      after: isStaying ? way.after : variables.map(([name, value]) => `SetEnv ${name} "${value}"`).join('\n'),
    });
    node.port = server.port;
    stops.push(() => server.stop());
    pid = server.pid;
  };
  let pid = 0;
  const kill = async (): Promise<void> => {
    if (pid === 0) return;
    killIfThere(-pid);
    pid = 0;
    if (isStaying) for (const one of findProcesses(own)) killIfThere(one);
    for (const stop of stops.splice(0)) await stop();
  };
  const node: Node = { port: 0, clock, start, kill };
  await start();
  return node;
}

/** The process may have ended by itself since it was found. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

const confOf = (client: string, server: ServerId): string => join(site.root, 'clients', client, `${server}.conf`);

function makeClient(client: string): void {
  const folder = join(site.root, 'clients', client);
  mkdirSync(join(folder, 'temp'), { recursive: true });
  addUser(site, client, 'x');
  addCommand(site, client, 'tally.sh', `#!/bin/sh\necho "${client} $1" >> '${runs}'\n`);
  for (const server of SERVERS) {
    const url = `http://127.0.0.1:${nodes[server].port}/webjob/nph-webjob.cgi`;
    const own = isOurs(client) ? ['URLAuthType=basic', `TempDirectory=${folder}/temp`] : [];
    const lines = [
      `ClientId=${client}`,
      `URLGetURL=${url}`,
      `URLPutURL=${url}`,
      `URLUsername=${client}`,
      'URLPassword=x',
    ];
    writeFileSync(confOf(client, server), `${[...lines, ...own].join('\n')}\n`, { mode: 0o600 });
  }
}

/** Runs the batch of a client as cron does; resolves with the exit code. */
async function ask(client: string): Promise<number | null> {
  const conf = confOf(client, Math.random() < 0.2 ? 'server_1' : 'server_2');
  const words = isOurs(client)
    ? [process.execPath, WEBJOB, '--batch', '-f', conf]
    : ['webjob', '-e', '-f', conf, 'batch'];
  const env = { PATH: `${join(site.root, 'bin')}:${process.env.PATH}`, HOME: site.root };
  const [program = '', ...args] = words;
  const child = spawn(program, args, { env, stdio: 'ignore', cwd: site.root });
  return await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
}

/**
 * Runs the batch of every client once, in any order, several at a time; some clients have two
 * overlapping runs. Calls `between` with the number of clients so far.
 */
async function askAll(between: (asked: number) => Promise<void> = async () => {}): Promise<void> {
  const queue = clients.toSorted(() => Math.random() - 0.5);
  let asked = 0;
  const work = async (): Promise<void> => {
    for (let client = queue.pop(); client !== undefined; client = queue.pop()) {
      await Promise.all(Math.random() < 1 / 3 ? [ask(client), ask(client)] : [ask(client)]);
      asked += 1;
      await between(asked);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

const control = (words: readonly string[], environment = {}) =>
  runWebjobctl(['-c', site.propertiesFile, ...words], { environment });

interface Row {
  client: string;
  state: string;
}

/** Returns the state of each client. Asserts that the numbers add up. */
async function show(id: string, environment = {}): Promise<Row[]> {
  const { stdout, stderr } = await control(['--json', 'assign', 'show', id], environment);
  const [head, ...rows] = parseLines(stdout) as [{ clients: number; states: Record<string, number> }, ...Row[]];
  const counts = new Map<string, number>();
  for (const { state } of rows) counts.set(state, (counts.get(state) ?? 0) + 1);
  assert.deepEqual(
    [rows.length, head?.clients, new Set(rows.map(({ client }) => client)).size],
    [COUNT, COUNT, COUNT],
    stderr,
  );
  for (const [state, count] of Object.entries(head.states))
    assert.equal(count, counts.get(state) ?? 0, `${id}: ${state}`);
  return rows;
}

/**
 * Kills one server after the other, and sets clocks, until told to stop; returns the number of
 * kills.
 */
async function trouble(isOver: () => boolean): Promise<{ kills: number; clocks: number }> {
  const counts = { kills: 0, clocks: 0 };
  while (!isOver() || counts.kills === 0) {
    await sleep(1000 + Math.random() * 5000);
    const node = nodes[pick(SERVERS)];
    if (Math.random() < 0.3) {
      node.clock.set(pick(['+0', '+40m', '-40m', '+3s', '-3s']));
      counts.clocks += 1;
      continue;
    }
    await node.kill();
    await sleep(Math.random() * 300);
    await node.start();
    counts.kills += 1;
  }
  for (const node of Object.values(nodes)) node.clock.set('+0');
  return counts;
}

/** Checks an assignment repeatedly until told to stop; returns the number of checks. */
async function look(isOver: () => boolean): Promise<number> {
  let looks = 0;
  for (; !isOver(); looks += 1) {
    await show(pick(ONCE));
    await sleep(5000);
  }
  return looks;
}

/**
 * The numbers of assignments that are due once; the last of them is cancelled while clients fetch
 * batches.
 */
const ONCE = ['1', '2', '3'];
const CANCELLED = '3';
const AGAIN = '4';

it('a fleet runs every assignment once for each due time, or reports it as lost', {
  ...needsFakeClock,
  ...(NO_CURL && { skip: NO_CURL }),
  timeout: 3_600_000,
}, async (t) => {
  for (const id of ONCE) assert.equal((await control(['assign', 'tally.sh', id, '--to', 'h*'])).code, 0);
  assert.equal((await control(['assign', 'tally.sh', AGAIN, '--to', 'h*', '--every', '1m'])).code, 0);
  let isOver = false;
  let fetchedBefore: string[] = [];
  const asking = askAll(async (asked) => {
    if (asked !== Math.ceil(COUNT / 2)) return;
    assert.equal((await control(['assign', 'cancel', CANCELLED])).code, 0);
    fetchedBefore = (await show(CANCELLED)).filter(({ state }) => state !== 'cancelled').map(({ client }) => client);
  });
  const parts = [asking, trouble(() => isOver), look(() => isOver)] as const;
  // Whichever ends first, also by an error, ends the others.
  for (const one of parts)
    one.then(
      () => {
        isOver = true;
      },
      () => {
        isOver = true;
      },
    );
  await Promise.allSettled(parts);
  const [, { kills, clocks }, looks] = await Promise.all(parts);
  // Interrupted uploads are delivered, and clients that found no server try again.
  await askAll();
  for (const client of clients.filter(isOurs))
    spawnSync(process.execPath, [WEBJOB, '--flush', '-f', confOf(client, 'server_2')], { cwd: site.root });

  const ran = new Map<string, number>();
  for (const line of readFileSync(runs, 'utf8').split('\n').slice(0, -1)) ran.set(line, (ran.get(line) ?? 0) + 1);
  const given = new Map<string, number>();
  for (const server of SERVERS)
    for (const record of readRecords(custodyPath(join(site.base, 'logfiles'), server))) {
      if (record.event !== 'batch') continue;
      const { clientId, orders } = record as unknown as { clientId: string; orders: { id: string; due: number }[] };
      for (const { id, due } of orders) {
        const key = `${clientId} ${id} ${due}`;
        assert.ok(!given.has(key), `${key} was given away twice`);
        given.set(key, 1);
        given.set(`${clientId} ${id}`, (given.get(`${clientId} ${id}`) ?? 0) + 1);
      }
    }
  for (const [key, count] of ran)
    assert.ok(count <= (given.get(key) ?? 0), `${key} ran ${count} times and was given ${given.get(key)} times`);
  // A day later no job is in progress.
  const later = { ...makeFakeClock(join(site.root, 'clock-later')) };
  later.set('+25h');
  const totals: Record<string, number> = {};
  for (const id of ONCE)
    for (const { client, state } of await show(id, later.environment)) {
      const count = ran.get(`${client} ${id}`) ?? 0;
      const what = `${id} at ${client} is ${state} and ran ${count} times`;
      assert.ok(['done', 'lost', 'failed', ...(id === CANCELLED ? ['cancelled'] : [])].includes(state), what);
      if (state === 'done') assert.equal(count, 1, what);
      if (state === 'cancelled') assert.equal(count, 0, what);
      if (state === 'lost' || state === 'failed') assert.ok(count <= 1, what);
      const name = state === 'lost' && count === 1 ? 'lost, and ran' : state;
      totals[name] = (totals[name] ?? 0) + 1;
      if (fetchedBefore.includes(client) && id === CANCELLED) assert.notEqual(state, 'cancelled', what);
    }
  const due = [...given.keys()].filter((key) => key.split(' ').length === 3 && key.split(' ')[1] === AGAIN).length;
  const counted = [...ran].filter(([key]) => key.endsWith(` ${AGAIN}`)).reduce((sum, [, count]) => sum + count, 0);
  t.diagnostic(
    JSON.stringify({
      clients: COUNT,
      kills,
      clocks,
      looks,
      fetchedBeforeCancel: fetchedBefore.length,
      ...totals,
      again: { due, ran: counted },
    }),
  );
  assert.ok(kills > 0 && looks > 0);
  assert.ok((totals.done ?? 0) >= COUNT / 2, JSON.stringify(totals));
});
