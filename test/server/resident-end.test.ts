// A persistent worker that gets SIGTERM at a bad moment loses no client that has reached it, and
// ends.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createResponder } from 'node-cgi-compat/responder';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { startResident } from '../../scripts/resident.ts';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { FastCgiClient, formatRequest } from '../support/fastcgi-client.ts';
import { get, getVariables, put, putVariables } from '../support/resident-requests.ts';

let site: Site;
before(() => {
  site = makeSite({ resident: true });
});
after(() => site.remove());

async function until(isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(10)) if (await isTrue()) return true;
  return false;
}

for (const args of [[], ['--processes', '2']]) {
  describe(`SIGTERM while hooks hold the process ${args.join(' ')}`, () => {
    it('waits for requests queued at the socket, too', async () => {
      const WAITING = 6;
      const go = join(site.incoming, `go${args.length}`);
      const nameOf = (index: number): string => `job_${args.length}_${index}`;
      // Each takes longer than the process waits for late clients.
      const command = `until [ -e ${go} ]; do sleep 0.05; done; sleep 0.3`;
      const hook = { PutHookEnable: 'Y', PutHookCommandLine: command, PutHookTimeLimit: '60' };
      configure(site, { PutNameFormat: '%jid', ...hook });
      const resident = await startResident(site, args);
      const ask = (index: number) => put(resident.socket, site, Buffer.from('x'), nameOf(index));
      const isHeld = (index: number): boolean => existsSync(join(site.incoming, `${nameOf(index)}.out`));
      const held: ReturnType<typeof ask>[] = [];
      // One after the other, because a busy process accepts no second one.
      for (const index of args.length === 0 ? [0] : [0, 1]) {
        held.push(ask(index));
        assert.ok(await until(() => isHeld(index)));
      }
      const waiting = Array.from({ length: WAITING }, (_, index) => {
        const client = new FastCgiClient(resident.socket);
        client.socket.write(formatRequest(1, putVariables(site, 1, nameOf(10 + index)), Buffer.from('x')));
        return client;
      });
      // Connecting to a socket at a path succeeds even when no process accepts it.
      assert.ok(await until(() => waiting.every(({ socket }) => !socket.connecting)));
      const exit = resident.stop();
      writeFileSync(go, '');
      const answers = await Promise.all([...held, ...waiting.map((client) => client.answer(1))]);
      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
      assert.equal(await exit, 0);
    });
  });
}

describe('SIGTERM during an answer', () => {
  it('waits for a peer that reads the rest', async () => {
    configure(site, {});
    addCommand(site, 'client1', 'large', Buffer.alloc(8_000_000, 'x'));
    const resident = await startResident(site);
    const client = new FastCgiClient(resident.socket);
    client.socket.write(formatRequest(1, getVariables(site, 'large'), Buffer.alloc(0)));
    await client.next();
    client.socket.pause();
    const exit = resident.stop();
    await sleep(8_000);
    client.socket.resume();
    const { body, protocolStatus } = await client.answer(1);
    // The first record, with the header in it, was read.
    assert.deepEqual([body.length > 7_000_000, protocolStatus], [true, 0]);
    assert.equal(await exit, 0);
  });
});

describe('the end of a persistent worker', () => {
  it('waits half a minute for a silent peer, and not as long as before', async () => {
    const handler = () => ({ status: 200, reason: 'OK', headers: [], contentLength: 0 });
    const options = { handler, findSpoolFolder: () => undefined, onError: assert.fail, silenceSeconds: 600 };
    const { server, isBusy, end } = createResponder(options);
    const sockets: Socket[] = [];
    server.on('connection', (socket) => sockets.push(socket));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    // One that has begun a request, and one that comes when the end has begun.
    const silent = new FastCgiClient(port);
    silent.socket.write(formatRequest(1, getVariables(site), Buffer.alloc(0)).subarray(0, 40));
    assert.ok(await until(isBusy));
    const limits = (): (number | undefined)[] => sockets.map(({ timeout }) => timeout);
    assert.deepEqual(limits(), [600_000]);
    end(200);
    const late = new FastCgiClient(port);
    assert.ok(await until(() => sockets.length === 2));
    assert.deepEqual(limits(), [30_000, 30_000]);
    for (const client of [silent, late]) client.close();
    await once(server, 'close');
  });
});

describe('SIGTERM under constant requests', () => {
  it('ends the process', async () => {
    configure(site, {});
    const [port = 0] = await findFreePorts(1);
    const words = [join(site.cgiDirectory, 'nph-webjob.cgi'), '--listen', String(port)];
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'inherit'], env: {} });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    const ask = async (): Promise<number> => (await get(port, site)).status;
    let isOver = false;
    const lane = async (): Promise<void> => {
      for (; !isOver; await sleep(10)) await ask();
    };
    try {
      assert.ok(await until(async () => (await ask()) === 200));
      const lanes = [lane(), lane(), lane()];
      child.kill('SIGTERM');
      const code = await Promise.race([ended, sleep(60_000, 'it stays', { ref: false })]);
      isOver = true;
      await Promise.all(lanes);
      assert.equal(code, 0);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
