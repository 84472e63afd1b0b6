// npm run test:faults on a small project: each outcome of a fault, the selection of faults, and
// that the project itself is not changed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect } from '../support/bare.ts';
import { findMountObstacle } from '../support/locker-tmpfs.ts';
import { readFiles } from '../support/tree.ts';

const RUNNER = join(import.meta.dirname, '..', '..', 'scripts', 'faults.ts');

/** Fails for what cannot be parsed, like a bundler. */
const BUILD = `import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
stripTypeScriptTypes(readFileSync('src/add.ts', 'utf8'));
`;
const ADD = `export function add(a: number, b: number): number {
  if (a === 0) return b;
  return a + b;
}
`;
const testOf = (body: string): string => `import assert from 'node:assert/strict';
import { it } from 'node:test';
import { add } from '../src/add.ts';
${body}`;
const FILES: Record<string, string> = {
  'package.json': '{ "type": "module" }\n',
  'scripts/build.ts': BUILD,
  'src/add.ts': ADD,
  'src/other.ts': 'export const other = 1;\n',
  'test/add.test.ts': testOf("it('adds', () => assert.equal(add(2, 3), 5));\n"),
  'test/zero.test.ts': testOf("it('adds to nothing', () => assert.equal(add(0, 3), 3));\n"),
  'test/disk.test.ts': testOf(`import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
it('adds beside a disk and a file that cannot be changed', () => {
  const file = tmpdir() + '/immutable';
  writeFileSync(file, '');
  spawnSync('chattr', ['+i', file]);
  const disk = mkdtempSync(tmpdir() + '/disk-');
  spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', disk]);
  assert.equal(add(2, 3), 5);
  spawnSync('umount', [disk]);
  rmdirSync(disk);
  spawnSync('chattr', ['-i', file]);
  rmSync(file);
});
`),
  'test/broken.test.ts': testOf("it('is wrong', () => assert.equal(add(1, 1), 3));\n"),
};

const entry = (before: string, after: string, ...tests: string[]) => ({
  place: 'src/add.ts',
  before,
  after,
  why: 'a sum is wrong',
  tests: tests.map((test) => `test/${test}.test.ts`),
});
const NOTICED = entry('return a + b;', 'return a - b;', 'zero', 'add');
const UNNOTICED = entry('  if (a === 0) return b;\n', '', 'add', 'zero');
const HUNG = entry('return a + b;', 'for (;;);', 'add');
const HUNG_BESIDE_DISK = entry('return a + b;', 'for (;;);', 'disk');
const STALE = entry('return a * b;', 'return a;', 'add');
const TWICE = entry('return', 'throw', 'add');
const NO_TEST = entry('return a + b;', 'return a;', 'gone');
const UNTESTED = entry('return a + b;', 'return b;', 'broken');
const NOT_BUILT = entry('return a + b;', 'return a +;', 'add');

interface Line {
  outcome: string;
  line: number | null;
  by: string | null;
}

