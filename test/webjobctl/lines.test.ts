// How webjobctl splits a log into lines: the same wherever a block of it ends, and never with more
// in memory than a line may have.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { makeCutter } from '../../ledger/lines.ts';

function cut(blocks: readonly Buffer[], maxLineBytes?: number): string[] {
  const cutter = makeCutter((text) => text, maxLineBytes);
  // Every block in the same buffer, as in the reader.
  const memory = Buffer.alloc(Math.max(0, ...blocks.map(({ length }) => length)));
  const lines = blocks.flatMap((block) => cutter.cut(memory.subarray(0, block.copy(memory))));
  return [...lines, ...cutter.end()];
}

describe('lines of a log', () => {
  it('are the same wherever blocks end', () => {
    const texts = fc.string({ unit: fc.constantFrom('a', 'b', '\n', 'ü'), maxLength: 60 });
    fc.assert(
      fc.property(texts, fc.array(fc.nat({ max: 80 }), { maxLength: 6 }), (text, cuts) => {
        const bytes = Buffer.from(text);
        const ends = [...cuts.map((end) => Math.min(end, bytes.length)), bytes.length].sort((a, b) => a - b);
        const blocks = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
        const expected = text.split('\n');
        if (expected.at(-1) === '') expected.pop();
        assert.deepEqual(cut(blocks), expected);
      }),
    );
  });

  it('are refused when they are too long, and cost no memory', () => {
    const long = Buffer.alloc(40, 'x');
    const blocks = [
      Buffer.from('one\n'),
      ...Array<Buffer>(50).fill(long),
      Buffer.from('y\ntwo\n'),
      long,
      Buffer.from('\n3'),
    ];
    assert.deepEqual(cut(blocks, 32), ['one', 'two', '3']);
  });
});
