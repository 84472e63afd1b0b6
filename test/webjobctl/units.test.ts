// DURATION, TIME and SIZE in every unit, and the numbers in the output of prune, pack, unpack and
// verify, each compared with the files themselves.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { collect } from '../support/bare.ts';
import { groupNames, WEBJOBCTL } from '../support/keep-site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';
import { readFiles } from '../support/tree.ts';
import { refuse } from '../support/webjobctl-words.ts';

const [SECOND, MINUTE, HOUR, DAY] = [1000, 60_000, 3_600_000, 86_400_000];
/** Ages: one on each side of a duration in every unit. */
const AGES: [duration: string, younger: number, older: number][] = [
  ['2w', 13.9 * DAY, 15.5 * DAY],
  ['3d', 2.9 * DAY, 3.1 * DAY],
  ['5h', 4.9 * HOUR, 5.1 * HOUR],
  ['90m', 89 * MINUTE, 91 * MINUTE],
  ['1800s', 1700 * SECOND, 1900 * SECOND],
];

const its = makeLockerSite({ UseGMT: 'Y' });
const { site, webjobctl, readJson } = its;
const started = Date.now();
before(() => {
  const ages = AGES.flatMap(([, younger, older]) => [older, younger]);
  plantPast(
    site,
    'UTC',
    ages.map((age, index) => ({
      at: new Date(Math.floor((started - age) / 1000) * 1000),
      name: `upload${index}`,
      out: 'x'.repeat(1000 * (index + 1)),
    })),
  );
});
after(its.close);

/** The size of the files of some uploads. */
function sizeOf(...names: string[]): number {
  const files = [...readFiles(site.incoming)].filter(([path]) => names.includes(path.replace(/\.\w+$/, '')));
  return files.reduce((sum, [, content]) => sum + content.length, 0);
}

const allNames = (): string[] => groupNames(site);

describe('a DURATION', () => {
  it('is in seconds, minutes, hours, days or weeks', async () => {
    for (const [index, [duration]] of AGES.entries()) {
      const younger = await readJson<unknown>('jobs', '--since', duration);
      assert.equal(younger.length, AGES.length * 2 - 2 * index - 1, `--since ${duration}`);
      const older = await readJson<unknown>('jobs', '--until', duration);
      assert.equal(older.length, 2 * index + 1, `--until ${duration}`);
      const gone = await readJson<{ name?: string }>('prune', '--older-than', duration, '--dry-run');
      assert.equal(gone.filter(({ name }) => name !== undefined).length, 2 * index + 1, `--older-than ${duration}`);
    }
  });

  it('has a number and one unit', async () => {
    assert.equal((await webjobctl('prune', '--older-than=5y', '--dry-run')).exitCode, 2);
    for (const wrong of ['', '5', 'd', '5y', '-5d', '1.5d', '5 d', '5D', '5dd', '1d5h', '1234567d'])
      assert.match(
        await refuse('prune', `--older-than=${wrong}`, '--dry-run'),
        /^webjobctl: error: option '--older-than /,
      );
  });
});

