// The logs under logrotate, as webjobctl init sets it up: no line is lost while a log has no name,
// and no job when a log has been renamed.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chownSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { appendLine } from '../../cgi/log.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { runBare } from '../support/bare.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { bareOptions, GET_HOST_SH, statusOf } from '../support/locker-upload.ts';

const user = process.getuid?.() === 0 ? findWebUser() : undefined;
const SHIPPED = join(import.meta.dirname, '..', '..', 'conf', 'webjob.logrotate');

describe('a log that is rotated', { skip: !user && 'owners need root' }, () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site } = its;
  after(its.close);
  const logs = join(site.base, 'logfiles');
  const jobIds = async (): Promise<string[]> => {
    const { text } = await its.webjobctl('--json', 'jobs');
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => (JSON.parse(line) as { jobId: string }).jobId)
      .sort();
  };

  const noLogrotate = spawnSync('logrotate', ['--version']).error && 'logrotate is not installed';
  it('continues in a new one of the same owner, and is read with it', { skip: noLogrotate }, async () => {
    const first = (await its.get('client1', 'host.sh')).jobId;
    const text = readFileSync(SHIPPED, 'utf8').replaceAll('/var/integrity/logfiles', logs);
    const file = join(site.root, 'webjob.logrotate');
    writeFileSync(file, text.replace('www-data', user?.name ?? ''));
    const words = ['--force', '--state', join(site.root, 'logrotate.state'), file];
    const { status, stderr } = spawnSync('logrotate', words, { encoding: 'utf8' });
    assert.deepEqual([status, stderr], [0, '']);
    const names = readdirSync(logs).filter((name) => name.startsWith('nph-webjob.log'));
    assert.equal(names.length, 2, names.join());
    const { uid, gid, mode, size } = statSync(site.logFile);
    assert.deepEqual([uid, gid, mode & 0o777, size], [user?.uid, 0, 0o644, 0]);
    const second = (await its.get('client1', 'host.sh')).jobId;
    assert.deepEqual(await jobIds(), [first, second].sort());
    // A day later, when the first one is compressed.
    for (const name of names.filter((name) => name !== 'nph-webjob.log'))
      assert.equal(spawnSync('gzip', [join(logs, name)]).status, 0);
    assert.deepEqual(await jobIds(), [first, second].sort());
  });

  it('gets the line of a request that ends while the log has no name', (t) => {
    rmSync(site.logFile);
    const asUser = (uid = user?.uid ?? 0): void => process.seteuid?.(uid);
    const waited = t.mock.method(Atomics, 'wait', () => {
      if (waited.mock.callCount() < 2) return 'timed-out';
      asUser(0);
      writeFileSync(site.logFile, '');
      chownSync(site.logFile, user?.uid ?? 0, 0);
      asUser();
      return 'timed-out';
    });
    asUser();
    try {
      appendLine({ logfilesDirectory: logs } as ServerSettings, 'nph-webjob.log', 'a line');
    } finally {
      asUser(0);
    }
    assert.deepEqual([readFileSync(site.logFile, 'utf8'), waited.mock.callCount()], ['a line\n', 3]);
  });

  it('costs a fifth of a second when nobody recreates it, and the line is reported', async () => {
    rmSync(site.logFile, { force: true });
    const { stdout, stderr } = await runBare(GET_HOST_SH, bareOptions(site));
    assert.equal(statusOf(stdout), 200);
    assert.match(stderr, /^nph-webjob: nph-webjob\.log: EACCES: .* 200 -- Success\n$/);
  });
});
