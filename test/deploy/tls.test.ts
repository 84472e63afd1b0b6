// Who is let in over TLS, by password, certificate or both, with the configuration of
// docs/guide/authentication.md and the shipped files of apache/; and everyone who tries without.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readBlock } from '../support/authentication-guide.ts';
import type { Identity } from '../support/certificates.ts';
import {
  assertNoHandshake,
  assertStatus,
  type Call,
  makeCertificates,
  type SecureSite,
  useSite,
} from '../support/secure-site.ts';
import { part } from '../support/thorough.ts';
import { HOST_SH } from '../support/tree.ts';

const certificates = makeCertificates();
const { site: authority, rogue, imitator } = certificates;
const client1 = authority.client1;
const client2 = authority.issue({ subject: '/CN=client2' });
const nameless = authority.issue({ subject: '/O=client1' });
const expired = authority.issue({ from: '20200101000000Z', to: '20210101000000Z' });
after(() => certificates.remove());

/**
 * Certificates with which the handshake must fail, and httpd's alert to a client that speaks TLS
 * 1.2.
 */
const BAD: [what: string, identity: Identity, alert: RegExp][] = [
  ['one past its date', expired, /certificate expired/],
  ['one before its date', authority.issue({ from: '20900101000000Z', to: '20910101000000Z' }), /bad certificate/],
  ["another CA's", rogue.client1, /unknown ca/],
  ["one of a CA with the very name of the site's", imitator.client1, /decrypt error|bad certificate|unknown ca/],
  ['one for servers', authority.issue({ purpose: 'server_only' }), /unsupported certificate/],
  ["one signed with another client's key", authority.issueBelowClient1(), /unknown ca|invalid|bad certificate/],
];
const NO_CERTIFICATE = /handshake failure/;

async function assertStored(site: SecureSite, call: Call): Promise<void> {
  const upload = randomBytes(300_000);
  await assertStatus(site, 200, { ...call, upload });
  const names = readdirSync(site.site.incoming).sort();
  assert.deepEqual(
    names.map((name) => name.slice(-4)),
    ['.env', '.err', '.out', '.rdy'],
  );
  assert.ok(readFileSync(join(site.site.incoming, names[2] ?? '')).equals(upload));
  for (const name of names) rmSync(join(site.site.incoming, name));
}

async function assertServed(site: SecureSite, call: Call): Promise<void> {
  const { status, reason, body } = await site.ask(call);
  assert.deepEqual([status, reason, body.toString()], [200, 'OK', HOST_SH]);
  const lines = site.newLines().map(({ status, remoteUser, method }) => [method, remoteUser, status]);
  assert.deepEqual(lines, [['GET', call.clientId ?? 'client1', 200]]);
}

