// What a PaD file does, in every available shell: unpacks its payload beside itself, passes its
// command exactly its arguments, exits as the command did, and leaves the directory as it was.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  findProgram,
  findShells,
  openWorkshop,
  type RunOptions,
  run,
  type Shell,
  share,
  type Workshop,
} from '../support/pad-workshop.ts';

const SHELLS = findShells();
const BYTES = Buffer.concat([Buffer.from('\x7fELF\0\r\n\x1a====\nbegin-base64 600 x\n%payload\0'), randomBytes(5000)]);

let shop: Workshop;
let pad: string;

before(() => {
  shop = openWorkshop();
  const source = shop.folder('source');
  writeFileSync(join(source, 'myprograms.rpm'), BYTES);
  mkdirSync(join(source, 'toolbox', 'deep'), { recursive: true });
  writeFileSync(join(source, 'toolbox', 'collect.sh'), '#!/bin/sh\n"$(dirname "$0")/deep/tool" "$@"\n', {
    mode: 0o755,
  });
  writeFileSync(join(source, 'toolbox', 'deep', 'tool'), '#!/bin/sh\necho tool "$@"; exit 5\n', { mode: 0o755 });
  shop.folder('here');
  shop.folder('there');
  shop.make('there/toolbox.pad', [join(source, 'toolbox')]);
  shop.make('there/x.sh.pad', [shop.add('x.sh', '#!/bin/sh\necho ran "$@"\n', 0o755)]);
  for (const size of [0, 1, 57]) shop.make(`there/${size}.pad`, [shop.add(`${size}`, Buffer.alloc(size, 0xff))]);
  pad = shop.make('here/myprograms.rpm.pad', [join(source, 'myprograms.rpm')]);
});
after(() => shop.remove());

const NOTHING_ELSE = ['myprograms.rpm.pad'];
const OTHERS = ['0.pad', '1.pad', '57.pad', 'toolbox.pad', 'x.sh.pad'];

/**
 * Runs `command` on a PaD file in a shell and returns its output; nothing may be left, and stderr
 * must be empty.
 */
function deliver(shell: Shell, file: string, command: readonly string[], options: RunOptions = {}): string {
  const { code, stdout, stderr } = run([...shell.words, file, ...command], options);
  assert.deepEqual([code, stderr], [0, '']);
  return stdout;
}

it(`a PaD file is tried in ${SHELLS.map(({ name }) => name).join(', ')}`, () => {
  assert.ok(SHELLS.length >= 3);
});

