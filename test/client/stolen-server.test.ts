// A compromised server against the built client: whatever it sends instead of what the site's
// signers made for this client, this name and this time, nothing of it runs, nothing stays, and the
// client still accepts the real program.
import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatManifest, type Manifest } from '../../notes/manifest.ts';
import { type NoteSigner, signNote } from '../../notes/note.ts';
import { type Client, makeClient } from '../support/client-job.ts';
import { type FakeServer, formatAnswer, reply, startFake } from '../support/client-server.ts';
import {
  answerOf,
  HOUR,
  makeSigner,
  manifestHeader,
  manifestOf,
  type Signer,
  signedManifest,
} from '../support/signed-programs.ts';

const [alice, bob, boss] = ['site.example/alice', 'site.example/bob', 'site.example/boss'].map(makeSigner) as [
  Signer,
  Signer,
  Signer,
];
/** Two signers of weight 1, or one of weight 2. */
const TRUSTED = `# The signers of site.example\n${alice.verifierKey} 1\n${bob.verifierKey}\n\n${boss.verifierKey} 2\n`;
const BOTH = [alice, bob];
const stranger = makeSigner('site.example/alice');
const other = makeSigner('other.example/key');
/** The key of someone else who claims that it is one of ours. */
const posing = (as: Signer): NoteSigner => ({ ...stranger, name: as.name, id: as.id });

let fake: FakeServer;
let client: Client;
let executed: string;
const serials = (): string => join(client.root, 'serials');
/** Every program of these tests shows that it ran. */
const script = (comment: string): string => `#!/bin/sh\n: > '${executed}' # ${comment}\n`;
const COLLECT = (): string => script('collect');
const WIPE = (): string => script('wipe everything');

before(async () => {
  fake = await startFake();
  client = makeClient();
  executed = join(client.root, 'executed');
  writeFileSync(join(client.root, 'trusted'), TRUSTED, { mode: 0o600 });
  client.configure({
    URLGetURL: fake.url,
    DsvVerifyManifest: 'Y',
    DsvThreshold: '2',
    DsvTrustedKeysFile: 'trusted',
    DsvSerialFile: 'serials',
  });
  await assertRuns();
});
after(async () => {
  await fake.close();
  client.remove();
});

async function assertRuns(): Promise<void> {
  fake.get = reply(answerOf(COLLECT(), good()));
  const ended = await client.execute(['collect.sh']);
  assert.deepEqual([ended, existsSync(executed)], [{ code: 0, signal: null, stdout: '', stderr: '' }, true]);
  rmSync(executed);
}

const attacks: { kind: string; what: string; answer(): Buffer; why: RegExp }[] = [];
const REFUSED = /^webjob: error: the program's manifest is refused: /;
const refusedFor = (why: string): RegExp => new RegExp(`${REFUSED.source}${why}`);

function attack(kind: string, what: string, answer: () => Buffer, why = REFUSED): void {
  attacks.push({ kind, what, answer, why });
}

/** What the client would accept if everything else were right: a higher serial than it has seen. */
const NEXT = { serial: 101 };

/** The real program with a manifest that the signers made for something else. */
function signed(
  kind: string,
  what: string,
  more: () => Partial<Manifest>,
  why: string,
  signers: readonly NoteSigner[] = BOTH,
): void {
  attack(
    kind,
    what,
    () => answerOf(COLLECT(), signedManifest(manifestOf(COLLECT(), { ...NEXT, ...more() }), signers)),
    refusedFor(why),
  );
}

const good = (): string => signedManifest(manifestOf(COLLECT()), BOTH);
const SIGNERS: [string, NoteSigner[]][] = [
  ['two', BOTH],
  ['the boss', [boss]],
  ['all three', [...BOTH, boss]],
];

