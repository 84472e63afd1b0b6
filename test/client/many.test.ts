// Many runs against a server that is killed at random moments without warning: every result ends up
// on the server or in the spool, and after --flush it is on the server exactly once.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseRecord } from 'webjob-protocol';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { configure } from '../../scripts/site.ts';
import { type Ended, runWebjob } from '../support/client-job.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { mountUnion, NO_UNION, type Union } from '../support/fuse.ts';
import { part } from '../support/thorough.ts';
import { waitFor } from '../support/wait.ts';

const WANTED = Number(process.env.WEBJOB_TEST_RUNS ?? Number.NaN);
const DEFAULT_MS = 3_000;
const AT_ONCE = 4;
const GET_FAILED = 3;
const MOST_TRIES = 100;
const MOST_STARTS = 10;
/** The longest life of the server, not counting its start; longer when a run takes longer. */
const MOST_MS_ALIVE = 1_500;
const MOST_RUNS_ALIVE = 2;
/** Large enough for several writes. */
const PADDING = 200_000;
let home: ClientSite;
let union: Union | undefined;
/** SpoolDirectory of the longest test. */
let spool: string;
let server: HttpdServer | undefined;
/**
 * The duration of a run beside others under the current load of this machine, when the server is
 * not killed.
 */
let runMs: number;

before(async () => {
  home = await startClientSite({ mpm: 'prefork' });
  await home.server.stop();
  configure(home.site, { PutNameFormat: '%cid/%jid_%cmd', OverwriteExistingFiles: 'Y' });
  home.add('job.sh', `#!/bin/sh\necho "$1"\nhead -c ${PADDING} /dev/zero\necho "err of $1" >&2\n`);
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
});
after(async () => {
  union?.remove();
  await home.close();
});

/** Its port may be taken for a moment by another process's connection. */
async function start(): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      server = await startHttpd({ site: home.site, mpm: 'prefork', port: home.server.port });
      return;
    } catch (error) {
      if (tries === MOST_STARTS) throw error;
      await sleep(500);
    }
  }
}

/** Kills the server with everything it runs; incomplete writes stay. */
async function killServer({ pid, port }: HttpdServer): Promise<void> {
  process.kill(-pid, 'SIGKILL');
  await waitFor('the end of the server', async () => !(await isListening(port)));
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
    socket.on('close', () => socket.destroy()).on('connect', () => socket.destroy());
  });
}

/** Kills and restarts until `isOver`; leaves the server running. Returns the number of kills. */
async function killAtRandom(isOver: () => boolean): Promise<number> {
  for (let kills = 0; ; kills++) {
    await sleep(50 + Math.random() * Math.max(MOST_MS_ALIVE, MOST_RUNS_ALIVE * runMs));
    if (isOver()) return kills;
    if (server) await killServer(server);
    await sleep(Math.random() * 100);
    await start();
  }
}

