// The end of a script that stays, by SIGTERM, when it comes at the wrong moment: nobody who had reached it is lost, and it does come.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findFreePorts } from '../scripts/free-ports.ts';
import { startResident } from '../scripts/resident.ts';
import { addCommand, configure, makeSite, type Site } from '../scripts/site.ts';
import { FastCgiClient, formatRequest } from './fastcgi-client.ts';
import { get, getVariables, put, putVariables } from './resident-requests.ts';

let site: Site;
before(() => {
  site = makeSite({ resident: true });
});
after(() => site.remove());

async function until(isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(10)) if (await isTrue()) return true;
  return false;
}

for (const args of [[], ['--processes', '2']]) {
  describe(`SIGTERM while hooks hold the process ${args.join(' ')}`, () => {
    it('waits for those, too, who wait at the socket', async () => {
      const WAITING = 6;
      const go = join(site.incoming, `go${args.length}`);
      const nameOf = (index: number): string => `job_${args.length}_${index}`;
      // Each takes longer than the process waits for late comers.
      const command = `until [ -e ${go} ]; do sleep 0.05; done; sleep 0.3`;
      const hook = { PutHookEnable: 'Y', PutHookCommandLine: command, PutHookTimeLimit: '60' };
      configure(site, { PutNameFormat: '%jid', ...hook });
      const resident = await startResident(site, args);
      const ask = (index: number) => put(resident.socket, site, Buffer.from('x'), nameOf(index));
      const isHeld = (index: number): boolean => existsSync(join(site.incoming, `${nameOf(index)}.out`));
      const held: ReturnType<typeof ask>[] = [];
      // One after the other: a process that is held takes no second one.
      for (const index of args.length === 0 ? [0] : [0, 1]) {
        held.push(ask(index));
        assert.ok(await until(() => isHeld(index)));
      }
      const waiting = Array.from({ length: WAITING }, (_, index) => {
        const client = new FastCgiClient(resident.socket);
        client.socket.write(formatRequest(1, putVariables(site, 1, nameOf(10 + index)), Buffer.from('x')));
        return client;
      });
      // A socket at a path connects also where nobody takes it.
      assert.ok(await until(() => waiting.every(({ socket }) => !socket.connecting)));
      const exit = resident.stop();
      writeFileSync(go, '');
      const answers = await Promise.all([...held, ...waiting.map((client) => client.answer(1))]);
      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
      assert.equal(await exit, 0);
    });
  });
}

describe('SIGTERM while an answer is on its way', () => {
  it('waits for a peer that takes a rest', async () => {
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
    // The first record, with the head in it, has been taken.
    assert.deepEqual([body.length > 7_000_000, protocolStatus], [true, 0]);
    assert.equal(await exit, 0);
  });
});

describe('SIGTERM at a port that is asked all the time', () => {
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
