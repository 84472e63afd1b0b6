// How the tests themselves are run: a failed setup is reported first, exported variables do not
// reach the tests, and the lists of files are correct.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { findFastFiles, findStaleNames, isSlow, reachesOutside } from '../../scripts/test-files.ts';
import { type Folder, makeFolder, until } from '../support/cgi-scripts.ts';
import { runProgram, WEBJOBCTL } from '../support/program-runs.ts';

const script = join(import.meta.dirname, '..', '..', 'scripts', 'test.ts');

const FAILING = `
import { after, before, describe, it } from 'node:test';
describe('first', () => {
  before(() => { throw new Error('no such server'); });
  after(() => { throw new Error('ENOENT of the clean-up'); });
  it('one', () => {});
  describe('deeper', () => { it('two', () => {}); it('three', () => {}); });
});
describe('second', async () => { throw new Error('no such site'); });
describe('third', () => {
  it('passes', () => {});
  it('fails', () => { throw new Error('a plain failure'); });
  it('is skipped', { skip: 'here' }, () => {});
});
`;

const BROKEN = `
import { it } from 'node:test';
it('is never reached', () => {});
throw new Error('no such certificate');
`;

const SEES = `
import assert from 'node:assert/strict';
import { accessSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
it('sees a world of its own', () => {
  const exported = Object.keys(process.env).filter((name) => /^(TZ|LANG|LC_|XDG_|NODE_OPTIONS|NO_COLOR|FORCE_COLOR|WEBJOB_(?!TEST_))/.test(name));
  assert.deepEqual(exported, []);
  assert.equal(tmpdir(), '/tmp');
  assert.deepEqual(readdirSync(homedir()).filter((name) => name !== 'node'), []);
  assert.equal(statSync(homedir()).mode & 0o777, 0o755);
  const made = mkdtempSync(join(homedir(), 'x'));
  rmSync(made, { recursive: true });
  assert.equal(process.umask(), 0o022);
});
`;

const root = join(import.meta.dirname, '..', '..');
/** Starts a server and mounts a disk, prints that, and never ends. */
const ENDLESS = `
import { mkdtempSync, writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { startHttpd } from '${root}/scripts/httpd.ts';
import { makeSite } from '${root}/scripts/site.ts';
import { findMountObstacle, mountTmpfs } from '${root}/test/support/locker-tmpfs.ts';
it('never ends', async () => {
  const site = makeSite();
  const server = await startHttpd({ site, mpm: 'event' });
  const disk = mkdtempSync('/tmp/webjob-endless-');
  if (!findMountObstacle()) mountTmpfs(disk, 'size=64k');
  writeFileSync(process.env.WEBJOB_TEST_SAID, JSON.stringify({ pid: server.pid, root: site.root, disk }));
  await new Promise((resolve) => setTimeout(resolve, 600_000));
});
`;

let folder: Folder;
before(() => {
  folder = makeFolder();
});
after(() => folder.remove());

/** Runs a file as \`npm test FILE\` does, in a shell with that umask. */
function run(
  text: string,
  exported: Record<string, string> = {},
  umask = '022',
): { status: number | null; text: string } {
  const file = folder.add('given.test.ts', text, 0o644);
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env;
  const env = { ...inherited, ...exported };
  const words = ['-c', 'umask "$0"; exec "$@"', umask, process.execPath, script, file];
  const { status, stdout, stderr } = spawnSync('/bin/sh', words, { env, encoding: 'utf8', timeout: 120_000 });
  return { status, text: `${stdout}\n${stderr}` };
}

