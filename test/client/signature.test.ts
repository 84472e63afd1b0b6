// Signed programs from webjob-sign to the run: the server passes the signature on, and the client
// runs nothing without a valid one.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';

const LAUNCHER = join(import.meta.dirname, '..', '..', 'bin', 'webjob-sign');
const TYPES = ['ed25519', 'p256'] as const;
const keys = mkdtempSync(join(tmpdir(), 'webjob-keys-'));
const key = (name: string): string => join(keys, name);
let home: ClientSite;
let marker: string;
let program: string;

before(async () => {
  home = await startClientSite();
  configure(home.site, { DsvRequireSignatures: 'Y' });
  marker = join(home.client.root, 'executed');
  program = join(home.site.profiles, 'client1', 'host.sh');
  for (const type of TYPES) signer('--make-key', key(type), '--type', type);
  signer('--make-key', key('other'));
});
after(async () => {
  rmSync(keys, { recursive: true });
  await home.close();
});
beforeEach(() => {
  rmSync(marker, { force: true });
  rmSync(`${program}.sig`, { force: true });
  home.add('host.sh', `#!/bin/sh\n: > '${marker}'\n`);
  verifyWith(key('ed25519.pub'));
});

function sign(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [LAUNCHER, ...words], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

/** Runs a command that must succeed silently. */
function signer(...words: string[]): void {
  assert.deepEqual(sign(...words), { status: 0, stdout: '', stderr: '' });
}

function openssl(...words: string[]): string {
  return execFileSync('openssl', words, { cwd: keys, encoding: 'utf8', stdio: 'pipe' });
}

function verifyWith(keyFile: string, more: Record<string, string> = {}): void {
  home.configure({ URLPutURL: '', DsvVerifySignature: 'Y', DsvPublicKeyFile: keyFile, ...more });
}

async function assertRefused(message: string, exitCode = 3): Promise<void> {
  const { code, stdout, stderr } = await home.client.execute(['host.sh']);
  assert.equal(stderr.split('\n')[0], `webjob: error: ${message}`);
  assert.deepEqual([code, stdout, existsSync(marker), home.client.left()], [exitCode, '', false, []]);
}

async function assertRun(): Promise<void> {
  assert.deepEqual(await home.client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
  assert.ok(existsSync(marker));
  rmSync(marker);
}

const WRONG = "the program's signature is wrong";

describe('a program', () => {
  for (const type of TYPES) {
    it(`runs when it is signed with an ${type} key`, async () => {
      signer('--key', key(`${type}.key`), program);
      assert.match(readFileSync(`${program}.sig`, 'latin1'), /^[A-Za-z0-9+/]{86,98}={0,2}\n$/);
      verifyWith(key(`${type}.pub`));
      await assertRun();
    });

    it(`does not run when it is signed with another key than the ${type} one`, async () => {
      signer('--key', key('other.key'), program);
      verifyWith(key(`${type}.pub`));
      await assertRefused(WRONG);
    });

    it(`does not run when one byte was changed after signing with an ${type} key`, async () => {
      signer('--key', key(`${type}.key`), program);
      verifyWith(key(`${type}.pub`));
      home.add('host.sh', readFileSync(program, 'latin1').replace(': >', ':> '));
      await assertRefused(WRONG);
    });

    it(`does not run with a signature that is not an ${type} signature`, async () => {
      verifyWith(key(`${type}.pub`));
      signer('--key', key(`${type}.key`), program);
      const good = readFileSync(`${program}.sig`, 'latin1').trim();
      const cut = Buffer.from(good, 'base64').subarray(0, -1).toString('base64');
      for (const bad of [
        cut,
        'AAAA',
        Buffer.alloc(64).toString('base64'),
        Buffer.from('300000', 'hex').toString('base64'),
      ]) {
        writeFileSync(`${program}.sig`, `${bad}\n`);
        await assertRefused(WRONG);
      }
      for (const bad of ['!', 'x', `${good} ${good}`, `${good}.`]) {
        writeFileSync(`${program}.sig`, `${bad}\n`);
        await assertRefused("the program's signature is not base64");
      }
    });
  }

  it('does not run with the signature of another program', async () => {
    home.add('other.sh', '#!/bin/sh\n');
    signer('--key', key('ed25519.key'), join(home.site.profiles, 'client1', 'other.sh'));
    copyFileSync(join(home.site.profiles, 'client1', 'other.sh.sig'), `${program}.sig`);
    await assertRefused(WRONG);
  });

  it('is not served without a signature, and not run when a server serves it anyway', async () => {
    await assertRefused('GET of host.sh failed: Status = [459], Reason = [Signature Not Available]');
    configure(home.site, {});
    try {
      await assertRefused('the program is not signed');
    } finally {
      configure(home.site, { DsvRequireSignatures: 'Y' });
    }
  });

  it('is checked before its GetHook', async () => {
    const hooked = join(home.client.root, 'hooked');
    home.add('host.sh.x', readFileSync(program));
    signer('--key', key('other.key'), `${program}.x`);
    const hook = { GetHookEnable: 'Y', GetHookSuffix: '.x', GetHookCommandLine: `: > ${hooked}; cp %file %cmd` };
    verifyWith(key('ed25519.pub'), hook);
    await assertRefused(WRONG);
    assert.equal(existsSync(hooked), false);
    signer('--key', key('ed25519.key'), `${program}.x`);
    await assertRun();
    assert.equal(existsSync(hooked), true);
  });

  it('does not run with an invalid DsvPublicKeyFile: exit code 2', async () => {
    signer('--key', key('ed25519.key'), program);
    openssl('genrsa', '-out', 'rsa.key', '2048');
    openssl('rsa', '-in', 'rsa.key', '-pubout', '-out', 'rsa.pub');
    openssl('ecparam', '-name', 'secp384r1', '-genkey', '-noout', '-out', 'p384.key');
    openssl('ec', '-in', 'p384.key', '-pubout', '-out', 'p384.pub');
    for (const name of ['rsa.pub', 'p384.pub']) {
      verifyWith(key(name));
      await assertRefused(`DsvPublicKeyFile: ${key(name)} is neither Ed25519 nor P-256`, 2);
    }
    writeFileSync(key('garbage'), 'garbage\n');
    for (const name of ['none', 'garbage']) {
      verifyWith(key(name));
      const { code, stderr } = await home.client.execute(['host.sh']);
      assert.match(
        stderr,
        new RegExp(`^webjob: error: DsvPublicKeyFile: ${key(name)} is not a public key in PEM: [A-Z_]+\n$`),
      );
      assert.deepEqual([code, existsSync(marker)], [2, false]);
    }
  });
});

describe('openssl', () => {
  const pkeyutl = (...words: string[]): string => openssl('pkeyutl', '-rawin', ...words);
  const decoded = (): string => {
    writeFileSync(key('signature'), Buffer.from(readFileSync(`${program}.sig`, 'latin1'), 'base64'));
    return key('signature');
  };

  it('verifies what webjob-sign signed', () => {
    signer('--key', key('ed25519.key'), program);
    const file = ['-in', program, '-sigfile', decoded()];
    assert.match(pkeyutl('-verify', '-pubin', '-inkey', 'ed25519.pub', ...file), /Verified Successfully/);
    signer('--key', key('p256.key'), program);
    assert.match(openssl('dgst', '-sha256', '-verify', 'p256.pub', '-signature', decoded(), program), /Verified OK/);
  });

  it('makes keys and signatures that the client accepts, and keys that webjob-sign accepts', async () => {
    openssl('genpkey', '-algorithm', 'ed25519', '-out', 'openssl-ed25519.key');
    openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', 'openssl-p256.key');
    for (const type of TYPES) {
      const [own, pub] = [`openssl-${type}.key`, `openssl-${type}.pub`];
      openssl('pkey', '-in', own, '-pubout', '-out', pub);
      if (type === 'ed25519') pkeyutl('-sign', '-inkey', own, '-in', program, '-out', 'signature');
      else openssl('dgst', '-sha256', '-sign', own, '-out', 'signature', program);
      writeFileSync(`${program}.sig`, `${readFileSync(key('signature')).toString('base64')}\n`);
      verifyWith(key(pub));
      await assertRun();
      signer('--key', key(own), program);
      await assertRun();
    }
  });
});

describe('webjob-sign', () => {
  const mode = (path: string): number => statSync(path).mode & 0o777;

  it('makes a private key that only its owner can read, and never overwrites one', () => {
    for (const type of TYPES) {
      assert.equal(mode(key(`${type}.key`)), 0o600);
      assert.match(readFileSync(key(`${type}.pub`), 'utf8'), /^-----BEGIN PUBLIC KEY-----\n/);
    }
    const earlier = TYPES.map((type) => readFileSync(key(`${type}.key`), 'utf8'));
    const { status, stderr } = sign('--make-key', key('ed25519'));
    assert.equal(status, 4);
    assert.equal(
      stderr,
      `webjob-sign: error: ${key('ed25519.key')} cannot be written: EEXIST\nwebjob-sign: hint: a key is never overwritten: choose another name\n`,
    );
    writeFileSync(key('half.pub'), 'mine');
    assert.equal(sign('--make-key', key('half')).status, 4);
    assert.deepEqual([existsSync(key('half.key')), readFileSync(key('half.pub'), 'utf8')], [false, 'mine']);
    assert.deepEqual(
      TYPES.map((type) => readFileSync(key(`${type}.key`), 'utf8')),
      earlier,
    );
  });

  it('signs several files, and replaces an older signature', () => {
    const files = ['a', 'b'].map((name) => key(`file-${name}`));
    for (const file of files) writeFileSync(file, file);
    for (const name of ['other', 'ed25519']) signer('--key', key(`${name}.key`), ...files);
    const [first, second] = files.map((file) => readFileSync(`${file}.sig`, 'latin1'));
    assert.notEqual(first, second);
    assert.equal(mode(`${files[0]}.sig`), 0o644);
    assert.deepEqual(
      readdirSync(keys)
        .filter((name) => name.startsWith('file-'))
        .sort(),
      ['file-a', 'file-a.sig', 'file-b', 'file-b.sig'],
    );
  });

  it('explains its usage and its errors', () => {
    openssl('genrsa', '-out', 'rsa2.key', '2048');
    const FAILURES: [words: string[], status: number, stderr: RegExp][] = [
      [[], 2, /^webjob-sign: error: use one of --make-key and --key\nwebjob-sign: hint: webjob-sign --help\n$/],
      [['--make-key', 'x', '--key', 'y'], 2, /use one of/],
      [['--make-key', key('x'), 'file'], 2, /--make-key takes no files/],
      [['--key', key('ed25519.key')], 2, /--key requires files to sign/],
      [
        ['--make-key', key('x'), '--type', 'rsa'],
        2,
        /^webjob-sign: error: option '--type <TYPE>' argument 'rsa' is invalid/,
      ],
      [['--no-such'], 2, /^webjob-sign: error: unknown option '--no-such'\n/],
      [['--key', key('none'), program], 4, /none is not a private key in PEM: ENOENT\n/],
      [['--key', key('ed25519.pub'), program], 4, /ed25519\.pub is not a private key in PEM: /],
      [['--key', key('rsa2.key'), program], 4, /is neither Ed25519 nor P-256\nwebjob-sign: hint: /],
      [['--key', key('ed25519.key'), key('none')], 4, /^webjob-sign: error: \S+ cannot be signed: ENOENT\n$/],
    ];
    for (const [words, status, why] of FAILURES) {
      const ended = sign(...words);
      assert.match(ended.stderr, why);
      assert.deepEqual([ended.status, ended.stdout], [status, ''], words.join(' '));
    }
    const help = sign('--help');
    assert.equal(help.status, 0);
    assert.match(help.stdout, /^Usage: webjob-sign [\s\S]*\nExit codes:\n/);
    assert.match(sign('--version').stdout, /^\d+\.\d+\.\d+(?:-rc\.\d+)?\n$/);
    assert.equal(existsSync(key('x.key')), false);
  });
});
