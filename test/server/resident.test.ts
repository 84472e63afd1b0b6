// A persistent worker, addressed over its socket as httpd would, and as httpd never would: whatever
// a peer does affects only its own connection.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  formatBeginning,
  formatPairs,
  formatRecord,
  formatStream,
  parsePairs,
  RECORD_TYPES,
} from 'node-cgi-compat/responder';
import { Spool } from '../../cgi/node-cgi-compat/spool.ts';
import { type Resident, startResident } from '../../scripts/resident.ts';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { FastCgiClient, formatRequest } from '../support/fastcgi-client.ts';
import { randomNumbers } from '../support/locker-kills.ts';
import { get, getVariables, put, putVariables } from '../support/resident-requests.ts';
import { HOST_SH, readLog } from '../support/tree.ts';

const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
const FUZZED = 1_500;
const NOTHING = Buffer.alloc(0);

let site: Site;
let resident: Resident;
before(async () => {
  site = makeSite({ resident: true });
  configure(site, { PutNameFormat: '%jid' });
  resident = await startResident(site);
});
after(async () => {
  await resident.stop();
  site.remove();
});

const withClient = async <T>(work: (client: FastCgiClient) => Promise<T>): Promise<T> => {
  const client = new FastCgiClient(resident.socket);
  try {
    return await work(client);
  } finally {
    client.close();
  }
};
const openFiles = (): string[] =>
  readdirSync(`/proc/${resident.pid}/fd`).flatMap((fd) => {
    try {
      return readlinkSync(`/proc/${resident.pid}/fd/${fd}`);
    } catch {
      return [];
    }
  });
async function until(isTrue: () => boolean): Promise<boolean> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(10)) if (isTrue()) return true;
  return false;
}
const lastLine = (): string => readLog(site.base).at(-1) ?? '';

describe('a FastCGI connection', () => {
  it('serves one request after the other when it is kept, and ends when it is not', async () => {
    await withClient(async (client) => {
      const ids = new Set<string | undefined>();
      for (const requestId of [1, 1, 2, 65_535]) {
        client.socket.write(formatRequest(requestId, getVariables(site), NOTHING, true));
        const answer = await client.answer(requestId);
        assert.deepEqual([answer.status, answer.reason, answer.protocolStatus], [200, 'OK', 0]);
        assert.equal(answer.body.toString(), HOST_SH);
        ids.add(answer.headers.get('job-id'));
      }
      assert.equal(ids.size, 4);
      client.socket.write(formatRequest(7, getVariables(site), NOTHING, false));
      assert.equal((await client.answer(7)).status, 200);
      assert.equal(await client.next(), undefined);
    });
  });

  it('answers management records, known and unknown', async () => {
    await withClient(async (client) => {
      const names = ['FCGI_MPXS_CONNS', 'FCGI_MAX_CONNS', 'FCGI_OTHER'].map((name): [string, string] => [name, '']);
      client.socket.write(formatRecord({ type: RECORD_TYPES.getValues, requestId: 0, content: formatPairs(names) }));
      const values = await client.next();
      assert.equal(values?.type, RECORD_TYPES.getValuesResult);
      assert.deepEqual(Object.fromEntries(parsePairs(values?.content ?? NOTHING)), {
        FCGI_MAX_CONNS: '1000',
        FCGI_MPXS_CONNS: '0',
      });
      client.socket.write(formatRecord({ type: 99, requestId: 0, content: Buffer.from('what') }));
      const unknown = await client.next();
      assert.deepEqual([unknown?.type, unknown?.content[0]], [RECORD_TYPES.unknownType, 99]);
    });
  });

  it('accepts no second concurrent request, no other role, and no invalid request', async () => {
    await withClient(async (client) => {
      const begin = (requestId: number, role: number): Buffer =>
        formatRecord({
          type: RECORD_TYPES.beginRequest,
          requestId,
          content: formatBeginning({ role, keepConnection: true }),
        });
      client.socket.write(begin(5, 2));
      assert.deepEqual([(await client.next())?.content[4]], [3]);
    });
    await withClient(async (client) => {
      client.socket.write(formatRecord({ type: RECORD_TYPES.stdin, requestId: 9, content: Buffer.from('x') }));
      client.socket.write(formatRecord({ type: 77, requestId: 9, content: NOTHING }));
      const [first, second] = [1, 2].map((id) => formatRequest(id, getVariables(site), NOTHING, true)) as [
        Buffer,
        Buffer,
      ];
      client.socket.write(first.subarray(0, first.length - 8));
      client.socket.write(second);
      const refused = await client.next();
      assert.deepEqual([refused?.requestId, refused?.type, refused?.content[4]], [2, RECORD_TYPES.endRequest, 1]);
      client.socket.write(first.subarray(first.length - 8));
      assert.equal((await client.answer(1)).status, 200);
    });
  });

  it('is closed when it sends garbage, or more variables than a request has', async () => {
    const tooMuch = [
      formatRecord({ type: 1, requestId: 1, content: formatBeginning({ role: 1, keepConnection: false }) }),
      ...formatStream(RECORD_TYPES.params, 1, Buffer.alloc(1_100_000, 'x')),
    ];
    for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.concat(tooMuch)]) {
      await withClient(async (client) => {
        client.socket.write(bytes);
        assert.equal(await client.next(), undefined);
      });
    }
    assert.equal((await get(resident.socket, site)).status, 200);
  });
});

