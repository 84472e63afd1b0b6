// TLS: which servers the client accepts, and that any other server gets not a single byte of a
// request, of GET or PUT.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { SecureVersion, TLSSocket, TlsOptions } from 'node:tls';
import { Authority } from '../support/certificates.ts';
import { type Issued, issue } from '../support/client-authority.ts';
import { type Ended, makeClient } from '../support/client-job.ts';
import { type FakeServer, formatAnswer, serve, startFake } from '../support/client-server.ts';

const SECRET = 'pAss-w0rd-7291';
const folder = mkdtempSync(join(tmpdir(), 'webjob-peers-'));
const client = makeClient();
const marker = join(client.root, 'executed');
const PROGRAM = `#!/bin/sh\n: > '${marker}'\necho done\n`;
const BUNDLE = join(folder, 'bundle.pem');

const root = issue(folder, { subject: '/CN=Root', isCa: true });
const middle = issue(folder, { subject: '/CN=Middle', isCa: true, issuer: root });
const low = issue(folder, { subject: '/CN=Low', isCa: true, issuer: middle });
const good = issue(folder, { subject: '/CN=localhost', issuer: root });
const selfSigned = issue(folder, { subject: '/CN=localhost' });
writeFileSync(BUNDLE, root.cert);

let plain: FakeServer;
before(async () => {
  plain = await startFake(PROGRAM);
});
after(async () => {
  await plain.close();
  client.remove();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  rmSync(marker, { force: true });
  for (const name of readdirSync(client.temp)) rmSync(join(client.temp, name), { recursive: true });
});

async function withServer(
  options: TlsOptions | undefined,
  check: (server: FakeServer) => Promise<unknown>,
): Promise<void> {
  const server = await startFake(PROGRAM, options);
  try {
    await check(server);
  } finally {
    await server.close();
  }
}

/** A URL of the server with this host. */
function urlOf(server: FakeServer, host = '127.0.0.1'): string {
  return server.url.replace('127.0.0.1', host);
}

function configure(controls: Record<string, string>): void {
  client.configure({ URLAuthType: 'basic', URLUsername: 'client1', URLPassword: SECRET, ...controls });
}

/** A whole job over TLS. */
async function assertTaken(
  server: FakeServer,
  controls: Record<string, string>,
  host?: string,
  stderr = '',
): Promise<void> {
  configure({ URLGetURL: urlOf(server, host), URLPutURL: urlOf(server, host), ...controls });
  assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr });
  const [get = '', put = ''] = server.requests().slice(-2).map(String);
  const password = Buffer.from(`client1:${SECRET}`).toString('base64');
  for (const request of [get, put]) assert.ok(request.includes(`\r\nAuthorization: Basic ${password}\r\n`));
  assert.match(put, /\r\n\r\ndone\n/);
}

/** The settings that have refused the server of a PUT. */
const refusedPuts = new Set<string>();

/**
 * A distinct error, for GET and the first time that these settings refuse also for PUT, and nothing
 * is sent.
 */
async function assertRefused(
  server: FakeServer,
  controls: Record<string, string>,
  why: RegExp | string,
  host?: string,
): Promise<string> {
  const before = server.requests().length;
  rmSync(marker, { force: true });
  const url = urlOf(server, host);
  configure({ URLGetURL: url, URLPutURL: url, ...controls });
  const hint = assertError(await client.execute(['host.sh']), 3, 'GET', why);
  assert.ok(!existsSync(marker), 'nothing was executed');
  const settings = Object.keys(controls).join();
  if (refusedPuts.size < refusedPuts.add(settings).size) {
    configure({ URLGetURL: plain.url, URLPutURL: url, ...controls });
    const putting = await client.execute(['host.sh']);
    const stderr = putting.stderr.replace(/webjob: hint: webjob --flush .*\n$/, '');
    assertError({ ...putting, stderr }, 5, 'PUT', why);
    assert.ok(existsSync(marker));
  }
  await server.idle();
  const came = Buffer.concat(server.requests().slice(before));
  assert.equal(came.toString('latin1'), '', 'not one byte of a request');
  return hint ?? '';
}

/** Returns the hint. */
function assertError(
  { code, stdout, stderr }: Ended,
  expected: number,
  stage: string,
  why: RegExp | string,
): string | undefined {
  const [, message, hint] =
    new RegExp(
      `^webjob: error: ${stage} of host\\.sh failed: ([^\\n]+)\\n(?:webjob: hint: ([\\x20-\\x7e]+)\\n)?$`,
    ).exec(stderr) ?? [];
  assert.ok(message !== undefined, stderr);
  if (typeof why === 'string') assert.equal(message, why);
  else assert.match(message, why);
  assert.deepEqual([code, stdout], [expected, '']);
  return hint;
}

