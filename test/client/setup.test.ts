// The parts of webjobctl client: the files of a client kit, the user file, and the CA of the
// clients, with their required modes and the order in which they must be on disk.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import fs, {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  daysLeft,
  findLatest,
  type Issued,
  issueCertificate,
  keepRequest,
  listCertificates,
  revokeCertificates,
} from '../../admin/clients/certificates.ts';
import {
  type ConfFacts,
  checkHasNoKey,
  checkKitFolder,
  findPasswordChange,
  formatConf,
  removeKit,
  writeCertificate,
  writeKit,
} from '../../admin/clients/client-kit.ts';
import { readNote, removeNote, writeNote } from '../../admin/clients/client-lock.ts';
import { type Context, findServer, parseClientId, parseDays, readPassword } from '../../admin/clients/context.ts';
import { checkPassword, readUserFile, removeUser, setUser } from '../../admin/clients/userfile.ts';
import { makeServerCertificate, openAuthority } from '../../admin/site/authority.ts';
import { openLocks } from '../../cli/lockfile.ts';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { collect } from '../support/bare.ts';
import { runWebjobctl } from '../support/locker-site.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-setup-'));
after(() => rmSync(root, { recursive: true }));
let made = 0;
const folderOf = (): string => {
  const folder = join(root, String(made++));
  mkdirSync(folder, { mode: 0o755 });
  return folder;
};
const mode = (path: string): number => statSync(path).mode & 0o7777;
const failed = { kind: 'failed' };
const usage = { kind: 'usage' };

/** What a call syncs and renames, in order: `fsync ca.key`, `rename webjob-ca`. */
function trace(work: () => void): string[] {
  const steps: string[] = [];
  const { fsyncSync, renameSync, linkSync } = fs;
  const named = (to: unknown): void => void steps.push(`name ${basename(String(to))}`);
  const calls = {
    fsyncSync: (fd: number): void => {
      steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`))}`);
      fsyncSync(fd);
    },
    renameSync: (from: string, to: string): void => {
      named(to);
      renameSync(from, to);
    },
    linkSync: (from: string, to: string): void => {
      named(to);
      linkSync(from, to);
    },
  };
  Object.assign(fs, calls);
  syncBuiltinESMExports();
  try {
    work();
  } finally {
    Object.assign(fs, { fsyncSync, renameSync, linkSync });
    syncBuiltinESMExports();
  }
  return steps;
}

/** Runs with a umask that leaves modes as given, or removes everything it can. */
function under<Type>(umask: number, work: () => Type): Type {
  const before = process.umask(umask);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}

