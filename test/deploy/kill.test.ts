// Two servers of one locker behind a balancer under load, one of them killed with all of its
// scripts, and started again: every upload answered with 200 is on disk byte for byte, and all else
// was refused explicitly.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeSite } from '../../scripts/site.ts';
import type { Apache } from '../support/deployment-httpd.ts';
import { startBalancer, startNode } from '../support/deployment-nodes.ts';
import { ask, getHead, putHead } from '../support/deployment-wire.ts';
import type { StrictAnswer } from '../support/strict-client.ts';

/** The least number of requests; a fast machine sends more until the killed server is back. */
const JOBS = 40;
const CLIENTS = 6;
const TRIES = 100;
/** What a balancer answers for a server that went away, or when none is left. */
const REFUSALS = [502, 503];

interface Deposit {
  jobId: string;
  sha256: string;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('a server that is killed under load', async () => {
  const site = makeSite();
  const start = (name: string, port?: number): Promise<Apache> => startNode(site, name, { settings: '', port });
  const nodes = [await start('node_1'), await start('node_2')];
  const balancer = await startBalancer(site, nodes);
  const acknowledged: Deposit[] = [];
  const bodies = new Map<string, string>();
  const issued: string[] = [];
  const refusals: string[] = [];
  after(async () => {
    for (const server of [balancer, ...nodes]) await server.stop();
    site.remove();
  });

  /** A request as a client with retries makes it. */
  async function insist(request: string): Promise<StrictAnswer> {
    for (let tried = 0; tried < TRIES; tried++) {
      const answer = await ask(balancer.ports[0] ?? 0, request).catch((error: Error) => error);
      if (!(answer instanceof Error) && !REFUSALS.includes(answer.status)) return answer;
      refusals.push(answer instanceof Error ? answer.message : String(answer.status));
      await sleep(100);
    }
    throw new Error(`no answer: ${refusals.slice(-TRIES).join(' ')}`);
  }

  async function doJob(): Promise<void> {
    const got = await insist(getHead());
    assert.equal(got.status, 200, got.reason);
    const jobId = got.headers.get('job-id') ?? '';
    issued.push(jobId);
    const body = randomBytes(1500).toString('hex');
    bodies.set(jobId, sha256(Buffer.from(body)));
    const put = await insist(putHead(body.length, { headers: [`Job-Id: ${jobId}`] }) + body);
    assert.equal(put.status, 200, put.reason);
    acknowledged.push({ jobId, sha256: sha256(Buffer.from(body)) });
  }

  async function reach(count: number): Promise<void> {
    for (const deadline = Date.now() + 60_000; acknowledged.length < count; await sleep(5))
      assert.ok(Date.now() < deadline, `${acknowledged.length} jobs in place of ${count}`);
  }

  async function killAndRestart(): Promise<void> {
    await reach(JOBS / 4);
    const [port] = nodes[0]?.ports ?? [];
    await nodes[0]?.kill();
    await reach(acknowledged.length + JOBS / 4);
    nodes[0] = await start('node_1', port);
  }

  before(async () => {
    let begun = 0;
    let isDisturbed = true;
    const disturbed = killAndRestart().finally(() => {
      isDisturbed = false;
    });
    const clients = Array.from({ length: CLIENTS }, async () => {
      while (begun++ < JOBS || isDisturbed) await doJob();
    });
    await Promise.all([disturbed, ...clients]);
  });

  const groups = (): string[] =>
    readdirSync(site.incoming)
      .filter((name) => name.endsWith('.rdy'))
      .map((name) => join(site.incoming, name.slice(0, -4)));
  const jobOf = (group: string): string => readFileSync(`${group}.rdy`, 'utf8').slice(4, -1);

  it('loses nothing that was acknowledged', () => {
    assert.ok(acknowledged.length >= JOBS);
    const stored = new Map(groups().map((group) => [jobOf(group), sha256(readFileSync(`${group}.out`))]));
    for (const { jobId, sha256: digest } of acknowledged) assert.equal(stored.get(jobId), digest, jobId);
  });

  it('leaves no upload that looks complete and is not, acknowledged or not', () => {
    for (const group of groups()) {
      assert.equal(sha256(readFileSync(`${group}.out`)), bodies.get(jobOf(group)), group);
      for (const stream of ['err', 'env']) assert.equal(readFileSync(`${group}.${stream}`).length, 0);
    }
  });

  it('never issues a job id twice, so no name is taken', () => {
    assert.equal(new Set(issued).size, issued.length);
    for (const node of ['node_1', 'node_2'])
      assert.ok(
        issued.some((jobId) => jobId.startsWith(`${node}_`)),
        node,
      );
    assert.equal(new Set(acknowledged.map(({ jobId }) => jobId)).size, acknowledged.length);
  });

  it('is used again when it is back', async () => {
    const served = new Set<string>();
    for (const deadline = Date.now() + 60_000; Date.now() < deadline && served.size < 2; await sleep(50)) {
      served.add((await insist(getHead())).headers.get('job-id')?.slice(0, 6) ?? '');
    }
    assert.deepEqual([...served].sort(), ['node_1', 'node_2']);
  });

  it('costs clients an explicit refusal, or nothing', () => {
    // Clients of the killed server got 502; a refused connection is retried at the other server,
    // with the body.
    const broken = refusals.filter((refusal) => !REFUSALS.includes(Number(refusal)));
    assert.ok(broken.length <= CLIENTS, broken.join(' '));
    assert.ok(refusals.length < acknowledged.length, `${refusals.length} refusals`);
  });
});
