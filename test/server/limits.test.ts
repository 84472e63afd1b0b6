// Limits of a client at a site: CGI processes, bare and under httpd, and a persistent worker, which
// count together; daily limits to the byte, until midnight; requests by others, and directories in
// which nothing can be counted.
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatRecord, formatStream, RECORD_TYPES } from 'node-cgi-compat/responder';
import { startHttpd } from '../../scripts/httpd.ts';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { type BareResult, collect, parseRawRequest, runBare, spawnBare } from '../support/bare.ts';
import { until } from '../support/cgi-scripts.ts';
import { runWebjob } from '../support/client-job.ts';
import { startClientSite } from '../support/client-site.ts';
import { makeFakeClock, needsFakeClock } from '../support/clock-fake.ts';
import { FastCgiClient, formatRequest } from '../support/fastcgi-client.ts';
import { findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { askWorker } from '../support/locker-worker.ts';
import { get, put, putVariables } from '../support/resident-requests.ts';
import { useResidentSite } from '../support/resident-site.ts';
import { askStrictly, parseAnswer, type StrictAnswer } from '../support/strict-client.ts';
import { findWebUser } from '../support/tree.ts';
import { formatHead, type Put } from '../support/wire-request.ts';

const user = findWebUser();
const raw = (method: 'GET' | 'PUT', ask: Put): Buffer => {
  const body = method === 'PUT' ? `${ask.out ?? ''}${ask.err ?? ''}${ask.env ?? ''}` : '';
  return Buffer.from(formatHead(method, ask) + body, 'latin1');
};
const logOf = (site: Site): string[] => readFileSync(site.logFile, 'utf8').trimEnd().split('\n');
/** The statuses and messages of the log, from its first line. */
const saidBy = (site: Site): string[] => logOf(site).map((line) => line.replace(/^.* (\d{3}) -- /, '$1 '));
const OVER = '503 Service Unavailable: over MaxRequestsAtOnce';

function limitsOf(site: Site, ...names: string[]): string {
  return join(site.base, 'limits', ...names);
}

function slotsOf(site: Site): string[] {
  const folder = limitsOf(site, 'client1');
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith('slot-')) : [];
}

/** Returns what was stored, and empties the site for the next test. */
function renew(site: Site): void {
  for (const folder of [site.incoming, limitsOf(site)])
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
  writeFileSync(site.logFile, '');
}

const countReady = (site: Site): number => readdirSync(site.incoming).filter((name) => name.endsWith('.rdy')).length;

