// The custody record with nothing but its writers: each record commits to everything before it,
// whatever processes write at the same moment and wherever a writer is killed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  appendCustody,
  type CustodyRecord,
  formatCustody,
  MAX_RECORD_BYTES,
  parseCustody,
} from '../../cgi/locker/index.ts';
import { readRecords, walk } from '../support/custody-record.ts';

const WRITER = join(import.meta.dirname, '..', 'support', 'custody-writer.ts');
const WRITERS = 6;
const RECORDS = 40;
const KILLED = 8;

let folder: string;
let file: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'webjob-custody-'));
  file = join(folder, 'custody.jsonl');
});
after(() => rmSync(folder, { recursive: true }));
beforeEach(() => rmSync(file, { force: true }));

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const append = (name: string, more = {}): void =>
  appendCustody(file, { event: 'deposit', name, ...more }, { mayCreate: true });
const textOf = (index: number): string => readFileSync(file, 'latin1').split('\n')[index] ?? '';

describe('a custody entry', () => {
  it('reads as it was written, whatever it contains', () => {
    for (const said of ['"', '\\"}', '\n', '\u2028', '\x1b[2J', '\u{1f600}', '{"covers":[0,0]', ',"sum":"', '\ud800']) {
      const line = formatCustody([3, 17], 'a'.repeat(64), { event: 'deposit', said });
      assert.match(line, /^[\x20-\x7e]+$/);
      const record = parseCustody(line);
      assert.deepEqual([record?.covers, record?.prev, record?.text], [[3, 17], 'a'.repeat(64), line]);
      assert.equal(JSON.parse(line).said, said);
      const covered = line.slice(0, line.lastIndexOf(',"sum":'));
      assert.equal(record?.sum, sha256(Buffer.from(covered)));
      assert.deepEqual(parseCustody(`${line.slice(0, 70)}${line}`), record, 'behind one that was never finished');
    }
  });

  it('is not accepted while a part of it is missing', () => {
    const line = formatCustody([0, 0], 'a'.repeat(64), { event: 'deposit' });
    for (let length = 0; length < line.length; length++) assert.equal(parseCustody(line.slice(0, length)), undefined);
    for (const [other, by] of [
      ['covers', 'cover'],
      ['[0,0]', '[0,-1]'],
      ['[0,0]', '[0]'],
      ['aa', 'aA'],
    ])
      assert.equal(parseCustody(line.replace(other as string, by as string)), undefined);
  });

  it('covers exactly the entry before it, as sha256sum shows', () => {
    for (const name of ['a', 'b', 'c']) append(name);
    const sums = [0, 1].map((index) =>
      spawnSync('sha256sum', { input: `${textOf(index)}\n` })
        .stdout.toString()
        .slice(0, 64),
    );
    const records = [0, 1, 2].map((index) => parseCustody(textOf(index)) as CustodyRecord);
    assert.deepEqual(records.map(({ prev }) => prev).slice(1), sums);
    assert.deepEqual(records[0]?.covers, [0, 0]);
    assert.equal(records[0]?.prev, sha256(Buffer.alloc(0)));
    assert.deepEqual(
      readRecords(file).map(({ name }) => name),
      ['a', 'b', 'c'],
    );
  });

  it('is refused over the limit, and where no file may be made', () => {
    assert.throws(() => append('long', { long: 'x'.repeat(MAX_RECORD_BYTES) }), RangeError);
    assert.equal(statSync(file).size, 0);
    rmSync(file);
    assert.throws(() => appendCustody(file, { event: 'prune' }), { code: 'ENOENT' });
    symlinkSync(join(folder, 'elsewhere'), file);
    assert.throws(() => append('linked'), { code: 'ELOOP' });
  });

  it('ends a line that its writer left unfinished, and covers it', () => {
    append('first');
    const whole = readFileSync(file);
    for (let cut = 1; cut < textOf(0).length; cut += 13) {
      writeFileSync(file, whole);
      append('torn');
      writeFileSync(file, readFileSync(file).subarray(0, whole.length + cut));
      assert.equal(walk(file).faults.length, 1, 'nothing covers it so far');
      append('second', { long: 'x'.repeat(5000) });
      append('third');
      assert.deepEqual(
        readRecords(file).map(({ name }) => name),
        ['first', 'second', 'third'],
      );
    }
  });

  it('counts from after what another writer left unfinished at the same moment', () => {
    append('first');
    const others = join(folder, 'others.jsonl');
    copyFileSync(file, others);
    append('torn');
    // The writer of `others` had not seen a byte of `torn`.
    appendCustody(others, { event: 'deposit', name: 'second' });
    const torn = readFileSync(file).subarray(0, -20);
    writeFileSync(file, Buffer.concat([torn, Buffer.from(`${readFileSync(others, 'latin1').split('\n')[1]}\n`)]));
    append('third');
    assert.deepEqual(
      readRecords(file).map(({ name }) => name),
      ['first', 'second', 'third'],
    );
  });

  it("is found after more than an entry's length of garbage on the same line", () => {
    append('first');
    const others = join(folder, 'others.jsonl');
    copyFileSync(file, others);
    // The writer of `others` had not seen it, so it began no new line.
    appendCustody(others, { event: 'deposit', name: 'second' });
    appendFileSync(file, 'x'.repeat(MAX_RECORD_BYTES + 300_000));
    appendFileSync(file, `${readFileSync(others, 'latin1').split('\n')[1]}\n`);
    append('third');
    append('fourth');
    assert.deepEqual(
      readRecords(file).map(({ name }) => name),
      ['first', 'second', 'third', 'fourth'],
    );
  });

  it('counts once from a slow writer: a copy of it breaks the chain, wherever it is put', () => {
    append('first');
    const others = join(folder, 'others.jsonl');
    copyFileSync(file, others);
    append('second');
    append('third');
    // The slow writer had seen only the first record.
    appendCustody(others, { event: 'deposit', name: 'slow' });
    const slow = `${readFileSync(others, 'latin1').split('\n')[1]}\n`;
    appendFileSync(file, slow);
    assert.deepEqual(
      readRecords(file).map(({ name }) => name),
      ['first', 'second', 'third', 'slow'],
    );
    const whole = readFileSync(file);
    for (const between of [[], ['fourth'], ['fourth', 'fifth']]) {
      writeFileSync(file, whole);
      for (const name of between) append(name);
      const at = statSync(file).size;
      appendFileSync(file, slow);
      const [fault, ...more] = walk(file).faults;
      assert.deepEqual([fault?.fault, fault?.from, more], ['broken', at, []], between.join(' '));
    }
  });

  it('is found in spite of forged offsets, even after a place where bytes were removed', () => {
    const forge = (covers: [number, number], prev: string): void => {
      appendFileSync(file, `${formatCustody(covers, prev, { event: 'deposit', name: 'forged' })}\n`);
    };
    const faults = (): (string | undefined)[] => walk(file).faults.map(({ fault }) => fault);
    for (const name of ['a', 'b', 'c']) append(name);
    const whole = readFileSync(file);
    const [first = 0, second = 0] = ['"a"', '"b"'].map((name) => whole.indexOf('\n', whole.indexOf(name)) + 1);
    for (const [from, to] of [
      [0, whole.length],
      [first, whole.length],
      [second + 1, whole.length],
      [second, whole.length - 1],
      [first, first],
      [0, 0],
      [0, second],
    ] as const) {
      writeFileSync(file, whole);
      forge([from, to], sha256(whole.subarray(from, to)));
      // A record for which that one, or the one before, was the last known, may come late.
      const isLate = (from === 0 && to === 0) || (from === 0 && to === first);
      assert.deepEqual(faults(), isLate ? [] : ['broken'], `${from} to ${to}`);
    }
    writeFileSync(file, whole.subarray(first));
    forge([0, 0], sha256(Buffer.alloc(0)));
    assert.deepEqual(faults(), ['broken', 'broken']);
  });

  it('continues after bytes that are not an entry', () => {
    for (const garbage of ['\n', 'x', '\n\n\n', '{"covers":[9,9],', 'x'.repeat(70_000), `${'x'.repeat(70_000)}\n`]) {
      rmSync(file, { force: true });
      for (const name of ['a', 'b']) append(name);
      appendFileSync(file, garbage);
      for (const name of ['c', 'd']) append(name);
      assert.deepEqual(
        readRecords(file).map(({ name }) => name),
        ['a', 'b', 'c', 'd'],
      );
    }
  });
});

