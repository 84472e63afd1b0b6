// bin/webjobctl lets Node keep the compiled program, but only where no other user can replace it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';

const project = join(import.meta.dirname, '..', '..');
const isRoot = process.geteuid?.() === 0;

describe('bin/webjobctl', () => {
  let root: string;
  let compiled: string;
  before(() => {
    root = mkdtempSync(join(tmpdir(), 'webjob-compiled-'));
    for (const file of ['bin/webjobctl', 'bin/package.json', 'dist/webjobctl', 'dist/package.json'])
      cpSync(join(project, file), join(root, file));
    compiled = join(root, 'dist', '.compiled');
  });
  after(() => rmSync(root, { recursive: true }));
  beforeEach(() => {
    rmSync(compiled, { recursive: true, force: true });
    mkdirSync(compiled);
    chmodSync(compiled, 0o755);
  });

  function run(umask = 0o022): void {
    const command = `umask ${umask.toString(8)}; exec "$0" "$@"`;
    const args = ['-c', command, process.execPath, join(root, 'bin', 'webjobctl'), '--version'];
    const { status, stdout, stderr } = spawnSync('sh', args, { encoding: 'utf8' });
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(stdout, /^\d+\.\d+\.\d+/);
  }

  it('keeps the compiled program, and starts from it', () => {
    run();
    const [version = ''] = readdirSync(compiled);
    const kept = readdirSync(join(compiled, version)).map((name) => join(compiled, version, name));
    assert.equal(kept.length, 1);
    const { ino, size } = lstatSync(kept[0] ?? '');
    assert.ok(size > 10_000, String(size));
    run();
    assert.equal(lstatSync(kept[0] ?? '').ino, ino);
  });

  it('starts without what it kept when that is damaged', () => {
    run();
    const [version = ''] = readdirSync(compiled);
    const [name = ''] = readdirSync(join(compiled, version));
    const kept = join(compiled, version, name);
    const { size } = lstatSync(kept);
    truncateSync(kept, size >> 1);
    run();
    const bytes = readFileSync(kept);
    bytes.writeUInt8(255 - bytes.readUInt8(bytes.length >> 1), bytes.length >> 1);
    writeFileSync(kept, bytes);
    run();
  });

  it('makes directories that only its user can read and write, whatever the umask', () => {
    run(0);
    const [version = ''] = readdirSync(compiled);
    assert.equal(lstatSync(join(compiled, version)).mode & 0o777, 0o700);
  });

  for (const mode of [0o777, 0o775, 0o1777])
    it(`keeps nothing in a directory with the mode ${mode.toString(8)}`, () => {
      chmodSync(compiled, mode);
      run();
      assert.deepEqual(readdirSync(compiled), []);
    });

  it('keeps nothing in a directory of another user', { skip: !isRoot && 'needs root' }, () => {
    chownSync(compiled, 65534, 65534);
    run();
    assert.deepEqual(readdirSync(compiled), []);
  });

  it('keeps nothing behind a link', () => {
    const other = join(root, 'other');
    mkdirSync(other);
    rmSync(compiled, { recursive: true });
    symlinkSync(other, compiled);
    run();
    assert.deepEqual(readdirSync(other), []);
  });

  it('starts without the directory, and does not create it', () => {
    rmSync(compiled, { recursive: true });
    run();
    assert.deepEqual(readdirSync(join(root, 'dist')).sort(), ['package.json', 'webjobctl']);
  });

  it('explains how to build the program when it is missing', () => {
    rmSync(join(root, 'dist', 'webjobctl'));
    const { status, stderr } = spawnSync(process.execPath, [join(root, 'bin', 'webjobctl')], { encoding: 'utf8' });
    assert.equal(status, 4);
    assert.match(stderr, /^webjobctl: error: dist\/webjobctl is missing\nwebjobctl: hint: .*npm run build\n$/);
  });
});