describe('concurrent requests, as CGI', () => {
  const site = makeSite();
  const children: ChildProcess[] = [];
  after(() => site.remove());
  beforeEach(() => renew(site));
  afterEach(() => {
    for (const child of children.splice(0)) if (child.exitCode === null) child.kill('SIGKILL');
  });

  /** Starts a PUT whose body waits for `end`. */
  function begin(fileName: string): { child: ChildProcess; ended: Promise<BareResult>; end: () => void } {
    const request = parseRawRequest(raw('PUT', { fileName, out: 'slow', jobId: fileName }));
    const child = spawnBare(request, { settingsFile: site.propertiesFile, user });
    children.push(child);
    return { child, ended: collect(child, 60), end: () => child.stdin?.end(request.body) };
  }
  const ask = async (method: 'GET' | 'PUT', more: Put = {}): Promise<StrictAnswer> => {
    const options = { settingsFile: site.propertiesFile, user, isAlone: true };
    return parseAnswer((await runBare(raw(method, more), options)).stdout);
  };

  it('are limited to the set number, of 30 that come together', async () => {
    configure(site, { PutNameFormat: '%jid', MaxRequestsAtOnce: '5' });
    const puts = Array.from({ length: 30 }, (_, number) => begin(`p${number}`));
    await until(() => saidBy(site).filter((line) => line === OVER).length === 25, '25 refusals');
    assert.equal(slotsOf(site).length, 5);
    for (const { end } of puts) end();
    const answers = (await Promise.all(puts.map(({ ended }) => ended))).map(({ stdout }) => parseAnswer(stdout));
    assert.deepEqual(
      [200, 503].map((status) => answers.filter((answer) => answer.status === status).length),
      [5, 25],
    );
    for (const { status, headers } of answers)
      assert.equal(headers.get('retry-after'), status === 503 ? '5' : undefined);
    assert.equal(countReady(site), 5);
    assert.equal(readdirSync(site.incoming).length, 20, 'nothing is left of the others');
    assert.deepEqual(slotsOf(site), []);
  });

  it('count for a GET, and for one client only', async () => {
    configure(site, { PutNameFormat: '%jid', MaxRequestsAtOnce: '1', RequireMatch: 'N' });
    const { ended, end } = begin('a');
    await until(() => slotsOf(site).length === 1, 'a slot');
    assert.equal((await ask('GET')).status, 503);
    assert.equal((await ask('PUT', { clientId: 'client2', out: 'x', jobId: 'b' })).status, 200);
    end();
    assert.equal(parseAnswer((await ended).stdout).status, 200);
    assert.equal((await ask('GET')).status, 200);
    assert.deepEqual(slotsOf(site), []);
  });

  it('occupy no process after a refusal, however slowly the body comes', async () => {
    configure(site, { PutNameFormat: '%jid', MaxRequestsAtOnce: '1' });
    const first = begin('a');
    await until(() => slotsOf(site).length === 1, 'a slot');
    const started = performance.now();
    const second = begin('b');
    const third = begin('c');
    third.child.stdin?.write('s');
    for (const { ended } of [second, third]) assert.equal(parseAnswer((await ended).stdout).status, 503);
    assert.ok(performance.now() - started < 25_000);
    assert.equal(first.child.exitCode, null, 'the one with a slot goes on');
    first.end();
    assert.equal(parseAnswer((await first.ended).stdout).status, 200);
  });

  it('leave their slot free when their process is killed', async () => {
    configure(site, { PutNameFormat: '%jid', MaxRequestsAtOnce: '1' });
    const { child, ended } = begin('a');
    await until(() => slotsOf(site).length === 1, 'a slot');
    assert.match(readlinkSync(limitsOf(site, 'client1', 'slot-server_1-0')), new RegExp(`^${child.pid}-[1-9]`));
    assert.equal((await ask('GET')).status, 503);
    child.kill('SIGKILL');
    await ended;
    assert.equal((await ask('GET')).status, 200);
  });

  it('are not counted for anyone but the client, and nothing is written outside', async () => {
    configure(site, { PutNameFormat: '%jid', MaxRequestsAtOnce: '1', MaxUploadsPerDay: '1', MaxBytesPerDay: '10' });
    const bad = ['..', '.', '%2e%2e', 'a%2fb', '..%2fincoming', '%00', 'x'.repeat(65), 'slot-server_1-0%0a', ''];
    for (const clientId of bad)
      assert.equal((await askWorker(raw('PUT', { clientId, out: 'x' }), site.propertiesFile)).status, 450, clientId);
    for (const method of ['GET', 'PUT'] as const) {
      const other = { clientId: 'client1', user: 'client2', out: 'x' };
      assert.equal((await askWorker(raw(method, other), site.propertiesFile)).status, 453);
      assert.equal((await askWorker(raw(method, { ...other, folder: '/open/' }), site.propertiesFile)).status, 452);
    }
    assert.deepEqual(readdirSync(limitsOf(site)), []);
    assert.equal((await askWorker(raw('PUT', { out: 'x', jobId: 'a' }), site.propertiesFile)).status, 200);
  });

  it('make no file and no directory while there is no limit', async () => {
    configure(site, { PutNameFormat: '%jid', LimitsDirectory: '/nonexistent' });
    for (const method of ['GET', 'PUT'] as const)
      assert.equal((await ask(method, { out: 'x', jobId: 'a' })).status, 200);
    assert.deepEqual(readdirSync(limitsOf(site)), []);
  });
});

describe('concurrent requests, under httpd with mod_cgid', () => {
  const site = makeSite({ settings: { PutNameFormat: '%jid', MaxRequestsAtOnce: '2' } });
  after(() => site.remove());

  it('show a strict client 503 although others hold all slots with slow bytes', async () => {
    const server = await startHttpd({ site, mpm: 'event' });
    try {
      const slow = ['a', 'b'].map((jobId) => {
        const socket = connect(server.port, '127.0.0.1').on('error', () => {});
        socket.write(`${formatHead('PUT', { out: 'x'.repeat(5000), jobId })}x`);
        return socket;
      });
      await until(() => slotsOf(site).length === 2, 'two slots');
      const body = Buffer.alloc(2_000_000, 'x');
      const head = formatHead('PUT', { out: body.toString(), jobId: 'c' });
      const refused = await askStrictly({ port: server.port, head, body: [body] });
      assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '5']);
      for (const socket of slow) socket.destroy();
      await until(() => slotsOf(site).length === 0, 'the end of both');
      assert.equal((await askStrictly({ port: server.port, head, body: [body] })).status, 200);
      assert.deepEqual(
        saidBy(site).filter((line) => line === OVER),
        [OVER],
      );
    } finally {
      await server.stop();
    }
  });
});

