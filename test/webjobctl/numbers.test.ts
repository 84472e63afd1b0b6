// Numbers that an operator relies on and no other test checks: bytes served and received, free
// space, the longest silence.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { collect } from '../support/bare.ts';
import { makeLockerSite, WEBJOBCTL } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';

const its = makeLockerSite({ UseGMT: 'Y' });
const { site, webjobctl, readJson } = its;
const DAY_MS = 86_400_000;
const ago = (days: number): Date => new Date(Math.floor((Date.now() - days * DAY_MS) / 1000) * 1000);

before(() => {
  const sent = [1000, 20, 3, 500_000];
  plantPast(site, 'UTC', [
    // Different clients, each silent since then; not sorted by name.
    ...[40, 39, 38, 37, 36, 35, 34].map((days, index) => ({ at: ago(days), clientId: `c${(index * 3) % 7}` })),
    ...sent.map((bytesSent, index) => ({
      at: ago(4 - index / 10),
      clientId: 'counted',
      get: { bytesSent },
      put: { bytesReceived: 7 * 10 ** index },
    })),
    // None of these was accepted, and the first was not served.
    { at: ago(3), clientId: 'counted', get: { status: 404, bytesSent: 0 }, put: false, out: false },
    { at: ago(2), clientId: 'counted', get: { bytesSent: 0 }, put: { status: 456, bytesReceived: 99 }, out: false },
  ]);
});
after(its.close);

/** Samples of metrics, by name and labels without the site; `wrapper` precedes Node. */
async function readMetrics(...node: string[]): Promise<Map<string, number>> {
  const words = [...node, WEBJOBCTL, '--config', site.propertiesFile, 'metrics', '--textfile', '-'];
  const ran = await collect(spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] }), 60);
  assert.equal(ran.exitCode, 0, ran.stderr);
  return new Map(
    ran.stdout
      .toString()
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.replace(`{site="${site.base}"}`, '').replace(`{site="${site.base}",`, '{'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
}

describe('webjobctl metrics', () => {
  it('adds up the bytes of all jobs', async () => {
    const metrics = await readMetrics();
    // Seven jobs of 19 bytes out and 10 in, planted by default.
    assert.equal(metrics.get('webjob_served_bytes'), 7 * 19 + 501_023);
    assert.equal(metrics.get('webjob_uploaded_bytes'), 7 * 10 + 7777);
    assert.equal(metrics.get('webjob_requests{method="GET",status="200"}'), 12);
    assert.equal(metrics.get('webjob_requests{method="GET",status="404"}'), 1);
    assert.equal(metrics.get('webjob_requests{method="PUT",status="200"}'), 11);
    assert.equal(metrics.get('webjob_requests{method="PUT",status="456"}'), 1);
    assert.equal(metrics.get('webjob_clients'), 8);
    assert.equal(metrics.get('webjob_locker_groups{state="complete"}'), 11);
  });

  it('shows as free what the web server can still write, not what is reserved for root', async () => {
    const shim = join(site.root, 'statfs.cjs');
    const disk = { type: 0, bsize: 4096, blocks: 1000, bfree: 600, bavail: 500, files: 90, ffree: 80 };
    writeFileSync(shim, `require('node:fs').statfsSync = () => (${JSON.stringify(disk)});\n`);
    const metrics = await readMetrics(`--require=${shim}`);
    assert.equal(metrics.get('webjob_locker_free_bytes'), 500 * 4096);
    assert.equal(metrics.get('webjob_locker_size_bytes'), 1000 * 4096);
    assert.equal(metrics.get('webjob_locker_free_inodes'), 80);
    // File systems that allocate inodes on demand report none.
    writeFileSync(
      shim,
      `require('node:fs').statfsSync = () => (${JSON.stringify({ ...disk, files: 0, ffree: 0 })});\n`,
    );
    const without = await readMetrics(`--require=${shim}`);
    assert.equal(without.get('webjob_locker_free_inodes'), undefined);
  });
});

describe('webjobctl clients', () => {
  it('adds up what each was sent and what it uploaded', async () => {
    const [client] = await readJson<Record<string, unknown>>('clients', '--client', 'counted');
    const { bytesSent, bytesReceived, jobs, done, refused, failureRate } = client ?? {};
    assert.deepEqual({ bytesSent, bytesReceived }, { bytesSent: 501_023, bytesReceived: 7777 });
    assert.deepEqual({ jobs, done, refused, failureRate }, { jobs: 6, done: 4, refused: 2, failureRate: 0.3333 });
  });

  it('shows as silent the clients that were granted nothing for that long', async () => {
    const silentAt = async (span: string): Promise<string[]> =>
      (await readJson<{ client: string; silent: boolean }>('clients', '--expect', span))
        .filter(({ silent }) => silent)
        .map(({ client }) => client);
    // client1 has a directory of commands and was never seen.
    assert.deepEqual(await silentAt('36d'), ['c0', 'c2', 'c3', 'c5', 'c6', 'client1']);
    assert.deepEqual(await silentAt('50d'), ['client1']);
    assert.equal((await webjobctl('clients', '--expect', '50d')).exitCode, 1);
    assert.equal((await webjobctl('clients', '--expect', '50d', '--client', 'counted')).exitCode, 0);
  });
});

describe('webjobctl report', () => {
  it('lists the silent clients, the longest silent first', async () => {
    const folder = join(site.root, 'report');
    const { exitCode, stderr } = await webjobctl('report', '--html', folder, '--since', '60d', '--silent', '10d');
    assert.equal(exitCode, 0, stderr);
    const page = readFileSync(join(folder, 'index.html'), 'utf8');
    const part = page.slice(page.indexOf('Silent clients, the longest silent first'));
    const names = [...part.matchAll(/<th scope="row" class="client"><a [^>]*>(\w+)<\/a>/g)].map(([, name]) => name);
    assert.deepEqual(names, ['c0', 'c3', 'c6', 'c2', 'c5', 'c1', 'c4']);
    assert.match(page, /<dt>clients silent<\/dt><dd class="warn">7<\/dd>/);
    assert.match(page, /<dt>bytes received<\/dt><dd>7\.8 kB<\/dd>/);
  });
});
