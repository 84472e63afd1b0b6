// pad-make-script for its users: what it includes, what it refuses and reports, and that neither
// size nor a changing file harms it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { type Ended, findProgram, MAKER, openWorkshop, type RunOptions, run } from '../support/pad-workshop.ts';

const project = join(import.meta.dirname, '..', '..');
const { version } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
const shop = openWorkshop();
after(() => shop.remove());

const inShop = (name: string): string => join(shop.path, name);
const make = (args: readonly string[], options: RunOptions = {}): Ended =>
  run([process.execPath, MAKER, ...args], { cwd: shop.path, ...options });

/** Unpacks a script, under its own name or the stored one, and returns the path of the payload. */
function unpack(script: string, name: string): string {
  const folder = shop.folder('unpacked');
  const path = join(folder, 'script');
  writeFileSync(path, script, { encoding: 'latin1' });
  assert.deepEqual(run(['sh', path, '--keep']), { code: 0, signal: null, stdout: '', stderr: '' });
  assert.deepEqual(shop.left('unpacked'), [name, 'script'].sort());
  return join(folder, name);
}

beforeEach(() => {
  rmSync(inShop('unpacked'), { recursive: true, force: true });
  rmSync(inShop('box'), { recursive: true, force: true });
});

describe('a payload that is a file', () => {
  it('is unpacked unchanged, and executable if it was', () => {
    for (const [mode, expected] of [
      [0o644, 0o600],
      [0o755, 0o700],
      [0o555, 0o700],
    ] as const) {
      const path = shop.add('data', randomBytes(100), mode);
      chmodSync(path, mode);
      const out = unpack(make(['data']).stdout, 'data');
      assert.deepEqual(readFileSync(out), readFileSync(path));
      assert.equal(statSync(out).mode & 0o777, expected);
      rmSync(inShop('unpacked'), { recursive: true });
      rmSync(path);
    }
  });

  for (const name of [
    "it's",
    'a b',
    '-n',
    '--name',
    '$(touch ran)',
    "';touch ran;'",
    'a\nb\n',
    '`id`',
    'ü€',
    '$&',
    '#@values@',
  ]) {
    it(`may be called ${JSON.stringify(name)}`, () => {
      shop.add(name, 'carried');
      const out = unpack(make(['--', name]).stdout, name);
      assert.equal(readFileSync(out, 'latin1'), 'carried');
      rmSync(inShop(name));
      assert.ok(!shop.left().includes('ran'));
    });
  }

  it('may get another name with --name, and be reached through a link', () => {
    shop.add('data', 'x');
    symlinkSync('data', inShop('link'));
    assert.equal(readFileSync(unpack(make(['--name', 'other name', 'link']).stdout, 'other name'), 'utf8'), 'x');
  });
});

describe('a payload that is a directory', () => {
  const long = `${'d'.repeat(90)}/${'f'.repeat(200)}`;

  it('is unpacked with everything in it', () => {
    const box = shop.folder('box');
    mkdirSync(join(box, 'deep', 'empty'), { recursive: true });
    mkdirSync(join(box, 'sealed'));
    mkdirSync(join(box, 'd'.repeat(90)));
    const files = { 'a b\n"': 511, 'deep/zero': 0, 'sealed/whole': 512, [long]: 513, '-n': 1_000_000 };
    for (const [name, size] of Object.entries(files)) writeFileSync(join(box, name), randomBytes(size));
    chmodSync(join(box, 'deep/zero'), 0o4755);
    chmodSync(join(box, 'sealed'), 0o555);
    symlinkSync('deep/zero', join(box, 'link'));
    symlinkSync(`/${'l'.repeat(150)}`, join(box, 'far'));
    const out = unpack(make(['box']).stdout, 'box');
    for (const name of Object.keys(files))
      assert.deepEqual(readFileSync(join(out, name)), readFileSync(join(box, name)));
    assert.deepEqual(
      [readlinkSync(join(out, 'link')), readlinkSync(join(out, 'far'))],
      ['deep/zero', `/${'l'.repeat(150)}`],
    );
    assert.ok(lstatSync(join(out, 'deep', 'empty')).isDirectory());
    assert.equal(statSync(join(out, 'deep', 'zero')).mode & 0o7100, 0o100, 'it can be run, but not as somebody else');
    assert.deepEqual(shop.left('unpacked/box').length, 7);
    chmodSync(join(box, 'sealed'), 0o755);
  });

  it('makes the same script however old its files are and in whatever order they were made', () => {
    const made = [
      ['a', 'b'],
      ['b', 'a'],
    ].map((names) => {
      const box = shop.folder('box');
      for (const name of names) writeFileSync(join(box, name), name);
      utimesSync(join(box, 'a'), names[0] === 'a' ? 1 : 2, 3);
      const { stdout } = make(['box']);
      rmSync(box, { recursive: true });
      return stdout;
    });
    assert.equal(made[0], made[1]);
  });

  it('may be the current directory', () => {
    writeFileSync(join(shop.folder('box'), 'a'), 'a');
    assert.match(make(['.'], { cwd: inShop('box') }).stdout, /^pad_stored_name='box'$/m);
    unpack(make(['box/']).stdout, 'box');
  });
});

