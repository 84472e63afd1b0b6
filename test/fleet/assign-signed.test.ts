// Signed assignments end to end: signed by two people away from the server, assigned, and run by a
// client that requires signatures, with a real httpd. Attacks by a compromised server are in
// stolen-batch.test.ts.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { runWebjob } from '../support/client-job.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';

const DONE = { code: 0, signal: null, stdout: '', stderr: '' };
const WORDS = ["it's", '$(id)', 'a\nb', '-v', '', 'ü', '\x01"\\', 'x'.repeat(100_000)];
const VERIFY = { DsvVerifyManifest: 'Y', DsvTrustedKeysFile: 'trusted.keys', DsvSerialFile: 'serials' };
const PROGRAM = '#!/bin/sh\nfor word; do printf "[%s]" "$word"; done\n';

let home: ClientSite;
const at = (name: string): string => join(home.client.root, name);
const control = (...words: string[]) => runWebjobctl(['-c', home.site.propertiesFile, ...words]);
const runBatch = () => runWebjob(['--batch', '-f', home.client.conf]);
const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'fleet.md'), 'utf8');

async function run(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await control(...words);
  assert.equal(code, 0, `${words.join(' ').slice(0, 80)}: ${stderr}`);
  return stdout;
}

async function statesOf(id: string): Promise<Record<string, number>> {
  const [{ states } = { states: {} }] = parseLines((await control('--json', 'assign', 'show', id)).stdout) as {
    states: Record<string, number>;
  }[];
  return Object.fromEntries(Object.entries(states).filter(([, count]) => count > 0));
}

/** Signs an assignment by alice, and by bob where both must. */
async function sign(name: string, more: readonly string[], words: readonly string[] = WORDS): Promise<string> {
  const path = at(`${name}.assignment`);
  await run('sign', 'assignment', '--key', at('alice.key'), '-o', path, ...more, '--', 'show-words.sh', ...words);
  await run('sign', 'add', '--key', at('bob.key'), path);
  return path;
}

before(async () => {
  home = await startClientSite();
  configure(home.site, { BatchCommand: 'batch' });
  home.add('show-words.sh', PROGRAM);
  home.add('bare.sh', PROGRAM);
  for (const name of ['alice', 'bob']) {
    await run('sign', 'keygen', at(name), '--key-name', `site.example/${name}`);
    await run('sign', 'trust', 'add', at('trusted.keys'), at(`${name}.vkey`));
  }
  const program = join(home.site.profiles, 'client1', 'show-words.sh');
  await run('sign', 'payload', '--key', at('alice.key'), program);
  await run('sign', 'add', '--key', at('bob.key'), program);
  home.configure({ ...VERIFY, DsvThreshold: '2' });
});
after(() => home.close());

