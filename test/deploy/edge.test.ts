// TLS and client certificates end at the balancer: only the CN that it verified, and nothing that a
// client sends, determines the client. Every attack is sent to the balancer, over TLS and without,
// and to a server directly.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { connect } from 'node:tls';
import { parseLogLine } from 'webjob-protocol';
import { addCommand, addUser, makeSite, type Site } from '../../scripts/site.ts';
import type { Identity } from '../support/certificates.ts';
import { readGuide } from '../support/deployment-guide.ts';
import { BALANCER, shipped, startBalancer, startNode } from '../support/deployment-nodes.ts';
import { ask, getHead, type Job } from '../support/deployment-wire.ts';
import { makeCertificates } from '../support/secure-site.ts';
import { parseAnswer } from '../support/strict-client.ts';
import { HOST_SH } from '../support/tree.ts';

const KEY = 'k3y'.repeat(20);
const KEY_LINE = `Define WEBJOB_BALANCER_KEY ${KEY}`;
const NO_PASSWORD = 'Authorization: none';
/** Ways to claim a name in a request without the right to it. */
const FORGERIES = [
  ['WebJob-Client-Name: client1'],
  ['webjob-client-name:client1'],
  ['WebJob-Client-Name: client1', 'WebJob-Client-Name: client1'],
  ['WebJob-Client-Name: client2', 'WebJob-Client-Name: client1'],
  ['WebJob_Client_Name: client1'],
  ['WebJob-Client-Name: client1', 'Connection: close, WebJob-Client-Name'],
  ['WebJob-Client-Name: client1', `X-Forwarded-For: ${BALANCER}`],
  ['WebJob-Client-Name: client1', `X-Forwarded-For: ${BALANCER}, ${BALANCER}`],
  ['SSL-Client-Verify: SUCCESS', 'SSL-Client-S-DN-CN: client1', 'HTTPS: on', 'Remote-User: client1'],
  ['SSL_CLIENT_VERIFY: SUCCESS', 'SSL_CLIENT_S_DN_CN: client1', 'HTTPS: on', 'REMOTE_USER: client1'],
];
const { folder, site: authority, rogue, remove } = makeCertificates();
const [, , edgeLines = '', nodeLines = ''] = readGuide('apache/README.md', '', []).blocks(
  'apache',
  'Several servers behind a balancer',
);

/** The guide's virtual host, and for comparison the plain lines on a second port. */
function formatEdge(plain: string, [secure, open]: number[]): string {
  const virtualHost = edgeLines
    .replace('*:443', `127.0.0.1:${secure}`)
    .replace('Include /usr/local/apache/etc/webjob-balancer-key.conf', KEY_LINE)
    .replaceAll('/usr/local/apache/etc/webjob-server', `${folder}/webjob-server`)
    .replaceAll('/usr/local/apache/etc', shipped);
  return `SSLSessionCache none
Define WEBJOB_CA_FILE "${authority.folder}/ca.crt"
Define WEBJOB_CERTIFICATE_OPTIONAL
${virtualHost}
<VirtualHost 127.0.0.1:${open}>
${plain}
</VirtualHost>`;
}

function permit(site: Site, node: string, file: string): void {
  const text = readFileSync(join(shipped, file), 'utf8');
  writeFileSync(
    join(site.root, node, 'webjob/.htaccess'),
    text.replace(/^AuthUserFile .*$/m, `AuthUserFile "${site.userFile}"`),
  );
}

/** Sends a request over TLS, with or without a certificate. */
async function askSecurely(port: number, request: string, identity?: Identity): Promise<number> {
  const bytes = await new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...identity });
    socket.setTimeout(60_000, () => socket.destroy(new Error('no answer in time')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject).on('end', () => resolve(Buffer.concat(chunks)));
    socket.write(Buffer.from(request, 'latin1'));
  });
  return parseAnswer(bytes).status;
}

const bare = (job: Job = {}): string =>
  getHead(job).replace(/Authorization: .*/, job.password === undefined ? NO_PASSWORD : '$&');

