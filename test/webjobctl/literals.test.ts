// The texts that search derives from a regular expression for the index: every match contains them,
// whatever the expression.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { findLiterals } from '../../admin/search/literals.ts';

describe('the literal texts of a regular expression', () => {
  for (const [source, expected] of [
    ['Permission denied', ['Permission denied']],
    ['^root:[^*!x]', ['root:']],
    ['error: \\d+ of (\\w+)', ['error: ', ' of ']],
    ['a\\.out', ['a.out']],
    ['colou?r', ['colo', 'r']],
    ['ab*c+d', ['a', 'c', 'd']],
    ['x{2}y{0,3}z{', ['x', 'z{']],
    ['this|that', []],
    ['pre(this|that)post', ['pre', 'post']],
    ['pre(?:fix)(?:ed)?(?<name>in)', ['pre', 'fix', 'in']],
    ['(?=ahead)in(?!not)(?<=back)(?<!no)', ['in']],
    ['[a\\]b]c\\u0041\\x42\\cAd(e)\\1', ['c', 'd', 'e']],
    ['\\bword\\b', ['word']],
  ] as const)
    it(source, () => assert.deepEqual(findLiterals(source, false), expected));

  it('are those of ASCII when case is ignored', () => {
    assert.deepEqual(findLiterals('Straße', true), ['Stra', 'e']);
    assert.deepEqual(findLiterals('Straße', false), ['Straße']);
  });

  it('are in every match of any expression', () => {
    const atom = fc.constantFrom('a', 'b', 'B', '\\.', '.', '\\d', '[ab]', '(ab)', '(a|b)', '(?:b?a)', '(?=a)', '\\\\');
    const piece = fc.tuple(atom, fc.constantFrom('', '', '', '?', '*', '+', '{2}', '{0}', '+?', '{1,}'));
    const sources = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.flat().join(''));
    const texts = fc.string({ unit: fc.constantFrom('a', 'b', 'B', 'A', '.', '\\', '1'), maxLength: 12 });
    let matched = 0;
    fc.assert(
      fc.property(fc.array(sources, { minLength: 1, maxLength: 2 }), texts, fc.boolean(), (parts, text, ignoreCase) => {
        const source = parts.join('|');
        if (!new RegExp(source, ignoreCase ? 'i' : '').test(text)) return;
        matched++;
        const fold = (one: string): string => (ignoreCase ? one.toLowerCase() : one);
        for (const literal of findLiterals(source, ignoreCase)) assert.ok(fold(text).includes(fold(literal)), source);
      }),
      { numRuns: 20_000 },
    );
    assert.ok(matched > 1000, `only ${matched} matched`);
  });
});
