// Paths to files of a locker: through directories that nobody can replace on the way, and to
// nothing outside.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeFolders, nameReached, reach, reachFolder, walkLocker } from '../../cgi/locker/index.ts';

describe('the path to a file of a locker', () => {
  let root = '';
  let locker = '';
  const put = (file: string, text = file): void => {
    mkdirSync(join(locker, file, '..'), { recursive: true });
    writeFileSync(join(locker, file), text);
  };
  const isThere = (name: string): boolean => lstatSync(reach(locker, name), { throwIfNoEntry: false }) !== undefined;
  before(() => {
    root = mkdtempSync(join(realpathSync(tmpdir()), 'webjob-reach-'));
    locker = join(root, 'incoming');
    put('flat.out');
    put('a/one.out');
    put('a/b/c/deep.out');
    writeFileSync(join(root, 'outside.out'), 'outside');
    symlinkSync('..', join(locker, 'link'));
    symlinkSync('../../..', join(locker, 'a', 'b', 'link'));
  });
  after(() => spawnSync('rm', ['-rf', root]));

  it('is resolved, and appears by name in messages', () => {
    for (const name of ['flat.out', 'a/one.out', 'a/b/c/deep.out']) {
      assert.equal(readFileSync(reach(locker, name), 'utf8'), name);
      const message = `EACCES: permission denied, open '${reach(locker, name)}'`;
      assert.equal(nameReached(message), `EACCES: permission denied, open '${locker}/${name}'`);
    }
    for (const folder of ['.', 'a', 'a/b']) {
      assert.deepEqual(readdirSync(reachFolder(locker, folder)), readdirSync(join(locker, folder)));
      assert.equal(lstatSync(reachFolder(locker, folder)).ino, lstatSync(join(locker, folder)).ino);
      assert.equal(nameReached(`'${reachFolder(locker, folder)}'`), `'${join(locker, folder)}'`);
    }
  });

  it('is refused when it is not below the locker, or leads through a link or a file', () => {
    const names = ['link/outside', '../outside', 'a/../../outside', '/outside', 'a//one', 'a/./one', './flat'];
    for (const name of [...names, 'flat.out/x', 'none/x', 'a/b/link/outside', '..//outside'])
      assert.equal(isThere(`${name}.out`), false, name);
    for (const folder of ['link', '..', 'a/..', 'a/b/link', 'none'])
      assert.equal(lstatSync(reachFolder(locker, folder), { throwIfNoEntry: false }), undefined, folder);
  });

  it('stays in a directory that was moved away, and soon finds the one in its place', async () => {
    const path = reach(locker, 'a/one.out');
    renameSync(join(locker, 'a'), join(locker, 'moved'));
    symlinkSync('..', join(locker, 'a'));
    assert.equal(readFileSync(path, 'utf8'), 'a/one.out');
    await sleep(1100);
    assert.equal(isThere('a/outside.out'), false);
    rmSync(join(locker, 'a'));
    put('a/one.out', 'another');
    await sleep(1100);
    assert.equal(readFileSync(reach(locker, 'a/one.out'), 'utf8'), 'another');
  });

  it('keeps few directories open', () => {
    const open = readdirSync('/proc/self/fd').length;
    for (let number = 0; number < 400; number++) {
      put(`many/${number}/x.out`);
      assert.equal(isThere(`many/${number}/x.out`), true);
    }
    assert.ok(readdirSync('/proc/self/fd').length < open + 150);
  });

  it('is created where it is missing, but not through a link', () => {
    makeFolders(locker, 'new/er/x');
    assert.equal(lstatSync(join(locker, 'new/er')).isDirectory(), true);
    makeFolders(locker, 'link/new/x');
    assert.deepEqual(readdirSync(root).sort(), ['incoming', 'outside.out']);
  });

  it('ends where no path can be longer, however deep the directories are', () => {
    const folder = join(locker, 'nested');
    mkdirSync(folder);
    const program = 'import os, sys\nfor _ in range(3000):\n os.mkdir("d"); os.chdir("d")';
    assert.equal(spawnSync('python3', ['-c', program], { cwd: folder }).status, 0);
    const foreignFiles = [...walkLocker(locker)].flatMap(({ foreignFile = '' }) =>
      foreignFile.startsWith('nested') ? [foreignFile.length] : [],
    );
    assert.deepEqual(foreignFiles, [4096]);
  });

  it('leads by descriptors to a locker that other users can exchange', {
    skip: process.getuid?.() !== 0 && 'not root',
  }, () => {
    const base = join(root, 'base');
    const exposed = join(base, 'incoming');
    mkdirSync(exposed, { recursive: true });
    writeFileSync(join(exposed, 'x.out'), 'own');
    mkdirSync(join(root, 'secret'));
    writeFileSync(join(root, 'secret', 'x.out'), 'secret');
    chownSync(base, 65_534, 65_534);
    assert.equal(readFileSync(reach(exposed, 'x.out'), 'utf8'), 'own');
    renameSync(exposed, join(base, 'away'));
    symlinkSync('../secret', exposed);
    // The same directory while it is held open, and none when it is looked up again.
    const kept = lstatSync(reach(exposed, 'x.out'), { throwIfNoEntry: false });
    assert.ok(kept === undefined || kept.size === 'own'.length);
    // A path that was not used before: the link is refused, not followed.
    assert.throws(() => reach(`${base}/./incoming`, 'x.out'), {
      code: 'ELOOP',
      message: /incoming is a link that users/,
    });
  });
});
