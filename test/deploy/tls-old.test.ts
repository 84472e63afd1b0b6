// Clients with old TLS: the guide's virtual host for them accepts TLS 1.0, a key of 1024 bits and
// SHA-1, the strict one beside it refuses each of these; and a client without any TLS connects
// through the guide's stunnel.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConnectionOptions } from 'node:tls';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { readBlock } from '../support/authentication-guide.ts';
import type { Identity } from '../support/certificates.ts';
import { localize, makeCertificates, SERVER_NAME, type SecureSite, startSecureSite } from '../support/secure-site.ts';
import { askStrictly, type StrictAnswer } from '../support/strict-client.ts';
import { HOST_SH } from '../support/tree.ts';

const certificates = makeCertificates();
const { client1 } = certificates.site;
/** A key of 1024 bits, signed with SHA-1 by the site's CA. */
const old = issueOld('sha1');
const small = issueOld('sha256');
const [oldPort = 0, relayPort = 0] = await findFreePorts(2);
let use: SecureSite;
before(async () => {
  use = await startSecureSite({
    certificates,
    virtualHost: 'certificate',
    more: () => {
      const host = readBlock('apache old').replace('Listen 8443', `Listen 127.0.0.1:${oldPort}`);
      return localize(host.replace('*:8443', '*:443'), certificates, oldPort);
    },
  });
  use.configure('certificate');
  use.permit('htaccess-certificates');
});
after(async () => {
  await use?.close();
  certificates.remove();
});

function issueOld(digest: string): Identity {
  const { folder } = certificates.site;
  const run = (words: string): unknown => execFileSync('openssl', words.split(' '), { cwd: folder, stdio: 'pipe' });
  run(`req -new -newkey rsa:1024 -nodes -subj /CN=client1 -keyout ${digest}.key -out ${digest}.csr`);
  const names = '-policy anything -subj /CN=client1 -extensions client';
  run(`ca -config odd.cnf -batch -notext -md ${digest} ${names} -in ${digest}.csr -out ${digest}.crt`);
  return { cert: certificates.site.read(`${digest}.crt`), key: certificates.site.read(`${digest}.key`) };
}

const FIELDS = 'VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=client1&FILENAME=host.sh';
const UPLOAD = randomBytes(50_000);

function formatHead(method: string, query: string, length: number, more = ''): string {
  const host = `Host: ${SERVER_NAME}\r\nConnection: close\r\n`;
  return `${method} /webjob/nph-webjob.cgi?${query} HTTP/1.1\r\n${host}${more}Content-Length: ${length}\r\n\r\n`;
}