for (const [index, shell] of SHELLS.entries()) {
  describe(shell.name, () => {
    it('unpacks beside the script, byte for byte and privately, from whatever directory it is called', () => {
      const expected = `${BYTES.toString('latin1')}-rw-------\n`;
      const command = ['sh', '-c', 'cat "$1"; ls -l "$1" | cut -c1-10', 'sh', `${shop.path}/here/%payload`];
      assert.equal(deliver(shell, pad, command), expected);
      assert.deepEqual(shop.left('here'), NOTHING_ELSE);
    });

    it('passes on every argument unchanged', () => {
      const words = [
        '',
        ' ',
        'a  b',
        '\n',
        'a\n\n',
        "it's",
        '"',
        '$HOME',
        '`id`',
        '\\n',
        '*',
        '-n',
        '--keep',
        'ü€',
        '%',
        '~',
      ];
      // yash accepts only arguments that are text in the locale.
      const env = { ...process.env, LC_ALL: 'C.UTF-8' };
      const printed = deliver(shell, pad, ['printf', '%s\\0', ...words], { env });
      assert.deepEqual(Buffer.from(printed, 'latin1').toString().split('\0'), [...words, '']);
    });

    it('replaces every %payload of every argument, once, and of the command too', () => {
      const words = [
        '%payload',
        '/var/tmp/%payload',
        '%payload:%payload',
        'a%payloadb',
        '%%payload',
        '%Payload',
        '%payloa%payload',
      ];
      // yash accepts only arguments that are text in the locale.
      const env = { ...process.env, LC_ALL: 'C.UTF-8' };
      const printed = deliver(shell, pad, ['printf', '%s\\0', ...words], { env });
      assert.equal(printed, `${words.map((word) => word.replaceAll('%payload', 'myprograms.rpm')).join('\0')}\0`);
      const script = join(shop.path, 'there', 'x.sh.pad');
      assert.equal(deliver(shell, script, [`${shop.path}/there/%payload`, '%payload']), 'ran x.sh\n');
    });

    it('leaves umask, stdin, environment and directory unchanged for the command', () => {
      const script = 'umask; pwd; cat; env | grep -c "^pad_"; [ -z "$(trap)" ] && echo no traps';
      const options = { cwd: shop.path, input: 'typed\n' };
      const { stdout } = run(['sh', '-c', 'umask 027; "$@"', 'sh', ...shell.words, pad, 'sh', '-c', script], options);
      assert.equal(stdout, `0027\n${shop.path}\ntyped\n0\nno traps\n`);
    });

    it('exits as the command does', () => {
      // Exit codes that shells themselves use, the limits, and a few others in every shell.
      for (const status of [...share([1, 2, 126, 127, 128, 255], index), index + 10, 3 * index + 160])
        assert.equal(run([...shell.words, pad, 'sh', '-c', `exit ${status}`]).code, status);
      for (const signal of share([2, 9, 15], index)) {
        assert.equal(
          run([...shell.words, pad, 'sh', '-c', `kill -${signal} $$`]).code,
          128 + signal,
          `signal ${signal}`,
        );
      }
      assert.equal(run([...shell.words, pad, '/nope/nope']).code, 127);
      assert.equal(run([...shell.words, pad, '/etc/passwd']).code, 126);
      assert.deepEqual(shop.left('here'), NOTHING_ELSE);
    });

    it('cleans up after every signal that ends it, and lets the command end first', () => {
      for (const signal of share([1, 2, 3, 13, 15], index)) {
        const script = `kill -${signal} $PPID; sleep 0.1; exit 7`;
        assert.deepEqual([run([...shell.words, pad, 'sh', '-c', script]).code, signal], [7, signal]);
        assert.deepEqual(shop.left('here'), NOTHING_ELSE, `signal ${signal}`);
      }
    });

    it('cleans up whatever builtin or shell function it is told to run', () => {
      for (const word of share(['exit', 'exec', 'pad_name=x'], index)) {
        const { code } = run([...shell.words, pad, word, '7']);
        // Shells of the pdksh family let exec run a builtin.
        if (!/^(?:mksh|posh)$/.test(shell.name)) assert.equal(code, 127, word);
        assert.deepEqual(shop.left('here'), NOTHING_ELSE, word);
      }
    });

    it('lists and checks without a command, writing nothing', () => {
      const { code, stdout, stderr } = run([...shell.words, pad]);
      assert.deepEqual([code, stderr], [0, '']);
      assert.match(stdout, new RegExp(`^myprograms\\.rpm: file of ${BYTES.length} bytes, SHA-256 [0-9a-f]{64}: OK\n$`));
    });

    it('keeps the payload with --keep, and with --keep alone only unpacks', () => {
      const payload = join(shop.path, 'here', 'myprograms.rpm');
      for (const command of [['--keep'], ['--keep', '--', 'true']]) {
        assert.equal(deliver(shell, pad, command), '');
        assert.deepEqual(readFileSync(payload), BYTES);
        assert.equal(statSync(payload).mode & 0o777, 0o600);
        rmSync(payload);
        assert.deepEqual(shop.left('here'), NOTHING_ELSE);
      }
    });

    it('carries a directory, whose name is %payload', () => {
      const box = join(shop.path, 'there', 'toolbox.pad');
      const { code, stdout, stderr } = run([
        ...shell.words,
        box,
        `${shop.path}/there/%payload/collect.sh`,
        'a b',
        '%payload',
      ]);
      assert.deepEqual([code, stdout, stderr], [5, 'tool a b toolbox\n', '']);
      const list = run([...shell.words, box]);
      assert.match(
        list.stdout,
        /^collect\.sh\ndeep\/\ndeep\/tool\ntoolbox: directory of \d+ bytes, SHA-256 \w{64}: OK\n$/,
      );
      assert.deepEqual(shop.left('there'), OTHERS);
    });

    it('carries payloads of 0, 1 or 57 bytes', () => {
      for (const size of share([0, 1, 57], index)) {
        const small = join(shop.path, 'there', `${size}.pad`);
        assert.equal(deliver(shell, small, ['cat', `${shop.path}/there/%payload`]), '\xff'.repeat(size));
      }
    });

    it('uses its own name, or the stored one where that does not end in .pad', () => {
      const names: [file: string, payload: string][] = [
        ['a b\'"$x.pad', 'a b\'"$x'],
        ['-n.pad', '-n'],
        ['a\nb.pad', 'a\nb'],
        ['%payload.pad', '%payload'],
        ...['other', '.pad', '..pad', '...pad'].map((file): [string, string] => [file, 'myprograms.rpm']),
      ];
      const folder = shop.folder('in a "folder"\n');
      for (const [file, payload] of share(names, index)) {
        copyFileSync(pad, join(folder, file));
        const { code, stdout, stderr } = run([...shell.words, `./${file}`, 'printf', '%s', '%payload'], {
          cwd: folder,
        });
        assert.deepEqual([code, stdout, stderr], [0, payload, '']);
        const elsewhere = run([...shell.words, join(folder, file), '--keep', 'true']);
        assert.deepEqual(elsewhere, { code: 0, signal: null, stdout: '', stderr: '' });
        assert.deepEqual(readFileSync(join(folder, payload)), BYTES);
        for (const name of [file, payload]) rmSync(join(folder, name));
      }
      rmSync(folder, { recursive: true });
    });

    it('explains itself, and refuses unknown options', () => {
      const help = run([...shell.words, pad, '--help']);
      assert.equal(help.code, 0);
      assert.match(help.stdout, /^Usage: myprograms\.rpm\.pad \[options\] \[command \[arguments\]\]\n/);
      assert.match(run([...shell.words, pad, '--version']).stdout, /^pad-make-script \d+\.\d+\.\d+(?:-rc\.\d+)?\n$/);
      const { code, stderr } = run([...shell.words, pad, '--kepp', 'touch', 'ran']);
      assert.equal(code, 125);
      assert.match(stderr, /^myprograms\.rpm\.pad: error: unknown option --kepp\nmyprograms\.rpm\.pad: hint: .*\n$/);
    });
  });
}