/** Runs until there are enough results; returns how each run ended, by number. */
async function runMany(isEnough: (started: number) => boolean): Promise<Map<number, Ended>> {
  const runs = new Map<number, Ended>();
  let started = 0;
  const worker = async (): Promise<void> => {
    while (!isEnough(started)) {
      const number = started++;
      runs.set(number, await runOnce(number));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return runs;
}

/**
 * A separate process, because others ask the system whether the owner of a spooled job is alive.
 */
function runAlone(command: string[], timeLimitMs: number): Promise<Ended> {
  return home.client.start(command, { timeLimitMs }).ended;
}

/** The duration in milliseconds of each of several concurrent runs. Removes what they leave. */
async function timeRuns(): Promise<number> {
  const startedAt = performance.now();
  const runs = Array.from({ length: AT_ONCE }, () => runAlone(['job.sh', 'first'], 120_000));
  for (const { code, stderr } of await Promise.all(runs)) assert.equal(code, 0, stderr);
  rmSync(stored(), { recursive: true });
  return performance.now() - startedAt;
}

/** The limit for a run, which also tries each spooled job. */
const mostMs = (): number => Math.ceil(Math.max(60_000, 40 * runMs));

/** Runs a job. When the server was down at the GET, nothing ran, so it is tried again. */
async function runOnce(number: number): Promise<Ended> {
  for (let tries = 1; ; tries++) {
    const ended = await runAlone(['job.sh', `run-${number}`], mostMs());
    if (ended.code !== GET_FAILED || tries === MOST_TRIES) return ended;
  }
}

/** The directory of the one client's uploads. */
const stored = (): string => join(home.site.incoming, 'client1');

/** The numbers of runs that have arrived completely, each as often as it is stored. */
function arrivals(): number[] {
  const names = readdirSync(stored()).filter((name) => name.endsWith('.rdy'));
  return names.map((name) => {
    const read = (extension: string): string => readFileSync(join(stored(), name.replace(/rdy$/, extension)), 'latin1');
    const [, number] = /^run-(\d+)\n\0+$/.exec(read('out')) ?? [];
    assert.equal(read('out').length, `run-${number}\n`.length + PADDING, name);
    assert.equal(read('err'), `err of run-${number}\n`);
    const { Jid, CommandLine } = parseRecord(read('env')).fields;
    assert.deepEqual([CommandLine, name], [`job.sh run-${number}`, `${Jid}_job.sh.rdy`]);
    return Number(number);
  });
}

/**
 * The locker considers the name of a killed upload abandoned when nothing was written there for an
 * hour.
 */
function letAnHourPass(): void {
  const earlier = Date.now() / 1000 - 3700;
  for (const name of readdirSync(stored())) utimesSync(join(stored(), name), earlier, earlier);
}

const PLACES = {
  'the file system of this machine': [undefined, () => home.client.root],
  'unionfs-fuse, where a file that is open cannot vanish': [
    NO_UNION,
    () => {
      union = mountUnion();
      return union.path;
    },
  ],
} as const;
for (const [place, [skip, open]] of part(Object.entries(PLACES), 1)) {
  it(`every result is on the server or in the spool, and once on the server after --flush: ${place}`, {
    skip,
  }, async () => {
    spool = join(open(), 'spool');
    await everyResultArrives();
  });
}

async function everyResultArrives(): Promise<void> {
  rmSync(stored(), { recursive: true, force: true });
  home.configure({
    SpoolDirectory: spool,
    PutTimeLimit: '10',
    GetTimeLimit: '10',
    RetryLimit: '1',
    RetryDelay: '1',
  });
  await start();
  runMs = await timeRuns();
  const deadline = Date.now() + Math.max(DEFAULT_MS, 2 * MOST_RUNS_ALIVE * runMs);
  let isOver = false;
  const killing = killAtRandom(() => isOver);
  const runs = await runMany((started) => (WANTED ? started >= WANTED : Date.now() > deadline)).finally(() => {
    isOver = true;
  });
  const kills = await killing;
  const tally = [0, 5].map((code) => [...runs.values()].filter((run) => run.code === code).length);
  const waiting = readdirSync(spool);
  process.stderr.write(
    `${runs.size} runs, ${kills} kills: ${tally[0]} delivered, ${tally[1]} kept, ${waiting.length} wait\n`,
  );
  const others = [...runs].filter(([, { code }]) => code !== 0 && code !== 5);
  assert.deepEqual(others, [], 'every run either delivered or kept its result');
  assert.ok(kills > 0 && runs.size >= AT_ONCE);
  letAnHourPass();
  const flushed = await runWebjob(['--flush', '--file', home.client.conf], {
    timeLimitMs: Math.ceil(60_000 + Math.max(1000, runMs) * waiting.length),
  });
  assert.equal(flushed.code, 0, flushed.stderr);
  const numbers = arrivals().sort((a, b) => a - b);
  assert.deepEqual(
    numbers,
    Array.from({ length: runs.size }, (_, number) => number),
  );
  assert.deepEqual([readdirSync(spool), home.client.left()], [[], []]);
}
