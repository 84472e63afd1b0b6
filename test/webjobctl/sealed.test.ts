// Sealed evidence in webjobctl: with an identity it is readable in show, diff and search, without
// one it is not, and verify, report and pack work with it as with any other.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeSite, type Site } from '../../scripts/site.ts';
import { reportAs, verifyAs } from '../support/evidence-site.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';
import { plantPast } from '../support/past-site.ts';
import { type Examiner, makeExaminer } from '../support/sealed-streams.ts';
import { makeSigner } from '../support/signed-programs.ts';
import { keyLine, plantSealed, resultKeysOf, writeResultKeys } from '../support/signed-results.ts';

let site: Site;
let alice: Examiner;
let identity: string;
const at = (name: string): string => join(site.root, name);
const id = (name: string): string => `server_1_1085355126_${name}`;
const run = (...args: string[]) => runWebjobctl(['--config', site.propertiesFile, ...args]);
const write = (name: string, text: string, mode = 0o600): string => {
  writeFileSync(at(name), text, { mode });
  return at(name);
};

before(async () => {
  site = makeSite({ settings: { EnableCustody: 'Y' } });
  const signer = makeSigner('client1');
  writeResultKeys(resultKeysOf(site), 'client1', [keyLine(signer)]);
  alice = await makeExaminer();
  identity = write('identity.txt', `# created: now\n# public key: ${alice.recipient}\n${alice.identity}\n`);
  const { recipient } = alice;
  await plantSealed(site, { name: 'one', signer, out: 'found the needle\n', err: '', recipient });
  await plantSealed(site, { name: 'two', signer, out: 'found nothing\n', err: 'warning\n', recipient });
});
after(() => site.remove());

