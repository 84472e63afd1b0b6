// The files in which a client's requests and uploads are counted: by single calls, by many
// processes at once, and by processes that are killed.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { failureOf, type Reservation, reserve, type Slot, takeSlot, type Use } from 'webjob-locker';
import { startOf } from 'webjob-locker/processes';
import { findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-limits-'));
after(() => rmSync(root, { recursive: true }));
const folder = join(root, 'client1');
const names = { day: '20261130', oldest: '20261129', serverId: 'server_1' };
const record = join(folder, 'day-20261130-server_1');
const NONE: Use = { bytes: 0, uploads: 0 };

beforeEach(() => rmSync(folder, { recursive: true, force: true }));

/** Counts an upload; returns the limit that it exceeds, if any. */
function count(bytes: number, limits: Partial<Use>, unused?: Use, more: Partial<typeof names> = {}): string {
  const held = reserve(folder, { ...names, ...more }, bytes, { ...NONE, ...limits });
  if (typeof held === 'string') return held;
  if (unused) held.giveBack(unused);
  held.close();
  return '';
}

/**
 * Starts a process that runs these lines with the module imported, and resolves with each line that
 * it prints.
 */
function startWorker(lines: string): { child: ChildProcess; printed: () => Promise<string> } {
  const module = JSON.stringify(join(import.meta.dirname, '../../cgi/locker/limits.ts'));
  const text = `import { reserve, takeSlot } from ${module};
    const [folder, names] = ${JSON.stringify([folder, names])};
    ${lines}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', text], { stdio: ['ignore', 'pipe', 'inherit'] });
  const printed = async (): Promise<string> => String((await once(child.stdout, 'data'))[0]).trim();
  return { child, printed };
}

describe('a slot', () => {
  const take = (limit: number, serverId = 'server_1'): Slot | undefined => takeSlot(folder, serverId, limit);

  it('is one of a fixed number, and free again when it is released', () => {
    const slots = [take(2), take(2)];
    assert.equal(take(2), undefined);
    slots[0]?.release();
    assert.ok(take(2));
    assert.equal(take(2), undefined);
    assert.ok(take(3), 'a higher limit has more');
    slots[1]?.release();
    slots[1]?.release();
  });

  it('belongs to one server, whatever its name', () => {
    for (const serverId of ['server_1', 'server_1-0', '0', '-', '..', 'slot-0']) {
      assert.ok(take(1, serverId), serverId);
      assert.equal(take(1, serverId), undefined, serverId);
    }
  });

  it('is free when its process was killed', async () => {
    const { child, printed } = startWorker(
      "takeSlot(folder, 'server_1', 1); console.log('held'); setInterval(() => {}, 1000);",
    );
    await printed();
    assert.equal(take(1), undefined);
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.ok(take(1));
    assert.equal(take(1), undefined);
    assert.equal(readlinkSync(join(folder, 'slot-server_1-0')), `${process.pid}-${startOf(process.pid)}`);
    assert.deepEqual(readdirSync(folder), ['slot-server_1-0']);
  });

  it('is free when another process has the id of its process', () => {
    mkdirSync(folder);
    symlinkSync(`${process.pid}-1`, join(folder, 'slot-server_1-0'));
    assert.ok(take(1));
  });

  it('is not taken from what is not a slot', () => {
    mkdirSync(join(folder, 'slot-server_1-0'), { recursive: true });
    symlinkSync('/etc/passwd', join(folder, 'slot-server_1-1'));
    assert.equal(take(2), undefined);
    assert.equal(readlinkSync(join(folder, 'slot-server_1-1')), '/etc/passwd');
  });

  it('is held by as many processes as there are slots, however many others were killed', async () => {
    mkdirSync(folder);
    // As left by a machine that crashed: no process has such an id.
    for (let number = 0; number < 3; number += 1)
      symlinkSync(`${2 ** 30 + number}-7`, join(folder, `slot-server_1-${number}`));
    const workers = Array.from({ length: 8 }, () =>
      startWorker("console.log(takeSlot(folder, 'server_1', 3) ? 'held' : 'none'); setInterval(() => {}, 1000);"),
    );
    try {
      const printed = await Promise.all(workers.map((worker) => worker.printed()));
      assert.equal(printed.filter((line) => line === 'held').length, 3);
    } finally {
      for (const { child } of workers) child.kill('SIGKILL');
    }
  });

  it('needs the directory above that of the client', () => {
    assert.throws(() => takeSlot(join(root, 'none/client1'), 'server_1', 1), { code: 'ENOENT' });
  });
});

describe('the count of a day', () => {
  it('is exact to the byte and to the upload', () => {
    assert.deepEqual(
      [count(60, { bytes: 100 }), count(41, { bytes: 100 }), count(40, { bytes: 100 })],
      ['', 'bytes', ''],
    );
    assert.deepEqual([count(0, { bytes: 100 }), count(1, { bytes: 100 })], ['', 'bytes']);
    assert.deepEqual([count(1, { uploads: 3 }), count(1, { uploads: 4 })], ['uploads', '']);
    assert.equal(readFileSync(record, 'latin1').length, 4 * 73);
  });

  it('includes every earlier line without reading it', () => {
    const times = 300;
    for (let time = 0; time < times; time += 1) assert.equal(count(7, { uploads: times }), '');
    assert.equal(count(7, { uploads: times }), 'uploads');
    // Everything but the end is overwritten, because it need not be read.
    const bytes = readFileSync(record);
    bytes.fill('x', 0, bytes.length - 4096);
    writeFileSync(record, bytes);
    assert.equal(count(1, { bytes: 7 * times }), 'bytes');
    assert.equal(count(1, { bytes: 7 * times + 1 }), '');
  });

  it('gets back what was not used', () => {
    assert.equal(count(100, { bytes: 100 }, { bytes: 30, uploads: 0 }), '');
    assert.deepEqual([count(31, { bytes: 100 }), count(30, { bytes: 100 })], ['bytes', '']);
    assert.equal(count(5, { uploads: 3 }, { bytes: 5, uploads: 1 }), '');
    assert.deepEqual([count(0, { bytes: 100, uploads: 3 }), count(0, { uploads: 3 })], ['', 'uploads']);
  });

  it('stays correct with the largest numbers that a request can name', () => {
    assert.equal(count(Number.MAX_SAFE_INTEGER, { uploads: 9 }, { bytes: Number.MAX_SAFE_INTEGER, uploads: 1 }), '');
    assert.deepEqual([count(999, { bytes: 999, uploads: 1 }), count(1, { bytes: 999 })], ['', 'bytes']);
  });

  it('continues after a truncated line, which does not count', () => {
    count(10, { bytes: 100 });
    for (const length of [1, 40, 72, 73]) {
      const { length: size } = readFileSync(record);
      count(1, { bytes: 1000 });
      truncateSync(record, size + length);
    }
    // Only the last one is complete: the upload whose line lacks its newline was refused.
    assert.deepEqual(
      [count(90, { bytes: 101 }), count(0, { bytes: 101 }), count(1, { bytes: 101 })],
      ['', '', 'bytes'],
    );
  });

  it('adds the counts of every server of the locker, and removes those of past days', () => {
    count(60, { bytes: 100 }, undefined, { serverId: 'server_2' });
    assert.deepEqual([count(41, { bytes: 100 }), count(40, { bytes: 100 })], ['bytes', '']);
    const before = { day: '20261129', oldest: '20261128' };
    assert.equal(count(100, { bytes: 100 }, undefined, before), '', 'another day');
    count(1, { bytes: 0, uploads: 9 }, undefined, { day: '20261128', oldest: '20261127' });
    assert.equal(count(1, { bytes: 100 }, undefined, { day: '20261130' }), 'bytes');
    assert.deepEqual(readdirSync(folder).sort(), [
      'day-20261129-server_1',
      'day-20261130-server_1',
      'day-20261130-server_2',
    ]);
  });

  it('leaves nothing open with several servers', { skip: !existsSync('/proc/self/fd') }, () => {
    const countOpen = (): number => readdirSync('/proc/self/fd').length;
    count(1, { bytes: 100 }, undefined, { serverId: 'server_2' });
    const before = countOpen();
    for (let time = 0; time < 5; time += 1) assert.equal(count(1, { bytes: 100 }), '');
    assert.equal(countOpen(), before);
  });

  it('lets exactly the allowed number through when many come at once', async () => {
    const lines =
      "const held = reserve(folder, names, 10, { bytes: 500, uploads: 0 }); taken += typeof held === 'object'; held.close?.();";
    const workers = Array.from({ length: 6 }, () =>
      startWorker(`let taken = 0; for (let time = 0; time < 50; time += 1) { ${lines} } console.log(taken);`),
    );
    const printed = await Promise.all(workers.map((worker) => worker.printed()));
    assert.equal(
      printed.reduce((sum, line) => sum + Number(line), 0),
      50,
      printed.join(' '),
    );
    assert.deepEqual([count(1, { bytes: 500 }), count(0, { bytes: 500 })], ['bytes', '']);
  });

  it('keeps what a killed process took', async () => {
    const { child, printed } = startWorker(
      "reserve(folder, names, 70, { bytes: 100, uploads: 0 }); console.log('held'); setInterval(() => {}, 1000);",
    );
    await printed();
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.deepEqual([count(31, { bytes: 100 }), count(30, { bytes: 100 })], ['bytes', '']);
  });

  it('ignores the sum of a line that only resembles the last one', () => {
    count(60, { bytes: 100 });
    appendFileSync(record, 'x'.repeat(5000));
    assert.deepEqual([count(41, { bytes: 100 }), count(40, { bytes: 100 })], ['bytes', '']);
  });

  it('is refused on a full disk, and works again when there is room', { skip: findMountObstacle() }, () => {
    const disk = join(root, 'disk');
    mkdirSync(disk);
    mountTmpfs(disk, 'size=8k');
    try {
      const place = join(disk, 'client1');
      const take = (): Reservation | string => reserve(place, names, 1, { bytes: 0, uploads: 1000 });
      const filler = join(disk, 'filler');
      const first = take();
      assert.ok(typeof first !== 'string');
      first.close();
      // Up to the end of its page the record grows without a new block.
      appendFileSync(join(place, 'day-20261130-server_1'), 'x'.repeat(4096 - 73 - 30));
      writeFileSync(filler, 'x'.repeat(4096));
      for (let time = 0; time < 3; time += 1)
        assert.throws(take, (error) => failureOf(error).kind === 'full', String(time));
      rmSync(filler);
      const next = take();
      assert.ok(typeof next !== 'string');
      next.close();
      assert.equal(reserve(place, names, 1, { bytes: 0, uploads: 2 }), 'uploads');
    } finally {
      unmountTmpfs(disk);
    }
  });
});