describe('concurrent requests, in a persistent worker', () => {
  const its = useResidentSite({ PutNameFormat: '%jid', MaxRequestsAtOnce: '3' });
  const noEnd = (bytes: Buffer): Buffer => bytes.subarray(0, bytes.length - 8);

  it('are counted from their start, together with those of CGI, until the connection ends', async () => {
    const site = its.site();
    const { socket } = await its.start();
    // Its body never ends.
    const open = (jobId: string): FastCgiClient => {
      const client = new FastCgiClient(socket);
      client.socket.write(noEnd(formatRequest(1, putVariables(site, 100, jobId), Buffer.alloc(50, 'x'))));
      return client;
    };
    const held = ['a', 'b'].map(open);
    await until(() => slotsOf(site).length === 2, 'two slots');
    const request = parseRawRequest(raw('PUT', { out: 'slow', jobId: 'c' }));
    const child = spawnBare(request, { settingsFile: site.propertiesFile, user });
    await until(() => slotsOf(site).length === 3, 'three slots');
    const refused = await put(socket, site, Buffer.alloc(200_000, 'x'), 'd');
    assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '5']);
    assert.equal((await get(socket, site)).status, 503);
    const ended = collect(child, 60);
    child.stdin?.end(request.body);
    assert.equal(parseAnswer((await ended).stdout).status, 200);
    assert.equal((await put(socket, site, Buffer.alloc(200_000, 'x'), 'd')).status, 200);
    held[0]?.socket.destroy();
    await until(() => slotsOf(site).length === 1, 'the end of the connection');
    held[1]?.socket.write(
      Buffer.concat([
        ...formatStream(RECORD_TYPES.stdin, 1, Buffer.alloc(50, 'x')),
        formatRecord({ type: RECORD_TYPES.stdin, requestId: 1, content: Buffer.alloc(0) }),
      ]),
    );
    await until(() => existsSync(join(site.incoming, 'b.rdy')), 'the upload');
    await until(() => slotsOf(site).length === 0, 'no slot');
    assert.equal((await get(socket, site)).status, 200);
  });

  it('leave their slots free when the worker is killed', async () => {
    const site = its.site();
    const killed = await its.start();
    for (const jobId of ['k', 'l', 'm']) {
      const client = new FastCgiClient(killed.socket);
      client.socket.write(noEnd(formatRequest(1, putVariables(site, 100, jobId), Buffer.alloc(50, 'x'))));
    }
    await until(() => slotsOf(site).length === 3, 'three slots');
    assert.equal((await get(killed.socket, site)).status, 503);
    process.kill(killed.pid, 'SIGKILL');
    await killed.ended;
    const { socket } = await its.start();
    assert.equal((await get(socket, site)).status, 200);
    assert.equal(slotsOf(site).length, 2, 'its own is released, and that of a dead process stays until it is needed');
  });
});

/** Waits for the next day when this one would end during a test. */
async function settleDay(): Promise<void> {
  const left = 86_400_000 - (Date.now() % 86_400_000);
  if (left < 30_000) await sleep(left);
}

