// The man page and the guide of PaD files compared with the programs' own output;
// test/docs/man.test.ts checks the page as mdoc.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { readItems, readPage, readSection } from '../support/mdoc.ts';
import { MAKER, openWorkshop, run } from '../support/pad-workshop.ts';

const page = readPage('pad-make-script.1');
const guide = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'pad.md'), 'utf8');
const shop = openWorkshop();
after(() => shop.remove());

const makerHelp = run([process.execPath, MAKER, '--help']).stdout;
const scriptHelp = run(['sh', shop.make('x.pad', [shop.add('x', 'x')]), '--help']).stdout;

const sort = (words: Iterable<string>): string[] => [...new Set(words)].sort();
const optionsOf = (help: string): string[] => sort(help.match(/(?<=^ .*)--[a-z]+(?= )/gm) ?? []);
const optionsIn = (lines: readonly string[]): string[] =>
  sort(readItems(lines, 'Fl').flatMap((item) => /-[a-z]{2,}/.exec(item)?.map((word) => `-${word}`) ?? []));

describe('pad-make-script(1)', () => {
  const description = readSection(page, 'DESCRIPTION');
  const start = description.indexOf('.Ss The script');

  it('lists the options of the maker and of the script', () => {
    const ownOptions = makerHelp.slice(makerHelp.indexOf('Options:'), makerHelp.indexOf('The script carries'));
    assert.deepEqual(optionsIn(description.slice(0, start)), optionsOf(ownOptions));
    assert.deepEqual(optionsIn(description.slice(start)), optionsOf(scriptHelp));
    assert.equal(optionsOf(scriptHelp).length, 5);
  });

  it('lists the exit codes of the maker', () => {
    const codes = makerHelp.slice(makerHelp.indexOf('Exit codes:')).match(/^ {2}\d(?= )/gm) ?? [];
    const items = readItems(readSection(page, 'EXIT STATUS')).slice(0, codes.length);
    assert.deepEqual(
      items,
      codes.map((code) => code.trim()),
    );
    assert.equal(codes.length, 3);
  });
});

it('the PaD guide names only existing options', () => {
  const named = guide.match(/(?<=\.pad |`)--[a-z]+/g) ?? [];
  assert.ok(named.length >= 2);
  assert.deepEqual(
    sort(named).filter((option) => !optionsOf(scriptHelp).includes(option)),
    [],
  );
});