const VERIFY = { SSLVerifyPeerCert: 'Y', SSLBundledCAsFile: BUNDLE };
const untrusted = (reason: string): string => `the server's certificate is not trusted: ${reason}`;

describe('SSLVerifyPeerCert', () => {
  it('accepts a server with a certificate from any CA in the bundle, whatever its name', async () => {
    const elsewhere = issue(folder, { subject: '/CN=elsewhere', names: 'DNS:elsewhere.example', issuer: root });
    for (const identity of [good, elsewhere]) await withServer(identity, (server) => assertTaken(server, VERIFY));
  });

  it('refuses certificates from a CA outside the bundle, and self-signed ones', async () => {
    const other = issue(folder, { subject: '/CN=Root', isCa: true });
    const foreign = issue(folder, { subject: '/CN=localhost', issuer: other });
    await withServer(foreign, (server) =>
      assertRefused(server, VERIFY, /^the server's certificate is not trusted: [A-Z_]+$/),
    );
    await withServer(selfSigned, async (server) => {
      const hint = await assertRefused(server, VERIFY, untrusted('DEPTH_ZERO_SELF_SIGNED_CERT'));
      assert.match(hint, /^put the certificate of its CA, localhost, into the file that SSLBundledCAsFile names/);
    });
    await withServer(good, (server) =>
      assertRefused(server, { SSLVerifyPeerCert: 'Y' }, untrusted('UNABLE_TO_VERIFY_LEAF_SIGNATURE')),
    );
  });

  it('accepts a self-signed certificate that is in the bundle', async () => {
    const own = join(folder, 'own.pem');
    writeFileSync(own, selfSigned.cert);
    await withServer(selfSigned, (server) => assertTaken(server, { ...VERIFY, SSLBundledCAsFile: own }));
  });

  it('refuses a certificate that has expired or is not yet valid', async () => {
    const authority = join(folder, 'dates');
    mkdirSync(authority);
    const dates = new Authority(authority);
    const trusting = { ...VERIFY, SSLBundledCAsFile: join(authority, 'ca.crt') };
    const server = { subject: '/CN=localhost', purpose: 'server_only' } as const;
    await withServer(dates.issue(server), (valid) => assertTaken(valid, trusting));
    const expired = dates.issue({ ...server, from: '20200101000000Z', to: '20210101000000Z' });
    const clock =
      /^the clock of this machine says (\S+Z), and the certificate of localhost is valid from (\S+Z) to (\S+Z): /;
    const assertHint = (hint: string, from: string, to: string): void => {
      const [, now = '', ...valid] = clock.exec(hint) ?? [];
      assert.ok(Math.abs(Date.parse(now) - Date.now()) < 60_000, hint);
      assert.deepEqual(valid, [from, to]);
    };
    await withServer(expired, async (peer) => {
      const hint = await assertRefused(peer, trusting, untrusted('CERT_HAS_EXPIRED'));
      assertHint(hint, '2020-01-01T00:00:00Z', '2021-01-01T00:00:00Z');
    });
    const early = dates.issue({ ...server, from: '20900101000000Z', to: '20910101000000Z' });
    await withServer(early, async (peer) => {
      const hint = await assertRefused(peer, trusting, untrusted('CERT_NOT_YET_VALID'));
      assertHint(hint, '2090-01-01T00:00:00Z', '2091-01-01T00:00:00Z');
    });
  });

  it('is off by default, as in the original', async () => {
    // Once, although there are two connections.
    const warning =
      "webjob: warning: the server's certificate is not checked: set SSLVerifyHost=Y, or SSLVerifyPeerCert=Y and SSLBundledCAsFile\n";
    await withServer(selfSigned, async (server) => {
      await assertTaken(server, {}, undefined, warning);
      await assertTaken(server, { SSLVerifyPeerCert: 'n', SSLVerifyHost: 'N' }, undefined, warning);
    });
  });

  it('requires a readable bundle with certificates, or ends with exit code 2', async () => {
    const empty = join(folder, 'empty.pem');
    writeFileSync(empty, 'nothing\n');
    await withServer(good, async (server) => {
      for (const [file, message] of [
        [join(folder, 'none.pem'), 'cannot be read: ENOENT'],
        [folder, 'cannot be read: EISDIR'],
        [empty, 'contains no certificate in PEM'],
      ]) {
        configure({ ...VERIFY, URLGetURL: server.url, SSLBundledCAsFile: file ?? '' });
        const { code, stderr } = await client.execute(['host.sh']);
        assert.equal(stderr, `webjob: error: SSLBundledCAsFile: ${file} ${message}\n`);
        assert.equal(code, 2);
      }
      assert.equal(server.requests().length, 0);
    });
  });
});

describe('SSLMaxChainLength', () => {
  const chains: [length: number, issuer: Issued][] = [
    [1, root],
    [2, middle],
    [3, low],
  ];
  for (const [length, issuer] of chains) {
    it(`counts ${length} for a server below ${length - 1} CAs below the bundle's`, async () => {
      const identity = issue(folder, { subject: '/CN=localhost', issuer });
      await withServer(identity, async (server) => {
        for (const limit of [1, 2, 3, 10]) {
          const controls = { ...VERIFY, SSLMaxChainLength: String(limit) };
          const why = `the server's certificate has a chain of ${length}, over SSLMaxChainLength`;
          if (limit < length) await assertRefused(server, controls, why);
          else await assertTaken(server, controls);
        }
      });
    });
  }

  it('does not help with a server that omits the intermediate CAs', async () => {
    const identity = issue(folder, { subject: '/CN=localhost', issuer: middle });
    const alone = {
      ...identity,
      cert: `${identity.cert.split('-----END CERTIFICATE-----')[0]}-----END CERTIFICATE-----\n`,
    };
    const controls = { ...VERIFY, SSLMaxChainLength: '3' };
    await withServer(alone, (server) => assertRefused(server, controls, untrusted('UNABLE_TO_VERIFY_LEAF_SIGNATURE')));
  });
});

describe('SSLExpectedPeerCN', () => {
  const WRONG = "the CN of the server's certificate is not SSLExpectedPeerCN";
  const expect = (name: string): Record<string, string> => ({ ...VERIFY, SSLExpectedPeerCN: name });

  it('matches the whole CN and nothing else', async () => {
    const identity = issue(folder, { subject: '/O=webjob/CN=WebJob server', names: 'DNS:other', issuer: root });
    await withServer(identity, async (server) => {
      await assertTaken(server, expect('WebJob server'));
      for (const name of ['webjob server', 'WebJob', 'WebJob server 2', 'other', '*', 'WebJob?server'])
        assert.equal(await assertRefused(server, expect(name), WRONG), 'its CN is WebJob server');
    });
  });

  it('does not match one of several CNs, or a missing CN', async () => {
    for (const subject of [
      '/CN=evil/CN=server',
      '/CN=server/CN=evil',
      '/CN=server/CN=server',
      '/O=server',
      '/CN=server\u00e4',
    ])
      await withServer(issue(folder, { subject, issuer: root }), (server) =>
        assertRefused(server, expect('server'), WRONG),
      );
  });
});

describe('SSLVerifyHost', () => {
  const HOST = { SSLVerifyHost: 'Y', SSLBundledCAsFile: BUNDLE };
  const notFor = (host: string): string => `the server's certificate is not for ${host}`;

  const NAMES: [names: string | undefined, taken: string[], refused: string[]][] = [
    ['DNS:localhost', ['localhost', 'LOCALHOST'], ['127.0.0.1']],
    ['DNS:else.example,DNS:localhost', ['localhost'], []],
    // The CN counts for a host with a name, when there is no DNS name (RFC 6125, section 6.4.4).
    ['IP:127.0.0.1', ['127.0.0.1', 'localhost'], []],
    ['IP:127.0.0.2', [], ['127.0.0.1']],
    ['DNS:127.0.0.1', [], ['127.0.0.1']],
    ['DNS:else.example', [], ['localhost']],
    [undefined, ['localhost'], ['127.0.0.1']],
  ];
  for (const [names, taken, refused] of NAMES) {
    it(`accepts ${taken} and refuses ${refused} with ${names ?? 'nothing but CN=localhost'}`, async () => {
      const identity = issue(folder, { subject: '/CN=localhost', issuer: root, ...(names && { names }) });
      await withServer(identity, async (server) => {
        for (const host of taken) await assertTaken(server, HOST, host);
        for (const host of refused) await assertRefused(server, HOST, notFor(host), host);
      });
    });
  }

  it('trusts no CA outside the bundle', async () => {
    await withServer(selfSigned, (server) =>
      assertRefused(server, HOST, untrusted('DEPTH_ZERO_SELF_SIGNED_CERT'), 'localhost'),
    );
  });

  it('checks neither the CN nor the chain length, which SSLVerifyPeerCert checks', async () => {
    const deep = issue(folder, { subject: '/CN=server', names: 'DNS:localhost', issuer: low });
    const others = { ...HOST, SSLMaxChainLength: '1', SSLExpectedPeerCN: 'other' };
    await withServer(deep, (server) => assertTaken(server, others, 'localhost'));
  });

  it('is checked in addition to SSLExpectedPeerCN', async () => {
    const identity = issue(folder, { subject: '/CN=server', names: 'DNS:else.example', issuer: root });
    const both = { ...VERIFY, ...HOST, SSLExpectedPeerCN: 'server' };
    await withServer(identity, (server) => assertRefused(server, both, notFor('localhost'), 'localhost'));
  });
});

describe('SSLMinVersion', () => {
  const VERSIONS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const satisfies SecureVersion[];
  for (const version of VERSIONS) {
    it(`accepts a server that speaks ${version} only when it allows that version`, async () => {
      const old = { minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' };
      await withServer({ ...good, ...old }, async (server) => {
        let spoken: string | null = '';
        server.get = (socket, received) => {
          spoken = (socket as TLSSocket).getProtocol();
          serve(PROGRAM)(socket, received);
        };
        const at = VERSIONS.indexOf(version);
        for (const least of VERSIONS.slice(Math.max(0, at - 1), at + 2)) {
          const controls = { ...VERIFY, SSLMinVersion: least };
          if (VERSIONS.indexOf(least) > at) {
            await assertRefused(server, controls, /^TLS failed: [A-Za-z0-9 ]*(?:version|protocol)[A-Za-z0-9 ]*$/);
          } else {
            await assertTaken(server, controls);
            assert.equal(spoken, version);
          }
        }
        if (version < 'TLSv1.2') await assertRefused(server, VERIFY, /^TLS failed: /);
        else await assertTaken(server, VERIFY);
      });
    });
  }
});

describe('a weak certificate of a server', () => {
  const smallRoot = issue(folder, { subject: '/CN=Small root', isCa: true, rsaBits: 1024 });
  const trustSmall = { ...VERIFY, SSLBundledCAsFile: join(folder, `${smallRoot.name}.crt`) };
  const WEAK: [what: string, wish: Parameters<typeof issue>[1], controls: Record<string, string>, why: string][] = [
    [
      'a small key',
      { subject: '/CN=localhost', issuer: root, rsaBits: 1024 },
      VERIFY,
      'the key of localhost has 1024 bits',
    ],
    [
      'SHA-1',
      { subject: '/CN=localhost', issuer: root, digest: 'sha1' },
      VERIFY,
      'that of localhost is signed with SHA-1',
    ],
    [
      'a CA with a small key',
      { subject: '/CN=localhost', issuer: smallRoot },
      trustSmall,
      'the key of Small root has 1024 bits',
    ],
  ];
  for (const [what, wish, controls, why] of WEAK) {
    it(`is reported as weak, and accepted with SSLMinVersion=TLSv1: ${what}`, async () => {
      const identity = { ...issue(folder, wish), ciphers: 'DEFAULT@SECLEVEL=0' };
      await withServer(identity, async (server) => {
        const hint = await assertRefused(server, controls, `the server's certificate is too weak: ${why}`);
        assert.match(
          hint,
          /^the server needs a better one; SSLMinVersion=TLSv1 accepts this one, but also old protocols/,
        );
        await assertTaken(server, { ...controls, SSLMinVersion: 'TLSv1' });
      });
    });
  }

  it('is not confused with an unknown CA', async () => {
    const small = issue(folder, { subject: '/CN=localhost', rsaBits: 1024 });
    await withServer({ ...small, ciphers: 'DEFAULT@SECLEVEL=0' }, (server) =>
      assertRefused(server, { ...VERIFY, SSLMinVersion: 'TLSv1' }, untrusted('DEPTH_ZERO_SELF_SIGNED_CERT')),
    );
  });
});

describe('a TLS server', () => {
  it('is sent the name that the client asks for, never an address', async () => {
    await withServer(good, async (server) => {
      let name: unknown;
      server.get = (socket, received) => {
        name = (socket as TLSSocket & { servername?: unknown }).servername;
        serve(PROGRAM)(socket, received);
      };
      await assertTaken(server, VERIFY, 'localhost');
      assert.equal(name, 'localhost');
      await assertTaken(server, VERIFY);
      assert.equal(name, false);
    });
  });

  it('is given up within the limit when it is silent, or closes in the handshake', async () => {
    await withServer(undefined, async (silent) => {
      configure({ URLGetURL: silent.url.replace('http:', 'https:'), GetTimeLimit: '1', ...VERIFY });
      assertError(await client.execute(['host.sh']), 3, 'GET', 'no complete answer within 1 seconds');
    });
    await withServer(undefined, async (deaf) => {
      deaf.greet = (socket) => socket.end();
      configure({ URLGetURL: deaf.url.replace('http:', 'https:'), ...VERIFY });
      assertError(await client.execute(['host.sh']), 3, 'GET', /^TLS failed: |^the connection broke off/);
    });
  });

  it('causes the right error when it breaks off after the handshake', async () => {
    await withServer(good, async (server) => {
      server.get = (socket) => socket.end(formatAnswer(PROGRAM).subarray(0, -3));
      configure({ URLGetURL: server.url, ...VERIFY });
      const why = 'the connection broke off before the answer was complete';
      assertError(await client.execute(['host.sh']), 3, 'GET', why);
    });
  });
});