describe('a request body', () => {
  for (const length of [0, 1, 65_536, 65_537, 3_000_000]) {
    it(`is stored unchanged with ${length} bytes`, async () => {
      const body = Buffer.alloc(length, 'webjob');
      assert.equal((await put(resident.socket, site, body, `body_${length}`)).status, 200);
      assert.ok(readFileSync(join(site.incoming, `body_${length}.out`)).equals(body));
      for (const extension of ['out', 'rdy'])
        assert.equal(statSync(join(site.incoming, `body_${length}.${extension}`)).mode & 0o777, 0o644);
    });
  }

  it('is kept in a nameless file beside the uploads when it is large, and otherwise in memory', async () => {
    const before = readdirSync(site.incoming);
    const spools = (): string[] =>
      openFiles().filter((path) => path.startsWith(site.incoming) && path.endsWith('(deleted)'));
    await withClient(async (client) => {
      const whole = formatRequest(1, putVariables(site, 200_000, 'spooled'), Buffer.alloc(200_000, 'x'));
      client.socket.write(whole.subarray(0, 60_000));
      await sleep(100);
      assert.deepEqual(spools(), []);
      client.socket.write(whole.subarray(60_000, 150_000));
      assert.ok(await until(() => spools().length === 1));
      assert.deepEqual(readdirSync(site.incoming), before);
      client.socket.write(whole.subarray(150_000));
      assert.equal((await client.answer(1)).status, 200);
      assert.deepEqual(spools(), []);
    });
  });

  it('is not kept when it will be refused', async () => {
    configure(site, { PutNameFormat: '%jid', CapContentLength: 'Y', MaxContentLength: '100000' });
    await withClient(async (client) => {
      const whole = formatRequest(1, putVariables(site, 5_000_000, 'large'), Buffer.alloc(5_000_000, 'x'));
      client.socket.write(whole.subarray(0, 4_900_000));
      await sleep(200);
      assert.deepEqual(
        openFiles().filter((path) => path.startsWith(site.incoming)),
        [],
      );
      client.socket.write(whole.subarray(4_900_000));
      assert.equal((await client.answer(1)).status, 455);
    });
    configure(site, { PutNameFormat: '%jid' });
  });

  it('is kept up to its announced length', () => {
    const spool = new Spool(3, () => assert.fail('a file for three bytes'));
    for (const piece of ['ou', 't'.repeat(100_000)]) spool.append(Buffer.from(piece));
    const buffer = Buffer.alloc(10);
    assert.deepEqual([spool.read(buffer), buffer.toString('latin1', 0, 3), spool.read(buffer)], [3, 'out', 0]);
    spool.close();
  });

  it('is not kept when nobody reads it, and not read once it is closed', () => {
    const unwanted = new Spool(3_000_000, () => undefined);
    for (let piece = 0; piece < 50; piece++) unwanted.append(Buffer.alloc(60_000, 'x'));
    const buffer = Buffer.alloc(100_000);
    assert.equal(unwanted.read(buffer), 60_000);
    assert.equal(unwanted.read(buffer), 0);
    const closed = new Spool(3, () => assert.fail('a file for three bytes'));
    closed.append(Buffer.from('out'));
    closed.close();
    assert.equal(closed.read(buffer), 0);
  });

  for (const [how, name] of [
    ['when its connection ends', 'cut_end'],
    ['when its connection breaks', 'cut_break'],
  ] as const) {
    it(`leaves what arrived, without .rdy, and a line in the log ${how}`, async () => {
      const whole = formatRequest(1, putVariables(site, 100_000, name), Buffer.alloc(100_000, 'x'));
      await withClient(async (client) => {
        client.socket.write(whole.subarray(0, 80_000));
        await sleep(100);
        if (name === 'cut_end') client.socket.end();
        else client.socket.destroy();
        assert.ok(await until(() => lastLine().includes(name)));
      });
      assert.match(lastLine(), new RegExp(`${name} client1 127.0.0.1 PUT client1 host.sh 100000 0 \\d+ 456 `));
      assert.equal(existsSync(join(site.incoming, `${name}.rdy`)), false);
      const { size } = statSync(join(site.incoming, `${name}.out`));
      assert.ok(size > 0 && size < 100_000, `${size} bytes`);
    });
  }

  it('is aborted by a record between two others', async () => {
    await withClient(async (client) => {
      const whole = formatRequest(4, putVariables(site, 10, 'aborted'), Buffer.from('0123456789'), true);
      client.socket.write(whole.subarray(0, whole.length - 8 - 24));
      client.socket.write(formatStream(RECORD_TYPES.stdin, 4, Buffer.from('0123'))[0] ?? NOTHING);
      client.socket.write(formatRecord({ type: RECORD_TYPES.abortRequest, requestId: 4, content: NOTHING }));
      assert.equal((await client.answer(4)).status, 456);
      client.socket.write(formatRequest(5, getVariables(site), NOTHING, false));
      assert.equal((await client.answer(5)).status, 200);
    });
    assert.equal(readFileSync(join(site.incoming, 'aborted.out'), 'latin1'), '0123');
  });
});

