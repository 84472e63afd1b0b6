// webjobctl configtest judges the server's certificate as httpd does: a real httpd fails to start
// exactly with the certificates that it reports; the remedies repair it when pasted.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect } from 'node:tls';
import { checkCertificates } from '../../admin/configtest/certificates.ts';
import type { Finding } from '../../admin/configtest/finding.ts';
import type { Directive } from '../../admin/configtest/httpd.ts';
import { makeMends } from '../../admin/configtest/mends.ts';
import { openAuthority } from '../../admin/site/authority.ts';
import { startHttpd } from '../../scripts/httpd.ts';
import { makeSite, type Site } from '../../scripts/site.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';

const NAME = 'webjob.example.com';
const folder = mkdtempSync(join(tmpdir(), 'webjob-judged-'));
const at = (name: string): string => join(folder, name);
const [certificate, key] = [at('webjob-server.crt'), at('webjob-server.key')];
let site: Site;
before(() => {
  site = makeSite();
  openssl(`req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=CA -keyout ${at('ca.key')} -out ${at('ca.crt')}`);
});
after(() => {
  site.remove();
  rmSync(folder, { recursive: true });
});

function openssl(words: string): void {
  execFileSync('openssl', words.split(' '), { cwd: folder, stdio: 'pipe' });
}

const FILES = `-keyout ${key} -out ${certificate}`;
const NO_CA = '-addext basicConstraints=critical,CA:FALSE';

function makeSelfSigned(bits: number, more = `${NO_CA} -addext subjectAltName=DNS:${NAME}`): void {
  openssl(`req -x509 -newkey rsa:${bits} -nodes -days 90 -subj /CN=${NAME} ${more} ${FILES}`);
}

function makeSigned(digest: string): void {
  openssl(`req -new -newkey rsa:2048 -nodes -subj /CN=${NAME} -keyout ${key} -out ${at('csr')}`);
  writeFileSync(at('extensions'), `subjectAltName=DNS:${NAME}\n`);
  const signer = `-CA ${at('ca.crt')} -CAkey ${at('ca.key')} -CAcreateserial -extfile ${at('extensions')}`;
  openssl(`x509 -req -in ${at('csr')} ${signer} -${digest} -days 90 -out ${certificate}`);
}

/** The directives of a virtual host with this pair, in the form of httpd's dump. */
function describeHost(ciphers: string | undefined): Directive[] {
  const host = ['VirtualHost *:443'];
  const say = (name: string, value: string): Directive => {
    return { name, value, sections: host, where: 'httpd.conf:1' };
  };
  return [
    say('ServerName', NAME),
    say('SSLCertificateFile', certificate),
    say('SSLCertificateKeyFile', key),
    ...(ciphers === undefined ? [] : [say('SSLCipherSuite', ciphers)]),
  ];
}

const mends = makeMends({
  propertiesFile: at('nph-webjob.cfg'),
  etcDirectory: folder,
  httpd: {},
  httpdConf: at('httpd.conf'),
  shippedText: () => '',
});
const check = (directives: Directive[] | undefined): Finding[] => checkCertificates(folder, directives, mends);
const findSerious = (directives: Directive[]): Finding[] =>
  check(directives).filter(({ severity }) => severity !== 'note');

/**
 * Whether a real httpd serves the pair. It listens before it has loaded it, so only a handshake
 * tells.
 */
async function isTaken(ciphers: string | undefined): Promise<boolean> {
  const own = ciphers === undefined ? '' : `SSLCipherSuite ${ciphers}`;
  const tls = { keyFile: key, certificateFile: certificate };
  const refusal = /AH02562|AH02565|AH02577|AH02311/;
  try {
    const server = await startHttpd({ site, mpm: 'event', tls, before: own });
    const isServed = await shakesHands(server.port);
    await server.stop();
    const said = readFileSync(server.errorLog, 'utf8');
    if (!isServed) assert.match(said, refusal, 'nothing else keeps it from starting');
    writeFileSync(server.errorLog, '');
    return isServed;
  } catch (error) {
    assert.match(String(error), refusal);
    return false;
  }
}

function shakesHands(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { host: '127.0.0.1', port, rejectUnauthorized: false, ciphers: 'DEFAULT@SECLEVEL=0' };
    const socket = connect(options, () => {
      socket.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });
}

/** Without the reload after it, which would affect the machine's httpd. */
function paste(remedy: string): void {
  const [command = ''] = remedy.split(' && ');
  execFileSync('sh', ['-e', '-c', command], { cwd: folder, stdio: 'pipe' });
}

