// The README of node-cgi-compat: every code block is a file of a project that depends on the
// library, and runs; the tables agree with the sources.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { stageLibrary } from '../../scripts/npm-packages.ts';
import { type Folder, makeFolder } from '../support/cgi-scripts.ts';
import { askFastCgi } from '../support/fastcgi-client.ts';

const root = join(import.meta.dirname, '..', '..');
const library = join(root, 'cgi', 'node-cgi-compat');
const readme = readFileSync(join(library, 'README.md'), 'utf8');
const blocks = [...readme.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language = '', text = '']) => ({
  language,
  text,
}));
/** The name of a block's file is in its first comment. */
const files = new Map(
  blocks
    .filter(({ language }) => language === 'js')
    .map(({ text }) => [/^(?:#!.*\n)?\/\/ (\S+)\n/.exec(text)?.[1] ?? '', text]),
);

let project: Folder;

before(() => {
  project = makeFolder();
  mkdirSync(join(project.path, 'node_modules'));
  // As npm installs it: JavaScript without the sources.
  stageLibrary(join(project.path, 'node_modules', 'node-cgi-compat'));
  symlinkSync(join(root, 'node_modules', 'supertest'), join(project.path, 'node_modules', 'supertest'));
  for (const [name, text] of files) {
    writeFileSync(join(project.path, name), text);
    if (text.startsWith('#!')) chmodSync(join(project.path, name), 0o755);
  }
});
after(() => project.remove());

const environment = { PATH: [dirname(process.execPath), process.env.PATH].join(delimiter) };

describe('the code in the README of node-cgi-compat', () => {
  it('contains only kinds of blocks that the tests below run', () => {
    assert.deepEqual([...files.keys()], ['nph-hello.mjs', 'count.mjs', 'responder.mjs', 'host.mjs', 'count.test.mjs']);
    const others = blocks.filter(({ language }) => language !== 'js').map(({ language }) => language);
    assert.deepEqual(others, ['sh', 'text']);
  });

  it('shows a script that answers by hand', () => {
    const [command, output] = blocks.filter(({ language }) => language !== 'js');
    const shell = spawnSync('/bin/sh', ['-c', command?.text ?? ''], { cwd: project.path, env: environment });
    assert.equal(shell.stderr.toString(), '');
    assert.equal(shell.stdout.toString().replaceAll('\r\n', '\n'), output?.text);
  });

  it('shows a responder that serves until it is told to end', async () => {
    const socket = join(project.path, 'socket');
    const child = spawn(process.execPath, ['responder.mjs', socket], { cwd: project.path, env: environment });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    try {
      assert.equal(await firstLine(child.stdout), 'listening');
      const { status, body } = await askFastCgi(socket, { REQUEST_METHOD: 'GET', QUERY_STRING: 'a=b' });
      assert.deepEqual([status, body.toString()], [200, `${child.pid} serves a=b\n`]);
      child.kill('SIGTERM');
      assert.equal(await ended, 0);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('shows a host that serves the other script', async () => {
    const child = spawn(process.execPath, ['host.mjs'], { cwd: project.path, env: { ...environment, PORT: '0' } });
    try {
      const url = await firstLine(child.stdout);
      const counted = await fetch(url, { method: 'POST', body: 'a\nb\nc\n' });
      assert.equal(await counted.text(), '3 lines\n');
      const refused = await fetch(url);
      assert.equal(refused.status, 405);
      assert.equal(refused.headers.get('allow'), 'POST');
    } finally {
      child.kill();
    }
  });

  it('shows a supertest test that passes, and fails with another count', () => {
    const run = () => spawnSync(process.execPath, ['count.test.mjs'], { cwd: project.path, env: environment });
    const passed = run();
    assert.equal(passed.status, 0, passed.stdout.toString());
    assert.match(passed.stdout.toString(), /pass 1$/m);
    writeFileSync(join(project.path, 'count.mjs'), files.get('count.mjs')?.replace('lines = 0', 'lines = 1') ?? '');
    assert.equal(run().status, 1);
  });
});

async function firstLine(stream: AsyncIterable<Buffer>): Promise<string> {
  let text = '';
  for await (const chunk of stream) {
    text += chunk;
    if (text.includes('\n')) return text.slice(0, text.indexOf('\n'));
  }
  throw new Error(`no line in ${text}`);
}

const read = (file: string): string => readFileSync(join(library, file), 'utf8');
const cell = (text: string): string =>
  text
    .replace(/\s*\n *\* ?/g, ' ')
    .trim()
    .replaceAll('|', '\\|');

/** A row for every export of a file: its form, and its comment. */
function exportRows(file: string): string[] {
  const reExported = [...read(file).matchAll(/^export \* from '\.\/(.*)';$/gm)].flatMap(([, name = '']) =>
    exportRows(name),
  );

  const pattern = /(?:\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n)?^export (function|const|interface|type) (\w+)(.*)$/gm;
  const own = [...read(file).matchAll(pattern)];
  return [
    ...reExported,
    ...own.map(([, comment, kind, name, rest = '']) => {
      assert.ok(comment, `${file}: ${name} has no comment`);

      const shape = kind === 'function' ? `${name}${rest.replace(/ \{$/, '')}` : name;
      return `| \`${cell(shape ?? '')}\` | ${kind} | ${cell(comment)} |`;
    }),
  ];
}

/** A row for every field of an exported interface. */
function fieldRows(file: string, name: string): string[] {
  const body = new RegExp(`^export interface ${name}[^{]*\\{\\n(.*?)^\\}`, 'ms').exec(read(file))?.[1] ?? '';
  return [...body.matchAll(/(?: {2}\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n)? {2}(\w+\??): (.*);\n/g)].map(
    ([, comment, field = '', type = '']) => {
      assert.ok(comment, `${file}: ${field} has no comment`);
      return `| \`${field}: ${cell(type)}\` | ${cell(comment)} |`;
    },
  );
}

describe('the tables in the README of node-cgi-compat', () => {
  for (const [what, header, rows] of [
    ['exports of node-cgi-compat', '| node-cgi-compat | | |', () => exportRows('index.ts')],
    ['exports of node-cgi-compat/host', '| node-cgi-compat/host | | |', () => exportRows('host.ts')],
    ['exports of node-cgi-compat/responder', '| node-cgi-compat/responder | | |', () => exportRows('responder.ts')],
    [
      'options of a responder',
      '| option of a responder | |',
      () => [
        ...fieldRows('connection.ts', 'ConnectionOptions').filter((row) => !row.includes('maxConnections')),
        ...fieldRows('responder.ts', 'ResponderOptions'),
      ],
    ],
    ['options of the host', '| option of the host | |', () => fieldRows('host.ts', 'CgiHostOptions')],
  ] as const) {
    it(`list the ${what} as the sources have them`, () => {
      const expected = rows();
      assert.ok(expected.length > 1);
      const table = readme
        .slice(readme.indexOf(`${header}\n`))
        .split('\n\n')[0]
        ?.trimEnd()
        .split('\n')
        .slice(2);
      assert.deepEqual(table, expected, `the table has to be\n${expected.join('\n')}`);
    });
  }
});