describe('a signed assignment', () => {
  it('runs once with its exact arguments on a client that requires signatures', async () => {
    const path = await sign('once', ['--client', 'client1']);
    const id =
      /^assignment (\d+): show-words\.sh for 1 client\n$/.exec(await run('assign', '--signed', path))?.[1] ?? '';
    assert.deepEqual(await runBatch(), DONE);
    assert.deepEqual(await statesOf(id), { done: 1 });
    const [, { jobId }] = parseLines(await run('--json', 'assign', 'show', id)) as [unknown, { jobId: string }];
    assert.equal(await run('show', jobId, '--out'), WORDS.map((word) => `[${word}]`).join(''));
    assert.match(
      await run('assign', 'show', id),
      /^signed {4}site\.example\/alice\+[0-9a-f]{8}, site\.example\/bob\+[0-9a-f]{8}$/m,
    );
    // The server would hand it out again, but the client has run it.
    const again = /^assignment (\d+): /.exec(await run('assign', '--signed', path))?.[1] ?? '';
    const { code, stderr } = await runBatch();
    assert.equal(code, 3);
    assert.match(stderr, /assignment \d+ is refused: it was run before, for \d+\n/);
    assert.deepEqual(await statesOf(again), { failed: 1 });
  });

  it('is refused and reported as failed with too few signatures, while others run', async () => {
    const path = at('half.assignment');
    await run('sign', 'assignment', '--key', at('alice.key'), '-o', path, '--client', 'client1', 'show-words.sh');
    const half = /\d+/.exec(await run('assign', '--signed', path))?.[0] ?? '';
    const bare = /\d+/.exec(await run('assign', 'show-words.sh', '--to', 'client1'))?.[0] ?? '';
    const whole =
      /\d+/.exec(await run('assign', '--signed', await sign('whole', ['--client', 'client?'], [])))?.[0] ?? '';
    const { code, stderr } = await runBatch();
    assert.equal(code, 3);
    assert.match(stderr, /is refused: signed with a weight of 1, but 2 is required\n/);
    assert.match(stderr, /is refused: it is not signed\n/);
    for (const [id, state] of [
      [half, 'failed'],
      [bare, 'failed'],
      [whole, 'done'],
    ] as const)
      assert.deepEqual(await statesOf(id), { [state]: 1 }, id);
    const retried = await control('assign', 'retry', half);
    assert.equal(retried.code, 2);
    assert.match(retried.stderr, /is signed, and each client runs it only once\n.*hint: sign it again/);
    assert.equal((await control('assign', 'retry', bare)).code, 0);
    for (const state of ['pause', 'cancel']) await control('assign', state, String(Number(whole) + 1));
  });

  it('is made at once with --key, for the members of groups', async () => {
    writeFileSync(join(home.site.base, 'config', 'nph-webjob', 'groups'), 'web = client1 web-*\nall = web db\n');
    const words = ['--to', 'all', '--every', '1h', '--key', at('alice.key')];
    const id = /\d+/.exec(await run('assign', 'show-words.sh', ...words))?.[0] ?? '';
    const lines = readFileSync(join(home.site.base, 'config', 'nph-webjob', 'assignments'), 'utf8')
      .trimEnd()
      .split('\n');
    const { note, from, until } = JSON.parse(lines.at(-1) ?? '') as { note: string; from: number; until: number };
    assert.equal(until - from, 365 * 86_400);
    assert.match(note, /\nclient client1\nclient web-\*\nclient db\nwhen every 3600\n/);
    const { code, stderr } = await runBatch();
    assert.deepEqual([code, (await statesOf(id)).failed], [3, 1], stderr);
    await run('assign', 'cancel', id);
  });

  it('is shown, and checked as a client checks it', async () => {
    const path = await sign('shown', ['--client', 'client1,web-*', '--cron', '30 2 * * *'], ['-v', 'two words']);
    assert.match(
      await run('sign', 'show', path),
      /^\S+shown\.assignment\n {2}command {5}show-words\.sh -v 'two words'\n {2}client {6}client1\n {2}client {6}web-\*\n {2}when {8}cron 30 2 \* \* \*\n/,
    );
    const trusted = ['--trusted', at('trusted.keys'), '--threshold'];
    assert.match(
      await run('sign', 'verify', ...trusted, '2', '--client', 'web-7', path),
      /^good {5}\S+shown\.assignment\n$/,
    );
    for (const [words, why] of [
      [[...trusted, '3', path], /^wrong .*: signed with a weight of 2, but 3 is required\n$/],
      [[...trusted, '2', '--client', 'db', path], /^wrong .*: it is not for db\n$/],
      [[...trusted, '2', '--at', '2040-01-01', path], /^wrong .*: it expired at /],
    ] as const) {
      const { code, stdout } = await control('sign', 'verify', ...words);
      assert.equal(code, 1);
      assert.match(stdout, why);
    }
    const twice = await control('sign', 'add', '--key', at('bob.key'), path);
    assert.equal(twice.code, 4);
    assert.match(twice.stderr, /shown\.assignment: already signed by site\.example\/bob\+/);
  });

  it("is signed for the members of a group from a copy of the site's groups", async () => {
    const groups = at('groups');
    writeFileSync(groups, 'front = client1 web-*\n');
    const path = at('front.assignment');
    const words = ['--key', at('alice.key'), '-o', path, '--client', 'front'];
    await run('sign', 'assignment', ...words, '--groups', groups, 'show-words.sh');
    assert.match(await run('sign', 'show', path), /\n {2}client {6}client1\n {2}client {6}web-\*\n {2}when/);
    const missing = await control('sign', 'assignment', ...words, '--groups', at('none'), 'show-words.sh');
    assert.equal(missing.code, 4);
    assert.match(missing.stderr, /none cannot be read: ENOENT/);
    // Without the groups the name is that of a client, and the server says so.
    await run('sign', 'assignment', ...words, 'show-words.sh');
    const site = join(home.site.base, 'config', 'nph-webjob', 'groups');
    const before = readFileSync(site);
    writeFileSync(site, readFileSync(groups));
    const { code, stderr } = await control('assign', '--signed', path);
    writeFileSync(site, before);
    assert.equal(code, 2);
    assert.match(stderr, /front\.assignment is not for client1\n.*hint: front was signed as the name of a client/s);
  });

  it('is refused where the server refuses batches, until they are allowed', async () => {
    configure(home.site, { BatchCommand: 'batch', DsvRequireSignatures: 'Y' });
    const { code, stderr } = await control('assign', 'show-words.sh', '--to', 'client1');
    assert.equal(code, 3, stderr);
    assert.match(
      stderr,
      /DsvRequireSignatures=Y, and a batch has no signature: a client that asks for batch gets 459\n/,
    );
    const asked = await runBatch();
    assert.match(asked.stderr, /Status = \[459\]/);
    const [, hint = ''] = /hint: (mkdir .*)/.exec(stderr) ?? [];
    execFileSync('sh', ['-c', hint]);
    const id = /\d+/.exec(await run('assign', '--signed', await sign('let', ['--client', 'client1'])))?.[0] ?? '';
    const bare = await run('assign', 'bare.sh', '--to', 'client1', '--key', at('alice.key'));
    home.configure({ ...VERIFY, DsvThreshold: '1' });
    const ended = await runBatch();
    home.configure({ ...VERIFY, DsvThreshold: '2' });
    assert.deepEqual([ended.code, await statesOf(id)], [0, { done: 1 }], ended.stderr);
    assert.deepEqual(await statesOf(/\d+/.exec(bare)?.[0] ?? ''), { failed: 1 }, 'a program still needs its signature');
    configure(home.site, { BatchCommand: 'batch' });
  });

  it('is not accepted by a client that requires a signature of the batch itself', async () => {
    const keys = ['--make-key', at('dsv')];
    execFileSync(process.execPath, [join(import.meta.dirname, '..', '..', 'dist', 'webjob-sign'), ...keys]);
    home.configure({ DsvVerifySignature: 'Y', DsvPublicKeyFile: 'dsv.pub' });
    for (const words of [
      ['--batch', '-f', home.client.conf],
      ['-e', '-f', home.client.conf, 'batch'],
    ]) {
      const { code, stderr } = await runWebjob(words);
      assert.equal(code, 3);
      assert.match(
        stderr,
        /the program is not signed\n.*hint: a batch has no signature: sign assignments, set DsvVerifyManifest=Y/,
      );
    }
    home.configure({ ...VERIFY, DsvThreshold: '2' });
  });

  it('is signed as docs/guide/fleet.md says', async () => {
    const [, block = ''] = /^```sh\n(webjobctl sign assignment.*?)^```$/ms.exec(page) ?? [];
    const lines = block.trimEnd().split('\n');
    assert.equal(lines.length, 4);
    writeFileSync(at('groups'), 'servers = web-1\n');
    const [, grouped = ''] = /^```sh groups\n(.*?)\n^```$/ms.exec(page) ?? [];
    for (const line of [...lines, grouped]) {
      const words = [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word = '']) => quoted ?? word).slice(1);
      await run(...words.map((word) => (/\.(?:key|keys|assignment)$|^groups$/.test(word) ? at(word) : word)));
    }
  });
});