describe('uploads and bytes a day', () => {
  const site = makeSite();
  after(() => site.remove());
  beforeEach(settleDay);
  beforeEach(() => renew(site));
  const send = (ask: Put, method: 'GET' | 'PUT' = 'PUT'): Promise<StrictAnswer> =>
    askWorker(raw(method, ask), site.propertiesFile);
  const statusOf = async (ask: Put): Promise<number> => (await send(ask)).status;

  it('are limited to the byte, refused until midnight, and refused ones create nothing', async () => {
    configure(site, { PutNameFormat: '%cid/%jid/x', MaxBytesPerDay: '100' });
    assert.equal(await statusOf({ jobId: 'a', out: 'x'.repeat(50), err: 'y'.repeat(9) }), 200);
    const { status, reason, headers } = await send({ jobId: 'b', out: 'x'.repeat(42) });
    const left = 86_400 - (Math.floor(Date.now() / 1000) % 86_400);
    assert.deepEqual([status, reason], [507, 'Insufficient Storage']);
    assert.ok(Math.abs(Number(headers.get('retry-after')) - left) <= 5, headers.get('retry-after'));
    assert.equal(await statusOf({ jobId: 'c', out: 'x'.repeat(41) }), 200);
    assert.equal(await statusOf({ jobId: 'd', out: 'x' }), 507);
    assert.equal(await statusOf({ jobId: 'e' }), 200);
    assert.deepEqual(readdirSync(join(site.incoming, 'client1')).sort(), ['a', 'c', 'e']);
    const refused = '507 Insufficient Storage: over MaxBytesPerDay until midnight UTC';
    assert.deepEqual(saidBy(site), ['200 Success', refused, '200 Success', refused, '200 Success']);
    assert.equal((await send({}, 'GET')).status, 200, 'a GET takes nothing of a day');
  });

  it('acknowledge an identical upload again when the day is used up, and count it once', async () => {
    configure(site, { PutNameFormat: '%jid', OverwriteExistingFiles: 'Y', MaxUploadsPerDay: '2' });
    const upload = { jobId: 'a', out: 'x'.repeat(200_000) };
    for (let time = 0; time < 3; time += 1) assert.equal(await statusOf(upload), 200);
    assert.equal(await statusOf({ jobId: 'b', out: 'y' }), 200);
    assert.equal(await statusOf({ jobId: 'c', out: 'z' }), 507);
    assert.equal(await statusOf({ ...upload, out: `${'x'.repeat(199_999)}y` }), 507, 'other bytes of that name');
    assert.equal(await statusOf(upload), 200);
    assert.match(logOf(site).at(-1) ?? '', / 200 -- Success: the same upload was stored before$/);
    assert.equal(await statusOf({ jobId: 'c', runType: 'linktest', out: 'z' }), 251);
    assert.deepEqual(
      readdirSync(site.incoming).filter((name) => name.endsWith('.rdy')),
      ['a.rdy', 'b.rdy'],
    );
    assert.equal(readFileSync(join(site.incoming, 'a.out'), 'latin1'), upload.out);
  });

  it('do not include refused uploads, and include the bytes of those that broke off', async () => {
    configure(site, { PutNameFormat: '%jid', MaxBytesPerDay: '100', MaxUploadsPerDay: '3' });
    assert.equal(await statusOf({ jobId: 'a', out: 'x'.repeat(10) }), 200);
    for (const out of ['y'.repeat(10), 'y'.repeat(80)]) assert.equal(await statusOf({ jobId: 'a', out }), 451);
    const broken = raw('PUT', { jobId: 'b', out: 'x'.repeat(80) }).subarray(0, -60);
    await runBare(broken, { settingsFile: site.propertiesFile, user });
    assert.match(logOf(site).at(-1) ?? '', / 456 -- /);
    assert.equal(await statusOf({ jobId: 'c', out: 'x'.repeat(71) }), 507);
    assert.equal(await statusOf({ jobId: 'c', out: 'x'.repeat(70) }), 200);
    assert.equal(await statusOf({ jobId: 'd' }), 507);
    assert.match(logOf(site).at(-1) ?? '', /: over MaxUploadsPerDay until midnight UTC$/);
  });

  it('have another limit for a client with an override', async () => {
    configure(site, { PutNameFormat: '%jid', MaxUploadsPerDay: '1', RequireMatch: 'N' });
    const override = (clientId: string, text: string): void => {
      const folder = join(site.base, 'config/nph-webjob/clients', clientId);
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'nph-webjob.cfg'), text);
    };
    override('client2', 'MaxUploadsPerDay=3\n');
    override('client3', 'MaxUploadsPerDay=0\nMaxRequestsAtOnce=1\n');
    const counts: Record<string, number> = { client1: 1, client2: 3, client3: 4 };
    for (const [clientId, allowed] of Object.entries(counts)) {
      const statuses: number[] = [];
      for (let time = 0; time < 4; time += 1) statuses.push(await statusOf({ clientId, jobId: `${clientId}-${time}` }));
      assert.deepEqual(
        statuses,
        Array.from({ length: 4 }, (_, time) => (time < allowed ? 200 : 507)),
        clientId,
      );
    }
    rmSync(join(site.base, 'config'), { recursive: true });
  });

  it('start again at midnight UTC, wherever the server is', needsFakeClock, async () => {
    configure(site, { PutNameFormat: '%jid', MaxUploadsPerDay: '1' });
    const clock = makeFakeClock(join(site.root, 'clock'));
    const environment = Object.entries({ ...clock.environment, TZ: 'America/New_York' });
    const sendAt = async (time: string, jobId: string): Promise<StrictAnswer> => {
      clock.set(`@${time}`);
      const options = { settingsFile: site.propertiesFile, user, environment, isAlone: true };
      return parseAnswer((await runBare(raw('PUT', { jobId, out: 'x' }), options)).stdout);
    };
    // 19:00 in New York is midnight in UTC.
    assert.equal((await sendAt('2026-11-30 18:59:30', 'a')).status, 200);
    const refused = await sendAt('2026-11-30 18:59:40', 'b');
    assert.equal(refused.status, 507);
    const seconds = Number(refused.headers.get('retry-after'));
    assert.ok(seconds > 0 && seconds <= 20, String(seconds));
    assert.equal((await sendAt('2026-11-30 19:00:00', 'b')).status, 200);
    assert.equal((await sendAt('2026-11-30 23:00:00', 'c')).status, 507);
    assert.equal((await sendAt('2026-12-02 12:00:00', 'c')).status, 200);
    assert.deepEqual(readdirSync(limitsOf(site, 'client1')), ['day-20261201-server_1', 'day-20261202-server_1']);
  });
});

