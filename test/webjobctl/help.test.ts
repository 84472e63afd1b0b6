// The whole command line of webjobctl from its own help: every command and option is in the manual,
// has an example and its exit codes, and is offered by the completions in the real shells. A new
// command that is missing anywhere fails here.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { CommandRow } from '../../admin/completion/tree.ts';
import { openShells } from '../support/completion-shells.ts';
import { readPage, readSection } from '../support/mdoc.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';
import { printHelp } from '../support/webjobctl-words.ts';

const folder = mkdtempSync(join(tmpdir(), 'webjob-help-'));
mkdirSync(join(folder, 'scripts'));
for (const name of ['alpha.cfg', 'beta.cfg']) writeFileSync(join(folder, name), '');
after(() => rmSync(folder, { recursive: true }));

const rows = parseLines<CommandRow & { value: string | null }>((await runWebjobctl(['completion', '--json'])).stdout);
const named = rows.filter(({ name }) => name !== '');
const leaves = named.filter(({ commands }) => commands.length === 0);
const page = readPage('webjobctl.8');
const [program] = rows;
const globals = program?.options.flatMap(({ flags }) => flags) ?? [];

/** The subsection of a command, or of its family. */
function findSubsection(name: string): string {
  const title = [name, name.split(' ')[0] ?? ''].find((candidate) => page.includes(`.Ss ${candidate}`));
  assert.ok(title, `webjobctl.8 has no subsection ${name}`);
  return readSection(page, title, 'Ss').join('\n');
}

/** `--days` is `Fl -days`, `-c` is `Fl c`. */
const isMarkedUp = (text: string, flag: string): boolean =>
  new RegExp(`\\bFl ${flag.slice(1).replaceAll('-', '(?:-|\\\\-)')}(?![a-z0-9-])`).test(text);

describe('a command', () => {
  const usageOf = async (...args: string[]): Promise<string> =>
    /Usage: webjobctl (\S+)/.exec((await runWebjobctl([...args, '--help'])).stdout)?.[1] ?? '';

  it('is found after the options before it, whatever their values', async () => {
    assert.equal(await usageOf('--json', '-c', 'search', 'jobs'), 'jobs');
    assert.equal(await usageOf('--config', 'jobs', 'clients'), 'clients');
    assert.equal(await usageOf('--config=jobs', 'client', 'add'), 'client');
    assert.equal(await usageOf('-cjobs'), '[options]');
  });

  it('draws a suggestion when it does not exist', async () => {
    const { code, stderr } = await runWebjobctl(['jbos']);
    assert.equal(code, 2);
    assert.match(stderr, /unknown command 'jbos'\n\(Did you mean jobs\?\)/);
  });
});

describe('webjobctl(8)', () => {
  it('knows more than one command', () => assert.ok(leaves.length >= 10, `${rows.length} rows`));

  it('has a subsection for every command, with each of its options', () => {
    const missing = named.flatMap(({ name, options }) => {
      const text = findSubsection(name);
      const flags = options.flatMap((option) => option.flags).filter((flag) => !globals.includes(flag));
      return flags.filter((flag) => !isMarkedUp(text, flag)).map((flag) => `${name} ${flag}`);
    });
    assert.deepEqual(missing, []);
  });

  it('has no subsection for a command that does not exist', () => {
    const start = page.indexOf('.Sh SETTING UP');
    const titles = page
      .slice(start, page.indexOf('.Sh ENVIRONMENT'))
      .flatMap((line) => /^\.Ss (.*)/.exec(line)?.[1] ?? []);
    const unknown = titles.filter((title) => !named.some(({ name }) => name === title));
    assert.deepEqual(unknown, []);
  });

  it('lists the options that every command accepts', () => {
    const text = readSection(page, 'DESCRIPTION').join('\n');
    assert.deepEqual(
      globals.filter((flag) => !isMarkedUp(text, flag)),
      [],
    );
  });

  it('says for every command what --json prints', () => {
    const silent = leaves.filter(({ name }) => !/-json\b/.test(findSubsection(name))).map(({ name }) => name);
    assert.deepEqual(silent, []);
  });
});