/**
 * Starts writers at the same time; returns what each of them reported as on disk. A writer with
 * `killAfter` is killed after that many milliseconds.
 */
async function write(writers: number, killAfter: (writer: number) => number | undefined): Promise<string[]> {
  const told = await Promise.all(
    Array.from({ length: writers }, async (_, writer) => {
      const limit = killAfter(writer);
      const count = limit === undefined ? RECORDS : 1_000_000;
      const child = spawn(process.execPath, [WRITER, file, String(writer), String(count)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let said = '';
      const closed = new Promise<number | null>((resolve) => child.on('close', resolve));
      const begun = once(child.stdout, 'data');
      child.stdout.on('data', (chunk) => {
        said += chunk;
      });
      if (limit !== undefined) {
        await Promise.race([begun, closed]);
        await sleep(limit);
        child.kill('SIGKILL');
      }
      assert.equal(await closed, limit === undefined ? 0 : null);
      return said.split('\n').slice(0, -1);
    }),
  );
  return told.flat();
}

describe(`${WRITERS} concurrent writers`, () => {
  it('leave a chain that has every entry once and in the order of its writer', async () => {
    const told = await write(WRITERS, () => undefined);
    assert.equal(told.length, WRITERS * RECORDS);
    append('last');
    const names = readRecords(file).map(({ name }) => String(name));
    assert.deepEqual(names.toSorted(), [...told, 'last'].sort());
    for (let writer = 0; writer < WRITERS; writer++) {
      const own = names.filter((name) => name.startsWith(`${writer}_`));
      assert.deepEqual(
        own,
        Array.from({ length: RECORDS }, (_, number) => `${writer}_${number}`),
      );
    }
    assertCommitments();
  });

  it(`keep what they reported as on disk, and the chain, when ${KILLED} are killed`, async () => {
    const told = await write(WRITERS + KILLED, (writer) => (writer < WRITERS ? undefined : (writer * 7919) % 400));
    append('last');
    const names = readRecords(file).map(({ name }) => String(name));
    assert.equal(new Set(names).size, names.length);
    const missing = told.filter((name) => !names.includes(name));
    assert.deepEqual(missing, []);
    // Each writer may have at most one record that it did not live to report.
    assert.ok(names.length - 1 - told.length <= KILLED, `${names.length} ${told.length}`);
    assertCommitments();
  });
});

/**
 * Each record commits to every byte before its `covers`, checked by the definition instead of the
 * walk.
 */
function assertCommitments(): void {
  const bytes = readFileSync(file);
  const { links } = walk(file);
  assert.ok(
    links.some(({ from, record }) => (record?.covers[1] ?? 0) < from),
    'nobody appended at the same moment as another',
  );
  for (const [index, { record }] of links.entries()) {
    const [from, to] = record?.covers ?? [-1, -1];
    assert.equal(sha256(bytes.subarray(from, to)), record?.prev);
    // The range contains the whole record that covers everything before it.
    const confirming = links.slice(0, index).findLast((link) => link.to <= to);
    assert.equal(from, confirming?.record?.covers[1] ?? 0);
    if (confirming) assert.ok(from <= confirming.from);
  }
}