for (const mpm of part(['event', 'prefork'] as const, 1)) {
  describe(`a password over TLS with ${mpm}`, () => {
    const use = useSite({ certificates, mpm, virtualHost: 'password' });
    before(() => use().configure('password'));

    it('serves GET and PUT', async () => {
      await assertServed(use(), { user: 'client1:foo' });
      await assertStored(use(), { user: 'client1:foo' });
    });

    it('admits a client that speaks TLS 1.2 and sends no server name', async () => {
      await assertServed(use(), { user: 'client1:foo', maxVersion: 'TLSv1.2', servername: '' });
    });

    it('is not accepted without TLS', async () => {
      const answer = await use().ask({ user: 'client1:foo', plain: true });
      assert.deepEqual([answer.status, answer.reason], [458, 'Secure Transport Required']);
      assert.equal(use().newLines()[0]?.remoteUser, 'client1');
      const upload = randomBytes(300_000);
      await assertStatus(use(), 458, { user: 'client1:foo', plain: true, upload });
      assert.deepEqual(readdirSync(use().site.incoming), []);
      const lies = { HTTPS: 'on', Https: 'on', 'X-Forwarded-Proto': 'https', 'X-Forwarded-SSL': 'on' };
      await assertStatus(use(), 458, { user: 'client1:foo', plain: true, headers: lies });
    });

    it('is refused when it is wrong, missing or not that of the client id', async () => {
      for (const user of [undefined, 'client1:bar', 'client1:', ':foo']) {
        await assertStatus(use(), 401, user === undefined ? {} : { user });
      }
      await assertStatus(use(), 453, { user: 'client2:bar' });
      await assertStatus(use(), 453, { user: 'client1:foo', clientId: 'client2' });
    });

    it('cannot be replaced by a certificate', async () => {
      await assertStatus(use(), 401, { identity: client1 });
    });
  });

  describe(`a certificate alone with ${mpm}`, () => {
    const use = useSite({ certificates, mpm, virtualHost: 'certificate' });
    before(() => {
      use().configure('certificate');
      use().permit('htaccess-certificates');
    });

    it('serves GET and PUT, and its CN is the user', async () => {
      await assertServed(use(), { identity: client1 });
      await assertServed(use(), { identity: client2, clientId: 'client2' });
      await assertStored(use(), { identity: client1 });
      // SSLVerifyClient for one directory would answer 413 here.
      await assertStored(use(), { identity: client1, maxVersion: 'TLSv1.2' });
    });

    it('can be used in a resumed session', async () => {
      for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
        const { session } = await use().ask({ identity: client1, maxVersion });
        assert.ok(session);
        const { status, isResumed } = await use().ask({ session, maxVersion });
        assert.deepEqual([status, isResumed], [200, true]);
        assert.equal(await use().status({ session, maxVersion, clientId: 'client2' }), 453);
      }
      use().newLines();
    });

    it('ends the handshake of clients without it', async () => {
      await assertNoHandshake(use(), {}, NO_CERTIFICATE);
      await assertNoHandshake(use(), { user: 'client1:foo' }, NO_CERTIFICATE);
    });

    // The handshake is mod_ssl's, whatever the MPM.
    for (const [what, identity, alert] of mpm === 'event' ? BAD : BAD.slice(0, 1)) {
      it(`ends the handshake with ${what}`, async () => {
        await assertNoHandshake(use(), { identity }, alert);
      });
    }

    it('is refused with 453 for another client, or 471 with RequireMatch off', async () => {
      const call = { identity: client1, clientId: 'client2' };
      await assertStatus(use(), 453, call);
      await assertStatus(use(), 453, { ...call, user: 'client2:bar' });
      use().configure('certificate', { RequireMatch: 'N' });
      const answer = await use().ask(call);
      assert.deepEqual([answer.status, answer.reason], [471, 'CommonName-ClientId Mismatch']);
      use().configure('certificate');
      assert.equal(use().newLines()[0]?.remoteUser, 'client1');
    });

    it('is refused with 452 without a CN, or 470 with RequireUser off', async () => {
      const call = { identity: nameless };
      await assertStatus(use(), 452, call);
      use().configure('certificate', { RequireUser: 'N', SslRequireCn: 'Y' });
      const answer = await use().ask(call);
      assert.deepEqual([answer.status, answer.reason], [470, 'CommonName Undefined']);
      use().configure('certificate', { RequireUser: 'N' });
      use().newLines();
      await assertStatus(use(), 471, call);
      use().configure('certificate');
    });

    it('is refused when its CN only resembles the client id, and cannot forge a line of the log', async () => {
      const forged = 'client1\n2026-01-01 00:00:00 server_1_1_00001 client1 127.0.0.1 GET client1 a 0 0 0 200 -- OK';
      const names = [
        'client1\0',
        'client1\0.example',
        'client1\n',
        'client1 ',
        ' client1',
        'CLIENT1',
        '-',
        '%63lient1',
      ];
      const all = [...names, 'client1,client1', 'cl\u00c3\u00afent1', '$(id);`id`', forged.slice(0, 64)];
      for (const name of mpm === 'event' ? all : all.slice(0, 3)) {
        const identity = authority.issueWithName(name);
        for (const controls of [{}, { RequireMatch: 'N' }]) {
          use().configure('certificate', controls);
          const expected = 'RequireMatch' in controls ? 471 : 453;
          assert.equal(await use().status({ identity }), expected, JSON.stringify(name));
          const [line, ...more] = use().newLines();
          assert.deepEqual([line?.status, more], [expected, []]);
          assert.notEqual(line?.remoteUser, 'client1');
        }
      }
      use().configure('certificate');
    });

    it('cannot be claimed in headers without TLS', async () => {
      const headers = { 'Ssl-Client-Verify': 'SUCCESS', 'Ssl-Client-S-Dn-Cn': 'client1', 'Remote-User': 'client1' };
      await assertStatus(use(), 403, { plain: true, headers });
      await assertStatus(use(), 403, { plain: true, headers, user: 'client1:foo' });
      await assertStatus(use(), 403, { plain: true, upload: Buffer.from('a') });
    });
  });

  describe(`a password and a certificate with ${mpm}`, () => {
    const use = useSite({ certificates, mpm, virtualHost: 'certificate' });
    before(() => use().configure('both'));

    it('get and put together', async () => {
      await assertServed(use(), { identity: client1, user: 'client1:foo' });
      await assertStored(use(), { identity: client1, user: 'client1:foo' });
    });

    it('are refused one without the other', async () => {
      await assertStatus(use(), 401, { identity: client1 });
      await assertStatus(use(), 401, { identity: client1, user: 'client1:bar' });
      await assertNoHandshake(use(), { user: 'client1:foo' }, NO_CERTIFICATE);
      await assertNoHandshake(use(), { user: 'client1:foo', identity: rogue.client1 }, /unknown ca/);
    });

    it("are refused when one of them is another client's", async () => {
      await assertStatus(use(), 453, { identity: client1, user: 'client2:bar' });
      await assertStatus(use(), 471, { identity: client2, user: 'client1:foo' });
      await assertStatus(use(), 471, { identity: client1, user: 'client2:bar', clientId: 'client2' });
      await assertStatus(use(), 471, { identity: nameless, user: 'client1:foo' });
    });

    it('need the .htaccess of the guide: with SSLUserName any password would do', async () => {
      const { site } = use();
      const text = readFileSync(join(site.cgiDirectory, '.htaccess'), 'utf8');
      use().permit({ text: `${text}SSLUserName SSL_CLIENT_S_DN_CN\n` });
      await assertStatus(use(), 200, { identity: client1, user: 'client2:bar' });
      use().permit('htaccess');
      await assertStatus(use(), 453, { identity: client1, user: 'client2:bar' });
    });
  });
}

