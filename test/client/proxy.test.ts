// URLProxyHost: http with the whole URL, https through a tunnel, and what a proxy can see, refuse
// or fail to do.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { issue } from '../support/client-authority.ts';
import { type Ended, findKeptJob, makeClient } from '../support/client-job.ts';
import { type FakeProxy, startProxy } from '../support/client-proxy.ts';
import { type FakeServer, startFake } from '../support/client-server.ts';

const SECRET = 'pAss-w0rd-7291';
const PROXY_SECRET = 'pr0xy:w0rd';
const SUCCESS: Ended = { code: 0, signal: null, stdout: '', stderr: '' };
const encode = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
const folder = mkdtempSync(join(tmpdir(), 'webjob-proxy-'));
const client = makeClient();
const root = issue(folder, { subject: '/CN=Root', isCa: true });
const names = 'DNS:server.invalid,DNS:localhost,IP:127.0.0.1,IP:::1';
const identity = issue(folder, { subject: '/CN=server', issuer: root, names });
const TLS = { SSLVerifyPeerCert: 'Y', SSLVerifyHost: 'Y', SSLBundledCAsFile: join(folder, `${root.name}.crt`) };
let plain: FakeServer;
let secure: FakeServer;
let proxy: FakeProxy;

before(async () => {
  plain = await startFake();
  secure = await startFake('#!/bin/sh\n', identity);
});
after(async () => {
  for (const server of [plain, secure, proxy]) await server.close();
  client.remove();
  rmSync(folder, { recursive: true });
});
beforeEach(async () => {
  await proxy?.close();
  proxy = await startProxy();
});

/** Both stages at a server with this host name, through the proxy. */
function configure(server: FakeServer, host: string, more: Record<string, string> = {}): void {
  const url = server.url.replace('127.0.0.1', host);
  client.configure({
    URLGetURL: url,
    URLPutURL: url,
    URLAuthType: 'basic',
    URLUsername: 'client1',
    URLPassword: SECRET,
    URLProxyHost: '127.0.0.1',
    URLProxyPort: String(proxy.port),
    ...TLS,
    ...more,
  });
}

const AUTHENTICATED = { URLProxyAuthType: 'basic', URLProxyUsername: 'me', URLProxyPassword: PROXY_SECRET };

/** Exit code 3 and this error, nothing left behind, and no secret of either kind shown. */
async function assertFailure(why: RegExp | string): Promise<void> {
  const { code, stdout, stderr } = await client.execute(['x']);
  const message =
    /^webjob: error: GET of x failed: ([\x20-\x7e]+)\n(?:webjob: hint: [\x20-\x7e]+\n)?$/.exec(stderr)?.[1] ??
    assert.fail(stderr);
  if (typeof why === 'string') assert.equal(message, why);
  else assert.match(message, why);
  assert.deepEqual([code, stdout, client.left()], [3, '', []]);
  assert.ok(!stderr.includes(SECRET) && !stderr.includes('w0rd'));
}