describe('several payloads', () => {
  it('are put into one directory', () => {
    writeFileSync(join(shop.folder('box'), 'tool'), 'in the box');
    shop.add('collect.sh', 'script');
    const out = unpack(make([inShop('collect.sh'), 'box']).stdout, 'payload');
    assert.equal(readFileSync(join(out, 'collect.sh'), 'utf8'), 'script');
    assert.equal(readFileSync(join(out, 'box', 'tool'), 'utf8'), 'in the box');
    assert.match(make(['--name', 'kit', 'collect.sh', 'box']).stdout, /^pad_stored_name='kit'$/m);
  });

  it('may not have the same name', () => {
    shop.add('same', 'x');
    writeFileSync(join(shop.folder('box'), 'same'), 'y');
    const { code, stdout, stderr } = make(['same', 'box/same']);
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, /^pad-make-script: error: two payloads are called same\npad-make-script: hint: .+\n$/);
  });
});

describe('a payload that cannot be made', () => {
  const refused: [args: string[], code: number, message: RegExp][] = [
    [[], 2, /missing required argument/],
    [['--nope'], 2, /unknown option/],
    [['none'], 4, /none cannot be read: ENOENT/],
    [['fifo'], 4, /fifo is not a file, directory or link/],
    [['withfifo'], 4, /withfifo\/fifo is not a file, directory or link/],
    [['/dev/null'], 4, /\/dev\/null is not a file, directory or link/],
    [['/'], 2, /'' cannot be the name of a file\npad-make-script: hint: give one with --name/],
    ...['a/b', '..', '', 'x'.repeat(256), 'ü'.repeat(128)].map((name): [string[], number, RegExp] => [
      ['--name', name, 'data'],
      2,
      /cannot be the name of a file/,
    ]),
  ];
  for (const [args, code, message] of refused) {
    it(`is refused: ${args.join(' ').slice(0, 40) || 'nothing'}`, () => {
      shop.add('data', 'x');
      shop.folder('withfifo');
      for (const fifo of ['fifo', 'withfifo/fifo']) run(['mkfifo', inShop(fifo)]);
      const ended = make(args);
      assert.deepEqual([ended.code, ended.stdout], [code, '']);
      assert.match(ended.stderr, message);
      for (const line of ended.stderr.trimEnd().split('\n')) assert.match(line, /^pad-make-script: (?:error|hint): \S/);
    });
  }

  it('is refused before a byte is read when a file does not fit into a tar archive', () => {
    const path = join(shop.folder('box'), 'huge');
    writeFileSync(path, '');
    // The smallest size that eleven octal digits cannot express.
    truncateSync(path, 8 ** 11);
    const { code, stdout, stderr } = make(['box']);
    assert.deepEqual([code, stdout], [4, '']);
    assert.match(stderr, /^pad-make-script: error: box\/huge is too large for a tar\n/);
  });

  it('is refused when the script would be written into its own payload', () => {
    for (const output of ['box/x.pad', 'box/data']) {
      writeFileSync(join(shop.folder('box'), 'data'), 'x');
      const words = ['sh', '-c', `"$1" "$2" box > ${output}`, 'sh', process.execPath, MAKER];
      const { code, stderr } = run(words, { cwd: shop.path });
      assert.equal(code, 4);
      assert.match(stderr, /^pad-make-script: error: box\/.* is the output of this command\n.*hint: /);
    }
  });

  it('is refused when the script would go to the terminal', (t) => {
    const script = findProgram('script');
    if (script === undefined) return t.skip('script(1) is not installed');
    shop.add('data', 'x');
    const command = `'${process.execPath}' '${MAKER}' data`;
    const { code, stdout } = run([script, '-qec', command, '/dev/null'], { cwd: shop.path });
    assert.equal(code, 2);
    assert.match(stdout, /^pad-make-script: error: the script would be written to a terminal\r\n.*hint: redirect it/);
    assert.doesNotMatch(stdout, /begin-base64/);
  });

  it('is reported when the disk is full', () => {
    shop.add('data', randomBytes(1000));
    const words = ['sh', '-c', '"$1" "$2" data > /dev/full', 'sh', process.execPath, MAKER];
    const { code, stderr } = run(words, { cwd: shop.path });
    assert.deepEqual([code, stderr], [4, 'pad-make-script: error: the script cannot be written: ENOSPC\n']);
  });

  it('is reported when the reader goes away', () => {
    shop.add('data', randomBytes(3_000_000));
    const words = ['sh', '-c', '{ "$1" "$2" data; echo $? >&2; } | head -c 1', 'sh', process.execPath, MAKER];
    const { stdout, stderr } = run(words, { cwd: shop.path });
    assert.deepEqual([stdout, stderr], ['#', 'pad-make-script: error: the script cannot be written: EPIPE\n4\n']);
  });
});

