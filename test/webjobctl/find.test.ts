// webjobctl jobs, show, diff, search and clients, each with a locker filled by the server.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { collect } from '../support/bare.ts';
import {
  type FilledLocker,
  fillLocker,
  HOSTILE_OUTPUT,
  makeLockerSite,
  makeRecord,
  WEBJOBCTL,
} from '../support/locker-site.ts';
import { many } from '../support/thorough.ts';
import { refuse } from '../support/webjobctl-words.ts';

const hasScript = /util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '');

const its = makeLockerSite();
const { site, webjobctl, readJson } = its;
let ids: FilledLocker;
before(async () => {
  ids = await fillLocker(its);
});
after(its.close);

/** Job ids of the rows below the titles. */
const jobsOf = (text: string): string[] => text.match(/\S+_\d{10}_\d{5,}/g) ?? [];

/** The output on a terminal. */
async function onTerminal(
  args: string[],
  env: NodeJS.ProcessEnv = {},
): Promise<{ text: string; exitCode: number | null }> {
  const words = [process.execPath, WEBJOBCTL, '--config', site.propertiesFile, ...args];
  const command = words.map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['-qec', command, '/dev/null'], {
    env: { ...process.env, PAGER: 'cat', TERM: 'xterm', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { stdout, exitCode } = await collect(child, 60);
  return { text: stdout.toString('latin1'), exitCode };
}

describe('webjobctl jobs', () => {
  it('lists jobs of every state under titles', async () => {
    const { text, stderr, exitCode } = await webjobctl('jobs');
    assert.equal(stderr, '');
    assert.equal(exitCode, 0);
    assert.match(text, /^TIME +JOB +CLIENT +COMMAND +STATE +EXIT +STATUS\n/);
    const rows = text.trimEnd().split('\n').slice(1);
    const rowOf = (jobId: string): string => rows.find((row) => row.includes(jobId))?.replace(/ +/g, ' ') ?? '';
    assert.match(rowOf(ids.failed), /^[-\d]+ [:\d]+ \S+ client1 host\.sh failed 3 200$/);
    assert.match(rowOf(ids.killed), /client2 ps\.sh failed sig 9 200$/);
    assert.match(rowOf(ids.refusedPut), /client2 ps\.sh refused - 453$/);
    assert.match(rowOf(ids.orphan), /client2 ps\.sh orphan 0 -$/);
    assert.match(rowOf(ids.got), /client2 ps\.sh got - 200$/);
    assert.equal(rows.length, 9);
  });

  it('selects by each option, and exits with 1 when nothing matches', async () => {
    const list = async (...args: string[]): Promise<string[]> => jobsOf((await webjobctl('jobs', ...args)).text);
    assert.deepEqual(await list('--exit-code', '3'), [ids.failed]);
    assert.deepEqual(await list('--status', '4xx'), [ids.refusedGet, ids.refusedPut, ids.incomplete]);
    assert.deepEqual(await list('--status', '404'), [ids.refusedGet]);
    assert.deepEqual(await list('--state', 'failed,orphan', '--client', 'client2'), [ids.killed, ids.orphan]);
    assert.deepEqual(await list('--command', 'host*', '--since', '1h', '--state', 'done'), [ids.first, ids.second]);
    assert.equal((await list('--limit', '2')).length, 2);
    assert.equal((await webjobctl('jobs', '--until', '2004-05-23')).exitCode, 1);
    const { text } = await webjobctl('jobs', '--columns', 'client,exit,group', '--exit-code', '3');
    assert.match(text, /^CLIENT +EXIT +GROUP\nclient1 +3 +client1_\d{14}_\d+_host\.sh\n$/);
  });

  it('names the wrong option', async () => {
    for (const [option, value] of [
      ...[
        ['--state', 'lost'],
        ['--status', '4x4'],
        ['--exit-code', '-1'],
        ['--limit', '0'],
        ['--since', 'tomorrow'],
      ],
      ...[['--columns', 'time,height']],
    ])
      assert.match(
        await refuse('jobs', option ?? '', value ?? ''),
        new RegExp(`^webjobctl: error: option '${option} `),
      );
    assert.equal((await webjobctl('jobs', '--watch', '--limit', '1')).exitCode, 2);
  });

  it('prints the documented values as JSON', async () => {
    const [job] = await readJson<Record<string, unknown>>('jobs', '--exit-code', '3');
    const { at, group, get, put, ...rest } = job as { [name: string]: unknown; at: string; group: string };
    assert.deepEqual(rest, {
      jobId: ids.failed,
      client: 'client1',
      command: 'host.sh',
      state: 'failed',
      exitCode: 3,
      signal: null,
      uploads: [group],
      left: [],
      pack: null,
      requests: 2,
      clockSkew: null,
      outerId: null,
    });
    assert.equal(new Date(at).toISOString(), at);
    const common = { user: 'client1', address: '127.0.0.1', fileName: 'host.sh', status: 200, message: 'Success' };
    const { at: _, seconds: __, ...getFacts } = get as Record<string, unknown>;
    assert.deepEqual(getFacts, { ...common, method: 'GET', bytesReceived: 0, bytesSent: 19 });
    const length = (extension: string): number => readFileSync(join(site.incoming, `${group}.${extension}`)).length;
    const { bytesReceived, bytesSent } = put as Record<string, unknown>;
    assert.deepEqual([bytesReceived, bytesSent], [length('out') + length('err') + length('env'), 0]);
  });

  it('ends when its reader has seen enough', () => {
    const command = `'${process.execPath}' '${WEBJOBCTL}' -c '${site.propertiesFile}' jobs | head -1`;
    const { stdout, stderr } = spawnSync('sh', ['-c', command], { encoding: 'utf8' });
    assert.match(stdout, /^TIME/);
    assert.equal(stderr, '');
  });
});

describe('webjobctl show', () => {
  it('shows what is known and what was written', async () => {
    const { text, exitCode } = await webjobctl('show', ids.failed);
    assert.equal(exitCode, 0);
    assert.match(
      text,
      new RegExp(`^Job: +${ids.failed}\nClient: +client1\nCommand: +host\\.sh\nState: +failed\nExit: +3\n`),
    );
    assert.match(text, /\n--- out: 0 B\n\n--- err: 19 B\nhost\.sh: not found\n$/);
    const [broken] = await readJson<{ bytes: unknown; record: unknown }>('show', ids.incomplete);
    assert.deepEqual([broken?.bytes, broken?.record], [{ out: null, err: null, env: null }, null]);
    const all = await webjobctl('show', ids.failed, '--all');
    assert.match(all.text, /\nKidStatus=3\n/);
  });

  it('accepts the part of an id that only one job has', async () => {
    assert.match((await webjobctl('show', ids.second.slice(-9))).text, new RegExp(`^Job: +${ids.second}\n`));
    const several = await webjobctl('show', ids.second.slice(0, 9));
    assert.equal(several.exitCode, 2);
    assert.match(several.stderr, /is ambiguous \(9 matches\)/);
    const none = await webjobctl('show', 'server_1_1085355126_99999');
    assert.equal(none.exitCode, 1);
    assert.match(none.stderr, /^webjobctl: error: no job has an id/);
  });

  it('prints one stream byte for byte when stdout is not a terminal', async () => {
    const { stdout } = await webjobctl('show', ids.killed, '--out');
    assert.equal(stdout.toString('latin1'), HOSTILE_OUTPUT);
    const record = makeRecord({
      KidStatus: '3',
      ClientId: 'client1',
      GetRequest: 'host.sh',
      Command: 'host.sh',
      Jid: ids.failed,
    });
    assert.equal((await webjobctl('show', ids.failed, '--env')).text, record);
    const missing = await webjobctl('show', ids.got, '--out');
    assert.equal(missing.exitCode, 1);
    assert.equal(missing.text, '');
  });

  it('prints JSON with record and sizes, and without streams', async () => {
    const [shown] = await readJson<{ jobId: string; bytes: unknown; record: Record<string, string> }>(
      'show',
      ids.killed,
    );
    assert.equal(shown?.jobId, ids.killed);
    assert.equal(shown?.record.KidSignal, '9');
    assert.deepEqual(shown?.bytes, { out: HOSTILE_OUTPUT.length, err: 0, env: makeRecord(shown?.record ?? {}).length });
    assert.equal((await webjobctl('--json', 'show', ids.killed, '--out')).exitCode, 2);
  });

  it('prints no terminal sequence', { skip: !hasScript }, async () => {
    const jobId = await its.run({
      clientId: 'client1',
      fileName: 'host.sh',
      out: `${'text '.repeat(50)}\n\x1b]0;owned\x07\x9b2J\n\xd8\x9c\xe2\x80\xae\n`,
    });
    // A pipe may end at a terminal, like that of head.
    for (const command of ['show', 'diff']) {
      const { text } = await webjobctl(command, jobId);
      assert.match(text, /\\x1b\]0;owned\\x07/, command);
      assert.match(text, /\\u061c\\u202e/, command);
    }
    for (const args of [
      ['show', ids.killed, '--all'],
      ['show', jobId],
      ['show', jobId, '--out'],
      ['search', 'owned'],
      ['diff', jobId],
    ]) {
      const { text } = await onTerminal(args);
      assert.match(text, /owned/, args.join(' '));
      // webjobctl itself writes the colours and the progress line.
      assert.doesNotMatch(text.replace(/\x1b\[(?:\d+m|K)/g, ''), /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/, args.join(' '));
      assert.doesNotMatch(text, /\x9b2J/);
    }
    assert.match((await onTerminal(['show', ids.killed])).text, /00000000 {2}1b 5d 30 3b/);
    assert.doesNotMatch((await onTerminal(['jobs'], { NO_COLOR: '1' })).text, /\x1b/);
  });

  it('uses PAGER on a terminal, without a shell', { skip: !hasScript }, async () => {
    const pager = join(site.root, 'pager.sh');
    writeFileSync(pager, '#!/bin/sh\necho "paged by $*"\ncat\n');
    chmodSync(pager, 0o755);
    const { text } = await onTerminal(['show', ids.second], { PAGER: `${pager} -x $(touch ${site.root}/owned) ;` });
    assert.match(text, /^paged by -x \$\(touch \S+\/owned\) ;\r\n[\s\S]*kept\r\nafter\r\n/);
    assert.throws(() => readFileSync(join(site.root, 'owned')), { code: 'ENOENT' });
  });
});

describe('webjobctl diff', () => {
  it('compares with the previous job, or with the named one', async () => {
    const { text, exitCode } = await webjobctl('diff', ids.first, ids.second);
    assert.equal(exitCode, 1);
    assert.equal(text, `--- ${ids.first} out\n+++ ${ids.second} out\n@@ -1,2 +1,2 @@\n kept\n-before\n+after\n`);
    const previous = await webjobctl('diff', ids.second, '--previous');
    assert.match(previous.text, new RegExp(`^--- ${ids.failed} out\n\\+\\+\\+ ${ids.second} out\n`));
    assert.equal((await webjobctl('diff', ids.second)).text, previous.text);
    const same = await webjobctl('diff', ids.first, ids.second, '--err');
    assert.deepEqual([same.exitCode, same.text], [0, '']);
    const both = await webjobctl('diff', ids.first, ids.failed, '--err', '--env');
    assert.match(both.text, /\n\+host\.sh: not found\n[\s\S]*\n-KidStatus=0\n\+KidStatus=3\n/);
  });

  it('reports in JSON, and when there is nothing to compare', async () => {
    const [differs] = await readJson<Record<string, unknown>>('diff', ids.first, ids.second);
    const { diff, ...rest } = differs ?? {};
    assert.deepEqual(rest, { from: ids.first, to: ids.second, stream: 'out', differs: true });
    assert.match(String(diff), /\n-before\n\+after\n$/);
    const nothing = await webjobctl('diff', ids.first);
    assert.match(nothing.stderr, /client1 has no earlier upload of host\.sh/);
    // Exit code 1 means only that they differ.
    assert.equal(nothing.exitCode, 5);
    for (const other of [ids.got, 'server_1_1085355126_99999'])
      assert.equal((await webjobctl('diff', ids.first, other)).exitCode, 5, other);
    assert.equal((await webjobctl('diff', ids.first, ids.second, '--previous')).exitCode, 2);
  });
});

describe('webjobctl diff of streams that differ in every line', () => {
  const LINES = 40_000;
  it('ends with 1, however much there is', async () => {
    const jobs = ['0', '1'].map((first) => ({ first, name: `client1_2026110100000${first}_00001_far.sh` }));
    const line = 'x'.repeat(1022);
    for (const { first, name } of jobs) {
      const path = join(site.incoming, name);
      writeFileSync(`${path}.out`, `${first}${line}\n`.repeat(LINES));
      for (const extension of ['err', 'env']) writeFileSync(`${path}.${extension}`, '');
      writeFileSync(`${path}.rdy`, `Jid=far_${first}\n`);
    }
    try {
      const { exitCode, stderr, stdout } = await webjobctl('diff', 'far_0', 'far_1');
      assert.deepEqual([exitCode, stderr], [1, '']);
      assert.equal(
        stdout.length,
        2 * LINES * 1025 + `--- far_0 out\n+++ far_1 out\n@@ -1,${LINES} +1,${LINES} @@\n`.length,
      );
      const json = await webjobctl('--json', 'diff', 'far_0', 'far_1');
      assert.deepEqual(
        [json.exitCode, JSON.parse(json.text)],
        [1, { from: 'far_0', to: 'far_1', stream: 'out', differs: true, diff: null }],
      );
    } finally {
      for (const { name } of jobs)
        for (const extension of ['out', 'err', 'env', 'rdy']) rmSync(join(site.incoming, `${name}.${extension}`));
    }
  });
});

describe('webjobctl search', () => {
  it('finds text and expressions in the given streams', async () => {
    const find = async (...args: string[]): Promise<string[]> =>
      (await webjobctl('search', ...args)).text.split('\n').slice(0, -1);
    assert.deepEqual(await find('kept', '--limit', '1'), [`client1 host.sh ${ids.first} out:1: kept`]);
    assert.deepEqual(await find('/^AFTER$/i'), [`client1 host.sh ${ids.second} out:2: after`]);
    assert.deepEqual(await find('/^KidStatus=3$/', '--in', 'env'), [
      `client1 host.sh ${ids.failed} env:11: KidStatus=3`,
    ]);
    assert.match((await find('arrived')).join(), /^client1 host\.sh - out:1: arrived$/);
    assert.deepEqual(await find('unlogged', '--client', 'client1'), []);
    assert.equal((await find('unlogged', '--command', 'ps*', '--since', '1h')).length, 1);
    for (const args of [['nowhere'], ['kept', '--in', 'err'], ['kept', '--until', '2004-05-23']])
      assert.equal((await webjobctl('search', ...args)).exitCode, 1, args.join(' '));
    for (const args of [['/(/'], [''], ['x', '--in', 'log']])
      assert.equal((await webjobctl('search', ...args)).exitCode, 2, args.join(' '));
    const [hit] = await readJson<Record<string, unknown>>('search', '[2Jplain');
    const { group, ...rest } = hit ?? {};
    assert.deepEqual(rest, {
      jobId: ids.killed,
      client: 'client2',
      command: 'ps.sh',
      stream: 'out',
      line: 1,
      text: HOSTILE_OUTPUT.split('\n')[0],
    });
    assert.match(String(group), /^client2_/);
  });

  it('reads a stream of any size piece by piece', async () => {
    const path = join(site.incoming, 'client1_20261101000000_00001_huge.out');
    writeFileSync(path, 'first\n');
    truncateSync(path, many(150_000_000, 80_000_000));
    appendFileSync(path, 'the needle\n');
    const args = [
      '--max-old-space-size=64',
      WEBJOBCTL,
      '-c',
      site.propertiesFile,
      'search',
      'needle',
      '--command',
      'huge',
    ];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const { stdout, exitCode } = await collect(child, 120);
    rmSync(path);
    assert.equal(exitCode, 0);
    assert.match(stdout.toString(), /^client1 huge - out:2: (?:\\x00)+/);
  });
});

describe('webjobctl clients', () => {
  it('counts jobs, bytes and failures of each', async () => {
    const [client1, client2] = await readJson<Record<string, unknown>>('clients', '--since', '1d');
    assert.equal(client1?.client, 'client1');
    assert.deepEqual(
      ['jobs', 'got', 'done', 'failed', 'refused', 'incomplete', 'orphan'].map((name) => client2?.[name]),
      [4, 1, 0, 1, 1, 0, 1],
    );
    assert.equal(client2?.failureRate, 1);
    assert.equal(client2?.bytesSent, 3 * '#!/bin/sh\nps\n'.length);
    assert.equal(client2?.silent, null);
    const { text } = await webjobctl('clients', '--client', '*2');
    assert.match(text, /^CLIENT +LAST SEEN +JOBS .*\nclient2 +[-\d]+ [:\d]+ +4 +1 +0 +1 +1 +0 +1 .* 100\.0%\n$/);
  });

  it('shows silent clients, and lets no client speak for another', async () => {
    assert.equal((await webjobctl('clients', '--expect', '1h')).exitCode, 0);
    mkdirSync(join(site.profiles, 'client3'));
    mkdirSync(join(site.profiles, 'common'), { recursive: true });
    // Another client sends a request in the name of client3.
    await its.put({ clientId: 'client3', fileName: 'host.sh', user: 'client1', out: 'forged\n' });
    const { text, exitCode } = await webjobctl('clients', '--expect', '1h');
    assert.equal(exitCode, 1);
    assert.match(text, /\nclient3 +never silent +1 /);
    assert.doesNotMatch(text, /common/);
    const silent = (await readJson<{ client: string; silent: boolean }>('clients', '--expect', '1h')).filter(
      (row) => row.silent,
    );
    assert.deepEqual(
      silent.map(({ client }) => client),
      ['client3'],
    );
  });
});
