// webjobctl sign with real keys, compared with openssl: each verifies the other's signatures, and
// neither accepts anything that was changed.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { makeGround, parseLines, runWebjobctl } from '../support/operator.ts';

const ground = makeGround();
after(() => ground.remove());
const at = (name: string): string => join(ground.root, name);
const sign = (code: number, ...args: string[]): Promise<string> => ground.run(code, 'sign', ...args);

describe('webjobctl sign', () => {
  for (const type of ['ed25519', 'p256']) {
    it(`makes signatures with ${type} that openssl and verify accept`, async () => {
      const program = at(`${type}.sh`);
      writeFileSync(program, '#!/bin/sh\nhostname\n');
      const isNoteKey = type === 'ed25519';
      const files = `${type}.key\n${type}.pub\n${isNoteKey ? `${type}.vkey\n` : ''}`;
      assert.equal(await sign(0, 'keygen', type, '--type', type), files);
      assert.equal(statSync(at(`${type}.key`)).mode & 0o777, 0o600);
      const written = `${program}.sig\n${isNoteKey ? `${program}.manifest\n` : ''}`;
      assert.equal(await sign(0, 'payload', '--key', `${type}.key`, program), written);
      assert.equal(existsSync(`${program}.manifest`), isNoteKey);
      writeFileSync(at('raw'), Buffer.from(readFileSync(`${program}.sig`, 'latin1'), 'base64'));
      const words =
        type === 'ed25519'
          ? ['pkeyutl', '-verify', '-rawin', '-pubin', '-inkey', `${type}.pub`, '-in', program, '-sigfile', 'raw']
          : ['dgst', '-sha256', '-verify', `${type}.pub`, '-signature', 'raw', program];
      assert.equal(spawnSync('openssl', words, { cwd: ground.root }).status, 0);
      assert.equal(await sign(0, 'verify', '--key', `${type}.pub`, program), `good     ${program}\n`);
    });
  }

  it('finds programs that were changed, are unsigned, or have another signer', async () => {
    const [good, changed, bare, other] = ['good', 'changed', 'bare', 'other'].map((name) => {
      writeFileSync(at(name), name);
      return name;
    });
    await sign(0, 'payload', '--key', 'ed25519.key', 'good', 'changed');
    await sign(0, 'payload', '--key', 'p256.key', 'other');
    writeFileSync(at('changed'), 'changed a bit');
    const found = parseLines(
      await sign(1, 'verify', '--key', 'ed25519.pub', '--json', 'good', 'changed', 'bare', 'other'),
    );
    assert.deepEqual(found, [
      { file: good, signature: 'good' },
      { file: changed, signature: 'wrong' },
      { file: bare, signature: 'missing' },
      { file: other, signature: 'wrong' },
    ]);
    const real = readFileSync(at('good.sig'), 'utf8').trimEnd();
    const spoilt = [`${real}\nmore`, `${real}!`, ` ${real}`, `${real.slice(0, 9)} ${real.slice(9)}`];
    for (const line of ['', 'no base64!', `${'A'.repeat(88)}\nmore`, ...spoilt]) {
      writeFileSync(at('good.sig'), `${line}\n`);
      await sign(1, 'verify', '--key', 'ed25519.pub', 'good');
    }
  });

  it('leaves no files when NAME.pub or NAME.vkey exists', async () => {
    writeFileSync(at('third.vkey'), 'taken');
    await sign(4, 'keygen', 'third');
    assert.deepEqual(
      ['key', 'pub'].map((end) => existsSync(at(`third.${end}`))),
      [false, false],
    );
    writeFileSync(at('half.pub'), 'taken');
    const { code, stderr } = await runWebjobctl(['sign', 'keygen', 'half'], { cwd: ground.root });
    assert.deepEqual([code, existsSync(at('half.key')), readFileSync(at('half.pub'), 'utf8')], [4, false, 'taken']);
    assert.match(stderr, /half\.pub cannot be written: EEXIST/);
  });

  it('never overwrites a key, and names a file that is not a key', async () => {
    const key = readFileSync(at('ed25519.key'), 'utf8');
    await sign(4, 'keygen', 'ed25519');
    assert.equal(readFileSync(at('ed25519.key'), 'utf8'), key);
    const refused = async (code: number, why: RegExp, ...args: string[]): Promise<void> => {
      const ended = await runWebjobctl(['sign', ...args], { cwd: ground.root });
      assert.match(ended.stderr, why);
      assert.deepEqual([ended.code, ended.stdout], [code, '']);
    };
    await refused(4, /good is not a private key in PEM/, 'payload', '--key', 'good', 'good');
    await refused(4, /good is not a public key in PEM/, 'verify', '--key', 'good', 'good');
    await refused(4, /none cannot be read: ENOENT/, 'payload', '--key', 'ed25519.key', 'none');
    await refused(4, /none cannot be read: ENOENT/, 'verify', '--key', 'ed25519.pub', 'none');
    writeFileSync(at('boxed'), 'x');
    mkdirSync(at('boxed.sig'));
    await refused(4, /boxed\.sig cannot be read: EISDIR/, 'verify', '--key', 'ed25519.pub', 'boxed');
    await refused(2, /required option '--key <FILE>' not specified/, 'payload', 'good');
    await refused(2, /give --key or --trusted/, 'verify', 'good');
    await refused(2, /argument 'rsa' is invalid/, 'keygen', 'x', '--type', 'rsa');
  });
});