describe('npm run test:faults', () => {
  let root: string;
  /** Its temporary files, where the test can see that none is left. */
  let temporary: string;
  before(() => {
    root = mkdtempSync(join(tmpdir(), 'faults-project-'));
    temporary = mkdtempSync(join(tmpdir(), 'faults-tmp-'));
    for (const [path, content] of Object.entries(FILES)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), content);
    }
  });
  after(() => {
    for (const folder of [root, temporary]) rmSync(folder, { recursive: true, force: true });
  });

  const list = (...faults: unknown[]): void => writeFileSync(join(root, 'test', 'faults.json'), JSON.stringify(faults));

  function start(...args: string[]) {
    return spawn(process.execPath, [RUNNER, ...args], { cwd: root, env: { ...process.env, TMPDIR: temporary } });
  }

  async function run(...args: string[]) {
    const earlier = readFiles(root);
    const { stdout, stderr, exitCode } = await collect(start(...args), 120);
    assert.deepEqual(readFiles(root), earlier, 'the project was changed');
    return { text: stdout.toString(), stderr, exitCode };
  }

  async function outcomesOf(...args: string[]): Promise<[outcome: string, line: number | null, by: string | null][]> {
    const { text } = await run('--json', ...args);
    const results = text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Line);
    return results.map(({ outcome, line, by }) => [outcome, line ?? null, by ?? null]);
  }

  it('tells faults that are noticed, and by which test, from unnoticed and untried ones', async () => {
    list(NOTICED, UNNOTICED, STALE, TWICE, NO_TEST, UNTESTED, NOT_BUILT);
    assert.deepEqual(await outcomesOf('--jobs', '2'), [
      ['noticed', 3, 'test/add.test.ts: adds'],
      ['unnoticed', 2, null],
      ['stale', null, 'the text is not in the file'],
      ['stale', 2, 'the text is 2 times in the file'],
      ['stale', 3, 'test/gone.test.ts does not exist'],
      ['untested', 3, 'test/broken.test.ts fails without it'],
      ['did-not-build', 3, null],
    ]);
  });

  const mounts = (): string[] =>
    existsSync('/proc/mounts')
      ? readFileSync('/proc/mounts', 'utf8')
          .split('\n')
          .filter((line) => line.includes(temporary))
      : [];

  it('counts a test that hangs as one that noticed the fault', async () => {
    list(HUNG);
    const { text, exitCode } = await run('--limit', '8');
    assert.match(
      text,
      /^noticed +[\d.]+ s {2}src\/add\.ts:3 {2}return a \+ b; → for \(;;\); {2}test\/add\S+: still running after 8 s\n$/,
    );
    assert.equal(exitCode, 0);
  });

  it('exits with 0 only if all faults are noticed, and with 2 for a wrong command line', async () => {
    list(NOTICED);
    assert.equal((await run()).exitCode, 0);
    list(UNNOTICED);
    const { text, stderr, exitCode } = await run();
    assert.equal(exitCode, 1);
    assert.match(text, /^unnoticed /);
    assert.match(stderr, /^faults: 0 noticed, 1 unnoticed\n/m);
    for (const args of [['--jobs', '0'], ['--since', 'no-such-commit'], ['--lines'], ['src/gone.ts']])
      assert.equal((await run(...args)).exitCode, 2, args.join(' '));
  });

  it('tries only the faults of files that are named or that changed', async () => {
    list(STALE, { ...STALE, place: 'src/other.ts' });
    const placesOf = async (...args: string[]): Promise<string[]> =>
      [...(await run(...args)).text.matchAll(/src\/\w+\.ts/g)].map(([place]) => place);
    const git = (...args: string[]): void => {
      const words = ['-c', 'user.name=t', '-c', 'user.email=t@localhost', ...args];
      const { status, stderr } = spawnSync('git', words, { cwd: root });
      assert.equal(status, 0, stderr.toString());
    };
    for (const args of [[], ['src']]) assert.deepEqual(await placesOf(...args), ['src/add.ts', 'src/other.ts']);
    assert.deepEqual(await placesOf('src/other.ts'), ['src/other.ts']);
    git('init', '-q');
    try {
      git('add', 'src');
      git('commit', '-qm', 'Add');
      assert.deepEqual(await placesOf('--since', 'HEAD'), []);
      writeFileSync(join(root, 'src', 'other.ts'), '// more\n');
      assert.deepEqual(await placesOf('--since', 'HEAD'), ['src/other.ts']);
      assert.deepEqual(await placesOf('--since', 'HEAD', 'src/add.ts'), []);
    } finally {
      rmSync(join(root, '.git'), { recursive: true });
    }
  });

  it('leaves nothing behind when it is interrupted, not even mounts of its tests', async () => {
    list(HUNG_BESIDE_DISK);
    const obstacle = findMountObstacle();
    const child = start();
    const ended = collect(child, 60);
    const isAtWork = (): boolean =>
      readdirSync(temporary).some((name) => {
        const path = join(temporary, name, 'p', 'src', 'add.ts');
        const isBroken = existsSync(path) && readFileSync(path, 'utf8') !== ADD;
        return isBroken && (obstacle !== undefined || mounts().length > 0);
      });
    for (let tries = 0; !isAtWork(); tries++) {
      assert.ok(tries < 300, 'it never began');
      await sleep(100);
    }
    child.kill('SIGINT');
    assert.equal((await ended).exitCode, 130);
    assert.deepEqual(mounts(), []);
    assert.deepEqual(readdirSync(temporary), []);
    assert.equal(readFileSync(join(root, 'src', 'add.ts'), 'utf8'), ADD);
  });
});

describe('test/faults.json', () => {
  it('describes each fault once: its place, the change, its tests and the effect', () => {
    const faults = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'faults.json'), 'utf8')) as Record<
      string,
      unknown
    >[];
    assert.ok(faults.length > 0);
    for (const fault of faults) {
      assert.deepEqual(Object.keys(fault), ['place', 'before', 'after', 'tests', 'why'], JSON.stringify(fault));
      for (const name of ['place', 'before', 'why']) assert.ok(fault[name], `${name} of ${JSON.stringify(fault)}`);
      assert.ok(Array.isArray(fault.tests) && fault.tests.length > 0, JSON.stringify(fault));
    }
    const keys = faults.map(({ place, before, after }) => JSON.stringify([place, before, after]));
    assert.deepEqual(keys, [...new Set(keys)]);
  });
});
