// The layout agrees with docs/architecture.md: the import rules of biome.json are those of the page
// and of the code, the built programs are as fast as a request requires, the list of directories is
// correct, and no package names its registry.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { type Folder, makeFolder } from '../support/cgi-scripts.ts';
import { findWebUser } from '../support/tree.ts';

const root = join(import.meta.dirname, '..', '..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/**
 * Directories of code except tests, with the imports that the page lists: directories, files of
 * cgi/, and packages.
 */
function listedImports(): Map<string, Set<string>> {
  const block = /^## Import rules\n.*?^```\n(.*?)^```$/ms.exec(read('docs/architecture.md'))?.[1] ?? '';
  const rows = block.replace(/,\n +/g, ', ').trim().split('\n');
  return new Map(
    rows.map((row) => {
      const [folder = '', names = ''] = row.split(/ +→ /);
      return [folder, new Set(names === 'nothing' ? [] : names.split(', '))];
    }),
  );
}

/** The packages of this repository, by their directories. */
const PACKAGES: Record<string, string> = {
  'cgi/locker': 'webjob-locker',
  'cgi/protocol': 'webjob-protocol',
  'cgi/node-cgi-compat': 'node-cgi-compat',
  conf: 'webjob-conf',
};

function foundImports(): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const folder = relative(root, entry.parentPath);
    if (!entry.isFile() || !/\.ts$/.test(entry.name) || /^(?:test|findings|node_modules|dist|\.)/.test(folder))
      continue;
    const imports = found.get(folder) ?? new Set();
    found.set(folder, imports);
    for (const name of importsOf(read(join(folder, entry.name)))) {
      const place = placeOf(folder, name);
      if (place !== undefined && place !== folder) imports.add(place);
    }
  }
  return found;
}

