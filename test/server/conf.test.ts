// webjob-conf: the key=value syntax, line by line and for any value.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseKeyValue } from 'webjob-conf';
import { hostileText } from '../support/arbitraries.ts';

/** Keys and values of a file without other lines. */
function read(text: string): [key: string, value: string][] {
  const { entries, otherLines } = parseKeyValue(text);
  assert.deepEqual(otherLines, []);
  return entries.map(({ key, value }) => [key, value]);
}

const key = fc.stringMatching(/^[A-Za-z][A-Za-z0-9]{0,20}$/);
const blanks = fc.stringMatching(/^[ \t]{0,3}$/);

describe('the key=value dialect', () => {
  it('reads the lines of the article', () => {
    assert.deepEqual(read('TempDirectory=/tmp # Use \\temp for NT/2K\nBaseDirectory=/var/integrity\n'), [
      ['TempDirectory', '/tmp'],
      ['BaseDirectory', '/var/integrity'],
    ]);
  });

  it('takes literally what other dialects interpret', () => {
    const values = [
      ...['a;b', ';', '; no comment', '"quoted"', "'quoted'", '"', "'", '"half', '\\', '\\n', '\\;', 'C:\\temp\\'],
      ...['[section]', '[', 'a=b', '=', '==', 'a[]', '$HOME', '%cid', 'true', 'false', 'null', '0', '{}', '"\\u0041"'],
      ...['__proto__', 'ä', '\u{1f600}', 'a\u2028b', 'a\u2029b', 'a\x85b', 'a\0b', 'a\rb', 'a\fb'],
    ];
    for (const value of values) assert.deepEqual(read(`Key=${value}`), [['Key', value]], JSON.stringify(value));
  });

  it('cuts a line at its first number sign, wherever that is', () => {
    assert.deepEqual(read('#A=1\n  # B=2\nC=3#4\nD=5 # 6 # 7\nE=#\nF="#"\n#\n'), [
      ['C', '3'],
      ['D', '5'],
      ['E', ''],
      ['F', '"'],
    ]);
    assert.deepEqual(parseKeyValue('G#=1\n').otherLines, [1]);
  });

  it('accepts CR, LF and a missing last newline', () => {
    const expected = [
      ['A', '1'],
      ['B', ''],
      ['C', '3'],
    ];
    assert.deepEqual(read('A=1\nB=\nC=3'), expected);
    assert.deepEqual(read('A=1\r\nB=\r\n\r\nC=3\r\n'), expected);
    assert.deepEqual(read('\ufeffA = 1\n\tB\t=\t\n  C   =   3   \n'), expected);
  });

  it('passes on repeated keys in order, with their line numbers', () => {
    assert.deepEqual(parseKeyValue('A=1\n\n# x\na=2\nA=3\nA=1\n').entries, [
      { key: 'A', value: '1', line: 1 },
      { key: 'a', value: '2', line: 4 },
      { key: 'A', value: '3', line: 5 },
      { key: 'A', value: '1', line: 6 },
    ]);
  });

  it('reports the lines that are not key=value, and reads on', () => {
    const text =
      'A=1\nstray\n=value\n[section]\na b=c\n1A=2\nA[]=3\n; comment\n"A"=1\nA.b=1\nA_b=1\nÄ=1\n\u2028\nZ=26\n';
    const { entries, otherLines } = parseKeyValue(text);
    assert.deepEqual(otherLines, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert.deepEqual(entries, [
      { key: 'A', value: '1', line: 1 },
      { key: 'Z', value: '26', line: 14 },
    ]);
  });

  it('returns no key that is not in the file', () => {
    const names = ['constructor', 'toString', 'hasOwnProperty', 'valueOf', 'prototype'];
    assert.deepEqual(
      read(names.map((name) => `${name}=x`).join('\n')),
      names.map((name) => [name, 'x']),
    );
    assert.deepEqual(parseKeyValue('__proto__=x\n__proto__[a]=x\nconstructor.prototype.a=x').otherLines, [1, 2, 3]);
    assert.equal(Reflect.get({}, 'a'), undefined);
    assert.deepEqual(parseKeyValue(''), { entries: [], otherLines: [] });
  });

  it('keeps any value on a line without a number sign, except for surrounding blanks', () => {
    const value = hostileText.map((text) => text.replace(/[#\n]/g, ''));
    fc.assert(
      fc.property(key, value, blanks, blanks, (name, text, before, after) => {
        assert.deepEqual(read(`${before}${name}${after}=${before}${text}${after}`), [[name, text.trim()]]);
      }),
      { numRuns: 2000 },
    );
  });

  it('reads every line on its own: no line changes another', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            hostileText,
            fc.tuple(key, hostileText).map((pair) => pair.join('=')),
          ),
        ),
        (lines) => {
          const single = lines.flatMap((line) => line.split('\n'));
          const whole = parseKeyValue(single.join('\n'));
          const apart = single.map((line) => parseKeyValue(line));
          const place = (index: number) => (entry: { key: string; value: string }) => ({ ...entry, line: index + 1 });
          assert.deepEqual(
            whole.entries,
            apart.flatMap(({ entries }, index) => entries.map(place(index))),
          );
          assert.deepEqual(
            whole.otherLines,
            apart.flatMap(({ otherLines }, index) => otherLines.map(() => index + 1)),
          );
        },
      ),
    );
  });

  it('is read in linear time', () => {
    const many = Array.from({ length: 20_000 }, (_, index) => `Key=${index}`).join('\n');
    assert.equal(parseKeyValue(many).entries.at(-1)?.value, '19999');
    const long = 'x'.repeat(1_000_000);
    assert.deepEqual(read(`Key=${long}`), [['Key', long]]);
    assert.deepEqual(parseKeyValue(`Key${' '.repeat(1_000_000)}x`).otherLines, [1]);
  });
});