describe('a client over its limits', () => {
  beforeEach(settleDay);

  it('keeps its upload, and delivers it when it may', async () => {
    const its = await startClientSite();
    try {
      const spool = join(its.client.root, 'spool');
      mkdirSync(spool, { mode: 0o700 });
      its.configure({ SpoolDirectory: spool, RetryLimit: '0' });
      its.add('host.sh', '#!/bin/sh\necho here\n');
      const limit = (controls: Record<string, string>): void =>
        configure(its.site, { PutNameFormat: '%jid', ...controls });
      limit({ MaxUploadsPerDay: '1' });
      assert.equal((await its.client.execute(['host.sh'])).code, 0);
      assert.equal(its.takeUpload().out.toString(), 'here\n');
      const { code, stderr } = await its.client.execute(['host.sh']);
      assert.equal(code, 5, stderr);
      assert.match(stderr, /Status = \[507\], Reason = \[Insufficient Storage\]/);
      assert.deepEqual(readdirSync(its.site.incoming), []);
      assert.equal(readdirSync(spool).length, 1);
      limit({ MaxUploadsPerDay: '10' });
      assert.equal((await runWebjob(['--flush', '--file', its.client.conf])).code, 0);
      assert.equal(its.takeUpload().out.toString(), 'here\n');
      assert.deepEqual(readdirSync(spool), []);
    } finally {
      await its.close();
    }
  });
});

describe('a directory in which nothing can be counted', () => {
  const site = makeSite();
  after(() => site.remove());
  beforeEach(() => renew(site));
  const askBoth = async (): Promise<number[]> => {
    const answers = [];
    for (const method of ['GET', 'PUT'] as const)
      answers.push((await askWorker(raw(method, { jobId: 'a', out: 'x' }), site.propertiesFile)).status);
    return answers;
  };
  const LIMITS = { PutNameFormat: '%jid', MaxRequestsAtOnce: '5', MaxUploadsPerDay: '5' };

  it('causes 550 for limited requests when it is missing, and names the setting', async () => {
    configure(site, { ...LIMITS, LimitsDirectory: '/nonexistent' });
    assert.deepEqual(await askBoth(), [550, 550]);
    const [said] = saidBy(site);
    assert.equal(said, '550 Internal Server Initialization Error: LimitsDirectory: mkdir failed: ENOENT');
    // Of another length, by which a worker recognises that it has changed.
    configure(site, { ...LIMITS, LimitsDirectory: '/nonexistent', MaxRequestsAtOnce: '000' });
    assert.deepEqual(await askBoth(), [200, 550], 'a GET is not limited');
    assert.deepEqual(readdirSync(site.incoming), []);
  });

  it('causes 550 on a read-only disk, and 507 on a full one', { skip: findMountObstacle() }, async () => {
    const disk = join(site.root, 'disk');
    mkdirSync(disk);
    mountTmpfs(disk, 'ro');
    try {
      configure(site, { ...LIMITS, LimitsDirectory: disk });
      assert.deepEqual(await askBoth(), [550, 550]);
      assert.match(saidBy(site)[0] ?? '', /: LimitsDirectory: mkdir failed: EROFS$/);
    } finally {
      unmountTmpfs(disk);
    }
    mountTmpfs(disk, 'nr_inodes=2');
    try {
      if (user) chownSync(disk, user.uid, user.gid);
      assert.deepEqual(await askBoth(), [507, 507]);
      assert.equal(countReady(site), 0);
    } finally {
      unmountTmpfs(disk);
    }
  });
});
