// webjobctl client with real htpasswd, openssl and httpd: its credentials let the built client in
// over plain HTTP, over TLS and by certificate, and removed credentials keep it out.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeadLock } from '../../cli/lockfile.ts';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { makeKey, readPrivateKey, signFile } from '../../sign/keys.ts';
import { runWebjob } from '../support/client-job.ts';
import { write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { type Ground, makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

const MODULES =
  'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout ssl socache_shmcb';
const mode = (path: string): number => statSync(path).mode & 0o777;

obtainHtpasswd();
const ground: Ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
let httpd: Apache;

/** Three sites under one httpd: plain, with TLS, and with certificates over TLS. */
before(async () => {
  mkdirSync(at('httpd'));
  const configurationFile = at('httpd', 'httpd.conf');
  httpd = await startApache({
    serverRoot: at('httpd'),
    configurationFile,
    errorLog: at('httpd', 'error.log'),
    portCount: 3,
    configure: (ports) =>
      write(
        configurationFile,
        `ServerRoot "${at('httpd')}"\nLogLevel ssl:info\n${formatBasics(at('httpd'), ports, MODULES)}`,
      ),
  });
  const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', configurationFile];
  const [, tls, certificates] = httpd.ports;
  const init = (site: string, ...more: string[]): Promise<string> =>
    ground.run(0, 'init', '--prefix', at(site), '--node', ground.node, ...more, ...apply);
  const name = ['--tls', '--server-name', '127.0.0.1', '--tls-port'];
  await init('plain');
  await init('tls', ...name, String(tls));
  // Last, because a Define takes effect from its line on, and this one contains
  // WEBJOB_CERTIFICATES.
  await init('certs', ...name, String(certificates), '--certificates');
});
after(async () => {
  await httpd?.stop();
  ground.remove();
});

const url = (index: number): string => `${index === 0 ? 'http' : 'https'}://127.0.0.1:${httpd.ports[index]}`;
const client = (site: string, code: number, ...args: string[]): Promise<string> =>
  ground.run(code, '--config', at(site, 'etc/nph-webjob.cfg'), 'client', ...args);

/**
 * Runs host.sh and uploads its output; a graceful restart takes effect a moment after the command.
 */
async function runJob(conf: string, expected: number): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const ended = await runWebjob(['--execute', '--file', conf, 'host.sh']);
    if (ended.code === expected) return ended.stderr;
    if (attempt === 40)
      assert.fail(`${ended.code}, not ${expected}: ${ended.stderr}${httpd.complaints().slice(-3000)}`);
  }
}

function addProgram(site: string, name: string): void {
  const folder = at(site, 'integrity/profiles', name, 'commands');
  assert.ok(existsSync(folder));
  writeFileSync(join(folder, 'host.sh'), '#!/bin/sh\nhostname\n');
}

function lastLine(site: string): string {
  return readFileSync(at(site, 'integrity/logfiles/nph-webjob.log'), 'utf8').trimEnd().split('\n').at(-1) ?? '';
}

