// The npm packages: packed, installed offline into an empty directory and run; and a release of
// them.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { buildNpmPackages } from '../../scripts/npm-packages.ts';
import { writeRelease } from '../../scripts/release.ts';
import { type Folder, makeFolder } from '../support/cgi-scripts.ts';

const root = join(import.meta.dirname, '..', '..');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

describe('npm run build:npm', () => {
  let folder: Folder;
  let place: string;
  before(() => {
    folder = makeFolder();
    place = join(folder.path, 'empty');
    mkdirSync(place);
    writeFileSync(join(place, 'package.json'), '{ "private": true }\n');
    const archives = buildNpmPackages(folder.path);
    run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', ...archives]);
  });
  after(() => folder.remove());

  function run(program: string, words: readonly string[]): string {
    const { status, stdout, stderr } = spawnSync(program, words, {
      cwd: place,
      encoding: 'utf8',
      env: { PATH: process.env.PATH, HOME: place, npm_config_cache: join(folder.path, 'cache') },
    });
    assert.equal(status, 0, `${program} ${words.join(' ')}: ${stdout}${stderr}`);
    return stdout + stderr;
  }

  it('builds a client package that npx runs', () => {
    assert.match(
      run('npx', ['--offline', 'webjob', '--version']),
      new RegExp(`^webjob ${version.replaceAll('.', '\\.')}`),
    );
    for (const program of ['webjob-sign', 'pad-make-script'])
      assert.ok(run('npx', ['--offline', program, '--version']).includes(version), program);
  });

  it('builds a client package with its manuals and no dependencies', () => {
    const installed = join(place, 'node_modules/webjob');
    assert.match(readFileSync(join(installed, 'man/webjob.1'), 'utf8'), /^\.Dt WEBJOB 1$/m);
    const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
    assert.equal(dependencies, undefined);
    assert.ok(!existsSync(join(place, 'node_modules/commander')));
  });

  it('builds node-cgi-compat as JavaScript', () => {
    writeFileSync(
      join(place, 'nph-hello.mjs'),
      `import { serveScript } from 'node-cgi-compat';
import 'node-cgi-compat/host';
import 'node-cgi-compat/responder';
serveScript(() => ({ status: 200, reason: 'OK', headers: [], contentLength: 0 }), { env: process.env, style: 'nph' });
`,
    );
    const { stdout, stderr } = spawnSync(process.execPath, ['nph-hello.mjs'], {
      cwd: place,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, REQUEST_METHOD: 'GET' },
    });
    assert.match(stdout, /^HTTP\/1\.1 200 OK\r\n/, stderr);
  });

  it('builds node-cgi-compat with types that a strict compiler accepts and that refuse misuse', () => {
    mkdirSync(join(place, 'node_modules/@types'), { recursive: true });
    for (const name of ['@types/node', 'undici-types'])
      symlinkSync(join(root, 'node_modules', name), join(place, 'node_modules', name));
    const compile = (style: string): ReturnType<typeof spawnSync> => {
      writeFileSync(
        join(place, 'script.mts'),
        `import { type CgiRequest, serveScript } from 'node-cgi-compat';
import { createCgiHost } from 'node-cgi-compat/host';
const handle = ({ query }: CgiRequest) => ({ status: 200, reason: query, headers: [], contentLength: 0 });
serveScript(handle, { env: process.env, style: '${style}' });
createCgiHost({ scriptName: '/a', scriptFilename: '/b' });
`,
      );
      const words = ['--noEmit', '--strict', '--module', 'nodenext', '--types', 'node', 'script.mts'];
      return spawnSync(join(root, 'node_modules/.bin/tsc'), words, { cwd: place, encoding: 'utf8' });
    };
    const good = compile('nph');
    assert.equal(good.status, 0, String(good.stdout));
    assert.match(String(compile('other').stdout), /TS2322/);
  });
});

const obstacle =
  (!existsSync(join(root, '.git')) && 'no git here') ||
  (spawnSync('dpkg-deb', ['--version']).status !== 0 && 'dpkg-deb is missing');

describe('npm run release', { skip: obstacle }, () => {
  let folder: Folder;
  before(() => {
    folder = makeFolder();
  });
  after(() => folder.remove());

  it('lists its files with checksums for sha256sum, and a signature for openssl', () => {
    const key = join(folder.path, 'release.key');
    execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', key], { stdio: 'ignore' });
    const target = join(folder.path, 'release');
    const names = writeRelease(target, key);
    const archives = [`node-cgi-compat-${version}.tgz`, `webjob-${version}-source.tar.gz`, `webjob-${version}.tgz`];
    const deb = `webjob_${version.replace('-', '~')}_all.deb`;
    assert.deepEqual(names, ['SHA256SUMS', 'SHA256SUMS.sig', ...archives, deb, 'release.pub'].sort());
    // As docs/release.md tells recipients.
    const check = readFileSync(join(root, 'docs/release.md'), 'utf8').match(/^```sh check\n(.*?)^```$/ms)?.[1] ?? '';
    const verify = () => spawnSync('sh', ['-ec', check], { cwd: target, encoding: 'utf8' });
    const good = verify();
    assert.equal(good.status, 0, good.stdout + good.stderr);
    assert.match(good.stdout, /Signature Verified Successfully\n/);
    for (const name of [...archives, deb]) assert.ok(good.stdout.includes(`${name}: OK\n`), good.stdout);
    writeFileSync(join(target, `webjob-${version}.tgz`), 'other');
    assert.notEqual(verify().status, 0);
    writeFileSync(join(target, 'SHA256SUMS'), 'other');
    assert.notEqual(verify().status, 0);
  });
});
