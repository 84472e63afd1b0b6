// Several sites read as one: each made by real CGI processes, with its own locker, log and
// ServerId.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeLockerSite, makeRecord, type Ran, runWebjobctl, WEBJOBCTL } from '../support/locker-site.ts';

interface Shown {
  site?: string;
  jobId: string;
  client: string;
}

describe('webjobctl with two sites', () => {
  const [east, west] = [makeLockerSite({ ServerId: 'east_1' }), makeLockerSite({ ServerId: 'west_1' })];
  const names = [east, west].map(({ site }) => site.propertiesFile);
  const both = names.flatMap((name) => ['--config', name]);
  /** In the order in which they ended: east, west, east. */
  const jobs: string[] = [];
  before(async () => {
    for (const [its, fileName, out] of [
      [east, 'host.sh', 'one\nneedle east\n'],
      [west, 'host.sh', 'two\nneedle west\n'],
      [east, 'ps.sh', 'three\n'],
    ] as const) {
      // The log has whole seconds.
      await untilNextSecond();
      jobs.push(await its.run({ clientId: 'client1', fileName, out }));
    }
    await west.run({ clientId: 'client2', fileName: 'host.sh', record: { KidStatus: '1' } });
  });
  after(() => {
    for (const its of [east, west]) its.close();
  });

  const run = (...args: string[]): Promise<Ran> => runWebjobctl([...both, ...args]);
  async function readJson(...args: string[]): Promise<Shown[]> {
    const { text } = await run('--json', ...args);
    return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Shown]));
  }

  it('lists their jobs in one order of time, with the site of each', async () => {
    const shown = await readJson('jobs', '--client', 'client1');
    assert.deepEqual(
      shown.map(({ site, jobId }) => [site, jobId]),
      [0, 1, 0].map((which, index) => [names[which], jobs[index]]),
    );
    const { text } = await run('jobs', '--client', 'client1', '--limit', '2');
    const [titles = '', ...rows] = text.trimEnd().split('\n');
    assert.match(titles, /STATUS {2}SITE$/);
    assert.deepEqual(
      rows.map((row) => row.split(/ +/).at(-1)),
      [names[1], names[0]],
    );
  });

  it('does not name the site when there is one', async () => {
    const [one] = await east.readJson<Shown>('jobs');
    assert.equal(one && 'site' in one, false);
    assert.doesNotMatch((await east.webjobctl('jobs')).text, /SITE/);
    assert.doesNotMatch((await east.webjobctl('show', jobs[0] ?? '')).text, /^Site:/m);
  });

  it('shows a job of either', async () => {
    for (const [index, which] of [0, 1].entries()) {
      const { text, exitCode } = await run('show', jobs[index] ?? '');
      assert.equal(exitCode, 0);
      assert.match(text, new RegExp(`^Site: +${names[which]}$`, 'm'));
      assert.match(text, /\nneedle (?:east|west)\n/);
    }
    assert.equal((await run('show', 'nowhere_1')).exitCode, 1);
  });

  it('compares jobs across sites', async () => {
    const { text, exitCode } = await run('diff', jobs[0] ?? '', jobs[1] ?? '');
    assert.equal(exitCode, 1);
    assert.match(text, /\n-needle east\n\+two\n\+needle west\n$/);
  });

  it('searches all of them', async () => {
    const hits = await readJson('search', 'needle', '--in', 'out');
    assert.deepEqual(
      hits.map(({ site, jobId }) => [site, jobId]),
      [0, 1].map((which) => [names[which], jobs[which]]),
    );
  });

  it('counts a client of both once', async () => {
    type Client = { client: string; jobs: number; failed: number; lastSeen: string };
    const clients = (await readJson('clients')) as unknown as Client[];
    assert.deepEqual(
      clients.map(({ client, jobs: count, failed }) => [client, count, failed]),
      [
        ['client1', 3, 0],
        ['client2', 1, 1],
      ],
    );
    const [inEast] = await east.readJson<Client>('clients');
    assert.equal(clients[0]?.lastSeen, inEast?.lastSeen, 'its newest request was in the first site');
  });

  it('changes nothing in several, and follows only one', async () => {
    for (const words of [['prune', '--older-than', '1d'], ['index'], ['report', '--html', '/nowhere']]) {
      const { exitCode, stderr } = await run(...words);
      assert.equal(exitCode, 2, words.join(' '));
      assert.equal(
        stderr,
        `webjobctl: error: ${words[0]} works on one site at a time\nwebjobctl: hint: give --config once\n`,
      );
    }
    const { exitCode, stderr } = await run('jobs', '--watch');
    assert.equal(exitCode, 2);
    assert.match(stderr, /only one site can be followed/);
  });

  it('works as docs/scale.md shows', () => {
    const folder = join(east.site.root, 'words');
    mkdirSync(folder);
    for (const [index, name] of ['east', 'west'].entries())
      copyFileSync(names[index] ?? '', join(folder, `${name}.cfg`));
    writeFileSync(join(folder, 'webjobctl'), `#!/bin/sh\nexec "${process.execPath}" "${WEBJOBCTL}" "$@"\n`, {
      mode: 0o755,
    });
    const page =
      readFileSync(join(import.meta.dirname, '../../docs/scale.md'), 'utf8').split('## Several lockers')[1] ?? '';
    const [reading = '', pruning = ''] = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block);
    const words = (text: string): string =>
      text.replaceAll('/etc/webjob', folder).replace(/west_1_\d{10}_\d{5}/, jobs[1] ?? '');
    const env = { PATH: `${folder}${delimiter}${process.env.PATH}` };
    const sh = (text: string) => spawnSync('/bin/sh', ['-c', text], { env, encoding: 'utf8', timeout: 60_000 });
    const [define = '', ...lines] = words(reading).trimEnd().split('\n');
    assert.equal(lines.length, 4);
    const said = lines.map((line) => sh(`${define}\n${line}`));
    assert.deepEqual(
      said.map(({ status, stderr }) => [status, stderr]),
      // Nothing was denied.
      [0, 1, 0, 0].map((status) => [status, '']),
    );
    assert.match(said[0]?.stdout ?? '', /client2 .*west\.cfg\n$/);
    assert.match(said[2]?.stdout ?? '', /\nneedle west\n/);
    const pruned = sh(words(pruning));
    assert.deepEqual([pruned.status, pruned.stderr], [0, '']);
    assert.equal(pruned.stdout.trimEnd().split('\n').length, 2);
  });

  it('names the unusable file', async () => {
    const { exitCode, stderr } = await runWebjobctl([...both, '--config', '/nowhere/nph-webjob.cfg', 'jobs']);
    assert.equal(exitCode, 3);
    assert.match(stderr, /^webjobctl: error: \/nowhere\/nph-webjob\.cfg does not exist\n/);
  });

  it('reads every log of one locker, even of servers with the same id', async () => {
    const its = makeLockerSite({ ServerId: 'east_1' });
    try {
      const first = await its.run({ clientId: 'client1', fileName: 'host.sh' });
      const [conf, logs] = [join(its.site.root, 'other.cfg'), join(its.site.root, 'other-logs')];
      mkdirSync(logs);
      const settings = readFileSync(its.site.propertiesFile, 'utf8').replace(/^LogfilesDirectory=.*\n/m, '');
      writeFileSync(conf, `${settings}\nLogfilesDirectory=${logs}\n`);
      const line = '2026-11-01 00:00:00 second client1 127.0.0.1 GET client1 host.sh 0 19 0 200 -- Success\n';
      writeFileSync(join(logs, 'nph-webjob.log'), line);
      const { text, stderr } = await runWebjobctl(['-c', its.site.propertiesFile, '-c', conf, '--json', 'jobs']);
      const ids = text
        .trimEnd()
        .split('\n')
        .map((one) => JSON.parse(one).jobId);
      // The second has not ended.
      assert.deepEqual(ids, [first, 'second'], stderr);
    } finally {
      its.close();
    }
  });

  it('asks for the site when both have a job of that id', async () => {
    const copied = { clientId: 'client3', fileName: 'host.sh', jobId: 'copied_1', env: makeRecord({}) };
    for (const its of [east, west]) assert.equal((await its.put(copied)).status, 200);
    const { exitCode, stderr } = await run('show', 'copied_1');
    assert.equal(exitCode, 2);
    for (const name of names) assert.match(stderr, new RegExp(`^  copied_1 client3 host\\.sh ${name}$`, 'm'));
    assert.match(stderr, /hint: --config or --client tells them apart\n/);
  });
});

async function untilNextSecond(): Promise<void> {
  const left = 1000 - (Date.now() % 1000);
  await new Promise((resolve) => setTimeout(resolve, left));
}
