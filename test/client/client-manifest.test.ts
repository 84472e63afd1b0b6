// Programs with manifests on the built client: what is accepted, the effects of settings, that
// nothing is executable before everything is verified, and how seen serial numbers are stored.
import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { Manifest } from '../../notes/manifest.ts';
import type { NoteSigner } from '../../notes/note.ts';
import { type Client, type Ended, makeClient, until } from '../support/client-job.ts';
import { type FakeServer, formatAnswer, reply, startFake } from '../support/client-server.ts';
import { inject, NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import { answerOf, HOUR, makeSigner, manifestHeader, manifestOf, signedManifest } from '../support/signed-programs.ts';

const [alice, bob, boss] = [
  makeSigner('site.example/alice'),
  makeSigner('site.example/bob'),
  makeSigner('site.example/boss'),
];
const KEYS = `${alice.verifierKey}\n${bob.verifierKey} 1\n${boss.verifierKey} 2\n`;
const PROGRAM = '#!/bin/sh\necho "$0" ran\n';
const RAN = (name = 'collect.sh'): string => `${join(client.temp, name)} ran\n`;

let fake: FakeServer;
let client: Client;
const serials = (): string => join(client.root, 'serials');

before(async () => {
  fake = await startFake();
  client = makeClient();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  for (const name of readdirSync(client.root))
    if (name.startsWith('serials') || name.startsWith('.serials')) rmSync(join(client.root, name), { recursive: true });
  trust(KEYS);
  configure();
});

function trust(keys: string): void {
  writeFileSync(join(client.root, 'trusted'), keys, { mode: 0o600 });
}

function configure(more: Record<string, string> = {}): void {
  client.configure({
    URLGetURL: fake.url,
    DsvVerifyManifest: 'Y',
    DsvThreshold: '2',
    DsvTrustedKeysFile: 'trusted',
    DsvSerialFile: 'serials',
    ...more,
  });
}

/** A manifest with these changes, as a server sends it. */
const signed = (more: Partial<Manifest> = {}, signers: readonly NoteSigner[] = [boss], program = PROGRAM): Buffer =>
  answerOf(program, signedManifest(manifestOf(program, more), signers));

async function run(answer: Buffer = signed(), name = 'collect.sh'): Promise<Ended> {
  fake.get = reply(answer);
  return await client.execute([name]);
}

async function assertRuns(answer: Buffer = signed(), name = 'collect.sh'): Promise<void> {
  assert.deepEqual(await run(answer, name), { code: 0, signal: null, stdout: RAN(name), stderr: '' });
}

async function assertRefused(why: RegExp, answer: Buffer = signed(), code = 3): Promise<void> {
  const ended = await run(answer);
  assert.match(ended.stderr, why);
  assert.deepEqual([ended.code, ended.stdout, client.left()], [code, '', []]);
}

describe('a program with a manifest', () => {
  for (const [who, signers] of Object.entries({
    'the two that must': [alice, bob],
    'the two in the other order': [bob, alice],
    'one whose signature counts twice': [boss],
    'more than must': [alice, bob, boss],
    'two, and by keys that the client does not know': [makeSigner('x'), alice, makeSigner('site.example/bob'), bob],
    'two, one of them twice': [alice, alice, bob],
  }))
    it(`runs when it is signed by ${who}`, async () => {
      await assertRuns(signed({}, signers));
    });

  for (const clients of [
    ['*'],
    ['client1'],
    ['client?'],
    ['?lient1'],
    ['c*1'],
    ['**client1**'],
    ['*l*e*1'],
    ['x', 'y*', 'cl*'],
  ])
    it(`runs when it is for ${clients.join(' ')}`, async () => {
      await assertRuns(signed({ clients }));
    });

  it('runs until the last second of its time', async () => {
    const { notBefore } = manifestOf(PROGRAM);
    const at = new Date(Math.floor(Date.now() / 1000) * 1000);
    await assertRuns(signed({ notBefore, notAfter: new Date(at.getTime() + 3000) }));
    await assertRuns(signed({ serial: 101, notBefore: at, notAfter: new Date(at.getTime() + HOUR) }));
  });

  it('runs under a legacy signature, too, and not when either is wrong', async () => {
    const publicKey = join(client.root, 'key.pub');
    writeFileSync(publicKey, alice.publicKey.export({ type: 'spki', format: 'pem' }));
    configure({ DsvVerifySignature: 'Y', DsvPublicKeyFile: publicKey });
    const line = (bytes: string): string =>
      `WebJob-Payload-Signature: ${sign(null, Buffer.from(bytes), alice.privateKey).toString('base64')}\r\n`;
    const answer = (bytes: string, note: Partial<Manifest>): Buffer =>
      formatAnswer(PROGRAM, '200 OK', line(bytes) + manifestHeader(signedManifest(manifestOf(PROGRAM, note), [boss])));
    await assertRuns(answer(PROGRAM, {}));
    await assertRefused(/the program's signature is wrong/, answer('other', {}));
    await assertRefused(/its manifest is refused|manifest is refused: it is for/, answer(PROGRAM, { name: 'x' }));
  });

  it('is checked before its GetHook, under the requested name', async () => {
    const hooked = join(client.root, 'hooked');
    configure({ GetHookEnable: 'Y', GetHookSuffix: '.x', GetHookCommandLine: `: > ${hooked}; cp %file %cmd` });
    await assertRefused(/it is for collect\.sh, not collect\.sh\.x\n/);
    assert.equal(existsSync(hooked), false);
    await assertRuns(signed({ name: 'collect.sh.x' }));
  });

  it('is reported with UploadOnGetFailure when it is refused', async () => {
    configure({ UploadOnGetFailure: 'Y', URLPutURL: fake.url });
    const ended = await run(signed({ name: 'wipe.sh' }));
    assert.equal(ended.code, 3);
    await fake.idle();
    const report = fake.requests().at(-1)?.toString() ?? '';
    assert.match(
      report,
      /^PUT [\s\S]*\nGetError=the program's manifest is refused: it is for wipe\.sh, not collect\.sh\n/,
    );
  });

  it('is not executable, and not under its own name, until its last byte is checked', async () => {
    const program = `${PROGRAM}${'#'.repeat(200_000)}\n`;
    const whole = signed({}, [boss], program);
    const bad = Buffer.from(whole);
    bad.write('!', bad.length - 2);
    let finish = (): void => {};
    fake.get = (socket) => {
      socket.write(bad.subarray(0, bad.length - 2));
      finish = () => socket.end(bad.subarray(bad.length - 2));
    };
    const running = client.start(['collect.sh']);
    const fetched = (): string | undefined => client.left().find((path) => path.endsWith('/collect.sh'));
    const size = (): number => statSync(join(client.temp, fetched() ?? '')).size;
    await until(() => fetched() !== undefined && size() > 100_000, 'the program comes', running);
    assert.equal(statSync(join(client.temp, fetched() ?? '')).mode & 0o777, 0o600);
    assert.equal(existsSync(join(client.temp, 'collect.sh')), false);
    assert.equal(existsSync(serials()), false);
    finish();
    const { code, stdout, stderr } = await running.ended;
    assert.match(stderr, /it is for a program with another SHA-256\n/);
    assert.deepEqual([code, stdout, client.left(), existsSync(serials())], [3, '', [], false]);
  });
});

describe('a program without a manifest', () => {
  it('is refused, and runs with DsvRequireManifest=N, which still refuses bad manifests', async () => {
    await assertRefused(
      /^webjob: error: the program has no manifest\nwebjob: hint: DsvRequireManifest=Y /,
      formatAnswer(PROGRAM),
    );
    configure({ DsvRequireManifest: 'N' });
    await assertRuns(formatAnswer(PROGRAM));
    await assertRuns();
    await assertRefused(/it is for wipe\.sh/, signed({ name: 'wipe.sh' }));
    await assertRefused(/no blank line before/, formatAnswer(PROGRAM, '200 OK', 'WebJob-Payload-Manifest: \r\n'));
  });

  it('runs with DsvVerifyManifest=N, whatever the server sends', async () => {
    configure({ DsvVerifyManifest: 'N' });
    await assertRuns(signed({ name: 'wipe.sh' }));
    assert.equal(existsSync(serials()), false);
  });
});

describe('DsvTrustedKeysFile', () => {
  for (const [what, keys, why] of [
    ['that is empty', '', 'has keys with a total weight of 0, and DsvThreshold is 2'],
    [
      'that cannot reach the threshold',
      `${alice.verifierKey}\n`,
      'has keys with a total weight of 1, and DsvThreshold is 2',
    ],
    ['with the same key twice', `${KEYS}${bob.verifierKey}\n`, `line 4: the same key as ${bob.name}\\+${bob.id}`],
    ['with a key that is none', `# ours\n\nkey\n`, 'line 3: not a verifier key'],
    ['with a weight of 0', `${alice.verifierKey} 0\n`, 'line 1: not a verifier key and a weight of 1 to 99'],
    ['with a weight of 100', `${alice.verifierKey} 100\n`, 'line 1: not a verifier key and a weight of 1 to 99'],
    [
      'with an id that is not of its key',
      KEYS.replace(alice.id, bob.id),
      'line 1: the id does not belong to this name and key',
    ],
    [
      'with a key in PEM',
      alice.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
      'line 1: not a verifier key',
    ],
    ['that is too long', `${KEYS}${'#\n'.repeat(40_000)}`, 'is longer than 65536 bytes'],
  ] as const)
    it(`${what} ends the run before the server is asked: exit code 2`, async () => {
      trust(keys);
      const asked = fake.requests().length;
      await assertRefused(new RegExp(`^webjob: error: DsvTrustedKeysFile: \\S+/trusted ${why}`), signed(), 2);
      assert.equal(fake.requests().length, asked);
    });

  it('is refused when it lists one key under two names: one person would count as two', async () => {
    const twin = makeSigner('site.example/twin');
    const again = alice.verifierKey.replace(/\+.*/, '');
    const { formatVerifierKey } = await import('../../notes/ed25519.ts');
    trust(`${alice.verifierKey}\n${twin.verifierKey}\n${formatVerifierKey(`${again}2`, alice.publicKey)}\n`);
    await assertRefused(/line 3: the same key as site\.example\/alice/, signed(), 2);
  });

  it('ends the run when it is missing, and revokes a key that is removed from it', async () => {
    await assertRuns();
    trust(`${alice.verifierKey}\n${bob.verifierKey}\n`);
    await assertRefused(/no signature of a trusted key/);
    await assertRuns(signed({}, [alice, boss, bob]));
    rmSync(join(client.root, 'trusted'));
    await assertRefused(/^webjob: error: DsvTrustedKeysFile: \S+ cannot be read: ENOENT\n/, signed(), 2);
  });
});

describe('DsvSerialFile', () => {
  const seen = (): string[][] =>
    readFileSync(serials(), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => line.split(' ').slice(0, 3));

  it('keeps the highest serial of each name, and refuses a lower one forever', async () => {
    await assertRuns(signed({ serial: 5 }));
    await assertRuns(signed({ serial: 5 }));
    await assertRuns(signed({ serial: 7 }));
    await assertRefused(/its serial 5 is lower than 7, which was seen before\n/, signed({ serial: 5 }));
    await assertRuns(signed({ serial: 1, name: 'other.sh' }), 'other.sh');
    await assertRefused(/another manifest had its serial 7\n/, signed({ serial: 7 }, [boss], `${PROGRAM}exit\n`));
    await assertRuns(signed({ serial: 8 }, [alice, bob]));
    assert.deepEqual(seen(), [
      ['client1', 'collect.sh', '8'],
      ['client1', 'other.sh', '1'],
    ]);
    assert.equal(statSync(serials()).mode & 0o777, 0o600);
  });

  it('may be one file for several clients, each with its own serials', async () => {
    await assertRuns(signed({ serial: 7 }));
    configure({ ClientId: 'client2' });
    await assertRuns(signed({ serial: 3, clients: ['*'] }));
    await assertRefused(/serial 2 is lower than 3/, signed({ serial: 2, clients: ['*'] }));
    assert.deepEqual(seen(), [
      ['client1', 'collect.sh', '7'],
      ['client2', 'collect.sh', '3'],
    ]);
  });

  it('refuses a lower serial before the first byte of the program arrives', async () => {
    await assertRuns(signed({ serial: 5 }));
    configure({ GetTimeLimit: '20' });
    const whole = signed({ serial: 4 });
    fake.get = (socket) => socket.write(whole.subarray(0, whole.length - PROGRAM.length));
    const { code, stderr } = await client.execute(['collect.sh']);
    assert.match(stderr, /its serial 4 is lower than 5, which was seen before\n/);
    assert.equal(code, 3);
  });

  it('does not change when a program is refused', async () => {
    await assertRuns(signed({ serial: 5 }));
    const was = readFileSync(serials());
    await assertRefused(/it is not for client1/, signed({ serial: 9, clients: ['client2'] }));
    const other = signedManifest(manifestOf(PROGRAM.replace('ran', 'RAN'), { serial: 9 }), [boss]);
    await assertRefused(/it is for a program with another SHA-256/, answerOf(PROGRAM, other));
    assert.deepEqual(readFileSync(serials()), was);
  });

  for (const [what, text] of Object.entries({
    'is cut off': 'client1 collect.sh 5 ',
    'is cut off behind a line': `client1 collect.sh 5 ${'0'.repeat(64)}`,
    'contains other files': 'hello\n',
    'holds a serial that is none': `client1 collect.sh -5 ${'0'.repeat(64)}\n`,
    'holds a line with more': `client1 collect.sh 5 ${'0'.repeat(64)} x\n`,
    'holds zeros': '\0'.repeat(512),
  }))
    it(`refuses all programs when it ${what}: exit code 2`, async () => {
      writeFileSync(serials(), text);
      await assertRefused(/^webjob: error: DsvSerialFile: \S+ line 1 was not written by webjob\n/, signed(), 2);
      assert.equal(readFileSync(serials(), 'utf8'), text);
    });

  it('refuses new serials when it cannot be read or written, and runs those it has seen', async () => {
    mkdirSync(serials());
    await assertRefused(/^webjob: error: DsvSerialFile: \S+ cannot be read: EISDIR\n/, signed(), 2);
    configure({ DsvSerialFile: join('none', 'serials') });
    await assertRefused(/^webjob: error: DsvSerialFile: \S+ cannot be written: .*ENOENT\n/);
  });

  it('keeps the serials of concurrent runs, and refuses a lower one that arrives late', async () => {
    const names = ['a.sh', 'b.sh', 'c.sh', 'd.sh', 'e.sh'];
    fake.get = (socket, received) => {
      const [, name = ''] = /FILENAME=([a-z.]+)/.exec(received().toString()) ?? [];
      socket.end(signed({ name }));
    };
    const ended = await Promise.all(names.map((name) => client.start([name]).ended));
    assert.deepEqual(
      ended.map(({ code, stderr }) => [code, stderr]),
      names.map(() => [0, '']),
    );
    assert.deepEqual(
      seen(),
      names.map((name) => ['client1', name, '100']),
    );

    const old = signed({ serial: 5 });
    let finish = (): void => {};
    let isAsked = false;
    fake.get = (socket) => {
      socket.write(old.subarray(0, old.length - 1));
      finish = () => socket.end(old.subarray(old.length - 1));
      isAsked = true;
    };
    const late = client.start(['collect.sh']);
    await until(() => isAsked, 'the first asks', late);
    await assertRuns(signed({ serial: 6 }));
    finish();
    const { code, stdout, stderr } = await late.ended;
    assert.match(stderr, /its serial 5 is lower than 6, which was seen before\n/);
    assert.deepEqual([code, stdout, seen()[1]], [3, '', ['client1', 'collect.sh', '6'].with(1, 'b.sh').with(2, '100')]);
  });

  it('is written in spite of the lock of a run that was killed', async () => {
    writeFileSync(`${serials()}.lock`, `webjobctl 4194301 ${(await import('node:os')).hostname()} 1\n`);
    await assertRuns();
    assert.deepEqual(
      readdirSync(client.root).filter((name) => name.includes('serials')),
      ['serials'],
    );
  });

  describe('a serial under strace', { skip: NO_STRACE }, () => {
    const trace = (): string => join(client.root, 'trace');

    it('is on disk, with its name, before the program is made executable', async () => {
      fake.get = reply(signed());
      const { code } = await client.execute(['collect.sh'], { wrapper: traceTo(trace()) });
      assert.equal(code, 0);
      const calls = readTrace(trace());
      const find = (what: string, pattern: RegExp, from = 0): number => {
        const found = calls.findIndex(({ text }, index) => index >= from && pattern.test(text));
        assert.ok(found >= 0, `${what}: ${calls.map(({ text }) => text).join('\n')}`);
        return found;
      };
      const written = find('its bytes are on disk', /^fsync\(\d+<[^>]*\/\.serials\.[0-9a-f]{12}>\)/);
      const renamed = find(
        'it takes its name',
        /^rename\("[^"]*\/\.serials\.[^"]*"\.*, "[^"]*\/serials"\.*\)/,
        written,
      );
      const synced = find('the name is on disk', new RegExp(`^fsync\\(\\d+<${client.root}>\\)`), renamed);
      find('the program takes its name', /^rename\("[^"]*\/collect\.sh"/, synced);
    });

    for (const [call, error] of [
      ['fsync', 'EIO'],
      ['rename', 'ENOSPC'],
    ] as const)
      it(`stops the program when it cannot be written, because ${call} fails`, async () => {
        fake.get = reply(signed());
        const wrapper = inject(trace(), `${call}:error=${error}:when=1`, []);
        const { code, stdout, stderr } = await client.execute(['collect.sh'], { wrapper });
        assert.match(stderr, new RegExp(`^webjob: error: DsvSerialFile: \\S+ cannot be written: ${error}\n`));
        assert.deepEqual([code, stdout, client.left(), existsSync(serials())], [3, '', [], false]);
      });
  });
});
