// Long uploads to a script that stays: each has a process of its own, so they hold up nobody and lie on disk once; what breaks off, dies or
// is one too many ends as it does with CGI.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Resident, startResident } from '../scripts/resident.ts';
import { configure, makeSite, type Site } from '../scripts/site.ts';
import { custodyOf, readRecords } from './custody-record.ts';
import { FastCgiClient, formatRequest } from './fastcgi-client.ts';
import { get, put, putVariables } from './resident-requests.ts';
import { readLog } from './tree.ts';

const SIZE = 20 * 1024 * 1024;
const HALF = SIZE / 2;
const body = Buffer.alloc(SIZE, 'a long upload, ');

let site: Site;
let resident: Resident;

before(async () => {
  site = makeSite({ resident: true, settings: { PutNameFormat: '%jid' } });
  resident = await startResident(site);
});
after(async () => {
  await resident.stop();
  site.remove();
});

async function until(isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; await sleep(20)) if (await isTrue()) return true;
  return false;
}

/** The processes that the resident one has started and that have not ended. */
function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);
}

const pathOf = (name: string, extension: string): string => join(site.incoming, `${name}.${extension}`);
const sizeOf = (name: string): number => statSync(pathOf(name, 'out'), { throwIfNoEntry: false })?.size ?? 0;

/** Sends half of an upload, and resolves when some of it is in the locker. */
async function sendHalf(name: string, size = SIZE): Promise<{ client: FastCgiClient; rest: Buffer }> {
  const client = new FastCgiClient(resident.socket);
  const whole = formatRequest(1, putVariables(site, size, name), body.subarray(0, size));
  client.socket.write(whole.subarray(0, HALF));
  assert.ok(await until(() => sizeOf(name) > 0), 'it streams');
  return { client, rest: whole.subarray(HALF) };
}

describe('a long upload', () => {
  it('goes straight into the locker, while others are served', async () => {
    const { client, rest } = await sendHalf('long');
    assert.equal((await get(resident.socket, site)).status, 200);
    assert.equal((await put(resident.socket, site, Buffer.from('short'), 'short')).status, 200);
    assert.equal(childrenOf(resident.pid).length, 1);
    client.socket.write(rest);
    const answer = await client.answer(1);
    assert.deepEqual([answer.status, answer.protocolStatus, answer.headers.get('content-length')], [200, 0, '0']);
    assert.ok(readFileSync(pathOf('long', 'out')).equals(body));
    assert.equal(readFileSync(pathOf('long', 'rdy'), 'utf8'), 'Jid=long\n');
    assert.match(
      readLog(site.base).join('\n'),
      / long client1 127\.0\.0\.1 PUT client1 host\.sh 20971520 0 \d+ 200 -- Success/,
    );
    assert.deepEqual(
      readRecords(custodyOf(site)).map(({ name }) => name),
      ['short', 'long'],
    );
  });

  it('on a connection that is kept is followed by others', async () => {
    const client = new FastCgiClient(resident.socket);
    for (const name of ['kept_1', 'kept_2']) {
      client.socket.write(formatRequest(1, putVariables(site, SIZE, name), body, true));
      assert.equal((await client.answer(1)).status, 200);
    }
    client.close();
    assert.equal(sizeOf('kept_2'), SIZE);
  });

  it('that breaks off is none', async () => {
    const { client } = await sendHalf('broken');
    client.close();
    assert.ok(await until(() => / broken .* 456 -- /.test(readLog(site.base).join('\n'))));
    assert.equal(existsSync(pathOf('broken', 'rdy')), false);
  });

  it('whose process is killed is answered 500, and no harm comes to others', async () => {
    const { client, rest } = await sendHalf('killed');
    for (const pid of childrenOf(resident.pid)) process.kill(pid, 'SIGKILL');
    client.socket.write(rest);
    assert.equal((await client.answer(1)).status, 500);
    assert.equal(existsSync(pathOf('killed', 'rdy')), false);
    assert.equal((await get(resident.socket, site)).status, 200);
    assert.match(resident.complaints(), /the process of a request failed/);
  });

  it('is one of so many as come: those above four wait for their whole', async () => {
    const names = Array.from({ length: 7 }, (_, index) => `many_${index}`);
    let most = 0;
    const looking = setInterval(() => {
      most = Math.max(most, childrenOf(resident.pid).length);
    }, 5);
    const answers = await Promise.all(names.map((name) => put(resident.socket, site, body, name)));
    clearInterval(looking);
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
    assert.deepEqual([...new Set(names.map(sizeOf))], [SIZE]);
    assert.ok(most >= 1 && most <= 4, `${most} processes`);
  });

  it('that is refused whatever it holds starts no process, and is answered', async () => {
    configure(site, { PutNameFormat: '%jid', CapContentLength: 'Y', MaxContentLength: '1000000' });
    let most = 0;
    const looking = setInterval(() => {
      most = Math.max(most, childrenOf(resident.pid).length);
    }, 5);
    assert.ok(await until(async () => (await put(resident.socket, site, body, 'large')).status === 455));
    most = 0;
    assert.equal((await put(resident.socket, site, body, 'larger')).status, 455);
    clearInterval(looking);
    assert.equal(most, 0);
    configure(site, { PutNameFormat: '%jid' });
    assert.ok(await until(async () => (await put(resident.socket, site, body, 'fits')).status === 200));
  });

  it('is waited for by SIGTERM, and leaves nothing whole when everything is killed', async () => {
    const { client, rest } = await sendHalf('waited');
    const exit = resident.stop();
    await sleep(200);
    client.socket.write(rest);
    assert.equal((await client.answer(1)).status, 200);
    assert.equal(await exit, 0);
    resident = await startResident(site);
    await sendHalf('lost');
    process.kill(resident.pid, 'SIGKILL');
    assert.ok(await until(() => / lost .* 456 -- /.test(readLog(site.base).join('\n'))), 'its process ends');
    const names = readdirSync(site.incoming).filter(
      (name) => !/^(?:short|long|kept_|broken|killed|many_|fits|waited|lost)/.test(name),
    );
    assert.deepEqual(names, []);
    assert.equal(existsSync(pathOf('lost', 'rdy')), false);
  });
});
