// Bytes that are not UTF-8, and byte order marks: in passwords, file names, arguments and the
// environment of a program.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { parseKeyValue } from 'webjob-conf';
import { parseRecord } from 'webjob-protocol';
import { readSettings } from '../../client/settings.ts';
import { prepareSecurity } from '../../client/tls.ts';
import { makeClient, WEBJOB } from '../support/client-job.ts';
import { type FakeServer, serve, splitRequest, startFake } from '../support/client-server.ts';
import { type Ground, hasProgram, makeGround, runWebjobctl } from '../support/operator.ts';

const client = makeClient();
let fake: FakeServer;
before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
afterEach(() => {
  fake.get = serve('#!/bin/sh\n');
});

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

/** Writes webjob.conf from a string with one character for each byte. */
function configure(lines: string): void {
  const conf = `ClientId=client1\nURLGetURL=${fake.url}\nURLPutURL=${fake.url}\nTempDirectory=${client.temp}\n${lines}`;
  writeFileSync(client.conf, latin1(conf), { mode: 0o600 });
}

/**
 * The bytes of the Basic authentication header of each request made meanwhile, one character for
 * each byte.
 */
async function credentialsOf(action: () => Promise<unknown>, header = 'Authorization'): Promise<string[]> {
  const earlier = fake.requests().length;
  await action();
  return fake
    .requests()
    .slice(earlier)
    .map(splitRequest)
    .map(({ head }) => new RegExp(`^${header}: Basic (\\S+)$`, 'im').exec(head)?.[1] ?? '')
    .map((text) => Buffer.from(text, 'base64').toString('latin1'));
}

const UTF8 = (text: string): string => Buffer.from(text).toString('latin1');

describe('user name and password', () => {
  const passwords: [what: string, bytes: string][] = [
    ['in ASCII', 'p;w"o=d'],
    ['in UTF-8', UTF8('pässwörd€😀')],
    ['in UTF-8 that ends in A0', UTF8('voilà')],
    ['in UTF-8 that ends in a blank of Unicode', UTF8('x\u3000')],
    ['in Latin-1', 'p\xe4ssw\xf6rd'],
    ['in Latin-1 that ends in A0', 'p\xe4\xa0'],
    [
      'of all bytes that a line can hold',
      Array.from({ length: 222 }, (_, i) => String.fromCharCode(i + 34))
        .join('')
        .replaceAll('#', '')
        .replace('\x7f', ''),
    ],
    ['of UTF-8 that is cut off', 'abc\xe2\x82'],
    ['with what looks like a byte order mark', 'a\xef\xbb\xbfb'],
    ['with the separators of Unicode', UTF8('a\u2028b\u0085c')],
  ];
  for (const [what, bytes] of passwords)
    it(`reach the server unchanged: ${what}`, async () => {
      configure(`URLAuthType=basic\nURLUsername=u\xfcser\nURLPassword=${bytes}\n`);
      const sent = await credentialsOf(() => client.execute(['host.sh']));
      assert.deepEqual(sent, [`u\xfcser:${bytes}`, `u\xfcser:${bytes}`]);
      configure(
        `URLProxyHost=127.0.0.1\nURLProxyPort=${new URL(fake.url).port}\nURLProxyAuthType=basic\nURLProxyUsername=u\nURLProxyPassword=${bytes}\n`,
      );
      const toProxy = await credentialsOf(() => client.execute(['host.sh']), 'Proxy-Authorization');
      assert.deepEqual(toProxy, [`u:${bytes}`, `u:${bytes}`]);
    });

  it('may be in the URL as plain bytes or as %hh', async () => {
    const { host, pathname } = new URL(fake.url);
    for (const [written, bytes] of [
      ['client1:p%E4ss', 'client1:p\xe4ss'],
      ['client1:p\xe4ss', 'client1:p\xe4ss'],
      [`client1:${UTF8('päss€')}`, `client1:${UTF8('päss€')}`],
      ['client1:p%C3%A4ss%00', `client1:${UTF8('päss')}\0`],
    ] as const) {
      writeFileSync(
        client.conf,
        latin1(`ClientId=c\nURLGetURL=http://${written}@${host}${pathname}\nTempDirectory=${client.temp}\n`),
        { mode: 0o600 },
      );
      assert.deepEqual(await credentialsOf(() => client.execute(['host.sh'])), [bytes]);
    }
  });
});

