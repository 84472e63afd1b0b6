// The house stands as docs/architecture.md has it: every wall of biome.json stops what it names, the built programs are what a request
// can afford, the list of rooms is true, and no package says which registry it came from.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { configure, makeSite, type Site } from '../scripts/site.ts';
import { runBare } from './bare.ts';
import { type Folder, makeFolder } from './cgi-scripts.ts';
import { findWebUser } from './tree.ts';

const root = join(import.meta.dirname, '..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

interface Wall {
  includes: string[];
  linter: {
    rules: { style?: { noRestrictedImports?: { options: { patterns: { group: string[]; message: string }[] } } } };
  };
}

/** A file in a room, what it may not import by the start of the reason given, and what it may. */
const WALLS: { file: string; forbidden: Record<string, string[]>; allowed: string[] }[] = [
  {
    file: 'cgi/protocol/offender.ts',
    forbidden: {
      'webjob-protocol imports nothing': ['node:fs', 'ini', 'webjob-conf', '../refusal.ts', '../locker/index.ts'],
    },
    allowed: ['./innocent.ts'],
  },
  {
    file: 'cgi/locker/offender.ts',
    forbidden: {
      'webjob-locker knows files and the protocol': [
        ...[
          'node:http',
          'node:child_process',
          'node-cgi-compat',
          'webjob-conf',
          '../settings.ts',
          '../../conf/index.ts',
        ],
      ],
    },
    allowed: ['./innocent.ts', 'webjob-protocol', 'node:fs', 'node:path', 'node:crypto'],
  },
  {
    file: 'cgi/node-cgi-compat/offender.ts',
    forbidden: {
      'node-cgi-compat knows nothing of WebJob': ['webjob-protocol', 'webjob-conf', 'ini', 'supertest', '../handle.ts'],
    },
    allowed: ['./innocent.ts', 'node:http', 'node:fs'],
  },
  {
    file: 'conf/offender.ts',
    forbidden: {
      'webjob-conf is the dialect': ['node:path', 'webjob-protocol', 'commander', '../cgi/settings.ts'],
    },
    allowed: ['./innocent.ts', 'node:fs'],
  },
  {
    file: 'cgi/offender.ts',
    forbidden: {
      'The request path is synchronous': [
        ...['node:stream', 'node:stream/promises', 'node:fs/promises', 'node:readline', 'node:http', 'node:https'],
      ],
      'These cost start-up time': ['node:child_process', 'node:net', 'node:crypto'],
      'The server imports': ['../client/main.ts', '../admin/main.ts', '../scripts/site.ts', 'commander', 'split2'],
      'Nothing imports from test/': ['../test/tree.ts'],
    },
    allowed: ['./innocent.ts', 'node-cgi-compat', 'webjob-protocol', 'webjob-conf', 'webjob-locker', 'node:fs'],
  },
  {
    file: 'client/offender.ts',
    forbidden: {
      'The client knows the wire': [
        ...['../cgi/handle.ts', '../admin/main.ts', '../scripts/site.ts', 'node-cgi-compat', 'webjob-locker'],
      ],
      'Nothing imports from test/': ['../test/tree.ts'],
    },
    allowed: ['./innocent.ts', 'webjob-protocol', 'webjob-conf', 'commander', 'node:http'],
  },
  {
    file: 'cli/offender.ts',
    forbidden: {
      'cli is what every command line stands on': ['webjob-protocol', '../admin/main.ts', '../cgi/settings.ts'],
    },
    allowed: ['./innocent.ts', 'node:fs', 'commander', 'webjob-locker', 'webjob-locker/durable'],
  },
  {
    file: 'archive/offender.ts',
    forbidden: {
      'archive is the format of packs': [
        ...['webjob-protocol', 'commander', '../admin/main.ts', '../cgi/settings.ts', '../evidence/events.ts'],
      ],
    },
    allowed: ['./innocent.ts', 'node:fs', 'split2', 'webjob-locker', '../cli/failure.ts'],
  },
  {
    file: 'ledger/offender.ts',
    forbidden: {
      'ledger reads the logs': [
        ...['commander', 'node-cgi-compat', '../admin/main.ts', '../cgi/settings.ts', '../cgi/handle.ts'],
        '../evidence/evidence.ts',
      ],
    },
    allowed: [
      ...['./innocent.ts', 'node:fs', 'webjob-locker', 'webjob-locker/durable', 'webjob-protocol'],
      ...['../archive/manifest.ts', '../cli/output.ts', '../cgi/controls.ts', '../cgi/tokens.ts'],
    ],
  },
  {
    file: 'evidence/offender.ts',
    forbidden: {
      'evidence reads the locker': ['commander', 'node-cgi-compat', '../admin/main.ts', '../cgi/settings.ts'],
    },
    allowed: [
      ...['./innocent.ts', 'node:fs', 'webjob-locker', 'webjob-locker/durable', 'webjob-protocol'],
      ...['../archive/manifest.ts', '../cli/failure.ts'],
    ],
  },
  {
    file: 'admin/offender.ts',
    forbidden: {
      "The operator's tool reads": ['../client/main.ts', '../scripts/site.ts', 'node-cgi-compat'],
      'Nothing imports from test/': ['../test/tree.ts'],
    },
    allowed: ['./innocent.ts', '../cgi/settings.ts', 'webjob-locker', 'webjob-protocol'],
  },
  ...['scripts', 'bench'].map((folder) => ({
    file: `${folder}/offender.ts`,
    forbidden: { 'Nothing imports from test/': ['../test/tree.ts'] },
    allowed: ['./innocent.ts', '../cgi/settings.ts', 'node:http'],
  })),
];

/** What biome reports, as far as it matters here. */
interface Diagnostic {
  category: string;
  message: string;
  location: { path: string; start: { line: number } };
}

describe('the walls in biome.json', () => {
  let folder: Folder;
  let found: Diagnostic[];

  before(() => {
    folder = makeFolder();
    for (const name of ['biome.json', '.gitignore']) copyFileSync(join(root, name), join(folder.path, name));
    for (const { file, forbidden, allowed } of WALLS) {
      const names = [...Object.values(forbidden).flat(), ...allowed];
      put(file, names.map((name) => `import '${name}';\n`).join(''));
      put(join(dirname(file), 'innocent.ts'), 'export {};\n');
    }
    found = lint(folder.path);
  });
  after(() => folder.remove());

  const foundIn = (file: string): Diagnostic[] => found.filter(({ location }) => location.path === file);

  function put(path: string, text: string): void {
    mkdirSync(join(folder.path, dirname(path)), { recursive: true });
    writeFileSync(join(folder.path, path), text);
  }

  for (const { file, forbidden, allowed } of WALLS) {
    const imports = [...Object.values(forbidden).flat(), ...allowed];
    const expected = Object.entries(forbidden).flatMap(([reason, names]) => names.map((name) => [name, reason]));
    const actual = (): (string | undefined)[][] =>
      foundIn(file)
        .filter(({ category }) => category === 'lint/style/noRestrictedImports')
        .map(({ location, message }) => [
          imports[location.start.line - 1],
          Object.keys(forbidden).find((reason) => message.startsWith(reason)) ?? message,
        ]);
    const isPath = ([name = '']: (string | undefined)[]): boolean => name.startsWith('../');

    it(`stop what ${dirname(file)} may not import by name, and nothing else`, () => {
      const byName = (pair: (string | undefined)[]): boolean => !isPath(pair);
      assert.deepEqual(actual().filter(byName).sort(), expected.filter(byName).sort());
    });

    it(`stop what ${dirname(file)} may not import by its path`, () => {
      assert.deepEqual(actual().filter(isPath).sort(), expected.filter(isPath).sort());
    });
  }

  it('are all tried above', () => {
    const { overrides } = JSON.parse(read('biome.json')) as { overrides: Wall[] };
    const tried = WALLS.flatMap(({ file, forbidden }) => Object.keys(forbidden).map((reason) => [file, reason]));
    for (const { includes, linter } of overrides) {
      for (const { message } of linter.rules.style?.noRestrictedImports?.options.patterns ?? []) {
        for (const glob of includes) {
          const place = glob.replace(/\*.*$/, '');
          const isTried = tried.some(
            ([file = '', reason = '']) => dirname(file) === place.slice(0, -1) && message.startsWith(reason),
          );
          assert.ok(isTried, `no import in WALLS tries the wall round ${glob}: ${message}`);
        }
      }
    }
  });
});

function lint(folder: string): Diagnostic[] {
  const biome = join(root, 'node_modules', '.bin', 'biome');
  const result = spawnSync(biome, ['lint', '--reporter=json', '--max-diagnostics=none', '.'], { cwd: folder });
  assert.equal(result.status, 1, result.stderr.toString());
  const { diagnostics } = JSON.parse(result.stdout.toString());
  return diagnostics;
}

/** A real request under a preload that notes what the script loads and touches. */
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

  it('is one executable CommonJS file, with the names of its functions and in lines, for stack traces', () => {
    assert.equal(statSync(join(root, 'dist/nph-webjob.cgi')).mode & 0o111, 0o111);
    for (const name of ['handleRequest', 'storeUpload', 'parseKeyValue'])
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
    // The one brings the other.
    ['PUT', put, 'ab', 'Y', ['crypto', 'stream']],
  ] as const) {
    it(`loads and touches on a ${method} with EnableCustody=${custody} only what it needs`, async () => {
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
  it('is one executable CommonJS file that runs alone in any folder', () => {
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

/** No module of its own beside it: only what is built into Node, by its full name where the program is ours. */
function assertSelfContained(text: string): void {
  assert.doesNotMatch(text, /^(?:import|export)\b/m);
  const required = [...text.matchAll(/\b(?:require|import)\(["']([^"']+)["']\)/g)].map(([, name = '']) => name);
  assert.ok(required.includes('node:fs'));
  assert.deepEqual(
    required.filter((name) => !name.startsWith('node:') || !isBuiltin(name)),
    [],
  );
}

describe('the list of rooms in docs/architecture.md', () => {
  /** `cgi/`, `cgi/main.ts`, `cgi/locker/`, ... as the block lists them; several names in a line stand two blanks apart. */
  function listedRooms(): string[] {
    const block = /^## Rooms\n+```\n(.*?)^```$/ms.exec(read('docs/architecture.md'))?.[1] ?? '';
    let room = '';
    return block.split('\n').flatMap((line) => {
      const [, indent, names] = /^( *)([\w.-]+\/?(?: {2}[\w-]+\.[\w.]+)*)(?: |$)/.exec(line) ?? [];
      if (names === undefined) return [];
      if (indent === '') room = names;
      return indent === '' ? [names] : names.split('  ').map((name) => `${room}${name}`);
    });
  }

  it('names nothing that is not there', () => {
    const listed = listedRooms();
    assert.ok(listed.includes('cgi/') && listed.includes('cgi/put.ts'), `cannot read the list: ${listed}`);
    const missing = listed.filter((path) => path !== 'dist/' && !existsSync(join(root, path)));
    assert.deepEqual(missing, [], `take these out of the list: ${missing.join(' ')}`);
  });

  it('names every folder, and all that is in cgi/', () => {
    const listed = listedRooms();
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

describe('what is in git', () => {
  it('locks packages without saying which registry they came from', () => {
    const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> };
    const resolved = Object.values(packages).flatMap((entry) => entry.resolved ?? []);
    assert.ok(Object.keys(packages).length > 10);
    assert.deepEqual(
      resolved.filter((place) => !existsSync(join(root, place))),
      [],
    );
  });
});
