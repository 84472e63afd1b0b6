// Streams of uploads: the SHA-256 of the lines that count, however the stream is split and however
// long a line is, and a comparison that diff cannot make.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
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

it('streams that diff cannot read are not the same', { skip: process.platform === 'win32' }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-diff-'));
  const { PATH = '' } = process.env;
  // The real diff, without the descriptor of the first stream.
  const script = `#!/bin/sh\nPATH='${PATH}'\nexec diff "$@" 3<&-\n`;
  writeFileSync(join(folder, 'diff'), script, { mode: 0o755 });
  process.env.PATH = `${folder}:${PATH}`;
  try {
    const streams = [streamOf(Buffer.from('one\n'), 4), streamOf(Buffer.from('two\n'), 4)] as const;
    await assert.rejects(
      compareStreams(streams, ['one', 'two'], () => {}),
      /^Error: diff failed: diff: \/dev\/fd\/3: /,
    );
  } finally {
    process.env.PATH = PATH;
    rmSync(folder, { recursive: true });
  }
});