for (const [who, signers] of SIGNERS) {
  attack(
    'another program',
    `that ${who} signed, under its own name`,
    () => answerOf(WIPE(), signedManifest(manifestOf(WIPE(), { ...NEXT, name: 'wipe.sh' }), signers)),
    refusedFor('it is for wipe\\.sh, not collect\\.sh\n'),
  );
  attack(
    'another program',
    `under the manifest of the real one, by ${who}`,
    () => answerOf(WIPE(), signedManifest(manifestOf(COLLECT(), { ...NEXT, size: WIPE().length }), signers)),
    refusedFor('it is for a program with another SHA-256\n'),
  );
  signed(
    'a serial',
    `lower than the last, by ${who}`,
    () => ({ serial: 99 }),
    'its serial 99 is lower than 100',
    signers,
  );
  signed('a serial', `of 0, by ${who}`, () => ({ serial: 0 }), 'its serial 0 is lower than 100', signers);
  attack(
    'a serial',
    `that another program had, by ${who}`,
    () => answerOf(WIPE(), signedManifest(manifestOf(WIPE()), signers)),
    refusedFor('another manifest had its serial 100\n'),
  );
  signed(
    'a client',
    `that is another, by ${who}`,
    () => ({ clients: ['client2'] }),
    'it is not for client1\n',
    signers,
  );
}
attack('another program', 'of the same size, under the real manifest', () =>
  answerOf(COLLECT().replace('collect', 'destroy'), good()),
);
attack('another program', 'with the legacy signature of nobody', () =>
  formatAnswer(WIPE(), '200 OK', `${manifestHeader(good())}WebJob-Payload-Signature: AAAA\r\n`),
);

for (const name of ['Collect.sh', 'collect', 'collect.sh.', 'collect.sh.sh', 'acollect.sh', 'collect-sh', 'COLLECT.SH'])
  signed('a name', name, () => ({ name }), 'it is for ');

for (const clients of [
  ...[['client'], ['client11'], ['Client1'], ['CLIENT1'], ['1'], ['lient1'], ['client-1'], ['client_1'], ['clien?']],
  ...[
    ['client?1'],
    ['?client1'],
    ['client1?'],
    ['*2'],
    ['2*'],
    ['c*2*'],
    ['c*t'],
    ['*client1?'],
    ['???????1'],
    ['x*1'],
  ],
  ...[
    ['client2', 'client3'],
    ['web-*', 'db-*', '*-client1'],
  ],
])
  signed('a client', clients.join(' '), () => ({ clients }), 'it is not for client1\n');

for (const [what, from, to, why] of [
  ['that ended two seconds ago', -HOUR, -2_000, 'it expired at '],
  ['that ended an hour ago', -2 * HOUR, -HOUR, 'it expired at '],
  ['that ended a year ago', -9000 * HOUR, -8760 * HOUR, 'it expired at '],
  ['that ended in 1970', -Math.floor(Date.now() / 1000) * 1000, -Math.floor(Date.now() / 1000) * 1000 + HOUR, 'it exp'],
  ['that begins in five seconds', 5_000, HOUR, 'it is not valid before '],
  ['that begins in an hour', HOUR, 2 * HOUR, 'it is not valid before '],
  ['that begins in a year', 8760 * HOUR, 9000 * HOUR, 'it is not valid before '],
] as const)
  signed(
    'a time',
    what,
    () => {
      const now = Math.floor(Date.now() / 1000) * 1000;
      return { notBefore: new Date(now + from), notAfter: new Date(now + to) };
    },
    why,
  );