describe('slow and lost peers', () => {
  const SLOW = 500;

  it(`delay no other request, ${SLOW} of them in every state, and cost one descriptor each`, async () => {
    addCommand(site, 'client1', 'large', Buffer.alloc(8_000_000, 'x'));
    const before = openFiles().length;
    const slow = Array.from({ length: SLOW }, () => new FastCgiClient(resident.socket));
    for (const [index, client] of slow.entries()) {
      const whole = formatRequest(1, putVariables(site, 1000, `slow_${index}`), Buffer.alloc(1000, 'x'));
      if (index % 10 === 0) {
        client.socket.pause();
        client.socket.write(formatRequest(1, getVariables(site, 'large'), NOTHING));
      } else client.socket.write(whole.subarray(0, (index * 7) % whole.length));
    }
    await sleep(200);
    const startedAt = performance.now();
    for (let turn = 0; turn < 20; turn += 1) assert.equal((await get(resident.socket, site)).body.toString(), HOST_SH);
    assert.ok(performance.now() - startedAt < 60_000);
    // One more for each whose file is in transit.
    assert.ok(openFiles().length <= before + SLOW * 1.1 + 10, `${openFiles().length} descriptors, ${before} before`);
    for (const client of slow) client.close();
    assert.ok(await until(() => openFiles().length <= before), `${openFiles().length} descriptors, ${before} before`);
  });
});

describe(`${FUZZED} connections of garbage (seed ${SEED})`, () => {
  it('neither end the process nor affect the requests of others', async () => {
    const random = randomNumbers(SEED);
    const draw = (limit: number): number => Math.floor(random() * limit);
    const descriptors = openFiles().length;
    const ids = new Set<string>();
    let asked = 0;
    for (let run = 0; run < FUZZED / 20; run += 1) {
      const clients = Array.from({ length: 20 }, () => {
        const client = new FastCgiClient(resident.socket);
        const good = formatRequest(
          1 + draw(3),
          putVariables(site, 30, `fuzz_${draw(1e9)}`),
          Buffer.alloc(30, 'x'),
          draw(2) === 0,
        );
        const bytes = Buffer.concat([good.subarray(0, draw(good.length + 1)), good.subarray(draw(good.length))]);
        for (let left = 1 + draw(6); left > 0; left -= 1) bytes[draw(bytes.length)] = draw(256);
        client.socket.write(bytes);
        return client;
      });
      const body = Buffer.from(`healthy ${run}`);
      const [got, stored] = await Promise.all([
        get(resident.socket, site),
        put(resident.socket, site, body, `healthy_${run}`),
      ]);
      assert.equal(got.body.toString(), HOST_SH);
      assert.equal(stored.status, 200);
      assert.equal(readFileSync(join(site.incoming, `healthy_${run}.out`), 'latin1'), body.toString());
      ids.add(got.headers.get('job-id') ?? '');
      asked += 1;
      for (const client of clients) client.close();
    }
    assert.equal(ids.size, asked);
    assert.ok(await until(() => openFiles().length <= descriptors), 'descriptors stay');
  });
});
