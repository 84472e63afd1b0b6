// What webjobctl init installs besides the site itself: man pages and completions in the right
// directories, and the Node that runs the script.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { isInCheckout } from '../../admin/site/interpreter.ts';
import { runProgram, WEBJOBCTL } from '../support/program-runs.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-init-'));
chmodSync(root, 0o755);
after(() => rmSync(root, { recursive: true }));
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
});

/** With other variables. */
async function runWebjobctl(
  args: readonly string[],
  { environment = {} }: { environment?: Record<string, string> } = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const options = { environment: { ...process.env, ...environment } };
  const { code, stdout, stderr } = await runProgram(WEBJOBCTL, args, options);
  return { code, stdout: stdout.toString(), stderr: stderr.toString() };
}

describe('installed man pages and completions', () => {
  const project = join(import.meta.dirname, '..', '..');
  const make = (...more: string[]) =>
    runWebjobctl(['init', '--root', folder, '--prefix', '/w', '--node', process.execPath, ...more]);
  const at = (...names: string[]): string => join(folder, 'w', 'share', ...names);

  it('are those of the project, with the completion that webjobctl prints', async () => {
    const { code, stderr } = await make();
    assert.equal(code, 0, stderr);
    const shipped = (...names: string[]): string => readFileSync(join(project, ...names), 'utf8');
    for (const page of readdirSync(join(project, 'docs', 'man')))
      assert.equal(readFileSync(at('man', `man${page.slice(-1)}`, page), 'utf8'), shipped('docs', 'man', page));
    for (const [shell, webjob, webjobctl] of [
      ['webjob.bash', 'bash-completion/completions/webjob', 'bash-completion/completions/webjobctl'],
      ['_webjob', 'zsh/site-functions/_webjob', 'zsh/site-functions/_webjobctl'],
      ['webjob.fish', 'fish/vendor_completions.d/webjob.fish', 'fish/vendor_completions.d/webjobctl.fish'],
    ] as const) {
      assert.equal(readFileSync(at(webjob), 'utf8'), shipped('completions', shell));
      const name = /bash|fish/.exec(shell)?.[0] ?? 'zsh';
      assert.equal(readFileSync(at(webjobctl), 'utf8'), (await runWebjobctl(['completion', name])).stdout);
    }
  });

  it('are where man, zsh and fish look', () => {
    const ask = (program: string, ...words: string[]): string => {
      const { error, stdout } = spawnSync(program, words, { encoding: 'utf8', env: { PATH: process.env.PATH } });
      return error ? '' : stdout;
    };
    const zsh = ask('zsh', '-fc', 'print -l $fpath');
    if (zsh) assert.ok(zsh.split('\n').includes('/usr/local/share/zsh/site-functions'), zsh);
    const fish = ask('fish', '-c', 'printf "%s\\n" $fish_complete_path');
    if (fish) assert.ok(fish.split('\n').includes('/etc/fish/completions'), fish);
  });

  it("leave the system's directories unchanged", async () => {
    mkdirSync(at(), { recursive: true });
    chmodSync(at(), 0o2775);
    mkdirSync(join(folder, 'pages'));
    symlinkSync('../../pages', at('man'));
    const { code, stderr } = await make();
    assert.equal(code, 0, stderr);
    assert.equal(statSync(at()).mode & 0o7777, 0o2775);
    assert.ok(existsSync(join(folder, 'pages', 'man1', 'webjob.1')));
  });

  it('are replaced with --force, and the old ones are kept where no program reads them', async () => {
    await make();
    writeFileSync(at('zsh/site-functions/_webjob'), 'mine');
    assert.equal((await make()).code, 4);
    assert.equal((await make('--force')).code, 0);
    assert.deepEqual(readdirSync(at('zsh/site-functions')), ['_webjob', '_webjobctl']);
    const [aside = ''] = readdirSync(join(folder, 'w/etc/replaced'));
    assert.match(aside, /^_webjob\.\d{8}T\d{6}\.bak$/);
    assert.equal(readFileSync(join(folder, 'w/etc/replaced', aside), 'utf8'), 'mine');
  });
});

describe('the Node of the script', () => {
  const firstLine = (): string => readFileSync(join(folder, 'w/webjob/nph-webjob.cgi'), 'utf8').split('\n')[0] ?? '';
  const addNode = (...names: string[]): string => {
    const path = join(folder, ...names, 'node');
    mkdirSync(join(folder, ...names), { recursive: true });
    writeFileSync(path, '#!/bin/sh\necho v24.0.0\n', { mode: 0o755 });
    chmodSync(path, 0o755);
    return path;
  };
  const init = (path: string, ...more: string[]) =>
    runWebjobctl(['init', '--root', folder, '--prefix', '/w', ...more], { environment: { PATH: path } });

  it('belongs to a checkout below node_modules or a directory with .git, even by a link', () => {
    assert.ok(isInCheckout(addNode('a/node_modules/node/bin')));
    const cloned = addNode('b/.cache/node/bin');
    assert.equal(isInCheckout(cloned), false);
    mkdirSync(join(folder, 'b', '.git'));
    assert.ok(isInCheckout(cloned));
    symlinkSync(cloned, join(folder, 'link'));
    assert.ok(isInCheckout(join(folder, 'link')));
    assert.equal(isInCheckout('/usr/bin/node'), false);
  });

  it('is one outside of a checkout where there is one', async () => {
    const inside = addNode('a/node_modules/.bin');
    const outside = addNode('own/bin');
    const { code, stderr } = await init(`${join(inside, '..')}:${join(outside, '..')}:${process.env.PATH}`);
    assert.equal(code, 0, stderr);
    assert.equal(firstLine(), `#!${isInCheckout(process.execPath) ? outside : process.execPath}`);
    assert.doesNotMatch(stderr, /part of a checkout/);
  });

  it('may belong to a checkout, and then init reports the consequence', async () => {
    const inside = addNode('a/node_modules/.bin');
    const { code, stderr } = await init(process.env.PATH ?? '', '--node', inside);
    assert.equal(code, 0, stderr);
    assert.equal(firstLine(), `#!${inside}`);
    assert.ok(stderr.includes(`warning: the script runs with ${inside}, which is part of a checkout`), stderr);
    assert.match(stderr, /hint: install Node for the whole machine, .*--node .* --force\n/);
  });
});