const WEIGHT = 'signed with a weight of 1, but 2 is required\n';
const WRONG = 'the signature of site.example/(?:alice|bob|boss)[+][0-9a-f]{8} is wrong\n';
const NONE = 'no signature of a trusted key\n';
for (const [what, signers, why] of [
  ['one of two', [alice], WEIGHT],
  ['the other of two', [bob], WEIGHT],
  ['one of two, twice', [alice, alice], WEIGHT],
  ['one of two, a hundred times', Array.from({ length: 20 }, () => bob), WEIGHT],
  ['one of two, and a key that nobody knows', [alice, other], WEIGHT],
  ['one of two, and a key of the name of the other', [bob, stranger], WEIGHT],
  ['one of two under two names', [alice, { ...alice, name: bob.name }], WEIGHT],
  ['one of two under another id', [alice, { ...alice, id: bob.id }], WEIGHT],
  ['a key that nobody knows', [other], NONE],
  ['keys that nobody knows', [other, stranger, makeSigner('site.example/boss')], NONE],
  ['the right key under another name', [{ ...boss, name: 'site.example/chief' }], NONE],
  ['a wrong key with the name and id of one of two', [posing(alice), bob], WRONG],
  ['a wrong key with the name and id of the other', [alice, posing(bob)], WRONG],
  ['a wrong key with the name and id of the boss', [posing(boss)], WRONG],
  ['a wrong key with the name and id of the boss, and two good ones', [alice, bob, posing(boss)], WRONG],
  ['one of two, once well and once badly', [alice, posing(alice), bob], WRONG],
  [
    'the right keys in each other’s place',
    [
      { ...alice, sign: bob.sign },
      { ...bob, sign: alice.sign },
    ],
    WRONG,
  ],
  ['the boss, over another text', [{ ...boss, sign: () => boss.sign('another\n') }], WRONG],
  ['the boss, over no text', [{ ...boss, sign: () => boss.sign('') }], WRONG],
  ['the boss, over the text without its end', [{ ...boss, sign: (text) => boss.sign(text.trimEnd()) }], WRONG],
  ['the boss, with half of a signature', [{ ...boss, sign: (text) => boss.sign(text).subarray(0, 32) }], WRONG],
  [
    'the boss, with a byte too many',
    [{ ...boss, sign: (text) => Buffer.concat([boss.sign(text), Buffer.alloc(1)]) }],
    WRONG,
  ],
  ['the boss, with zeros', [{ ...boss, sign: () => Buffer.alloc(64) }], WRONG],
  [
    'the boss, with a timestamp in front',
    [{ ...boss, sign: (text) => Buffer.concat([Buffer.alloc(8), boss.sign(text)]) }],
    WRONG,
  ],
] satisfies [string, NoteSigner[], string][])
  signed('signatures', `by ${what}`, () => ({}), why, signers);

for (const [what, change] of Object.entries({
  'without its last byte': (text) => text.slice(0, -1),
  'without its first byte': (text) => text.slice(1),
  'with a byte more': (text) => `${text}\n`,
  'with nothing in it': () => '',
  'with half of it': (text) => text.slice(0, text.length / 2),
  twice: (text) => text + text,
  'with line ends of DOS': (text) => text.replaceAll('\n', '\r\n'),
} satisfies Record<string, (text: string) => string>))
  attack(
    'the program',
    what,
    () => answerOf(change(COLLECT()), good()),
    refusedFor('it is for \\d+ bytes, and \\d+ were sent\n'),
  );
for (let part = 0; part < 12; part++)
  attack(
    'the program',
    `with another byte after ${part} twelfths`,
    () => {
      const bytes = Buffer.from(COLLECT());
      const at = Math.floor((bytes.length * part) / 12);
      bytes[at] = (bytes[at] ?? 0) ^ 0x20;
      return answerOf(bytes, good());
    },
    refusedFor('it is for a program with another SHA-256\n'),
  );
attack(
  'the program',
  'that breaks off',
  () => {
    const whole = answerOf(COLLECT(), good());
    return whole.subarray(0, whole.length - 5);
  },
  /^webjob: error: GET of collect\.sh failed: /,
);

