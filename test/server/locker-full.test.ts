// Full and failing disks, through the real CGI process: what the client is told, the state of the
// locker and the log, and that the site continues to work. A real full disk needs a tmpfs, and
// therefore root; otherwise the name of the suite says so, and the same errors are still tested:
// EFBIG from the kernel at a file size limit, the others from strace.
import assert from 'node:assert/strict';
import { rmSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { configure, type Site } from '../../scripts/site.ts';
import { type BareResult, collect, runBare, spawnBare } from '../support/bare.ts';
import { inject, NO_STRACE, readTrace } from '../support/locker-strace.ts';
import { fillBytes, fillInodes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import {
  bareOptions,
  baseOf,
  GET_HOST_SH,
  isWhole,
  makeLockerSite,
  makeScratch,
  makeUpload,
  parsePut,
  rawPut,
  statusOf,
  type Upload,
} from '../support/locker-upload.ts';
import { part } from '../support/thorough.ts';
import { HOST_SH, readFiles, readLog, resetTree } from '../support/tree.ts';

const SIZES = { out: 200_000, err: 3_000, env: 500 };
const OVERWRITE = { PutNameFormat: '%cid_%cmd', OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' };

let site: Site;
beforeEach(() => {
  site = makeLockerSite();
});
afterEach(() => site.remove());

async function put(upload: Upload, wrapper: readonly string[] = []): Promise<BareResult> {
  return runBare(rawPut(upload), bareOptions(site, { wrapper, timeLimitSeconds: 60 }));
}

/** The files of an upload, by extension. */
function standing(name: string): string[] {
  return [...readFiles(site.incoming).keys()]
    .filter((path) => path.startsWith(`client1_${name}.`))
    .map((path) => path.slice(`client1_${name}`.length))
    .sort();
}

function assertAnswer(result: BareResult, status: number, message: string): void {
  assert.equal(statusOf(result.stdout), status, result.stderr);
  assert.match(readLog(site.base).at(-1) ?? '', new RegExp(` PUT client1 \\S+ \\d+ 0 \\d+ ${status} -- ${message}$`));
}

async function assertGetServed(): Promise<void> {
  const { stdout, stderr } = await runBare(GET_HOST_SH, bareOptions(site));
  assert.equal(statusOf(stdout), 200, stderr);
  assert.ok(stdout.toString('latin1').endsWith(`\r\n\r\n${HOST_SH}`));
}

describe('a file size limit (EFBIG, always run)', () => {
  const limited = ['/bin/sh', '-c', 'ulimit -f 64; exec "$0" "$@"'];

  it('causes 507, leaves nothing of the upload, and the site continues', async () => {
    assertAnswer(await put(makeUpload('large', SIZES), limited), 507, 'Insufficient Storage: write failed: EFBIG');
    assert.deepEqual(standing('large'), []);
    await assertGetServed();
    const small = makeUpload('small', { out: 1000, err: 10, env: 100 });
    assertAnswer(await put(small, limited), 200, 'Success');
    assert.ok(isWhole(baseOf(site, 'small'), small));
  });

  it('leaves the upload complete that was to be replaced', async () => {
    configure(site, OVERWRITE);
    const old = makeUpload('again', SIZES);
    assertAnswer(await put(old), 200, 'Success');
    assertAnswer(await put(makeUpload('again', SIZES), limited), 507, 'Insufficient Storage: write failed: EFBIG');
    assert.ok(isWhole(baseOf(site, 'again'), old));
    assert.deepEqual(standing('again'), ['.env', '.err', '.out', '.rdy']);
  });
});

interface Fault {
  /** strace's name for it. */
  fault: string;
  /** The extension of the file that it affects; `folder` for the directory of the upload. */
  on: string;
  stays: string[];
}

const STREAMS = ['.env', '.err', '.out'];

/** No space: 507 and nothing stays. */
const FULL: Fault[] = [
  { fault: '?openat:error=ENOSPC', on: '.lck', stays: [] },
  { fault: 'write:error=ENOSPC', on: '.lck', stays: [] },
  { fault: '?openat:error=EDQUOT', on: '.out', stays: [] },
  { fault: 'write:error=ENOSPC:when=2', on: '.out', stays: [] },
  { fault: 'write:error=EDQUOT', on: '.err', stays: [] },
  { fault: 'fsync:error=ENOSPC', on: '.err', stays: [] },
  { fault: '?openat:error=ENOSPC', on: '.env', stays: [] },
  { fault: 'fsync:error=EDQUOT', on: '.env', stays: [] },
  { fault: 'fsync:error=ENOSPC:when=1', on: 'folder', stays: [] },
  { fault: 'fsync:error=ENOSPC', on: '.lck', stays: [] },
  { fault: '?rename,?renameat,?renameat2:error=ENOSPC', on: '.lck', stays: [] },
  { fault: 'fsync:error=ENOSPC:when=2', on: 'folder', stays: [] },
];

/** A failing disk: 500, and what arrived stays without .rdy. */
const FAILING: Fault[] = [
  { fault: '?openat:error=EIO', on: '.lck', stays: [] },
  { fault: '?openat:error=EACCES', on: '.err', stays: ['.out'] },
  { fault: 'write:error=EIO:when=2', on: '.out', stays: ['.out'] },
  { fault: 'fsync:error=EIO', on: '.out', stays: STREAMS },
  { fault: 'close:error=EIO', on: '.out', stays: STREAMS },
  { fault: 'fsync:error=EIO', on: '.env', stays: STREAMS },
  { fault: 'fsync:error=EIO:when=1', on: 'folder', stays: STREAMS },
  { fault: 'fsync:error=EIO', on: '.lck', stays: STREAMS },
  { fault: '?rename,?renameat,?renameat2:error=EIO', on: '.lck', stays: STREAMS },
  { fault: 'fsync:error=EIO:when=2', on: 'folder', stays: STREAMS },
];

describe('an error injected into the script (strace)', { skip: NO_STRACE }, () => {
  function wrapperFor(name: string, { fault, on }: Pick<Fault, 'fault' | 'on'>): string[] {
    const path = on === 'folder' ? site.incoming : on === 'log' ? site.logFile : `${baseOf(site, name)}${on}`;
    return inject(traceFile(), fault, [path]);
  }

  function traceFile(): string {
    return join(makeScratch(site, 'scratch'), 'trace');
  }

  for (const { status, reason, faults } of [
    { status: 507, reason: 'Insufficient Storage', faults: FULL },
    { status: 500, reason: 'Internal Server Error', faults: FAILING },
  ]) {
    for (const fault of faults) {
      it(`leaves ${fault.stays.join(' ') || 'nothing'} and answers ${status} (${fault.fault} on ${fault.on})`, async () => {
        const upload = makeUpload('faulty', SIZES);
        const [, error = ''] = /error=(\w+)/.exec(fault.fault) ?? [];
        assertAnswer(await put(upload, wrapperFor('faulty', fault)), status, `${reason}: \\w+ failed: ${error}`);
        assert.deepEqual(standing('faulty'), fault.stays);
        const injected = readTrace(traceFile()).filter((call) => call.text.endsWith('(INJECTED)'));
        assert.equal(injected.length, 1, 'the failed call is not made again');
        assertAnswer(await put(makeUpload('next', SIZES)), 200, 'Success');
      });
    }
  }

  for (const [status, faults] of [
    [507, FULL],
    [500, FAILING],
  ] as const)
    for (const fault of part(faults, 4))
      it(`leaves the first of two differing uploads with ${status} (${fault.fault} on ${fault.on}); a retry succeeds`, async () => {
        configure(site, { ...OVERWRITE, KeepDifferingUploads: 'Y' });
        const [first, second] = [makeUpload('faulty', SIZES), makeUpload('faulty', SIZES)];
        assert.equal(statusOf((await put(first)).stdout), 200);
        assert.equal(statusOf((await put(second, wrapperFor('faulty~2', fault))).stdout), status);
        assert.ok(isWhole(baseOf(site, 'faulty'), first));
        assert.deepEqual(standing('faulty'), ['.env', '.err', '.out', '.rdy']);
        assert.deepEqual(standing('faulty~2'), fault.stays);
        for (const again of [second, second, first]) assert.equal(statusOf((await put(again)).stdout), 200);
        assert.ok(isWhole(baseOf(site, 'faulty'), first) && isWhole(baseOf(site, 'faulty~2'), second));
        assert.deepEqual(standing('faulty~3'), []);
      });

  it('causes 507 without room once a replaced upload has lost its .rdy, and neither is lost', async () => {
    configure(site, OVERWRITE);
    assertAnswer(await put(makeUpload('again', SIZES)), 200, 'Success');
    const wrapper = wrapperFor('again', { fault: 'fsync:error=ENOSPC:when=1', on: 'folder' });
    assertAnswer(await put(makeUpload('again', SIZES), wrapper), 507, 'Insufficient Storage: fsync failed: ENOSPC');
    assert.deepEqual(standing('again'), ['.env', '.env.new', '.err', '.err.new', '.out', '.out.new']);
  });

  it('leaves the answer unchanged when the log is full, and the line goes to stderr', async () => {
    const upload = makeUpload('unlogged', SIZES);
    const result = await put(upload, wrapperFor('unlogged', { fault: 'write:error=ENOSPC', on: 'log' }));
    assert.equal(statusOf(result.stdout), 200);
    assert.ok(isWhole(baseOf(site, 'unlogged'), upload));
    assert.match(result.stderr, /nph-webjob\.log: ENOSPC: .* 200 -- Success/);
  });
});

const obstacle = findMountObstacle();
const way = obstacle === undefined ? 'tmpfs mounted' : `mount not allowed here: ${obstacle}; the suites above stand in`;

describe(`a disk that is full (${way})`, { skip: obstacle }, () => {
  /** Mounts a tmpfs, runs `act` on it, and unmounts it in any case. */
  async function withDisk(path: string, limits: string, act: () => Promise<void>): Promise<void> {
    mountTmpfs(path, limits);
    try {
      await act();
    } finally {
      unmountTmpfs(path);
    }
  }

  /**
   * Sends an upload up to the middle of its first stream, calls `meddle` once that has arrived, and
   * sends the rest.
   */
  async function putInterrupted(upload: Upload, meddle: () => void): Promise<BareResult> {
    const request = parsePut(upload);
    const child = spawnBare(request, bareOptions(site));
    const result = collect(child, 60);
    const middle = Math.floor(upload.streams.out.length / 2);
    child.stdin?.write(request.body.subarray(0, middle));
    await untilSize(`${baseOf(site, upload.name)}.out`, middle);
    meddle();
    child.stdin?.end(request.body.subarray(middle));
    return result;
  }

  it('refuses what cannot fit before it is stored', async () => {
    await withDisk(site.incoming, 'size=2m', async () => {
      const upload = makeUpload('large', { out: 1_500_000, err: 0, env: 0 });
      assertAnswer(await put(upload), 507, 'Insufficient Storage: not enough space');
      assert.deepEqual(standing('large'), []);
      assertAnswer(await put(makeUpload('small', SIZES)), 200, 'Success');
    });
  });

  it('answers 507 when it fills during an upload: nothing stays, and the name is free again', async () => {
    await withDisk(site.incoming, 'size=2m', async () => {
      const upload = makeUpload('late', { ...SIZES, out: 600_000 });
      const filler = join(site.incoming, 'filler');
      const result = await putInterrupted(upload, () => fillBytes(filler));
      assertAnswer(result, 507, 'Insufficient Storage: write failed: ENOSPC');
      assert.deepEqual([...readFiles(site.incoming).keys()], ['filler']);
      fillBytes(filler);
      assertAnswer(await put(makeUpload('none', SIZES)), 507, 'Insufficient Storage: .*');
      assert.deepEqual([...readFiles(site.incoming).keys()], ['filler']);
      await assertGetServed();
      unlinkSync(filler);
      assertAnswer(await put(upload), 200, 'Success');
      assert.ok(isWhole(baseOf(site, 'late'), upload));
    });
  });

  it('answers 507 without inodes: nothing stays, and GET is served', async () => {
    await withDisk(site.incoming, 'size=4m,nr_inodes=40', async () => {
      const filler = join(site.incoming, 'filler');
      const count = (): number =>
        [...readFiles(site.incoming).keys()].filter((path) => !path.startsWith('filler/')).length;
      const result = await putInterrupted(makeUpload('late', SIZES), () => fillInodes(filler, 0));
      assertAnswer(result, 507, 'Insufficient Storage: open failed: ENOSPC');
      assert.equal(count(), 0);
      for (const [left, message] of [
        [0, 'open failed: ENOSPC'],
        [7, 'no inodes left'],
      ] as const) {
        rmSync(filler, { recursive: true });
        fillInodes(filler, left);
        assertAnswer(await put(makeUpload('none', SIZES)), 507, `Insufficient Storage: ${message}`);
        assert.equal(count(), 0);
      }
      await assertGetServed();
      rmSync(filler, { recursive: true });
      assertAnswer(await put(makeUpload('next', SIZES)), 200, 'Success');
    });
  });

  it('serves GET all the same when it contains the log, and loses no line', async () => {
    const disk = makeScratch(site, 'disk');
    await withDisk(disk, 'size=2m', async () => {
      const whole = { ...site, base: join(disk, 'integrity'), incoming: join(disk, 'integrity/incoming') };
      resetTree(whole.base, bareOptions(site).user);
      configure(site, { PutNameFormat: '%cid_%cmd', BaseDirectory: whole.base });
      fillBytes(join(disk, 'filler'));
      const refused = await put(makeUpload('none', SIZES));
      assert.equal(statusOf(refused.stdout), 507);
      assert.deepEqual([...readFiles(whole.incoming).keys()], []);
      const served = await runBare(GET_HOST_SH, bareOptions(site));
      assert.equal(statusOf(served.stdout), 200, served.stderr);
      assert.ok(served.stdout.toString('latin1').endsWith(HOST_SH));
      const lines = [...readLog(whole.base), ...`${refused.stderr}${served.stderr}`.split('\n')];
      for (const said of [' 507 -- Insufficient Storage', ' 200 -- Success']) {
        assert.equal(lines.filter((line) => line.includes(said)).length, 1, said);
      }
    });
  });
});

async function untilSize(path: string, size: number): Promise<void> {
  for (let waited = 0; waited < 20_000; waited += 10) {
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) >= size) return;
    await sleep(10);
  }
  throw new Error(`${path} does not grow to ${size} bytes`);
}
