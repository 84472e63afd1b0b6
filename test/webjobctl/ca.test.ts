// webjobctl ca: certificates are renewed before they end, and the CA's key can be kept away from
// the web server; with a real httpd, clients and openssl.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { runWebjob } from '../support/client-job.ts';
import { write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { type Ended, type Ground, makeGround, runWebjobctl } from '../support/operator.ts';

const MODULES =
  'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout ssl socache_shmcb';

obtainHtpasswd();
const ground: Ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
const etc = (name: string): string => at('site/etc', name);
const elsewhere = at('elsewhere');
const conf = at('httpd', 'httpd.conf');
let httpd: Apache;
let url = '';

/** webjobctl at the web server's site. */
const here = (...args: string[]): Promise<Ended> =>
  runWebjobctl(['-c', etc('nph-webjob.cfg'), ...args], { cwd: ground.root });
async function must(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await here(...args);
  assert.equal(code, 0, `${args.join(' ')}: ${stdout}${stderr}`);
  return stderr;
}
function openssl(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('openssl', args, { cwd: ground.root, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}
const dayOf = (list: string): number =>
  Math.round(
    (new Date(/=(.*)/.exec(openssl('crl', '-in', list, '-noout', '-nextupdate'))?.[1] ?? '').getTime() - Date.now()) /
      86_400_000,
  );

/**
 * Runs host.sh and uploads its output. A graceful restart takes effect a moment after the command.
 */
async function runJob(name: string, expected: number): Promise<string> {
  for (let attempt = 1; ; attempt++, await sleep(100)) {
    const { code, stderr } = await runWebjob(['--execute', '--file', at(name, 'webjob.conf'), 'host.sh']);
    if (code === expected) return stderr;
    if (attempt === 40) assert.fail(`${code}, not ${expected}: ${stderr}${httpd.complaints().slice(-2000)}`);
  }
}

async function untilRefused(name: string): Promise<void> {
  for (const deadline = Date.now() + 60_000; ; await sleep(100)) {
    const { code } = await runWebjob(['--execute', '--file', at(name, 'webjob.conf'), 'host.sh']);
    if (code !== 0) return;
    assert.ok(Date.now() < deadline, `${name} still gets in`);
  }
}

function reload(): void {
  assert.equal(httpd.control('-k', 'graceful').code, 0);
}

/** A client with its own key, signed where the CA is. */
async function addSigned(name: string): Promise<void> {
  openssl(
    'req',
    '-new',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-subj',
    '/CN=any',
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.csr`,
  );
  await ground.run(0, 'ca', 'sign', elsewhere, name, at(`${name}.csr`));
  await must('client', 'add', name, '--signed', at(`${name}.crt`), '--url', url);
  copyFileSync(at(`${name}.key`), at(name, `${name}.key`));
  write(at('site/integrity/profiles', name, 'commands/host.sh'), '#!/bin/sh\nhostname\n');
}

before(async () => {
  await ground.run(0, 'ca', 'make', elsewhere);
  mkdirSync(at('site/etc'), { recursive: true });
  for (const kind of ['crt', 'crl']) copyFileSync(join(elsewhere, `webjob-ca.${kind}`), etc(`webjob-ca.${kind}`));
  mkdirSync(at('httpd'));
  httpd = await startApache({
    serverRoot: at('httpd'),
    configurationFile: conf,
    errorLog: at('httpd', 'error.log'),
    portCount: 2,
    configure: (ports) =>
      write(conf, `ServerRoot "${at('httpd')}"\nLogLevel ssl:info\n${formatBasics(at('httpd'), ports, MODULES)}`),
  });
  const port = String(httpd.ports[1]);
  url = `https://127.0.0.1:${port}`;
  const tls = ['--tls', '--server-name', '127.0.0.1', '--tls-port', port, '--certificates'];
  const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', conf];
  await ground.run(0, 'init', '--prefix', at('site'), '--node', ground.node, ...tls, ...apply);
});
after(async () => {
  await httpd?.stop();
  ground.remove();
});

describe('a CA whose key is not on the web server', () => {
  it('signs on another machine, and the client gets in', async () => {
    assert.deepEqual([existsSync(etc('webjob-ca')), statSync(elsewhere).mode & 0o777], [false, 0o700]);
    await addSigned('client1');
    await runJob('client1', 0);
    assert.equal(existsSync(etc('webjob-ca')), false);
  });

  it('is not made again on the web server', async () => {
    for (const args of [
      ['client', 'add', 'client9', '--cert'],
      ['ca', 'crl'],
    ]) {
      const { code, stderr } = await here(...args);
      assert.deepEqual(
        [code, /is not kept here[\s\S]*hint: sign there: webjobctl ca sign/.test(stderr)],
        [4, true],
        stderr,
      );
    }
    assert.equal(existsSync(etc('webjob-ca')), false);
  });

  it('signs certificates that client add --signed accepts, for this client only', async () => {
    await ground.run(0, 'ca', 'make', at('rogue'));
    await ground.run(0, 'ca', 'sign', at('rogue'), 'client9', at('client1.csr'), '--out', at('rogue.crt'));
    await ground.run(0, 'ca', 'sign', elsewhere, 'client8', at('client1.csr'), '--out', at('other.crt'));
    for (const [file, why] of [
      ['rogue.crt', /has not signed it/],
      ['other.crt', /is not a certificate of client9/],
      ['client1.key', /is not a certificate in PEM/],
    ] as const) {
      const { code, stderr } = await here('client', 'add', 'client9', '--signed', at(file), '--url', url);
      assert.deepEqual([code, why.test(stderr), existsSync(at('client9'))], [4, true, false], stderr);
    }
  });

  it('revokes certificates with a list that counts once it is installed', async () => {
    await addSigned('client2');
    await runJob('client2', 0);
    const old = join(ground.root, 'old.crl');
    await sleep(1100);
    await ground.run(0, 'ca', 'crl', elsewhere);
    copyFileSync(join(elsewhere, 'webjob-ca.crl'), old);
    // The dates of a revocation list have a resolution of one second.
    await sleep(1100);
    await ground.run(0, 'ca', 'revoke', elsewhere, 'client2');
    assert.match(await must('ca', 'install', join(elsewhere, 'webjob-ca.crl')), /apachectl graceful/);
    reload();
    await untilRefused('client2');
    const listed = openssl('crl', '-in', etc('webjob-ca.crl'), '-noout', '-text');
    assert.ok(listed.includes(new X509Certificate(readFileSync(at('client2.crt'))).serialNumber));
    await runJob('client1', 0);
    assert.equal((await runWebjobctl(['ca', 'revoke', elsewhere, 'client2'])).code, 1);
    // An older list cannot undo a revocation.
    for (const [file, why] of [
      [old, /is older than/],
      [join(at('rogue'), 'webjob-ca.crl'), /is not a revocation list of the CA/],
      [conf, /is not a revocation list/],
    ] as const) {
      const before = readFileSync(etc('webjob-ca.crl'));
      const { code, stderr } = await here('ca', 'install', file);
      assert.deepEqual([code, why.test(stderr)], [4, true], stderr);
      assert.ok(readFileSync(etc('webjob-ca.crl')).equals(before));
    }
  });

  it('accepts clients again with a new list when the old one has expired', async () => {
    const ended = 'ca -config ca.cnf -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z -out';
    const made = spawnSync('openssl', [...ended.split(' '), etc('webjob-ca.crl')], {
      cwd: join(elsewhere, 'webjob-ca'),
    });
    assert.equal(made.status, 0, String(made.stderr));
    reload();
    const { port } = new URL(url);
    const isRefused = (): boolean =>
      spawnSync(
        'openssl',
        ['s_client', '-connect', `127.0.0.1:${port}`, '-tls1_2', '-cert', at('client1.crt'), '-key', at('client1.key')],
        {
          input: '',
        },
      ).status !== 0;
    for (const deadline = Date.now() + 60_000; !isRefused(); await sleep(100)) assert.ok(Date.now() < deadline);
    const { stdout } = await here('configtest', '--httpd', obtainHttpd().binary, '--httpd-conf', conf);
    assert.match(stdout, /the revocation list expired 2020-01-02.*\n.*webjobctl ca crl/);
    await ground.run(0, 'ca', 'crl', elsewhere, '--days', '40');
    await must('ca', 'install', join(elsewhere, 'webjob-ca.crl'));
    assert.equal(dayOf(etc('webjob-ca.crl')), 40);
    reload();
    await runJob('client1', 0);
  });
});

describe("the server's certificate", () => {
  const read = (name: string): X509Certificate => new X509Certificate(readFileSync(etc(name)));

  it('is not a CA: no client trusts what its key signs', async () => {
    const [key, certificate] = [etc('webjob-server.key'), etc('webjob-server.crt')];
    assert.equal(read('webjob-server.crt').ca, false);
    writeFileSync(at('ext'), 'basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n');
    openssl(
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      '/CN=127.0.0.1',
      '-keyout',
      'false.key',
      '-out',
      'false.csr',
    );
    const sign = ['x509', '-req', '-in', 'false.csr', '-CA', certificate, '-CAkey', key, '-CAcreateserial'];
    openssl(...sign, '-CAserial', at('serial'), '-extfile', 'ext', '-out', 'false.crt');
    const verify = ['verify', '-purpose', 'sslserver', '-CAfile', certificate];
    assert.notEqual(spawnSync('openssl', [...verify, at('false.crt')]).status, 0);
    assert.equal(spawnSync('openssl', [...verify, certificate]).status, 0);
  });

  it('is renewed without errors for clients that have the next one', async () => {
    await addSigned('client3');
    const serial = read('webjob-server.crt').serialNumber;
    assert.match(
      await must('ca', 'server', '--prepare', '--days', '100'),
      /add it to webjob-server\.crt of every client/,
    );
    assert.equal(read('webjob-server.crt').serialNumber, serial, 'the present one is still in use');
    const next = read('webjob-server.next.crt');
    await addSigned('client4');
    writeFileSync(at('client1/webjob-server.crt'), readFileSync(etc('webjob-server.next.crt')), { flag: 'a' });
    for (const name of ['client1', 'client3', 'client4']) await runJob(name, 0);
    await must('ca', 'server');
    assert.equal(read('webjob-server.crt').serialNumber, next.serialNumber);
    assert.deepEqual(
      [next.ca, next.subjectAltName, existsSync(etc('webjob-server.next.crt'))],
      [false, 'IP Address:127.0.0.1', false],
    );
    reload();
    // A client that was not prepared refuses the new certificate.
    await untilRefused('client3');
    for (const name of ['client1', 'client4']) await runJob(name, 0);
    await must('ca', 'server', '--days', '50');
    assert.equal(Math.round((read('webjob-server.crt').validToDate.getTime() - Date.now()) / 86_400_000), 50);
    assert.equal(statSync(etc('webjob-server.key')).mode & 0o777, 0o600);
  });

  it('can be renewed where another CA issued it', async () => {
    const own = readFileSync(etc('webjob-server.crt'));
    try {
      copyFileSync(at('false.crt'), etc('webjob-server.crt'));
      const { code, stderr } = await here('ca', 'server');
      assert.deepEqual([code, /is signed by another CA/.test(stderr)], [4, true], stderr);
      assert.ok(readFileSync(etc('webjob-server.crt')).equals(readFileSync(at('false.crt'))));
      rmSync(etc('webjob-server.crt'));
      assert.equal((await here('ca', 'server')).code, 4);
    } finally {
      writeFileSync(etc('webjob-server.crt'), own);
    }
  });
});