const head = (lines: string): Buffer => formatAnswer(COLLECT(), '200 OK', lines);
const MISSING = /^webjob: error: the program has no manifest\n/;
for (const [what, lines, why] of [
  ['is missing', () => '', MISSING],
  ['has another name', () => manifestHeader(good()).replace('Payload', 'Program'), MISSING],
  ['has a blank for its dash', () => manifestHeader(good()).replace('-Manifest', '_Manifest'), MISSING],
  ['is empty', () => 'WebJob-Payload-Manifest: \r\n', REFUSED],
  ['comes twice', () => manifestHeader(good()).repeat(2), refusedFor('2 came\n')],
  ['comes three times', () => manifestHeader(good()).repeat(3), refusedFor('3 came\n')],
  ['comes with that of another behind it', () => manifestHeader(good()) + manifestHeader('x'), refusedFor('2 came\n')],
  ['comes behind that of another', () => manifestHeader('x') + manifestHeader(good()), refusedFor('2 came\n')],
  [
    'has two values',
    () => manifestHeader(good()).replace('\r\n', `, ${Buffer.from(good()).toString('base64')}\r\n`),
    REFUSED,
  ],
  ['is not base64', () => 'WebJob-Payload-Manifest: !!!\r\n', refusedFor('it is not base64\n')],
  ['is the note as it is, up to its line end', () => `WebJob-Payload-Manifest: ${good().split('\n')[0]}\r\n`, REFUSED],
  ['is hexadecimal', () => `WebJob-Payload-Manifest: ${Buffer.from(good()).toString('hex')}\r\n`, REFUSED],
  [
    'is base64 of the URL alphabet',
    () => manifestHeader(`${good()}??>>`).replaceAll('/', '_').replaceAll('+', '-'),
    REFUSED,
  ],
  ['is base64 with a blank in it', () => manifestHeader(good()).replace(/(: .{20})/, '$1 '), REFUSED],
  ['is base64 with its end cut off', () => manifestHeader(good()).replace(/.{3}\r\n$/, '\r\n'), REFUSED],
  ['is base64 of base64', () => manifestHeader(Buffer.from(good()).toString('base64')), REFUSED],
  ['is base64 of nothing but zeros', () => manifestHeader(Buffer.alloc(300)), REFUSED],
  ['is base64 of bytes that are not UTF-8', () => manifestHeader(Buffer.from(good()).fill(0xff, 30, 40)), REFUSED],
  ['is 4,097 bytes long', () => manifestHeader(fill(4097)), refusedFor('longer than 4096 bytes\n')],
  ['is 12,000 bytes long', () => manifestHeader(fill(12_000)), refusedFor('longer than 4096 bytes\n')],
  [
    'is longer than all headers may be',
    () => manifestHeader(fill(20_000)),
    /^webjob: error: GET of collect\.sh failed: the header/,
  ],
  [
    'is a legacy signature',
    () => `WebJob-Payload-Manifest: ${sign(null, Buffer.from(COLLECT()), boss.privateKey).toString('base64')}\r\n`,
    REFUSED,
  ],
] satisfies [string, () => string, RegExp][])
  attack('a header', what, () => head(lines()), why);
for (let part = 1; part < 10; part++)
  attack('a header', `holds ${part} tenths of the manifest`, () => {
    const note = Buffer.from(good());
    return head(manifestHeader(note.subarray(0, Math.floor((note.length * part) / 10))));
  });

/** A valid manifest, padded to this size with signatures of unknown keys. */
function fill(length: number): string {
  let note = good();
  const line = `— x ${Buffer.alloc(68).toString('base64')}\n`;
  while (Buffer.byteLength(note) + Buffer.byteLength(line) * 2 < length) note += line;
  const rest = length - Buffer.byteLength(note) - Buffer.byteLength(line) + 1;
  return `${note}${line.replace('x', 'x'.repeat(rest))}`;
}

