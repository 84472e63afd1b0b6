// The completions in the real shells: they offer what webjob --help lists, and nothing after the
// name of the program.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { DIGESTS } from '../../client/modes.ts';
import { runWebjob } from '../support/client-job.ts';
import { openShells } from '../support/completion-shells.ts';

const COMPLETIONS = join(import.meta.dirname, '..', '..', 'completions');

const folder = mkdtempSync(join(tmpdir(), 'webjob-completions-'));
for (const name of ['alpha.conf', 'alphabet.conf', 'beta.conf']) writeFileSync(join(folder, name), '');
mkdirSync(join(folder, 'scripts'));
after(() => rmSync(folder, { recursive: true }));

const shells = openShells('webjob', COMPLETIONS, folder);

for (const [shell, { ask, skip }] of Object.entries(shells)) {
  describe(`completion in ${shell}`, { skip }, () => {
    let options: string[];
    before(async () => {
      const { stdout } = await runWebjob(['--help']);
      options = [...stdout.matchAll(/^ {2}(?:(-[a-z]), )?(--[a-z-]+) /gm)].flatMap(([, short, long = '']) =>
        short === undefined ? [long] : [short, long],
      );
      assert.ok(options.length >= 10, stdout);
    });
    const offers = (line: string, expected: readonly string[]): void =>
      assert.deepEqual(ask(line).sort(), [...expected].sort(), line);

    it('offers the options of webjob --help, and no other', () => offers('webjob -', options));

    it('completes long options from their beginning', () => offers('webjob --fl', ['--flush']));

    it('offers the options that match a mode', () => {
      const offered = ask('webjob --execute -');
      for (const option of ['-f', '--file']) assert.ok(offered.includes(option), `${offered}`);
    });

    it('offers the digests for --type', () => {
      offers('webjob --hashsum --type ', DIGESTS);
      offers('webjob -h -t SHA', ['SHA1', 'SHA256', 'SHA512']);
    });

    it('offers files for --file, and again after a comma', () => {
      offers('webjob --execute --file al', ['alpha.conf', 'alphabet.conf']);
      offers('webjob -e -f alpha.conf,b', ['alpha.conf,beta.conf']);
    });

    it('offers files for --hashsum', () => offers('webjob --hashsum --type MD5 be', ['beta.conf']));

    it('leaves the program name free', () => offers('webjob -e -f alpha.conf al', []));

    it('offers files and no options after the program name', () => {
      offers('webjob -e -f alpha.conf host.sh al', ['alpha.conf', 'alphabet.conf']);
      offers('webjob -e -f alpha.conf host.sh -', []);
    });
  });
}

describe('the completion scripts', () => {
  it('describe every option as webjob --help does', async () => {
    const { stdout } = await runWebjob(['--help']);
    const texts = [...stdout.matchAll(/^ {2}(?:-[a-z], )?--[a-z-]+(?: <\w+>)? +(.+)$/gm)].map(([, text = '']) =>
      text.replace(/:.*/, ''),
    );
    assert.ok(texts.length >= 8);
    for (const name of ['_webjob', 'webjob.fish']) {
      const file = readFileSync(join(COMPLETIONS, name), 'utf8');
      assert.deepEqual(
        texts.filter((text) => !file.includes(text)),
        [],
        name,
      );
    }
  });
});
