// Rollouts: in stages that stop after too many failures, and with a limit of concurrent clients. A
// hundred clients ask the real server, and webjobctl decides between their requests.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { addCommand } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { askWorker } from '../support/locker-worker.ts';
import { parseLines } from '../support/operator.ts';
import { plantPast } from '../support/past-site.ts';
import { formatHead } from '../support/wire-request.ts';

const CLIENTS = Array.from({ length: 100 }, (_, index) => `c${index}`);
let its: LockerSite;

beforeEach(() => {
  its = makeLockerSite({ RequireUser: 'N', BatchCommand: 'batch', UseGMT: 'Y' });
  const folder = join(its.site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'groups'), `all = ${CLIENTS.join(' ')}\n`);
});
afterEach(() => its.close());

interface Batch {
  clientId: string;
  jobId: string;
}

/** Lets each client fetch its batch; returns those that got an assignment. */
async function askAll(clients: readonly string[] = CLIENTS): Promise<Batch[]> {
  const given: Batch[] = [];
  for (const clientId of clients) {
    const head = Buffer.from(formatHead('GET', { clientId, fileName: 'batch', user: clientId }), 'latin1');
    const answer = await askWorker(head, its.site.propertiesFile);
    assert.equal(answer.status, 200);
    const jobId = answer.headers.get('job-id') ?? '';
    if (answer.body.includes('\nrun ')) given.push({ clientId, jobId });
  }
  return given;
}

/** A client has run its batch: the job in it, and the batch itself. */
async function report({ clientId, jobId }: Batch, exitCode = 0): Promise<void> {
  await its.run({ clientId, fileName: 'host.sh', record: { KidStatus: String(exitCode), OuterJid: jobId } as never });
  await putBatch({ clientId, jobId });
}

async function putBatch({ clientId, jobId }: Batch): Promise<void> {
  assert.equal((await its.put({ clientId, fileName: 'batch', jobId })).status, 200);
}

async function assign(...words: string[]): Promise<void> {
  const { exitCode, stderr } = await its.webjobctl('assign', 'host.sh', '--to', 'all', ...words);
  assert.equal(exitCode, 0, stderr);
}

async function advance(): Promise<[code: number | null, text: string]> {
  const { exitCode, text } = await its.webjobctl('assign', 'advance');
  return [exitCode, text];
}

async function countStates(): Promise<Record<string, number>> {
  const { text } = await its.webjobctl('--json', 'assign', 'show', '1');
  const [{ states, clients } = {}] = parseLines<{ states?: Record<string, number>; clients?: number }>(text);
  const counted = Object.entries(states ?? {}).filter(([, count]) => count > 0);
  assert.equal(
    counted.reduce((sum, [, count]) => sum + count, 0),
    clients,
  );
  return Object.fromEntries(counted);
}