describe('a PaD script', () => {
  it('runs by its first line, from PATH and through a link', () => {
    const folder = shop.folder('linked');
    symlinkSync(pad, join(folder, 'again.pad'));
    for (const [word, name] of [
      [pad, 'myprograms.rpm'],
      [join(folder, 'again.pad'), 'again'],
      ['again.pad', 'again'],
    ] as const) {
      const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
      assert.deepEqual(run([word, 'echo', '%payload'], { env }), {
        code: 0,
        signal: null,
        stdout: `${name}\n`,
        stderr: '',
      });
    }
    assert.deepEqual(shop.left('linked'), ['again.pad']);
  });

  it('cannot be piped into a shell, and says so', () => {
    const input = readFileSync(pad);
    const { code, stderr } = run(['sh', '-s', 'touch', 'ran'], { input, cwd: shop.path });
    assert.equal(code, 125);
    assert.match(stderr, /error: cannot read itself as .*\n.*hint: run it by its path/);
    assert.ok(!shop.left().includes('ran'));
  });

  it('never replaces itself', () => {
    const folder = shop.folder('itself');
    copyFileSync(pad, join(folder, 'myprograms.rpm'));
    const { code, stderr } = run(['sh', join(folder, 'myprograms.rpm'), '--overwrite', 'true']);
    assert.deepEqual([code, shop.left('itself')], [125, ['myprograms.rpm']]);
    assert.match(stderr, /error: would replace itself/);
  });

  it('carries 20 MB', () => {
    const bytes = randomBytes(20 * 1024 * 1024 + 1);
    const large = shop.make('large.pad', [shop.add('large.orig', bytes)]);
    assert.equal(run(['sh', large, 'cmp', join(shop.path, 'large.orig'), `${shop.path}/%payload`]).code, 0);
    rmSync(large);
  });

  const shellcheck = findProgram('shellcheck');
  it('passes shellcheck', { skip: shellcheck === undefined && 'shellcheck is not installed' }, () => {
    const text = readFileSync(pad, 'utf8');
    const script = shop.add('head.sh', text.slice(0, text.indexOf('\nbegin-base64 ') + 1));
    assert.deepEqual(run([shellcheck ?? '', '--shell=sh', script]), { code: 0, signal: null, stdout: '', stderr: '' });
  });
});
