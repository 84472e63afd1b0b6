// Words and phrases that the project does not use, searched in what people read: guides, man pages,
// shipped files, messages and comments. A simple list; docs/glossary.md has the right words.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const root = join(import.meta.dirname, '..');
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

/** Phrases to avoid, with their replacements. */
const PHRASES: readonly (readonly [phrase: RegExp, instead: string])[] = [
  [/\b(?:he|him|his|himself)\b/i, 'a process, client or user is "it" or "they"'],
  [/\bwhoever\b/i, 'anyone who, or name them'],
  [/\bno more\b(?! than| of|\w* [a-z]+s\b)/i, 'no longer'],
  [/\bany ?more\b/i, 'no longer'],
  [/(?<!there |There )\bis no (?!longer|more|such)[a-z]/, 'is not a'],
  [/\bare none\b|(?<!there |There )\bis none\b/, 'is not one'],
  [/\bdear\b/i, 'expensive'],
  [/\banew\b/i, 'again'],
  [/\bput away\b|\bputs away\b/i, 'removed'],
  [/\bpass(?:es|ed)? over\b/i, 'skipped'],
  [/\btells? of\b/i, 'reports, contains'],
  [/\b(?:lies?|lay) (?:in|on|at|below|above|beside|behind|there|outside|elsewhere)\b/i, 'is'],
  [/\bstands? (?:in|on|at|below|above|beside|there|outside|elsewhere)\b/i, 'is'],
  [/\bcomplain/i, 'log an error or a warning'],
  [/\bholds? [^.]{1,60} against\b|\bheld against\b/i, 'compare with, check against'],
  [/\byoungest\b/i, 'newest'],
  [/\binstants?\b/i, 'TIME'],
  [/\bspans?\b/i, 'DURATION'],
  [/\bparcels?\b(?!\.json)/i, 'spooled job, client kit'],
  [/\bcontrols\b|\bcontrol\b(?! and non-ASCII| character| sequence|$)/i, 'setting'],
];

/** Text without code, addresses and file names. */
function prose(text: string): string {
  const blank = (block: string): string => block.replace(/[^\n]/g, '');
  return text
    .replace(/^ *```.*?^ *```$/gms, blank)
    .replace(/^ {4}\S.*$/gm, '')
    .replace(/`[^`\n]*`/g, '')
    .replace(/\]\([^)]*\)/g, ']');
}

function findPhrases(file: string, text: string): string[] {
  return text.split('\n').flatMap((line, index) =>
    PHRASES.flatMap(([phrase, instead]) => {
      const found = phrase.exec(line)?.[0];
      return found === undefined ? [] : `${file}:${index + 1}: "${found}" (${instead}): ${line.trim().slice(0, 160)}`;
    }),
  );
}

const PAGES = globSync(['*.md', 'docs/**/*.md', 'apache/**/*.md', 'packaging/**/*.md', 'cgi/node-cgi-compat/*.md'], {
  cwd: root,
}).filter((file) => !file.endsWith('glossary.md'));

describe('what people read', () => {
  for (const file of PAGES.sort())
    it(`is in the words of the glossary: ${file}`, () => {
      assert.deepEqual(findPhrases(file, prose(read(file))), []);
    });

  for (const file of globSync('docs/man/*', { cwd: root }).sort())
    it(`is in the words of the glossary: ${file}`, () => {
      assert.deepEqual(findPhrases(file, read(file)), []);
    });
});

describe('a link in a page', () => {
  for (const file of PAGES.sort())
    it(`leads to a file: ${file}`, () => {
      const targets = [...read(file).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)].map(([, target = '']) => target);
      const missing = targets.filter((target) => globSync(join(root, file, '..', target)).length === 0);
      assert.deepEqual(missing, []);
    });
});
