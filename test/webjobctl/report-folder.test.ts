// The directory that webjobctl report makes: never an incomplete one in its place, whenever it is
// killed; only its own directories are ever removed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillLocker, makeLockerSite, WEBJOBCTL } from '../support/locker-site.ts';
import { readFiles } from '../support/tree.ts';

const its = makeLockerSite();
const folder = join(its.site.root, 'reports');
const report = join(folder, 'report');
const run = (...args: string[]) => its.webjobctl('report', '--html', report, '--since', '2000-01-01', ...args);

before(async () => {
  await fillLocker(its);
});
after(its.close);
beforeEach(() => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
});

/** Throws AssertionError for an incomplete page or a dead link. */
function checkWhole(): void {
  const pages = readdirSync(report, { recursive: true }).map(String);
  assert.ok(pages.includes('index.html'));
  for (const page of pages.filter((name) => name.endsWith('.html'))) {
    const text = readFileSync(join(report, page), 'utf8');
    assert.ok(text.endsWith('</html>\n'), `${page} ends early`);
    for (const [, target = ''] of text.matchAll(/<a [^>]*href="([^"#]+)"/g))
      assert.ok(pages.includes(normalize(join(dirname(page), target))), `${page} leads to ${target}`);
  }
}

/** The id of a process that is gone. */
function deadPid(): number {
  const { pid } = spawnSync('true');
  return pid;
}

it('a report takes the place of an older one, its mode, and nothing from the locker', async () => {
  const locker = readFiles(its.site.incoming);
  assert.equal((await run()).exitCode, 0);
  assert.equal(statSync(report).mode & 0o777, 0o755);
  for (const name of readdirSync(report, { recursive: true }).map(String)) {
    const found = lstatSync(join(report, name));
    assert.equal(found.mode & 0o777, found.isDirectory() ? 0o755 : 0o644, name);
  }
  chmodSync(report, 0o750);
  writeFileSync(join(report, 'client', 'old.html'), 'old');
  assert.equal((await run()).exitCode, 0);
  assert.equal(statSync(report).mode & 0o777, 0o750);
  assert.ok(!existsSync(join(report, 'client', 'old.html')));
  assert.deepEqual(readdirSync(folder), ['report']);
  assert.deepEqual(readFiles(its.site.incoming), locker);
  checkWhole();
});

it('webjobctl report says with --json what it made', async () => {
  const [line, more] = await its.readJson('report', '--html', report, '--since', '2000-01-01', '--limit', '2');
  const { since, ...made } = line as Record<string, unknown>;
  assert.deepEqual([made, more], [{ report, pages: 12, written: 12, jobs: 9, jobPages: 2 }, undefined]);
  assert.equal(new Date(String(since)).getFullYear(), 2000);
  assert.equal(readdirSync(join(report, 'job')).length, 2);
  assert.match(readFileSync(join(report, 'jobs.html'), 'utf8'), /The newest 2 of 9 jobs have a page here/);
  checkWhole();
});

describe('foreign content', () => {
  it('is left alone, and the exit code reports it', async () => {
    mkdirSync(report);
    writeFileSync(join(report, 'thesis.txt'), 'years of work');
    const ran = await run();
    assert.equal(ran.exitCode, 4);
    assert.match(ran.stderr, /contains other files\nwebjobctl: hint: name a directory that is new/);
    assert.deepEqual(readdirSync(folder), ['report']);
    assert.equal(readFileSync(join(report, 'thesis.txt'), 'utf8'), 'years of work');
  });

  it('is left alone behind a link and under the name of a file', async () => {
    const elsewhere = join(its.site.root, 'elsewhere');
    mkdirSync(elsewhere, { recursive: true });
    symlinkSync(elsewhere, report);
    assert.equal((await run()).exitCode, 4);
    assert.deepEqual(readdirSync(elsewhere), []);
    rmSync(report);
    writeFileSync(report, 'a file');
    assert.equal((await run()).exitCode, 4);
    assert.equal(readFileSync(report, 'utf8'), 'a file');
  });

  it('is not overwritten in the locker, by whatever path it is named', async () => {
    const link = join(its.site.root, 'way');
    symlinkSync(its.site.incoming, link);
    for (const path of [its.site.incoming, join(its.site.incoming, 'report'), join(link, 'report')]) {
      const ran = await its.webjobctl('report', '--html', path);
      assert.deepEqual([ran.exitCode, /in the locker/.test(ran.stderr)], [2, true], path);
    }
    const above = await its.webjobctl('report', '--html', its.site.base);
    assert.deepEqual([above.exitCode, /contains other files/.test(above.stderr)], [4, true]);
  });

  it('is never followed from a stream that is a link', async () => {
    const secret = join(its.site.root, 'secret');
    writeFileSync(secret, 'the root of all evil');
    const out = readdirSync(its.site.incoming).find((name) => name.endsWith('.out')) ?? '';
    const path = join(its.site.incoming, out);
    renameSync(path, `${secret}.out`);
    symlinkSync(secret, path);
    assert.equal((await run()).exitCode, 0);
    for (const page of readdirSync(report, { recursive: true })
      .map(String)
      .filter((name) => name.endsWith('.html')))
      assert.doesNotMatch(readFileSync(join(report, page), 'utf8'), /the root of all evil/);
    rmSync(path);
    renameSync(`${secret}.out`, path);
  });
});

describe('a report that is killed', () => {
  it('leaves the old report complete at any moment, and the next run cleans up', async () => {
    assert.equal((await run()).exitCode, 0);
    const program = join(import.meta.dirname, '..', '..', 'dist', 'webjobctl');
    const args = [program, '--config', its.site.propertiesFile, 'report', '--html', report, '--since', '2000-01-01'];
    const startedAt = Date.now();
    await run();
    let duration = Date.now() - startedAt;
    let killed = 0;
    for (let round = 0; round < 16; round++) {
      const child = spawn(process.execPath, args, { stdio: 'ignore' });
      const ended = once(child, 'exit');
      await sleep((duration * (0.4 + 0.6 * (round / 16))) | 0);
      child.kill('SIGKILL');
      const [, signal] = await ended;
      if (signal === 'SIGKILL') killed++;
      // It took longer when it was measured.
      else duration *= 0.8;
      if (!existsSync(report)) {
        // Between the two renames the old one waits beside it.
        assert.ok(readdirSync(folder).some((name) => name.endsWith('.old')));
        assert.equal((await run()).exitCode, 0);
      }
      checkWhole();
    }
    assert.ok(killed > 4, `only ${killed} were killed`);
    assert.equal((await run()).exitCode, 0);
    assert.deepEqual(readdirSync(folder), ['report']);
  });

  it('has the old report restored first when it was killed between the two renames', async () => {
    assert.equal((await run()).exitCode, 0);
    const pid = deadPid();
    renameSync(report, join(folder, `.report.${pid}.old`));
    mkdirSync(join(folder, `.report.${pid}.new`));
    // A run that fails because it cannot read its log.
    const log = readFileSync(its.site.logFile);
    rmSync(its.site.logFile);
    assert.equal((await run()).exitCode, 4);
    writeFileSync(its.site.logFile, log);
    assert.deepEqual(readdirSync(folder), ['report']);
    checkWhole();
  });

  it('does not touch what a concurrent run has there', async () => {
    const other = `.report.${process.pid}.new`;
    mkdirSync(join(folder, other));
    assert.equal((await run()).exitCode, 0);
    assert.deepEqual(readdirSync(folder).sort(), [other, 'report']);
  });

  it('leaves one report when two are made at once', async () => {
    // Each in a process of its own, because a run removes what a process that is gone has left.
    const args = [WEBJOBCTL, '--config', its.site.propertiesFile, 'report', '--html', report, '--since', '2000-01-01'];
    for (let round = 0; round < 3; round += 1) {
      const children = Array.from({ length: 3 }, () => spawn(process.execPath, args, { stdio: 'ignore' }));
      const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]));
      assert.deepEqual(codes, [0, 0, 0]);
    }
    assert.deepEqual(readdirSync(folder), ['report']);
    checkWhole();
  });
});

it('webjobctl report refuses unusable settings before it writes anything', async () => {
  for (const args of [['--limit', '0'], ['--limit', '10001'], ['--since', 'yesterday'], ['--silent', '2'], ['more']]) {
    const { exitCode, stderr } = await run(...args);
    assert.equal(exitCode, 2, `${args}: ${stderr}`);
  }
  assert.equal((await its.webjobctl('report')).exitCode, 2);
  const { exitCode, stderr } = await its.webjobctl('report', '--html', join(folder, 'no', 'where'));
  assert.deepEqual([exitCode, /ENOENT/.test(stderr)], [4, true]);
  assert.deepEqual(readdirSync(folder), []);
});
