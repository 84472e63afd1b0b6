// Signed run records and files of result keys in the functions behind client and webjobctl: the
// example of docs/protocol.md, what is signed to the last bit, and formatting and parsing.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { formatRecord, RECORD_FIELDS, type RecordField } from 'webjob-protocol';
import { parseVerifierKey } from '../../notes/ed25519.ts';
import { NoteError } from '../../notes/note.ts';
import { isSigned, openResult, resultFields, sealedTo, signResult } from '../../notes/result.ts';
import { formatResultKeys, isInUse, parseResultKeys } from '../../notes/result-keys.ts';
import { makeSigner } from '../support/signed-programs.ts';
import { signEnv, streamsOf } from '../support/signed-results.ts';

describe('docs/protocol.md, section 11', () => {
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'protocol.md'), 'utf8');
  const section = page.slice(page.indexOf('\n## 11. '));

  it('shows a record that verifies with its key, and the SHA-256 of a date', () => {
    const env = (/^ {4}Version=.*\n(?: {4}.*\n)+/m.exec(section)?.[0] ?? '').replace(/^ {4}/gm, '');
    const key = parseVerifierKey(/^ {4}(client1\+.*)$/m.exec(section)?.[1] ?? '');
    const result = openResult(Buffer.from(env));
    assert.ok(result && key.isGood(result.text, result.signature.bytes));
    assert.deepEqual([result.signature.name, result.signature.id], [key.name, key.id]);
    assert.equal(
      result.streams.out.sha256,
      createHash('sha256').update('Tue Nov 24 06:12:40 UTC 2026\n').digest('hex'),
    );
  });
});

const signer = makeSigner('client1');
const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, 'NA'])) as Record<RecordField, string>;
const recordOf = (more: Partial<typeof fields> = {}): string =>
  formatRecord({ fields: { ...fields, ClientId: 'client1', Jid: 'job', ...more }, extra: [] });

describe('a signed record', () => {
  it('verifies as it was signed, and not with any byte changed, removed or added', () => {
    const env = Buffer.from(signEnv(recordOf(), streamsOf('out', 'err'), signer));
    const holds = (bytes: Buffer): boolean => {
      try {
        const result = openResult(bytes);
        const { name, id, bytes: signature } = result?.signature ?? {};
        return (
          name === 'client1' && id === signer.id && signature !== undefined && isGood(result?.text ?? '', signature)
        );
      } catch (error) {
        assert.ok(error instanceof NoteError, String(error));
        return false;
      }
    };
    const { isGood } = parseVerifierKey(signer.verifierKey);
    assert.ok(holds(env));
    for (let at = 0; at < env.length; at++) {
      const flipped = Buffer.from(env);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
      const [before, after] = [env.subarray(0, at), env.subarray(at)];
      assert.ok(!holds(flipped), `byte ${at} flipped`);
      assert.ok(!holds(Buffer.concat([before, env.subarray(at + 1)])), `byte ${at} taken out`);
      assert.ok(!holds(Buffer.concat([before, Buffer.from('x'), after])), `a byte put in at ${at}`);
    }
    for (const more of ['\n', 'x', '\0', 'A=1\n']) assert.ok(!holds(Buffer.concat([env, Buffer.from(more)])));
  });

  it('keeps what the client wrote in any script, and a command line of a megabyte', () => {
    for (const CommandLine of ['größe ☃ 𝄞', 'x'.repeat(1_000_000)]) {
      const env = signEnv(recordOf({ CommandLine }), streamsOf('', ''), signer);
      const result = openResult(Buffer.from(env));
      assert.equal(result?.record.fields.CommandLine, CommandLine);
      assert.ok(parseVerifierKey(signer.verifierKey).isGood(result.text, result.signature.bytes));
    }
  });

  it('names the recipients of sealed streams, and the digests of their plain text', () => {
    const [streams, plain] = [streamsOf('sealed', 'as well'), streamsOf('out', 'err')];
    const sealing = { recipients: ['age1a', 'age1b'], plain };
    const lines = resultFields(streams, sealing);
    const env = signResult(recordOf() + lines.map(([name, value]) => `${name}=${value}\n`).join(''), signer);
    const result = openResult(Buffer.from(env));
    assert.deepEqual([result?.streams, result?.sealing], [streams, sealing]);
    assert.deepEqual(sealedTo(new Map(lines)), ['age1a', 'age1b']);
    assert.equal(sealedTo(new Map(resultFields(streams))), undefined);
    const without = env.replace(/^PlainErrSha256=.*\n/m, '');
    assert.throws(() => openResult(Buffer.from(without)), NoteError);
  });

  it('has each field once, whoever signed it', () => {
    const [name, value] = resultFields(streamsOf('', ''))[0] ?? assert.fail();
    const env = signEnv(`${recordOf()}${name}=${value}\n`, streamsOf('', ''), signer);
    assert.throws(() => openResult(Buffer.from(env)), /a field is repeated/);
  });

  it('is told from an unsigned one, whatever its values', () => {
    const plain = recordOf({ CommandLine: 'ResultSignature=client1 AAAA', KidReason: 'StdOutBytes=1' });
    assert.equal(openResult(Buffer.from(plain)), undefined);
    assert.equal(isSigned(Buffer.from(plain)), false);
    assert.equal(isSigned(Buffer.from(signEnv(plain, streamsOf('', ''), signer))), true);
    assert.equal(openResult(Buffer.from('')), undefined);
  });
});

