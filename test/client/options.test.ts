// The two parsers of webjob's command line: whatever the simple one accepts, it parses as commander
// does.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { readCommandLine } from '../../client/command-line.ts';
import { type CommandLine, readPlainly } from '../../client/options.ts';
import { hostileText } from '../support/arbitraries.ts';

// What the build inserts into the program.
Object.assign(globalThis, { WEBJOB_VERSION: '0.0.0' });

const WORDS = [
  '-e',
  '-f',
  '-g',
  '-h',
  '-t',
  '-v',
  '-ef',
  '--execute',
  '--file',
  '--file=a',
  '-fa',
  '--flush',
  '--help',
];
const OTHERS = ['--', '-', '', '-x', '--exec', '--fil', 'a.conf', 'host.sh', '=', 'help'];

const argv = fc.array(
  fc.oneof(
    fc.constantFrom('-e', '-f', '--execute', '--file', 'host.sh'),
    fc.constantFrom(...WORDS, ...OTHERS),
    hostileText,
  ),
  {
    maxLength: 7,
  },
);

describe('the plain reader of the command line', () => {
  it('accepts nothing that commander reads differently', async () => {
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(argv, async (words) => {
        const plain = readPlainly(words);
        if (plain === undefined) return;
        taken += 1;
        assert.deepEqual(plain, await readCommandLine(words));
      }),
      { numRuns: 5000 },
    );
    assert.ok(taken > 200, `${taken} were taken`);
  });

  const PLAIN: [argv: string[], line: CommandLine][] = [
    [['-e', '-f', 'a', 'host.sh'], { options: { execute: true, file: 'a' }, args: ['host.sh'] }],
    [
      ['--file', 'a,b', '--execute', 'p', '-x', '--', '-f'],
      { options: { execute: true, file: 'a,b' }, args: ['p', '-x', '--', '-f'] },
    ],
    [['-f', 'a', '-f', 'b', '-e', 'p'], { options: { execute: true, file: 'b' }, args: ['p'] }],
    [['p', '-e'], { options: {}, args: ['p', '-e'] }],
  ];
  for (const [words, line] of PLAIN) {
    it(`accepts: webjob ${words.join(' ')}`, async () => {
      assert.deepEqual(readPlainly(words), line);
      assert.deepEqual(await readCommandLine(words), line);
    });
  }

  for (const words of [
    [],
    ['-e'],
    ['-e', '-f'],
    ['-e', '-f', '-e', 'p'],
    ['-ef', 'a', 'p'],
    ['--file=a', '-e', 'p'],
    ['-e', '--', 'p'],
    ['-e', '-f', 'a', '-'],
    ['--flush', '-f', 'a'],
    ['--help'],
    ['-v'],
  ]) {
    it(`leaves to commander: webjob ${words.join(' ')}`, () => assert.equal(readPlainly(words), undefined));
  }
});
