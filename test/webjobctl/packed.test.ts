// Archived uploads are still listed, shown, compared and searched, even when the log no longer has
// them: stored by the server, archived by webjobctl itself.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatTime } from 'webjob-protocol';
import { readSite } from '../../admin/site/site.ts';
import { readSettings } from '../../cgi/settings.ts';
import { openStreams } from '../../ledger/streams.ts';
import { makeLockerSite, makeRecord, nextSecond } from '../support/locker-site.ts';

interface Shown {
  jobId: string;
  client: string;
  command: string;
  state: string;
  exitCode: number | null;
  signal: number | null;
  group: string | null;
  pack: string | null;
  record: Record<string, string>;
}

describe('webjobctl with packed uploads', () => {
  const its = makeLockerSite();
  const { site, webjobctl, readJson } = its;
  const host = { clientId: 'client1', fileName: 'host.sh' };
  let [good, failed, killed, young] = ['', '', '', ''];
  before(async () => {
    good = await its.run({ ...host, out: 'same\nbefore\n' });
    await nextSecond();
    failed = await its.run({ ...host, out: 'packed\xff\n', err: 'a needle\n', record: { KidStatus: '3' } });
    await nextSecond();
    killed = await its.run({ ...host, record: { KidSignal: '9' } });
    const longAgo = Date.now() / 1000 - 5 * 86_400;
    for (const name of readdirSync(site.incoming)) utimesSync(join(site.incoming, name), longAgo, longAgo);
    const { stderr, exitCode } = await webjobctl('pack', '--older-than', '2d');
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(readdirSync(site.incoming), []);
    young = await its.run({ ...host, out: 'same\nafter\n' });
  });
  after(its.close);

  const list = async (...args: string[]): Promise<unknown[]> =>
    (await readJson<Shown>('jobs', ...args)).map(({ jobId, state, exitCode, signal }) => [
      jobId,
      state,
      exitCode,
      signal,
    ]);

  /** The manifest or the archive file of the only archive. */
  function findPacked(extension: '.jsonl' | '.tar.gz'): string {
    const [name] = readdirSync(join(site.base, 'packed')).filter((one) => one.endsWith(extension));
    assert.ok(name);
    return join(site.base, 'packed', name);
  }

  it('shows in jobs how they ended', async () => {
    const expected = [
      [good, 'done', 0, null],
      [failed, 'failed', 3, null],
      [killed, 'failed', 0, 9],
      [young, 'done', 0, null],
    ];
    assert.deepEqual(await list(), expected);
    assert.deepEqual(await list('--since', '1h'), expected);
    assert.deepEqual(await list('--state', 'failed'), expected.slice(1, 3));
    const [client] = await readJson<Record<string, unknown>>('clients');
    assert.deepEqual([client?.done, client?.failed, client?.failureRate], [2, 2, 0.5]);
  });

  it('shows the same in index and export', async () => {
    const files = await list();
    const { pack } = (await readJson<Record<string, unknown>>('export', '--client', 'client1'))[1] ?? {};
    assert.match(String(pack), /^\d{4}-\d\d-\d\d: client1_\d{14}_\d+_host\.sh$/);
    assert.equal((await webjobctl('index')).exitCode, 0);
    assert.deepEqual(await list(), files);
    const [read] = await readJson<{ read: number; jobs: number }>('index');
    assert.equal(read?.jobs, 4);
  });

  it('shows it for an archive of an earlier version', async () => {
    const path = findPacked('.jsonl');
    const text = readFileSync(path, 'utf8');
    const old = text.replaceAll(/,"ending":\{[^}]*\}/g, '');
    assert.ok(old.length < text.length);
    writeFileSync(path, old);
    try {
      assert.deepEqual((await list()).slice(1, 3), [
        [failed, 'failed', 3, null],
        [killed, 'failed', 0, 9],
      ]);
    } finally {
      writeFileSync(path, text);
    }
  });

  it('warns of a damaged manifest, and loses nothing else', async () => {
    const path = findPacked('.jsonl');
    const text = readFileSync(path, 'utf8');
    writeFileSync(path, text.replace('"offset":', '"offset":-1,"was":'));
    try {
      const { stderr, exitCode, text: shown } = await webjobctl('jobs');
      assert.equal(exitCode, 0);
      assert.match(stderr, /warning: .*\.jsonl is damaged/);
      assert.equal(shown.trim().split('\n').length, 5);
    } finally {
      writeFileSync(path, text);
    }
  });

  it('reads streams that are before the damage in a manifest', async () => {
    const path = findPacked('.jsonl');
    const text = readFileSync(path, 'utf8');
    const names = text.split('\n').flatMap((line) => (line.includes('"offset":') ? [JSON.parse(line).name] : []));
    const at = text.lastIndexOf('"offset":');
    writeFileSync(path, `${text.slice(0, at)}"offset":-1,"was":${text.slice(at + 9)}`);
    try {
      const pack = basename(path, '.jsonl');
      const jobs = names.map((name) => ({ group: undefined, packed: { pack, name } }));
      const streamsOf = await openStreams(readSite(site.propertiesFile), jobs);
      const [first, , last] = jobs;
      assert.ok(first && last);
      assert.ok(streamsOf(first).out);
      assert.throws(() => streamsOf(last), /line \d+: not an upload of a manifest/);
    } finally {
      writeFileSync(path, text);
    }
  });

  it('loses no other upload by a damaged name in a manifest', async () => {
    const path = findPacked('.jsonl');
    const bytes = readFileSync(path);
    const damaged = Buffer.from(bytes);
    const at = damaged.indexOf('client1');
    damaged.writeUInt8(damaged.readUInt8(at) | 0x80, at);
    writeFileSync(path, damaged);
    try {
      assert.deepEqual((await list()).slice(1, 3), [
        [failed, 'failed', 3, null],
        [killed, 'failed', 0, 9],
      ]);
    } finally {
      writeFileSync(path, bytes);
    }
  });

  it('shows in show how one ended, and prints a stream byte for byte', async () => {
    const [shown] = await readJson<Shown>('show', failed);
    assert.deepEqual([shown?.state, shown?.exitCode, shown?.group, shown?.record.KidStatus], ['failed', 3, null, '3']);
    assert.match(String(shown?.pack), /^\d{4}-\d\d-\d\d: client1_\d{14}_\d+_host\.sh$/);
    assert.equal((await webjobctl('show', failed, '--out')).stdout.toString('latin1'), 'packed\xff\n');
    assert.match((await webjobctl('show', failed)).text, /\nArchived in: .*\n[\s\S]*\na needle\n$/);
  });

  /** What the page of a job in a report says, and the messages while it was made. */
  async function readPage(jobId: string): Promise<{ page: string; stderr: string }> {
    const folder = join(site.root, 'report');
    const { stderr, exitCode } = await webjobctl('report', '--html', folder);
    assert.equal(exitCode, 0, stderr);
    const [name = ''] = readdirSync(join(folder, 'job')).filter((one) => one.startsWith(`${jobId}-`));
    return { page: readFileSync(join(folder, 'job', name), 'utf8'), stderr };
  }

  it('shows in report the output, and that it is what was received', async () => {
    const { page, stderr } = await readPage(failed);
    assert.match(page, /client1_\d{14}_\d+_host\.sh<\/span>, in the archive \d{4}-\d\d-\d\d</);
    assert.match(page, /packed<span class="shown">\\xff<\/span>\n</);
    assert.match(page, /a needle\n</);
    assert.match(page, />verified<\/a>/);
    assert.match(page, /\.env<\/th><td><span class="state good">as received</);
    assert.doesNotMatch(stderr, /warning/);
  });

  it('reports one whose archive is damaged', async () => {
    const path = findPacked('.tar.gz');
    const bytes = readFileSync(path);
    writeFileSync(path, bytes.subarray(0, 100));
    try {
      const { page, stderr } = await readPage(failed);
      assert.match(page, />does not verify<\/a>/);
      assert.match(page, /pack-changed packed\/[\d-]+\.tar\.gz: /);
      assert.match(stderr, /warning: client1_\d{14}_\d+_host\.sh: .*\.tar\.gz: /);
    } finally {
      writeFileSync(path, bytes);
    }
  });

  it('compares one with another in diff, and leaves no copy', async () => {
    const copies = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('webjob-diff-'));
    const before = copies();
    const one = await webjobctl('diff', good, young);
    assert.equal(one.text, `--- ${good} out\n+++ ${young} out\n@@ -1,2 +1,2 @@\n same\n-before\n+after\n`);
    assert.equal(one.exitCode, 1);
    const both = await webjobctl('diff', good, failed, '--err');
    assert.match(both.text, /\n\+a needle\n$/);
    assert.equal((await webjobctl('diff', good, killed, '--err')).exitCode, 0);
    const [previous] = await readJson<{ from: string }>('diff', young);
    assert.equal(previous?.from, killed);
    assert.deepEqual(
      copies().filter((name) => !before.includes(name)),
      [],
    );
  });

  it('finds their lines in search', async () => {
    const { text } = await webjobctl('search', 'needle');
    assert.equal(text, `client1 host.sh ${failed} err:1: a needle\n`);
    assert.equal((await webjobctl('search', 'needle', '--since', '1d')).exitCode, 1);
    assert.equal((await webjobctl('search', 'needle', '--since', '6d', '--client', 'client*')).exitCode, 0);
  });

  it('skips what is damaged in search, finds the rest, and says so', async () => {
    const folder = join(site.base, 'packed');
    const names = readdirSync(folder);
    const [archive, manifest] = ['.tar.gz', '.jsonl'].map((end) =>
      join(folder, names.find((name) => name.endsWith(end)) ?? ''),
    );
    assert.ok(archive && manifest);
    const [bytes, lines] = [readFileSync(archive), readFileSync(manifest, 'utf8')];
    const [, offset] = new RegExp(`^.*"jobId":"${good}".*"offset":(\\d+)`, 'm').exec(lines) ?? [];
    try {
      writeFileSync(archive, Buffer.from(bytes).fill(0xff, Number(offset) + 12, Number(offset) + 60));
      const damaged = await webjobctl('search', 'needle');
      assert.equal(damaged.text, `client1 host.sh ${failed} err:1: a needle\n`);
      assert.match(
        damaged.stderr,
        /^webjobctl: warning: skipped: .*\.tar\.gz: damaged, .*\nwebjobctl: error: skipped parts/,
      );
      assert.equal(damaged.exitCode, 4);
      writeFileSync(archive, bytes);
      writeFileSync(manifest, 'garbage\n');
      const garbled = await webjobctl('search', 'after');
      assert.match(garbled.text, new RegExp(`^client1 host\\.sh ${young} out:2: after\n$`));
      assert.match(garbled.stderr, /^webjobctl: warning: skipped: .*\.jsonl: /);
      assert.equal(garbled.exitCode, 4);
    } finally {
      writeFileSync(archive, bytes);
      writeFileSync(manifest, lines);
    }
  });

  it('finds them when the lines of the log are gone', async () => {
    const log = readFileSync(site.logFile, 'latin1');
    writeFileSync(
      site.logFile,
      log
        .split('\n')
        .filter((line) => line.includes(young))
        .join('\n')
        .concat('\n'),
    );
    try {
      const orphans = (await list('--state', 'orphan')) as string[][];
      assert.deepEqual(new Set(orphans.map(([jobId]) => jobId)), new Set([good, failed, killed]));
      assert.deepEqual(
        orphans.find(([jobId]) => jobId === failed),
        [failed, 'orphan', 3, null],
      );
      const [shown] = await readJson<Shown>('show', failed);
      assert.deepEqual([shown?.client, shown?.command, shown?.record.KidStatus], ['client1', 'host.sh', '3']);
      assert.deepEqual(await list('--since', '1d'), [[young, 'done', 0, null]]);
    } finally {
      writeFileSync(site.logFile, log);
    }
  });
});

