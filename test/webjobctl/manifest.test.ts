// webjobctl sign with manifests, from making keys to a client's verdict; and the signature of a
// note verified by openssl.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parseManifest } from '../../notes/manifest.ts';
import { parseNote } from '../../notes/note.ts';
import { makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

const ground = makeGround();
after(() => ground.remove());
const at = (name: string): string => join(ground.root, name);
const sign = (code: number, ...args: string[]): Promise<string> => ground.run(code, 'sign', ...args);
const json = async (code: number, ...args: string[]) => parseLines(await sign(code, ...args, '--json'));
const PROGRAM = '#!/bin/sh\nhostname\n';
const read = (name: string) => parseManifest(parseNote(readFileSync(at(`${name}.manifest`))).text);
/** Hints are for people; only the error matters here. */
async function refused(code: number, why: RegExp, ...args: string[]): Promise<void> {
  const ended = await runWebjobctl(['sign', ...args], { cwd: ground.root });
  assert.match(ended.stderr, why);
  assert.deepEqual([ended.code, ended.stdout], [code, '']);
}

before(async () => {
  for (const name of ['alice', 'bob', 'eve']) await sign(0, 'keygen', name, '--key-name', `site.example/${name}`);
  await sign(0, 'keygen', 'p256', '--type', 'p256');
  for (const name of ['alice', 'bob']) await sign(0, 'trust', 'add', 'trusted', `${name}.vkey`);
  writeFileSync(at('host.sh'), PROGRAM);
});

describe('webjobctl sign payload', () => {
  it('binds a program to name, clients, time and serial, and signs that with the named key', async () => {
    const startedAt = Date.now();
    assert.equal(
      await sign(
        0,
        'payload',
        '--key',
        'alice.key',
        '--client',
        'client1',
        '--client',
        'web-*',
        '--expires',
        '90d',
        'host.sh',
      ),
      'host.sh.sig\nhost.sh.manifest\n',
    );
    const { signatures } = parseNote(readFileSync(at('host.sh.manifest')));
    assert.deepEqual(
      signatures.map(({ name }) => name),
      ['site.example/alice'],
    );
    const { name, clients, size, serial, notBefore, notAfter } = read('host.sh');
    assert.deepEqual([name, clients, size], ['host.sh', ['client1', 'web-*'], PROGRAM.length]);
    assert.ok(serial >= startedAt && serial <= Date.now());
    const near = (date: Date, wanted: number): boolean => Math.abs(date.getTime() - wanted) < 60_000;
    assert.ok(near(notBefore, startedAt - 600_000) && near(notAfter, startedAt + 90 * 86_400_000));
  });

  it('makes a note whose text and signature openssl verifies', () => {
    const { text, signatures } = parseNote(readFileSync(at('host.sh.manifest')));
    writeFileSync(at('text'), text);
    writeFileSync(at('raw'), signatures[0]?.bytes ?? '');
    const words = ['pkeyutl', '-verify', '-rawin', '-pubin', '-inkey', 'alice.pub', '-in', 'text', '-sigfile', 'raw'];
    assert.equal(spawnSync('openssl', words, { cwd: ground.root }).status, 0);
  });

  it('keeps the clients when repeated and raises the serial, even one in the future', async () => {
    await sign(0, 'payload', '--key', 'alice.key', '--serial', '999999999999998', 'host.sh');
    assert.deepEqual(read('host.sh').clients, ['client1', 'web-*']);
    await sign(0, 'payload', '--key', 'alice.key', '--client', '*', 'host.sh');
    assert.deepEqual([read('host.sh').serial, read('host.sh').clients], [999_999_999_999_999, ['*']]);
    rmSync(at('host.sh.manifest'));
    await sign(0, 'payload', '--key', 'alice.key', 'host.sh');
    assert.deepEqual(read('host.sh').clients, ['*']);
  });

  it('uses the given name and time', async () => {
    writeFileSync(at('output'), 'x');
    const words = ['--name', 'host.sh.gpg', '--not-before', '2199-01-01T00:00:00Z', '--expires', '1d'];
    await sign(0, 'payload', '--key', 'bob.key', '--key-name', 'robert', ...words, 'output');
    const { name, notBefore, notAfter } = read('output');
    assert.deepEqual(
      [name, notBefore.toISOString(), notAfter.toISOString()],
      ['host.sh.gpg', '2199-01-01T00:00:00.000Z', '2199-01-02T00:00:00.000Z'],
    );
    assert.equal(parseNote(readFileSync(at('output.manifest'))).signatures[0]?.name, 'robert');
  });

  it('makes only the signature with a P-256 key, and refuses what needs a manifest', async () => {
    writeFileSync(at('plain'), 'x');
    assert.equal(await sign(0, 'payload', '--key', 'p256.key', 'plain'), 'plain.sig\n');
    for (const words of [
      ['--client', 'a'],
      ['--expires', '1d'],
      ['--serial', '1'],
      ['--name', 'x'],
      ['--key-name', 'x'],
    ])
      await refused(2, /p256\.key cannot sign manifests/, 'payload', '--key', 'p256.key', ...words, 'plain');
    assert.equal(existsSync(at('plain.manifest')), false);
  });

  it('writes neither file when the values do not fit a manifest', async () => {
    mkdirSync(at('odd'));
    writeFileSync(at('odd/a b'), 'x');
    writeFileSync(at('odd/good'), 'x');
    await refused(2, /a b is not a name that clients can ask for/, 'payload', '--key', 'alice.key', 'odd/a b');
    await refused(4, /not the text of a manifest/, 'payload', '--key', 'alice.key', '--client', 'a/b', 'odd/good');
    const many = Array.from({ length: 70 }, () => ['--client', 'x'.repeat(64)]).flat();
    await refused(4, /longer than 4096 bytes/, 'payload', '--key', 'alice.key', ...many, 'odd/good');
    await refused(
      2,
      /--name requires a single file/,
      'payload',
      '--key',
      'alice.key',
      '--name',
      'x',
      'odd/good',
      'host.sh',
    );
    await refused(
      2,
      /'--serial <NUMBER>' argument '1e3' is invalid/,
      'payload',
      '--key',
      'alice.key',
      '--serial',
      '1e3',
      'odd/good',
    );
    await refused(
      2,
      /alice\.key cannot sign manifests: a key name/,
      'payload',
      '--key',
      'alice.key',
      '--key-name',
      'a b',
      'odd/good',
    );
    assert.deepEqual(readdirSync(at('odd')).sort(), ['a b', 'good']);
  });

  it("refuses a .vkey of another key, which would give that key another's name", async () => {
    mkdirSync(at('mixed'));
    writeFileSync(at('mixed/a.key'), readFileSync(at('alice.key')));
    writeFileSync(at('mixed/a.vkey'), readFileSync(at('bob.vkey')));
    await refused(4, /a\.vkey is of another key/, 'payload', '--key', 'mixed/a.key', 'host.sh');
    rmSync(at('mixed/a.vkey'));
    await sign(0, 'payload', '--key', 'mixed/a.key', 'host.sh');
    assert.equal(parseNote(readFileSync(at('host.sh.manifest'))).signatures[0]?.name, 'a');
  });
});

describe('webjobctl sign add, show and verify', () => {
  const verify = (code: number, ...words: string[]): Promise<string> =>
    sign(code, 'verify', '--trusted', 'trusted', ...words, 'host.sh');

  it('add a second signature, which satisfies a threshold of 2', async () => {
    await sign(0, 'payload', '--key', 'alice.key', '--client', 'client1', 'host.sh');
    assert.equal(await verify(0), 'good     host.sh.manifest\n');
    const one = 'wrong    host.sh.manifest: signed with a weight of 1, but 2 is required\n';
    assert.equal(await verify(1, '--threshold', '2'), one);
    const { text } = parseNote(readFileSync(at('host.sh.manifest')));
    assert.equal(await sign(0, 'add', '--key', 'bob.key', 'host.sh.manifest'), 'host.sh.manifest\n');
    assert.equal(parseNote(readFileSync(at('host.sh.manifest'))).text, text);
    assert.equal(await verify(0, '--threshold', '2', '--client', 'client1'), 'good     host.sh.manifest\n');
    assert.equal(await verify(1, '--client', 'client2'), 'wrong    host.sh.manifest: it is not for client2\n');
    assert.match(await verify(1, '--at', '2199-01-01'), /^wrong {4}host\.sh\.manifest: it expired at 20/);
    assert.match(await verify(1, '--at', '1999-01-01'), /: it is not valid before 20/);
    assert.equal(await verify(1, '--name', 'wipe.sh'), 'wrong    host.sh.manifest: it is for host.sh, not wipe.sh\n');
    await refused(4, /already signed by site\.example\/bob/, 'add', '--key', 'bob.key', 'host.sh');
    await refused(4, /p256\.key cannot sign manifests: not an Ed25519 key/, 'add', '--key', 'p256.key', 'host.sh');
  });

  it('show its text and its unchecked signatures', async () => {
    const shown = await sign(0, 'show', 'host.sh');
    assert.match(
      shown,
      /^host\.sh\.manifest\n {2}name +host\.sh\n {2}client +client1\n {2}size +19\n {2}sha256 +ecd13b/,
    );
    assert.match(
      shown,
      /\n {2}program +the one beside it\n {2}signed by +site\.example\/alice\+[0-9a-f]{8}\n {2}signed by +site\.example\/bob\+/,
    );
    const [found] = await json(0, 'show', 'host.sh');
    const lines = (await sign(0, 'show', 'host.sh', 'host.sh', '--json')).split('\n');
    assert.deepEqual(
      lines.map((line) => line.slice(0, 9)),
      ['{"file":"', '{"file":"', ''],
    );
    const { name, clients, program, signers } = found as Record<string, string[]>;
    assert.deepEqual([name, clients, program, signers?.length], ['host.sh', ['client1'], 'same', 2]);
    assert.deepEqual(
      (await json(0, 'verify', '--trusted', 'trusted', '--key', 'alice.pub', 'host.sh')).map(
        ({ file, signature, manifest }) => [file, signature, manifest],
      ),
      [['host.sh', 'good', 'good']],
    );
  });

  it('find a program that was changed, and sign no manifest of another', async () => {
    writeFileSync(at('host.sh'), `${PROGRAM}exit\n`);
    try {
      assert.equal(await verify(1), 'wrong    host.sh.manifest: it is for other bytes\n');
      assert.match(await sign(0, 'show', 'host.sh'), /\n {2}program +not the one beside it\n/);
      await refused(
        4,
        /host\.sh\.manifest is not of the program beside it, which is different/,
        'add',
        '--key',
        'eve.key',
        'host.sh',
      );
      rmSync(at('host.sh'));
      assert.match(await sign(0, 'show', 'host.sh'), /\n {2}program +not beside it\n/);
      await refused(4, /which is missing/, 'add', '--key', 'eve.key', 'host.sh');
      mkdirSync(at('host.sh'));
      await refused(4, /host\.sh cannot be read: EISDIR/, 'show', 'host.sh');
      rmdirSync(at('host.sh'));
    } finally {
      writeFileSync(at('host.sh'), PROGRAM);
    }
  });

  it('distinguish missing, malformed and wrong manifests', async () => {
    writeFileSync(at('bare'), 'x');
    assert.equal(await sign(1, 'verify', '--trusted', 'trusted', 'bare'), 'missing  bare.manifest\n');
    writeFileSync(at('bare.manifest'), 'hello\n');
    assert.equal(
      await sign(1, 'verify', '--trusted', 'trusted', 'bare'),
      'wrong    bare.manifest: no blank line before signatures\n',
    );
    await refused(4, /bare\.manifest: no blank line before signatures/, 'show', 'bare');
    await refused(4, /none\.manifest cannot be used: ENOENT/, 'show', 'none');
    await refused(4, /none\.manifest cannot be used: ENOENT/, 'add', '--key', 'bob.key', 'none');
    await refused(4, /alice\.key line 1: not a verifier key/, 'verify', '--trusted', 'alice.key', 'host.sh');
    await refused(4, /nowhere cannot be read: ENOENT/, 'verify', '--trusted', 'nowhere', 'host.sh');
    rmSync(at('bare.manifest'));
    mkdirSync(at('bare.manifest'));
    await refused(4, /bare\.manifest cannot be used: EISDIR/, 'verify', '--trusted', 'trusted', 'bare');
  });
});

describe('webjobctl sign trust', () => {
  it('adds keys, changes weights and removes keys, line by line, and keeps comments', async () => {
    writeFileSync(at('keys'), '# those who sign\n');
    const [alice, bob, eve] = ['alice', 'bob', 'eve'].map((name) =>
      readFileSync(at(`${name}.vkey`), 'utf8').trim(),
    ) as [string, string, string];
    await sign(0, 'trust', 'add', 'keys', 'alice.vkey');
    await sign(0, 'trust', 'add', 'keys', bob, '--weight', '2');
    writeFileSync(at('keys'), `${readFileSync(at('keys'), 'utf8')}\n# for emergencies\n`);
    await sign(0, 'trust', 'add', 'keys', 'eve.vkey');
    await sign(0, 'trust', 'add', 'keys', 'alice.vkey', '--weight', '99');
    const whole = `# those who sign\n${alice} 99\n${bob} 2\n\n# for emergencies\n${eve} 1\n`;
    assert.equal(readFileSync(at('keys'), 'utf8'), whole);
    assert.match(
      await sign(0, 'trust', 'list', 'keys'),
      /^WEIGHT {2}ID {8}NAME\n {4}99 {2}[0-9a-f]{8} {2}site\.example\/alice\n {5}2 /,
    );
    assert.deepEqual(
      (await json(0, 'trust', 'list', 'keys')).map(({ name, weight, key }) => [name, weight, key]),
      [
        ['site.example/alice', 99, alice],
        ['site.example/bob', 2, bob],
        ['site.example/eve', 1, eve],
      ],
    );
    for (const named of ['site.example/bob', alice, eve.split('+').slice(0, 2).join('+')])
      await sign(0, 'trust', 'remove', 'keys', named);
    assert.equal(readFileSync(at('keys'), 'utf8'), '# those who sign\n\n# for emergencies\n');
    await refused(4, /keys has no key site\.example\/bob/, 'trust', 'remove', 'keys', 'site.example/bob');
    writeFileSync(at('keys'), whole);
    await sign(0, 'trust', 'remove', 'keys', 'bob.vkey');
    assert.equal(readFileSync(at('keys'), 'utf8'), whole.replace(`${bob} 2\n`, ''));
  });

  it('writes nothing that a client would refuse', async () => {
    const was = readFileSync(at('trusted'), 'utf8');
    await sign(0, 'keygen', 'again', '--key-name', 'site.example/alice');
    await sign(0, 'trust', 'add', 'trusted', 'again.vkey');
    await refused(4, /2 keys have the name site\.example\/alice/, 'trust', 'remove', 'trusted', 'site.example/alice');
    await sign(0, 'trust', 'remove', 'trusted', 'again.vkey');
    const twin = was.split('\n')[0]?.replace('alice', 'twin').replace(' 1', '') ?? '';
    await refused(4, /twin\S* is not a verifier key: ENOENT/, 'trust', 'add', 'trusted', twin);
    await refused(4, /alice\.pub is not a verifier key: not a verifier key/, 'trust', 'add', 'trusted', 'alice.pub');
    for (const weight of ['0', '100', '-1', 'x'])
      await refused(2, /'--weight <NUMBER>' argument/, 'trust', 'add', 'trusted', 'eve.vkey', '--weight', weight);
    writeFileSync(at('spoilt'), `${was}hello\n`);
    await refused(4, /spoilt line 3: not a verifier key/, 'trust', 'add', 'spoilt', 'eve.vkey');
    assert.equal(readFileSync(at('trusted'), 'utf8'), was);
  });
});

describe('a key that is replaced', () => {
  it('signs beside the old one, then alone, and no client refuses a program meanwhile', async () => {
    await sign(0, 'payload', '--key', 'alice.key', 'host.sh');
    await sign(0, 'trust', 'add', 'old', 'alice.vkey');
    await sign(0, 'add', '--key', 'eve.key', 'host.sh');
    await sign(0, 'trust', 'add', 'both', 'alice.vkey');
    await sign(0, 'trust', 'add', 'both', 'eve.vkey');
    for (const keys of ['old', 'both']) await sign(0, 'verify', '--trusted', keys, 'host.sh');
    await sign(0, 'trust', 'remove', 'both', 'site.example/alice');
    await sign(0, 'verify', '--trusted', 'both', 'host.sh');
    await sign(0, 'payload', '--key', 'eve.key', 'host.sh');
    await sign(0, 'verify', '--trusted', 'both', 'host.sh');
    await sign(1, 'verify', '--trusted', 'old', 'host.sh');
  });
});