const FORMS: Record<string, (text: string) => string> = {
  'another first line': (text) => text.replace('manifest/v1', 'manifest/v2'),
  'no first line': (text) => text.replace(/^.*\n/, ''),
  'another line in front': (text) => `origin\n${text}`,
  'another line at the end': (text) => `${text}root yes\n`,
  'a blank line at the end': (text) => `${text}\n`,
  'a blank line in it': (text) => text.replace('\nsize', '\n\nsize'),
  'two names': (text) => text.replace(/(name .*\n)/, 'name wipe.sh\n$1'),
  'no name': (text) => text.replace(/name .*\n/, ''),
  'a path for its name': (text) => text.replace('name collect.sh', 'name ../collect.sh'),
  'a blank behind its name': (text) => text.replace('collect.sh\n', 'collect.sh \n'),
  'no client': (text) => text.replace(/client .*\n/, ''),
  'an empty client': (text) => text.replace('client client1', 'client '),
  'two clients in a line': (text) => text.replace('client client1', 'client client1 client2'),
  'a client with a slash': (text) => text.replace('client client1', 'client */client1'),
  'a pattern of another kind': (text) => text.replace('client client1', 'client [a-z]*1'),
  'its clients behind the size': (text) => text.replace(/(client .*\n)(size .*\n)/, '$2$1'),
  'no size': (text) => text.replace(/size .*\n/, ''),
  'a size with a zero in front': (text) => text.replace('size ', 'size 0'),
  'a negative size': (text) => text.replace('size ', 'size -'),
  'a size in hexadecimal': (text) => text.replace(/size (\d+)/, (_, size) => `size 0x${Number(size).toString(16)}`),
  'no hash': (text) => text.replace(/sha256 .*\n/, ''),
  'a hash in capitals': (text) => text.replace(/sha256 .*/, (line) => `sha256 ${line.slice(7).toUpperCase()}`),
  'half a hash': (text) => text.replace(/(sha256 .{32}).*/, '$1'),
  'an MD5 for its hash': (text) => text.replace(/sha256 .*/, 'md5 d41d8cd98f00b204e9800998ecf8427e'),
  'no serial': (text) => text.replace(/serial .*\n/, ''),
  'a negative serial': (text) => text.replace('serial ', 'serial -'),
  'a serial that no double holds': (text) => text.replace(/serial .*/, 'serial 9007199254740993'),
  'a serial with an exponent': (text) => text.replace(/serial .*/, 'serial 1e9'),
  'no end': (text) => text.replace(/not-after .*\n/, ''),
  'no beginning': (text) => text.replace(/not-before .*\n/, ''),
  'an end before its beginning': (text) => text.replace(/not-after .*/, 'not-after 2001-01-01T00:00:00Z'),
  'an end that is no day': (text) => text.replace(/not-after .{10}/, 'not-after 2999-02-30'),
  'an end in another zone': (text) => text.replace(/(not-after .*)Z/, '$1+00:00'),
  'an end with a fraction': (text) => text.replace(/(not-after .*)Z/, '$1.5Z'),
  'an end that never comes': (text) => text.replace(/not-after .*/, 'not-after never'),
  'an end in the year 10000': (text) => text.replace('not-after ', 'not-after +01'),
};
for (const [what, change] of Object.entries(FORMS)) {
  attack('a text', `changed behind the signatures, with ${what}`, () => {
    const [text = '', lines = ''] = good().split('\n\n');
    return answerOf(COLLECT(), `${change(`${text}\n`)}\n${lines}`);
  });
  attack('a text', `that the signers signed, with ${what}`, () =>
    answerOf(COLLECT(), signNote(change(formatManifest(manifestOf(COLLECT(), NEXT))), BOTH)),
  );
}
attack('a text', 'of another kind of note, by the same keys', () =>
  answerOf(COLLECT(), signNote('site.example/log\n4\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n', BOTH)),
);

describe(`a stolen server (${attacks.length} attacks)`, () => {
  it('is tried with more than 200 different attacks', (context) => {
    context.diagnostic(`${attacks.length} attacks on programs`);
    assert.ok(attacks.length >= 200);
    const names = attacks.map(({ kind, what }) => `${kind} ${what}`);
    assert.equal(new Set(names).size, names.length);
  });

  for (const kind of new Set(attacks.map((one) => one.kind)))
    it(`gets nothing run by ${kind}`, async () => {
      for (const { what, answer, why } of attacks.filter((one) => one.kind === kind)) {
        const was = readFileSync(serials(), 'utf8');
        fake.get = reply(answer());
        const { code, stdout, stderr } = await client.execute(['collect.sh']);
        assert.equal(existsSync(executed), false, `${kind} ${what}: it ran`);
        assert.match(stderr.replace(/^webjob: warning: .*\n/gm, ''), why, `${kind} ${what}`);
        assert.deepEqual([code, stdout, client.left()], [3, '', []], `${kind} ${what}: ${stderr}`);
        assert.equal(readFileSync(serials(), 'utf8'), was, `${kind} ${what}`);
      }
      await assertRuns();
    });
});
