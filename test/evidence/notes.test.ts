// C2SP signed notes: the examples of other implementations, everything the format forbids, and
// changes of a signed note.
import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatVerifierKey, parseVerifierKey, signerOf, verifierOf } from '../../notes/ed25519.ts';
import {
  addSignature,
  formatNote,
  isKeyName,
  MAX_NOTE_BYTES,
  MAX_SIGNATURES,
  NoteError,
  parseNote,
  signNote,
  verifyNote,
} from '../../notes/note.ts';

// From the documentation of golang.org/x/mod/sumdb/note.
const PETER = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW';
const ENOCH = 'EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop';
const GO_TEXT = `If you think cryptography is the answer to your problem,
then you don't know what your problem is.
`;
const GO_NOTE = `${GO_TEXT}
— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=
`;

const keyOf = (name: string) => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return { signer: signerOf(name, privateKey), verifier: verifierOf(name, publicKey), publicKey, privateKey };
};
const alice = keyOf('site.example/alice');
const bob = keyOf('site.example/bob');
const stranger = keyOf('site.example/alice');

const open = (note: string | Buffer, ...verifiers: Parameters<typeof verifyNote>[1][]) =>
  verifyNote(parseNote(Buffer.from(note)), verifiers.flat()).map(({ name, id }) => `${name}+${id}`);
const idOf = ({ name, id }: { name: string; id: string }): string => `${name}+${id}`;