describe('webjobctl assign and sign', () => {
  const rows = (): [words: string[], code: number, message: RegExp][] => [
    [
      ['assign', 'host.sh', '--signed', at('x.assignment')],
      2,
      /--signed takes the command and its times from the file/,
    ],
    [
      ['assign', '--signed', at('x.assignment'), '--every', '1h'],
      2,
      /--signed takes the command and its times from the file/,
    ],
    [['assign', '--signed', at('x.assignment')], 4, /x\.assignment cannot be used: ENOENT/],
    [['assign', '--signed', at('alice.key')], 4, /alice\.key: no blank line before signatures/],
    [['assign', '--signed', at('once.assignment'), '--to', 'client1,web-1'], 2, /once\.assignment is not for web-1/],
    [['assign', '--to', 'client1'], 2, /missing required argument 'COMMAND'/],
    [['assign', 'host.sh'], 2, /required option '--to <CLIENT>'/],
    [['assign', 'host.sh', '--to', 'client1', '--key-name', 'x'], 2, /--key-name requires --key/],
    [['sign', 'assignment', '--key', 'k', '--client', '*', '-o', 'x', 'a.sh'], 2, /its name ends in \.assignment/],
    [
      ['sign', 'assignment', '--key', 'k', '--client', 'a b', '-o', 'x.assignment', 'a.sh'],
      2,
      /a b is not a client id/,
    ],
    [['sign', 'verify', '--key', at('alice.pub'), at('once.assignment')], 2, /assignments require --trusted/],
  ];
  for (const [index] of Array.from({ length: 11 }).entries())
    it(`refuse meaningless command lines (${index + 1})`, async () => {
      const [words, code, message] = rows()[index] ?? [[], 0, /./];
      const ended = await control(...words);
      assert.match(ended.stderr, message, words.join(' '));
      assert.deepEqual([ended.code, ended.stdout], [code, ''], words.join(' '));
    });

  it('refuse arguments that a note cannot hold', async () => {
    const words = Array.from({ length: 50 }, () => '\x01'.repeat(1000));
    const options = ['--key', at('alice.key'), '--client', '*', '-o', at('large.assignment')];
    const { code, stderr } = await control('sign', 'assignment', ...options, '--', 'a.sh', ...words);
    assert.equal(code, 2);
    assert.match(stderr, /the assignment cannot be signed: longer than 131072 bytes/);
  });
});