/** Starts to make a script and lets `change` modify the payload after the first reading. */
async function makeWhile(
  path: string,
  change: () => void,
): Promise<{ code: number | null; script: Buffer; stderr: string }> {
  const child = spawn(process.execPath, [MAKER, path], { stdio: ['ignore', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stderr.on('data', (chunk) => err.push(chunk));
  await once(child.stdout, 'readable');
  change();
  child.stdout.on('data', (chunk) => out.push(chunk));
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  const [code] = await once(child, 'close');
  clearTimeout(timer);
  return { code, script: Buffer.concat(out), stderr: Buffer.concat(err).toString() };
}

describe('a payload that changes while it is read', () => {
  // More than pipes and streams hold.
  const SIZE = 8_000_000;
  const changes: [what: string, change: (path: string) => void][] = [
    ['in a byte', (path) => overwrite(path, SIZE - 1)],
    ['by growing', (path) => overwrite(path, SIZE)],
    ['by shrinking', (path) => truncateSync(path, SIZE - 1)],
  ];

  function overwrite(path: string, position: number): void {
    const fd = openSync(path, 'r+');
    writeSync(fd, 'x', position);
    closeSync(fd);
  }

  for (const [what, change] of changes) {
    it(`is reported when it changes ${what}, and the script does not run`, async () => {
      const path = shop.add('data', Buffer.alloc(SIZE));
      const { code, script, stderr } = await makeWhile(path, () => change(path));
      assert.equal(code, 4);
      assert.match(stderr, /^pad-make-script: error: .* changed while it was read\npad-make-script: hint: /);
      const pad = shop.add('useless.pad', script);
      assert.equal(run(['sh', pad, 'touch', inShop('ran')]).code, 125);
      assert.ok(!shop.left().includes('ran'));
    });
  }

  it('is reported when it becomes a pipe, without waiting', async () => {
    const box = shop.folder('box');
    // The script fills the pipe with the first one as long as nobody reads it.
    writeFileSync(join(box, 'a'), Buffer.alloc(SIZE));
    writeFileSync(join(box, 'b'), 'x');
    const { code, stderr } = await makeWhile(box, () => {
      rmSync(join(box, 'b'));
      run(['mkfifo', join(box, 'b')]);
    });
    assert.equal(code, 4, stderr);
    assert.match(stderr, /^pad-make-script: error: .*\/box\/b changed while it was read\n/);
  });

  it('is accepted when the change has no effect', async () => {
    const path = shop.add('data', Buffer.alloc(SIZE));
    const { code, script, stderr } = await makeWhile(path, () => {});
    assert.deepEqual([code, stderr], [0, '']);
    assert.equal(run(['sh', shop.add('useful.pad', script), 'true']).code, 0);
  });
});

describe('pad-make-script', () => {
  it('does not keep a payload in memory', () => {
    const size = 150_000_000;
    truncateSync(shop.add('huge', ''), size);
    const preload = shop.add('preload.cjs', "process.on('exit', () => console.error(process.resourceUsage().maxRSS));");
    const words = ['sh', '-c', '"$1" -r "$2" "$3" huge > script', 'sh', process.execPath, preload, MAKER];
    const { code, stderr } = run(words, { cwd: shop.path });
    assert.equal(code, 0);
    assert.ok(Number(stderr) > 10_000 && Number(stderr) * 1024 < size, `${stderr} kB for a payload of ${size} bytes`);
    assert.ok(statSync(inShop('script')).size > size);
    for (const name of ['huge', 'script']) rmSync(inShop(name));
  });

  it('prints its version and its help', () => {
    assert.deepEqual(make(['--version']), { code: 0, signal: null, stdout: `${version}\n`, stderr: '' });
    const { code, stdout } = make(['--help']);
    assert.equal(code, 0);
    for (const line of stdout.split('\n')) assert.ok(line.length <= 120, line);
    for (const word of ['%payload', '--name', 'Exit codes:', 'Examples:']) assert.ok(stdout.includes(word), word);
  });

  it('writes into the script what sha256sum and wc print', () => {
    const bytes = randomBytes(1000);
    shop.add('data', bytes);
    const { stdout } = make(['data']);
    assert.ok(stdout.includes(`pad_sha256='${createHash('sha256').update(bytes).digest('hex')}'\n`));
    assert.match(stdout, /^pad_bytes='1000'$/m);
    assert.ok(stdout.startsWith('#!/bin/sh\n{ '));
    for (const line of stdout.split('\n')) assert.match(line, /^[\x20-\x7e]*$/);
  });

  it('runs from a checkout, and as a single file', () => {
    shop.add('data', 'x');
    const env = { ...process.env, PATH: `${join(process.execPath, '..')}:${process.env.PATH}` };
    const launched = run([join(project, 'bin', 'pad-make-script'), 'data'], { cwd: shop.path, env });
    assert.deepEqual([launched.code, launched.stdout], [0, make(['data']).stdout]);
    copyFileSync(MAKER, inShop('alone'));
    assert.equal(run([process.execPath, inShop('alone'), 'data'], { cwd: shop.path, env: {} }).stdout, launched.stdout);
  });
});