describe('a signed note', () => {
  it('verifies, key by key, when another implementation made it', () => {
    const [peter, enoch] = [PETER, ENOCH].map(parseVerifierKey);
    assert.ok(peter && enoch);
    assert.deepEqual(open(GO_NOTE, [peter, enoch]), [idOf(peter), idOf(enoch)]);
    assert.deepEqual(open(GO_NOTE, [enoch]), [idOf(enoch)]);
    assert.equal(parseNote(Buffer.from(GO_NOTE)).text, GO_TEXT);
    assert.equal(formatVerifierKey('PeterNeumann', peter.publicKey), PETER);
  });

  it('equals that of another implementation with the same key', () => {
    // PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz, of the same
    // documentation.
    const seed = Buffer.from('AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz', 'base64').subarray(1);
    const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed]);
    const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
    assert.equal(formatVerifierKey('PeterNeumann', createPublicKey(key)), PETER);
    const first = `${GO_NOTE.split('\n').slice(0, 4).join('\n')}\n`;
    assert.equal(signNote(GO_TEXT, [signerOf('PeterNeumann', key)]), first);
  });

  it('may have blank lines and all but control characters: the example of the specification', () => {
    const note = `Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
`;
    const parsed = parseNote(Buffer.from(note));
    assert.match(parsed.text, /^Ognuno [\s\S]*sole:\n\ned è subito sera\.\n$/);
    assert.deepEqual(
      parsed.signatures.map(({ name, id, bytes }) => [name, id, bytes.length]),
      [['quasimodo.example/salvatore', '367ba04b', 64]],
    );
    assert.equal(formatNote(parsed), note);
  });

  it('gains signatures one by one, ignores unknown ones, and counts each key once', () => {
    const one = signNote('text\n', [alice.signer]);
    const two = addSignature(parseNote(Buffer.from(one)), bob.signer);
    assert.ok(two.startsWith(one));
    assert.deepEqual(open(two, [alice.verifier, bob.verifier]), [alice.verifier, bob.verifier].map(idOf));
    assert.deepEqual(open(two, [bob.verifier]), [idOf(bob.verifier)]);
    assert.deepEqual(open(`${two}${two.split('\n\n')[1]}`, [alice.verifier]), [idOf(alice.verifier)]);
    assert.throws(() => addSignature(parseNote(Buffer.from(two)), alice.signer), /already signed by .*alice/);
  });

  it('is refused when no trusted key signed it, even by one of the same name', () => {
    assert.throws(() => open(signNote('text\n', [alice.signer]), [bob.verifier]), /no signature of a trusted key/);
    assert.notEqual(stranger.verifier.id, alice.verifier.id);
    assert.throws(() => open(signNote('text\n', [stranger.signer]), [alice.verifier]), /no signature of a trusted key/);
    assert.throws(() => open(signNote('text\n', [alice.signer]), []), /no signature of a trusted key/);
  });

  it('is refused as a whole when a signature under a trusted name and id is wrong', () => {
    const colliding = { ...stranger.signer, id: alice.signer.id };
    for (const signers of [[colliding], [colliding, bob.signer], [bob.signer, colliding], [alice.signer, colliding]])
      assert.throws(
        () => open(signNote('text\n', signers), [alice.verifier, bob.verifier]),
        /^Error: the signature of site\.example\/alice\+[0-9a-f]{8} is wrong$/,
      );
    const short = {
      ...alice.signer,
      sign: (text: string) => sign(null, Buffer.from(text), alice.privateKey).subarray(1),
    };
    assert.throws(() => open(signNote('text\n', [short]), [alice.verifier]), /is wrong/);
  });

  it('is not accepted with any byte changed, missing or added', () => {
    const note = Buffer.from(signNote('line 1\nline 2\n', [alice.signer]));
    const refused = (bytes: Buffer): void =>
      assert.throws(() => open(bytes, [alice.verifier]), NoteError, JSON.stringify(bytes.toString()));
    for (let at = 0; at < note.length; at++) {
      refused(Buffer.concat([note.subarray(0, at), note.subarray(at + 1)]));
      for (const byte of [0, 10, 32, 43, 65, 0x80, 0xff, (note[at] ?? 0) ^ 1]) {
        const [head, tail] = [note.subarray(0, at), note.subarray(at)];
        refused(Buffer.concat([head, Uint8Array.of(byte), tail]));
        if (byte !== note[at]) refused(Buffer.concat([head, Uint8Array.of(byte), tail.subarray(1)]));
      }
      refused(note.subarray(0, at));
    }
    for (const more of ['\n', ' ', 'x', '\0', '\n\n']) refused(Buffer.concat([note, Buffer.from(more)]));
  });

  it('keeps every text and set of signers through signing and parsing', () => {
    const line = fc.string({ unit: 'binary', maxLength: 20 }).map((text) => text.replace(/\p{Cc}|\p{Cs}/gu, ''));
    const texts = fc.array(line, { minLength: 1, maxLength: 5 }).map((lines) => `${lines.join('\n')}\n`);
    fc.assert(
      fc.property(texts, fc.subarray([alice, bob, stranger], { minLength: 1 }), (text, keys) => {
        const note = signNote(
          text,
          keys.map(({ signer }) => signer),
        );
        assert.equal(parseNote(Buffer.from(note)).text, text);
        assert.deepEqual(
          open(
            note,
            keys.map(({ verifier }) => verifier),
          ),
          keys.map(({ verifier }) => idOf(verifier)),
        );
      }),
    );
  });

  const good = signNote('text\n', [alice.signer]);
  const line = good.split('\n')[2] ?? '';
  const base64 = line.split(' ')[2] ?? '';
  for (const [why, bytes] of Object.entries({
    'nothing at all': '',
    'no signatures': 'text\n\n',
    'no blank line': `text\n${line}\n`,
    'no text': `\n${line}\n`,
    'a last line without an end': good.trimEnd(),
    'a blank line behind the signatures': `${good}\n`,
    CRLF: good.replaceAll('\n', '\r\n'),
    'a tab in the text': good.replace('text', 'te\txt'),
    'a NUL in the text': good.replace('text', 'te\0xt'),
    'bytes that are not UTF-8': Buffer.concat([Buffer.from([0xff]), Buffer.from(good)]),
    'UTF-8 in more bytes than it needs': Buffer.concat([Buffer.from([0xc0, 0xaf]), Buffer.from(good)]),
    'a hyphen for the dash': good.replace('—', '-'),
    'an en dash for the dash': good.replace('—', '–'),
    'two spaces behind the dash': good.replace('— ', '—  '),
    'a no-break space behind the dash': good.replace('— ', '—\u00a0'),
    'a space at the end of the line': good.replace(/\n$/, ' \n'),
    'no name': good.replace(alice.signer.name, ''),
    'a plus in the name': good.replace('alice', 'ali+ce'),
    'a wide space in the name': good.replace('alice', 'ali\u3000ce'),
    'a line separator in the name': good.replace('alice', 'ali\u2028ce'),
    'DEL in the name': good.replace('alice', 'ali\x7fce'),
    'another line among the signatures': `${good}hello\n`,
    'base64 without padding': good.replace(/=+\n$/, '\n'),
    'base64 of the URL alphabet': good.replace(base64, '____AAAA'),
    'base64 with a bit too many': good.replace(/.(?==+\n$)/, (last) => String.fromCharCode(last.charCodeAt(0) + 1)),
    'a signature that is nothing but an id': good.replace(base64, 'AAAAAA=='),
    'a signature shorter than an id': good.replace(base64, 'AAA='),
    'too many signatures': good + `${line}\n`.repeat(MAX_SIGNATURES),
    'too many bytes': `${'x'.repeat(MAX_NOTE_BYTES)}\n${good}`,
  }))
    it(`is refused with ${why}`, () => {
      assert.throws(() => parseNote(Buffer.from(bytes)), NoteError);
    });

  it('may have exactly the documented number of signatures and bytes', () => {
    assert.equal(
      parseNote(Buffer.from(good + `${line}\n`.repeat(MAX_SIGNATURES - 1))).signatures.length,
      MAX_SIGNATURES,
    );
    const fill = MAX_NOTE_BYTES - Buffer.byteLength(good);
    assert.equal(Buffer.byteLength(formatNote(parseNote(Buffer.from('x'.repeat(fill) + good)))), MAX_NOTE_BYTES);
  });

  for (const text of ['', 'text', 'te\rxt\n', 'te\0xt\n', '\ud800\n', 'text\n\n— a AAAAAAAA\n\nmore'])
    it(`cannot be made of the text ${JSON.stringify(text)}`, () => {
      assert.throws(() => signNote(text, [alice.signer]), NoteError);
    });

  it('cannot be made without a signer', () => {
    assert.throws(() => signNote('text\n', []), NoteError);
  });
});

