// webjobctl assign with real clients at a real httpd: what is assigned runs once, with exactly its
// arguments, and its result is shown.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { addCommand, addUser, configure } from '../../scripts/site.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { runWebjob } from '../support/client-job.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { nextSecond } from '../support/locker-site.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';

interface Row {
  client: string;
  state: string;
  exit: string | null;
  webjobExit: number | null;
  jobId: string | null;
}

obtainHtpasswd();
const DONE = { code: 0, signal: null, stdout: '', stderr: '' };
const isCurlMissing = spawnSync('curl', ['--version']).error ? 'no curl' : false;
let home: ClientSite;
let last = 0;

before(async () => {
  home = await startClientSite();
  home.configure();
  home.add('show-words.sh', '#!/bin/sh\nfor word; do printf "[%s]" "$word"; done\n');
  home.add('fails.sh', '#!/bin/sh\nexit 3\n');
  addUser(home.site, 'client2', 'bar');
  addCommand(home.site, 'client2', 'show-words.sh', '#!/bin/sh\n');
});
after(() => home.close());
beforeEach(() => configure(home.site, { BatchCommand: 'batch' }));

const control = (...words: string[]) => runWebjobctl(['-c', home.site.propertiesFile, ...words]);

/** Returns the number of the assignment. */
async function assign(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await control('assign', ...words);
  assert.equal(code, 0, stderr);
  last += 1;
  assert.match(stdout, new RegExp(`^assignment ${last}: `));
  return String(last);
}

async function show(id: string): Promise<{ states: Record<string, number>; rows: Row[] }> {
  const { stdout, stderr } = await control('--json', 'assign', 'show', id);
  const [{ states, clients } = { states: {}, clients: 0 }, ...rows] = parseLines(stdout) as [
    { states: Record<string, number>; clients: number },
    ...Row[],
  ];
  assert.equal(rows.length, clients, stderr);
  assert.equal(
    Object.values(states).reduce((sum, count) => sum + count, 0),
    clients,
  );
  return { states: Object.fromEntries(Object.entries(states).filter(([, count]) => count > 0)), rows };
}

async function outputOf(jobId: string | null): Promise<string> {
  return (await control('show', jobId ?? '', '--out')).stdout;
}

async function outputOfBatch(): Promise<string> {
  const { stdout } = await control('--json', 'jobs', '--command', 'batch', '--limit', '1');
  const [batch] = parseLines(stdout) as { jobId: string }[];
  return await outputOf(batch?.jobId ?? null);
}

const WORDS = ["it's", '$(id)', 'a\nb', '-v', '', 'ü', 'x'.repeat(50_000)];
const PRINTED = WORDS.map((word) => `[${word}]`).join('');