describe('a TIME', () => {
  it('is a date, a date and a time, or ISO 8601 with a zone', async () => {
    const count = async (text: string): Promise<number> => (await readJson<unknown>('jobs', '--since', text)).length;
    // Of two that are 89 and 91 minutes old, the newer one.
    const between = started - 90 * MINUTE;
    const iso = new Date(between).toISOString();
    const shifted = new Date(between + 5.5 * HOUR).toISOString();
    for (const text of [iso, iso.replace(/\.\d+/, ''), iso.replace('Z', '+00:00'), shifted.replace('Z', '+05:30')])
      assert.equal(await count(text), 3, text);
    assert.equal(await count('1970-01-01'), AGES.length * 2);
    for (const wrong of ['2026-13-01', '2026-02-30T25:00', '26-01-01', '2026-01-01 1:00', 'now', '2026-01-01+01:00'])
      assert.match(await refuse('jobs', '--since', wrong), /^webjobctl: error: option '--since /);
    assert.equal((await webjobctl('jobs', '--since', 'now')).exitCode, 2);
  });
});

describe('a SIZE', () => {
  it('counts a kilobyte as a thousand bytes', async () => {
    const total = sizeOf(...allNames());
    const over = async (size: string): Promise<number> => {
      const lines = await readJson<{ name?: string }>('prune', '--max-bytes', size, '--dry-run');
      return lines.filter(({ name }) => name !== undefined).length;
    };
    const oldest = sizeOf('upload0');
    for (const [size, count] of [
      [String(total), 0],
      [String(total - 1), 1],
      [String(total - oldest), 1],
      [String(total - oldest - 1), 2],
      [`${Math.ceil(total / 1000)}k`, 0],
      [`${Math.floor(total / 1000)}K`, 1],
      [`${Math.floor(total / 1000)}kB`, 1],
      ['1M', 0],
      ['1G', 0],
      ['1T', 0],
      ['0', AGES.length * 2],
    ] as const)
      assert.equal(await over(size), count, size);
    for (const wrong of ['', 'k', '1.5k', '1P', '-1', '1kk', '9999999999999'])
      assert.match(
        await refuse('prune', `--max-bytes=${wrong}`, '--dry-run'),
        /^webjobctl: error: option '--max-bytes /,
      );
    assert.equal((await webjobctl('prune', '--max-bytes=1P', '--dry-run')).exitCode, 2);
  });
});

describe('the totals in a result', () => {
  it('are those of the files in verify', async () => {
    const summary = (await readJson<Record<string, unknown>>('verify')).at(-1);
    const streams = [...readFiles(site.incoming)].filter(([path]) => !path.endsWith('.rdy'));
    const bytes = streams.reduce((sum, [, content]) => sum + content.length, 0);
    const { groups, findings, inProgress, older } = summary ?? {};
    assert.deepEqual({ groups, bytes: summary?.bytes }, { groups: AGES.length * 2, bytes });
    assert.deepEqual({ findings, inProgress, older }, { findings: 0, inProgress: 0, older: 0 });
    // One upload is being written, and another has lost a stream.
    writeFileSync(join(site.incoming, 'working.lck'), 'Jid=server_1_1085355126_00009\n');
    const lost = readFileSync(join(site.incoming, 'upload1.err'));
    rmSync(join(site.incoming, 'upload1.err'));
    const changed = (await readJson<Record<string, unknown>>('verify')).at(-1);
    assert.deepEqual([changed?.groups, changed?.findings, changed?.inProgress], [AGES.length * 2 + 1, 1, 1]);
    writeFileSync(join(site.incoming, 'upload1.err'), lost);
    rmSync(join(site.incoming, 'working.lck'));
  });

  it('are those of the archive in pack and unpack', async () => {
    const day = new Date(Math.floor((started - 15.5 * DAY) / 1000) * 1000).toISOString().slice(0, 10);
    const names = ['upload0'];
    const bytes = sizeOf(...names);
    const planned = await readJson<Record<string, unknown>>('pack', '--older-than', '2w', '--dry-run');
    assert.deepEqual(planned[0], { day, groups: 1, bytes, dryRun: true });
    const [made] = await readJson<Record<string, unknown>>('pack', '--older-than', '2w');
    const archive = readFileSync(join(site.base, 'packed', `${day}.tar.gz`));
    const archiveSha256 = createHash('sha256').update(archive).digest('hex');
    assert.deepEqual(made, { day, pack: day, groups: 1, archiveBytes: archive.length, archiveSha256 });
    const listed = await readJson<Record<string, unknown>>('prune', '--older-than', '2w', '--dry-run');
    const { groups, packs, held, heldPacks, locked } = listed.at(-1) ?? {};
    assert.deepEqual([groups, packs, held, heldPacks, locked], [0, 1, 0, 0, 0]);
    assert.equal((await webjobctl('hold', 'add', '--client', 'client1', '--reason', 'r')).exitCode, 0);
    const kept = (await readJson<Record<string, unknown>>('prune', '--older-than', '3d', '--dry-run')).at(-1);
    assert.deepEqual([kept?.groups, kept?.packs, kept?.held, kept?.heldPacks], [0, 0, 2, 1]);
    await webjobctl('hold', 'remove', '--client', 'client1', '--reason', 'r');
    assert.deepEqual(await readJson('unpack', day), [{ pack: day, groups: 1, taken: 0 }]);
    assert.equal(sizeOf(...names), bytes);
  });

  it('are those of the removed files in prune', async () => {
    const names = ['upload0', 'upload1', 'upload2'];
    const bytes = sizeOf(...names);
    writeFileSync(join(site.incoming, 'upload1.lck'), 'Jid=server_1_1085355126_00009\n');
    const lines = await readJson<Record<string, unknown>>('prune', '--older-than', '3d', '--yes');
    const lockedBytes = sizeOf('upload1');
    const { groups, bytes: gone, locked, excessBytes, dryRun } = lines.at(-1) ?? {};
    const lock = statSync(join(site.incoming, 'upload1.lck')).size;
    assert.deepEqual(
      { groups, gone, locked, excessBytes, dryRun },
      { groups: 2, gone: bytes - lockedBytes + lock, locked: 1, excessBytes: 0, dryRun: false },
    );
    assert.deepEqual(
      lines.slice(0, -1).map(({ name, action }) => [name, action]),
      [
        ['upload0', 'removed'],
        ['upload2', 'removed'],
      ],
    );
    const left = await webjobctl('--json', 'prune', '--max-bytes', '0', '--yes');
    const summary = JSON.parse(left.text.trimEnd().split('\n').at(-1) ?? '') as Record<string, unknown>;
    assert.deepEqual([left.exitCode, summary.locked, summary.excessBytes], [1, 1, sizeOf('upload1')]);
    assert.deepEqual(allNames(), ['upload1']);
  });
});

describe('output of webjobctl for others', () => {
  it('can be read by them whatever the umask', async () => {
    const folder = join(site.root, 'made');
    mkdirSync(folder);
    const run = (...args: string[]) =>
      collect(
        spawn(
          '/bin/sh',
          ['-c', 'umask 077; exec "$@"', 'sh', process.execPath, WEBJOBCTL, '--config', site.propertiesFile, ...args],
          { stdio: ['ignore', 'pipe', 'pipe'] },
        ),
        60,
      );
    assert.equal((await run('report', '--html', join(folder, 'report'))).exitCode, 0);
    assert.equal((await run('metrics', '--textfile', join(folder, 'webjob.prom'))).exitCode, 0);
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      const { mode } = statSync(join(entry.parentPath, entry.name));
      assert.equal((mode & 0o777).toString(8), entry.isDirectory() ? '755' : '644', entry.name);
    }
  });
});