describe('http through a proxy', () => {
  it('requests the whole URL, with a name that only the proxy knows', async () => {
    configure(plain, 'server.invalid');
    assert.deepEqual(await client.execute(['x']), SUCCESS);
    const [get = '', put = ''] = proxy.headers();
    const url = plain.url.replace('127.0.0.1', 'server.invalid');
    assert.ok(get.startsWith(`GET ${url}?VERSION=`), get);
    assert.ok(put.startsWith(`PUT ${url}?VERSION=`), put);
    for (const header of [get, put]) {
      assert.match(header, new RegExp(`\r\nHost: server\\.invalid:${plain.port}\r\n`));
      assert.doesNotMatch(header, /^Proxy-Authorization:/im);
    }
    assert.equal(proxy.headers().length, 2);
  });

  it('authenticates to the proxy, and passes the server its own credentials', async () => {
    configure(plain, 'server.invalid', AUTHENTICATED);
    const before = plain.requests().length;
    assert.deepEqual(await client.execute(['x']), SUCCESS);
    for (const header of proxy.headers())
      assert.ok(header.includes(`\r\nProxy-Authorization: ${encode(`me:${PROXY_SECRET}`)}\r\n`), header);
    for (const request of plain.requests().slice(before)) {
      assert.ok(request.includes(`\r\nAuthorization: ${encode(`client1:${SECRET}`)}\r\n`));
      assert.ok(!request.includes('Proxy-Authorization'));
    }
  });

  it('is refused with the status of the proxy', async () => {
    configure(plain, 'server.invalid');
    for (const status of ['407 Proxy Authentication Required', '403 Forbidden', '502 Bad Gateway']) {
      proxy.refuse = () => `HTTP/1.1 ${status}\r\nContent-Length: 0\r\n\r\n`;
      await assertFailure(`Status = [${status.slice(0, 3)}], Reason = [${status.slice(4)}]`);
    }
  });

  it('may use an IPv6 address', async () => {
    configure(plain, '[::1]');
    assert.deepEqual(await client.execute(['x']), SUCCESS);
    assert.ok(proxy.headers()[0]?.startsWith(`GET http://[::1]:${plain.port}/cgi/nph-webjob.cgi?`));
    assert.match(proxy.headers()[0] ?? '', new RegExp(`\r\nHost: \\[::1\\]:${plain.port}\r\n`));
  });
});