describe('webjobctl jobs of a site without job ids', () => {
  const its = makeLockerSite({ EnableJobIds: 'N' });
  after(its.close);

  it('tells packed uploads apart by their times', async () => {
    const host = { clientId: 'client1', fileName: 'host.sh' };
    await its.put({ ...host, out: 'one', env: makeRecord({ KidStatus: '4' }) });
    await its.put({ ...host, out: 'two', env: makeRecord({}) });
    const { incoming, logFile } = its.site;
    const groups = readdirSync(incoming).flatMap((name) => /^(.+)\.rdy$/.exec(name)?.[1] ?? []);
    assert.equal(groups.length, 2);
    const isFirst = (name: string): boolean => readFileSync(join(incoming, `${name}.out`), 'utf8') === 'one';
    const longAgo = Math.floor(Date.now() / 1000) - 5 * 86_400;
    // They are an hour apart, in the log and in the locker.
    const times = [longAgo, longAgo + 3600];
    for (const name of groups)
      for (const extension of ['out', 'err', 'env', 'rdy']) {
        const time = times[isFirst(name) ? 0 : 1] ?? 0;
        utimesSync(join(incoming, `${name}.${extension}`), time, time);
      }
    const useGmt = readSettings(its.site.propertiesFile).settings.useGMT;
    const lines = readFileSync(logFile, 'latin1').trimEnd().split('\n');
    const dated = lines.map((line, index) => formatTime(new Date((times[index] ?? 0) * 1000), useGmt) + line.slice(19));
    writeFileSync(logFile, `${dated.join('\n')}\n`);
    const read = async (): Promise<unknown> =>
      (await its.readJson<Shown>('jobs')).map(({ state, exitCode }) => [state, exitCode]);
    const expected = [
      ['failed', 4],
      ['done', 0],
    ];
    assert.equal((await its.webjobctl('pack', '--older-than', '2d')).exitCode, 0);
    assert.deepEqual(readdirSync(incoming), []);
    assert.deepEqual(await read(), expected);
  });
});
