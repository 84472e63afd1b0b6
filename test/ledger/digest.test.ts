// Streams of uploads: the SHA-256 of the lines that count, however the stream is split and however
// long a line is, and a comparison that diff cannot make.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { compareStreams } from '../../ledger/compare.ts';
import { digestStream } from '../../ledger/digest.ts';
import type { StoredStream } from '../../ledger/streams.ts';

const IGNORED = [/^# /, /^long ignored/, /\d+ seconds$/];

/** A stream in pieces of this size, each in the same buffer. */
function streamOf(bytes: Buffer, size: number): StoredStream {
  const buffer = Buffer.alloc(size);
  return {
    bytes: bytes.length,
    open: undefined,
    async *read() {
      for (let at = 0; at < bytes.length; at += size) {
        const length = bytes.copy(buffer, 0, at, at + size);
        yield buffer.subarray(0, length);
        buffer.fill(0x55);
      }
    },
  };
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex');

for (const [what, text, rest] of [
  ['nothing', '', ''],
  ['lines', 'one\n# two\nthree\ntook 5 seconds\nend', 'one\nthree\nend'],
  ['a last line that does not count', 'one\n# two', 'one\n'],
  ['line ends of Windows', 'one\r\ntook 5 seconds\r\n', 'one\r\n'],
  [
    'long lines, of which the beginning decides',
    `long ignored${'x'.repeat(200_000)}\nlong${'y'.repeat(200_000)}5 seconds\n# short\nend\n`,
    `long${'y'.repeat(200_000)}5 seconds\nend\n`,
  ],
] as const)
  it(`skips lines in ${what}, in pieces of any size`, async () => {
    for (const size of [1, 7, 65_535, 65_536, 65_537, 1_000_000]) {
      if (size === 1 && text.length > 1000) continue;
      assert.equal(await digestStream(streamOf(Buffer.from(text), size), IGNORED), digest(rest), `${size} bytes`);
      assert.equal(await digestStream(streamOf(Buffer.from(text), size)), digest(text), `${size} bytes, all`);
    }
  });

describe('a comparison', { skip: process.platform === 'win32' }, () => {
  const { PATH = '', TMPDIR } = process.env;
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'webjob-diff-'));
    process.env.TMPDIR = folder;
  });
  afterEach(() => {
    process.env.PATH = PATH;
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
    rmSync(folder, { recursive: true });
  });

  /** Puts a shell script before the real diff. */
  function replaceDiff(script: string): void {
    writeFileSync(join(folder, 'diff'), `#!/bin/sh\nPATH='${PATH}'\n${script}\n`, { mode: 0o755 });
    process.env.PATH = `${folder}:${PATH}`;
  }
  const pair = [streamOf(Buffer.from('one\n'), 4), streamOf(Buffer.from('two\n'), 4)] as const;
  const countOpen = (): number => readdirSync('/proc/self/fd').length;

  it('is of every byte, in pieces of any size, and holds no descriptor open', async () => {
    const lines = Array.from({ length: 3000 }, (_, index) => `zeile ${index} \u20ac\u{1f600}`);
    const before = countOpen();
    for (const size of [3, 1000, 1_000_000]) {
      const from = streamOf(Buffer.from(lines.map((line) => `${line}\n`).join('')), size);
      const to = streamOf(Buffer.from(lines.map((line) => `${line} ü\n`).join('')), size);
      assert.equal(await compareStreams([from, from], ['a', 'b'], assert.fail), false);
      const pieces: string[] = [];
      assert.equal(await compareStreams([from, to], ['from', 'to'], (text) => void pieces.push(text)), true);
      assert.ok(pieces.every((piece) => piece.endsWith('\n')));
      assert.equal(
        pieces.join(''),
        `--- from\n+++ to\n@@ -1,3000 +1,3000 @@\n${lines.map((line) => `-${line}\n`).join('')}${lines.map((line) => `+${line} ü\n`).join('')}`,
      );
    }
    // A stream that cannot be read to its end.
    const broken: StoredStream = {
      ...pair[0],
      async *read() {
        yield Buffer.from('x');
        throw new Error('the archive is damaged');
      },
    };
    for (const streams of [[broken, pair[0]] as const, [pair[0], broken] as const])
      await assert.rejects(compareStreams(streams, ['a', 'b'], assert.fail), /the archive is damaged/);
    assert.equal(countOpen(), before);
    assert.deepEqual(readdirSync(folder), []);
  });

  it('that diff cannot make does not say that they are the same', async () => {
    // Without the descriptor of the first stream.
    replaceDiff('exec diff "$@" 3<&-');
    await assert.rejects(
      compareStreams(pair, ['one', 'two'], () => {}),
      /^Error: diff failed: diff: \/dev\/fd\/3: /,
    );
    replaceDiff('exit 3');
    await assert.rejects(compareStreams(pair, ['one', 'two'], assert.fail), /^Error: diff failed: exit status 3$/);
    process.env.PATH = join(folder, 'none');
    await assert.rejects(compareStreams(pair, ['one', 'two'], assert.fail), /^Error: diff cannot be started: ENOENT$/);
  });

  it('that takes too long is stopped, and says so', async () => {
    replaceDiff('exec sleep 20');
    await assert.rejects(compareStreams(pair, ['one', 'two'], assert.fail, 50), /^Error: diff took too long$/);
  });

  it('that nobody wants any more is stopped', async () => {
    replaceDiff(`echo $$ > '${folder}/pid'; echo a line; exec sleep 20`);
    const enough = (): never => {
      throw new Error('enough');
    };
    await assert.rejects(compareStreams(pair, ['one', 'two'], enough), /^Error: enough$/);
    const isThere = (): boolean => existsSync(`/proc/${readFileSync(join(folder, 'pid'), 'utf8').trim()}/root`);
    for (let tries = 0; tries < 500 && isThere(); tries++) await setTimeout(10);
    assert.equal(isThere(), false);
  });
});
