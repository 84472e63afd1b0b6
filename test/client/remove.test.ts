// webjobctl client remove and renew --revoke, with and without --apply: what a removed client can
// still do is reported, and what is reported as proven is true of the running httpd.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { type Ended, type Ground, makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

const MODULES =
  'mpm_event cgid alias env auth_basic authn_core authn_file authn_socache authz_core authz_user reqtimeout ssl socache_shmcb';

obtainHtpasswd();
const ground: Ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
const conf = at('httpd', 'httpd.conf');
const [settings, userFile] = [at('site/etc/nph-webjob.cfg'), at('site/etc/webjob.htpasswd')];
let httpd: Apache;
let port = 0;

before(async () => {
  mkdirSync(at('httpd'));
  httpd = await startApache({
    serverRoot: at('httpd'),
    configurationFile: conf,
    errorLog: at('httpd', 'error.log'),
    portCount: 2,
    configure: (ports) => {
      const cache = `SSLSessionCache "shmcb:${at('httpd')}/sessions(512000)"\nAuthnCacheEnable\n`;
      write(conf, `ServerRoot "${at('httpd')}"\n${formatBasics(at('httpd'), ports, MODULES)}${cache}`);
    },
  });
  port = httpd.ports[1] ?? 0;
  const name = ['--tls', '--server-name', '127.0.0.1', '--tls-port', String(port), '--certificates', '--passwords'];
  const apply = ['--apply', '--httpd', obtainHttpd().binary, '--httpd-conf', conf];
  await ground.run(0, 'init', '--prefix', at('site'), '--node', ground.node, ...name, ...apply);
  await until(async () => (await ask({})).status === 401);
});
after(async () => {
  await httpd?.stop();
  ground.remove();
});

interface Call {
  client?: string;
  password?: string;
  session?: Buffer;
}

/** The status, 0 for a failed handshake, and the data that resumes the session. */
function ask({ client, password, session }: Call): Promise<{ status: number; session: Buffer | undefined }> {
  const pem = (kind: string): Buffer => readFileSync(at(client ?? '', `${client}.${kind}`));
  const query = `VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=${client ?? 'client1'}&FILENAME=none`;
  return new Promise((resolve) => {
    let ticket: Buffer | undefined;
    const asked = request(
      {
        host: '127.0.0.1',
        port,
        path: `/webjob/nph-webjob.cgi?${query}`,
        agent: false,
        rejectUnauthorized: false,
        headers: { 'Content-Length': 0, ...(password && { Authorization: `Basic ${btoa(`${client}:${password}`)}` }) },
        ...(client !== undefined && password === undefined && { cert: pem('crt'), key: pem('key') }),
        ...(session && { session }),
      },
      (response) => {
        response.resume();
        response.on('end', () => resolve({ status: response.statusCode ?? 0, session: ticket }));
      },
    );
    asked.on('socket', (socket) => (socket as TLSSocket).on('session', (bytes: Buffer) => (ticket = bytes)));
    asked.on('error', () => resolve({ status: 0, session: undefined }));
    asked.end();
  });
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 60_000; !(await isSo()); await sleep(50)) assert.ok(Date.now() < deadline);
}

const apply = (): string[] => ['--apply', '--url', `https://127.0.0.1:${port}`, ...reload()];
const reload = (): string[] => ['--httpd', obtainHttpd().binary, '--httpd-conf', conf];
const client = (...args: string[]): Promise<Ended> =>
  runWebjobctl(['-c', settings, 'client', ...args], { cwd: ground.root });

async function add(name: string, ...how: string[]): Promise<void> {
  const { code, stderr } = await client('add', name, '--url', `https://127.0.0.1:${port}`, ...how);
  assert.equal(code, 0, stderr);
}

/** None of the test credentials are left. */
async function assertNothingLeft(): Promise<void> {
  assert.doesNotMatch(readFileSync(userFile, 'utf8'), /probe/);
  const { stdout } = await client('list', '--json');
  assert.ok(!parseLines<{ client: string }>(stdout).some(({ client: name }) => /probe/.test(name)), stdout);
}