describe('a webjob.conf', () => {
  it('may begin with a byte order mark', async () => {
    configure('');
    for (const first of ['', '# a comment\n', '\n']) {
      writeFileSync(
        client.conf,
        Buffer.concat([latin1('\xef\xbb\xbf'), Buffer.from(first), readFileSync(client.conf)]),
      );
      assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
      configure('');
    }
  });

  it('is an error that names the encoding when it is UTF-16', async () => {
    for (const mark of ['\xff\xfe', '\xfe\xff']) {
      writeFileSync(client.conf, latin1(`${mark}C\0l\0i\0`));
      const { code, stderr } = await client.execute(['host.sh']);
      assert.equal(stderr, `webjob: error: ${client.conf} is UTF-16\nwebjob: hint: save it as UTF-8\n`);
      assert.equal(code, 2);
    }
  });

  it('names files in UTF-8, or is an error before anything runs', async () => {
    const folder = join(client.root, 'für');
    mkdirSync(folder);
    configure('');
    writeFileSync(client.conf, readFileSync(client.conf, 'utf8').replace(client.temp, folder));
    fake.get = serve('#!/bin/sh\necho "$0"\n');
    const earlier = fake.requests().length;
    assert.equal((await client.execute(['host.sh'])).stderr, '');
    const { body } = splitRequest(fake.requests()[earlier + 1] ?? Buffer.of());
    assert.ok(body.toString().startsWith(`${folder}/host.sh\n`));
    for (const line of ['LockFile=/tmp/f\xfcr', 'SpoolDirectory=/tmp/\xff', 'GetHookCommandLine=cp \xe4 %cmd']) {
      const [key] = line.split('=');
      configure(`${line}\n`);
      const asked = fake.requests().length;
      const { code, stderr } = await client.execute(['host.sh']);
      assert.deepEqual([code, stderr], [2, `webjob: error: ${client.conf} line 5: ${key} must be UTF-8\n`]);
      assert.equal(fake.requests().length, asked);
    }
  });
});

