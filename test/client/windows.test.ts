// Starting programs on Windows, as far as it is text: names, system programs by their full paths,
// and command lines for cmd.exe by its documented rules. npm run test:windows runs the client
// itself under Wine.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { quoteFile } from '../../cli/shell.ts';
import { PlacedProgram } from '../../client/program.ts';
import {
  findBatchObstacle,
  findNameObstacle,
  findSystemProgram,
  formatBatchLine,
  isBatch,
  isRunnable,
  makeShellCommand,
} from '../../client/windows.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-windows-'));
after(() => rmSync(root, { recursive: true }));

const SCRIPT = 'C:\\temp\\x.bat';
const lineOf = (...args: string[]): string => formatBatchLine(SCRIPT, args).slice(`"${SCRIPT}" `.length);

/**
 * How cmd.exe parses a line: special characters count outside of quotes, a quote begins or ends a
 * quoted part whatever precedes it, and words end at a delimiter outside of quotes. Throws Error
 * for a line that is not one command.
 */
function splitByShell(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let isQuoted = false;
  for (const char of line) {
    if (char === '"') isQuoted = !isQuoted;
    if (!isQuoted && /[&|<>^()@!\n\r]/.test(char)) throw new Error(`cmd.exe takes ${char} for more than a character`);
    if (!isQuoted && /[ \t,;=]/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + char;
  }
  if (isQuoted) throw new Error('a quote is open at the end');
  return word === undefined ? words : [...words, word];
}

/**
 * How a program's C library parses one word: a backslash counts only before a quote, and two quotes
 * within quotes are one.
 */
function unquoteByProgram(word: string): string {
  const inner = /^"(.*)"$/s.exec(word)?.[1];
  if (inner === undefined) return word;
  return `${inner}\0`
    .replace(/(\\*)""/g, (_, slashes: string) => `${slashes.slice(0, slashes.length / 2)}"`)
    .replace(/(\\*)\0$/, (_, slashes: string) => slashes.slice(0, slashes.length / 2));
}

describe('a command line for a batch file', () => {
  it('follows the documentation', () => {
    for (const [arg, expected] of [
      ['plain', 'plain'],
      ['-n:1', '-n:1'],
      ['C:\\temp\\', 'C:\\temp\\'],
      ['', '""'],
      ['two words', '"two words"'],
      ['a&b', '"a&b"'],
      ['a^b', '"a^b"'],
      ['a!b', '"a!b"'],
      ['a,b', '"a,b"'],
      ['a=b', '"a=b"'],
      ['"', '""""'],
      ['a"b', '"a""b"'],
      ['a\\"b', '"a\\\\""b"'],
      ['a b\\', '"a b\\\\"'],
      ['ä', '"ä"'],
      ['a\tb', '"a\tb"'],
    ] as const)
      assert.equal(lineOf(arg), expected);
    assert.equal(formatBatchLine('C:\\a & b\\x.bat', []), '"C:\\a & b\\x.bat"');
  });

  it('is one command with one word for each argument, which programs read unchanged', () => {
    const piece = fc.constantFrom(
      '"',
      '""',
      '\\',
      '\\\\',
      '&',
      '|',
      '<',
      '>',
      '^',
      '(',
      ')',
      '!',
      ' ',
      '\t',
      ',',
      ';',
      '=',
      'a',
      '/?',
    );
    const argument = fc.oneof(
      fc.array(piece, { maxLength: 8 }).map((parts) => parts.join('')),
      fc.string({ unit: 'grapheme' }),
    );
    fc.assert(
      fc.property(fc.array(argument, { maxLength: 5 }), (args) => {
        fc.pre(findBatchObstacle(SCRIPT, args) === undefined);
        const words = splitByShell(formatBatchLine(SCRIPT, args));
        assert.deepEqual(words.map(unquoteByProgram), [SCRIPT, ...args]);
      }),
      { numRuns: 2000 },
    );
  });

  it('stays whole where the batch file quotes an argument again', () => {
    for (const arg of ['" & calc & "', '"', '""&calc', 'x" "y', '^"&calc'])
      assert.doesNotThrow(() => splitByShell(`if "${lineOf(arg).slice(1, -1)}"==""`), arg);
  });

  it('is refused with what cmd.exe would change', () => {
    const messageOf = (...args: string[]): string | undefined => findBatchObstacle(SCRIPT, args)?.message;
    assert.equal(messageOf('a', '100%'), 'argument 2 of the program must not contain a %, which cmd.exe would expand');
    for (const char of ['\n', '\r', '\0', '\x1a', '\x1b', '\x7f'])
      assert.match(messageOf(`a${char}b`) ?? '', /^argument 1 of the program must not contain a control character, /);
    for (const arg of ['', '\t', ' ', '"', '!OS!', '^', 'ä', '\ufffd', '\u{1f600}'])
      assert.equal(messageOf(arg), undefined);
    assert.match(
      findBatchObstacle('C:\\%OS%\\x.bat', [])?.message ?? '',
      /^cmd\.exe would expand the % in C:\\%OS%\\x\.bat$/,
    );
  });

  it('has at most 8191 characters', () => {
    const rest = 8191 - `"${SCRIPT}" `.length;
    assert.equal(findBatchObstacle(SCRIPT, ['x'.repeat(rest)]), undefined);
    const message = 'the command must be at most 8191 characters for cmd.exe (got 8192)';
    assert.equal(findBatchObstacle(SCRIPT, ['x'.repeat(rest + 1)])?.message, message);
    // Quotes count, and each is doubled.
    assert.ok(findBatchObstacle(SCRIPT, ['"'.repeat(rest / 2)]));
  });
});

describe('cmd.exe', () => {
  it('accepts what is between the outer quotes, without AutoRun and without !NAME!', () => {
    const shell = 'C:\\Win dows\\System32\\cmd.exe';
    assert.deepEqual(makeShellCommand(shell, '"C:\\a b.exe" "c"', true), {
      file: shell,
      args: ['/d', '/e:on', '/v:off', '/s', '/c', '""C:\\a b.exe" "c""'],
      options: { windowsVerbatimArguments: true, windowsHide: true, argv0: `"${shell}"` },
    });
  });

  it('is found by its full path, and only there', () => {
    const find = (env: NodeJS.ProcessEnv, ...there: string[]): string | undefined =>
      findSystemProgram('cmd.exe', env, (path) => there.includes(path));
    const [usual, other] = ['C:\\Windows\\System32\\cmd.exe', 'D:\\WINNT\\System32\\cmd.exe'];
    assert.equal(find({ SystemRoot: 'D:\\WINNT' }, usual, other), other);
    assert.equal(find({ SystemRoot: 'E:\\gone', windir: 'D:\\WINNT' }, usual, other), other);
    assert.equal(find({}, usual), usual);
    assert.equal(find({ SystemRoot: 'E:\\gone' }, usual), usual);
    for (const SystemRoot of ['', '.', 'WINNT', '\\WINNT', 'D:WINNT', '\\\\server\\share'])
      assert.equal(
        find({ SystemRoot }, usual, `${SystemRoot}\\System32\\cmd.exe`, 'System32\\cmd.exe'),
        usual,
        SystemRoot,
      );
    assert.equal(find({ SystemRoot: 'D:\\WINNT' }), undefined);
  });
});

describe('the name of a program', () => {
  it('is one that Windows keeps', () => {
    for (const name of ['x.exe', 'com.exe', 'com10.bat', 'console.cmd', 'nullify.bat', '.bat', '-x.bat', 'a.b.exe'])
      assert.equal(findNameObstacle(name), undefined, name);
    for (const [name, why] of [
      ['nul', 'it is the name of a device'],
      ['NUL.bat', 'it is the name of a device'],
      ['com1.tar.exe', 'it is the name of a device'],
      ['Lpt9.cmd', 'it is the name of a device'],
      ['x.exe:y', 'a colon separates the name of a stream'],
      ['C:x.exe', 'a colon separates the name of a stream'],
      ['x.exe.', 'a dot at the end is dropped'],
    ] as const)
      assert.equal(findNameObstacle(name)?.message, `Windows cannot store a program named ${name}: ${why}`);
  });

  it('shows how it is run', () => {
    const kinds = (name: string): boolean[] => [isRunnable(name), isBatch(name)];
    for (const name of ['x.bat', 'x.CMD', 'x.exe.bat']) assert.deepEqual(kinds(name), [true, true], name);
    for (const name of ['x.exe', 'x.COM', 'x.bat.exe']) assert.deepEqual(kinds(name), [true, false], name);
    for (const name of ['x', 'exe', 'x.sh', 'x.exe.gpg', 'x.batx', 'x.ps1'])
      assert.deepEqual(kinds(name), [false, false], name);
  });

  it('is quoted in a hint for the shell of the system', () => {
    assert.equal(quoteFile("C:\\Users\\it's me", 'win32'), '"C:\\Users\\it\'s me"');
    assert.equal(quoteFile('C:\\temp\\webjob-ab12CD', 'win32'), 'C:\\temp\\webjob-ab12CD');
    assert.equal(quoteFile('C:\\a&b', 'win32'), '"C:\\a&b"');
  });
});

describe('a program that runs where it was fetched, as on Windows', () => {
  let made = 0;
  const fetch = (text: string): string => {
    const folder = join(root, `webjob-${made++}`);
    mkdirSync(folder);
    writeFileSync(join(folder, 'x.exe'), text);
    return join(folder, 'x.exe');
  };
  const place = (fetched: string, overwrite = true): PlacedProgram =>
    new PlacedProgram(fetched, join(root, 'x.exe'), overwrite, true);
  const left = (): string[] => readdirSync(root).filter((name) => name === 'x.exe');

  it('does not meet another run of itself', () => {
    const [one, two] = [fetch('one'), fetch('two')];
    const [first, second] = [place(one), place(two)];
    assert.deepEqual([first.path, second.path, left()], [one, two, []]);
    second.remove();
    assert.deepEqual([existsSync(two), readFileSync(first.path, 'utf8')], [false, 'one']);
    first.remove();
    assert.equal(existsSync(one), false);
  });

  it('stays in TempDirectory after it has run', () => {
    for (const text of ['one', 'two']) {
      const program = place(fetch(text));
      program.leave();
      assert.equal(readFileSync(join(root, 'x.exe'), 'utf8'), text);
    }
    assert.throws(() => place(fetch('three'), false), { kind: 'run', message: /x\.exe cannot be written: EEXIST$/ });
    rmSync(join(root, 'x.exe'));
    const program = place(fetch('four'), false);
    writeFileSync(join(root, 'x.exe'), 'another');
    program.leave();
    assert.equal(readFileSync(join(root, 'x.exe'), 'utf8'), 'another');
    rmSync(join(root, 'x.exe'));
  });
});
