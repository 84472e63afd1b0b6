// webjobctl alert, killed repeatedly: at random moments, and when a receiver has a message but
// webjobctl does not know it yet. Each beginning and end of a problem reaches every receiver in one
// message; a repeated message has the same id and says that it is one.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HttpSink, hang, startHttpSink, status } from '../support/alert-sink.ts';
import { type LockerSite, makeLockerSite, WEBJOBCTL } from '../support/locker-site.ts';

const KILLS = Number(process.env.WEBJOB_TEST_KILLS ?? 12);
const seed = Number(process.env.WEBJOB_TEST_SEED ?? Date.now() % 1e6);

let its: LockerSite;
let sinks: HttpSink[];
let child: ChildProcess | undefined;

before(async () => {
  its = makeLockerSite();
  mkdirSync(join(its.site.base, 'config', 'nph-webjob'), { recursive: true });
  sinks = [await startHttpSink(), await startHttpSink()];
});
after(async () => {
  for (const sink of sinks) await sink.close();
  its.close();
});

/** Numbers from 0 to less than 1, the same for the same seed. */
function makeRandom(): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The file of rules with this many problems; all others end. */
function setProblems(names: ReadonlySet<number>): void {
  const channels = sinks.map(({ origin }) => `tell webhook ${origin}/`);
  const lines = [...names].map((name) => `expect c${name} none.sh every=1h`);
  writeFileSync(
    join(its.site.base, 'config', 'nph-webjob', 'expect'),
    `${[...channels, ...lines, 'retry 1s', 'timeout 1s'].join('\n')}\n`,
  );
}

/**
 * Runs once and kills after some milliseconds; returns the exit code, or undefined when it was
 * killed.
 */
async function run(killAfterMs?: number): Promise<number | undefined> {
  child = spawn(process.execPath, [WEBJOBCTL, '--config', its.site.propertiesFile, 'alert'], { stdio: 'ignore' });
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child?.kill('SIGKILL'), killAfterMs);
  const [code] = await once(child, 'exit');
  clearTimeout(timer);
  return code ?? undefined;
}

interface Letter {
  id: string;
  attempt: number;
  events: { event: string; problem: string; at: string }[];
}

describe(`webjobctl alert that is killed ${KILLS} times (seed ${seed})`, () => {
  it('loses no message, and repeats one only with the same id', async () => {
    const random = makeRandom();
    const open = new Set<number>();
    let next = 0;
    setProblems(open);
    const startedAt = Date.now();
    await run();
    const usual = Date.now() - startedAt;
    for (let kills = 0; kills < KILLS; ) {
      for (const name of [...open]) if (random() < 0.4) open.delete(name);
      if (random() < 0.8) open.add(next++);
      setProblems(open);
      for (const { answers } of sinks) {
        answers.length = 0;
        const way = random();
        // The receiver has the message, but does not answer.
        if (way < 0.4) answers.push(() => child?.kill('SIGKILL'));
        else if (way < 0.5) answers.push(status(500));
        else if (way < 0.55) answers.push(hang);
      }
      if ((await run(random() * usual * 1.5)) === undefined) kills++;
    }
    for (const { answers } of sinks) answers.length = 0;
    setProblems(new Set());
    let code = await run();
    for (let tries = 0; code !== 0 && tries < 20; tries++) {
      await sleep(3000);
      code = await run();
    }
    assert.equal(code, 0, 'everything is sent in the end');
    for (const { received } of sinks) checkReceived(received.map(({ body }) => JSON.parse(body) as Letter));
    assert.equal(
      ...(sinks.map(({ received }) => distinct(received.map(({ body }) => JSON.parse(body)))) as [number, number]),
    );
  });
});

function distinct(letters: readonly Letter[]): number {
  return new Set(letters.map(({ id }) => id)).size;
}

function checkReceived(letters: readonly Letter[]): void {
  const seen = new Map<string, Letter>();
  for (const letter of letters) {
    const before = seen.get(letter.id);
    if (before) {
      assert.deepEqual(letter.events, before.events, 'a repetition says the same');
      assert.ok(letter.attempt > before.attempt, 'a repetition says that it may be one');
    }
    seen.set(letter.id, letter);
  }
  const began = new Map<string, boolean>();
  for (const { event, problem } of [...seen.values()].flatMap(({ events }) => events)) {
    assert.notEqual(began.get(problem) ?? false, event === 'begun', `${problem}: ${event} twice, or out of order`);
    began.set(problem, event === 'begun');
  }
  assert.ok(
    [...began.values()].every((isOpen) => !isOpen),
    'each problem that began was told to have ended',
  );
}