describe('client certificates that end at the balancer', async () => {
  const site = makeSite();
  addUser(site, 'client2', 'bar');
  addCommand(site, 'client2', 'host.sh', HOST_SH);
  const settings = 'SslRequireSsl=Y\nSslRequireMatch=Y\n';
  const told = ['Include /usr/local/apache/etc/webjob-balancer-key.conf', 'Define WEBJOB_CERTIFICATES_AT_BALANCER'];
  for (const line of told) assert.ok(nodeLines.includes(line), 'the guide tells the servers to believe the balancer');
  const believing = `${KEY_LINE}\n${told[1]}`;
  const nodes = [
    await startNode(site, 'node_1', { settings, before: believing }),
    await startNode(site, 'node_2', { settings, before: believing }),
  ];
  const balancer = await startBalancer(site, nodes, { portCount: 2, modules: 'ssl', format: formatEdge });
  const [secure = 0, open = 0] = balancer.ports;
  after(async () => {
    for (const server of [balancer, ...nodes]) await server.stop();
    site.remove();
    remove();
  });
  const { client1 } = authority;
  const client2 = authority.issue({ subject: '/CN=client2' });
  beforeEach(() => {
    for (const node of ['node_1', 'node_2']) permit(site, node, 'htaccess-behind-proxy');
    writeFileSync(site.logFile, '');
  });

  it('make the CN the user and the certificate that of the request, on every server', async () => {
    for (let run = 0; run < 2; run++) assert.equal(await askSecurely(secure, bare(), client1), 200);
    assert.equal(await askSecurely(secure, bare({ clientId: 'client2' }), client2), 200);
    const lines = readFileSync(site.logFile, 'latin1').trimEnd().split('\n').map(parseLogLine);
    assert.deepEqual(
      lines.map(({ remoteUser, remoteAddress }) => [remoteUser, remoteAddress]),
      ['client1', 'client1', 'client2'].map((name) => [name, '127.0.0.1']),
    );
  });

  it('never count for another client, or from another CA', async () => {
    assert.equal(await askSecurely(secure, bare({ clientId: 'client2' }), client1), 453);
    assert.equal(await askSecurely(secure, bare()), 403);
    await assert.rejects(askSecurely(secure, bare(), rogue.client1));
    for (const subject of ['/O=nobody', '/CN=client1, client1', '/CN=client1,client2'])
      assert.ok([403, 453].includes(await askSecurely(secure, bare(), authority.issue({ subject }))), subject);
  });

  it('are required beside a password, and neither replaces the other', async () => {
    for (const node of ['node_1', 'node_2']) permit(site, node, 'htaccess');
    assert.equal(await askSecurely(secure, bare({ password: 'foo' }), client1), 200);
    assert.equal(await askSecurely(secure, bare({ password: 'foo' })), 458);
    assert.equal(await askSecurely(secure, bare({ password: 'foo' }), client2), 471);
    assert.equal(await askSecurely(secure, bare({ password: 'wrong' }), client1), 401);
    // client2's certificate with client2's password, for client1.
    const stolen = bare({ password: 'foo' }).replace(
      /Basic .*/,
      `Basic ${Buffer.from('client2:bar').toString('base64')}`,
    );
    assert.equal(await askSecurely(secure, stolen, client2), 453);
    assert.equal(await askSecurely(secure, stolen, client1), 453);
  });

  for (const headers of FORGERIES) {
    it(`cannot be made up: ${headers.join(' | ')}`, async () => {
      // A header that is named as hop-by-hop is dropped together with the balancer's own.
      const drops = headers.some((line) => line.startsWith('Connection:'));
      const request = bare({ headers: drops ? headers : [...headers, 'Connection: close'] });
      assert.equal(await askSecurely(secure, request), 403, 'through the balancer');
      assert.equal(await askSecurely(secure, request, client2), drops ? 403 : 453, 'as another');
      assert.equal((await ask(open, request)).status, 403, 'through the balancer without TLS');
      for (const [index, { ports }] of nodes.entries()) {
        for (const address of ['127.0.0.1', '127.0.0.3', '127.0.0.22'])
          assert.equal((await ask(ports[0] ?? 0, request, address)).status, 403, `to server ${index} from ${address}`);
      }
      for (const path of ['//webjob/nph-webjob.cgi', '/webjob//nph-webjob.cgi', '/x/../webjob/nph-webjob.cgi']) {
        const status = await askSecurely(secure, request.replace('/webjob/nph-webjob.cgi', path));
        assert.ok([400, 403, 404].includes(status), `${path}: ${status}`);
      }
    });
  }

  it("would be believed with the balancer's key, so the attacks above reach their target", async () => {
    const to = nodes[0]?.ports[0] ?? 0;
    const claim = (...headers: string[]): string =>
      bare({ headers: ['WebJob-Client-Name: client1', 'Connection: close', ...headers] });
    assert.equal((await ask(to, claim(`WebJob-Balancer-Key: ${KEY}`), BALANCER)).status, 200);
    assert.equal((await ask(to, claim(`WebJob-Balancer-Key: ${KEY}`), '127.0.0.3')).status, 403, 'from elsewhere');
  });

  it("cannot be claimed by other users of the balancer's machine", async () => {
    for (const { ports } of nodes) {
      for (const key of [
        '',
        'k3y',
        KEY.toUpperCase(),
        `${KEY}x`,
        KEY.slice(1),
        'WEBJOB_BALANCER_KEY',
        `${KEY}, ${KEY}`,
      ]) {
        const headers = ['WebJob-Client-Name: client1', `WebJob-Balancer-Key: ${key}`, 'Connection: close'];
        assert.equal((await ask(ports[0] ?? 0, bare({ headers }), BALANCER)).status, 403, key);
      }
      const twice = [
        `WebJob-Balancer-Key: ${KEY}`,
        'WebJob-Balancer-Key: x',
        'WebJob-Client-Name: client1',
        'Connection: close',
      ];
      assert.equal((await ask(ports[0] ?? 0, bare({ headers: twice }), BALANCER)).status, 403);
      const without = bare({ headers: ['WebJob-Client-Name: client1', 'Connection: close'] });
      assert.equal((await ask(ports[0] ?? 0, without, BALANCER)).status, 403);
    }
    // A header from a client does not get through.
    const through = bare({
      headers: [`WebJob-Balancer-Key: ${KEY}`, 'WebJob-Client-Name: client1', 'Connection: close'],
    });
    assert.equal(await askSecurely(secure, through), 403);
    assert.equal((await ask(open, through)).status, 403);
  });

  it('need a key that is long enough', async () => {
    const short = await startNode(site, 'node_4', {
      settings,
      before: 'Define WEBJOB_BALANCER_KEY ""\nDefine WEBJOB_CERTIFICATES_AT_BALANCER',
    });
    permit(site, 'node_4', 'htaccess-behind-proxy');
    try {
      for (const headers of [[], ['WebJob-Balancer-Key: ']])
        assert.equal(
          (
            await ask(
              short.ports[0] ?? 0,
              bare({ headers: ['WebJob-Client-Name: client1', 'Connection: close', ...headers] }),
              BALANCER,
            )
          ).status,
          403,
        );
    } finally {
      await short.stop();
    }
    await assert.rejects(
      startNode(site, 'node_5', { settings, before: 'Define WEBJOB_CERTIFICATES_AT_BALANCER' }),
      /Define WEBJOB_BALANCER_KEY, which the balancers send/,
    );
  });

  it('mean nothing to a server that is not configured to believe them', async () => {
    const unbelieving = await startNode(site, 'node_3', { settings });
    permit(site, 'node_3', 'htaccess-behind-proxy');
    try {
      const request = bare({ headers: ['WebJob-Client-Name: client1'] });
      assert.equal((await ask(unbelieving.ports[0] ?? 0, request, BALANCER)).status, 403);
    } finally {
      await unbelieving.stop();
    }
  });
});