describe('a test run', () => {
  it('shows the setup that failed, and counts the tests that did not run because of it', () => {
    const { status, text } = run(FAILING);
    assert.equal(status, 1);
    const end = text.slice(text.indexOf('set-ups that failed:'));
    const at = (words: string): number => end.indexOf(words);
    assert.ok(at('no such server') > 0, text);
    assert.match(end, /no such server[\s\S]*?3 tests did not run because of it/);
    assert.ok(at('no such server') < at('no such site') && at('no such site') < at('tests that failed:'));
    assert.ok(at('tests that failed:') < at('a plain failure'));
    assert.doesNotMatch(text, /did not finish before its parent|ENOENT of the clean-up/);
    // The first output about it, before that about any other test.
    assert.match(text, /^[^✔▶]*no such server/);
    assert.match(text, /^1 passed, 6 failed, 1 skipped$/m);
  });

  it('shows why a file ended before its tests', () => {
    const { status, text } = run(BROKEN);
    assert.equal(status, 1);
    assert.match(text, /set-ups that failed:[\s\S]*no such certificate[\s\S]*processor times by file/);
    assert.match(text, /^0 passed, 1 failed, 0 skipped$/m);
  });

  for (const [name, exported, umask] of [
    ['a zone and languages', { TZ: 'Pacific/Chatham', LANG: 'tr_TR.UTF-8', LC_ALL: 'de_DE.UTF-8' }, '022'],
    [
      'a home that is not there',
      { HOME: '/proc/nonexistent', XDG_CONFIG_HOME: '/proc/nonexistent', XDG_RUNTIME_DIR: '/x' },
      '022',
    ],
    ['a home that cannot be written', { HOME: '/proc' }, '022'],
    ['colours', { FORCE_COLOR: '3' }, '022'],
    ['no colours, and options of Node', { NO_COLOR: '1', NODE_OPTIONS: '--no-deprecation' }, '022'],
    ['variables of the programs', { WEBJOB_PROPERTIES_FILE: '/nonexistent', WEBJOB_ANYTHING: 'x' }, '022'],
    ['another folder for temporary files', { TMPDIR: '/proc/nonexistent' }, '022'],
    ['a umask that closes all', {}, '077'],
    ['a umask that opens all', {}, '000'],
  ] as const) {
    it(`is not affected by ${name}`, () => {
      const { status, text } = run(SEES, exported, umask);
      assert.equal(status, 0, text);
      assert.match(text, /1 passed, 0 failed, 0 skipped/);
    });
  }

  for (const [signal, code] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    it(`ends the servers of its tests and unmounts their disks after ${signal}`, async () => {
      const said = join(folder.path, signal);
      const file = folder.add('endless.test.ts', ENDLESS, 0o644);
      const { NODE_TEST_CONTEXT: _, ...inherited } = process.env;
      const env = { ...inherited, WEBJOB_TEST_SAID: said };
      const child = spawn(process.execPath, [script, file], { env, stdio: 'ignore', detached: true });
      const ended = once(child, 'exit');
      await until(() => existsSync(said) && readFileSync(said, 'utf8').endsWith('}'), 'the server and the disk');
      const { pid, root, disk } = JSON.parse(readFileSync(said, 'utf8'));
      assert.ok(existsSync(`/proc/${pid}`));
      // As a terminal does: the tests get the signal too.
      process.kill(signal === 'SIGINT' ? -Number(child.pid) : Number(child.pid), signal);
      assert.deepEqual(await ended, [code, null]);
      await until(() => !existsSync(`/proc/${pid}`), 'the end of httpd');
      assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(disk), 'nothing is mounted');
      for (const left of [root, disk]) rmSync(left, { recursive: true });
    });
  }

  it('runs test files by their names, with and without their directories', () => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    for (const name of ['short-names', 'client/windows']) {
      const { status, stdout, stderr } = spawnSync(process.execPath, [script, name], { encoding: 'utf8', env });
      assert.equal(status, 0, stderr);
      assert.match(stdout, new RegExp(`test/\\S*${name}\\.test\\.ts\n`));
    }
  });

  it('refuses anything but a regular file, and explains the usage', () => {
    const { status, stderr } = spawnSync(process.execPath, [script, 'test/nothing.test.ts'], { encoding: 'utf8' });
    assert.equal(status, 2);
    assert.match(stderr, /^webjob: error: test\/nothing\.test\.ts is not a test file\nwebjob: hint: npm test conf\n$/);
  });
});

describe('a process that runs programs', () => {
  it('reports why it cannot run one, and the next program gets another process', async () => {
    const options = { cwd: '/nonexistent' };
    await assert.rejects(runProgram(WEBJOBCTL, ['--version'], options), /ended its host: 70: .*ENOENT/s);
    assert.equal((await runProgram(WEBJOBCTL, ['--version'])).code, 0);
  });
});

describe('scripts/test-files.ts', () => {
  it('lists no slow file that does not exist', () => assert.deepEqual(findStaleNames(), []));

  it('chooses for test:fast what needs no server, even indirectly', () => {
    const fast = findFastFiles();
    assert.ok(
      fast.includes('test/server/conf.test.ts') && fast.includes('test/server/protocol.test.ts'),
      fast.join(' '),
    );
    assert.deepEqual(
      fast.filter((file) => isSlow(file) || reachesOutside(file)),
      [],
    );
    // By an import, by an import of an import, by a program that is run, by a package.
    for (const name of [
      'deploy/apache',
      'client/run',
      'docs/start',
      'server/resident-httpd',
      'deploy/nodes',
      'webjobctl/report',
    ])
      assert.ok(reachesOutside(`test/${name}.test.ts`), name);
  });
});