describe('a rollout', () => {
  it('reaches one stage after the other, each when the one before has its results', async () => {
    await assign('--stages', '10%,50%,100%', '--stop-at-failure-rate', '20%');
    const first = await askAll();
    assert.equal(first.length, 10);
    assert.deepEqual(await advance(), [0, ''], 'no result yet');
    for (const batch of first.slice(1)) await report(batch);
    assert.deepEqual(await advance(), [0, ''], 'one is missing');
    assert.deepEqual(await askAll(), []);
    await report(first[0] as Batch, 3);
    assert.deepEqual(await advance(), [0, 'assignment 1: stage 2 is open (1 of 10 results are bad)\n']);
    assert.equal((await askAll()).length, 40);
    assert.deepEqual(await countStates(), { waiting: 50, fetched: 40, done: 9, failed: 1 });
    const { text } = await its.webjobctl('assign', 'show', '1', '--state', 'failed');
    assert.match(text, /^stage {5}2 of 3: 10%, 50%, 100%$/m);
  });

  it('stops when too many clients fail, before clients of later stages fetch it', async () => {
    await assign('--stages', '10%,100%', '--stop-at-failure-rate', '5%');
    const first = await askAll();
    for (const [index, batch] of first.entries()) await report(batch, index < 2 ? 1 : 0);
    assert.deepEqual(await advance(), [1, 'assignment 1 is stopped in stage 1: 2 of 10 results are bad\n']);
    assert.deepEqual(await askAll(), []);
    assert.deepEqual(await advance(), [0, '']);
    assert.deepEqual(await countStates(), { waiting: 90, done: 8, failed: 2 });
    const record = readFileSync(join(its.site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl'), 'utf8');
    assert.match(record, /"state":"paused","reason":"stopped: 2 of 10 results are bad"/);
  });

  it('continues without missing clients when stages have a time limit', async () => {
    await assign('--stages', '10%,100%', '--stage-time', '1s');
    const first = await askAll();
    await report(first[0] as Batch);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    const { text } = await its.webjobctl('--json', 'assign', 'advance');
    assert.deepEqual(JSON.parse(text), { assignment: '1', step: 'opened', stage: 2, bad: 0, results: 1 });
    assert.equal((await askAll()).length, 90);
  });

  const rows: [words: string[], message: RegExp][] = [
    [['--stages', '10%,5%,100%'], /stages are percentages, each larger than the one before; the last one is 100%/],
    [['--stages', '10%,50%'], /the last one is 100%/],
    [['--stages', '10%,200%'], /a part is 0% to 100%/],
    [['--stop-at-failure-rate', '5%'], /--stop-at-failure-rate and --stage-time require --stages/],
    [['--limit', '0'], /a limit is 1 to 9999 clients/],
  ];
  for (const [words, message] of rows)
    it(`refuses ${words.join(' ')}`, async () => {
      const { exitCode, stderr } = await its.webjobctl('assign', 'host.sh', '--to', 'all', ...words);
      assert.equal(exitCode, 2);
      assert.match(stderr, message);
    });
});

describe('a limit on concurrent clients', () => {
  it('admits that many clients at once, and others when a batch was uploaded', async () => {
    await assign('--limit', '3');
    const first = await askAll();
    assert.equal(first.length, 3);
    assert.deepEqual(await askAll(), []);
    const [thief] = CLIENTS.filter((clientId) => !first.some((batch) => batch.clientId === clientId));
    await putBatch({ clientId: thief ?? '', jobId: first[1]?.jobId ?? '' });
    assert.deepEqual(await askAll(), [], 'a job id can be guessed');
    await putBatch(first[1] as Batch);
    const next = await askAll();
    assert.equal(next.length, 1);
    for (const batch of [first[0], first[2], ...next]) await putBatch(batch as Batch);
    assert.equal((await askAll()).length, 3);
    assert.deepEqual(await countStates(), { waiting: 93, lost: 4, fetched: 3 });
  });

  it('gives a place to another client after an hour', async () => {
    await assign('--limit', '1');
    const { execFileSync } = await import('node:child_process');
    const [first] = await askAll();
    const place = join(its.site.base, 'dynamic', 'assignments', 'running', '1', '0');
    execFileSync('ln', ['-sfn', `${Math.floor(Date.now() / 1000) - 3700}:${first?.clientId}:${first?.jobId}`, place]);
    assert.equal((await askAll()).length, 1);
    assert.deepEqual(await askAll(), []);
  });
});

it('the index of claims is read line by line, without malformed lines', async () => {
  await assign('first');
  const given = await askAll(CLIENTS.slice(0, 3));
  assert.equal(given.length, 3);
  const file = join(its.site.base, 'dynamic', 'assignments', 'taken', '1.server_1');
  const due = readFileSync(file, 'latin1').split(' ', 1)[0];
  const wrong = [`${due} a/b 1 job`, `${due} x9 1`, `${due} x9 1 job more`, 'x x9 1 job', ` ${due} x9 1 job`, ''];
  writeFileSync(file, `${readFileSync(file, 'latin1')}${wrong.join('\n')}\n${due} c50 1 server_1_1085355126_00723`);
  assert.deepEqual(await countStates(), { waiting: 96, fetched: 4 });
});

describe('the jobs of a batch', () => {
  it('belong to the assignments that their run records name', async () => {
    await assign('first');
    await assign('second');
    const rows = await its.readJson<{ assignment: string; command: string; args: string[] }>('assign', 'list');
    const idOf = (word: string): string => rows.findLast(({ args }) => args[0] === word)?.assignment ?? '';
    const [given] = await askAll(CLIENTS.slice(0, 1));
    assert.ok(given);
    const { clientId, jobId } = given;
    // The first batch is lost on its way.
    const due = (await its.readJson<{ client: string; due: string }>('assign', 'show', idOf('second'))).find(
      ({ client }) => client === clientId,
    )?.due;
    const assignment = `${idOf('second')}@${Date.parse(due ?? '') / 1000}`;
    const ran = await its.run({
      clientId,
      fileName: 'host.sh',
      record: { OuterJid: jobId, Assignment: assignment } as never,
    });
    await putBatch({ clientId, jobId });
    const stateOf = async (word: string): Promise<unknown> => {
      const shown = await its.readJson<{ client: string; state: string; jobId: string }>('assign', 'show', idOf(word));
      const { state, jobId: job } = shown.find(({ client }) => client === clientId) ?? { state: '', jobId: '' };
      return [state, job];
    };
    assert.deepEqual(await stateOf('second'), ['done', ran]);
    assert.deepEqual(await stateOf('first'), ['lost', null]);
  });

  /** Three assignments of one command to c0, whose client reports nothing but exit codes. */
  async function giveThree(): Promise<{ batch: Batch; due: string[]; states: () => Promise<unknown[]> }> {
    addCommand(its.site, 'c0', 'host.sh', '#!/bin/sh\n');
    for (const word of ['first', 'second', 'third']) await assign(word);
    const ids = ['1', '2', '3'];
    const [batch] = await askAll(CLIENTS.slice(0, 1));
    assert.ok(batch);
    const of = async (id: string): Promise<{ state: string; due: string } | undefined> =>
      (await its.readJson<{ client: string; state: string; due: string }>('assign', 'show', id)).find(
        ({ client }) => client === batch.clientId,
      );
    const due = await Promise.all(ids.map(async (id) => String(Date.parse((await of(id))?.due ?? '') / 1000)));
    const states = async (): Promise<unknown[]> => await Promise.all(ids.map(async (id) => (await of(id))?.state));
    return { batch, due, states };
  }
  const run = () => its.run({ clientId: 'c0', fileName: 'host.sh' });

  it('are judged by its exit codes, even when a run was fetched and never came back', async () => {
    const { batch, due, states } = await giveThree();
    await run();
    await run();
    await its.get('c0', 'host.sh');
    assert.deepEqual(await states(), ['fetched', 'fetched', 'fetched'], 'any of them may be the one that is missing');
    const out = [3, 0, 0].map((exit, at) => `assignment ${at + 1} due ${due[at]} exit ${exit}\n`).join('');
    await its.put({ clientId: batch.clientId, fileName: 'batch', jobId: batch.jobId, out });
    assert.deepEqual(await states(), ['failed', 'done', 'done']);
  });

  it('are not those of a concurrent batch', async () => {
    const { states } = await giveThree();
    await run();
    await run();
    await assign('fourth');
    assert.equal((await askAll(CLIENTS.slice(0, 1))).length, 1);
    await run();
    assert.deepEqual(await states(), ['fetched', 'fetched', 'fetched'], 'the last run is that of the fourth');
  });

  it('are not those that a user ran by hand meanwhile', async () => {
    await assign('first');
    const [batch] = await askAll(CLIENTS.slice(0, 1));
    const [{ due = '' } = {}] = (await its.readJson<{ client: string; due: string }>('assign', 'show', '1')).filter(
      ({ client }) => client === 'c0',
    );
    await run();
    await run();
    const out = `assignment 1 due ${Date.parse(due) / 1000} exit 3\n`;
    await its.put({ clientId: 'c0', fileName: 'batch', jobId: batch?.jobId ?? '', out });
    assert.equal((await countStates()).failed, 1);
  });

  it('are done when the batch delivered them, even if they cannot be told from others', async () => {
    const { due, batch, states } = await giveThree();
    for (let count = 0; count < 4; count++) await run();
    const out = due.map((one, at) => `assignment ${at + 1} due ${one} exit 0\n`).join('');
    await its.put({ clientId: batch.clientId, fileName: 'batch', jobId: batch.jobId, out });
    assert.deepEqual(await states(), ['done', 'done', 'done']);
    const [, row] = await its.readJson<{ jobId: string | null }>('assign', 'show', '1');
    assert.equal(row?.jobId, null);
  });

  it('are told apart by when they ended, when they began within one second', async () => {
    const { due, batch, states } = await giveThree();
    const epoch = Number(batch.jobId.split('_')[2]);
    for (const [index, KidStatus] of ['3', '0', '0'].entries())
      plantPast(its.site, 'UTC', [
        {
          ...{ clientId: 'c0', jobId: `server_1_${epoch}_0000${9 - index}`, fields: { KidStatus } },
          at: new Date((epoch + 1 + index) * 1000),
        },
      ]);
    const out = due.map((one, at) => `assignment ${at + 1} due ${one} exit 0\n`).join('');
    await its.put({ clientId: batch.clientId, fileName: 'batch', jobId: batch.jobId, out });
    assert.deepEqual(await states(), ['failed', 'done', 'done']);
  });

  it('are known before it has come back, when all of them are there', async () => {
    const { states } = await giveThree();
    for (let count = 0; count < 3; count++) await run();
    assert.deepEqual(await states(), ['done', 'done', 'done']);
  });
});
