// Users of the view with certificates, under a real httpd that includes the shipped file: who is
// let in, under which name, and who may act. The client is Node, which like a browser does not let
// a server ask for a certificate after the handshake of TLS 1.3.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { MODULES_OF_VIEW, startView, type View } from '../../scripts/view.ts';
import type { Identity } from '../support/certificates.ts';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { makeCertificates } from '../support/secure-site.ts';
import { waitFor } from '../support/wait.ts';

const certificates = makeCertificates();
const { site: authority, rogue, imitator } = certificates;
const alice = authority.issue({ subject: '/CN=alice' });
const bob = authority.issue({ subject: '/CN=bob' });
const old = authority.issue({ subject: '/CN=alice', from: '20200101000000Z', to: '20210101000000Z' });

let its: LockerSite;
let server: HttpdServer;
let view: View;
let job = '';

before(async () => {
  its = makeLockerSite();
  job = await its.run({ clientId: 'client1', fileName: 'host.sh', out: 'kept\n' });
  const { site } = its;
  const way = 'mod_proxy_fcgi';
  view = await startView({
    site,
    way,
    readers: { carol: 'secret' },
    certificates: true,
    actors: ['alice'],
    isRecorded: true,
  });
  server = await startHttpd({
    site,
    mpm: 'event',
    modules: ['ssl', ...MODULES_OF_VIEW[way]],
    second: (port) => `<VirtualHost 127.0.0.1:${port}>
SSLEngine on
SSLCertificateFile "${certificates.folder}/webjob-server.crt"
SSLCertificateKeyFile "${certificates.folder}/webjob-server.key"
SSLCACertificateFile "${authority.folder}/ca.crt"
${view.lines}</VirtualHost>
`,
  });
  await waitFor('the index', async () => (await ask('/', alice)).status === 200);
});
after(async () => {
  await server?.stop();
  await view?.stop();
  its?.close();
  certificates.remove();
});

interface Asked {
  status: number;
  text: string;
}

/** Rejects when the handshake fails. */
function ask(
  path: string,
  identity: Identity | undefined,
  maxVersion: 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3',
  headers = {},
): Promise<Asked> {
  return new Promise((resolve, reject) => {
    const sent = request({
      host: '127.0.0.1',
      port: server.secondPort,
      path: `/webjob-view${path}`,
      agent: false,
      headers,
      maxVersion,
      rejectUnauthorized: false,
      timeout: 60_000,
      ...identity,
    });
    sent.once('error', reject);
    sent.once('response', (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
      });
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, text }));
    });
    sent.end();
  });
}

for (const version of ['TLSv1.2', 'TLSv1.3'] as const)
  describe(`a reader with a certificate, over ${version}`, () => {
    it('is accepted under the name in its certificate', async () => {
      for (const [identity, name] of [
        [alice, 'alice'],
        [bob, 'bob'],
      ] as const) {
        const { status, text } = await ask(`/job/${job}`, identity, version);
        assert.equal(status, 200, text);
        assert.match(text, new RegExp(`Seen by ${name}\\.`));
      }
    });

    it('may act when its name is in the group', async () => {
      assert.equal((await ask(`/act/job/${job}`, alice, version)).status, 200);
      assert.equal((await ask(`/act/job/${job}`, bob, version)).status, 403);
    });

    it('is refused without a certificate, with one of another CA, or with an expired one', async () => {
      assert.equal((await ask('/', undefined, version)).status, 403);
      assert.equal((await ask(`/act/job/${job}`, undefined, version)).status, 403);
      const headers = { authorization: `Basic ${btoa('carol:secret')}`, 'Ssl-Client-S-Dn-Cn': 'alice' };
      assert.equal((await ask('/', undefined, version, headers)).status, 403);
      for (const identity of [rogue.issue({ subject: '/CN=alice' }), imitator.issue({ subject: '/CN=alice' }), old]) {
        const status = await ask('/', identity, version).then(
          (answer) => answer.status,
          () => 'no handshake',
        );
        assert.ok(status === 403 || status === 'no handshake', String(status));
      }
    });
  });

it('a reader with a certificate is recorded under the name in it', () => {
  const lines = readFileSync(join(view.folder, 'access.jsonl'), 'utf8').trimEnd().split('\n');
  const users = new Set(lines.map((line) => JSON.parse(line).user));
  assert.deepEqual([...users].sort(), ['alice', 'bob']);
});
