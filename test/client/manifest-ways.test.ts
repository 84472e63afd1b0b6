// The size of manifests on each way to the client: 4096 bytes make a header of 5.4 kB, more than
// some servers pass on by default.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { after, before, describe, it } from 'node:test';
import { MAX_MANIFEST_BYTES } from 'webjob-protocol';
import { startHttpd } from '../../scripts/httpd.ts';
import { obtainFcgid } from '../../scripts/httpd-package.ts';
import { startWay, WAYS } from '../../scripts/resident.ts';
import { makeSite, type Site } from '../../scripts/site.ts';
import { startBalancer, startNode } from '../support/deployment-nodes.ts';
import { isNginxMissing, startFcgiwrap, startNginx } from '../support/nginx.ts';

const INTEROP = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'interop.md'), 'utf8');
const GUIDE = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'resident.md'), 'utf8');
const BLOCK = /^```nginx\n(.*?)^```$/ms.exec(GUIDE)?.[1] ?? '';
const PATH = '/webjob/nph-webjob.cgi?VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=client1&FILENAME=host.sh';

/** Requests a program whose manifest has this many bytes. */
async function arrives(
  site: Site,
  port: number,
  bytes: number,
): Promise<{ status: number | undefined; isWhole: boolean }> {
  const manifest = Buffer.alloc(bytes, 'x');
  writeFileSync(join(site.profiles, 'client1', 'host.sh.manifest'), manifest);
  const headers = { Authorization: `Basic ${btoa('client1:foo')}`, 'Content-Length': '0' };
  const sent = request({ host: '127.0.0.1', port, path: PATH, headers, agent: false, timeout: 30_000 });
  sent.on('timeout', () => sent.destroy(new Error('no answer'))).end();
  const [answer] = (await once(sent, 'response')) as [IncomingMessage];
  // An answer whose header fills nginx's buffer to its last byte breaks off.
  const status = await finished(answer.resume()).then(
    () => answer.statusCode,
    () => undefined,
  );
  const isWhole = status === 200 && answer.headers['webjob-payload-manifest'] === manifest.toString('base64');
  return { status, isWhole };
}

async function assertLongest(site: Site, port: number): Promise<void> {
  assert.deepEqual(await arrives(site, port, MAX_MANIFEST_BYTES), { status: 200, isWhole: true });
}

/** The longest that arrives; a longer one is an error for the client, and is never cut. */
async function measure(site: Site, port: number): Promise<number> {
  let [good, bad] = [1, MAX_MANIFEST_BYTES];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    const { status, isWhole } = await arrives(site, port, middle);
    assert.equal(isWhole, status === 200, `${middle} bytes: ${status}`);
    if (isWhole) good = middle;
    else bad = middle;
  }
  return good;
}

describe('a manifest of 4096 bytes', () => {
  it('passes through httpd, which runs the script', async () => {
    const site = makeSite();
    const server = await startHttpd({ site, mpm: 'event' });
    try {
      await assertLongest(site, server.port);
    } finally {
      await server.stop();
      site.remove();
    }
  });

  for (const way of WAYS)
    it(`passes through ${way}`, { skip: way === 'mod_fcgid' && !obtainFcgid() && 'no mod_fcgid' }, async () => {
      const site = makeSite({ resident: true });
      const { server, close } = await startWay(way, site, {}, ['--processes', '1']);
      try {
        await assertLongest(site, server.port);
      } finally {
        await close();
        site.remove();
      }
    });

  it('passes through webjob-balancer.conf', async () => {
    const site = makeSite();
    const nodes = [
      await startNode(site, 'node_1', { settings: '' }),
      await startNode(site, 'node_2', { settings: '' }),
    ];
    const servers = [...nodes];
    try {
      const balancer = await startBalancer(site, nodes);
      servers.push(balancer);
      await assertLongest(site, balancer.ports[0] ?? 0);
    } finally {
      for (const server of servers) await server.stop();
      site.remove();
    }
  });

  describe('nginx', { skip: isNginxMissing() }, () => {
    let site: Site;
    let server: Awaited<ReturnType<typeof startHttpd>>;
    before(async () => {
      site = makeSite();
      server = await startHttpd({ site, mpm: 'event' });
    });
    after(async () => {
      await server.stop();
      site.remove();
    });

    it('needs the buffer that docs/interop.md names for the largest manifests, in front of httpd', async (context) => {
      const [line = ''] = /proxy_buffer_size \d+k;/.exec(INTEROP) ?? [];
      const widened = await startNginx(server.port, { lines: line });
      await assertLongest(site, widened.port).finally(() => widened.close());
      const plain = await startNginx(server.port);
      const longest = await measure(site, plain.port).finally(() => plain.close());
      context.diagnostic(`nginx with its own buffer: ${longest} bytes`);
      const said = Number(/up to (\d,\d{3}) bytes/.exec(INTEROP)?.[1]?.replace(',', ''));
      assert.ok(longest >= said && longest < said + 200, `${longest}, and docs/interop.md says ${said}`);
    });

    it('passes the largest manifests on with fcgiwrap and the lines of docs/guide/resident.md', async () => {
      const wrapped = await startFcgiwrap(site, ({ socket, fastcgiParams }) =>
        BLOCK.replace('/usr/local/apache/etc/webjob.htpasswd', site.userFile)
          .replace('/usr/local/apache/webjob/nph-webjob.cgi', join(site.cgiDirectory, 'nph-webjob.cgi'))
          .replace('/usr/local/apache/etc/nph-webjob.cfg', site.propertiesFile)
          .replace('include fastcgi_params', `include ${fastcgiParams}`)
          .replace('unix:/run/fcgiwrap.socket', `unix:${socket}`),
      );
      await assertLongest(site, wrapped.port).finally(() => wrapped.close());
    });
  });
});
