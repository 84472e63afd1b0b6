// pack, unpack, prune and hold when a write ends early: on a disk that fills up, and with a file
// size limit, where the last write before the error is a short one. Nothing complete is lost,
// nothing incomplete is mistaken for complete, and the next run continues.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { collect } from '../support/bare.ts';
import { groupNames, makeScratch, readCustody, unpackByTar, WEBJOBCTL } from '../support/keep-site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { fillBytes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { type PastJob, plantPast, setTime } from '../support/past-site.ts';
import { many, part } from '../support/thorough.ts';
import { readFiles } from '../support/tree.ts';

const AT = new Date(Date.now() - 40 * 86_400_000);
const DAY = AT.toISOString().slice(0, 10);
/** The unit of `ulimit -f` in a POSIX shell. */
const BLOCK = 512;

const its = makeLockerSite({ UseGMT: 'Y' });
const { site } = its;
after(its.close);

/**
 * Runs webjobctl with a file size limit in blocks. Beyond that a write is short, and the next one
 * fails with EFBIG.
 */
function runLimited(blocks: number | undefined, ...args: string[]) {
  const limit = blocks === undefined ? '' : `trap '' XFSZ; ulimit -f ${blocks};`;
  const words = [process.execPath, WEBJOBCTL, '--config', site.propertiesFile, ...args];
  return collect(
    spawn('/bin/sh', ['-c', `${limit} exec "$@"`, 'sh', ...words], { stdio: ['ignore', 'pipe', 'pipe'] }),
    60,
  );
}

/** Fails with 4, for this reason, and names the file. */
async function fail(reason: RegExp, ran: ReturnType<typeof runLimited>): Promise<void> {
  const { exitCode, stderr } = await ran;
  assert.equal(exitCode, 4, stderr);
  assert.match(stderr, /^webjobctl: error: /m);
  assert.match(stderr, reason);
}

const packed = (): string[] => {
  const folder = join(site.base, 'packed');
  return existsSync(folder) ? readdirSync(folder) : [];
};

/** Every file of a locker as its SHA-256, so that an AssertionError is readable. */
function digestFiles(locker: string): Map<string, string> {
  const digest = (content: string): string => createHash('sha256').update(content, 'latin1').digest('hex');
  return new Map([...readFiles(locker)].sort().map(([path, content]) => [path, digest(content)]));
}