describe('the webjob.conf of a client kit', () => {
  const server = { url: 'http://h/webjob/nph-webjob.cgi', bundle: undefined, commonName: undefined };
  const secure = { url: 'https://h/x', bundle: 'PEM', commonName: 'h' };
  const facts: ConfFacts = {
    client: 'client1',
    installFolder: '/etc/w',
    isForC: true,
    server,
    password: 'p',
    hasCertificate: false,
    hasVerifyKey: false,
    threshold: undefined,
    hasResultKey: false,
  };
  const format = (more: Partial<ConfFacts> = {}): Record<string, string> => {
    const lines = formatConf({ ...facts, ...more })
      .toString('latin1')
      .split('\n');
    return Object.fromEntries(lines.filter((line) => /^\w+=/.test(line)).map((line) => line.split(/=(.*)/s)));
  };
  const COMMON = {
    ClientId: 'client1',
    URLGetURL: server.url,
    URLPutURL: server.url,
    RunType: 'snapshot',
    OverwriteExecutable: 'Y',
    UnlinkExecutable: 'Y',
    UnlinkOutput: 'Y',
    GetTimeLimit: '600',
    RunTimeLimit: '86400',
    PutTimeLimit: '3600',
    URLDownloadLimit: '268435456',
  };
  const PASSWORD = { URLAuthType: 'basic', URLUsername: 'client1', URLPassword: 'p' };

  it('has the password, and the TLS settings that the server has', () => {
    assert.deepEqual(format(), { ...COMMON, ...PASSWORD });
    const url = { URLGetURL: secure.url, URLPutURL: secure.url };
    assert.deepEqual(format({ server: secure }), {
      ...COMMON,
      ...PASSWORD,
      ...url,
      SSLVerifyPeerCert: 'Y',
      SSLMaxChainLength: '1',
      SSLExpectedPeerCN: 'h',
      SSLBundledCAsFile: '/etc/w/webjob-server.crt',
    });
    assert.deepEqual(format({ server: { ...secure, bundle: undefined } }), {
      ...COMMON,
      ...PASSWORD,
      ...url,
      SSLVerifyPeerCert: 'Y',
      SSLMaxChainLength: '3',
      SSLExpectedPeerCN: 'h',
    });
  });

  it('has a certificate with or without a password', () => {
    const certificate = {
      SSLUseCertificate: 'Y',
      SSLPublicCertFile: '/etc/w/client1.crt',
      SSLPrivateKeyFile: '/etc/w/client1.key',
    };
    assert.deepEqual(format({ hasCertificate: true }), { ...COMMON, ...PASSWORD, ...certificate });
    const alone = { ...COMMON, URLAuthType: 'none', ...certificate };
    assert.deepEqual(format({ hasCertificate: true, password: undefined }), alone);
  });

  it('names files beside itself, and has a spool except for a C client', () => {
    const kit = format({ server: secure, installFolder: undefined, isForC: false, hasCertificate: true });
    const paths = {
      SSLBundledCAsFile: 'webjob-server.crt',
      SSLPublicCertFile: 'client1.crt',
      SSLPrivateKeyFile: 'client1.key',
      SpoolDirectory: 'spool',
      SpoolLimit: '1073741824',
    };
    assert.deepEqual({ ...kit, ...paths }, kit);
    assert.equal(kit.SSLVerifyPeerCert, 'Y');
    const installed = format({ isForC: false });
    assert.deepEqual(installed, { ...COMMON, ...PASSWORD, SpoolDirectory: '/etc/w/spool', SpoolLimit: '1073741824' });
  });

  it('holds a password byte for byte, and refuses one that a line cannot hold', () => {
    assert.equal(format({ password: '\xe4=\xff' }).URLPassword, '\xe4=\xff');
    for (const installFolder of ['/a#b', '/a\nb', '/a\x7fb'])
      assert.throws(() => format({ installFolder, hasCertificate: true }), usage, JSON.stringify(installFolder));
  });

  it('changes only the password of its own client', () => {
    const folder = folderOf();
    const conf = join(folder, 'webjob.conf');
    assert.equal(findPasswordChange(folder, 'client1', 'new'), undefined);
    const text = '# URLPassword=no\nclientid=client1\nurlpassword = old\nOther=\xe4\n';
    writeFileSync(conf, text, 'latin1');
    assert.throws(() => findPasswordChange(folder, 'client2', 'new'), failed);
    const change = findPasswordChange(folder, 'client1', 'n\xe4w$&');
    assert.equal(readFileSync(conf, 'latin1'), text);
    const steps = trace(() => assert.equal(change?.(), conf));
    assert.equal(
      readFileSync(conf, 'latin1'),
      text.replace('urlpassword = old', () => 'URLPassword=n\xe4w$&'),
    );
    assert.equal(mode(conf), 0o600);
    assert.deepEqual(steps.slice(1), ['name webjob.conf', `fsync ${basename(folder)}`]);
    writeFileSync(conf, 'ClientId=client1\n');
    assert.throws(() => findPasswordChange(folder, 'client1', 'new'), failed);
  });
});