describe('https through a proxy', () => {
  it('uses a tunnel in which the proxy sees nothing, and checks the server, not the proxy', async () => {
    configure(secure, 'server.invalid', AUTHENTICATED);
    const before = secure.requests().length;
    assert.deepEqual(await client.execute(['x']), SUCCESS);
    const authority = `server.invalid:${secure.port}`;
    const authorization = `Proxy-Authorization: ${encode(`me:${PROXY_SECRET}`)}\r\n`;
    const connect = `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${authorization}Connection: close\r\n\r\n`;
    assert.deepEqual(proxy.headers(), [connect, connect]);
    const requests = secure.requests().slice(before);
    assert.equal(requests.length, 2);
    for (const request of requests) {
      assert.ok(request.includes(`\r\nAuthorization: ${encode(`client1:${SECRET}`)}\r\n`));
      assert.ok(!request.includes('Proxy-Authorization'));
    }
    const seen = proxy.received().toString('latin1');
    for (const secret of [SECRET, encode(`client1:${SECRET}`), 'VERSION=', '\r\nAuthorization', 'nph-webjob'])
      assert.ok(!seen.includes(secret), secret);
  });

  it('sends no Proxy-Authorization unless told', async () => {
    configure(secure, 'server.invalid', { ...AUTHENTICATED, URLProxyAuthType: 'none' });
    assert.deepEqual(await client.execute(['x']), SUCCESS);
    assert.doesNotMatch(proxy.headers().join(''), /authorization/i);
  });

  it('names an IPv6 address in brackets', async () => {
    configure(secure, '[::1]');
    assert.deepEqual(await client.execute(['x']), SUCCESS);
    assert.ok(
      proxy.headers()[0]?.startsWith(`CONNECT [::1]:${secure.port} HTTP/1.1\r\nHost: [::1]:${secure.port}\r\n`),
    );
  });

  it('is refused with the status of the proxy, and nothing of the request reaches it', async () => {
    configure(secure, 'server.invalid');
    const before = secure.requests().length;
    const refused = `the proxy refused server.invalid:${secure.port}: `;
    for (const status of ['407 Proxy Authentication Required', '403 Forbidden', '302 Found', '502 Oh\x1b[31m']) {
      proxy.refuse = () => `HTTP/1.1 ${status}\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nno`;
      const reason = status.slice(4).replace('\x1b', '?');
      await assertFailure(`${refused}Status = [${status.slice(0, 3)}], Reason = [${reason}]`);
    }
    assert.equal(proxy.received().toString('latin1'), proxy.headers().join(''));
    assert.doesNotMatch(proxy.headers().join(''), /^Authorization/im);
    assert.equal(secure.requests().length, before);
  });

  it('is tried again when the proxy says that it may succeed later', async () => {
    configure(secure, 'server.invalid', { RetryLimit: '1', RetryDelay: '0' });
    let count = 0;
    proxy.refuse = () => (++count === 1 ? 'HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n' : undefined);
    const { code, stderr } = await client.execute(['x']);
    assert.match(
      stderr,
      /^webjob: warning: GET of x failed: the proxy refused [^\n]+ Reason = \[Busy\]; trying again[^\n]+\n$/,
    );
    assert.deepEqual([code, count], [0, 3]);
  });

  it('does not trust a server because the proxy does', async () => {
    const other = await startFake('#!/bin/sh\n', issue(folder, { subject: '/CN=server', names }));
    configure(other, 'server.invalid');
    await assertFailure(/^the server's certificate is not trusted: /);
    await other.idle();
    assert.equal(Buffer.concat(other.requests()).length, 0);
    await other.close();
  });
});

describe('a proxy', () => {
  const answers: [what: string, answer: string, why: RegExp | string][] = [
    ['says nothing', '', 'no complete answer within 1 seconds'],
    ['sends garbage', 'garbage\r\n\r\n', /^the answer is not HTTP \(HPE_\w+\)$/],
    ['sends half a header', 'HTTP/1.1 200 OK\r\n', /^the connection broke off|^socket hang up|^the answer is not HTTP/],
    [
      'sends a header without end',
      `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(20_000)}`,
      /^the header of the answer is longer/,
    ],
    ['opens no tunnel although it says so', 'HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n', /^TLS failed: /],
  ];
  for (const [what, answer, why] of answers) {
    it(`causes one clear error for https when it ${what}`, async () => {
      configure(secure, 'server.invalid', { GetTimeLimit: '1' });
      proxy.refuse = () => answer;
      await assertFailure(why);
    });
  }

  it('is given up in PUT as well when it never answers, and the output is kept', async () => {
    configure(secure, 'server.invalid', { URLGetURL: plain.url, PutTimeLimit: '1' });
    proxy.refuse = (header) => (header.startsWith('CONNECT') ? '' : undefined);
    const { code, stderr } = await client.execute(['x']);
    const kept = /^webjob: error: PUT of x failed: no complete answer within 1 seconds\nwebjob: hint: [^\n]+\n$/;
    assert.match(stderr, kept);
    rmSync(findKeptJob(stderr).folder, { recursive: true });
    assert.equal(code, 5);
  });

  it('is given up for http when it never answers', async () => {
    configure(plain, 'server.invalid', { GetTimeLimit: '1' });
    proxy.refuse = () => '';
    await assertFailure('no complete answer within 1 seconds');
  });

  it('causes an error when it does not exist', async () => {
    for (const server of [plain, secure]) {
      configure(server, 'server.invalid');
      await proxy.close();
      await assertFailure(`connect ECONNREFUSED 127.0.0.1:${proxy.port}`);
    }
  });

  it('causes an error when it cannot reach the server', async () => {
    const gone = await startFake();
    await gone.close();
    configure(gone, 'server.invalid');
    await assertFailure('Status = [502], Reason = [Bad Gateway]');
  });

  it('is not used when it comes from the environment', async () => {
    configure(plain, '127.0.0.1', { URLProxyHost: '' });
    const nowhere = 'http://127.0.0.1:1';
    const environment = { http_proxy: nowhere, https_proxy: nowhere, HTTP_PROXY: nowhere, NODE_USE_ENV_PROXY: '1' };
    assert.deepEqual(await client.execute(['x'], { environment }), SUCCESS);
    assert.equal(proxy.headers().length, 0);
  });
});
