// A persistent worker behind httpd in both configurations: the strictest client, certificates,
// restarts under load, a killed httpd, and clients that never finish.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { obtainFcgid } from '../../scripts/httpd-package.ts';
import {
  findProcesses,
  linesOfWay,
  MODULES_OF_WAY,
  type ResidentSite,
  startResident,
  startWay,
  WAYS,
} from '../../scripts/resident.ts';
import { addCommand, addUser, configure, makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { makeCertificates, startSecureSite } from '../support/secure-site.ts';
import { askStrictly, type StrictAnswer, zeros } from '../support/strict-client.ts';
import { many } from '../support/thorough.ts';
import { readLog } from '../support/tree.ts';

const MEGABYTE = 1024 * 1024;
const SLOW_CLIENTS = many(500, 200);
/** The pause between two requests of a client while httpd is restarted. */
const PAUSE_MS = 40;

let count = 0;

/** A request with the headers of a C client. */
function head(port: number, method: 'GET' | 'PUT', bytes: number, client = 'client1'): string {
  count += 1;
  const query = `VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=${client}&FILENAME=none.sh`;
  const put = `&RUNTYPE=snapshot&STDOUT_LENGTH=${bytes}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return [
    `${method} /webjob/nph-webjob.cgi?${query}${method === 'PUT' ? put : ''} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    `Content-Length: ${bytes}`,
    `Authorization: Basic ${btoa('client1:foo')}`,
    // Like the original, it waits for the end of the connection.
    'Connection: close',
    ...(method === 'PUT' ? [`Job-Id: strict_${count}`] : []),
    '\r\n',
  ].join('\r\n');
}

const askFor = (port: number, method: 'GET' | 'PUT', bytes = 0, client?: string): Promise<StrictAnswer> =>
  askStrictly({ port, head: head(port, method, bytes, client), body: zeros(bytes), timeLimitSeconds: 120 });

/**
 * A process that mod_fcgid has forked, and that is not yet the script, dies in a restart, as
 * docs/guide/resident.md says.
 */
async function untilStarted(site: Site): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (let last = '', since = Date.now(); Date.now() - since < 1_000 && Date.now() < deadline; await sleep(50)) {
    const now = findProcesses(site).join();
    if (now !== last) since = Date.now();
    last = now;
  }
}

const certificates = makeCertificates();
after(() => certificates.remove());