describe('the client kit', () => {
  const issued: Issued = { certificate: 'CERTIFICATE', key: 'KEY', request: 'REQUEST' };
  const parcel = (folder: string) => {
    return {
      client: 'client1',
      folder,
      conf: Buffer.from('CONF'),
      bundle: 'BUNDLE',
      verifyKey: undefined,
      trustedKeys: undefined,
      issued,
      resultKey: 'RESULT KEY',
    };
  };

  it('has secrets that nobody else may read, whatever the umask, and webjob.conf last', () => {
    for (const umask of [0, 0o077]) {
      const folder = join(folderOf(), 'new');
      const steps = under(umask, () => trace(() => void writeKit(parcel(folder))));
      const modes = Object.fromEntries(readdirSync(folder).map((name) => [name, mode(join(folder, name)).toString(8)]));
      assert.deepEqual(modes, {
        'client1.crt': '644',
        'client1.csr': '644',
        'client1.key': '600',
        'webjob-server.crt': '644',
        'client1.result.key': '600',
        'webjob.conf': '600',
      });
      assert.equal(mode(folder), 0o700);
      const names = steps.filter((step) => step.startsWith('name ')).map((step) => step.slice(5));
      const keys = ['client1.key', 'client1.result.key'];
      assert.deepEqual(names, ['webjob-server.crt', 'client1.csr', 'client1.crt', ...keys, 'webjob.conf']);
      for (const [index, step] of steps.entries())
        if (step.startsWith('name '))
          assert.match(`${steps[index - 1]} ${steps[index + 1]}`, /^fsync \.\S+ fsync new$/, steps.join('\n'));
    }
  });

  it('replaces nothing that belongs to another client', () => {
    for (const name of ['webjob.conf', 'client1.key', 'client1.csr', 'client1.crt', 'client1.result.key']) {
      const folder = folderOf();
      checkKitFolder(folder, 'client1');
      writeFileSync(join(folder, name), 'mine');
      assert.throws(() => checkKitFolder(folder, 'client1'), failed, name);
      if (name !== 'webjob.conf') checkKitFolder(folder, 'client2');
    }
    const folder = folderOf();
    writeFileSync(join(folder, 'webjob.conf'), 'mine');
    assert.throws(() => writeKit(parcel(folder)), failed);
    assert.equal(readFileSync(join(folder, 'webjob.conf'), 'utf8'), 'mine');
    assert.throws(() => writeCertificate(folder, 'client1', { ...issued, key: 'ANOTHER' }), failed);
    assert.equal(readFileSync(join(folder, 'client1.key'), 'utf8'), 'KEY');
    assert.throws(() => checkHasNoKey(folder, 'client1'), failed);
    checkHasNoKey(folder, 'client2');
  });

  it('loses what a killed run left, and nothing else', () => {
    const folder = folderOf();
    removeKit(join(folder, 'none'), 'client1');
    const unfinished = '.client1.key.0123456789ab';
    const names = [
      'webjob.conf',
      'client1.key',
      'client1.csr',
      'client1.crt',
      'webjob-server.crt',
      unfinished,
      'notes',
    ];
    for (const name of names) writeFileSync(join(folder, name), '');
    removeKit(folder, 'client1');
    assert.deepEqual(readdirSync(folder), ['notes', 'webjob-server.crt']);
  });
});

describe('the note of a client that is being added', () => {
  it('is on disk before anything else is done, and gone afterwards', () => {
    const context = { etcDirectory: folderOf() } as Context;
    assert.equal(readNote(context, 'client1'), undefined);
    removeNote(context, 'client1');
    const written = trace(() => writeNote(context, 'client1', '/some/where'));
    assert.deepEqual(written.slice(1), [
      'name .webjob-client.client1.adding',
      `fsync ${basename(context.etcDirectory)}`,
    ]);
    assert.deepEqual([readNote(context, 'client1'), readNote(context, 'client2')], ['/some/where', undefined]);
    assert.deepEqual(
      trace(() => removeNote(context, 'client1')),
      [`fsync ${basename(context.etcDirectory)}`],
    );
    assert.deepEqual(readdirSync(context.etcDirectory), []);
  });
});

describe('the arguments of a client', () => {
  it('are within their limits', () => {
    assert.deepEqual(['1', '9999'].map(parseDays), [1, 9999]);
    for (const days of ['0', '10000', '-1', '1.5', '1d', '']) assert.throws(() => parseDays(days), days);
    assert.equal(parseClientId('x'.repeat(64)), 'x'.repeat(64));
    for (const id of ['', 'x'.repeat(65), 'a b', '../a', 'a.b']) assert.throws(() => parseClientId(id), id);
  });

  it('are the first line of a file from any editor', () => {
    const file = join(folderOf(), 'password');
    for (const [bytes, password] of [
      ['secret\nmore\n', 'secret'],
      ['secret\r\n', 'secret'],
      ['\xef\xbb\xbfsecret', 'secret'],
      ['s\xc3\xa4\n', 's\xc3\xa4'],
      ['s\xef\xbb\xbf\n', 's\xef\xbb\xbf'],
      ['\nmore\n', ''],
    ] as const) {
      writeFileSync(file, bytes, 'latin1');
      assert.equal(readPassword(file), password, JSON.stringify(bytes));
    }
    assert.throws(() => readPassword(join(root, 'none')), failed);
  });
});

