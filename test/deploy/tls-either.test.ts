// A site that accepts a password or a certificate: each client gets in with its own credentials,
// and no client with a mixture of two.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readBlock } from '../support/authentication-guide.ts';
import { assertStatus, type Call, makeCertificates, useSite } from '../support/secure-site.ts';
import { part } from '../support/thorough.ts';

const certificates = makeCertificates();
const { site: authority, rogue, imitator } = certificates;
const { client1 } = authority;
const client2 = authority.issue({ subject: '/CN=client2' });
const nameless = authority.issue({ subject: '/O=client1' });
const expired = authority.issue({ from: '20200101000000Z', to: '20210101000000Z' });
after(() => certificates.remove());

for (const mpm of part(['prefork', 'event'] as const, 1)) {
  describe(`a password or a certificate with ${mpm}`, () => {
    const use = useSite({ certificates, virtualHost: 'certificate', before: readBlock('apache optional'), mpm });
    before(() => {
      use().configure('either');
      use().permit('htaccess-either');
    });

    /** The client in the log. */
    async function assertServed(call: Call): Promise<void> {
      await assertStatus(use(), 200, call);
      await assertStatus(use(), 200, { ...call, upload: randomBytes(300_000) });
      assert.equal(readdirSync(use().site.incoming).length, 4);
      for (const name of readdirSync(use().site.incoming)) rmSync(join(use().site.incoming, name));
    }

    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      it(`admits a client with either of its own, and with both, over ${maxVersion}`, async () => {
        await assertServed({ user: 'client1:foo', maxVersion });
        await assertServed({ identity: client1, maxVersion });
        await assertServed({ identity: client1, user: 'client1:foo', maxVersion });
        await assertServed({ identity: client2, clientId: 'client2', maxVersion });
      });

      it(`admits nobody with the password of one and the certificate of another, over ${maxVersion}`, async () => {
        for (const clientId of ['client1', 'client2']) {
          await assertStatus(use(), 401, { identity: client1, user: 'client2:bar', clientId, maxVersion });
          await assertStatus(use(), 401, { identity: client2, user: 'client1:foo', clientId, maxVersion });
          await assertStatus(use(), 401, { identity: nameless, user: 'client1:foo', clientId, maxVersion });
        }
      });

      it(`admits nobody with a certificate and a wrong password, over ${maxVersion}`, async () => {
        for (const user of ['client1:bar', 'client1:', ':foo', 'client2:foo', 'nobody:foo'])
          await assertStatus(use(), 401, { identity: client1, user, maxVersion });
        for (const Authorization of [
          'Bearer x',
          'Basic',
          'Basic !',
          'x',
          'Basic Y2xpZW50MTpmb28='.replace('Basic', 'Digest'),
        ])
          await assertStatus(use(), 401, { identity: client1, headers: { Authorization }, maxVersion });
      });

      it(`admits nobody in a resumed session with foreign credentials, over ${maxVersion}`, async () => {
        const { session } = await use().ask({ identity: client1, maxVersion });
        assert.ok(session);
        use().newLines();
        await assertStatus(use(), 200, { session, maxVersion });
        await assertStatus(use(), 453, { session, maxVersion, clientId: 'client2' });
        await assertStatus(use(), 401, { session, maxVersion, user: 'client2:bar', clientId: 'client2' });
        await assertStatus(use(), 401, { session, maxVersion, user: 'client1:bar' });
      });
    }

    it('refuses requests without valid credentials', async () => {
      await assertStatus(use(), 401, {});
      await assertStatus(use(), 401, { user: 'client1:bar' });
      await assertStatus(use(), 453, { user: 'client2:bar' });
      await assertStatus(use(), 453, { identity: client1, clientId: 'client2' });
      await assertStatus(use(), 452, { identity: nameless });
      for (const identity of [rogue.client1, imitator.client1, expired]) {
        for (const user of [undefined, 'client1:foo']) {
          const status = await use()
            .status({ identity, ...(user && { user }) })
            .catch(() => 0);
          assert.equal(status, 0, 'the handshake ends');
        }
      }
    });

    it('refuses requests without TLS, and methods other than GET and PUT', async () => {
      await assertStatus(use(), 458, { user: 'client1:foo', plain: true });
      await assertStatus(use(), 401, { plain: true });
      const lies = { SSL_CLIENT_VERIFY: 'SUCCESS', 'SSL-CLIENT-VERIFY': 'SUCCESS', 'SSL-CLIENT-S-DN-CN': 'client1' };
      await assertStatus(use(), 401, { plain: true, headers: lies });
      await assertStatus(use(), 401, { headers: lies });
    });
  });
}