describe('webjobctl client remove', () => {
  it('reports what still works, truthfully', async () => {
    await add('client1', '--cert');
    assert.equal((await ask({ client: 'client1' })).status, 404);
    const { code, stderr } = await client('remove', 'client1', ...reload());
    assert.equal(code, 0, stderr);
    const command = `${obtainHttpd().binary} -f ${conf} -k graceful`;
    assert.ok(stderr.includes(`its certificates are accepted until httpd is reloaded`), stderr);
    assert.ok(stderr.trimEnd().endsWith(`: ${command}`), stderr);
    assert.equal((await ask({ client: 'client1' })).status, 404, 'until then it gets in');
    assert.equal(httpd.control('-k', 'graceful').code, 0);
    await until(async () => (await ask({ client: 'client1' })).status === 0);
  });

  it('locks the client out with --apply: by certificate, by password and in a resumed session', async () => {
    await add('client2', '--cert');
    await add('client3', '--password-file', passwordFile('secret'));
    await add('client4', '--cert');
    const { session } = await ask({ client: 'client2' });
    assert.ok(session);
    assert.equal((await ask({ client: 'client3', password: 'secret' })).status, 404);
    for (const name of ['client2', 'client3']) {
      const { code, stderr } = await client('remove', name, ...apply());
      assert.deepEqual([code, /reloaded and refuses removed clients/.test(stderr)], [0, true], stderr);
    }
    assert.equal((await ask({ client: 'client2' })).status, 0);
    assert.equal((await ask({ client: 'client2', session })).status, 0);
    assert.equal((await ask({ client: 'client3', password: 'secret' })).status, 401);
    assert.equal((await ask({ client: 'client4' })).status, 404, 'others still get in');
    await assertNothingLeft();
  });

  it('fails with --apply where httpd reads no revocation list', async () => {
    const site = at('site/etc/webjob-site.conf');
    const text = readFileSync(site, 'utf8');
    writeFileSync(site, text.replace(/^Define WEBJOB_CRL_FILE .*\n/m, ''));
    try {
      const { code, stderr } = await client('remove', 'client4', ...apply());
      assert.equal(code, 4);
      assert.match(stderr, /still accepts revoked certificates\n.*WEBJOB_CRL_FILE/);
      assert.equal((await ask({ client: 'client4' })).status, 404);
    } finally {
      writeFileSync(site, text);
    }
    assert.equal(httpd.control('-k', 'graceful').code, 0);
    await until(async () => (await ask({ client: 'client4' })).status === 0);
    await assertNothingLeft();
  });

  it('fails with --apply where httpd reads another user file, or caches passwords', async () => {
    const access = at('site/webjob/.htaccess');
    const text = readFileSync(access, 'utf8');
    try {
      await add('client5', '--password-file', passwordFile('secret'));
      write(at('others'), '');
      writeFileSync(access, text.replace(/^AuthUserFile .*$/m, `AuthUserFile "${at('others')}"`));
      const other = await client('remove', 'client5', ...apply());
      assert.deepEqual(
        [other.code, /does not accept users of .*webjob\.htpasswd/.test(other.stderr)],
        [4, true],
        other.stderr,
      );
      await add('client5', '--password-file', passwordFile('secret'), '--out', at('again'));
      const kept = 'AuthBasicProvider socache file\nAuthnCacheProvideFor file\nAuthnCacheTimeout 600\n';
      writeFileSync(access, text.replace('<RequireAll>', `${kept}<RequireAll>`));
      assert.equal((await ask({ client: 'client5', password: 'secret' })).status, 404);
      // httpd caches passwords until the next reload.
      const cached = await client('remove', 'client5', ...apply());
      assert.equal(cached.code, 0, cached.stderr);
      assert.equal((await ask({ client: 'client5', password: 'secret' })).status, 401);
      await add('client5', '--password-file', passwordFile('secret'), '--out', at('third'));
      assert.equal((await ask({ client: 'client5', password: 'secret' })).status, 404);
      const noReload = ['--apply', '--url', `https://127.0.0.1:${port}`, '--httpd', '/bin/true'];
      const still = await client('remove', 'client5', ...noReload);
      assert.deepEqual(
        [still.code, /are still accepted: httpd caches passwords/.test(still.stderr)],
        [4, true],
        still.stderr,
      );
      assert.equal((await ask({ client: 'client5', password: 'secret' })).status, 404);
    } finally {
      writeFileSync(access, text);
    }
    await assertNothingLeft();
  });

  it('reports that it proved nothing when no server answers', async () => {
    await add('client6', '--cert');
    await add('client61', '--password-file', passwordFile('secret'));
    for (const name of ['client6', 'client61']) {
      const { code, stderr } = await client('remove', name, '--apply', '--url', 'https://127.0.0.1:1', ...reload());
      assert.deepEqual([code, /cannot be reached/.test(stderr)], [4, true], stderr);
      // It is removed all the same.
      assert.equal((await client('remove', name)).code, 1);
    }
    assert.equal((await ask({ client: 'client61', password: 'secret' })).status, 401);
    await assertNothingLeft();
  });
});

describe('webjobctl client renew --revoke --apply', () => {
  it('ends the earlier certificate at once', async () => {
    await add('client7', '--cert');
    const [crt, key] = ['crt', 'key'].map((kind) => readFileSync(at('client7', `client7.${kind}`)));
    const { code, stderr } = await client('renew', 'client7', '--revoke', ...apply());
    assert.deepEqual([code, /refuses revoked certificates/.test(stderr)], [0, true], stderr);
    assert.equal((await ask({ client: 'client7' })).status, 404, 'the new one');
    mkdirSync(at('client8'));
    writeFileSync(at('client8/client8.crt'), crt ?? '');
    writeFileSync(at('client8/client8.key'), key ?? '');
    assert.equal((await ask({ client: 'client8' })).status, 0, 'the earlier one');
    assert.equal((await client('renew', 'client7', '--apply')).code, 2);
  });
});

function passwordFile(password: string): string {
  write(at('password'), `${password}\n`);
  return at('password');
}
