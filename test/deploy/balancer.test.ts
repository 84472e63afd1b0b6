// Two servers of one locker behind a balancer, with the shipped files for both: it does not matter
// which node answers, the client's address is known and cannot be faked, and a strict client gets
// what it expects.
import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseLogLine } from 'webjob-protocol';
import { makeSite } from '../../scripts/site.ts';
import { formatBasics, makeRoot, startApache } from '../support/deployment-httpd.ts';
import { BALANCER, NODE_MODULES, shipped, startBalancer, startNode } from '../support/deployment-nodes.ts';
import { ask, getHead, putHead } from '../support/deployment-wire.ts';
import { askStrictly, zeros } from '../support/strict-client.ts';

const CLIENT = '127.0.0.3';

describe('two servers behind a balancer', async () => {
  const site = makeSite();
  const nodes = [await startNode(site, 'node_1'), await startNode(site, 'node_2')];
  const balancer = await startBalancer(site, nodes);
  const [port = 0] = balancer.ports;
  const hosts = join(site.base, 'config/nph-webjob/hosts.access');
  mkdirSync(join(hosts, '..'), { recursive: true });
  after(async () => {
    for (const server of [balancer, ...nodes]) await server.stop();
    site.remove();
  });
  beforeEach(() => {
    writeFileSync(hosts, 'client1=127.0.0.1,127.0.0.3\n');
    writeFileSync(site.logFile, '');
    for (const name of readdirSync(site.incoming)) rmSync(join(site.incoming, name));
  });
  const logged = () =>
    readFileSync(site.logFile, 'latin1')
      .split('\n')
      .filter(Boolean)
      .map((line) => parseLogLine(line));
  const addressOf = () => logged().map(({ remoteAddress }) => remoteAddress);

  it('alternate: a GET reaches one and its PUT the other', async () => {
    const served = [];
    for (let run = 0; run < 3; run++) {
      const got = await ask(port, getHead(), CLIENT);
      const jobId = got.headers.get('job-id') ?? '';
      assert.equal((await ask(port, `${putHead(5, { headers: [`Job-Id: ${jobId}`] })}hello`, CLIENT)).status, 200);
      // A third request, so that the next run begins with the other node.
      await ask(port, getHead({ command: 'none' }), CLIENT);
      const ready = readdirSync(site.incoming).find((name) => {
        return name.endsWith('.rdy') && readFileSync(join(site.incoming, name), 'utf8') === `Jid=${jobId}\n`;
      });
      served.push([jobId.slice(0, 6), ready?.split('_').slice(2, 4).join('_')]);
    }
    for (const [getNode, putNode] of served) assert.notEqual(getNode, putNode);
    assert.equal(new Set(served.map(([node]) => node)).size, 2, 'GETs went to both');
    assert.equal(readdirSync(site.incoming).length, 12);
    assert.deepEqual(new Set(addressOf()), new Set([CLIENT]));
  });

  it('answer a strict client with bodies of any size, both ways', async () => {
    for (const bytes of [0, 1000, 1_000_000, 50_000_000]) {
      const taken = await askStrictly({ port, head: putHead(bytes), body: zeros(bytes) });
      assert.deepEqual([taken.status, taken.reason, taken.headers.get('content-length')], [200, 'OK', '0']);
      const file = readdirSync(site.incoming).find((name) => name.endsWith('.out')) ?? '';
      assert.equal(statSync(join(site.incoming, file)).size, bytes);
      for (const name of readdirSync(site.incoming)) rmSync(join(site.incoming, name));
      writeFileSync(join(site.profiles, 'client1/large'), Buffer.alloc(bytes));
      const got = await askStrictly({ port, head: getHead({ command: 'large' }) });
      assert.deepEqual([got.status, got.body.length], [200, bytes]);
      assert.match(got.headers.get('job-id') ?? '', /^node_[12]_/);
    }
  });

  it('refuse large bodies with their reasons, which the balancer passes on', async () => {
    const body = () => zeros(20_000_000);
    const linkTest = await askStrictly({ port, head: putHead(20_000_000, {}, 'linktest'), body: body() });
    assert.deepEqual([linkTest.status, linkTest.reason], [251, 'Link Test OK']);
    const mismatch = putHead(20_000_000).replace('STDERR_LENGTH=0', 'STDERR_LENGTH=1');
    const refused = await askStrictly({ port, head: mismatch, body: body() });
    assert.deepEqual([refused.status, refused.reason], [456, 'Content-Length Mismatch']);
    const stranger = await askStrictly({ port, head: putHead(20_000_000, { password: 'x' }), body: body() });
    assert.deepEqual([stranger.status, stranger.reason], [401, 'Unauthorized']);
    const signature = 'sha256 0123456789';
    writeFileSync(join(site.profiles, 'client1/host.sh.sig'), `${signature}\n`);
    const signed = await askStrictly({ port, head: getHead() });
    assert.equal(signed.headers.get('webjob-payload-signature'), signature);
    rmSync(join(site.profiles, 'client1/host.sh.sig'));
  });

  describe('the address of a client', () => {
    it('is the one that reaches the balancer, whatever the client claims', async () => {
      const forgeries = [
        ['X-Forwarded-For: 127.0.0.4'],
        ['X-Forwarded-For: 127.0.0.4', `X-Forwarded-For: ${BALANCER}`],
        [`X-Forwarded-For: 127.0.0.4, ${BALANCER}, ${BALANCER}`],
        ['x-forwarded-for:127.0.0.4'],
        ['X-Forwarded-For: 127.0.0.4', 'Connection: close, X-Forwarded-For'],
        ['Connection: X-Forwarded-For', 'Connection: close'],
        ['X-Forwarded-For: ,127.0.0.4,'],
        ['X-Forwarded-For: none of your business'],
        ['Forwarded: for=127.0.0.4', 'X-Real-IP: 127.0.0.4', 'Client-IP: 127.0.0.4', 'X-Forwarded-Host: 127.0.0.4'],
      ];
      writeFileSync(hosts, 'client1=127.0.0.4\n');
      for (const headers of forgeries) {
        assert.equal((await ask(port, getHead({ headers }), CLIENT)).status, 472, headers.join(' | '));
      }
      assert.deepEqual(
        addressOf(),
        forgeries.map(() => CLIENT),
      );
    });

    it("is the balancer's own for a client on its machine, whatever the client claims", async () => {
      writeFileSync(hosts, 'client1=127.0.0.4\n');
      const request = getHead({ headers: ['X-Forwarded-For: 127.0.0.4'] });
      assert.equal((await ask(port, request, BALANCER)).status, 472);
      assert.deepEqual(addressOf(), [BALANCER]);
    });

    it('is the one that reaches a node directly, whatever the client claims', async () => {
      writeFileSync(hosts, 'client1=127.0.0.4\n');
      for (const [index, node] of nodes.entries()) {
        for (const header of ['127.0.0.4', `127.0.0.4, ${BALANCER}`]) {
          const request = getHead({ headers: [`X-Forwarded-For: ${header}`] });
          assert.equal((await ask(node.ports[0] ?? 0, request, CLIENT)).status, 472, `node ${index}: ${header}`);
        }
      }
      assert.deepEqual(addressOf(), [CLIENT, CLIENT, CLIENT, CLIENT]);
    });

    it('is what hosts.access decides by', async () => {
      writeFileSync(hosts, `client1=${CLIENT}\n`);
      assert.equal((await ask(port, getHead(), CLIENT)).status, 200);
      assert.equal((await ask(port, getHead(), '127.0.0.1')).status, 472);
      writeFileSync(hosts, `client1=${BALANCER}\n`);
      assert.equal((await ask(port, getHead(), CLIENT)).status, 472);
      assert.deepEqual(addressOf(), [CLIENT, '127.0.0.1', CLIENT]);
    });
  });

  it('stays the same when the balancer skips a node that is up and does not work', async () => {
    const file = join(site.root, 'node_1/webjob/.htaccess');
    const text = readFileSync(file);
    appendFileSync(file, 'NoSuchDirective on\n');
    await untilAlternation(port, false);
    for (let run = 0; run < 4; run++) assert.equal((await ask(port, getHead())).status, 200);
    writeFileSync(file, text);
    await untilAlternation(port, true);
  });

  describe('a balancer with a node that is down', () => {
    before(async () => {
      await nodes[0]?.stop();
    });

    it('sends every request to the other node, with its body', async () => {
      for (let run = 0; run < 4; run++) {
        assert.equal((await askStrictly({ port, head: getHead() })).status, 200);
        const bytes = run === 0 ? 20_000_000 : 1000;
        assert.equal((await askStrictly({ port, head: putHead(bytes), body: zeros(bytes) })).status, 200);
      }
      assert.equal(logged().length, 8);
      assert.ok(readdirSync(site.incoming).every((name) => name.includes('_node_2_')));
    });
  });

  describe('a balancer without a working node', () => {
    before(async () => {
      await nodes[1]?.stop();
    });

    it('answers a strict client with 503', async () => {
      const answer = await askStrictly({ port, head: putHead(20_000_000), body: zeros(20_000_000) });
      assert.equal(answer.status, 503);
    });
  });
});

/** Waits until both nodes answer in turn, or only one does. */
async function untilAlternation(port: number, both: boolean): Promise<void> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(50)) {
    const ids = [];
    for (let run = 0; run < 3; run++) ids.push((await ask(port, getHead())).headers.get('job-id')?.slice(0, 6));
    const nodes = new Set(ids);
    if (both ? nodes.size === 2 && !nodes.has(undefined) : nodes.size === 1 && nodes.has('node_2')) return;
  }
  throw new Error(both ? 'a node that works again is not used' : 'a node that does not work is used');
}

describe('apache/webjob-behind-proxy.conf', () => {
  it('is refused without the addresses of the balancers', async () => {
    const root = makeRoot();
    const configurationFile = join(root, 'httpd.conf');
    const start = startApache({
      serverRoot: root,
      configurationFile,
      errorLog: join(root, 'error.log'),
      portCount: 1,
      configure: (ports) =>
        writeFileSync(
          configurationFile,
          `${formatBasics(root, ports, NODE_MODULES)}\nInclude "${shipped}/webjob-behind-proxy.conf"\n`,
        ),
    });
    await assert.rejects(start, /Define WEBJOB_BALANCER_ADDRESSES/);
    rmSync(root, { recursive: true, force: true });
  });
});
