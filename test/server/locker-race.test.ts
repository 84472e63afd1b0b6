// Several real processes that use one name at the same moment: which one wins, and that the result
// is one complete upload.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatReady, groupPaths, STREAMS } from '../../cgi/locker/index.ts';
import { contentOf, type Order, type Result } from '../support/locker-depositor.ts';
import { type Racer, startRacer, startRacers } from '../support/locker-racers.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { age } from '../support/locker-upload.ts';

const RACERS = 8;
const ROUNDS = 40;
const SIZE = 20_000;

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'webjob-race-'));
});
after(() => rmSync(folder, { recursive: true }));

function orderFor(name: string, writer: number | string, overwrite = false): Order {
  return { base: join(folder, name), jobId: `server_1_1085355126_0000${writer}`, size: SIZE, overwrite };
}

/** The winner's upload is complete, and there is nothing else of that name. */
function assertWhole(order: Order): void {
  const paths = groupPaths(order.base);
  for (const stream of STREAMS) assert.ok(readFileSync(paths[stream]).equals(contentOf(order)), stream);
  assert.equal(readFileSync(paths.rdy, 'latin1'), formatReady(order.jobId));
  const name = order.base.slice(folder.length + 1);
  const files = readdirSync(folder).filter((file) => file.startsWith(`${name}.`));
  assert.deepEqual(files.sort(), ['env', 'err', 'out', 'rdy'].map((extension) => `${name}.${extension}`).sort());
}

function assertAmong(results: Result[], allowed: readonly string[]): void {
  for (const { outcome, message } of results) assert.ok(allowed.includes(outcome), `${outcome}: ${message}`);
}

/** Leaves a lock like a writer that was killed more than an hour ago. */
function abandonLock(base: string): void {
  writeFileSync(`${base}.lck`, 'Jid=killed\n');
  age([`${base}.lck`]);
}

describe(`${RACERS} processes with one name`, () => {
  let racers: Racer[];
  before(async () => {
    racers = await startRacers(RACERS);
  });
  after(() => Promise.all(racers.map((racer) => racer.stop())));

  /** Every process deposits under one name at once; returns which of them stored. */
  async function race(name: string, overwrite: boolean): Promise<{ results: Result[]; winners: Order[] }> {
    const orders = racers.map((_, writer) => orderFor(name, writer, overwrite));
    const results = await Promise.all(racers.map((racer, writer) => racer.deposit(orders[writer] as Order)));
    return { results, winners: orders.filter((_, writer) => results[writer]?.outcome === 'stored') };
  }

  it('store one upload, and the others learn that it exists', async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const { results, winners } = await race(`new${round}`, false);
      assertAmong(results, ['stored', 'exists']);
      assert.equal(winners.length, 1);
      assertWhole(winners[0] as Order);
    }
  });

  it('take over an abandoned lock exactly once', async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      abandonLock(join(folder, `old${round}`));
      const { results, winners } = await race(`old${round}`, false);
      // A writer fails whose lock a late remover has moved aside for a moment, just as it was about
      // to announce.
      assertAmong(results, ['stored', 'exists', 'failed']);
      assert.ok(winners.length <= 1, JSON.stringify(results));
      if (winners[0]) assertWhole(winners[0]);
    }
  });

  it('replace each other, and the final upload is complete and acknowledged', async () => {
    for (let round = 0; round < ROUNDS / 4; round += 1) {
      const { results, winners } = await race('replaced', true);
      assertAmong(results, ['stored', 'exists']);
      const jobId = readFileSync(join(folder, 'replaced.rdy'), 'latin1').trim().slice(4);
      const last = winners.find((order) => order.jobId === jobId);
      assert.ok(last, `${jobId} was not told that it is stored`);
      assertWhole(last);
    }
  });
});

describe('a process that comes late to an abandoned lock', { skip: NO_STRACE }, () => {
  for (const { when, name } of [
    { when: 'while the faster one is at work', name: 'working' },
    { when: 'when the faster one is done', name: 'done' },
  ]) {
    it(`does not win as well ${when}`, async () => {
      const order = orderFor(name, 'fast');
      abandonLock(order.base);
      // The last file it looks at before it considers the lock abandoned.
      const lastLook = `${order.base}.env.new`;
      const trace = join(folder, `trace-${name}`);
      const late = await startRacer(inject(trace, '?statx,?newfstatat,?lstat:signal=SIGSTOP:when=1', [lastLook]));
      const fast = await startRacer();
      try {
        const lateResult = late.deposit(orderFor(name, 'late'));
        const stopped = await untilStopped(trace);
        try {
          if (name === 'done') assert.equal((await fast.deposit(order)).outcome, 'stored');
          else writeFileSync(`${order.base}.lck`, formatReady(order.jobId));
        } finally {
          process.kill(stopped, 'SIGCONT');
        }
        const { outcome, message } = await lateResult;
        assert.equal(outcome, 'exists', message);
        if (name === 'done') assertWhole(order);
        else assert.equal(readFileSync(`${order.base}.lck`, 'latin1'), formatReady(order.jobId));
        assert.deepEqual(
          readdirSync(folder).filter((file) => /\.lck\.\d+$/.test(file)),
          [],
        );
      } finally {
        await Promise.all([late.stop(), fast.stop()]);
      }
    });
  }
});

/** Waits until a traced process is stopped by SIGSTOP; resolves with its id. */
async function untilStopped(trace: string): Promise<number> {
  for (let waited = 0; waited < 20_000; waited += 20) {
    const found = /^(\d+) +--- stopped by SIGSTOP ---$/m.exec(readFileSync(trace, 'latin1'))?.[1];
    if (found !== undefined) return Number(found);
    await sleep(20);
  }
  throw new Error('nothing stopped');
}