const WEAK: [what: string, make: () => void, ciphers: string | undefined, found: RegExp | undefined][] = [
  ['a key of 2048 bits', () => makeSelfSigned(2048), undefined, undefined],
  ['a key of 1024 bits', () => makeSelfSigned(1024), undefined, /: its key is too small \(1024 bits\)$/],
  ['a key of 1024 bits and SECLEVEL=0', () => makeSelfSigned(1024), 'DEFAULT:@SECLEVEL=0', undefined],
  ['a key of 2048 bits and SECLEVEL=3', () => makeSelfSigned(2048), 'DEFAULT:@SECLEVEL=3', /\(2048 bits\)$/],
  ['a signature with SHA-256', () => makeSigned('sha256'), undefined, undefined],
  ['a signature with SHA-1', () => makeSigned('sha1'), undefined, /: its signature is too weak \(sha1With\w+\)$/],
  [
    'the key of another certificate',
    () => {
      makeSelfSigned(2048);
      openssl(`genrsa -out ${key} 2048`);
    },
    undefined,
    /: \S+\/webjob-server\.key is the key of another certificate$/,
  ],
];

describe('a server certificate', () => {
  for (const [what, make, ciphers, found] of WEAK) {
    it(`is ${found ? 'refused' : 'accepted'} by httpd and configtest alike with ${what}`, async () => {
      make();
      const findings = findSerious(describeHost(ciphers));
      assert.equal(await isTaken(ciphers), found === undefined);
      if (!found) return assert.deepEqual(findings, []);
      const [finding, ...more] = findings;
      assert.deepEqual(more, []);
      assert.match(finding?.what ?? '', /^httpd refuses the server's certificate: /);
      assert.match(finding?.what ?? '', found);
      assert.equal(finding?.where, certificate);
      const notes = check(describeHost(ciphers)).filter(({ what }) => what.includes('is valid for'));
      assert.deepEqual(
        notes.map(({ where }) => where),
        [],
      );
      paste(finding?.remedy ?? '');
      if (existsSync(`${certificate}.csr`)) openssl(`req -verify -noout -in ${certificate}.csr`);
      else if (ciphers === undefined) assert.deepEqual(findSerious(describeHost(ciphers)), []);
      rmSync(`${certificate}.csr`, { force: true });
    });
  }

  it('is checked where httpd names none, too', () => {
    makeSelfSigned(1024);
    assert.match(check(undefined)[0]?.what ?? '', /its key is too small \(1024 bits\)/);
  });

  it('should not be that of a CA', () => {
    makeSelfSigned(2048, `-addext subjectAltName=DNS:${NAME}`);
    const [isCa] = findSerious(describeHost(undefined));
    assert.match(`${isCa?.severity}: ${isCa?.what}`, /^warning: the server's certificate is that of a CA: /);
    paste(isCa?.remedy ?? '');
    assert.deepEqual(findSerious(describeHost(undefined)), []);
  });

  it('is checked for each of two virtual hosts with one address', () => {
    makeSelfSigned(1024);
    const [strict, lax] = [describeHost(undefined), describeHost('DEFAULT:@SECLEVEL=0')];
    assert.deepEqual(findSerious([...lax, ...lax]), []);
    assert.equal(findSerious([...strict, ...lax]).length, 1);
    assert.equal(findSerious([...lax, ...strict]).length, 1);
  });
});

it('a CA with a key of 1024 bits admits no client, and configtest says so', () => {
  makeSelfSigned(2048);
  const small = at('small.crt');
  openssl(`req -x509 -newkey rsa:1024 -nodes -days 90 -subj /CN=CA -keyout ${at('small.key')} -out ${small}`);
  const withAuthority = (path: string, ciphers?: string): Directive[] => {
    const directive = {
      name: 'SSLCACertificateFile',
      value: path,
      sections: ['VirtualHost *:443'],
      where: 'httpd.conf:2',
    };
    return [...describeHost(ciphers), directive];
  };
  const [finding] = findSerious(withAuthority(small));
  assert.match(
    finding?.what ?? '',
    /^httpd refuses all clients because their CA is too weak: its key is too small \(1024 bits\)$/,
  );
  assert.deepEqual(findSerious(withAuthority(at('ca.crt'))), []);
  makeSelfSigned(1024);
  assert.deepEqual(findSerious(withAuthority(small, 'DEFAULT:@SECLEVEL=0')), []);
});

describe('a client certificate', () => {
  const etc = at('clients');
  const ca = join(etc, 'webjob-ca');
  const list = { ...mends, webjobctl: `webjobctl --config ${join(etc, 'nph-webjob.cfg')}` };
  before(() => {
    mkdirSync(etc);
    writeFileSync(join(etc, 'nph-webjob.cfg'), `BaseDirectory=${etc}\n`);
    openAuthority(etc);
    makeSelfSigned(2048);
    for (const name of ['crt', 'key'] as const)
      writeFileSync(join(etc, `webjob-server.${name}`), readFileSync(at(`webjob-server.${name}`)), { mode: 0o600 });
  });

  /** As an administrator might have made it, with the site's CA and another name. */
  function issue(client: string, bits: number, digest = 'sha256'): void {
    const request = `req -new -newkey rsa:${bits} -nodes -subj /CN=${client} -keyout ${client}.key -out ${client}.csr`;
    const sign = `ca -config ca.cnf -batch -notext -md ${digest} -subj /CN=${client} -in ${client}.csr -out ${client}.crt`;
    for (const words of [request, sign]) execFileSync('openssl', words.split(' '), { cwd: ca, stdio: 'pipe' });
  }

  /**
   * Whether a real httpd accepts it in the handshake: with TLS 1.3 a client learns that only
   * afterwards.
   */
  async function isLetIn(client: string, port: number): Promise<boolean> {
    const [cert, own] = ['crt', 'key'].map((kind) => readFileSync(join(ca, `${client}.${kind}`))) as [Buffer, Buffer];
    const options = { host: '127.0.0.1', port, rejectUnauthorized: false, ciphers: 'DEFAULT@SECLEVEL=0' };
    return await new Promise((resolve) => {
      const socket = connect({ ...options, cert, key: own }, () => socket.write('GET / HTTP/1.0\r\n\r\n'));
      socket.once('data', () => resolve(true)).on('error', () => resolve(false));
      socket.on('close', () => resolve(false));
    });
  }

  const find = (ciphers?: string): Finding[] =>
    checkCertificates(etc, describeHost(ciphers), list).filter(({ what }) => what.startsWith('httpd refuses'));

  for (const ciphers of [undefined, 'DEFAULT:@SECLEVEL=0', 'DEFAULT:@SECLEVEL=3'])
    it(`is judged as httpd does ${ciphers ? `with ${ciphers}` : 'by itself'}`, async () => {
      rmSync(join(ca, 'index.txt'));
      writeFileSync(join(ca, 'index.txt'), '');
      makeSelfSigned(ciphers?.endsWith('3') ? 4096 : 2048);
      issue('strong', 3072);
      issue('usual', 2048);
      issue('small', 1024);
      issue('old', 2048, 'sha1');
      const verify = `SSLVerifyClient require\nSSLCACertificateFile ${join(etc, 'webjob-ca.crt')}\n`;
      const own = ciphers === undefined ? '' : `SSLCipherSuite ${ciphers}\n`;
      const tls = { keyFile: key, certificateFile: certificate };
      const server = await startHttpd({ site, mpm: 'event', tls, before: own + verify });
      const refused: string[] = [];
      try {
        for (const client of ['strong', 'usual', 'small', 'old'])
          if (!(await isLetIn(client, server.port))) refused.push(client);
      } finally {
        await server.stop();
      }
      const isNamed = (client: string): boolean =>
        find(ciphers).some(({ what }) => new RegExp(`\\b${client}\\b`).test(what));
      const isAll = find(ciphers).some(({ what }) => what.includes('all clients'));
      assert.deepEqual(
        ['strong', 'usual', 'small', 'old'].filter((client) => isAll || isNamed(client)),
        refused,
      );
      if (ciphers === undefined) assert.deepEqual(refused, ['small', 'old']);
    });

  it('is renewed by the pasted remedy', () => {
    rmSync(join(ca, 'index.txt'));
    writeFileSync(join(ca, 'index.txt'), '');
    makeSelfSigned(2048);
    for (const client of ['client1', 'client2', 'client3', 'client4', 'client5', 'client6', 'client7'])
      issue(client, 1024);
    const [small, ...more] = find();
    assert.deepEqual(more, []);
    assert.equal(
      small?.what,
      'httpd refuses certificates of clients, for their keys are too small (1024 bits): client1, client2, client3, client4, client5 and 2 more',
    );
    const lines = `webjobctl() { "${process.execPath}" "${WEBJOBCTL}" "$@"; }\n${small?.remedy ?? ''}`;
    execFileSync('sh', ['-e', '-c', lines], { cwd: folder, stdio: 'pipe' });
    assert.match(find()[0]?.what ?? '', /: client2, client3, client4, client5, client6 and 1 more$/);
    assert.deepEqual(find('DEFAULT:@SECLEVEL=0'), []);
    const both = [...describeHost(undefined), ...describeHost('DEFAULT:@SECLEVEL=0')];
    const refused = checkCertificates(etc, both, list).filter(({ what }) => what.startsWith('httpd refuses'));
    assert.deepEqual(refused, [], 'the second virtual host takes them');
  });
});
