// A compromised server against webjob --batch of a client that requires manifests: nothing of what
// it hands out runs except what the site's signers signed for this client, with these arguments and
// this time, and only once. The programs themselves are all signed.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { formatBatch, type Order } from '../../fleet/batch-script.ts';
import { type AssignmentText, formatAssignmentText } from '../../fleet/signed.ts';
import { type NoteSigner, signNote } from '../../notes/note.ts';
import { type Client, type Ended, makeClient, runWebjob } from '../support/client-job.ts';
import { type FakeServer, formatAnswer, startFake } from '../support/client-server.ts';
import { answerOf, makeSigner, manifestOf, type Signer, signedManifest } from '../support/signed-programs.ts';

const [alice, bob] = ['site.example/alice', 'site.example/bob'].map(makeSigner) as [Signer, Signer];
const stranger = makeSigner('site.example/alice');
const BOTH = [alice, bob];
/** The key of someone else who claims that it is one of ours. */
const posing = (as: Signer): NoteSigner => ({ ...stranger, name: as.name, id: as.id });
/** The time of all of these tests, in whole seconds. */
const NOW = Math.floor(Date.now() / 1000);
const DAY = 86_400;

let fake: FakeServer;
let client: Client;
let ran: string;
let orders: readonly Order[] = [];
/** The server's answer to a GET of the batch. */
let batch: () => Buffer;

before(async () => {
  fake = await startFake();
  client = makeClient();
  ran = join(client.root, 'ran');
  writeFileSync(join(client.root, 'trusted'), `${alice.verifierKey}\n${bob.verifierKey}\n`, { mode: 0o600 });
  fake.get = (socket, received) => {
    const [, name = ''] = /FILENAME=([a-z.]+)/.exec(received().toString()) ?? [];
    socket.end(name === 'batch' ? batch() : answerOf(PROGRAM(), signedManifest(manifestOf(PROGRAM(), { name }), BOTH)));
  };
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  for (const name of ['ran', 'serials', 'serials.assignments']) rmSync(join(client.root, name), { force: true });
  batch = answerBatch;
  configure();
});

const answerBatch = (): Buffer => formatAnswer(Buffer.from(formatBatch('client1', orders)));

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

/** Every program of these tests is signed, and prints its arguments. */
const PROGRAM = (): string => `#!/bin/sh\nfor word in "\${0##*/}" "$@"; do printf '[%s]' "$word"; done >> '${ran}'\n`;

/** Once, for client1, since a minute ago. */
const text = (more: Partial<AssignmentText> = {}): AssignmentText => ({
  command: 'collect.sh',
  args: ['-v', 'two words'],
  clients: ['client1'],
  schedule: { kind: 'once' },
  serial: 7,
  notBefore: new Date((NOW - 60) * 1000),
  notAfter: new Date((NOW + DAY) * 1000),
  ...more,
});
const note = (more: Partial<AssignmentText> = {}, signers: readonly NoteSigner[] = BOTH): string =>
  signNote(formatAssignmentText(text(more)), signers);
const order = (more: Partial<Order> = {}): Order => ({
  id: '1',
  due: NOW - 60,
  command: 'collect.sh',
  args: ['-v', 'two words'],
  note: note(),
  ...more,
});

async function runBatch(...given: Order[]): Promise<Ended> {
  orders = given.map((one, index) => ({ ...one, id: String(index + 1) }));
  return await runWebjob(['--batch', '-f', client.conf]);
}

const whatRan = (): string => (existsSync(ran) ? readFileSync(ran, 'utf8') : '');
const dueTimes = (): string => {
  const path = join(client.root, 'serials.assignments');
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
};
const RAN = '[collect.sh][-v][two words]';

/**
 * Returns why each of these orders is refused; none of them may run, and no due time may be noted.
 */