for (const way of WAYS) {
  const isHere = way !== 'mod_fcgid' || obtainFcgid() !== undefined;
  describe(`httpd with ${way}`, { skip: !isHere && 'no mod_fcgid on this machine' }, async () => {
    if (!isHere) return;
    const site = makeSite({ resident: true });
    addUser(site, 'client2', 'bar');
    configure(site, { PutNameFormat: '%jid' });
    addCommand(site, 'client1', 'none.sh', 'none');
    const serving = await startWay(way, site);
    after(async () => {
      await serving.close();
      site.remove();
    });
    const { port } = serving.server;

    it('serves a strict client files of every size, and stores them', async () => {
      const folder = join(site.profiles, 'client1', 'commands');
      mkdirSync(folder, { recursive: true });
      for (const bytes of [0, 1, 1024, MEGABYTE, 12 * MEGABYTE]) {
        const content = Buffer.alloc(bytes, 'webjob');
        writeFileSync(join(folder, 'none.sh'), content);
        const got = await askFor(port, 'GET');
        assert.deepEqual([got.status, got.reason], [200, 'OK']);
        assert.ok(got.body.equals(content), `${bytes} bytes`);
        assert.equal((await askFor(port, 'PUT', bytes)).status, 200);
      }
    });

    it('uses a separate process for an upload of 10 MB or more, and none for a shorter one', async () => {
      const pidOfLast = (): number => Number(readRecords(custodyOf(site)).at(-1)?.pid);
      assert.equal((await askFor(port, 'PUT', 9_999_999)).status, 200);
      assert.ok(findProcesses(site).includes(pidOfLast()), 'it stays');
      assert.equal((await askFor(port, 'PUT', 10_000_000)).status, 200);
      for (const deadline = Date.now() + 60_000; findProcesses(site).includes(pidOfLast()); await sleep(50))
        assert.ok(Date.now() < deadline, 'it ends');
      const lengths = readLog(site.base).map((line) => / PUT client1 none\.sh (\d+) 0 \d+ 200 -- /.exec(line)?.[1]);
      assert.deepEqual(lengths.slice(-2), ['9999999', '10000000']);
      // Every request must be authenticated.
      const anonymous = head(port, 'PUT', 10_000_000).replace(/Authorization.*\r\n/, 'Expect: 100-continue\r\n');
      const refused = await askStrictly({ port, head: anonymous, timeLimitSeconds: 120 });
      assert.equal(refused.status, 401);
      assert.equal((await askFor(port, 'PUT', 10_000_000, 'client2')).status, 453);
    });

    it('never loses an answer to a strict client, even a refusal with a body', async () => {
      for (const [client, status] of [
        ['client1', 200],
        ['client2', 453],
      ] as const) {
        const answers = await Promise.all(Array.from({ length: 8 }, () => askFor(port, 'PUT', MEGABYTE, client)));
        assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [status]);
      }
    });

    it(`refuses or serves a GET without a length as set, ${way === 'mod_fcgid' ? 'by' : 'without'} a separate process`, async () => {
      const bare = head(port, 'GET', 0).replace('Content-Length: 0\r\n', '');
      const ask = (text: string): Promise<StrictAnswer> => askStrictly({ port, head: text, timeLimitSeconds: 120 });
      // A persistent worker numbers its requests: job ids of the same second differ.
      const numberOf = ({ headers }: StrictAnswer): number =>
        Number(headers.get('job-id')?.split('_').at(-1)) % 4_194_304;
      assert.equal((await ask(bare)).status, 454);
      configure(site, { PutNameFormat: '%jid', GetRequireContentLength: 'N' });
      try {
        const isServed = async (): Promise<boolean> => (await ask(bare)).status === 200;
        for (const deadline = Date.now() + 60_000; !(await isServed()); await sleep(100))
          assert.ok(Date.now() < deadline);
        assert.equal(findProcesses(site).includes(numberOf(await ask(bare))), way === 'mod_proxy_fcgi');
        const chunked = bare.replace('Connection: close', 'Transfer-Encoding: chunked\r\nConnection: close');
        const refused = await askStrictly({
          port,
          head: chunked,
          body: [Buffer.from('0\r\n\r\n')],
          timeLimitSeconds: 120,
        });
        assert.equal(refused.status, 454);
        assert.ok(!findProcesses(site).includes(numberOf(refused)), 'a process of its own answers');
      } finally {
        configure(site, { PutNameFormat: '%jid' });
      }
      const isRefused = async (): Promise<boolean> => (await ask(bare)).status === 454;
      for (const deadline = Date.now() + 60_000; !(await isRefused()); await sleep(100))
        assert.ok(Date.now() < deadline);
    });

    it('refuses a chunked body, and keeps nothing of it before', async () => {
      const text = head(port, 'PUT', 5).replace('Content-Length: 5', 'Transfer-Encoding: chunked');
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      const isLogged = (): boolean => / PUT client1 none\.sh - 0 0 454 -- /.test(readLog(site.base).at(-1) ?? '');
      try {
        socket.write(`${text}5\r\nhello\r\n`);
        // Its end has not arrived.
        for (const deadline = Date.now() + 60_000; !isLogged(); await sleep(20)) assert.ok(Date.now() < deadline);
      } finally {
        socket.destroy();
      }
    });

    it('treats a chunked body that breaks off as no upload', async () => {
      const before = readLog(site.base).filter((line) => line.includes(' 200 -- ')).length;
      const text = head(port, 'PUT', 7).replace('Content-Length: 7', 'Transfer-Encoding: chunked');
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      socket.write(`${text}3\r\nabc\r\n4\r\nde`);
      await sleep(200);
      socket.destroy();
      assert.equal((await askFor(port, 'GET')).status, 200);
      assert.equal(readLog(site.base).filter((line) => line.includes(' 200 -- ')).length, before + 1);
    });

    it('loses no request in graceful restarts under load', async () => {
      let isOver = false;
      const problems: string[] = [];
      let asked = 0;
      const ask = async (): Promise<void> => {
        while (!isOver) {
          asked += 1;
          try {
            const { status } = await askFor(port, asked % 2 ? 'GET' : 'PUT', asked % 2 ? 0 : 100_000);
            if (status !== 200) problems.push(String(status));
          } catch (error) {
            problems.push((error as Error).message);
          }
          await sleep(PAUSE_MS);
        }
      };
      const asking = [ask(), ask(), ask(), ask()];
      const untilAsked = async (more: number): Promise<void> => {
        const enough = asked + more;
        for (const deadline = Date.now() + 60_000; asked < enough && Date.now() < deadline; ) await sleep(20);
      };
      for (let turn = 0; turn < 2; turn += 1) {
        await untilAsked(12);
        await untilStarted(site);
        process.kill(serving.server.pid, 'SIGUSR1');
        await sleep(500);
      }
      await untilAsked(12);
      isOver = true;
      await Promise.all(asking);
      // A process may be started at any moment; the guide says what such a request costs, and what
      // is then in the error log.
      const starting =
        readFileSync(serving.server.errorLog, 'latin1').match(/server is restarted, pid \d+ must exit/g) ?? [];
      const unexplained = problems.filter((problem) => problem !== '500' || starting.pop() === undefined);
      assert.deepEqual(unexplained, [], `of ${asked}`);
      assert.ok(asked > 30, `${asked} requests`);
    });

    it(`serves other clients while ${SLOW_CLIENTS} clients never finish`, async () => {
      const whole = head(port, 'PUT', 1000);
      const sockets: Socket[] = [];
      try {
        for (let index = 0; index < SLOW_CLIENTS; index += 1) {
          const socket = connect(port, '127.0.0.1').on('error', () => {});
          socket.write(index % 2 ? whole.slice(0, 40) : `${whole}abc`);
          sockets.push(socket);
        }
        await sleep(300);
        assert.equal((await askFor(port, 'GET')).status, 200);
        assert.equal((await askFor(port, 'PUT', 1000)).status, 200);
      } finally {
        for (const socket of sockets) socket.destroy();
      }
    });
  });

  describe(`client certificates behind ${way}`, { skip: !isHere && 'no mod_fcgid on this machine' }, async () => {
    if (!isHere) return;
    it('authenticate a client, as with CGI', async () => {
      let stop: () => Promise<unknown> = async () => {};
      const secure = await startSecureSite({
        certificates,
        virtualHost: 'certificate' as const,
        modules: MODULES_OF_WAY[way],
        resident: (site) => linesOfWay(way, site, join(site.root, 'httpd-event')),
      });
      try {
        if (way === 'mod_proxy_fcgi') ({ stop } = await startResident(secure.site));
        secure.configure('certificate');
        secure.permit('htaccess-certificates');
        const [own, other, rogue] = [
          certificates.site.issue({ subject: '/CN=client1' }),
          certificates.site.issue({ subject: '/CN=client2' }),
          certificates.rogue.issue({ subject: '/CN=client1' }),
        ];
        assert.equal(await secure.status({ identity: own }), 200);
        assert.equal(await secure.status({ identity: own, upload: Buffer.alloc(300_000, 'x') }), 200);
        assert.equal(await secure.status({ identity: other }), 453);
        await assert.rejects(secure.status({ identity: rogue }));
      } finally {
        await secure.close();
        await stop();
      }
    });
  });
}

describe('an httpd that is killed', { skip: obtainFcgid() === undefined && 'no mod_fcgid on this machine' }, () => {
  it('leaves no process of mod_fcgid behind', async () => {
    const site = makeSite({ resident: true });
    let serving: ResidentSite | undefined;
    try {
      serving = await startWay('mod_fcgid', site);
      assert.equal((await askFor(serving.server.port, 'GET')).status, 404);
      assert.ok(findProcesses(site).length > 0);
      process.kill(serving.server.pid, 'SIGKILL');
      await serving.close();
      for (const deadline = Date.now() + 60_000; findProcesses(site).length > 0 && Date.now() < deadline; )
        await sleep(50);
      assert.deepEqual(findProcesses(site), []);
    } finally {
      await serving?.close();
      site.remove();
    }
  });
});