function importsOf(text: string): string[] {
  const pattern = /^(?:import|export) (?:[^;']*? from )?'([^']+)';|\bimport\('([^']+)'\)/gm;
  return [...text.matchAll(pattern)].map(([, whole, lazy]) => whole ?? lazy ?? '');
}

/**
 * A directory, a file of cgi/ that is imported elsewhere, or a package; undefined for a module of
 * Node.
 */
function placeOf(folder: string, name: string): string | undefined {
  if (name.startsWith('node:')) return undefined;
  const [first] = name.split('/');
  if (!name.startsWith('.')) return Object.keys(PACKAGES).find((place) => PACKAGES[place] === first) ?? name;
  const path = join(folder, name);
  return dirname(path) === 'cgi' && folder !== 'cgi' ? path : dirname(path);
}

const names = (imports: ReadonlyMap<string, ReadonlySet<string>>): Record<string, string[]> =>
  Object.fromEntries([...imports].map(([folder, set]): [string, string[]] => [folder, [...set].sort()]).sort());

/** The parts of biome's report that matter here. */
interface Diagnostic {
  category: string;
  message: string;
  location: { path: string; start: { line: number } };
}

describe('the import rules in docs/architecture.md', () => {
  it('match the imports in the sources', () => {
    assert.deepEqual(names(foundImports()), names(listedImports()));
  });

  it('have no cycle of directories', () => {
    const listed = listedImports();
    const folderOf = (name: string): string => (name.endsWith('.ts') ? dirname(name) : name);
    const visit = (folder: string, path: readonly string[]): void => {
      assert.ok(!path.includes(folder), [...path, folder].join(' → '));
      for (const name of listed.get(folder) ?? []) visit(folderOf(name), [...path, folder]);
    };
    for (const folder of listed.keys()) visit(folder, []);
  });

  describe('the import rules in biome.json', () => {
    const MODULES: Record<string, string[]> = {
      'cgi/protocol': ['node:fs', 'node:path'],
      'cgi/locker': ['node:http', 'node:child_process'],
      conf: ['node:path'],
      cgi: [
        ...['node:stream', 'node:stream/promises', 'node:fs/promises', 'node:readline', 'node:http', 'node:https'],
        ...['node:child_process', 'node:net', 'node:crypto'],
      ],
    };
    let folder: Folder;
    let found: Diagnostic[];
    const offenders = new Map<string, { name: string; isListed: boolean }[]>();

    before(() => {
      folder = makeFolder();
      for (const name of ['biome.json', '.gitignore']) copyFileSync(join(root, name), join(folder.path, name));
      const listed = listedImports();
      const places = [
        ...new Set(['test', 'cgi/handle.ts', ...listed.keys(), ...[...listed.values()].flatMap((set) => [...set])]),
      ];
      for (const [from, allowed] of listed) {
        const imports = places
          .filter((place) => place !== from && (from !== 'cgi' || !place.startsWith('cgi/handle')))
          .filter((place) => from !== 'cgi' || !place.endsWith('.ts'))
          .map((place) => ({ name: specifierOf(from, place, listed), isListed: allowed.has(place) }));
        for (const name of MODULES[from] ?? []) imports.push({ name, isListed: false });
        imports.push({ name: './innocent.ts', isListed: true });
        offenders.set(join(from, 'offender.ts'), imports);
        put(join(from, 'offender.ts'), imports.map(({ name }) => `import '${name}';\n`).join(''));
        put(join(from, 'innocent.ts'), 'export {};\n');
      }
      found = lint(folder.path);
    });
    after(() => folder.remove());

    function specifierOf(from: string, place: string, listed: ReadonlyMap<string, unknown>): string {
      if (PACKAGES[place] !== undefined) return PACKAGES[place];
      const path = relative(from, place).replace(/^(?!\.)/, './');
      if (place.endsWith('.ts')) return path;
      return place === 'test' || listed.has(place) ? `${path}/innocent.ts` : place;
    }

    function put(path: string, text: string): void {
      mkdirSync(join(folder.path, dirname(path)), { recursive: true });
      writeFileSync(join(folder.path, path), text);
    }

    it('match those on the page: they stop everything else', () => {
      assert.ok(offenders.size > 20, `cannot read the page: ${[...offenders.keys()]}`);
      for (const [file, imports] of offenders) {
        const lines = found
          .filter(({ location, category }) => location.path === file && category === 'lint/style/noRestrictedImports')
          .map(({ location }) => location.start.line);
        const stopped = imports.filter((_, index) => lines.includes(index + 1)).map(({ name }) => name);
        assert.deepEqual(
          stopped,
          imports.flatMap(({ name, isListed }) => (isListed ? [] : name)),
          file,
        );
      }
    });
  });
});

function lint(folder: string): Diagnostic[] {
  const biome = join(root, 'node_modules', '.bin', 'biome');
  const result = spawnSync(biome, ['lint', '--reporter=json', '--max-diagnostics=none', '.'], { cwd: folder });
  assert.equal(result.status, 1, result.stderr.toString());
  const { diagnostics } = JSON.parse(result.stdout.toString());
  return diagnostics;
}

describe('the subcommands of webjobctl', () => {
  it('are in files of their names in admin/commands, which has no other file', () => {
    const program = join(root, 'dist', 'webjobctl');
    const { stdout } = spawnSync(process.execPath, [program, 'completion', '--json'], { encoding: 'utf8' });
    const lines = stdout.trimEnd().split('\n');
    const commands = lines.map((line) => (JSON.parse(line) as { name: string }).name).filter(Boolean);
    const expected = commands.map((name) => `${name.replaceAll(' ', '-')}.ts`);
    assert.ok(expected.includes('client-add.ts') && expected.includes('jobs.ts'), stdout);
    assert.deepEqual(readdirSync(join(root, 'admin/commands')).sort(), expected.sort());
  });
});

/** A real request with a preload that notes what the script loads and touches. */
const PRELOAD = `'use strict';
const Module = require('node:module');
const { writeFileSync } = require('node:fs');
const noted = [];
const load = Module._load;
Module._load = function (name, ...rest) {
  noted.push(name);
  return load.call(this, name, ...rest);
};
for (const [object, name] of [[globalThis, 'Intl'], [process, 'stdin'], [process, 'stdout'], [process, 'stderr']]) {
  const { get, value } = Object.getOwnPropertyDescriptor(object, name);
  Object.defineProperty(object, name, {
    get() {
      noted.push(name);
      return get ? get.call(object) : value;
    },
  });
}
const before = new Set(process.moduleLoadList);
process.on('exit', () => {
  const internals = process.moduleLoadList.filter((name) => !before.has(name));
  writeFileSync(process.env.NOTES, JSON.stringify({ noted, internals }));
});
`;

describe('dist/nph-webjob.cgi', () => {
  const text = (): string => read('dist/nph-webjob.cgi');
  let site: Site;
  before(() => {
    site = makeSite();
  });
  after(() => site.remove());

  it('is one executable CommonJS file, with readable stack traces', () => {
    assert.equal(statSync(join(root, 'dist/nph-webjob.cgi')).mode & 0o111, 0o111);
    for (const name of ['handleRequest', 'appendCustody', 'parseKeyValue'])
      assert.ok(text().includes(`function ${name}(`), name);
    assert.ok(text().split('\n').length > 200);
    assert.match(text(), /^#!\/usr\/bin\/env node\n'use strict';/);
    assertSelfContained(text());
  });

  it('names nothing that loads Intl', () => {
    assert.doesNotMatch(text(), /\bIntl\b|toLocale|localeCompare|\.normalize\(/);
  });

  const query = 'VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=client1&FILENAME=host.sh';
  const put = `${query}&RUNTYPE=snapshot&STDOUT_LENGTH=2&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  for (const [method, target, body, custody, dearOnes] of [
    ['GET', query, '', 'Y', []],
    ['PUT', put, 'ab', 'N', []],
    // Node's crypto loads its stream module.
    ['PUT', put, 'ab', 'Y', ['crypto', 'stream']],
  ] as const) {
    it(`loads only what it needs on a ${method} with EnableCustody=${custody}`, async () => {
      configure(site, { EnableCustody: custody, PutNameFormat: `custody_${custody}` });
      const preload = join(site.root, 'preload.cjs');
      const notes = join(site.incoming, `${method}.json`);
      writeFileSync(preload, PRELOAD);
      const head = `${method} /webjob/nph-webjob.cgi?${target} HTTP/1.1\r\nAuthorization: Basic ${btoa('client1:foo')}\r\n`;
      const raw = Buffer.from(`${head}Content-Length: ${body.length}\r\n\r\n${body}`);
      const environment = Object.entries({ NODE_OPTIONS: `--require=${preload}`, NOTES: notes });
      const answer = await runBare(raw, { settingsFile: site.propertiesFile, user: findWebUser(), environment });
      assert.match(answer.stdout.toString(), /^HTTP\/1\.1 200 OK\r\n/, answer.stderr);
      const { noted, internals } = JSON.parse(readFileSync(notes, 'utf8')) as Record<string, string[]>;
      const loaded = noted?.filter((name) => !name.endsWith('/nph-webjob.cgi')) ?? [];
      assert.ok(loaded.includes('node:fs'), `the preload noted only ${loaded}`);
      assert.deepEqual(
        [...new Set(loaded)].filter((name) => !['node:fs', 'node:path'].includes(name)),
        [],
      );
      const dear = /^NativeModule (child_process|net|crypto|https?|tls|stream|tty|readline|dns)$/;
      assert.deepEqual(internals?.flatMap((name) => dear.exec(name)?.[1] ?? []).sort(), dearOnes);
    });
  }
});

describe('dist/webjob', () => {
  it('is one executable CommonJS file that runs alone in any directory', () => {
    const text = read('dist/webjob');
    assert.match(text, /^#!\/usr\/bin\/env node\n'use strict';/);
    assertSelfContained(text);
    const folder = makeFolder();
    try {
      const copy = folder.add('webjob', text);
      const result = spawnSync(process.execPath, [copy, '--version'], { cwd: folder.path, env: {} });
      assert.equal(result.status, 0, result.stderr.toString());
      const { version } = JSON.parse(read('package.json'));
      assert.ok(`${result.stdout}${result.stderr}`.includes(version));
    } finally {
      folder.remove();
    }
  });
});

/**
 * No module beside it: only Node's built-in ones, by their full names where the program is ours.
 */
function assertSelfContained(text: string): void {
  assert.doesNotMatch(text, /^(?:import|export)\b/m);
  const required = [...text.matchAll(/\b(?:require|import)\(["']([^"']+)["']\)/g)].map(([, name = '']) => name);
  assert.ok(required.includes('node:fs'));
  assert.deepEqual(
    required.filter((name) => !name.startsWith('node:') || !isBuiltin(name)),
    [],
  );
}

describe('the layout in docs/architecture.md', () => {
  /**
   * `cgi/`, `cgi/main.ts`, `cgi/locker/`, ... as the block lists them; several names on a line are
   * separated by two spaces.
   */
  function listedPaths(): string[] {
    const block = /^## Layout\n+```\n(.*?)^```$/ms.exec(read('docs/architecture.md'))?.[1] ?? '';
    let parent = '';
    return block.split('\n').flatMap((line) => {
      const [, indent, names] = /^( *)([\w.-]+\/?(?: {2}[\w-]+\.[\w.]+)*)(?: |$)/.exec(line) ?? [];
      if (names === undefined) return [];
      if (indent === '') parent = names;
      return indent === '' ? [names] : names.split('  ').map((name) => `${parent}${name}`);
    });
  }

  it('lists only files and directories that exist', () => {
    const listed = listedPaths();
    assert.ok(listed.includes('cgi/') && listed.includes('cgi/put.ts'), `cannot read the list: ${listed}`);
    const missing = listed.filter((path) => path !== 'dist/' && !existsSync(join(root, path)));
    assert.deepEqual(missing, [], `take these out of the list: ${missing.join(' ')}`);
  });

  it('lists every directory, and everything in cgi/', () => {
    const listed = listedPaths();
    const folders = readdirSync(root, { withFileTypes: true }).filter(
      (entry) => entry.isDirectory() && !/^\.|^node_modules$/.test(entry.name),
    );
    const inCgi = readdirSync(join(root, 'cgi'), { withFileTypes: true });
    const expected = [
      ...folders.map(({ name }) => `${name}/`),
      ...inCgi.map((entry) => `cgi/${entry.name}${entry.isDirectory() ? '/' : ''}`),
    ];
    const absent = expected.filter((path) => !listed.includes(path));
    assert.deepEqual(absent, [], `add to the list, each with what it does: ${absent.join(' ')}`);
  });
});

describe('package-lock.json', () => {
  it('names packages without their registry', () => {
    const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> };
    const resolved = Object.values(packages).flatMap((entry) => entry.resolved ?? []);
    assert.ok(Object.keys(packages).length > 10);
    assert.deepEqual(
      resolved.filter((place) => !existsSync(join(root, place))),
      [],
    );
  });
});