describe('a verifier key', () => {
  const text = formatVerifierKey('site.example/alice', alice.publicKey);
  it('reads as it was written', () => {
    assert.equal(idOf(parseVerifierKey(text)), idOf(alice.verifier));
    assert.deepEqual(open(signNote('text\n', [alice.signer]), [parseVerifierKey(text)]), [idOf(alice.verifier)]);
  });

  const key = Buffer.from(text.split('+').slice(2).join('+'), 'base64');
  const withKey = (bytes: Buffer): string => `a+00000000+${bytes.toString('base64')}`;
  for (const [why, wrong] of Object.entries({
    'with another name': text.replace('alice', 'bob'),
    'with another id': text.replace(/\+[0-9a-f]{8}\+/, '+00000000+'),
    'with an id in capitals': text.replace(/\+[0-9a-f]{8}\+/, (id) =>
      id.toUpperCase().replace(/\+\d{8}\+/, '+ABCDEF01+'),
    ),
    'of another type': withKey(Buffer.concat([Uint8Array.of(4), key.subarray(1)])),
    'that is too short': withKey(key.subarray(0, 32)),
    'that is too long': withKey(Buffer.concat([key, Uint8Array.of(0)])),
    'that is empty': 'a+00000000+',
    'without a name': text.replace('site.example/alice', ''),
    'with a space in its name': text.replace('alice', 'al ice'),
    'with a line end': `${text}\n`,
    'that is private': `PRIVATE+KEY+${text}`,
  }))
    it(`is refused ${why}`, () => {
      assert.throws(() => parseVerifierKey(wrong), NoteError);
    });

  it('is Ed25519, under a name that fits on a line', () => {
    const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    assert.throws(() => formatVerifierKey('a', p256.publicKey), /not an Ed25519 key/);
    assert.throws(() => verifierOf('a', p256.publicKey), /not an Ed25519 key/);
    assert.throws(() => signerOf('a', p256.privateKey), /not an Ed25519 key/);
    for (const name of ['', 'a b', 'a+b', 'a\nb', 'a\u2003b', 'a\u0085b', '\ud800']) {
      assert.equal(isKeyName(name), false, JSON.stringify(name));
      assert.throws(() => signerOf(name, alice.privateKey), /a key name must not contain/);
      assert.throws(() => formatVerifierKey(name, alice.publicKey), /a key name must not contain/);
    }
    for (const name of ['a', 'site.example/key-1', 'clé', '密钥', '😀']) assert.equal(isKeyName(name), true, name);
  });
});