describe('webjobctl --help', () => {
  const helps = new Map<string, string>();
  before(async () => {
    for (const { name } of rows) helps.set(name, await printHelp(name.split(' ').filter(Boolean)));
  });

  it('prints on stdout, with exit code 0', async () => {
    for (const { name } of rows.slice(0, 3)) {
      const { code, stdout, stderr } = await runWebjobctl([...name.split(' ').filter(Boolean), '--help']);
      assert.deepEqual({ code, stderr, stdout }, { code: 0, stderr: '', stdout: helps.get(name) }, name);
    }
  });

  it('shows an example for every command', () => {
    for (const { name } of named)
      assert.match(
        helps.get(name) ?? '',
        new RegExp(`^Examples?\\b.*:\n(?: .*\n)* +.*webjobctl .*${name.split(' ')[0]}`, 'm'),
        name,
      );
  });

  it('gives the exit codes of every command', () => {
    // A family refers to its commands.
    for (const { name, commands } of named)
      assert.match(helps.get(name) ?? '', commands.length > 0 ? /^Exit codes/m : /^Exit codes:\s+0 /m, name);
  });

  it('describes every option and argument', () => {
    for (const { name, options } of rows) {
      for (const { flags, description } of options) {
        assert.notEqual(description, '', `${name} ${flags}`);
        assert.ok(
          globals.includes(flags[0] ?? '') || helps.get(name)?.includes(flags.at(-1) ?? ''),
          `${name} ${flags}`,
        );
      }
    }
  });
});

describe('webjobctl completion', async () => {
  for (const [shell, file] of [
    ['bash', 'webjobctl.bash'],
    ['zsh', '_webjobctl'],
    ['fish', 'webjobctl.fish'],
  ] as const)
    writeFileSync(join(folder, 'scripts', file), (await runWebjobctl(['completion', shell])).stdout);

  it('requires a shell, and knows three', async () => {
    assert.deepEqual((await runWebjobctl(['completion'])).code, 2);
    assert.deepEqual((await runWebjobctl(['completion', 'tcsh'])).code, 2);
  });

  it('describes every command and option in the shells that show descriptions', () => {
    const all = [...named, ...rows.flatMap(({ options }) => options)]
      .map(({ description }) => description)
      .filter((text) => !/['":\\$`]/.test(text));
    assert.ok(all.length > 200, `${all.length}`);
    for (const [file, before] of [
      ['_webjobctl', ':'],
      ['webjobctl.fish', "-d '"],
    ] as const) {
      const script = readFileSync(join(folder, 'scripts', file), 'utf8');
      assert.deepEqual(
        all.filter((text) => !script.includes(`${before}${text}'`)),
        [],
        file,
      );
    }
  });

  for (const [shell, { ask, skip }] of Object.entries(openShells('webjobctl', join(folder, 'scripts'), folder))) {
    describe(`completion in ${shell}`, { skip }, () => {
      const offers = (line: string, expected: readonly string[]): void =>
        assert.deepEqual(ask(line).sort(), [...expected].sort(), line);
      const flagsOf = (name: string): string[] =>
        rows.find((row) => row.name === name)?.options.flatMap(({ flags }) => flags) ?? [];

      it('offers every command and subcommand', () => {
        for (const { name, commands } of rows.filter((row) => row.commands.length > 0))
          offers(`webjobctl ${name}${name === '' ? '' : ' '}`, commands);
      });

      it('offers every option of every command', () => {
        // bash starts fast, so all options are tested in it; the scripts of the other shells are
        // made from the same tree, so one command is enough for them.
        const asked = shell === 'bash' ? rows : rows.filter(({ name }) => name === 'client add');
        for (const { name } of asked) offers(`webjobctl ${name}${name === '' ? '' : ' '}-`, flagsOf(name));
      });

      it('skips the values of options', () => {
        offers('webjobctl --config init cli', ['client', 'clients']);
        offers('webjobctl -c alpha.cfg client li', ['list']);
      });

      it('offers files for an option that takes one, and choices where there are some', () => {
        offers('webjobctl --config al', ['alpha.cfg']);
        offers('webjobctl sign keygen --type ', ['ed25519', 'p256']);
        offers('webjobctl completion z', ['zsh']);
        offers('webjobctl sign verify be', ['beta.cfg']);
      });
    });
  }
});
