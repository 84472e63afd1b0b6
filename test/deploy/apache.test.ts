// The files in apache/ under a real httpd: whom they let in and keep out, and that every path in
// them can be configured from outside.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startHttpd } from '../../scripts/httpd.ts';
import { obtainHttpd } from '../../scripts/httpd-package.ts';
import { addUser, configure, makeSite } from '../../scripts/site.ts';
import { parseAnswer } from '../support/strict-client.ts';
import { sendRaw, watchForScript } from '../support/target.ts';

const shipped = join(import.meta.dirname, '..', '..', 'apache');
const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=client1&FILENAME=host.sh';

function formatRequest(method: string, path: string, user?: string, length = 0): Buffer {
  const authorization = user ? `Authorization: Basic ${Buffer.from(user).toString('base64')}\r\n` : '';
  return Buffer.from(
    `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: ${length}\r\n${authorization}\r\n`,
  );
}

async function ask(port: number, ...request: Parameters<typeof formatRequest>): Promise<number> {
  const text = await sendRaw(port, formatRequest(...request));
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1]);
}

for (const mpm of ['prefork', 'event'] as const) {
  describe(`apache/ with ${mpm}`, async () => {
    const site = makeSite();
    addUser(site, 'client2', 'bar');
    const server = await startHttpd({ site, mpm });
    const script = '/webjob/nph-webjob.cgi';
    after(async () => {
      await server.stop();
      site.remove();
    });

    it('accepts only the right password', async () => {
      assert.equal(await ask(server.port, 'GET', `${script}?${QUERY}`, 'client1:foo'), 200);
      for (const user of [undefined, 'client1:bar', 'client1:', ':foo', 'nobody:foo', 'CLIENT1:foo']) {
        assert.equal(await ask(server.port, 'GET', `${script}?${QUERY}`, user), 401, `${user}`);
      }
      assert.equal(await ask(server.port, 'GET', `${script}?${QUERY}`, 'client2:bar'), 453);
    });

    it('asks for the password, and admits only GET and PUT', async () => {
      for (const method of ['GET', 'PUT', 'HEAD']) {
        assert.equal(await ask(server.port, method, `${script}?${QUERY}`), 401, `${method} without a password`);
      }
      for (const method of ['POST', 'DELETE', 'OPTIONS', 'PROPFIND', 'get', 'JOB']) {
        assert.equal(await ask(server.port, method, `${script}?${QUERY}`), 403, `${method} without a password`);
        assert.equal(await ask(server.port, method, `${script}?${QUERY}`, 'client1:foo'), 403, method);
      }
    });

    it('serves neither the directory nor the files beside the script', async () => {
      assert.equal(await ask(server.port, 'GET', '/webjob/', 'client1:foo'), 403);
      assert.equal(await ask(server.port, 'GET', '/webjob/.htaccess', 'client1:foo'), 403);
      assert.equal(await ask(server.port, 'GET', `${script}/more?${QUERY}`, 'client1:foo'), 404);
      assert.equal(await ask(server.port, 'GET', '/webjob/%2e%2e/etc/nph-webjob.cfg', 'client1:foo'), 403);
    });

    it('refuses all requests without .htaccess', async () => {
      const path = join(site.cgiDirectory, '.htaccess');
      const text = readFileSync(path);
      rmSync(path);
      assert.equal(await ask(server.port, 'GET', `${script}?${QUERY}`, 'client1:foo'), 403);
      writeFileSync(path, text);
    });

    it('hides the password from the script', async () => {
      const path = join(site.cgiDirectory, 'nph-env.cgi');
      writeFileSync(path, "#!/bin/sh\nprintf 'HTTP/1.1 200 OK\\r\\n\\r\\n'; env\n", { mode: 0o755 });
      const text = await sendRaw(server.port, formatRequest('GET', '/webjob/nph-env.cgi', 'client1:foo'));
      assert.match(text, /^REMOTE_USER=client1$/m);
      assert.match(text, new RegExp(`^WEBJOB_PROPERTIES_FILE=${site.propertiesFile}$`, 'm'));
      assert.doesNotMatch(text, /AUTHORIZATION|foo|Y2xpZW50MTpmb28/);
      rmSync(path);
    });

    it('leaves the upload limit to nph-webjob.cfg', async () => {
      configure(site, { CapContentLength: 'Y', MaxContentLength: '1000000000000' });
      const query = `${QUERY}&RUNTYPE=linktest&STDOUT_LENGTH=0&STDERR_LENGTH=0&STDENV_LENGTH=0`;
      const head = formatRequest('PUT', `${script}?${query}`, 'client1:foo', 2_000_000_000_000).toString();
      // The whole request matters to the test: more than 1 GiB, Apache's own limit, is announced
      // and refused by the script.
      const text = await sendRaw(server.port, Buffer.from(head), watchForScript(site));
      assert.match(text, /^HTTP\/1\.1 (?:455 Content-Length Exceeds Limit|400 Bad Request)\r\n/);
      assert.match(readFileSync(site.logFile, 'utf8'), / 2000000000000 0 \d+ 455 -- Content-Length Exceeds Limit/);
      configure(site, {});
    });
  });
}

