// Words and phrases that the project does not use, searched in what people read: guides, man pages,
// shipped files, messages and comments. A simple list; docs/glossary.md has the right words. Also:
// how long lines are, and whether links lead somewhere.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const root = join(import.meta.dirname, '..', '..');
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

/** Phrases to avoid, with their replacements. */
const PHRASES: readonly (readonly [phrase: RegExp, instead: string])[] = [
  [/\b(?:he|him|his|himself)\b/i, 'a process, client or user is "it" or "they"'],
  [/\bwhoever\b/i, 'anyone who, or name them'],
  [/\bno more\b(?! than| of|\w* [a-z]+s\b)/i, 'no longer'],
  [/\bany ?more\b/i, 'no longer'],
  [/(?<!there |There )\bis no (?!longer|more|such|space)[a-z]/, 'is not a'],
  [/(?<!there |There )\bare none\b|(?<!there |There )\bis none\b/, 'is not one'],
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
  [/\bfolders?\b/i, 'directory'],
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

/** Phrases to avoid in comments and messages too, where the others are names in code. */
const SOURCE_PHRASES = PHRASES.filter(
  ([, instead]) => !['setting', 'DURATION', 'no longer', 'directory'].includes(instead),
);

function findPhrases(file: string, text: string, phrases = PHRASES): string[] {
  return text.split('\n').flatMap((line, index) =>
    phrases.flatMap(([phrase, instead]) => {
      const found = phrase.exec(line)?.[0];
      return found === undefined ? [] : `${file}:${index + 1}: "${found}" (${instead}): ${line.trim().slice(0, 160)}`;
    }),
  );
}

/** The longest line of a comment. */
const COLUMNS = 100;

const isComment = (line: string): boolean => /^\s*(?:\/\/|\/\*|\*[ /])/.test(line);

/** Lines of a source that are comments, under their numbers; all other lines are blank. */
function comments(text: string): string {
  const lines = text.replace(/`[^`\n]*`/g, '').split('\n');
  return lines.map((line) => (isComment(line) ? line : '')).join('\n');
}

/** Texts with spaces in quotes, which are messages for the most part. */
function messages(text: string): string {
  const lines = text.split('\n').map((line) => (isComment(line) ? '' : line));
  const strings = /'(?:[^'\\\n]|\\.)* (?:[^'\\\n]|\\.)*'|`[^`\n]* [^`\n]*`/g;
  return lines.map((line) => [...line.replace(/\$\{[^}]*\}/g, 'X').matchAll(strings)].join(' ')).join('\n');
}

const SOURCES = globSync(
  '{admin,archive,bench,cgi,cli,client,conf,evidence,fleet,ledger,notes,pad,pages,scripts,sign,view,test}/**/*.ts',
  {
    cwd: root,
  },
).filter((file) => file !== 'test/docs/voice.test.ts');

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

describe('a source', () => {
  it('has comments in the words of the glossary', () => {
    assert.deepEqual(
      SOURCES.flatMap((file) => findPhrases(file, comments(read(file)), SOURCE_PHRASES)),
      [],
    );
  });

  it('has messages in the words of the glossary', () => {
    const product = SOURCES.filter((file) => !/^(?:test|bench|scripts)\//.test(file));
    assert.deepEqual(
      product.flatMap((file) => findPhrases(file, messages(read(file)), SOURCE_PHRASES)),
      [],
    );
  });

  it(`has no line of a comment over ${COLUMNS} columns`, () => {
    const long = SOURCES.flatMap((file) =>
      read(file)
        .split('\n')
        .flatMap((line, index) => (isComment(line) && line.length > COLUMNS ? [`${file}:${index + 1}`] : [])),
    );
    assert.deepEqual(long, []);
  });
});

/** Lines of Markdown that wrap: no table, code, heading, picture or link definition. */
function wrapped(text: string): string[] {
  let isCode = false;
  return text.split('\n').map((line) => {
    if (/^\s*```/.test(line)) isCode = !isCode;
    return isCode || /^(?:\||#|<|!\[| {4})/.test(line) ? '' : line;
  });
}

describe('the prose of a page', () => {
  for (const file of PAGES.filter((page) => page !== 'CHANGELOG.md').sort())
    it(`wraps at ${COLUMNS} columns: ${file}`, () => {
      // A line without a blank at which it could break, such as a link or a command, may be longer.
      const long = wrapped(read(file)).flatMap((line, index) =>
        [...line].length > COLUMNS && /\S .*\S/.test(line.replace(/`[^`]*`|\]\([^)]*\)/g, 'X').slice(0, COLUMNS))
          ? [`${file}:${index + 1}`]
          : [],
      );
      assert.deepEqual(long, []);
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
