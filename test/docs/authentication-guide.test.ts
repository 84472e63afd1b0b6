// docs/guide/authentication.md is correct: its commands are run, its configuration is used, its
// warnings are true. tls.test.ts tests whom its virtual hosts accept.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readBlock, readBlocks } from '../support/authentication-guide.ts';
import { NO_CURL } from '../support/curl.ts';
import {
  assertNoHandshake,
  assertStatus,
  makeCertificates,
  SERVER_NAME,
  startSecureSite,
  useSite,
} from '../support/secure-site.ts';
import { HOST_SH } from '../support/tree.ts';

const certificates = makeCertificates();
const { site: authority } = certificates;
const { client1 } = authority;
const client2 = authority.issue({ subject: '/CN=client2' });
after(() => certificates.remove());

const TRIES = { password: 'htaccess', certificate: 'htaccess-certificates', both: 'htaccess' } as const;

describe('the guide to authentication', () => {
  it('has no block without a test', () => {
    const sh = [
      'server',
      'authority',
      'request',
      'sign',
      'revoke',
      'inspect',
      'ca-elsewhere',
      'ca-sign',
      'ca-revoke',
      'server-old',
      'try-old',
      'auth-dbm',
      ...Object.keys(TRIES).map((name) => `try-${name}`),
    ];
    const apache = ['password', 'certificate', 'revoked', 'optional', 'old', 'auth-cache', 'auth-dbm'];
    const cfg = ['password', 'certificate', 'both', 'either', 'hosts'];
    const named = { sh, apache, cfg, ini: ['ca.cnf', 'stunnel.conf'], cron: ['crl'], hosts: ['hosts.access'] };
    const used = Object.entries(named).flatMap(([language, names]) => names.map((name) => `${language} ${name}`));
    assert.deepEqual(
      readBlocks()
        .map(([label]) => label)
        .sort(),
      used.sort(),
    );
  });

  it('shows what a certificate contains', () => {
    const said = execFileSync('sh', ['-ec', readBlock('sh inspect')], { cwd: authority.folder, encoding: 'utf8' });
    assert.match(said, /^subject=CN ?= ?client1$/m);
    assert.match(said, /^issuer=CN ?= ?WebJob clients$/m);
    assert.match(said, /^client1\.crt: OK$/m);
  });

  it('makes keys that nobody else can read', () => {
    const modes = execFileSync('stat', ['-c', '%a', 'ca.key', 'client1.key', '../webjob-server.key'], {
      cwd: authority.folder,
    });
    assert.equal(modes.toString(), '600\n600\n600\n');
  });

  it('signs the given name, not the one in the request', () => {
    const request = ['req', '-new', '-key', 'client1.key', '-subj', '/CN=client2', '-out', 'client1.csr'];
    execFileSync('openssl', request, { cwd: certificates.imitator.folder, stdio: 'pipe' });
    execFileSync('sh', ['-ec', readBlock('sh sign')], { cwd: certificates.imitator.folder, stdio: 'pipe' });
    const show = ['x509', '-in', 'client1.crt', '-noout', '-subject'];
    const subject = execFileSync('openssl', show, { cwd: certificates.imitator.folder, encoding: 'utf8' });
    assert.match(subject, /^subject=CN ?= ?client1\n$/);
  });
});

describe('the curl command of the guide', { skip: NO_CURL }, () => {
  before(() =>
    copyFileSync(join(certificates.folder, 'webjob-server.crt'), join(authority.folder, 'webjob-server.crt')),
  );

  for (const [name, htaccess] of Object.entries(TRIES)) {
    it(`gets host.sh (${name})`, async () => {
      const virtualHost = name === 'password' ? 'password' : 'certificate';
      const site = await startSecureSite({ certificates, virtualHost });
      try {
        site.permit(htaccess);
        site.configure(name);
        const to = `${SERVER_NAME}:443:127.0.0.1:${site.port}`;
        const command = readBlock(`sh try-${name}`).replace(
          'curl',
          `curl --disable --silent --show-error --connect-to ${to}`,
        );
        assert.equal(execFileSync('sh', ['-ec', command], { cwd: authority.folder, encoding: 'utf8' }), HOST_SH);
        assert.deepEqual(
          site.newLines().map(({ remoteUser, status }) => [remoteUser, status]),
          [['client1', 200]],
        );
      } finally {
        await site.close();
      }
    });
  }
});

describe('a revocation list', () => {
  before(() => authority.revokeClient1());
  const revoked = () => readBlock('apache revoked');

  it('ends the handshakes of revoked clients, and of no others', async () => {
    const site = await startSecureSite({ certificates, virtualHost: 'certificate', before: revoked() });
    try {
      site.permit('htaccess-certificates');
      site.configure('certificate');
      await assertNoHandshake(site, { identity: client1 }, /certificate revoked/);
      await assertStatus(site, 200, { identity: client2, clientId: 'client2' });
      assert.match(readFileSync(site.errorLog, 'utf8'), /AH02276: .*certificate revoked/);
    } finally {
      await site.close();
    }
  });

  it('ends the handshake of every client once it has expired', async () => {
    authority.makeStaleList('webjob-ca.crl');
    const site = await startSecureSite({ certificates, virtualHost: 'certificate', before: revoked() });
    try {
      await assertNoHandshake(site, { identity: client2 }, /alert/);
      assert.match(readFileSync(site.errorLog, 'utf8'), /AH02276: .*CRL has expired/);
    } finally {
      await site.close();
    }
  });
});

