// webjobctl tail and jobs --watch: what is added to the log while they run, across both kinds of
// rotation.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { giveAway } from '../support/hooks-site.ts';
import { type FilledLocker, fillLocker, makeLockerSite, WEBJOBCTL } from '../support/locker-site.ts';

const its = makeLockerSite();
const { site, webjobctl, readJson } = its;
let ids: FilledLocker;
before(async () => {
  ids = await fillLocker(its);
});
after(its.close);

const host = { clientId: 'client1', fileName: 'host.sh' };

/**
 * A running webjobctl with its output, and a promise for the moment at which that contains a text.
 */
function stay(...args: string[]): {
  waitFor(text: string): Promise<string>;
  end(): Promise<void>;
  child: ChildProcess;
} {
  const child = spawn(process.execPath, [WEBJOBCTL, '-c', site.propertiesFile, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let seen = '';
  child.stdout.on('data', (piece) => {
    seen += piece;
  });
  return {
    child,
    async waitFor(text) {
      for (let tries = 0; !seen.includes(text) && tries < 600; tries++)
        await new Promise((resolve) => setTimeout(resolve, 50));
      assert.ok(seen.includes(text), `${text} in ${seen}`);
      return seen;
    },
    async end() {
      if (child.exitCode === null && child.signalCode === null) {
        const closed = once(child, 'close');
        child.kill('SIGINT');
        await closed;
      }
    },
  };
}

function rotate(): void {
  renameSync(site.logFile, `${site.logFile}.1`);
  writeFileSync(site.logFile, '');
  giveAway(site.logFile);
}

describe('webjobctl tail', () => {
  it('shows the given number of lines, even of a compressed log', async () => {
    const { text } = await webjobctl('tail', '-n', '2');
    const lines = text.trimEnd().split('\n');
    assert.equal(lines.length, 2);
    assert.match(
      lines[1] ?? '',
      /^[-\d]+ [:\d]+ {2}client1 +PUT host\.sh +23 B {2}456 Content-Length Mismatch: .* {2}server_1_\d+_\d+$/,
    );
    const all = await readJson<Record<string, unknown>>('tail', '--lines', '1000');
    assert.equal(all.length, 14);
    assert.deepEqual([all[0]?.jobId, all[0]?.method, all[0]?.status, all[0]?.bytesSent], [ids.first, 'GET', 200, 19]);
    rotate();
    spawnSync('gzip', [`${site.logFile}.1`]);
    assert.equal((await readJson('tail', '-n', '3')).length, 3);
    assert.equal((await webjobctl('tail', '-n', '0')).exitCode, 2);
  });

  it('follows the log when it is renamed and when it is emptied', async () => {
    const tail = stay('tail', '-n', '1', '-f');
    try {
      await tail.waitFor(ids.incomplete);
      await tail.waitFor(await its.run(host));
      rotate();
      await tail.waitFor(await its.run(host));
      copyFileSync(site.logFile, `${site.logFile}.0`);
      truncateSync(site.logFile);
      // When it is truncated and written again before the next look, a log that is longer than
      // before cannot be told from one that grew.
      await new Promise((resolve) => setTimeout(resolve, 2000));
      const jobId = await its.run(host);
      const seen = await tail.waitFor(`PUT host.sh`);
      await tail.waitFor(jobId);
      assert.ok(!seen.includes(ids.first));
    } finally {
      await tail.end();
    }
  });
});

describe('webjobctl jobs --watch', () => {
  it('prints jobs as they end, with their output, until it is interrupted', async () => {
    const watch = stay('jobs', '--watch', '--columns', 'job,state,exit');
    const listed = stay('--json', 'jobs', '--watch', '--since', '1h', '--state', 'failed');
    try {
      await listed.waitFor(ids.failed);
      // The titles are printed after everything that already existed.
      await watch.waitFor('JOB');
      const jobId = await its.run({ ...host, record: { KidStatus: '7' } });
      const seen = await watch.waitFor(jobId);
      assert.match(seen, new RegExp(`${jobId} +failed +7\n`));
      assert.ok(!seen.includes(ids.failed));
      await listed.waitFor(`"jobId":"${jobId}"`);
      await its.get('client1', 'nothing.sh');
      await watch.waitFor('refused');
    } finally {
      await watch.end();
      await listed.end();
    }
    assert.equal(watch.child.signalCode, 'SIGINT');
  });
});