/** The uploads that prune recorded, ignoring what a short write left of a record. */
function readPruned(): string[] {
  const text = readFileSync(join(site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl'), 'utf8');
  const whole = text.split('\n').filter((line) => line.endsWith('"}'));
  return whole.flatMap((line) => (JSON.parse(line) as { names: string[] }).names);
}

/** There are only these uploads. */
function resetSite(jobs: readonly PastJob[]): void {
  for (const folder of ['packed', 'config']) rmSync(join(site.base, folder), { recursive: true, force: true });
  rmSync(join(site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl'), { force: true });
  rmSync(site.incoming, { recursive: true });
  mkdirSync(site.incoming);
  plantPast(site, 'UTC', jobs);
}

describe('a short write', () => {
  const out = randomBytes(90 * BLOCK + 100);
  let files: Map<string, string>;
  beforeEach(() => {
    resetSite([{ at: AT, name: 'one', out }, ...numbers(30).map((number) => ({ at: AT, name: `n${number}` }))]);
    files = digestFiles(site.incoming);
  });

  it('leaves every upload in place when it hits the archive or the manifest', async () => {
    for (const blocks of part([1, 10, 91, 92], 2)) {
      await fail(/EFBIG/, runLimited(blocks, 'pack', '--older-than', '30d'));
      assert.deepEqual(digestFiles(site.incoming), files, `${blocks} blocks`);
      assert.deepEqual(packed(), []);
      assert.deepEqual(readCustody(site), []);
    }
    const { exitCode, stderr } = await runLimited(undefined, 'pack', '--older-than', '30d');
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(groupNames(site), []);
    assert.deepEqual(readdirSync(join(site.base, 'packed')).sort(), [`${DAY}.jsonl`, `${DAY}.tar.gz`]);
  });

  it('announces nothing, and leaves the archive, when it hits an unpacked stream', async () => {
    assert.equal((await runLimited(undefined, 'pack', '--older-than', '30d')).exitCode, 0);
    // All of it but the last hundred bytes fits.
    for (const blocks of part([90, 45, 3], 2)) {
      await fail(/EFBIG/, runLimited(blocks, 'unpack', DAY));
      assert.ok(!existsSync(join(site.incoming, 'one.rdy')), `${blocks} blocks`);
      for (const [path, content] of digestFiles(site.incoming)) assert.equal(content, files.get(path), path);
      assert.deepEqual(packed().sort(), [`${DAY}.jsonl`, `${DAY}.tar.gz`]);
    }
    assert.equal((await runLimited(undefined, 'unpack', DAY)).exitCode, 0);
    assert.deepEqual(digestFiles(site.incoming), files);
    assert.deepEqual(packed(), []);
  });

  it('keeps prune from removing anything when it hits the custody record', async () => {
    for (const blocks of [1, 2]) {
      await fail(/truncated|EFBIG/, runLimited(blocks, 'prune', '--older-than', '30d', '--yes'));
      assert.deepEqual(digestFiles(site.incoming), files, `${blocks} blocks`);
    }
    assert.equal((await runLimited(undefined, 'prune', '--older-than', '30d', '--yes')).exitCode, 0);
    assert.deepEqual(digestFiles(site.incoming), new Map());
    assert.equal(readPruned().length, 31);
  });

  it('keeps the earlier holds when it hits the file of holds', async () => {
    const holds = join(site.base, 'config', 'nph-webjob', 'holds.jsonl');
    const add = (client: string, blocks?: number) =>
      runLimited(blocks, 'hold', 'add', '--client', client, '--reason', 'x'.repeat(400));
    assert.equal((await add('first')).exitCode, 0);
    const before = readFileSync(holds, 'utf8');
    await fail(/EFBIG/, add('second', 1));
    assert.equal(readFileSync(holds, 'utf8'), before);
    assert.deepEqual(readdirSync(join(site.base, 'config', 'nph-webjob')), ['holds.jsonl']);
    assert.equal((await add('second')).exitCode, 0);
    assert.equal(readFileSync(holds, 'utf8').split('\n').length, 3);
  });
});

describe('an fsync that fails', { skip: NO_STRACE }, () => {
  it('stops pack and unpack, and every upload is complete in the locker or in the archive', async () => {
    for (const { command, step } of [
      { command: ['pack', '--older-than', '30d'], step: many(2, 5) },
      { command: ['unpack', DAY], step: many(5, 8) },
    ]) {
      for (let count = 1; ; count += step) {
        resetSite([
          { at: AT, name: 'one', out: 'the first\n' },
          { at: AT, name: 'two', out: 'the second\n' },
        ]);
        const files = readFiles(site.incoming);
        if (command[0] === 'unpack') await runLimited(undefined, 'pack', '--older-than', '30d');
        const wrapper = inject(join(makeScratch(site), 'trace'), `fsync:error=EIO:when=${count}`, []);
        const [program = '', ...words] = [...wrapper, process.execPath, WEBJOBCTL, '--config', site.propertiesFile];
        const child = spawn(program, [...words, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
        const { exitCode, stderr } = await collect(child, 60);
        if (exitCode === 0 && count > 6) break;
        assert.equal(exitCode, 4, `fsync ${count}: ${stderr}`);
        assert.match(stderr, /EIO/, `fsync ${count}`);
        const left = new Map([...unpackByTar(site), ...readFiles(site.incoming)]);
        for (const [path, content] of files) assert.equal(left.get(path), content, `${path} after fsync ${count}`);
      }
    }
  });

  it('stops nothing when it hits a directory that the file system cannot sync', async () => {
    resetSite([{ at: AT, name: 'one' }]);
    const files = readFiles(site.incoming);
    mkdirSync(join(site.base, 'packed'));
    const folders = ['', 'packed', 'incoming', 'logfiles', 'config', 'config/nph-webjob'].map((name) =>
      join(site.base, name),
    );
    for (const args of [
      ['pack', '--older-than', '30d'],
      ['unpack', DAY],
    ]) {
      const trace = join(makeScratch(site), 'trace');
      const wrapper = inject(trace, 'fsync:error=EINVAL', folders);
      const [program = '', ...words] = [...wrapper, process.execPath, WEBJOBCTL, '--config', site.propertiesFile];
      const child = spawn(program, [...words, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
      const { exitCode, stderr } = await collect(child, 60);
      assert.equal(exitCode, 0, stderr);
      assert.match(readFileSync(trace, 'latin1'), /EINVAL.*INJECTED/);
    }
    assert.deepEqual(readFiles(site.incoming), files);
  });
});

describe('a disk that fills up', { skip: findMountObstacle() }, () => {
  const disk = join(site.root, 'disk');
  const old = join(disk, 'incoming');
  const fill = join(disk, 'fill');
  const [large, small] = [randomBytes(700_000), randomBytes(300_000)];
  let files: Map<string, string>;
  before(() => {
    mkdirSync(disk);
    mountTmpfs(disk, 'size=4m');
    chownSync(disk, 0, 0);
    for (const folder of ['incoming', 'logfiles', 'config']) mkdirSync(join(disk, folder));
    const config = makeScratch(site);
    cpSync(site.logFile, join(disk, 'logfiles', 'nph-webjob.log'));
    configure(site, { BaseDirectory: disk, ConfigDirectory: config, UseGMT: 'Y' });
    const there = { ...site, base: disk, incoming: old, logFile: join(disk, 'logfiles', 'nph-webjob.log') };
    plantPast(there, 'UTC', [
      { at: AT, name: 'large', out: large },
      { at: AT, name: 'small', out: small },
    ]);
    files = digestFiles(old);
  });
  after(() => unmountTmpfs(disk));

  /** Fills the disk except for this many bytes. */
  function leave(bytes: number): void {
    rmSync(fill, { force: true });
    writeFileSync(`${fill}.room`, Buffer.alloc(bytes));
    fillBytes(fill);
    rmSync(`${fill}.room`);
  }

  it('keeps every upload while it is packed, and every archive while it is unpacked', async () => {
    for (const room of [900_000, 200_000, 30_000, 8192]) {
      leave(room);
      await fail(/ENOSPC/, runLimited(undefined, 'pack', '--older-than', '30d'));
      assert.deepEqual(digestFiles(old), files, `${room} bytes left`);
      assert.deepEqual(readdirSync(join(disk, 'packed')), [], `${room} bytes left`);
    }
    rmSync(fill);
    assert.equal((await runLimited(undefined, 'pack', '--older-than', '30d')).exitCode, 0);
    assert.deepEqual(digestFiles(old), new Map());
    const archive = readFileSync(join(disk, 'packed', `${DAY}.tar.gz`));
    for (const room of [900_000, 250_000, 30_000, 4096]) {
      leave(room);
      await fail(/ENOSPC/, runLimited(undefined, 'unpack', DAY));
      assert.deepEqual(readFileSync(join(disk, 'packed', `${DAY}.tar.gz`)), archive);
      const there = digestFiles(old);
      for (const [path, content] of there) assert.equal(content, files.get(path), `${path}, ${room} bytes left`);
      for (const name of ['large', 'small'])
        if (there.has(`${name}.rdy`)) assert.equal([...there.keys()].filter((path) => path.startsWith(name)).length, 4);
    }
    rmSync(fill);
    const { exitCode, stderr } = await runLimited(undefined, 'unpack', DAY);
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(digestFiles(old), files);
    assert.ok(Math.abs(statSync(join(old, 'large.rdy')).mtimeMs - AT.getTime()) < 2);
  });

  it('keeps prune from removing what it cannot record', async () => {
    for (const name of ['large', 'small']) setTime({ ...site, incoming: old }, name, AT);
    rmSync(join(disk, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl'), { force: true });
    leave(0);
    await fail(/ENOSPC|truncated/, runLimited(undefined, 'prune', '--older-than', '30d', '--yes'));
    assert.deepEqual(digestFiles(old), files);
    rmSync(fill);
    assert.equal((await runLimited(undefined, 'prune', '--older-than', '30d', '--yes')).exitCode, 0);
    assert.deepEqual(digestFiles(old), new Map());
  });
});

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}