async function assertRefused(attacks: readonly (readonly [what: string, order: Order, why: RegExp])[]): Promise<void> {
  const was = dueTimes();
  const { code, stdout, stderr } = await runBatch(...attacks.map(([, one]) => one));
  const lines = stderr.split('\n');
  for (const [index, [what, { due }, why]] of attacks.entries()) {
    const line = lines.find((one) => one.startsWith(`webjob: warning: assignment ${index + 1} is refused: `)) ?? '';
    assert.match(line.replace(/^.* is refused: /, ''), why, `${what}: ${stderr}`);
    assert.ok(stdout.includes(`assignment ${index + 1} due ${due} exit 3\n`), `${what}: ${stdout}`);
  }
  assert.deepEqual([code, whatRan(), dueTimes(), client.left()], [3, '', was, []], stderr);
}

/** An order with its note changed, by an attacker who cannot sign. */
const forged = (change: (whole: string) => string): Order => order({ note: change(note()) });
const resigned = (change: (whole: string) => string): Order =>
  order({ note: signNote(change(formatAssignmentText(text())), BOTH) });

describe('a signed assignment', () => {
  it('runs with its exact arguments, once, even when its servers claim another number', async () => {
    const { code, stderr } = await runBatch(order());
    assert.deepEqual([code, whatRan()], [0, RAN], stderr);
    const hash = createHash('sha256').update(formatAssignmentText(text())).digest('hex');
    assert.equal(dueTimes(), `client1 ${hash} ${NOW - 60} ${NOW + DAY}\n`);
    rmSync(ran);
    await assertRefused([
      ['the same again', order(), /^it was run before, for \d+$/],
      ['the same with more signatures', order({ note: note({}, [bob, alice, stranger]) }), /^it was run before/],
    ]);
  });

  it('runs once even when a batch holds it twice', async () => {
    const { code, stdout } = await runBatch(order(), order());
    assert.equal(whatRan(), RAN);
    assert.deepEqual(
      [code, stdout.replace(/due \d+/g, 'due')],
      [3, 'assignment 1 due exit 0\nassignment 2 due exit 3\n'],
    );
  });

  it('runs beside others that are refused', async () => {
    const hostile = ["it's", '$(id)', 'a\nb', '', 'ü', '\x7f', '"\\'];
    const { code, stdout } = await runBatch(
      order({ note: undefined }),
      order({ args: hostile, note: note({ args: hostile }) }),
      order({ command: 'wipe.sh' }),
    );
    assert.equal(whatRan(), `[collect.sh]${hostile.map((word) => `[${word}]`).join('')}`);
    assert.equal(code, 3);
    assert.match(stdout, /assignment 1 .* exit 3\nassignment 2 .* exit 0\nassignment 3 .* exit 3\n$/);
  });

  it('runs each time when it recurs, never an earlier time, and never twice', async () => {
    const period = 3600;
    const from = NOW - 10 * period - 1200;
    const again = { schedule: { kind: 'every', seconds: period }, notBefore: new Date(from * 1000) } as const;
    const due = (periods: number): Order => order({ due: from + periods * period, note: note(again) });
    await assertRefused([
      ['the one before the last', due(9), /^it was due again after \d+$/],
      ['the first', due(0), /^it was due again after /],
      ['one that is to come', due(11), /^it is due at \d+, which is in the future$/],
      ['one between', order({ due: NOW - 61, note: note(again) }), /^it is never due at /],
      ['one before the first', due(-1), /^it is never due at /],
    ]);
    assert.equal((await runBatch(due(10))).code, 0);
    assert.equal(whatRan(), RAN);
    rmSync(ran);
    await assertRefused([['the same', due(10), /^it was run before/]]);
  });

  it('is due when its cron expression says', async () => {
    const minute = NOW - (NOW % 60);
    const cron = { schedule: { kind: 'cron', cron: '* * * * *' }, notBefore: new Date((NOW - DAY) * 1000) } as const;
    await assertRefused([
      ['a second behind it', order({ due: minute + 1, note: note(cron) }), /^it is never due at /],
      ['an hour ago', order({ due: minute - 3600, note: note(cron) }), /^it was due again after /],
    ]);
    assert.equal((await runBatch(order({ due: minute, note: note(cron) }))).code, 0);
    assert.equal(whatRan(), RAN);
  });

  it('runs on a client whose clock is a few minutes behind', async () => {
    const soon = { notBefore: new Date((NOW + 500) * 1000) };
    assert.equal((await runBatch(order({ due: NOW + 500, note: note(soon) }))).code, 0);
    assert.equal(whatRan(), RAN);
  });
});