describe('the server name that a client gets', () => {
  const etcDirectory = folderOf();
  const context = (sslRequireSsl: boolean, folder = etcDirectory): Context =>
    ({ etcDirectory: folder, settings: { sslRequireSsl } }) as Context;
  const own = (): string => readFileSync(join(etcDirectory, 'webjob-server.crt'), 'utf8');
  before(() => makeServerCertificate(etcDirectory, 'webjob.example.com'));

  it('is that of the certificate, or the given one', () => {
    const path = '/webjob/nph-webjob.cgi';
    const found = (...args: Parameters<typeof findServer>) => {
      const { url, bundle, commonName } = findServer(...args);
      return [url, bundle, commonName];
    };
    const name = 'webjob.example.com';
    assert.deepEqual(found(context(true), undefined, undefined), [`https://${name}${path}`, own(), name]);
    assert.deepEqual(found(context(false), undefined, undefined), [`http://${name}${path}`, undefined, undefined]);
    assert.deepEqual(found(context(true), 'https://other:8443', undefined), [`https://other:8443${path}`, own(), name]);
    assert.deepEqual(found(context(true), 'https://h/a/b', undefined), ['https://h/a/b', own(), name]);
    const ca = join(etcDirectory, 'webjob-server.crt');
    assert.deepEqual(found(context(true, folderOf()), 'https://h/x', ca), ['https://h/x', own(), 'h']);
    assert.deepEqual(found(context(true, folderOf()), 'https://h/x', undefined), ['https://h/x', undefined, 'h']);
    assert.throws(() => findServer(context(true), 'https://h', join(root, 'none')), failed);
    for (const url of ['ftp://h', 'h', 'https://h/?a', 'https://h/#a', 'https://u@h/', 'https://h/ b'])
      assert.throws(() => findServer(context(true), url, undefined), usage, url);
  });

  it('protects its key, and shows others the certificate', () => {
    assert.deepEqual(
      ['key', 'crt'].map((kind) => mode(join(etcDirectory, `webjob-server.${kind}`))),
      [0o600, 0o644],
    );
    const certificate = new X509Certificate(own());
    assert.deepEqual(
      [certificate.subjectAltName, certificate.subject],
      ['DNS:webjob.example.com', 'CN=webjob.example.com'],
    );
    const earlier = own();
    makeServerCertificate(etcDirectory, 'other');
    assert.equal(own(), earlier);
    const key = readFileSync(join(etcDirectory, 'webjob-server.key'), 'utf8');
    rmSync(join(etcDirectory, 'webjob-server.crt'));
    makeServerCertificate(etcDirectory, '192.0.2.1');
    assert.equal(readFileSync(join(etcDirectory, 'webjob-server.key'), 'utf8'), key, 'a key that is there stays');
    assert.equal(new X509Certificate(own()).subjectAltName, 'IP Address:192.0.2.1');
    assert.deepEqual(readdirSync(etcDirectory).sort(), ['webjob-server.crt', 'webjob-server.key']);
  });
});