describe('a file of result keys', () => {
  const other = makeSigner('client1');
  const [from, until] = [new Date('2026-11-24T06:12:40Z'), new Date('2027-11-24T06:12:40Z')];

  it('reads as it was written', () => {
    const keys = [signer, other].map(({ verifierKey }, index) => ({
      ...parseVerifierKey(verifierKey),
      from,
      until: index === 0 ? until : undefined,
    }));
    const read = parseResultKeys(formatResultKeys(keys), 'client1');
    const facts = ({ name, id, from, until }: (typeof read)[number]) => [name, id, from, until];
    assert.deepEqual(read.map(facts), keys.map(facts));
    assert.deepEqual(parseResultKeys('\n# none\n', 'client1'), []);
  });

  it('limits the use of a key: from its first moment, up to its last', () => {
    const key = { ...parseVerifierKey(signer.verifierKey), from, until };
    const at = (date: Date, more: number): boolean => isInUse(key, new Date(date.getTime() + more));
    assert.deepEqual([at(from, -1), at(from, 0), at(until, -1), at(until, 0)], [false, true, true, false]);
    assert.ok(isInUse({ ...key, until: undefined }, new Date('2100-01-01')));
  });

  for (const [what, line, why] of [
    ['no time', signer.verifierKey, 'line 2: not a verifier key and two times'],
    ['three times', `${signer.verifierKey} ${'2026-11-24T06:12:40Z '.repeat(3)}`, 'line 2: not a verifier key'],
    ['a day for a time', `${signer.verifierKey} 2026-11-24`, 'line 2: 2026-11-24 is not a time'],
    ['a day that is none', `${signer.verifierKey} 2026-02-30T00:00:00Z`, 'line 2: 2026-02-30T00:00:00Z is not a time'],
    [
      'the key of another client',
      `${makeSigner('client2').verifierKey} 2026-11-24T06:12:40Z`,
      'line 2: the key of client2',
    ],
    ['no key', 'client1+00000000+AAAA 2026-11-24T06:12:40Z', 'line 2: not an Ed25519 key'],
  ] as const)
    it(`is refused with ${what}`, () => {
      const isRight = (error: Error): boolean => error instanceof NoteError && error.message.startsWith(why);
      assert.throws(() => parseResultKeys(`# keys\n${line}\n`, 'client1'), isRight);
    });
});
