// Unusual file systems, through the real CGI process: no inode counts, space reserved for root,
// directories that cannot be synced, no files without a name, and short writes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { appendCustody } from '../../cgi/locker/index.ts';
import type { Site } from '../../scripts/site.ts';
import { type BareResult, runBare } from '../support/bare.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { mountUnion, NO_UNION } from '../support/fuse.ts';
import { giveAway } from '../support/hooks-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { fillInodes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import {
  bareOptions,
  baseOf,
  isWhole,
  makeLockerSite,
  makeScratch,
  makeUpload,
  rawPut,
  statusOf,
} from '../support/locker-upload.ts';
import { runWebjobctl } from '../support/operator.ts';
import { readLog } from '../support/tree.ts';

const SIZES = { out: 20_000, err: 300, env: 50 };
const ROOM = 4096 * 1000;

let site: Site;
beforeEach(() => {
  site = makeLockerSite();
});
afterEach(() => site.remove());

/** Uploads; returns the result and whether the upload is complete. */
async function put(name: string, wrapper: readonly string[] = []): Promise<BareResult & { isWhole: boolean }> {
  const upload = makeUpload(name, SIZES);
  const result = await runBare(rawPut(upload), bareOptions(site, { wrapper, timeLimitSeconds: 60 }));
  return { ...result, isWhole: isWhole(baseOf(site, name), upload) };
}

const faulty = (injection: string, path: string): string[] =>
  inject(join(makeScratch(site, 'scratch'), 'trace'), injection, [path]);

function assertStored({ stdout, stderr, isWhole }: BareResult & { isWhole: boolean }): void {
  assert.equal(statusOf(stdout), 200, stderr);
  assert.ok(isWhole);
}

function assertRefused({ stdout, stderr }: BareResult, message: string): void {
  assert.equal(statusOf(stdout), 507, stderr);
  assert.match(readLog(site.base).at(-1) ?? '', new RegExp(` 507 -- Insufficient Storage: ${message}$`));
  assert.deepEqual(readdirSync(site.incoming), []);
}

describe('a file system (strace)', { skip: NO_STRACE }, () => {
  it('stores uploads even when it cannot sync a directory (EINVAL)', async () => {
    assertStored(await put('unsynced', faulty('fsync:error=EINVAL', site.incoming)));
  });

  it('stores no upload when it cannot sync a file (EINVAL)', async () => {
    const { stdout } = await put('unsynced', faulty('fsync:error=EINVAL', `${baseOf(site, 'unsynced')}.out`));
    assert.equal(statusOf(stdout), 500);
  });

  it('takes back an announcement that fails (EIO)', async () => {
    const { stdout } = await put('withdrawn', faulty('fsync:error=EIO:when=2', site.incoming));
    assert.equal(statusOf(stdout), 500);
    assert.deepEqual(
      readdirSync(site.incoming).sort(),
      ['env', 'err', 'out'].map((end) => `client1_withdrawn.${end}`),
    );
  });

  /** The fields of statfs(2) in 64-bit words, in the order of the structure. */
  const saying = (bfree: number, bavail: number, files: number, ffree: number): string[] => {
    const bytes = Buffer.from(BigUint64Array.from([0xef53, 4096, 1e6, bfree, bavail, files, ffree].map(BigInt)).buffer);
    return faulty(`statfs:poke_exit=@arg2=${bytes.toString('hex')}`, site.incoming);
  };
  const layout = process.arch === 'x64' || process.arch === 'arm64' ? undefined : 'another layout of statfs';

  it('is full when its free space is reserved for root', { skip: layout }, async () => {
    assertRefused(await put('kept', saying(ROOM, 10, 1000, 1000)), 'not enough space');
  });

  it('is full without free inodes, but not when it does not count inodes', { skip: layout }, async () => {
    assertRefused(await put('used', saying(ROOM, ROOM, 1000, 7)), 'no inodes left');
    assertStored(await put('uncounted', saying(ROOM, ROOM, 0, 0)));
  });

  it('gives a body a name for a moment when it has no nameless files', () => {
    const folder = makeScratch(site, 'spool');
    const spool = pathToFileURL(join(import.meta.dirname, '../../cgi/node-cgi-compat/spool.ts')).href;
    const program = `
      import { readdirSync, writeSync } from 'node:fs';
      import { Spool } from '${spool}';
      const spool = new Spool(200_000, () => '${folder}');
      for (let turn = 0; turn < 20; turn += 1) spool.append(Buffer.alloc(10_000, turn));
      let [size, last] = [0, 0];
      const buffer = Buffer.alloc(7_000);
      for (let count = spool.read(buffer); count > 0; count = spool.read(buffer)) [size, last] = [size + count, buffer[count - 1]];
      writeSync(1, [size, last, ...readdirSync('${folder}')].join(' '));`;
    for (const error of ['EOPNOTSUPP', 'EISDIR', 'EINVAL']) {
      const [strace = '', ...words] = faulty(`?openat:error=${error}:when=1`, folder);
      const node = [process.execPath, '--input-type=module', '-e', program];
      const { stdout, stderr } = spawnSync(strace, [...words, ...node], { encoding: 'utf8' });
      assert.equal(stdout, '200000 19', `${error}: ${stderr}`);
    }
  });
});