describe('an assignment', () => {
  it('runs once on this client, with exactly its arguments', async () => {
    const id = await assign('--to', 'client1', '--', 'show-words.sh', ...WORDS);
    assert.deepEqual((await show(id)).states, { waiting: 1 });
    assert.deepEqual(await home.client.execute(['batch']), DONE);
    const { states, rows } = await show(id);
    assert.deepEqual(states, { done: 1 });
    assert.equal(await outputOf(rows[0]?.jobId ?? null), PRINTED);
    assert.deepEqual(await home.client.execute(['batch']), DONE);
    assert.deepEqual(await show(id), { states, rows });
    const tree = await control(
      '--json',
      'jobs',
      '--outer',
      parseLines((await control('--json', 'jobs')).stdout).find(({ command }) => command === 'batch')?.jobId as string,
    );
    assert.deepEqual(
      parseLines(tree.stdout)
        .map(({ command }) => command)
        .sort(),
      ['batch', 'show-words.sh'],
    );
  });

  it('runs on this client without a shell, and is named in the run record', async () => {
    const ids = [
      await assign('--to', 'client1', '--', 'show-words.sh', ...WORDS),
      await assign('show-words.sh', 'second', '--to', 'client1'),
      await assign('fails.sh', '--to', 'client1'),
    ];
    assert.deepEqual(await runWebjob(['--batch', '-f', home.client.conf]), DONE);
    for (const [index, printed] of [PRINTED, '[second]', ''].entries()) {
      const { states, rows } = await show(ids[index] ?? '');
      assert.deepEqual(states, { [index === 2 ? 'failed' : 'done']: 1 });
      assert.equal(await outputOf(rows[0]?.jobId ?? null), printed);
      const record = (await control('show', rows[0]?.jobId ?? '', '--env')).stdout;
      assert.match(record, new RegExp(`^Assignment=${ids[index]}@\\d+$`, 'm'));
    }
    const lines = (await outputOfBatch()).trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => line.replace(/due \d+ /, '')),
      ids.map((id) => `assignment ${id} exit 0`),
    );
    assert.deepEqual(await runWebjob(['--batch', '-f', home.client.conf]), DONE);
    const wrong = await runWebjob(['--batch', '-f', home.client.conf, 'show-words.sh']);
    assert.equal(wrong.code, 0, 'the program ran, and its record says that it failed');
    const [last] = parseLines((await control('--json', 'jobs', '--limit', '1')).stdout) as {
      state: string;
      exitCode: number;
    }[];
    assert.deepEqual([last?.state, last?.exitCode], ['failed', 4]);
  });

  it('ends with the number of the signal when its run is killed', async () => {
    home.add('kills.sh', '#!/bin/sh\nkill -KILL $PPID\n');
    const id = await assign('kills.sh', '--to', 'client1');
    assert.deepEqual(await runWebjob(['--batch', '-f', home.client.conf]), DONE);
    assert.match(await outputOfBatch(), new RegExp(`^assignment ${id} due \\d+ exit 137\\n$`));
    const { states, rows } = await show(id);
    assert.deepEqual([states, rows[0]?.webjobExit], [{ failed: 1 }, 137]);
    for (const name of readdirSync(home.client.temp)) rmSync(join(home.client.temp, name), { recursive: true });
  });

  it('is in only one of several batches at the same time', async () => {
    home.add('list-temp.sh', '#!/bin/sh\nls "$(dirname "$0")"\n');
    const id = await assign('list-temp.sh', '--to', 'client1');
    assert.deepEqual(await runWebjob(['--batch', '-f', home.client.conf]), DONE);
    const { rows } = await show(id);
    const names = (await outputOf(rows[0]?.jobId ?? null)).trimEnd().split('\n');
    assert.ok(names.includes('list-temp.sh') && !names.includes('batch'), names.join());
  });

  it('runs on an original client', { skip: isCurlMissing }, async () => {
    // Runs are distinguished by the second in which they began, and a failed run has just ended.
    await nextSecond();
    const [one, two] = [
      await assign('--to', 'client1', '--', 'show-words.sh', ...WORDS),
      await assign('show-words.sh', 'second', '--to', 'client1'),
    ];
    const bin = join(home.client.root, 'bin');
    mkdirSync(bin);
    copyFileSync(join(import.meta.dirname, '..', 'support', 'c-like-webjob.sh'), join(bin, 'webjob'));
    chmodSync(join(bin, 'webjob'), 0o755);
    const run = spawnSync('webjob', ['-e', '-f', home.client.conf, 'batch'], {
      encoding: 'utf8',
      env: { PATH: `${bin}:${process.env.PATH}` },
    });
    assert.deepEqual([run.status, run.stdout, run.stderr], [0, '', '']);
    for (const [id, printed] of [
      [one, PRINTED],
      [two, '[second]'],
    ] as const) {
      const { states, rows } = await show(id);
      assert.deepEqual(states, { done: 1 }, id);
      assert.equal(await outputOf(rows[0]?.jobId ?? null), printed);
    }
  });

  it('is failed, missing or lost, which are different states', async () => {
    const [fails, missing] = [await assign('fails.sh', '--to', 'client1'), await assign('none.sh', '--to', 'client1')];
    const untouched = await assign('fails.sh', '--to', 'client2');
    await home.client.execute(['batch']);
    const [first, second] = [await show(fails), await show(missing)];
    assert.deepEqual([first.states, first.rows[0]?.exit], [{ failed: 1 }, '3']);
    assert.deepEqual([second.states, second.rows[0]?.webjobExit ?? second.rows[0]?.state], [{ failed: 1 }, 'failed']);
    assert.deepEqual((await show(untouched)).states, { waiting: 1 });
    assert.equal((await control('assign', 'show', fails)).code, 1);
    const again = await control('assign', 'retry', fails);
    last += 1;
    assert.match(again.stdout, new RegExp(`^assignment ${last}: fails\\.sh once more for 1 client\\n$`));
    assert.equal((await control('assign', 'retry', untouched)).code, 1);
  });

  it('is not given to clients while paused, after its end, or when cancelled', async () => {
    await home.client.execute(['batch']);
    const id = await assign('show-words.sh', '--to', 'client?', '--reason', 'case 4711');
    assert.equal((await control('assign', 'pause', id)).code, 0);
    await home.client.execute(['batch']);
    assert.deepEqual((await show(id)).states, { waiting: 2 });
    assert.equal((await control('assign', 'resume', id)).code, 0);
    await home.client.execute(['batch']);
    assert.deepEqual((await show(id)).states, { waiting: 1, done: 1 });
    assert.match(
      (await control('assign', 'cancel', id)).stdout,
      /is cancelled; runs that were fetched before continue\n$/,
    );
    assert.deepEqual((await show(id)).states, { cancelled: 1, done: 1 });
    assert.equal((await control('assign', 'cancel', id)).code, 1);
    const short = await assign('show-words.sh', '--to', 'client1', '--until', '1s');
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await home.client.execute(['batch']);
    assert.deepEqual((await show(short)).states, { expired: 1 });
  });

  it('goes to groups, and to clients that join later', async () => {
    const groups = join(home.site.base, 'config', 'nph-webjob', 'groups');
    writeFileSync(groups, 'all = client1 late\n');
    const id = await assign('show-words.sh', '--to', 'all');
    assert.deepEqual((await show(id)).states, { waiting: 2 });
    await home.client.execute(['batch']);
    assert.deepEqual(
      (await show(id)).rows.map(({ client, state }) => [client, state]),
      [
        ['client1', 'done'],
        ['late', 'waiting'],
      ],
    );
    writeFileSync(groups, 'all = late\n');
    assert.deepEqual((await show(id)).states, { waiting: 1, done: 1 }, 'who has run it stays');
  });

  it('is recorded with its operator in a custody record that verify accepts', async () => {
    const { code, stderr } = await control('verify');
    assert.equal(code, 0, stderr);
    const text = readFileSync(join(home.site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl'), 'utf8');
    assert.match(text, /"event":"assign","assignment":\{[^\n]*"reason":"case 4711"/);
    assert.match(text, /"event":"assign-change","id":"\d+","state":"paused"/);
  });
});

describe('webjobctl assign', () => {
  const rows: [words: string[], code: number, message: RegExp][] = [
    [['batch', '--to', 'client1'], 2, /batch is the batch itself/],
    [['x/y', '--to', 'client1'], 2, /a command is 1 to 1024 letters/],
    [['a.sh', '--to', 'a b'], 2, /a b is not a client id, a glob or a group/],
    [['a.sh', '--to', ','], 2, /is not a client id/],
    [['a.sh'], 2, /required option '--to <CLIENT>'/],
    [['a.sh', '--to', 'client1', '--every', '1h', '--cron', '* * * * *'], 2, /use one of --once, --every and --cron/],
    [['a.sh', '--to', 'client1', '--cron', '61 * * * *'], 2, /61 is not a minute of a cron expression/],
    [['a.sh', '--to', 'client1', '--until', '2020-01-01'], 2, /--until must be after the first time/],
    [
      ['a.sh', '--to', 'client1', '--not-before', '2199-01-01', '--until', '2199-01-01'],
      2,
      /--until must be after the first time/,
    ],
    [['a.sh', 'x'.repeat(120_001), '--to', 'client1'], 2, /the arguments must be at most 120000 bytes \(got 120002\)/],
    [['show', '999'], 1, /there is no assignment 999/],
  ];
  for (const [words, code, message] of rows)
    it(`refuses ${words.join(' ').slice(0, 60)}`, async () => {
      const ended = await control('assign', ...words);
      assert.deepEqual([ended.code, ended.stdout], [code, '']);
      assert.match(ended.stderr, message);
    });

  it('reports what is missing where the server makes no batches', async () => {
    configure(home.site, {});
    const { code, stderr } = await control('assign', 'host.sh', '--to', 'client1');
    assert.equal(code, 3);
    assert.match(stderr, /BatchCommand is not set.*\n.*add the line BatchCommand=batch to nph-webjob\.cfg/);
  });

  it('reports a missing DynamicDirectory', async () => {
    configure(home.site, { BatchCommand: 'batch', DynamicDirectory: join(home.site.root, 'none here') });
    const { code, stderr } = await control('assign', 'host.sh', '--to', 'client1');
    assert.equal(code, 3);
    assert.match(stderr, /DynamicDirectory is missing.*\n.*hint: install -d -o www-data -g root -m 755 '\S* here'/);
  });

  it('writes arguments where only the web user and root can read them', () => {
    if (process.getuid?.() !== 0) return;
    const path = join(home.site.base, 'config', 'nph-webjob', 'assignments');
    const { mode, uid, gid } = statSync(path);
    assert.deepEqual([mode & 0o777, uid, gid], [0o640, 0, findWebUser()?.gid]);
  });

  it('warns about an assignment that no client matches', async () => {
    const { code, stdout, stderr } = await control('assign', 'host.sh', '--to', 'nobody-*');
    last += 1;
    assert.equal(code, 1);
    assert.match(stdout, /: host\.sh for 0 clients\n$/);
    assert.match(stderr, /no client of the site matches nobody-\* yet/);
  });
});
