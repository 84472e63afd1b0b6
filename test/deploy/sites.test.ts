// Several sites on one server, with the lines of apache/README.md: nothing of one is accessible
// through another.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { addUser, makeSite, type Site } from '../../scripts/site.ts';
import { readGuide, stageCheckout } from '../support/deployment-guide.ts';
import { formatBasics, makeRoot, startApache } from '../support/deployment-httpd.ts';
import { ask, getHead, type Job, putHead } from '../support/deployment-wire.ts';

const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const PATHS = ['/usr/local/apache'];

interface Named extends Site {
  name: string;
}

/** A site with its files in the places that the README's lines for `name` expect. */
function makeNamedSite(root: string, name: string): Named {
  const site = makeSite({ settings: { PutNameFormat: '%cid_%cmd_%jid', ServerId: name } });
  const apache = join(root, 'usr/local/apache');
  mkdirSync(join(apache, 'etc'), { recursive: true });
  cpSync(site.cgiDirectory, join(apache, `webjob-${name}`), { recursive: true });
  cpSync(site.propertiesFile, join(apache, `etc/${name}.cfg`));
  writeFileSync(join(site.profiles, 'client1/host.sh'), `#!/bin/sh\necho ${name}\n`);
  return { ...site, name };
}

/**
 * The README's lines, and where they are used: by name on one port, or each on a port of its own.
 */
function configure(root: string, kind: 'name' | 'port', [first = 0, second = 0]: number[]): string {
  const [lines = ''] = readGuide('apache/README.md', root, PATHS).blocks('apache', 'Several sites on one server');
  let ports = kind === 'name' ? [first, first] : [first, second];
  return lines.replaceAll('<VirtualHost *:80>', () => {
    const [port, ...rest] = ports;
    ports = rest;
    return `<VirtualHost 127.0.0.1:${port}>`;
  });
}

for (const kind of ['name', 'port'] as const) {
  describe(`two sites on one server, told apart by ${kind}`, async () => {
    const root = makeRoot();
    const checkout = stageCheckout(root, PATHS);
    const [east, west] = [makeNamedSite(root, 'east'), makeNamedSite(root, 'west')];
    cpSync(join(checkout, 'apache/webjob.conf'), join(root, 'usr/local/apache/etc/webjob.conf'));
    // The same name with another password, and a name that only one site knows.
    writeFileSync(west.userFile, '');
    addUser(west, 'client1', 'bar');
    addUser(west, 'client2', 'baz');
    const configurationFile = join(root, 'httpd.conf');
    const httpd = await startApache({
      serverRoot: root,
      configurationFile,
      errorLog: join(root, 'error.log'),
      portCount: 2,
      configure: (ports) =>
        writeFileSync(configurationFile, formatBasics(root, ports, MODULES) + configure(root, kind, ports)),
    });
    after(async () => {
      await httpd.stop();
      for (const folder of [root, east.root, west.root]) rmSync(folder, { recursive: true, force: true });
    });
    beforeEach(() => {
      for (const { logFile } of [east, west]) writeFileSync(logFile, '');
    });

    const send = (site: Named, format: (job: Job) => string, job: Job) => {
      const port = httpd.ports[kind === 'port' && site === west ? 1 : 0] ?? 0;
      const host = `Host: ${site.name}.example.com`;
      const headers = ['Connection: close', ...(job.headers ?? [])];
      return ask(port, format({ ...job, headers }).replace(/^Host: .*$/m, host));
    };
    const put = (job: Job): string => `${putHead(5, job)}hello`;
    const logged = (site: Site): string[] => readFileSync(site.logFile, 'utf8').split('\n').filter(Boolean);

    it('serve their own commands, and store their own uploads', async () => {
      for (const [site, password] of [
        [east, 'foo'],
        [west, 'bar'],
      ] as const) {
        const got = await send(site, getHead, { password });
        assert.deepEqual([got.status, got.body.toString()], [200, `#!/bin/sh\necho ${site.name}\n`]);
        const jobId = got.headers.get('job-id') ?? '';
        assert.match(jobId, new RegExp(`^${site.name}_`));
        assert.equal((await send(site, put, { password, headers: [`Job-Id: ${jobId}`] })).status, 200);
        assert.deepEqual(
          readdirSync(site.incoming).sort(),
          ['env', 'err', 'out', 'rdy'].map((extension) => `client1_host.sh_${jobId}.${extension}`),
        );
        assert.equal(logged(site).length, 2);
      }
      assert.equal(logged(east).length, 2, 'nothing of west in the log of east');
    });

    it("admit nobody with the other site's password, or with a name that only the other knows", async () => {
      const before = [east, west].map(({ incoming }) => readdirSync(incoming).length);
      const attempts: [Named, Job][] = [
        [east, { password: 'bar' }],
        [west, { password: 'foo' }],
        [east, { clientId: 'client2', password: 'baz' }],
      ];
      for (const [site, job] of attempts) {
        for (const format of [getHead, put]) assert.equal((await send(site, format, job)).status, 401);
      }
      assert.deepEqual([...logged(east), ...logged(west)], []);
      assert.deepEqual(
        [east, west].map(({ incoming }) => readdirSync(incoming).length),
        before,
      );
    });

    it("read their own settings without touching the other's", async () => {
      const file = join(root, 'usr/local/apache/etc/west.cfg');
      const text = readFileSync(file);
      writeFileSync(file, `${text}\nEnableGetService=N\n`);
      assert.equal((await send(west, getHead, { password: 'bar' })).status, 553);
      assert.equal((await send(east, getHead, {})).status, 200);
      writeFileSync(file, text);
    });
  });
}

describe('a virtual host that forgets its Define', async () => {
  const root = makeRoot();
  const checkout = stageCheckout(root, PATHS);
  const east = makeNamedSite(root, 'east');
  cpSync(join(checkout, 'apache/webjob.conf'), join(root, 'usr/local/apache/etc/webjob.conf'));
  const configurationFile = join(root, 'httpd.conf');
  const httpd = await startApache({
    serverRoot: root,
    configurationFile,
    errorLog: join(root, 'error.log'),
    portCount: 2,
    configure: (ports) => {
      const lines = configure(root, 'port', ports).replace(
        /(<VirtualHost.*<VirtualHost[^\n]*\n[^\n]*\n)\s*Define[^\n]*\n\s*Define[^\n]*\n/s,
        '$1',
      );
      writeFileSync(configurationFile, formatBasics(root, ports, MODULES) + lines);
    },
  });
  after(async () => {
    await httpd.stop();
    for (const folder of [root, east.root]) rmSync(folder, { recursive: true, force: true });
  });

  it("gets the previous site's, as the README warns", async () => {
    const answer = await ask(httpd.ports[1] ?? 0, getHead());
    assert.equal(answer.body.toString(), '#!/bin/sh\necho east\n');
  });
});
