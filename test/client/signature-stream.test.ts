// Signatures are verified while the program arrives: with the same result as node:crypto, and in
// constant memory.
import assert from 'node:assert/strict';
import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  type KeyPairKeyObjectResult,
  randomBytes,
  sign,
  verify,
} from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { verifyEd25519 } from '../../client/ed25519.ts';
import { makeClient } from '../support/client-job.ts';
import { type FakeServer, formatAnswer, reply, startFake } from '../support/client-server.ts';

const MEGABYTE = 1024 * 1024;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;

const fromBytes = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
const toBytes = (number: bigint): Buffer => Buffer.from(number.toString(16).padStart(64, '0'), 'hex').reverse();
const rawOf = (key: KeyObject, part: 'x' | 'd' = 'x'): Buffer =>
  Buffer.from(key.export({ format: 'jwk' })[part] ?? '', 'base64url');
const keyOf = (raw: Buffer): KeyObject =>
  createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') }, format: 'jwk' });

function isGood(publicKey: Buffer, signature: Buffer, message: Buffer, pieceLength = 7): boolean {
  const verifier = verifyEd25519(publicKey, signature);
  for (let at = 0; at < message.length; at += pieceLength) verifier.update(message.subarray(at, at + pieceLength));
  return verifier.isGood();
}

describe('Ed25519 in pieces', () => {
  it('accepts and refuses what node:crypto does', () => {
    for (let n = 0; n < 40; n += 1) {
      const { publicKey, privateKey } = generateKeyPairSync('ed25519');
      const [key, message] = [rawOf(publicKey), randomBytes(n * 11)];
      const good = sign(null, message, privateKey);
      assert.equal(isGood(key, good, message), true);
      const changed = (bytes: Buffer, at: number): Buffer => {
        const other = Buffer.from(bytes);
        other.writeUInt8(other.readUInt8(at % other.length) ^ (1 << (n % 8)), at % other.length);
        return other;
      };
      const over = toBytes((fromBytes(good.subarray(32)) + L) % 2n ** 256n);
      const cases: [key: Buffer, signature: Buffer, message: Buffer][] = [
        [key, changed(good, n), message],
        [key, changed(good, n + 32), message],
        [changed(key, n), good, message],
        [key, good, Buffer.concat([message, Buffer.of(0)])],
        [key, Buffer.concat([good.subarray(0, 32), over]), message],
        ...[0, 1, 32, 63].map((length): [Buffer, Buffer, Buffer] => [key, good.subarray(0, length), message]),
        [key, Buffer.concat([good, Buffer.of(0)]), message],
      ];
      for (const [publicBytes, signature, bytes] of cases) {
        assert.equal(verify(null, bytes, keyOf(publicBytes), signature), false);
        assert.equal(isGood(publicBytes, signature, bytes), false);
      }
    }
  });

  it('refuses keys and signatures of small order, which anyone can make', () => {
    const SMALL = [
      `01${'00'.repeat(31)}`,
      `ec${'ff'.repeat(30)}7f`,
      `${'00'.repeat(31)}80`,
      '00'.repeat(32),
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
      `01${'00'.repeat(30)}80`,
      `ee${'ff'.repeat(30)}7f`,
    ].map((hex) => Buffer.from(hex, 'hex'));
    for (const key of SMALL)
      for (const R of SMALL)
        for (let n = 0; n < 8; n += 1)
          assert.equal(isGood(key, Buffer.concat([R, Buffer.alloc(32)]), Buffer.of(n)), false);
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const key = rawOf(publicKey);
    const scalar = createHash('sha512').update(rawOf(privateKey, 'd')).digest().subarray(0, 32);
    scalar.writeUInt8(scalar.readUInt8(0) & 248, 0);
    scalar.writeUInt8((scalar.readUInt8(31) & 127) | 64, 31);
    for (const R of SMALL) {
      const k = fromBytes(createHash('sha512').update(R).update(key).digest()) % L;
      assert.equal(isGood(key, Buffer.concat([R, toBytes((k * fromBytes(scalar)) % L)]), Buffer.of()), false);
    }
  });
});

describe('a signed program of 100 MB', {
  skip: !existsSync('/proc/self/status') && 'no /proc to see memory in',
}, () => {
  const client = makeClient();
  const pairs: Record<string, KeyPairKeyObjectResult> = {
    Ed25519: generateKeyPairSync('ed25519'),
    'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  };
  const program = Buffer.alloc(100 * MEGABYTE, '#\n');
  program.write('#!/bin/sh\nsed -n "s/^VmHWM:[^0-9]*//p" /proc/$PPID/status\nexit\n');
  let fake: FakeServer;
  before(async () => {
    fake = await startFake();
  });
  after(async () => {
    await fake.close();
    client.remove();
  });

  for (const [kind, { publicKey, privateKey }] of Object.entries(pairs)) {
    it(`needs no more memory than a small one, with ${kind}, and one wrong last byte is found`, async () => {
      const keyFile = join(client.root, `${kind}.pub`);
      writeFileSync(keyFile, publicKey.export({ type: 'spki', format: 'pem' }));
      client.configure({ URLGetURL: fake.url, DsvVerifySignature: 'Y', DsvPublicKeyFile: keyFile });
      const signature = sign(kind === 'P-256' ? 'sha256' : null, program, privateKey).toString('base64');
      const header = `WebJob-Payload-Signature: ${signature}\r\n`;
      fake.get = reply(formatAnswer(program, '200 OK', header));
      const { code, stdout, stderr } = await client.start(['large.sh']).ended;
      assert.deepEqual([code, stderr], [0, '']);
      const peak = Number(/^(\d+) kB\n$/.exec(stdout)?.[1]) / 1024;
      assert.ok(peak > 10 && peak < 120, `${Math.round(peak)} MB at its peak`);
      const wrong = Buffer.from(program);
      wrong.write('x', wrong.length - 1);
      fake.get = reply(formatAnswer(wrong, '200 OK', header));
      const refused = await client.execute(['large.sh']);
      assert.deepEqual([refused.code, refused.stdout, client.left()], [3, '', []]);
      assert.match(refused.stderr, /^webjob: error: the program's signature is wrong\n/);
    });
  }

  it('is not fetched without a signature, or with an invalid key', async () => {
    const keyFile = join(client.root, 'key.pub');
    writeFileSync(keyFile, generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }));
    let sent = 0;
    fake.get = (socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${program.length}\r\n\r\n`);
      socket.write(program, (error) => {
        if (!error) sent += program.length;
      });
    };
    client.configure({ URLGetURL: fake.url, DsvVerifySignature: 'Y', DsvPublicKeyFile: keyFile });
    const { code, stderr } = await client.execute(['large.sh']);
    assert.match(stderr, /^webjob: error: the program is not signed\n/);
    assert.deepEqual([code, sent, client.left()], [3, 0, []]);
    const requests = fake.requests().length;
    writeFileSync(keyFile, 'none\n');
    assert.equal((await client.execute(['large.sh'])).code, 2);
    assert.equal(fake.requests().length, requests);
  });
});
