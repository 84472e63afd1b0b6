// webjobctl as a user who may read or write only a part of a site: it reports denied access, never
// treats unread data as complete, and removes nothing that it cannot record.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { collect } from '../support/bare.ts';
import { WEBJOBCTL } from '../support/keep-site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { makeGround } from '../support/operator.ts';
import { type Planted, plantPast } from '../support/past-site.ts';
import { readFiles } from '../support/tree.ts';

const NOBODY = 65_534;
const AT = new Date(Date.now() - 40 * 86_400_000);

describe('webjobctl as another user', { skip: process.geteuid?.() !== 0 && 'not root' }, () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site } = its;
  const ground = makeGround();
  const program = join(ground.root, 'webjobctl');
  const logs = join(site.base, 'logfiles');
  let secret = '';
  let planted: Planted[];
  before(() => {
    writeFileSync(program, readFileSync(WEBJOBCTL), { mode: 0o755 });
    planted = plantPast(site, 'UTC', [
      { at: AT, name: 'one' },
      { at: AT, name: 'two' },
      { at: AT, name: 'three' },
    ]);
    secret = join(site.incoming, 'two.out');
    for (const folder of [site.root, site.base, site.incoming, logs]) chmodSync(folder, 0o755);
  });
  after(() => {
    its.close();
    ground.remove();
  });

  function run(...args: string[]) {
    const child = spawn(ground.node, [program, '--config', site.propertiesFile, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: '/',
      uid: NOBODY,
      gid: NOBODY,
    });
    return collect(child, 60);
  }

  async function isRefused(what: RegExp, ...args: string[]): Promise<void> {
    const files = readFiles(site.base);
    const { exitCode, stderr } = await run(...args);
    assert.equal(exitCode, 4, `${args}: ${stderr}`);
    assert.match(stderr, /^webjobctl: error: /m, `${args}`);
    assert.match(stderr, what, `${args}`);
    assert.deepEqual([...readFiles(site.base).keys()], [...files.keys()], `${args}`);
  }

  it('reads what the user may read', async () => {
    const { exitCode, stdout, stderr } = await run('jobs');
    assert.deepEqual([exitCode, stderr], [0, '']);
    assert.equal(stdout.toString().split('\n').length, 5);
    assert.equal((await run('verify')).exitCode, 0);
  });

  it('may not hold, pack or prune what the user does not own', async () => {
    await isRefused(/EACCES/, 'hold', 'add', '--client', 'client1', '--reason', 'r');
    await isRefused(/EACCES/, 'pack', '--older-than', '30d');
    await isRefused(/EACCES/, 'prune', '--older-than', '30d', '--yes');
    await isRefused(/EACCES/, 'index');
  });

  it('removes and packs nothing when only the locker, not the custody record, is writable', async () => {
    const own = [site.incoming, join(site.base, 'config'), join(site.base, 'packed')];
    for (const folder of own) {
      mkdirSync(folder, { recursive: true });
      chownSync(folder, NOBODY, NOBODY);
    }
    const files = readFiles(site.incoming);
    for (const args of [
      ['prune', '--older-than', '30d', '--yes'],
      ['pack', '--older-than', '30d'],
    ]) {
      const { exitCode, stderr } = await run(...args);
      assert.equal(exitCode, 4, stderr);
      assert.match(stderr, /EACCES: .*nph-webjob-custody\.webjobctl\.jsonl/);
      assert.deepEqual(readFiles(site.incoming), files, `${args}`);
    }
    for (const folder of own.slice(1)) rmSync(folder, { recursive: true });
    chownSync(site.incoming, 0, 0);
  });

  it('names the stream that it may not read, and does not call the rest complete', async () => {
    chmodSync(secret, 0o600);
    const verified = await run('verify');
    assert.equal(verified.exitCode, 1);
    assert.match(verified.stdout.toString(), /^unreadable +two\.out: EACCES$/m);
    assert.match((await run('search', 'kept')).stderr, /two\.out.*EACCES|EACCES.*two\.out/);
    const shown = await run('--json', 'show', planted[1]?.jobId ?? '');
    assert.equal(JSON.parse(shown.stdout.toString()).verification.streams.out, 'cannot be read');
    chmodSync(secret, 0o644);
    // Without the run record it is unknown how the run ended.
    chmodSync(join(site.incoming, 'two.env'), 0o600);
    await isRefused(/EACCES: .*two\.env/, 'jobs');
    chmodSync(join(site.incoming, 'two.env'), 0o644);
    chmodSync(site.logFile, 0o600);
    for (const args of [['jobs'], ['clients'], ['export', '--csv'], ['metrics', '--textfile', '-']])
      await isRefused(/EACCES/, ...args);
    chmodSync(site.logFile, 0o644);
  });

  it('makes an index of its own that nobody else may read', async () => {
    const folder = join(ground.root, 'own');
    mkdirSync(folder);
    chownSync(folder, NOBODY, NOBODY);
    const { exitCode, stderr } = await run('index', '--database', join(folder, 'webjob.sqlite'));
    // When ConfigDirectory belongs to another user, it cannot take the site lock.
    assert.equal(exitCode, 4, stderr);
    mkdirSync(join(site.base, 'config'));
    chownSync(join(site.base, 'config'), NOBODY, NOBODY);
    assert.equal((await run('index', '--database', join(folder, 'webjob.sqlite'))).exitCode, 0);
    for (const name of readdirSync(folder)) assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600, name);
    assert.ok(statSync(join(folder, 'webjob.sqlite')).size > 0);
    rmSync(join(site.base, 'config'), { recursive: true });
  });

  it('makes no report or metrics where the user may not write', async () => {
    await isRefused(/EACCES/, 'report', '--html', join(site.base, 'report'));
    await isRefused(/EACCES/, 'metrics', '--textfile', join(site.base, 'webjob.prom'));
  });
});