describe('SSLVerifyClient optional', () => {
  const use = useSite({ certificates, virtualHost: 'certificate', before: readBlock('apache optional') });
  const LIES = { 'Ssl-Client-Verify': 'SUCCESS', 'Ssl-Client-S-Dn-Cn': 'client1', 'Remote-User': 'client1' };

  it('lets the script refuse clients without a certificate, when a password is required too', async () => {
    use().permit('htaccess');
    use().configure('both', { SslRequireCn: 'Y' });
    await assertStatus(use(), 200, { identity: client1, user: 'client1:foo' });
    await assertStatus(use(), 470, { user: 'client1:foo' });
    await assertStatus(use(), 470, { user: 'client1:foo', headers: LIES });
    await assertStatus(use(), 470, { user: 'client1:foo', upload: randomBytes(300_000) });
    assert.deepEqual(readdirSync(use().site.incoming), []);
    use().configure('both');
    await assertStatus(use(), 471, { user: 'client1:foo' });
  });

  it('makes httpd refuse them, when only a certificate is required', async () => {
    use().permit('htaccess-certificates');
    use().configure('certificate');
    await assertStatus(use(), 200, { identity: client1 });
    await assertStatus(use(), 403, {});
    await assertStatus(use(), 403, { user: 'client1:foo', headers: LIES });
  });

  for (const [what, identity, alert] of BAD) {
    it(`still ends the handshake of ${what}`, () => assertNoHandshake(use(), { identity }, alert));
  }
});

