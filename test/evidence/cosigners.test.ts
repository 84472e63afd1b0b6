// Policies of witnesses, line by line: which cosignatures are enough, and why a malformed policy is
// refused.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { checkCosigners, parseCosigners, readCosigners, whenCosigned } from '../../evidence/cosigners.ts';
import { signerOf } from '../../notes/ed25519.ts';
import { NoteError, parseNote, signNote } from '../../notes/note.ts';
import { makeWitness } from '../support/witnesses.ts';

const [a, b, c] = ['a.example', 'b.example', 'c.example'].map(makeWitness) as [
  ReturnType<typeof makeWitness>,
  ReturnType<typeof makeWitness>,
  ReturnType<typeof makeWitness>,
];
const all = { a, b, c };
const own = signerOf('log.example', generateKeyPairSync('ed25519').privateKey);
const checkpoint = signNote('log.example\n1\nAAAA\n', [own]);
/** A checkpoint that these witnesses have cosigned, each an hour after the one before. */
const cosigned = (names: string): string =>
  [...names].reduce((text, name, index) => text + all[name as 'a'].cosign(checkpoint, 1000 + 3600 * index), checkpoint);

const WITNESSES = (['a', 'b', 'c'] as const).map((name) => `witness ${name} ${all[name].verifierKey}\n`).join('');

describe('a policy of witnesses', () => {
  const POLICIES: [policy: string, enough: string[], few: string[]][] = [
    ['group g any a b c\nquorum g\n', ['a', 'c', 'abc'], ['']],
    ['group g all a b c\nquorum g\n', ['abc', 'cab'], ['', 'ab', 'bc']],
    ['group g 2 a b c\nquorum g\n', ['ab', 'bc', 'abc'], ['', 'b']],
    ['quorum b\n', ['b', 'abc'], ['', 'ac']],
    ['quorum none\n', ['', 'a'], []],
    ['group g 1 a b\ngroup h all g c\nquorum h\n', ['ac', 'bc'], ['ab', 'c']],
    ['# a comment\n\nlog log.example+00000000+AAAA https://x\nlog x\n  quorum\tc  \n', ['c'], ['ab']],
  ];
  for (const [policy, enough, few] of POLICIES)
    it(`is met as it says: ${policy.trimEnd().replaceAll('\n', '; ')}`, () => {
      const cosigners = parseCosigners(WITNESSES + policy);
      assert.deepEqual(
        cosigners.witnesses.map(({ name }) => name),
        ['a.example', 'b.example', 'c.example'],
      );
      for (const text of [cosigners, parseCosigners(cosigners.text)]) {
        for (const names of enough) assert.notEqual(whenCosigned(cosigned(names), text), undefined, names);
        for (const names of few) assert.equal(whenCosigned(cosigned(names), text), undefined, names);
      }
    });

  it('may be a list of keys, any of which is enough', () => {
    const cosigners = parseCosigners(`# keys\n${a.verifierKey}\n\n ${b.verifierKey} \n`);
    assert.equal(cosigners.text.split('\n').at(-3), 'group witnesses 1 witness-1 witness-2');
    const { signed, at } = checkCosigners(parseNote(Buffer.from(cosigned('cab'))), cosigners);
    assert.deepEqual(
      [signed.map(({ name }) => name), at],
      [['a.example', 'b.example'], new Date((1000 + 2 * 3600) * 1000)],
    );
    const refused = (text: string, message: RegExp): void =>
      assert.throws(
        () => checkCosigners(parseNote(Buffer.from(text)), cosigners),
        (error) => error instanceof NoteError && message.test(error.message),
      );
    refused(cosigned('c'), /^too few witnesses have cosigned it$/);
    refused(checkpoint, /^too few witnesses have cosigned it$/);
    const broken = a.cosign(checkpoint, 5, (bytes) =>
      Buffer.concat([bytes.subarray(0, -1), Buffer.of((bytes.at(-1) ?? 0) ^ 1)]),
    );
    refused(cosigned('b') + broken, /./);
  });

  it('that is none is refused with the line and the reason', () => {
    const WRONG: [text: string, message: RegExp][] = [
      ['', /^no quorum line$/],
      [WITNESSES, /^no quorum line$/],
      [`${WITNESSES}quorum a\nquorum b\n`, /^line 5: a second quorum line$/],
      [`${WITNESSES}quorum d\n`, /^line 4: d is not defined above$/],
      [`${WITNESSES}group g any a d\n`, /^line 4: d is not defined above$/],
      [`${WITNESSES}group g any\n`, /^line 4: any of 0 is not a quorum$/],
      [`${WITNESSES}group g 4 a b c\n`, /^line 4: 4 of 3 is not a quorum$/],
      [`${WITNESSES}group g 0 a b c\n`, /^line 4: 0 of 3 is not a quorum$/],
      [`${WITNESSES}group g most a b c\n`, /^line 4: most of 3 is not a quorum$/],
      [`${WITNESSES}group g all a b\ngroup h all b c\n`, /^line 5: b is a member twice$/],
      [`${WITNESSES}group a all b c\n`, /^line 4: a is reserved or already defined$/],
      [`${WITNESSES}group none all b c\n`, /^line 4: none is reserved or already defined$/],
      [`${WITNESSES}group g* all b c\n`, /^line 4: g\* is reserved or already defined$/],
      [`${WITNESSES}witness d ${a.verifierKey}\n`, /^line 4: the same key as a\.example\+[0-9a-f]{8}$/],
      [`witness a ${a.verifierKey} https://x y\n`, /^line 1: not a line of a witness policy$/],
      ['quorum a b\n', /^line 1: not a line of a witness policy$/],
      ['log a b c\n', /^line 1: not a line of a witness policy$/],
      [`${b.verifierKey}\n${WITNESSES.split('\n')[0]}\n`, /^a policy cannot be mixed with plain verifier keys$/],
      ['witness a x\n', /^line 1: ./],
    ];
    for (const [text, message] of WRONG)
      assert.throws(
        () => parseCosigners(text),
        (error) => error instanceof NoteError && message.test(error.message),
        `${text.slice(-60)} ${message}`,
      );
  });

  it('is read from a file, of which messages have the path', () => {
    const folder = mkdtempSync(join(tmpdir(), 'webjob-policy-'));
    try {
      const path = join(folder, 'policy');
      assert.throws(() => readCosigners(path), { message: `${path}: ENOENT` });
      writeFileSync(path, 'quorum a\n');
      assert.throws(() => readCosigners(path), { message: `${path}: line 1: a is not defined above` });
      writeFileSync(path, `witness a ${a.verifierKey} https://a\nquorum a\n`);
      assert.equal(readCosigners(path).witnesses.length, 1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