describe('a host list', () => {
  const use = useSite({ certificates, virtualHost: 'password' });
  const write = (text: string): void => {
    const folder = join(use().site.base, 'config', 'nph-webjob');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'hosts.access'), text);
  };
  before(() => use().configure('hosts'));

  it('is required once it is turned on', async () => {
    await assertStatus(use(), 550, { user: 'client1:foo' });
  });

  it('refuses clients from other addresses, and accepts clients on it', async () => {
    const listed = readBlock('hosts hosts.access');
    write(listed);
    const answer = await use().ask({ user: 'client1:foo' });
    assert.deepEqual([answer.status, answer.reason], [472, 'Address Not Allowed']);
    use().newLines();
    write(listed.replaceAll('192.0.2.17', '127.0.0.1'));
    await assertStatus(use(), 200, { user: 'client1:foo' });
    await assertStatus(use(), 472, { user: 'client2:bar', clientId: 'client2' });
    write(listed.replaceAll('192.0.2.18', '127.0.0.0/8'));
    await assertStatus(use(), 200, { user: 'client2:bar', clientId: 'client2' });
  });

  it('causes 550 for all requests while it contains a malformed line', async () => {
    write(`${readBlock('hosts hosts.access')}client2=127.0.0.1/33\n`);
    await assertStatus(use(), 550, { user: 'client1:foo' });
  });
});

describe('a request that fails several checks', () => {
  const use = useSite({ certificates, virtualHost: 'certificate', before: readBlock('apache optional') });

  it('is refused in the order that the guide gives', async () => {
    const [, order = ''] = /the order is ([\d,\s]+)\./.exec(readGuideText()) ?? [];
    const steps = order.split(',').map(Number);
    const none = 'Require method GET PUT\n';
    const all = { SslRequireCn: 'Y', EnableHostAccessList: 'Y' };
    const folder = join(use().site.base, 'config', 'nph-webjob');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'hosts.access'), '');
    use().configure('both', all);
    use().permit({ text: none });
    const seen = [await use().status({ plain: true }), await use().status({})];
    writeFileSync(join(folder, 'hosts.access'), 'client1=127.0.0.1\nclient2=127.0.0.1\n');
    seen.push(await use().status({}));
    use().permit('htaccess');
    seen.push(await use().status({ user: 'client2:bar' }), await use().status({ user: 'client1:foo' }));
    seen.push(await use().status({ user: 'client1:foo', identity: client2 }));
    assert.deepEqual(seen, steps);
  });
});

describe('SSLVerifyClient of a directory, which the shipped file warns of', () => {
  const use = useSite({
    certificates,
    virtualHost: 'password',
    before: `SSLCACertificateFile "${authority.folder}/ca.crt"\n<Location "/webjob/">\nSSLVerifyClient require\n</Location>`,
  });

  it('causes 413 for a large PUT with TLS 1.2 and 403 with TLS 1.3', async () => {
    const call = { identity: client2, user: 'client2:bar', clientId: 'client2', upload: Buffer.alloc(300_000) };
    await assertStatus(use(), 413, { ...call, maxVersion: 'TLSv1.2' });
    const { upload: _, ...get } = call;
    await assertStatus(use(), 403, get);
  });
});

describe('a virtual host beside one that requires no certificate', () => {
  const OTHER = 'other.example.com';
  const use = useSite({
    certificates,
    virtualHost: 'certificate',
    more: (port) => `
<VirtualHost 127.0.0.1:${port}>
  ServerName ${OTHER}
  SSLEngine on
  SSLCertificateFile "${certificates.folder}/webjob-server.crt"
  SSLCertificateKeyFile "${certificates.folder}/webjob-server.key"
</VirtualHost>`,
  });

  it('cannot be entered through the other', async () => {
    use().permit('htaccess-certificates');
    use().configure('certificate');
    await assertStatus(use(), 200, { identity: client2, clientId: 'client2' });
    const through = { servername: OTHER, clientId: 'client2' };
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      for (const host of [SERVER_NAME, OTHER]) {
        for (const identity of [undefined, client2, certificates.rogue.client1]) {
          const call = { ...through, host, maxVersion, ...(identity && { identity }) };
          const status = await use()
            .status(call)
            .catch(() => 0);
          assert.notEqual(status, 200, JSON.stringify({ maxVersion, host }));
        }
      }
    }
    assert.deepEqual(
      use()
        .newLines()
        .map(({ status }) => status),
      [],
    );
  });
});

function readGuideText(): string {
  return readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'authentication.md'), 'utf8');
}