describe('a stolen server', () => {
  it('cannot invent an assignment', async () => {
    await assertRefused([
      ['one that nobody signed', order({ note: undefined }), /^it is not signed$/],
      ['an empty note', order({ note: '' }), /^no blank line before signatures$/],
      ['one with a key of its own', order({ note: note({}, [stranger]) }), /^no signature of a trusted key$/],
      [
        'one with a key that poses as a signer',
        order({ note: note({}, [posing(alice), bob]) }),
        /^the signature of .* is wrong$/,
      ],
      [
        'one that one of two signed',
        order({ note: note({}, [alice]) }),
        /^signed with a weight of 1, but 2 is required$/,
      ],
      ['one that one signed twice', order({ note: note({}, [alice, alice]) }), /^signed with a weight of 1, /],
      ['the text without its signatures', forged((whole) => whole.split('\n\n')[0] ?? ''), /^no blank line/],
      [
        'a manifest of a program',
        order({ note: signedManifest(manifestOf('x'), BOTH) }),
        /^not the text of an assignment$/,
      ],
      [
        'another kind of note',
        order({ note: signNote('site.example/log\n4\n', BOTH) }),
        /^not the text of an assignment$/,
      ],
    ]);
  });

  it('cannot give other arguments or another program', async () => {
    await assertRefused([
      ['another program', order({ command: 'wipe.sh' }), /^it is for collect\.sh, not wipe\.sh$/],
      ['no arguments', order({ args: [] }), /^it is for other arguments$/],
      ['one more', order({ args: ['-v', 'two words', ''] }), /^it is for other arguments$/],
      ['the same words cut otherwise', order({ args: ['-v', 'two', 'words'] }), /^it is for other arguments$/],
      ['in another order', order({ args: ['two words', '-v'] }), /^it is for other arguments$/],
      ['another note of the same signers', order({ note: note({ args: ['-r'] }) }), /^it is for other arguments$/],
      ['changed in the note', forged((whole) => whole.replace('"-v"', '"-r"')), /^the signature of .* is wrong$/],
      [
        'another program in the note',
        forged((whole) => whole.replace('collect', 'destroy')),
        /^the signature of .* is wrong$/,
      ],
    ]);
  });

  it('cannot give it to another client', async () => {
    const rows = [['client2'], ['client'], ['client11'], ['Client1'], ['client?1'], ['web-*', 'db-1'], ['*2']];
    await assertRefused([
      ...rows.map(
        (clients) => [`for ${clients}`, order({ note: note({ clients }) }), /^it is not for client1$/] as const,
      ),
      [
        'changed in the note',
        forged((whole) => whole.replace('client client1', 'client *')),
        /^the signature of .* is wrong$/,
      ],
    ]);
  });

  it('cannot give it outside its time', async () => {
    const at = (from: number, to: number): Partial<Order> => ({
      due: NOW + from,
      note: note({ notBefore: new Date((NOW + from) * 1000), notAfter: new Date((NOW + to) * 1000) }),
    });
    await assertRefused([
      ['that has ended', order(at(-2 * DAY, -5)), /^it expired at /],
      ['that ended a year ago', order(at(-800 * DAY, -365 * DAY)), /^it expired at /],
      ['that begins in an hour', order(at(3600, 2 * DAY)), /^it is not valid before /],
      ['that begins in a year', order(at(365 * DAY, 800 * DAY)), /^it is not valid before /],
      ['for another time than it is due', order({ due: NOW - 59 }), /^it is never due at /],
      ['for a time before it', order({ due: NOW - 3600 }), /^it is never due at /],
      ['for the year 1970', order({ due: 0 }), /^it is never due at /],
      ['for a time that never was', order({ due: -1 }), /^it is never due at /],
      ['with an end that was moved', forged((whole) => whole.replace(/not-after ..../, 'not-after 2999')), /is wrong$/],
      ['for every hour', forged((whole) => whole.replace('when once', 'when every 3600')), /is wrong$/],
    ]);
  });

  it('cannot give it in another form', async () => {
    const whole = note();
    const parts = Array.from({ length: 9 }, (_, index) =>
      whole.slice(0, Math.floor((whole.length * (index + 1)) / 10)),
    );
    const forms: Record<string, (text: string) => string> = {
      'another first line': (text) => text.replace('assignment/v1', 'assignment/v2'),
      'a line more': (text) => `${text}root yes\n`,
      'no client': (text) => text.replace('client client1\n', ''),
      'an empty client': (text) => text.replace('client client1', 'client '),
      'two clients in a line': (text) => text.replace('client1', 'client2 client1'),
      'two commands': (text) => text.replace('command collect.sh\n', 'command collect.sh\ncommand wipe.sh\n'),
      'a path for its command': (text) => text.replace('collect.sh', '../collect.sh'),
      'arguments that are none': (text) => text.replace(/arguments .*/, 'arguments -v'),
      'arguments in another spelling': (text) => text.replace('","', '", "'),
      'arguments that are numbers': (text) => text.replace(/arguments .*/, 'arguments [1]'),
      'an argument with a NUL': (text) => text.replace('"-v"', '"\\u0000"'),
      'no schedule': (text) => text.replace('when once\n', ''),
      'a period of nothing': (text) => text.replace('once', 'every 0'),
      'a cron expression that is none': (text) => text.replace('once', 'cron 61 * * * *'),
      'an end before its beginning': (text) => text.replace(/not-after .*/, 'not-after 2001-01-01T00:00:00Z'),
      'a day that is none': (text) => text.replace(/not-after .{10}/, 'not-after 2999-02-30'),
      'no serial': (text) => text.replace(/serial .*\n/, ''),
    };
    await assertRefused([
      ...parts.map((part, index) => [`${index + 1} tenths`, order({ note: part }), /./] as const),
      ['too long', order({ note: `${whole}${'— x AAAAAAAA\n'.repeat(12_000)}` }), /^longer than 131072 bytes$/],
      ...Object.entries(forms).map(([what, change]) => [what, resigned(change), /./] as const),
    ]);
  });

  it('cannot give a script in place of the batch, or one of another kind', async () => {
    const program = `#!/bin/sh\n# What is assigned to client1\n#orders []\n: > '${ran}'\n`;
    for (const answer of [
      formatAnswer(`#!/bin/sh\n: > '${ran}'\n`),
      formatAnswer(program),
      answerOf(PROGRAM(), signedManifest(manifestOf(PROGRAM(), { name: 'batch' }), BOTH)),
      formatAnswer('#!/bin/sh\n# What is assigned to client1\n#orders [null]\n'),
      formatAnswer('#!/bin/sh\n# What is assigned to client1\n#orders {"length":1}\n'),
      formatAnswer(Buffer.from(formatBatch('client1', [order()]).slice(0, 300))),
    ]) {
      batch = () => answer;
      await runWebjob(['--batch', '-f', client.conf]);
      assert.equal(whatRan(), '', answer.toString());
    }
    // A client that runs batches itself runs no script of a server, whatever is in it.
    orders = [order()];
    batch = answerBatch;
    const { code, stderr } = await client.execute(['batch']);
    assert.deepEqual([code, whatRan()], [3, '']);
    assert.match(stderr, /the program has no manifest\n/);
  });

  it('has its refusals reported by the run and by exit code 3', async () => {
    configure({ URLPutURL: fake.url });
    const { code, stdout, stderr } = await runBatch(order({ note: undefined }));
    assert.deepEqual([code, stdout, whatRan()], [3, '', '']);
    assert.match(
      stderr,
      /assignment 1 is refused: it is not signed\n[\s\S]*error: assignments of the batch were refused/,
    );
    await fake.idle();
    const report = fake.requests().at(-1)?.toString() ?? '';
    assert.match(report, /^PUT [\s\S]*assignment 1 due \d+ exit 3\n[\s\S]*assignment 1 is refused: it is not signed\n/);
  });
});