describe('SSLVerifyClient optional_no_ca, which is unsafe', () => {
  const use = useSite({
    certificates,
    virtualHost: 'certificate',
    before: readBlock('apache optional'),
    inside: 'SSLVerifyClient optional_no_ca',
  });
  const withoutVerification = { text: 'SSLUserName SSL_CLIENT_S_DN_CN\nRequire method GET PUT\n' };

  it('makes an unverified certificate a user, unless a Require checks the verdict', async () => {
    use().permit(withoutVerification);
    use().configure('certificate', { SslRequireMatch: 'N' });
    assert.equal(await use().status({ identity: rogue.client1 }), 200);
    assert.equal(use().newLines()[0]?.remoteUser, 'client1');
  });

  it('does not get a certificate past SslRequireCn and SslRequireMatch', async () => {
    use().permit(withoutVerification);
    use().configure('certificate', { SslRequireCn: 'Y' });
    await assertStatus(use(), 470, { identity: rogue.client1 });
    await assertStatus(use(), 470, { identity: rogue.client1, upload: randomBytes(300_000) });
    use().configure('certificate');
    await assertStatus(use(), 471, { identity: rogue.client1 });
    await assertStatus(use(), 200, { identity: client1 });
    assert.deepEqual(readdirSync(use().site.incoming), []);
  });

  it('does not get a certificate past the shipped .htaccess', async () => {
    use().permit('htaccess-certificates');
    use().configure('certificate', { SslRequireMatch: 'N' });
    await assertStatus(use(), 403, { identity: rogue.client1 });
    await assertStatus(use(), 403, {});
    await assertStatus(use(), 200, { identity: client1 });
  });

  it('does not get a certificate past a password either', async () => {
    use().permit('htaccess');
    use().configure('both');
    await assertStatus(use(), 471, { identity: rogue.client1, user: 'client1:foo' });
    use().configure('both', { SslRequireCn: 'Y' });
    await assertStatus(use(), 470, { identity: rogue.client1, user: 'client1:foo' });
    await assertStatus(use(), 401, { identity: rogue.client1 });
  });
});

describe('SSLVerifyClient optional_no_ca beside the shipped file', () => {
  const use = useSite({ certificates, virtualHost: 'certificate', inside: 'SSLVerifyClient optional_no_ca' });
  before(() => use().configure('certificate'));

  for (const htaccess of [
    'htaccess-certificates',
    { text: 'SSLUserName SSL_CLIENT_S_DN_CN\nRequire method GET PUT\n' },
  ] as const) {
    const name = typeof htaccess === 'string' ? htaccess : 'an .htaccess that does not look at the verdict';

    it(`admits no client that httpd has not verified, even in a resumed session, with ${name}`, async () => {
      use().permit(htaccess);
      for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
        // A page that is not WebJob's asks for no certificate, and the session is the visitor's
        // own.
        const call = { identity: rogue.client1, maxVersion };
        const { session, isResumed } = await use().ask({ ...call, page: '/' });
        assert.ok(session && !isResumed);
        assert.equal((await use().ask({ ...call, page: '/', session })).isResumed, true);
        for (const attempt of [call, { ...call, session }]) {
          assert.equal(
            await use()
              .status(attempt)
              .catch(() => 403),
            403,
          );
        }
        assert.deepEqual(use().newLines(), []);
      }
      await assertStatus(use(), 200, { identity: client1, maxVersion: 'TLSv1.2' });
    });
  }
});