describe('a file size limit in the middle of an entry', () => {
  it('refuses the upload, and the next entry covers the half of it', async () => {
    const limit = 64 * 512;
    const path = custodyOf(site);
    appendCustody(path, { event: 'deposit', name: 'first' });
    const { size } = statSync(path);
    appendCustody(path, { event: 'deposit', name: 'second', filling: 'x'.repeat(limit - 2 * size - 300) });
    const before = statSync(path).size;
    assert.ok(before > limit - 400 && before < limit - 100, `${before}`);
    assertRefused(
      await put('halved', ['/bin/sh', '-c', 'ulimit -f 64; exec "$0" "$@"']),
      'custody record: the custody record was truncated',
    );
    assert.equal(statSync(path).size, limit);
    assertStored(await put('next'));
    // The end of the line belongs to the next record, which the one after it covers.
    assertStored(await put('last'));
    assert.deepEqual(
      readRecords(path).map(({ name }) => name),
      ['first', 'second', 'client1_next', 'client1_last'],
    );
  });
});

const obstacle = findMountObstacle();

describe('a tmpfs', { skip: obstacle }, () => {
  /** Mounts a tmpfs, runs `act` on it, and unmounts it in any case. */
  async function withDisk(path: string, limits: string, act: () => Promise<void>): Promise<void> {
    mountTmpfs(path, limits);
    try {
      await act();
    } finally {
      unmountTmpfs(path);
    }
  }

  it('stores uploads when it does not count inodes', async () => {
    await withDisk(site.incoming, 'size=4m,nr_inodes=0', async () => assertStored(await put('uncounted')));
  });

  it('refuses uploads when the logs have no inode for the custody record', async () => {
    const logs = join(site.base, 'logfiles');
    await withDisk(logs, 'size=1m,nr_inodes=20', async () => {
      writeFileSync(site.logFile, '');
      giveAway(site.logFile);
      fillInodes(join(logs, 'filler'), 0);
      assertRefused(await put('unrecorded'), 'custody record: open failed: ENOSPC');
      rmSync(join(logs, 'filler'), { recursive: true });
      assertStored(await put('recorded'));
      assert.equal(readRecords(custodyOf(site)).length, 1);
    });
  });

  it('refuses uploads when the logs have room for only a part of the entry', async () => {
    const logs = join(site.base, 'logfiles');
    await withDisk(logs, 'size=8k', async () => {
      for (const path of [site.logFile, custodyOf(site)]) {
        writeFileSync(path, '');
        giveAway(path);
      }
      // Of the two pages the first is filled by the record, except for 100 bytes; the second is for
      // the log.
      writeFileSync(custodyOf(site), '\n'.repeat(3996));
      writeFileSync(site.logFile, '\n');
      assertRefused(await put('halved'), 'custody record: the custody record was truncated');
      assert.equal(statSync(custodyOf(site)).size, 4096);
    });
  });
});

describe('a file system whose process is killed', { skip: NO_UNION }, () => {
  it('is reported by webjobctl, with a hint', async () => {
    const union = mountUnion();
    try {
      const file = join(site.root, 'union.cfg');
      for (const name of ['incoming', 'logfiles']) mkdirSync(join(union.path, name));
      writeFileSync(file, `BaseDirectory=${union.path}\nLogfilesDirectory=${join(site.base, 'logfiles')}\n`);
      const { stdout } = spawnSync('pgrep', ['-f', `^unionfs .*${union.path}$`], { encoding: 'utf8' });
      process.kill(Number(stdout), 'SIGKILL');
      const { code, stderr } = await runWebjobctl(['--config', file, 'jobs']);
      assert.equal(code, 4);
      assert.match(
        stderr,
        /^webjobctl: error: \S+\/incoming: ENOTCONN\nwebjobctl: hint: the file system that was mounted there is gone: .+\n$/,
      );
    } finally {
      union.remove();
    }
  });
});
