// webjobctl when something fails that is outside of its control: a full disk, for its files and its
// output, and files it may not read. Each command reports what could not be done, and leaves
// nothing incomplete. A full disk needs a tmpfs, and therefore root.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fillBytes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { type Ended, type Ground, makeGround, runWebjobctl } from '../support/operator.ts';
import { findWebUser } from '../support/tree.ts';

const ground: Ground = makeGround();
const disk = join(ground.root, 'disk');
const config = join(ground.root, 'nph-webjob.cfg');
const keep = join(disk, 'config', 'nph-webjob');
const obstacle = findMountObstacle();
const webUser = findWebUser();
after(() => ground.remove());

async function fail(...args: string[]): Promise<Ended> {
  const ended = await runWebjobctl(['-c', config, ...args], { cwd: ground.root });
  assert.equal(ended.code, 4, ended.stderr);
  return ended;
}

function makeSite(): void {
  mkdirSync(keep, { recursive: true });
  for (const folder of ['incoming', 'logfiles', 'profiles']) mkdirSync(join(disk, folder));
  writeFileSync(join(disk, 'logfiles', 'nph-webjob.log'), '');
  writeFileSync(config, `BaseDirectory=${disk}\n`);
}

describe('webjobctl on a full disk', { skip: obstacle }, () => {
  before(() => {
    mkdirSync(disk);
    mountTmpfs(disk, 'size=256k');
    chownSync(disk, 0, 0);
    makeSite();
    fillBytes(join(disk, 'fill'));
  });
  after(() => {
    unmountTmpfs(disk);
    rmSync(disk, { recursive: true });
  });

  it('names the lock that it cannot write, and leaves none', async () => {
    for (const args of [['hold', 'add', '--client', 'a', '--reason', 'b'], ['pack', '--older-than', '1d'], ['index']]) {
      const { stderr } = await fail(...args);
      assert.match(stderr, /error: \/.*\/config\/nph-webjob\/\w+\.lck\.\d+\.new cannot be written: ENOSPC\n/);
      assert.deepEqual(readdirSync(keep), []);
    }
  });

  it('leaves no part of a key, so that the name is free', async () => {
    assert.match((await fail('sign', 'keygen', join(disk, 'site'))).stderr, /site\.key cannot be written: ENOSPC/);
    assert.ok(!existsSync(join(disk, 'site.key')));
  });

  it('names the index that it cannot write', async () => {
    const elsewhere = join(ground.root, 'elsewhere.cfg');
    writeFileSync(elsewhere, `BaseDirectory=${disk}\nConfigDirectory=${ground.root}\n`);
    const database = join(disk, 'new.sqlite');
    const { code, stderr } = await runWebjobctl(['-c', elsewhere, 'index', '--database', database]);
    assert.equal(code, 4, stderr);
    assert.ok(stderr.startsWith(`webjobctl: error: ${database}: `), stderr);
  });
});

describe('webjobctl with broken files', () => {
  it('reports that its output cannot be written', { skip: !existsSync('/dev/full') && 'no /dev/full' }, () => {
    const full = openSync('/dev/full', 'w');
    const program = join(import.meta.dirname, '..', '..', 'dist', 'webjobctl');
    const ended = spawnSync(process.execPath, [program, 'completion', 'bash'], { stdio: ['ignore', full, 'pipe'] });
    closeSync(full);
    assert.equal(String(ended.stderr), 'webjobctl: error: standard output cannot be written: ENOSPC\n');
    assert.equal(ended.status, 4);
  });

  it('names the missing locker', async () => {
    const nowhere = join(ground.root, 'nowhere.cfg');
    const base = join(ground.root, 'nowhere');
    mkdirSync(join(base, 'logfiles'), { recursive: true });
    writeFileSync(join(base, 'logfiles', 'nph-webjob.log'), '');
    writeFileSync(nowhere, `BaseDirectory=${base}\n`);
    for (const args of [['index'], ['prune', '--older-than', '1d', '--dry-run'], ['pack', '--older-than', '1d']]) {
      const { code, stderr } = await runWebjobctl(['-c', nowhere, ...args]);
      assert.match(stderr, /^webjobctl: error: .*\bENOENT\b.*$/m);
      assert.match(stderr, /^webjobctl: error: (?:.* ')?\/.*\/nowhere\/incoming(?:'|: ENOENT)$/m);
      assert.equal(code, 4);
    }
  });

  it('shows the first of the malformed lines of a log', async () => {
    const base = join(ground.root, 'odd');
    mkdirSync(join(base, 'logfiles'), { recursive: true });
    mkdirSync(join(base, 'incoming'));
    writeFileSync(
      join(base, 'logfiles', 'nph-webjob.log'),
      `\x1b[2J ${'x'.repeat(200)}\n\n\r\n2026-99-99 10:00:00 a\n`,
    );
    writeFileSync(join(ground.root, 'odd.cfg'), `BaseDirectory=${base}\n`);
    const { code, stderr } = await runWebjobctl(['-c', join(ground.root, 'odd.cfg'), 'jobs']);
    const shown = `nph-webjob.log: \\x1b[2J ${'x'.repeat(75)}...`;
    assert.equal(stderr, `webjobctl: warning: lines that are not log lines were skipped: 2, the first in ${shown}\n`);
    assert.equal(code, 1);
  });

  it('skips the empty lines of a log without a warning', async () => {
    const base = join(ground.root, 'empty-lines');
    mkdirSync(join(base, 'logfiles'), { recursive: true });
    mkdirSync(join(base, 'incoming'));
    writeFileSync(join(base, 'logfiles', 'nph-webjob.log'), '\n\r\n\n');
    const config = join(ground.root, 'empty-lines.cfg');
    writeFileSync(config, `BaseDirectory=${base}\n`);
    for (const command of ['jobs', 'tail', 'clients'])
      assert.equal((await runWebjobctl(['-c', config, command])).stderr, '', command);
  });

  it('reports what it may not read, and does not exit as if there were no findings', {
    skip: !webUser && 'not root',
  }, async () => {
    mkdirSync(disk);
    makeSite();
    chmodSync(join(disk, 'logfiles'), 0o700);
    const ended = await runWebjobctl(['-c', config, 'configtest'], { ...(webUser && { user: webUser }) });
    assert.match(ended.stderr, /^webjobctl: error: EACCES: [^\n]*nph-webjob\.log'\nwebjobctl: hint: run it as root/);
    assert.equal(ended.code, 4);
  });
});