describe('the user file', () => {
  obtainHtpasswd();
  it('is read as httpd reads it', () => {
    const path = join(folderOf(), 'users');
    assert.deepEqual(readUserFile(path), []);
    writeFileSync(path, '# a comment: x\n\na:$2y$x\nb:$2a$x\nc:$2b$x\nd:$2x$x\ne:{SHA}x\nf:$apr1$x\ng:\nno colon\n');
    assert.deepEqual(
      readUserFile(path).map(({ name, scheme }) => `${name} ${scheme}`),
      ['a bcrypt', 'b bcrypt', 'c bcrypt', 'd other', 'e sha1', 'f md5', 'g other', 'no colon other'],
    );
    assert.throws(() => readUserFile(root), failed);
  });

  it('loses one user and no other, and keeps its owner and mode', () => {
    const path = join(folderOf(), 'users');
    writeFileSync(path, 'client1:x\nclient10:x\n# kept\nxclient1:x\n');
    chmodSync(path, 0o640);
    if (process.getuid?.() === 0) chownSync(path, 12_345, 23_456);
    const { uid, gid } = statSync(path);
    assert.deepEqual(
      [removeUser(path, 'client'), removeUser(path, 'client1'), removeUser(path, 'client1')],
      [false, true, false],
    );
    assert.equal(readFileSync(path, 'utf8'), 'client10:x\n# kept\nxclient1:x\n');
    assert.deepEqual([mode(path), statSync(path).uid, statSync(path).gid], [0o640, uid, gid]);
    assert.equal(removeUser(join(root, 'none'), 'client1'), false);
  });

  it('gets a user in place of the earlier one', () => {
    const path = join(folderOf(), 'users');
    assert.throws(() => setUser(path, 'client1', 'p'), failed);
    assert.ok(!existsSync(path));
    writeFileSync(path, 'client1:x\nother:x\n');
    setUser(path, 'client1', 'p');
    const [other, own = '', ...more] = readFileSync(path, 'utf8').split('\n');
    assert.deepEqual([other, own.slice(0, 12), more], ['other:x', 'client1:$2y$', ['']]);
  });

  it('refuses a password that does not fit webjob.conf or bcrypt', () => {
    for (const good of ['x', 'x'.repeat(72), 'a b', '\xff', '!~']) checkPassword(good);
    for (const bad of ['', 'x'.repeat(73), ' x', 'x ', '\tx', 'x\t', 'a#b', 'a\x00b', 'a\x1fb', 'a\x7fb', 'a\nb'])
      assert.throws(() => checkPassword(bad), usage, JSON.stringify(bad));
  });
});

it('a command for clients requires a site', async () => {
  for (const [words, said] of [
    [['-c', '/nowhere.cfg'], '/nowhere.cfg does not exist'],
    [[], 'there is no nph-webjob.cfg'],
  ] as const) {
    const { exitCode, stderr } = await runWebjobctl([...words, 'client', 'list']);
    assert.deepEqual([exitCode, stderr.split('\n')[0]], [3, `webjobctl: error: ${said}`]);
  }
});

