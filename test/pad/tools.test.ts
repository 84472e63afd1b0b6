// A PaD file with whatever tools it finds, and after a download that was cut short or tampered
// with: it decodes and verifies with any of them, and without a valid payload runs nothing and
// leaves nothing.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  type Ended,
  findProgram,
  findShells,
  makeBusyboxFarm,
  makeFarm,
  openWorkshop,
  run,
  share,
  type Workshop,
  withPath,
} from '../support/pad-workshop.ts';
import { many, part } from '../support/thorough.ts';

const SHELLS = findShells();
const BYTES = randomBytes(10_000);

let shop: Workshop;
let pad: string;
let text: string;
let farms = 0;

before(() => {
  shop = openWorkshop();
  shop.folder('here');
  pad = shop.make('here/data.pad', [shop.add('data', BYTES)]);
  text = readFileSync(pad, 'latin1');
});
after(() => shop.remove());

/** Old systems, imitated with tools of this machine. */
const OTHER_TOOLS: Record<string, string> = {
  // macOS before 13.
  'base64 -D': '[ "$1" = -D ] && exec PROGRAM -d; exit 64',
  'uudecode -p': '[ "$1" = -p ] && exec PROGRAM -o /dev/stdout; exit 1',
  sha256: 'PROGRAM | cut -c1-64',
};

describe('the tools of the target', () => {
  /**
   * The tool alone, or a script of its name that behaves like another kind of it. Undefined when
   * this machine cannot provide it.
   */
  function farmWith(tools: readonly string[]): string | undefined {
    const others: Record<string, string> = {};
    const own: string[] = [];
    for (const tool of tools) {
      const [name = ''] = tool.split(' ');
      const program = findProgram(name === 'sha256' ? 'sha256sum' : name);
      if (program === undefined) return undefined;
      const script = OTHER_TOOLS[tool];
      if (script === undefined) own.push(name);
      else others[name] = `#!/bin/sh\nPATH=/usr/bin:/bin\n${script.replaceAll('PROGRAM', program)}\n`;
    }
    farms++;
    return makeFarm(shop, `farm${farms}`, own, others);
  }

  const DECODERS = ['base64', 'base64 -D', 'openssl', 'uudecode', 'uudecode -p', 'perl'];
  const DIGESTERS = ['sha256sum', 'shasum', 'openssl', 'sha256', 'cksum', 'perl'];
  const pairs = [
    ...DECODERS.map((decoder) => [decoder, 'sha256sum']),
    ...DIGESTERS.map((digester) => ['base64', digester]),
    ['perl'],
    ['openssl'],
  ];
  for (const tools of pairs) {
    const missing = tools
      .map((tool) => tool.split(' ')[0] ?? '')
      .find((tool) => tool !== 'sha256' && !findProgram(tool));
    it(`suffice: ${tools.join(' and ')}`, { skip: missing && `${missing} is not installed` }, () => {
      // shasum is a perl script, and is tried before perl itself.
      const farm = farmWith([...tools, ...(tools.includes('shasum') ? ['perl'] : [])]) ?? '';
      const env = withPath(farm);
      const dash = findProgram('dash') ?? '';
      const expected = { code: 3, signal: null, stdout: BYTES.toString('latin1'), stderr: '' };
      assert.deepEqual(
        run([dash, pad, 'sh', '-c', 'cat "$1"; exit 3', 'sh', `${shop.path}/here/%payload`], { env }),
        expected,
      );
      const list = run([dash, pad], { env });
      assert.deepEqual([list.code, list.stderr], [0, '']);
    });
  }

  it('may all be busybox', (t) => {
    const farm = makeBusyboxFarm(shop);
    if (farm === undefined) return t.skip('busybox is not installed');
    for (const without of ['', 'base64']) {
      if (without) rmSync(join(farm, without));
      const command = ['cat', `${shop.path}/here/%payload`];
      const { code, stdout, stderr } = run([join(farm, 'sh'), pad, ...command], { env: withPath(farm) });
      assert.deepEqual([code, stderr], [0, '']);
      assert.deepEqual(Buffer.from(stdout, 'latin1'), BYTES);
    }
  });

  it('are not trusted when they do not do what their names say', () => {
    const nonsense = '#!/bin/sh\ncat >/dev/null\necho nonsense\n';
    const others = Object.fromEntries(
      ['base64', 'openssl', 'uudecode', 'sha256sum', 'shasum'].map((name) => [name, nonsense]),
    );
    const env = withPath(makeFarm(shop, 'liars', ['perl'], others));
    const { code, stdout } = run([findProgram('dash') ?? '', pad, 'cat', `${shop.path}/here/%payload`], { env });
    assert.deepEqual([code, Buffer.from(stdout, 'latin1')], [0, BYTES]);
  });

  it('run nothing when they cannot decode', () => {
    const { code, stderr } = attempt(pad, [], withPath(makeFarm(shop, 'undecodable', ['sha256sum'])));
    assert.equal(code, 125);
    assert.match(stderr, /^data\.pad: error: no tool here can decode base64\n/);
  });

  it('run nothing when they cannot check, except with --unchecked a complete script', () => {
    const env = withPath(makeFarm(shop, 'uncheckable', ['base64']));
    const refused = attempt(pad, [], env);
    assert.equal(refused.code, 125);
    assert.match(
      refused.stderr,
      /^data\.pad: error: no tool here can compute a SHA-256.*\ndata\.pad: hint: .*--unchecked/,
    );
    const list = run([findProgram('dash') ?? '', pad], { env });
    assert.deepEqual([list.code, list.stdout], [1, '']);
    const dash = findProgram('dash') ?? '';
    assert.equal(run([dash, pad, '--unchecked', 'sh', '-c', 'exit 9'], { env }).code, 9);
    const cut = shop.add('here/cut.pad', text.slice(0, -200));
    assert.equal(attempt(cut, ['--unchecked'], env).code, 125);
    rmSync(cut);
  });
});

