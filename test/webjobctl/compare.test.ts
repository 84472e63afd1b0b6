// webjobctl latest and compare, on a locker filled by real CGI processes: the newest result of each
// client, equal outputs, and how the others differ.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { addCommand } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite, nextSecond } from '../support/locker-site.ts';
import { parseLines } from '../support/operator.ts';

const CLIENTS = ['db-1', 'web-1', 'web-2', 'web-3'];
let its: LockerSite;
/** By client: the newest job of list.sh. */
const newest = new Map<string, string>();

before(async () => {
  its = makeLockerSite({ RequireUser: 'N' });
  for (const client of [...CLIENTS, 'idle']) addCommand(its.site, client, 'list.sh', '#!/bin/sh\n');
  await run('web-1', 'old\n');
  await run('web-3', 'pid 1\nsame\n');
  await nextSecond();
  await run('web-1', 'pid 22\nsame\n');
  await run('web-2', 'pid 333\nsame\n');
  await run('db-1', 'pid 4\nother \x1b[31m\n', { KidStatus: '3' });
  await its.get('web-1', 'list.sh');
  const folder = join(its.site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'groups'), 'web = web-1 web-2 web-3\nall = web db-*\n');
});
after(() => its.close());

async function run(clientId: string, out: string, record = {}): Promise<void> {
  newest.set(clientId, await its.run({ clientId, fileName: 'list.sh', out, record }));
}

describe('webjobctl latest', () => {
  it('lists the newest result of each client with a result', async () => {
    const { text, exitCode } = await its.webjobctl('latest', 'list.sh');
    assert.equal(exitCode, 0);
    const rows = text.trimEnd().split('\n');
    assert.deepEqual(
      rows.slice(1, -1).map((row) => row.split(/\s+/)[0]),
      CLIENTS,
    );
    assert.match(rows[1] ?? '', /failed +3 +18 B +pid 4$/);
    assert.match(rows[2] ?? '', /done +0 +12 B +pid 22$/);
    assert.equal(rows.at(-1), '4 clients');
    const json = await its.readJson<{ client: string; jobId: string; firstLine: string }>('latest', 'list.sh');
    assert.deepEqual(
      json.map(({ client, jobId }) => [client, jobId]),
      CLIENTS.map((client) => [client, newest.get(client)]),
    );
  });

  it('accepts groups, globs and a time', async () => {
    const clients = async (...words: string[]): Promise<string[]> =>
      (await its.readJson<{ client: string }>('latest', 'list.sh', ...words)).map(({ client }) => client);
    assert.deepEqual(await clients('--to', 'web'), CLIENTS.slice(1));
    assert.deepEqual(await clients('--to', 'db-?,web-2'), ['db-1', 'web-2']);
    assert.deepEqual(await clients('--to', 'all', '--since', '2099-01-01'), []);
    assert.equal((await its.webjobctl('latest', 'none.sh')).exitCode, 1);
  });
});

describe('webjobctl compare', () => {
  it('shows which clients differ, and how', async () => {
    const { text, exitCode } = await its.webjobctl('compare', 'list.sh', '--to', 'web');
    assert.equal(exitCode, 1);
    assert.match(text, /^1 as web-1 \S+: web-1\n/);
    assert.match(text, /^1 differs: web-2\n--- web-1 .*\n\+\+\+ web-2 .*\n@@ .*\n-pid 22\n\+pid 333\n same\n/m);
  });

  it('leaves out lines that do not count', async () => {
    const ignoring = ['compare', 'list.sh', '--ignore', '^pid \\d+$'];
    const same = await its.webjobctl(...ignoring, '--to', 'web');
    assert.deepEqual(
      [same.exitCode, same.text.replace(/web-1 \S+:/, 'FIRST:')],
      [0, '3 as FIRST: web-1 web-2 web-3\n'],
    );
    const all = await its.webjobctl(...ignoring, '--no-diff');
    assert.deepEqual(
      all.text.split('\n').map((line) => line.replace(/web-1 \S+:/, 'FIRST:')),
      ['3 as FIRST: web-1 web-2 web-3', '1 differs: db-1', ''],
    );
    const groups = await its.readJson<{ clients: string[]; same: boolean }>(...ignoring);
    assert.deepEqual(
      groups.map(({ clients, same }) => [clients, same]),
      [
        [CLIENTS.slice(1), true],
        [['db-1'], false],
      ],
    );
  });

  it('compares all with a golden job', async () => {
    const golden = newest.get('web-2') ?? '';
    const { text, exitCode } = await its.webjobctl('compare', 'list.sh', '--golden', golden, '--no-diff');
    assert.equal(exitCode, 1);
    assert.match(text, new RegExp(`^1 as the golden ${golden}: web-2\n`));
    assert.equal((await its.webjobctl('compare', 'list.sh', '--golden', golden, '--to', 'web-2')).exitCode, 0);
  });

  it('escapes control characters', async () => {
    const { text } = await its.webjobctl(
      'compare',
      'list.sh',
      '--to',
      'web-3,db-1',
      '--golden',
      newest.get('web-3') ?? '',
    );
    assert.match(text, /\+other \\x1b\[31m/);
  });

  const rows: [words: string[], code: number, message: RegExp][] = [
    [['none.sh'], 5, /no client has a result of none\.sh/],
    [['list.sh', '--ignore', '('], 2, /Invalid regular expression/],
    [['list.sh', '--stream', 'rdy'], 2, /a stream is out, err or env/],
    [['list.sh', '--golden', 'x', '--majority'], 2, /use one of --golden and --majority/],
    [['list.sh', '--golden', 'none'], 1, /no job has an id that is/],
  ];
  for (const [words, code, message] of rows)
    it(`refuses ${words.join(' ')}`, async () => {
      const ended = await its.webjobctl('compare', ...words);
      assert.equal(ended.exitCode, code);
      assert.match(ended.stderr, message);
    });

  it('works with archives, too', async () => {
    const parse = async (): Promise<unknown[]> =>
      parseLines((await its.webjobctl('--json', 'compare', 'list.sh', '--ignore', 'pid')).text);
    const before = await parse();
    assert.equal((await its.webjobctl('pack', '--older-than', '0s')).exitCode, 0);
    assert.deepEqual(await parse(), before);
  });
});
