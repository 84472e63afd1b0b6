// What httpd itself keeps away from the script, in every configuration: bodies over
// WEBJOB_LIMIT_REQUEST_BODY, and clients that send very slowly.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { after, describe, it } from 'node:test';
import { startHttpd } from '../../scripts/httpd.ts';
import { obtainFcgid } from '../../scripts/httpd-package.ts';
import { startWay, WAYS } from '../../scripts/resident.ts';
import { makeSite } from '../../scripts/site.ts';
import { putHead } from '../support/deployment-wire.ts';
import { sendRaw } from '../support/target.ts';
import { part } from '../support/thorough.ts';
import { readLog } from '../support/tree.ts';

const LIMIT = 1000;
const before = `Define WEBJOB_LIMIT_REQUEST_BODY ${LIMIT}`;
const HAS_FCGID = obtainFcgid() !== undefined;

for (const way of part(['prefork', 'event', ...WAYS] as const, 2)) {
  const isHere = way !== 'mod_fcgid' || HAS_FCGID;
  describe(`an upload limit under ${way}`, { skip: !isHere && 'no mod_fcgid on this machine' }, async () => {
    if (!isHere) return;
    const isScript = way === 'prefork' || way === 'event';
    const site = makeSite({ resident: !isScript });
    const serving = isScript
      ? await startHttpd({ site, mpm: way, before }).then((server) => ({ server, close: () => server.stop() }))
      : await startWay(way, site, { before });
    after(async () => {
      await serving.close();
      site.remove();
    });
    const { port } = serving.server;
    const put = (head: string, bytes: number): Promise<string> =>
      sendRaw(
        port,
        Buffer.concat([
          Buffer.from(head.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')),
          Buffer.alloc(bytes, 'x'),
        ]),
      );

    it('keeps larger bodies from the script, and lets the largest through', async () => {
      for (const bytes of [LIMIT + 1, 9_999_999, 10_000_000]) {
        assert.match(await put(putHead(bytes), bytes), /^HTTP\/1\.1 413 /, `${bytes}`);
        assert.deepEqual([readLog(site.base), readdirSync(site.incoming)], [[], []]);
      }
      assert.match(await put(putHead(LIMIT), LIMIT), /^HTTP\/1\.1 200 /);
      assert.equal(readdirSync(site.incoming).length, 4);
    });

    it('still requires authentication', async () => {
      const head = putHead(LIMIT + 1, { password: 'wrong' });
      assert.match(await put(head, LIMIT + 1), /^HTTP\/1\.1 (?:401|413) /);
      assert.match(await put(putHead(LIMIT, { password: 'wrong' }), LIMIT), /^HTTP\/1\.1 401 /);
    });

    // httpd reads the body, before or beside the script.
    const isOther = way === 'prefork' || way === 'mod_fcgid';
    it('ends a client that sends less than 500 bytes a second', {
      timeout: 90_000,
      skip: isOther && 'one of each kind is enough',
    }, async () => {
      const start = Date.now();
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      const ended = new Promise((resolve) => socket.on('close', resolve));
      socket.resume();
      socket.write(putHead(LIMIT));
      const drip = setInterval(() => socket.write('x'), 500);
      await ended;
      clearInterval(drip);
      const seconds = (Date.now() - start) / 1000;
      assert.ok(seconds > 15 && seconds < 60, `${seconds}`);
    });
  });
}
