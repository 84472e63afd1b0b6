// Real nginx and fcgiwrap with the configuration in docs/guide/resident.md: every status arrives as
// the script sends it, and the built client recognises a refusal.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatGetQuery, formatPutQuery, type GetQuery, type PutQuery } from 'webjob-protocol';
import { addUser, configure, makeSite } from '../../scripts/site.ts';
import { type Client, type Ended, makeClient } from '../support/client-job.ts';
import { runWebjobctl } from '../support/locker-site.ts';
import { isNginxMissing, type Nginx, startFcgiwrap } from '../support/nginx.ts';

const GUIDE = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'resident.md'), 'utf8');
const BLOCK = /^```nginx\n(.*?)^```$/ms.exec(GUIDE)?.[1] ?? '';
const PATH = '/webjob/nph-webjob.cgi';
/**
 * A script as in earlier versions, which does not detect what runs it: it writes a status line,
 * which nginx drops.
 */
const OLD = '/old/nph-webjob.cgi';
const QUERY: GetQuery = { version: 'webjob 1.4.0', system: 'any', clientId: 'client1', fileName: 'host.sh' };
const LENGTHS: PutQuery = { ...QUERY, runType: 'snapshot', outLength: 3, errLength: 0, envLength: 0 };

describe('nginx with fcgiwrap', { skip: isNginxMissing() }, () => {
  const site = makeSite();
  let nginx: Nginx;
  let client: Client;
  before(async () => {
    addUser(site, 'client2', 'bar');
    const old = join(site.cgiDirectory, 'nph-old.cgi');
    writeFileSync(old, `#!/bin/sh\nunset FCGI_ROLE\nexec ${join(site.cgiDirectory, 'nph-webjob.cgi')}\n`, {
      mode: 0o755,
    });
    nginx = await startFcgiwrap(site, ({ socket, fastcgiParams }) => {
      const places: [string, string][] = [
        ['/run/fcgiwrap.socket', socket],
        ['include fastcgi_params', `include ${fastcgiParams}`],
        ['/usr/local/apache/etc/nph-webjob.cfg', site.propertiesFile],
        ['/usr/local/apache/etc/webjob.htpasswd', site.userFile],
        ['/usr/local/apache/webjob/', `${site.cgiDirectory}/`],
      ];
      const location = places.reduce((text, [from, to]) => {
        assert.ok(text.includes(from), `the guide names ${from}`);
        return text.replaceAll(from, to);
      }, BLOCK);
      return `${location} ${location.replace(PATH, OLD).replace('/nph-webjob.cgi;', '/nph-old.cgi;')}`;
    });
    client = makeClient();
  });
  after(async () => {
    await nginx?.close();
    client?.remove();
    site.remove();
  });

  /** `404 Not Found`, and the content. */
  const ask = (method: 'GET' | 'PUT', path: string, body = '', user = 'client1:foo'): Promise<[string, string]> =>
    new Promise((resolve, reject) => {
      const headers = { 'Content-Length': body.length, Authorization: `Basic ${btoa(user)}`, Connection: 'close' };
      const options = { host: '127.0.0.1', port: nginx.port, method, path, headers, agent: false };
      request(options, async (answer) => {
        let content = '';
        for await (const piece of answer.setEncoding('latin1')) content += piece;
        resolve([`${answer.statusCode} ${answer.statusMessage}`, content]);
      })
        .on('error', reject)
        .end(body);
    });
  const get = (query: Partial<GetQuery> = {}, path = PATH): string =>
    `${path}?${formatGetQuery({ ...QUERY, ...query })}`;
  const put = (query: Partial<PutQuery> = {}): string => `${PATH}?${formatPutQuery({ ...LENGTHS, ...query })}`;

  it('passes on every status as the script sends it', async () => {
    assert.deepEqual(await ask('GET', get()), ['200 OK', '#!/bin/sh\nhostname\n']);
    assert.deepEqual(await ask('GET', get({ fileName: 'absent' })), ['404 Not Found', '']);
    assert.equal((await ask('GET', get(), '', 'client1:wrong'))[0], '401 Unauthorized');
    assert.deepEqual(await ask('GET', get(), '', 'client2:bar'), ['453 Username-ClientId Mismatch', '']);
    assert.deepEqual(await ask('PUT', put(), 'abc'), ['200 OK', '']);
    assert.deepEqual(await ask('PUT', put({ outLength: 4 }), 'abc'), ['456 Content-Length Mismatch', '']);
    assert.deepEqual(await ask('PUT', put({ runType: 'linktest' }), 'abc'), ['251 Link Test OK', '']);
    configure(site, { MaxContentLength: '2', CapContentLength: 'Y' });
    try {
      assert.match((await ask('PUT', put(), 'abc'))[0], /^455 /);
    } finally {
      configure(site, {});
    }
    assert.equal(readdirSync(site.incoming).filter((name) => name.endsWith('.rdy')).length, 1);
  });

  it('accepts an upload larger than nginx accepts by default', async () => {
    const body = 'x'.repeat(3_000_000);
    assert.deepEqual(await ask('PUT', put({ outLength: body.length }), body), ['200 OK', '']);
  });

  const run = async (path: string, program: string): Promise<Ended> => {
    const url = `http://127.0.0.1:${nginx.port}${path}`;
    const user = { URLAuthType: 'basic', URLUsername: 'client1', URLPassword: 'foo' };
    client.configure({ URLGetURL: url, URLPutURL: url, ...user });
    return await client.execute([program]);
  };

  it('serves a job of the client, and refuses a command that does not exist', async () => {
    assert.deepEqual(await run(PATH, 'host.sh'), { code: 0, signal: null, stdout: '', stderr: '' });
    const { code, stderr } = await run(PATH, 'absent');
    assert.deepEqual([code, stderr.includes('Status = [404], Reason = [Not Found]')], [3, true], stderr);
  });

  it('turns the refusal of an older script into 200, and the client reports it', async () => {
    assert.deepEqual(await ask('GET', get({ fileName: 'absent' }, OLD)), ['200 OK', '']);
    const { stderr } = await run(OLD, 'absent');
    assert.match(stderr, /^webjob: warning: the program is empty: .* fcgiwrap .*\n$/);
  });

  it('is probed by configtest, which finds the status that is lost', async () => {
    const probe = async (path: string): Promise<string> => {
      const conf = join(client.temp, 'probe.conf');
      const url = `http://127.0.0.1:${nginx.port}${path}`;
      const user = 'URLAuthType=basic\nURLUsername=client1\nURLPassword=foo\n';
      writeFileSync(conf, `ClientId=client1\nURLGetURL=${url}\nURLPutURL=${url}\n${user}`, { mode: 0o600 });
      const { text, stderr } = await runWebjobctl([
        ...['--config', site.propertiesFile, 'configtest', '--probe', url, '--as', conf],
      ]);
      return `${text}${stderr}`;
    };
    assert.match(await probe(PATH), /^note: link test: 251 Link Test OK /m);
    assert.match(await probe(OLD), /^error: link test: 200 OK instead of 251: the status is lost in transit/m);
  });
});