/** An old C client: level 0, and only the given version. */
function ask(
  port: number,
  identity: Identity,
  version: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2',
  upload?: Buffer,
): Promise<StrictAnswer> {
  const tls: ConnectionOptions = {
    ...identity,
    minVersion: version,
    maxVersion: version,
    ciphers: 'DEFAULT@SECLEVEL=0',
    ca: readFileSync(join(certificates.folder, 'webjob-server.crt')),
    servername: SERVER_NAME,
  };
  const lengths = `&RUNTYPE=snapshot&STDOUT_LENGTH=${upload?.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  const [method, query] = upload ? ['PUT', FIELDS + lengths] : ['GET', FIELDS];
  return askStrictly({
    port,
    tls,
    head: formatHead(method, query, upload?.length ?? 0),
    body: [upload ?? Buffer.alloc(0)],
  });
}

function takeUpload(): Buffer {
  const { incoming } = use.site;
  const names = readdirSync(incoming);
  const out = readFileSync(join(incoming, names.find((name) => name.endsWith('.out')) ?? 'none'));
  for (const name of names) rmSync(join(incoming, name));
  return out;
}

describe('the virtual host for clients of old TLS', () => {
  for (const version of ['TLSv1', 'TLSv1.1', 'TLSv1.2'] as const)
    it(`accepts a key of 1024 bits with SHA-1 over ${version}`, async () => {
      const { status, body } = await ask(oldPort, old, version);
      assert.deepEqual([status, body.toString()], [200, HOST_SH]);
      assert.equal((await ask(oldPort, old, version, UPLOAD)).status, 200);
      assert.ok(takeUpload().equals(UPLOAD));
    });

  it('still requires the certificate of the client from the site CA', async () => {
    await assert.rejects(ask(oldPort, certificates.rogue.client1, 'TLSv1'));
    const client2 = certificates.site.issue({ subject: '/CN=client2' });
    assert.equal((await ask(oldPort, client2, 'TLSv1')).status, 453);
  });

  it('is tested by the command of the guide', () => {
    const command = readBlock('sh try-old').replace(`${SERVER_NAME}:8443`, `127.0.0.1:${oldPort}`);
    const { folder } = certificates.site;
    const { stdout } = spawnSync('sh', ['-c', command], { cwd: folder, encoding: 'utf8', input: '' });
    assert.match(stdout, /^New, TLSv1\.0, Cipher is |^ +Protocol *: TLSv1$/m);
  });
});

describe('the strict virtual host beside that for old clients', () => {
  it('refuses TLS 1.0 and 1.1 from a client with a good key', async () => {
    assert.equal((await ask(use.port, client1, 'TLSv1.2')).status, 200);
    for (const version of ['TLSv1', 'TLSv1.1'] as const) await assert.rejects(ask(use.port, client1, version));
  });

  it('refuses a key of 1024 bits, and SHA-1', async () => {
    for (const identity of [old, small]) await assert.rejects(ask(use.port, identity, 'TLSv1.2'));
    use.newLines();
  });
});

describe("the guide's server certificate for old clients", () => {
  it('has 1024 bits and SHA-1, and is not a CA', () => {
    const folder = mkdtempSync(join(tmpdir(), 'webjob-old-'));
    try {
      execFileSync('sh', ['-ec', readBlock('sh server-old')], { cwd: folder, stdio: 'pipe' });
      const words = 'x509 -in webjob-server-old.crt -noout -text'.split(' ');
      const said = execFileSync('openssl', words, { cwd: folder, encoding: 'utf8' });
      for (const part of [/Public-Key: \(1024 bit\)/, /sha1WithRSAEncryption/, /CA:FALSE/]) assert.match(said, part);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

const STUNNEL = ['stunnel', 'stunnel4'].find((name) => !spawnSync(name, ['-version']).error);

describe('a client without TLS behind the stunnel of the guide', {
  skip: !STUNNEL && 'no stunnel on this machine',
}, () => {
  it('gets and puts', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'webjob-stunnel-'));
    const conf = join(folder, 'stunnel.conf');
    const { folder: identity } = certificates.site;
    const text = readBlock('ini stunnel.conf')
      .replace('192.0.2.5:8080', `127.0.0.1:${relayPort}`)
      .replace(`connect = ${SERVER_NAME}:443`, `connect = 127.0.0.1:${use.port}`)
      .replace('/etc/stunnel', certificates.folder);
    writeFileSync(conf, `${text}cert = ${identity}/client1.crt\nkey = ${identity}/client1.key\n`);
    const relay = spawn(STUNNEL ?? '', [conf], { stdio: 'ignore' });
    try {
      const send = async (method: string, query: string, body: Buffer): Promise<StrictAnswer> =>
        await askStrictly({ port: relayPort, head: formatHead(method, query, body.length), body: [body] });
      let got: StrictAnswer | undefined;
      for (let tries = 0; tries < 100 && !got; tries += 1) {
        got = await send('GET', FIELDS, Buffer.alloc(0)).catch(() => undefined);
        if (!got) await sleep(50);
      }
      assert.equal(got?.body.toString(), HOST_SH);
      const lengths = `&RUNTYPE=snapshot&STDOUT_LENGTH=${UPLOAD.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
      assert.equal((await send('PUT', FIELDS + lengths, UPLOAD)).status, 200);
      assert.ok(takeUpload().equals(UPLOAD));
    } finally {
      relay.kill('SIGTERM');
      rmSync(folder, { recursive: true });
    }
  });
});