describe('DsvSerialFile or the file beside it', () => {
  for (const [what, content] of Object.entries({
    'is cut off': `client1 ${'0'.repeat(64)} 5`,
    'contains other files': 'hello\n',
    'holds a line with more': `client1 ${'0'.repeat(64)} 5 6 7\n`,
    'holds a time that is none': `client1 ${'0'.repeat(64)} -5 6\n`,
  }))
    it(`lets no assignment run when it ${what}: exit code 2`, async () => {
      writeFileSync(join(client.root, 'serials.assignments'), content);
      const { code, stderr } = await runBatch(order());
      assert.deepEqual([code, whatRan(), dueTimes()], [2, '', content]);
      assert.match(stderr, /^webjob: error: DsvSerialFile: \S+serials\.assignments line 1 was not written by webjob\n/);
    });

  it('lets no assignment run when it cannot be written', async () => {
    configure({ DsvSerialFile: 'none/serials' });
    const { code, stderr } = await runBatch(order());
    assert.deepEqual([code, whatRan()], [3, ''], stderr);
    assert.match(stderr, /assignment 1 is refused: DsvSerialFile: \S+ cannot be written: .*ENOENT\n/);
  });

  it('forgets what ended more than a year ago, and nothing else', async () => {
    const lines = [`client1 ${'1'.repeat(64)} 5 ${NOW - 300 * DAY}\n`, `client2 ${'2'.repeat(64)} 5 ${NOW + 5}\n`];
    const old = `client1 ${'0'.repeat(64)} 5 ${NOW - 401 * DAY}\n`;
    writeFileSync(join(client.root, 'serials.assignments'), [old, ...lines].join(''));
    assert.equal((await runBatch(order())).code, 0);
    assert.deepEqual(
      dueTimes()
        .split(/(?<=\n)/)
        .filter((line) => !line.includes(` ${NOW - 60} `)),
      lines,
    );
  });

  it('lets one of two concurrent runs execute an assignment', async () => {
    orders = [order()];
    const ended = await Promise.all(
      [1, 2, 3].map(() => runWebjob(['--batch', '-f', client.conf], { wrapper: ['env'] })),
    );
    assert.deepEqual([whatRan(), ended.map(({ code }) => code).sort()], [RAN, [0, 3, 3]]);
  });
});

describe('DsvRequireManifest=N', () => {
  it('runs unsigned programs, but no note that is wrong', async () => {
    configure({ DsvRequireManifest: 'N' });
    const { code, stdout } = await runBatch(
      order({ note: undefined }),
      order({ note: note({ clients: ['client2'] }) }),
    );
    assert.deepEqual([code, whatRan()], [3, RAN]);
    assert.match(stdout, /assignment 1 .* exit 0\nassignment 2 .* exit 3\n$/);
  });

  it('runs as if nothing were signed with DsvVerifyManifest=N', async () => {
    configure({ DsvVerifyManifest: 'N' });
    assert.equal((await runBatch(order({ note: 'x' }))).code, 0);
    assert.deepEqual([whatRan(), dueTimes()], [RAN, '']);
  });
});