describe('webjobctl client add', () => {
  it('adds a client whose password is only in its webjob.conf', async () => {
    const args = [
      '--config',
      at('plain/etc/nph-webjob.cfg'),
      'client',
      'add',
      'client1',
      '--generate',
      '--url',
      url(0),
    ];
    const { code, stdout, stderr } = await runWebjobctl(args, { cwd: ground.root });
    assert.equal(code, 0, stderr);
    const conf = at('client1', 'webjob.conf');
    assert.equal(stdout, `${conf}\n`);
    assert.match(stderr, /warning: without TLS the password can be read on the network/);
    const password = /^URLPassword=(.+)$/m.exec(readFileSync(conf, 'utf8'))?.[1] ?? '';
    assert.ok(password.length >= 32);
    assert.ok(!`${stdout}${stderr}`.includes(password));
    const userFile = readFileSync(at('plain/etc/webjob.htpasswd'), 'utf8');
    assert.match(userFile, /^client1:\$2y\$\d\d\$[./A-Za-z0-9]{53}\n$/);
    assert.deepEqual([mode(conf), mode(at('client1')), mode(at('plain/etc/webjob.htpasswd'))], [0o600, 0o700, 0o640]);
    addProgram('plain', 'client1');
    await runJob(conf, 0);
    assert.match(lastLine('plain'), / client1 127\.0\.0\.1 PUT client1 host\.sh .* 200 -- Success$/);
  });

  it('refuses an existing name and changes nothing', async () => {
    const earlier = readFileSync(at('plain/etc/webjob.htpasswd'), 'utf8');
    await client('plain', 4, 'add', 'client1', '--generate', '--out', at('other'));
    assert.deepEqual(
      [existsSync(at('other')), readFileSync(at('plain/etc/webjob.htpasswd'), 'utf8')],
      [false, earlier],
    );
    await client('plain', 4, 'add', 'client2', '--generate', '--out', at('client1'));
    assert.equal(existsSync(at('plain/integrity/profiles/client2')), false);
  });

  it('reads the password from a file or stdin, and refuses one that is too long or does not fit webjob.conf', async () => {
    const add = (name: string, input: string) =>
      runWebjobctl(['-c', at('plain/etc/nph-webjob.cfg'), 'client', 'add', name, '--password-file', '-'], {
        cwd: ground.root,
        input,
      });
    for (const bad of ['', 'secret#b', ' secret', 'sec\tret', 'x'.repeat(73)]) {
      const { code, stderr } = await add('client3', `${bad}\n`);
      assert.equal(code, 2, JSON.stringify(bad));
      assert.ok(bad === '' || !stderr.includes(bad), 'a password is in the message');
    }
    assert.equal((await add('client3', 'a b:c"$(x)\nmore\n')).code, 0);
    const verify = (password: string): number | null =>
      spawnSync('htpasswd', ['-vi', at('plain/etc/webjob.htpasswd'), 'client3'], { input: password }).status;
    assert.deepEqual([verify('a b:c"$(x)'), verify('a b:c')], [0, 3]);
    assert.match(readFileSync(at('client3/webjob.conf'), 'utf8'), /^URLPassword=a b:c"\$\(x\)$/m);
  });

  it('names the wrong argument', async () => {
    const refused = async (code: number, why: RegExp, ...args: string[]): Promise<void> => {
      const ended = await runWebjobctl(['-c', at('plain/etc/nph-webjob.cfg'), 'client', ...args], { cwd: ground.root });
      assert.match(ended.stderr, why);
      assert.deepEqual([ended.code, ended.stdout], [code, '']);
    };
    await refused(2, /'\.\.\/x' is invalid for argument 'CLIENT'/, 'add', '../x', '--generate');
    await refused(2, /choose how the client authenticates/, 'add', 'x');
    await refused(2, /--url is not an http or https URL/, 'add', 'x', '--generate', '--url', 'ftp://h/');
    await refused(2, /--days <DAYS>' .* invalid/, 'add', 'x', '--cert', '--days', '0');
    await refused(4, /--password-file: \/nowhere cannot be read: ENOENT/, 'add', 'x', '--password-file', '/nowhere');
    await refused(2, /SSLPublicCertFile would contain/, 'add', 'x1', '--cert', '--install-dir', '/a#b', '--c-client');
    await refused(4, /nobody has no password/, 'passwd', 'nobody', '--generate');
    await refused(4, /nobody has no certificate/, 'renew', 'nobody');
    const none = await runWebjobctl(['-c', at('none.cfg'), 'client', 'list']);
    assert.equal(none.code, 3);
    const noTools = await runWebjobctl(
      ['-c', at('plain/etc/nph-webjob.cfg'), 'client', 'add', 'y', '--generate', '--user-file', '/nowhere/u'],
      { cwd: ground.root },
    );
    assert.match(noTools.stderr, /the user file \/nowhere\/u cannot be changed: ENOENT/);
    assert.equal(existsSync(at('y', 'webjob.conf')), false);
  });

  it('keeps all of eight clients that are added at once', async () => {
    const names = Array.from({ length: 8 }, (_, index) => `many${index}`);
    const add = (name: string): Promise<string> => client('plain', 0, 'add', name, '--generate');
    await Promise.all(names.map(add));
    const users = readFileSync(at('plain/etc/webjob.htpasswd'), 'utf8')
      .split('\n')
      .map((line) => line.split(':')[0]);
    assert.deepEqual(users.filter((name) => name?.startsWith('many')).sort(), names);
  });

  it('makes the client check manifests with the given keys', async () => {
    for (const name of ['first', 'second']) makeKey(at(name), 'ed25519');
    const keys = ['first', 'second'].map((name) => readFileSync(at(`${name}.vkey`), 'utf8')).join('');
    writeFileSync(at('trusted'), keys);
    const add = ['--generate', '--url', url(0), '--trusted-keys', at('trusted')];
    await client('plain', 4, 'add', 'nobody1', ...add, '--threshold', '3');
    await client('plain', 2, 'add', 'nobody1', ...add, '--c-client');
    await client('plain', 2, 'add', 'nobody1', '--generate', '--url', url(0), '--threshold', '2');
    assert.equal(existsSync(at('nobody1')), false);
    await client('plain', 0, 'add', 'manifest1', ...add, '--threshold', '2');
    addProgram('plain', 'manifest1');
    const conf = at('manifest1/webjob.conf');
    assert.match(
      readFileSync(conf, 'utf8'),
      /^DsvVerifyManifest=Y\nDsvTrustedKeysFile=webjob-trusted\.keys\nDsvThreshold=2\nDsvSerialFile=serials$/m,
    );
    assert.equal(readFileSync(at('manifest1/webjob-trusted.keys'), 'utf8'), keys);
    const program = at('plain/integrity/profiles/manifest1/commands/host.sh');
    const sign = async (command: string, name: string): Promise<void> => {
      const { code, stderr } = await runWebjobctl(['sign', command, '--key', at(`${name}.key`), program]);
      assert.equal(code, 0, stderr);
    };
    await sign('payload', 'first');
    const refused = await runWebjob(['--execute', '--file', conf, 'host.sh']);
    assert.match(refused.stderr, /signed with a weight of 1, but 2 is required/);
    assert.equal(refused.code, 3);
    await sign('add', 'second');
    await runJob(conf, 0);
    assert.match(readFileSync(at('manifest1/serials'), 'utf8'), /^manifest1 host\.sh \d+ /);
  });

  it('makes the client verify programs with the given key', async () => {
    makeKey(at('sign'), 'ed25519');
    const add = ['--generate', '--url', url(0), '--verify-key'];
    await client('plain', 0, 'add', 'signed1', ...add, at('sign.pub'));
    addProgram('plain', 'signed1');
    const conf = at('signed1/webjob.conf');
    assert.match(readFileSync(conf, 'utf8'), /^DsvVerifySignature=Y\nDsvPublicKeyFile=webjob-sign\.pub$/m);
    assert.equal(mode(at('signed1/webjob-sign.pub')), 0o644);
    const unsigned = await runWebjob(['--execute', '--file', conf, 'host.sh']);
    assert.match(unsigned.stderr, /error: the program is not signed/);
    assert.equal(unsigned.code, 3);
    signFile(at('plain/integrity/profiles/signed1/commands/host.sh'), readPrivateKey(at('sign.key')));
    await runJob(conf, 0);
    // Only the public half of the key goes to the client.
    await client('plain', 0, 'add', 'signed2', ...add, at('sign.key'));
    assert.deepEqual(readFileSync(at('signed2/webjob-sign.pub')), readFileSync(at('signed1/webjob-sign.pub')));
    await client('plain', 4, 'add', 'signed3', ...add, conf);
  });

  it('takes over the lock of a killed process, but not of a running one', async () => {
    const gone = spawn('/bin/true');
    await new Promise((resolve) => gone.on('close', resolve));
    const lock = at('plain/etc/webjob.htpasswd.lock');
    for (const [line, isDead] of [
      [`webjobctl ${gone.pid} ${hostname()}.elsewhere 1\n`, false],
      [`webjobctl ${gone.pid} ${hostname()} 1`, false],
      ['', false],
      [`webjobctl ${gone.pid} ${hostname()} 1\n`, true],
    ] as const) {
      writeFileSync(lock, line);
      assert.equal(isDeadLock(lock), isDead, line);
    }
    await client('plain', 0, 'add', 'late', '--generate');
    assert.equal(existsSync(at('plain/etc/webjob.htpasswd.lock')), false);
  });
});

describe('webjobctl client passwd', () => {
  it('replaces the password in the user file and in webjob.conf', async () => {
    const conf = at('client1', 'webjob.conf');
    writeFileSync(at('client1', 'old.conf'), readFileSync(conf), { mode: 0o600 });
    await client('plain', 0, 'passwd', 'client1', '--generate');
    await runJob(conf, 0);
    assert.match(await runJob(at('client1', 'old.conf'), 3), /401/);
    assert.equal(mode(conf), 0o600);
  });

  it('writes only the line without webjob.conf, readable by its owner', async () => {
    mkdirSync(at('elsewhere'));
    await client('plain', 0, 'passwd', 'late', '--generate', '--out', at('elsewhere'));
    assert.match(readFileSync(at('elsewhere/URLPassword'), 'latin1'), /^URLPassword=[\w-]{32}\n$/);
    assert.equal(mode(at('elsewhere/URLPassword')), 0o600);
  });
});

describe('webjobctl client, over TLS', () => {
  it('makes a webjob.conf that checks the server, with a password', async () => {
    await client('tls', 0, 'add', 'client1', '--generate', '--url', url(1), '--out', at('tls1'));
    addProgram('tls', 'client1');
    const conf = at('tls1/webjob.conf');
    assert.match(
      readFileSync(conf, 'utf8'),
      /^SSLVerifyPeerCert=Y\nSSLBundledCAsFile=.*\nSSLMaxChainLength=1\nSSLExpectedPeerCN=127\.0\.0\.1$/m,
    );
    await runJob(conf, 0);
    // The kit is moved and used from another working directory: its files and its spool are found
    // beside it.
    mkdirSync(at('moved'));
    renameSync(at('tls1'), at('moved', 'kit'));
    await runJob(at('moved/kit/webjob.conf'), 0);
    assert.ok(existsSync(at('moved/kit/spool')));
    const probe = await runWebjobctl(
      ['-c', at('tls/etc/nph-webjob.cfg'), 'configtest', '--probe', url(1), '--as', at('moved/kit/webjob.conf')],
      { cwd: ground.root },
    );
    assert.match(probe.stdout, /^note: link test: 251 /m, probe.stderr);
    renameSync(at('moved', 'kit'), at('tls1'));
    // The client does not know the other site's server.
    const wrong = readFileSync(conf, 'utf8').replaceAll(url(1), url(2));
    writeFileSync(at('tls1/wrong.conf'), wrong, { mode: 0o600 });
    assert.match(await runJob(at('tls1/wrong.conf'), 3), /certificate/);
  });

  it('accepts a client with a certificate and no password', async () => {
    const [made] = parseLines(
      await client('certs', 0, 'add', 'client1', '--cert', '--url', url(2), '--out', at('cert1'), '--json'),
    );
    addProgram('certs', 'client1');
    const conf = at('cert1/webjob.conf');
    const certificate = new X509Certificate(readFileSync(at('cert1/client1.crt')));
    const { resultKey, ...rest } = made ?? {};
    assert.match(String(resultKey), /^client1\+[0-9a-f]{8}\+/);
    assert.deepEqual(rest, {
      client: 'client1',
      conf,
      url: `${url(2)}/webjob/nph-webjob.cgi`,
      profile: at('certs/integrity/profiles/client1'),
      password: false,
      certificate: { serial: certificate.serialNumber, until: certificate.validToDate.toISOString() },
      schedule: null,
    });
    assert.doesNotMatch(readFileSync(conf, 'utf8'), /URLPassword/);
    assert.equal(mode(at('cert1/client1.key')), 0o600);
    await runJob(conf, 0);
    assert.match(lastLine('certs'), / client1 127\.0\.0\.1 PUT client1 host\.sh .* 200 -- Success$/);
  });

  it('signs a request for the given client, whatever name the request contains', async () => {
    mkdirSync(at('own'));
    const made = spawnSync(
      'openssl',
      'req -new -newkey rsa:2048 -nodes -subj /CN=client1 -keyout k -out r'.split(' '),
      { cwd: at('own') },
    );
    assert.equal(made.status, 0);
    await client('certs', 0, 'add', 'client4', '--csr', at('own/r'), '--url', url(2), '--out', at('cert4'));
    assert.equal(new X509Certificate(readFileSync(at('cert4/client4.crt'))).subject, 'CN=client4');
    assert.equal(existsSync(at('cert4/client4.key')), false);
  });

  it('renews for the same key, or a new one, and revokes', async () => {
    const conf = at('cert1/webjob.conf');
    const read = (): X509Certificate => new X509Certificate(readFileSync(at('cert1/client1.crt')));
    const first = read();
    await client('certs', 0, 'renew', 'client1', '--days', '20', '--out', at('cert1'));
    const second = read();
    assert.notEqual(second.serialNumber, first.serialNumber);
    assert.deepEqual(
      second.publicKey.export({ type: 'spki', format: 'pem' }),
      first.publicKey.export({ type: 'spki', format: 'pem' }),
    );
    await runJob(conf, 0);
    // An existing key is never overwritten.
    await client('certs', 4, 'renew', 'client1', '--new-key', '--out', at('cert1'));
    rmSync(at('cert1/client1.key'));
    await client('certs', 0, 'renew', 'client1', '--new-key', '--revoke', '--days', '20', '--out', at('cert1'));
    const third = read();
    assert.ok(!third.publicKey.equals(first.publicKey));
    await runJob(conf, 0);
    const states = parseLines<{ certificates: { state: string }[] }>(
      await client('certs', 0, 'show', 'client1', '--json'),
    )[0];
    assert.deepEqual(
      states?.certificates.map(({ state }) => state),
      ['revoked', 'revoked', 'valid'],
    );
    await client('certs', 0, 'result-key', 'client1', '--end', '--out', at('other'));
    const words = ['--days', '20', '--out', at('cert1'), '--json'];
    const [renewed] = parseLines<{ resultKeys: string[] }>(await client('certs', 0, 'renew', 'client1', ...words));
    assert.ok(read().publicKey.equals(third.publicKey), 'for the key that it has by now');
    assert.match(renewed?.resultKeys.join() ?? '', /^client1\+[0-9a-f]{8}$/, 'the one in use');
  });

  it('lists clients whose certificates expire, by their dates', async () => {
    const rows = parseLines<{ client: string }>(await client('certs', 1, 'list', '--expiring', '30d', '--json'));
    assert.deepEqual(
      rows.map((row) => row.client),
      ['client1'],
    );
    assert.equal(await client('certs', 0, 'list', '--expiring', '10d'), '');
    mkdirSync(at('certs/integrity/profiles/common'));
    const table = await client('certs', 0, 'list');
    assert.doesNotMatch(table, /common/);
    const until = new X509Certificate(readFileSync(at('cert1/client1.crt'))).validToDate.toISOString().slice(0, 10);
    assert.match(table, new RegExp(`^CLIENT .*\nclient1 +- +yes +${until}, (?:19|20) days\nclient4 `));
  });
});

describe('webjobctl client remove', () => {
  it('removes the password at once, and keeps the profile and the uploads', async () => {
    await client('plain', 0, 'remove', 'client1');
    assert.match(await runJob(at('client1/webjob.conf'), 3), /401/);
    assert.ok(existsSync(at('plain/integrity/profiles/client1/commands/host.sh')));
    await client('plain', 1, 'remove', 'client1');
  });

  it('revokes every certificate of a client with several', async () => {
    const days = async (): Promise<number | undefined> => {
      const rows = parseLines<{ client: string; certificate: { daysLeft: number } | null }>(
        await client('certs', 0, 'list', '--json'),
      );
      return rows.find((row) => row.client === 'client6')?.certificate?.daysLeft;
    };
    await client('certs', 0, 'add', 'client6', '--cert', '--days', '90', '--url', url(2), '--out', at('cert6'));
    await client('certs', 0, 'renew', 'client6', '--days', '30', '--out', at('cert6'));
    assert.ok([89, 90].includes((await days()) ?? 0));
    await client('certs', 0, 'renew', 'client6', '--days', '200', '--out', at('cert6'));
    assert.ok([199, 200].includes((await days()) ?? 0));
    await client('certs', 4, 'add', 'client6', '--cert', '--url', url(2), '--out', at('again'));
    await client('certs', 0, 'remove', 'client6');
    const [shown] = parseLines<{ certificates: { state: string }[] }>(
      await client('certs', 0, 'show', 'client6', '--json'),
    );
    assert.deepEqual(
      shown?.certificates.map(({ state }) => state),
      ['revoked', 'revoked', 'revoked'],
    );
  });

  it('refuses a revoked certificate once httpd has read the revocation list', async () => {
    await client('certs', 0, 'remove', 'client1');
    assert.equal(httpd.control('-k', 'graceful').code, 0);
    await runJob(at('cert1/webjob.conf'), 3);
    const crl = spawnSync('openssl', ['crl', '-in', at('certs/etc/webjob-ca.crl'), '-noout', '-text'], {
      encoding: 'utf8',
    });
    assert.equal(crl.stdout.match(/Serial Number: /g)?.length, 7);
  });
});

describe('webjobctl client add that failed after the certificate', () => {
  it('can be repeated, and its certificate is not accepted', async () => {
    const add = (code: number, out: string) =>
      client('certs', code, 'add', 'client7', '--cert', '--url', url(2), '--out', at(out));
    await add(4, 'httpd/httpd.conf/none');
    await add(0, 'cert7');
    const [shown] = parseLines<{ certificates: { state: string }[] }>(
      await client('certs', 0, 'show', 'client7', '--json'),
    );
    assert.deepEqual(
      shown?.certificates.map(({ state }) => state),
      ['revoked', 'valid'],
    );
  });
});