describe('a pass phrase', { skip: !hasProgram('openssl') && 'there is no openssl' }, () => {
  it('opens the key byte for byte, from webjob.conf and from a file', async () => {
    const at = (name: string): string => join(client.root, name);
    for (const phrase of ['ascii', UTF8('päss'), 'p\xe4ss', 'p\xff\xa0']) {
      const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      assert.ok(publicKey);
      writeFileSync(at('plain.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
      const request = ['req', '-x509', '-key', at('plain.key'), '-subj', '/CN=client1', '-out', at('crt')];
      assert.equal(spawnSync('openssl', request).status, 0);
      const cipher = { cipher: 'aes-256-cbc', passphrase: latin1(phrase) };
      const locked = privateKey.export({ type: 'pkcs8', format: 'pem', ...cipher } as never);
      writeFileSync(at('key'), locked, { mode: 0o600 });
      writeFileSync(at('phrase'), latin1(`${phrase}\n`), { mode: 0o600 });
      const use = `SSLUseCertificate=Y\nSSLPublicCertFile=${at('crt')}\nSSLPrivateKeyFile=${at('key')}\n`;
      for (const line of [`SSLPassPhrase=${phrase}`, `SSLPassPhraseFile=${at('phrase')}`]) {
        configure(`${use}${line}\n`);
        await assert.doesNotReject(prepareSecurity(readSettings(client.conf)), line);
      }
      configure(`${use}SSLPassPhrase=${phrase}x\n`);
      await assert.rejects(prepareSecurity(readSettings(client.conf)), /cannot be used/);
    }
  });
});

describe('a program', { skip: process.platform !== 'linux' && 'where the kernel tells' }, () => {
  it('gets its arguments and its environment byte for byte', async () => {
    configure('');
    const odd = [
      'plain',
      '\xe4',
      'a\xff b',
      UTF8('päss\ufffd'),
      '',
      '\xe4\n\n',
      "'\xfe$(x)`y`\\",
      '%s\xe4',
      ...Array(4).fill('\xe9'),
      'last',
    ];
    fake.get = serve(
      '#!/bin/sh\nfor a; do printf "%s|" "$a" | od -An -v -tx1 | tr -d " \\n"; done; echo\nprintf %s "$ODD|$WEBJOB_JID" | od -An -v -tx1 | tr -d " \\n"; echo; exit 3\n',
    );
    const octal = (text: string): string =>
      Array.from(text, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`).join('');
    const words = odd.map((arg) => `"$(printf '${octal(arg)}x')"`);
    // Each ends in x, because a shell drops newlines at the end of what it inserts.
    const script = `export ODD="$(printf '\\344\\n\\377x')"; exec "$0" "$@" ${words.join(' ')}`;
    const earlier = fake.requests().length;
    const child = spawn('sh', ['-c', script, process.execPath, WEBJOB, '-e', '-f', client.conf, 'job.sh'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const [code] = await once(child, 'close');
    assert.equal(code, 0);
    const body = splitRequest(fake.requests()[earlier + 1] ?? Buffer.of()).body;
    const [args = '', variables = ''] = body.toString('latin1').split('\n');
    assert.equal(Buffer.from(args, 'hex').toString('latin1'), odd.map((arg) => `${arg}x|`).join(''));
    assert.equal(Buffer.from(variables, 'hex').toString('latin1'), '\xe4\n\xffx|server_1_1085355126_00723');
    const { fields } = parseRecord(body.toString('latin1').slice(body.indexOf('Version=')));
    assert.equal(fields.KidStatus, '3');
    assert.ok(
      fields.CommandLine.startsWith(`job.sh plainx %e4x a%ff bx ${UTF8('päss\ufffdx')} x %e4%0a%0ax `),
      fields.CommandLine,
    );
  });
});

describe('webjobctl client add and passwd', { skip: !hasProgram('htpasswd') && 'there is no htpasswd' }, () => {
  let ground: Ground;
  before(async () => {
    ground = makeGround();
    await ground.run(0, 'init', '--prefix', 'site', '--node', ground.node);
  });
  after(() => ground.remove());

  it('set the password from a file, byte for byte, in webjob.conf and for httpd', async () => {
    const cases: [name: string, file: string, bytes: string][] = [
      ['latin', 'p\xe4ssw\xf6rd\n', 'p\xe4ssw\xf6rd'],
      ['utf', `${UTF8('voilà')}\r\n`, UTF8('voilà')],
      ['mark', '\xef\xbb\xbfpassword\r\n', 'password'],
      ['long', '\xe4'.repeat(72), '\xe4'.repeat(72)],
    ];
    for (const [name, file, bytes] of cases) {
      for (const command of ['add', 'passwd']) {
        const path = join(ground.root, 'password');
        writeFileSync(path, latin1(file), { mode: 0o600 });
        const run = await runWebjobctl(
          ['--config', 'site/etc/nph-webjob.cfg', 'client', command, name, '--password-file', path],
          { cwd: ground.root },
        );
        assert.equal(run.code, 0, run.stderr);
        const conf = readFileSync(join(ground.root, name, 'webjob.conf'), 'latin1');
        assert.ok(conf.includes(`\nURLPassword=${bytes}\n`), command);
        const verified = spawnSync('htpasswd', ['-vi', join(ground.root, 'site/etc/webjob.htpasswd'), name], {
          input: latin1(`${bytes}\n`),
          encoding: 'utf8',
        });
        assert.equal(verified.status, 0, verified.stderr);
      }
    }
    const long = await runWebjobctl(
      ['--config', 'site/etc/nph-webjob.cfg', 'client', 'add', 'longer', '--password-file', '-'],
      { cwd: ground.root, input: 'é'.repeat(37) },
    );
    assert.deepEqual([long.code, long.stderr], [2, 'webjobctl: error: password must be 1 to 72 bytes (got 74)\n']);
  });

  it('write only the settings that a C client knows, and limits for all', async () => {
    const kit = join(ground.root, 'utf', 'webjob.conf');
    const add = ['--config', 'site/etc/nph-webjob.cfg', 'client', 'add', 'old', '--generate', '--c-client'];
    const run = await runWebjobctl(add, { cwd: ground.root });
    assert.equal(run.code, 0, run.stderr);
    const conf = readFileSync(join(ground.root, 'old', 'webjob.conf'), 'latin1');
    const keys = parseKeyValue(conf).entries.map(({ key }) => key);
    for (const key of ['GetTimeLimit', 'RunTimeLimit', 'PutTimeLimit', 'URLDownloadLimit'])
      assert.ok(keys.includes(key), key);
    // docs/protocol.md, section 7, marks these settings as the project's own.
    const own = new Set([
      'RetryLimit',
      'RetryDelay',
      'SpoolDirectory',
      'SpoolLimit',
      'Splay',
      'LockFile',
      'SSLVerifyHost',
    ]);
    assert.deepEqual(
      keys.filter((key) => own.has(key)),
      [],
    );
    const settings = readSettings(kit);
    assert.equal(settings.spoolDirectory, join(ground.root, 'utf', 'spool'));
    assert.deepEqual(
      [settings.getTimeLimit, settings.runTimeLimit, settings.putTimeLimit, settings.urlDownloadLimit],
      [600, 86_400, 3600, 268_435_456],
    );
    // Without the number signs they are settings of this client.
    const all = join(ground.root, 'all.conf');
    writeFileSync(all, readFileSync(kit, 'latin1').replace(/^#(?=[A-Z]\w+=)/gm, ''), { mode: 0o600 });
    assert.equal(readSettings(all).retryLimit, 5);
  });

  it('write a password that is not UTF-8, for which configtest --as finds the client', async () => {
    let authorization = '';
    const server = createServer((request, response) => {
      authorization = request.headers.authorization ?? authorization;
      request.resume();
      // As the script would: httpd's own 404 means that there is no script.
      response.writeHead(404, { 'Content-Type': 'application/octet-stream' }).end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/webjob/nph-webjob.cgi`;
    await runWebjobctl(
      ['--config', 'site/etc/nph-webjob.cfg', 'configtest', '--probe', url, '--as', 'latin/webjob.conf'],
      { cwd: ground.root },
    );
    server.close();
    assert.equal(Buffer.from(authorization.replace('Basic ', ''), 'base64').toString('latin1'), 'latin:p\xe4ssw\xf6rd');
  });
});