describe('a site with its own upload limit', async () => {
  const site = makeSite();
  const server = await startHttpd({ site, mpm: 'event', before: 'Define WEBJOB_LIMIT_REQUEST_BODY 1000' });
  after(async () => {
    await server.stop();
    site.remove();
  });

  it('does not answer TRACE', async () => {
    const head = formatRequest('TRACE', '/webjob/nph-webjob.cgi', 'client1:foo', 0);
    assert.match(await sendRaw(server.port, head), /^HTTP\/1\.1 405 /);
  });

  it('makes httpd refuse a larger request', async () => {
    const request = formatRequest('PUT', '/webjob/nph-webjob.cgi', 'client1:foo', 1001);
    const answer = await sendRaw(server.port, Buffer.concat([request, Buffer.alloc(1001)]));
    assert.match(answer, /^HTTP\/1\.1 413 /);
    const fits = formatRequest('PUT', '/webjob/nph-webjob.cgi', 'client1:foo', 1000);
    const text = await sendRaw(server.port, Buffer.concat([fits, Buffer.alloc(1000)]));
    assert.equal(parseAnswer(Buffer.from(text, 'latin1')).status, 450);
  });
});

describe('apache/webjob.conf as shipped', () => {
  const { binary, modulesDirectory, libraryPath } = obtainHttpd();
  const env = { PATH: process.env.PATH, ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }) };
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'webjob-configtest-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** `httpd -t` of a server with these modules and additional options. */
  function check(modules: string[], flags: string[] = []) {
    const file = join(folder, 'httpd.conf');
    const load = modules
      .map((name) => `LoadModule ${name}_module ${join(modulesDirectory, `mod_${name}.so`)}\n`)
      .join('');
    const server = `ServerName 127.0.0.1\nListen 127.0.0.1:1\nErrorLog ${folder}/error.log\n`;
    writeFileSync(file, `${load}${server}Include ${shipped}/webjob.conf\n`);
    return spawnSync(binary, ['-t', ...flags, '-d', folder, '-f', file], { encoding: 'utf8', env });
  }

  it('passes configtest without a Define', () => {
    const modules = ['mpm_event', 'cgid', 'authz_core', 'alias', 'env'];
    const { status, stderr } = check(modules);
    assert.deepEqual([status, stderr.trim().split('\n').at(-1)], [0, 'Syntax OK']);
    const { stdout } = check(modules, ['-D', 'DUMP_RUN_CFG']);
    assert.match(stdout, /Define: WEBJOB_CGI_DIRECTORY=\/usr\/local\/apache\/webjob/);
  });

  // httpd would serve the script's source, and the client would run it as the program it requested.
  it('fails configtest without a module that runs scripts', () => {
    const { status, stderr } = check(['mpm_event', 'authz_core', 'alias', 'env']);
    assert.equal(status, 1);
    assert.match(stderr, /no module that runs scripts/);
  });
});