/**
 * Tries to deliver with a command that would leave a mark. Throws when it did, or when anything
 * else is left.
 */
function attempt(file: string, options: readonly string[], env = process.env, shell = SHELLS[0]): Ended {
  const before = shop.left('here');
  const mark = join(shop.path, 'mark');
  const ended = run([...(shell?.words ?? []), file, ...options, '/usr/bin/touch', mark], { env });
  assert.ok(!existsSync(mark), 'the command was run');
  assert.deepEqual(shop.left('here'), before);
  return ended;
}

describe('an incomplete script', () => {
  /** Tries the script cut off after `length` bytes. */
  function attemptCut(length: number, shell = SHELLS[0]): void {
    const cut = shop.add('here/cut.pad', text.slice(0, length));
    try {
      const { code, stdout } = attempt(cut, [], process.env, shell);
      // `#!/bin/sh` alone is a valid, empty script.
      if (length > '#!/bin/sh\n'.length) assert.notEqual(code, 0, `cut behind ${length} bytes`);
      assert.equal(stdout, '');
    } finally {
      rmSync(cut);
    }
  }

  const head = (): number => text.indexOf('\nbegin-base64 ') + 1;

  it('runs nothing, wherever in its head it ends', () => {
    const ends = [...text.slice(0, head()).matchAll(/\n/g)].map(({ index }) => index);
    assert.ok(ends.length > 150);
    const step = many(3, 9);
    for (const [line, end] of ends.entries()) if (line % step === 0) attemptCut(end + 1 - ((line / step) % 3));
    for (let length = 0; length < 200; length += many(13, 40)) attemptCut(length);
    for (let length = head() - 40; length <= head() + 30; length += many(3, 10)) attemptCut(length);
    for (let length = head() - 4; length <= head() + 4; length++) attemptCut(length);
  });

  it('runs nothing, wherever in its body it ends', () => {
    for (const length of [1, 2, 3, 4, 5, 6, 76, 77, 78, 79, 82, 160, 5000]) attemptCut(text.length - length);
  });

  for (const [index, shell] of SHELLS.entries()) {
    it(`runs nothing in ${shell.name}`, () => {
      const places = [0, 5, 9, 15, 100, 500, 1000, 3000, 5000, 8000].map((length) => Math.min(length, head() - 50));
      const nearEnd = [head() - 3, head() - 2, head() - 1, head(), head() + 10, head() + 200, text.length - 6];
      for (const length of share([...places, ...nearEnd], index)) attemptCut(length, shell);
    });
  }
});

describe('a script that was tampered with', () => {
  const tampered: [what: string, change: (text: string) => string][] = [
    ['a byte of the body', (whole) => whole.replace(/[A-Z](?=[^\n]*\n====)/, (letter) => (letter === 'A' ? 'B' : 'A'))],
    ['the SHA-256', (whole) => whole.replace(/(?<=pad_sha256=')./, (digit) => (digit === '0' ? '1' : '0'))],
    ['the size', (whole) => whole.replace("pad_bytes='10000'", "pad_bytes='10001'")],
    ['a line taken out', (whole) => whole.replace(/\n[^\n]+(?=\n[^\n]+\n====)/, '')],
    ['lines swapped', (whole) => whole.replace(/\n([^\n]+)\n([^\n]+)\n([^\n]+\n====)/, '\n$2\n$1\n$3')],
    ['a line put in', (whole) => whole.replace(/\n====/, '\nAAAA\n====')],
    ['no base64', (whole) => whole.replace(/.{10}\n.*\n====/, '!!!!\n\xff\n====')],
    ['the line ends of another system', (whole) => whole.replaceAll('\n', '\r\n')],
  ];
  for (const [what, change] of tampered) {
    it(`runs nothing and leaves nothing: ${what}`, () => {
      const changed = change(text);
      assert.notEqual(changed, text);
      const file = join(shop.path, 'here', 'bad.pad');
      writeFileSync(file, changed, 'latin1');
      for (const shell of part(SHELLS.slice(0, 2), 1)) {
        assert.notEqual(attempt(file, [], process.env, shell).code, 0, shell.name);
        assert.notEqual(attempt(file, ['--keep', '--overwrite', '--unchecked'], process.env, shell).code, 0);
        assert.doesNotMatch(run([...shell.words, file]).stdout, /OK/);
      }
      rmSync(file);
    });
  }

  it('reports what is wrong', () => {
    const file = shop.add('here/bad.pad', tampered[0]?.[1](text) ?? '');
    const { code, stderr } = attempt(file, []);
    assert.deepEqual([code, stderr], [125, 'bad.pad: error: damaged: its SHA-256 has changed\n']);
    const list = run(['sh', file]);
    assert.deepEqual([list.code, list.stdout, list.stderr], [1, '', stderr]);
    rmSync(file);
  });
});

describe('a directory that cannot be written', () => {
  it('is named, and is not needed by --list', () => {
    const folder = shop.folder('sealed');
    copyFileSync(pad, join(folder, 'data.pad'));
    chmodSync(folder, 0o555);
    chmodSync(shop.path, 0o755);
    // Root may write everywhere.
    const user = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534, cwd: '/' } : {};
    assert.equal(run(['sh', join(folder, 'data.pad')], user).code, 0);
    const { code, stderr } = run(['sh', join(folder, 'data.pad'), 'true'], user);
    assert.equal(code, 125);
    assert.match(stderr, /error: cannot make a directory in .*sealed\/\n.*hint: /);
    chmodSync(folder, 0o755);
  });
});