/** The result of each command for sealed uploads, wherever they are. */
function readTests(): void {
  it('shows their content to a user with an identity', async () => {
    const { code, stdout } = await run('show', id('one'), '--identity', identity);
    assert.equal(code, 0);
    assert.match(stdout, /^--- out: 17 B\nfound the needle$/m);
    assert.deepEqual((await run('show', id('two'), '--err', '--identity', identity)).stdout, 'warning\n');
    const stdin = await runWebjobctl(['--config', site.propertiesFile, 'show', id('one'), '--out', '--identity', '-'], {
      input: `${alice.identity}\n`,
    });
    assert.equal(stdin.stdout, 'found the needle\n', stdin.stderr);
  });

  it('shows other users the recipients, and prints the sealed bytes', async () => {
    const { code, stdout } = await run('show', id('one'));
    assert.equal(code, 0);
    assert.ok(stdout.includes(`\nsealed to ${alice.recipient}; --identity FILE opens it, as age -d does\n`), stdout);
    assert.match(stdout, /^Sealed: +sealed to age1/m);
    const raw = await run('show', id('one'), '--out');
    assert.ok(raw.stdout.startsWith('age-encryption.org/v1\n-> X25519 '));
    assert.match(raw.stderr, /^webjobctl: \.out is sealed to age1/);
    const wrong = write('wrong.txt', `${(await makeExaminer()).identity}\n`);
    const refused = await run('show', id('one'), '--out', '--identity', wrong);
    assert.equal(refused.code, 4);
    assert.match(refused.stderr, /\.out cannot be opened: no identity matched any of the file's recipients/);
  });

  it('compares them with an identity, and not without', async () => {
    const { code, stdout } = await run('diff', id('two'), id('one'), '--identity', identity);
    assert.equal(code, 1);
    assert.match(stdout, /^-found nothing\n\+found the needle$/m);
    const refused = await run('diff', id('two'), id('one'));
    assert.deepEqual([refused.code, /\.out is sealed to age1/.test(refused.stderr)], [4, true], refused.stderr);
  });

  it('searches them with an identity, and lists those that it skipped without one', async () => {
    const { code, stdout } = await run('--json', 'search', 'needle', '--identity', identity);
    assert.equal(code, 0);
    assert.deepEqual(
      parseLines(stdout).map(({ group, stream, line, text }) => [group, stream, line, text]),
      [['one', 'out', 1, 'found the needle']],
    );
    const without = await run('search', 'needle');
    assert.equal(without.code, 4);
    assert.match(without.stderr, /warning: skipped: \.out is sealed to age1/);
    assert.equal((await run('search', 'ClientId=client1', '--in', 'env')).code, 0);
  });

  it('verifies them without an identity', async () => {
    assert.deepEqual(await verifyAs([site.propertiesFile]), []);
  });
}

describe('sealed uploads', () => {
  readTests();

  it('are on pages of a report as signed and sealed', async () => {
    const pages = [...(await reportAs(site)).uploads.values()].map(({ page }) => page);
    assert.equal(pages.filter((page) => page.includes(`The streams are sealed to ${alice.recipient}.`)).length, 2);
  });

  it('are searched completely where there is an index', async () => {
    assert.equal((await run('index')).code, 0);
    assert.equal((await run('search', 'needle', '--identity', identity)).code, 0);
  });
});

describe('sealed uploads in an archive', () => {
  before(async () => {
    const past = new Date(Date.now() - 40 * 86_400_000);
    for (const name of readdirSync(site.incoming)) utimesSync(join(site.incoming, name), past, past);
    const { code, stderr } = await run('pack', '--older-than', '30d');
    assert.equal(code, 0, stderr);
    assert.deepEqual(readdirSync(site.incoming), []);
  });
  readTests();
});

describe('output that another party sealed to the same examiner', () => {
  it('is not taken for what the client sealed', async () => {
    const signer = makeSigner('client1');
    const { recipient } = alice;
    await plantSealed(site, { name: 'three', signer, out: 'guilty\n', err: '', recipient });
    await plantSealed(site, { name: 'four', signer, out: 'not guilty\n', err: '', recipient });
    copyFileSync(join(site.incoming, 'four.out'), join(site.incoming, 'three.out'));
    const { code, stderr } = await run('show', id('three'), '--out', '--identity', identity);
    assert.equal(code, 4);
    assert.match(stderr, /error: \.out is not what the client sealed\n/);
  });
});

describe('an identity file', () => {
  it('causes an error that does not show its content when it cannot be used', async () => {
    const { identity: secret } = await makeExaminer();
    for (const [text, why] of [
      ['', 'contains no identity'],
      ['# nothing\n', 'contains no identity'],
      [`${secret}\n${secret.slice(0, -5)}\n`, 'line 2 is not an age identity'],
      ['-----BEGIN OPENSSH PRIVATE KEY-----\n', 'line 1 is not an age identity'],
      ['age-encryption.org/v1\n-> scrypt x 18\n', 'is encrypted itself'],
      ['-----BEGIN AGE ENCRYPTED FILE-----\n', 'is encrypted itself'],
    ] as const) {
      const path = write('bad.txt', text);
      const { code, stderr } = await run('show', id('one'), '--identity', path);
      assert.equal(code, 4);
      assert.ok(stderr.startsWith(`webjobctl: error: --identity: ${path} ${why}`), stderr);
      assert.doesNotMatch(stderr, /AGE-SECRET-KEY-1[A-Z0-9]{9}/);
    }
    assert.equal((await run('show', id('one'), '--identity', at('none'))).code, 4);
  });

  it('draws a warning when others can read it, as from age-keygen', async () => {
    const path = write('open.txt', `${alice.identity}\n`);
    spawnSync('chmod', ['644', path]);
    const { code, stderr } = await run('show', id('one'), '--identity', path);
    assert.deepEqual(
      [code, stderr],
      [0, `webjobctl: warning: ${path} contains a secret key, and others can read it\n`],
    );
  });
});

describe('output that only begins like a sealed stream', () => {
  it('is shown, searched and compared as it is', async () => {
    const outs = ['age-encryption.org/v1\nplain\n', 'age-encryption.org/v1\nother\n'];
    const jobs = plantPast(
      site,
      'UTC',
      outs.map((out) => ({ at: new Date(), command: 'own.sh', out })),
    ).map(({ jobId }) => jobId);
    for (const more of [[], ['--identity', identity]]) {
      assert.equal((await run('show', jobs[0] ?? '', '--out', ...more)).stdout, outs[0]);
      const found = await run('search', 'plain', '--command', 'own.sh', ...more);
      assert.deepEqual([found.code, /plain$/m.test(found.stdout)], [0, true], found.stderr);
      const { code, stdout } = await run('diff', ...jobs, ...more);
      assert.deepEqual([code, /^-plain\n\+other$/m.test(stdout)], [1, true]);
    }
  });
});