describe('the CA of the clients', () => {
  const base = folderOf();
  const etc = join(base, 'etc');
  const ca = join(etc, 'webjob-ca');
  const conf = join(etc, 'nph-webjob.cfg');
  const run = async (code: number, ...args: string[]): Promise<string> => {
    const { exitCode, text, stderr } = await runWebjobctl(['-c', conf, ...args]);
    assert.equal(exitCode, code, `${text}${stderr}`);
    return text;
  };
  let steps: string[] = [];
  before(() => {
    mkdirSync(etc);
    mkdirSync(join(base, 'profiles', 'client4', 'commands'), { recursive: true });
    mkdirSync(join(base, 'profiles', 'common'));
    mkdirSync(join(base, 'profiles', 'no client'));
    writeFileSync(join(base, 'profiles', 'client4', 'below.sh'), '');
    writeFileSync(join(base, 'profiles', 'client4', 'commands', 'above.sh'), '');
    writeFileSync(conf, `BaseDirectory=${base}\n`);
    writeFileSync(join(etc, 'webjob.htpasswd'), 'client5:$2y$x\nclient2:{SHA}x\n');
    steps = under(0o022, () => trace(() => void openAuthority(etc)));
    issueCertificate(etc, 'client1', 10, 'new key');
    const issued = issueCertificate(etc, 'client1', 800, 'new key');
    keepRequest(etc, 'client1', issued);
    issueCertificate(etc, 'client1', 20, 'new key');
    issueCertificate(etc, 'client2', 5, 'new key');
    issueCertificate(etc, 'client3', 5, 'new key');
    // A certificate that has expired.
    const sign = 'ca -config ca.cnf -batch -notext -startdate 20200101000000Z -enddate 20200202000000Z -subj /CN=ended';
    const args = [...sign.split(' '), '-in', 'client1.csr', '-out', '/dev/null'];
    const signed = under(0o077, () => spawnSync('openssl', args, { cwd: ca, encoding: 'utf8' }));
    assert.equal(signed.status, 0, signed.stderr);
  });
  const own = (client: string) => listCertificates(etc).filter((one) => one.client === client);

  it('is on disk before it has its name, readable by nobody else', () => {
    const named = steps.indexOf('name webjob-ca');
    for (const name of ['ca.key', 'ca.crt', 'ca.cnf', 'index.txt', 'issued'])
      assert.ok(steps.slice(0, named).includes(`fsync ${name}`), `${name} is not on disk: ${steps}`);
    assert.ok(steps.slice(named).includes('fsync etc'));
    assert.deepEqual([mode(ca), mode(join(ca, 'ca.key')), mode(join(ca, 'issued'))], [0o700, 0o600, 0o700]);
    for (const name of readdirSync(join(ca, 'issued')))
      if (!name.startsWith('.')) assert.equal(mode(join(ca, 'issued', name)) & 0o077, 0, name);
    assert.deepEqual([mode(join(ca, 'index.txt')) & 0o077, mode(join(ca, 'client1.csr'))], [0, 0o600]);
    assert.deepEqual(
      ['crt', 'crl'].map((kind) => mode(join(etc, `webjob-ca.${kind}`))),
      [0o644, 0o644],
    );
    assert.deepEqual(
      readdirSync(etc).filter((name) => name.startsWith('.')),
      [],
    );
  });

  it('restores what httpd needs of it when that is lost', () => {
    const crt = readFileSync(join(etc, 'webjob-ca.crt'), 'utf8');
    for (const kind of ['crt', 'crl']) rmSync(join(etc, `webjob-ca.${kind}`));
    openAuthority(etc);
    assert.equal(readFileSync(join(etc, 'webjob-ca.crt'), 'utf8'), crt);
    assert.match(readFileSync(join(etc, 'webjob-ca.crl'), 'utf8'), /BEGIN X509 CRL/);
  });

  it('lists what it issued, the longest-lived certificate for each client', () => {
    const days = own('client1').map(({ until }) => daysLeft(until));
    assert.deepEqual(days, [9, 799, 19]);
    const latest = findLatest(listCertificates(etc), 'client1');
    assert.equal(latest && daysLeft(latest.until), 799);
    assert.deepEqual(
      own('ended').map(({ state, until }) => [state, until.toISOString().slice(0, 10)]),
      [['expired', '2020-02-02']],
    );
    assert.equal(findLatest(listCertificates(etc), 'client'), undefined);
    const now = Date.now();
    assert.deepEqual(
      [-0.5, 0.5, 1.5, -1.5].map((day) => daysLeft(new Date(now + day * 86_400_000))),
      [-1, 0, 1, -2],
    );
    const [{ key = '', certificate } = { certificate: '' }] = [issueCertificate(etc, 'client1', 1, 'same key')];
    assert.deepEqual([key, new X509Certificate(certificate).subject], ['', 'CN=client1']);
  });

  it('revokes certificates in its list and for httpd', () => {
    const [{ serial = '' } = {}] = own('client3');
    revokeCertificates(etc, [serial]);
    assert.deepEqual(
      own('client3').map(({ state }) => state),
      ['revoked'],
    );
    const { stdout } = spawnSync('openssl', ['crl', '-in', join(etc, 'webjob-ca.crl'), '-noout', '-text'], {
      encoding: 'utf8',
    });
    assert.deepEqual(
      [...stdout.matchAll(/Serial Number: (\w+)/g)].map(([, found]) => found),
      [serial],
    );
    assert.equal(findLatest(listCertificates(etc), 'client3'), undefined);
  });

  it('appears in client list and client show, with users and profiles', async () => {
    const rows = async (code: number, ...more: string[]): Promise<string[]> =>
      (await run(code, '--json', 'client', 'list', ...more))
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line))
        .map((row) => `${row.client} ${row.password} ${row.profile} ${row.certificate?.state ?? '-'}`);
    assert.deepEqual(await rows(0), [
      ...['client1 null false valid', 'client2 sha1 false valid', 'client4 null true -', 'client5 bcrypt false -'],
      'ended null false expired',
    ]);
    assert.deepEqual(await rows(1, '--expiring', '30d'), ['client2 sha1 false valid', 'ended null false expired']);
    assert.deepEqual(await rows(1, '--expiring', '1d'), ['ended null false expired']);
    assert.equal((await rows(1, '--expiring', '900d')).length, 3);
    assert.match(await run(0, 'client', 'list'), /^client1 +- +- +\d{4}-\d\d-\d\d, 799 days\nclient2 /m);
    const shown = await run(0, 'client', 'show', 'client4');
    assert.deepEqual(shown.split('\n').slice(1), [
      ...['password     -', `profile      ${join(base, 'profiles', 'client4')}`],
      ...['command      above.sh', 'command      below.sh', ''],
    ]);
    const one = JSON.parse(await run(0, '--json', 'client', 'show', 'client1'));
    assert.deepEqual([one.certificates.length, one.certificate.daysLeft, one.commands], [4, 799, []]);
    assert.equal(await run(1, 'client', 'show', 'client3'), '');
    // Its name is the beginning of the others'.
    mkdirSync(join(base, 'profiles', 'client'));
    const none = JSON.parse(await run(0, '--json', 'client', 'show', 'client'));
    assert.deepEqual([none.certificates, none.certificate], [[], null]);
    rmSync(join(base, 'profiles', 'client'), { recursive: true });
    rmSync(join(etc, 'webjob.htpasswd'));
    assert.equal(await run(1, 'client', 'remove', 'client4'), '');
  });

  it('serves one command at a time for each client, and remove takes back what add issued', async () => {
    writeFileSync(join(etc, 'webjob.htpasswd'), 'client7:{SHA}x\n');
    issueCertificate(etc, 'client7', 5, 'new key');
    issueCertificate(etc, 'client7', 6, 'new key');
    const out = ['--out', join(base, 'client7')];
    mkdirSync(join(base, 'client7'));
    for (const words of [
      ['passwd', 'client7', '--generate', ...out],
      ['result-key', 'client7', ...out],
      ['renew', 'client7', '--new-key', ...out],
      ['remove', 'client7'],
      ['add', 'client7', '--generate', '--url', 'http://localhost', '--out', join(base, 'again')],
    ]) {
      const [verb = ''] = words;
      const lock = '.webjob-client.client7.lock';
      const other = openLocks(join(etc, `${lock}.other`));
      assert.ok(other.take(join(etc, lock)));
      const child = spawn(process.execPath, [WEBJOBCTL, '-c', conf, 'client', ...words], { stdio: 'pipe' });
      const ended = collect(child, 60);
      while (child.exitCode === null && !existsSync(join(etc, `${lock}.${child.pid}.new`))) await sleep(10);
      assert.equal(child.exitCode, null, `${verb} did not wait`);
      if (verb === 'remove') issueCertificate(etc, 'client7', 7, 'new key');
      other.release();
      const { exitCode, stderr } = await ended;
      assert.equal(exitCode, 0, `${verb}: ${stderr}`);
    }
    assert.deepEqual(
      own('client7').map(({ state }) => state),
      ['revoked', 'revoked', 'revoked', 'revoked'],
    );
  });

  it('renews with the key that a client has, by the request that it kept', async () => {
    const out = join(base, 'renewed');
    const before = readFileSync(join(ca, 'client1.csr'), 'utf8');
    await run(0, 'client', 'renew', 'client1', '--days', '30', '--out', out, '--new-key');
    assert.equal(readFileSync(join(ca, 'client1.csr'), 'utf8'), readFileSync(join(out, 'client1.csr'), 'utf8'));
    assert.notEqual(readFileSync(join(ca, 'client1.csr'), 'utf8'), before);
    assert.deepEqual([mode(join(ca, 'client1.csr')), mode(join(out, 'client1.key')), mode(out)], [0o600, 0o600, 0o700]);
    await run(2, 'client', 'renew', 'client1', '--new-key', '--csr', join(out, 'client1.csr'));
    await run(4, 'client', 'renew', 'client1', '--new-key', '--out', out);
    await run(4, 'client', 'renew', 'client3', '--out', out);
    // A client may come back long after its certificate expired.
    await run(0, 'client', 'renew', 'ended', '--days', '3', '--out', join(base, 'ended'), '--new-key', '--revoke');
    assert.deepEqual(
      own('ended').map(({ state }) => state),
      ['revoked', 'valid'],
    );
    await run(0, 'client', 'renew', 'client1', '--days', '2', '--out', out, '--revoke');
    assert.deepEqual(
      own('client1').map(({ state }) => state),
      [...Array.from({ length: 5 }, () => 'revoked'), 'valid'],
    );
    const pair = ['crt', 'key'].map((kind) => {
      const args = kind === 'crt' ? ['x509', '-pubkey', '-noout'] : ['pkey', '-pubout'];
      return spawnSync('openssl', [...args, '-in', join(out, `client1.${kind}`)], { encoding: 'utf8' }).stdout;
    });
    assert.equal(pair[0], pair[1], 'the certificate is for another key');
  });
});
