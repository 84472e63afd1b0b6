// The limits of a client, as webjobctl shows and removes them: counts of the real server, in files
// of the web user, who may replace each of them by a link.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { reserve, type Slot, takeSlot } from 'webjob-locker';
import { addUser, configure } from '../../scripts/site.ts';
import { makeLockerSite } from '../support/locker-site.ts';

const LIMITS = { MaxRequestsAtOnce: '4', MaxUploadsPerDay: '10', MaxBytesPerDay: '5000000' };
const its = makeLockerSite();
const { site } = its;
const limits = join(site.base, 'limits');
const own = (name = ''): string => join(limits, 'client1', name);
after(() => its.close());
beforeEach(() => {
  rmSync(own(), { recursive: true, force: true });
  rmSync(join(site.base, 'config'), { recursive: true, force: true });
  configure(site, LIMITS);
});

const day = (offset: number): string =>
  new Date(Date.now() + offset * 86_400_000).toISOString().slice(0, 10).replaceAll('-', '');

/** As another server of the site counts it. */
function countElsewhere(serverId: string, bytes: number, ofDay = day(0)): void {
  const held = reserve(own(), { day: ofDay, oldest: day(-1), serverId }, bytes, { bytes: 0, uploads: 0 });
  assert.ok(typeof held === 'object');
  held.close();
}

async function show(code = 0): Promise<string[]> {
  const { exitCode, text, stderr } = await its.webjobctl('client', 'show', 'client1');
  assert.equal(exitCode, code, stderr);
  return text.split('\n').filter((line) => /^(?:requests|uploads|bytes) /.test(line));
}

const upload = async (): Promise<void> => {
  const answer = await its.put({ clientId: 'client1', fileName: 'host.sh', out: 'x'.repeat(1000), err: '', env: '' });
  assert.equal(answer.status, 200);
};

describe('webjobctl client show', () => {
  it('shows what the client has used today, on all servers, of its limits', async () => {
    assert.deepEqual(await show(), [
      'requests     0 of 4 at once',
      'uploads      0 of 10 today (UTC)',
      'bytes        0 B of 5.0 MB today (UTC)',
    ]);
    await upload();
    countElsewhere('server_2', 499_000);
    countElsewhere('server_2', 7000, day(-1));
    const slots: (Slot | undefined)[] = [takeSlot(own(), 'server_1', 4), takeSlot(own(), 'server_2', 4)];
    symlinkSync('1-1', own('slot-server_1-3'));
    try {
      assert.deepEqual(await show(), [
        'requests     1 of 4 at once',
        'uploads      2 of 10 today (UTC)',
        'bytes        500 kB of 5.0 MB today (UTC)',
      ]);
      const [row] = await its.readJson<{ limits: unknown }>('client', 'show', 'client1');
      assert.deepEqual(row?.limits, {
        requests: { limit: 4, used: 1 },
        uploads: { limit: 10, used: 2 },
        bytes: { limit: 5_000_000, used: 500_000 },
      });
    } finally {
      for (const slot of slots) slot?.release();
    }
  });

  it('follows the override of the client, and has no line for a limit that is not set', async () => {
    const folder = join(site.base, 'config/nph-webjob/clients/client1');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'nph-webjob.cfg'), 'MaxUploadsPerDay=20\nMaxBytesPerDay=0\n');
    configure(site, { ...LIMITS, EnableConfigOverrides: 'Y' });
    assert.deepEqual((await show()).slice(1), ['uploads      0 of 20 today (UTC)']);
    configure(site, { ...LIMITS, EnableConfigOverrides: 'N' });
    assert.equal((await show()).length, 3);
    configure(site, { EnableConfigOverrides: 'Y' });
    writeFileSync(join(folder, 'nph-webjob.cfg'), 'MaxUploadsPerDay=many\n');
    const { exitCode, stderr } = await its.webjobctl('client', 'show', 'client1');
    assert.deepEqual(
      [exitCode, /the override of client1: MaxUploadsPerDay in .* is not allowed/.test(stderr)],
      [3, true],
      stderr,
    );
    configure(site, { EnableConfigOverrides: 'N' });
    assert.deepEqual(await show(), []);
  });

  it('does not follow a link of the web user', async () => {
    const target = join(site.root, 'of-root');
    mkdirSync(join(target, 'client1'), { recursive: true });
    countElsewhere('server_2', 1000);
    const record = `day-${day(0)}-server_2`;
    writeFileSync(join(target, 'client1', record), readFileSync(own(record)));
    rmSync(own(record));
    symlinkSync(join(target, 'client1', record), own(record));
    const { exitCode, stderr } = await its.webjobctl('client', 'show', 'client1');
    assert.deepEqual([exitCode, stderr.includes(`the counts of client1 cannot be read: ELOOP`)], [4, true], stderr);
    assert.ok(stderr.includes(`'${own(record)}'`), stderr);
    rmSync(own(), { recursive: true });
    symlinkSync(join(target, 'client1'), own());
    assert.equal((await show())[1], 'uploads      0 of 10 today (UTC)');
    rmSync(own());
  });
});

describe('webjobctl client remove', () => {
  const remove = async (code = 0): Promise<string> => {
    const { exitCode, stderr } = await its.webjobctl('client', 'remove', 'client1');
    assert.equal(exitCode, code, stderr);
    return stderr;
  };
  beforeEach(() => {
    writeFileSync(site.userFile, '');
    addUser(site, 'client1', 'foo');
  });

  it('removes the counts of the client, and nothing of another', async () => {
    await upload();
    countElsewhere('server_2', 1000);
    symlinkSync('1-1', own('slot-server_1-3'));
    mkdirSync(join(limits, 'client2'), { recursive: true });
    try {
      assert.doesNotMatch(await remove(), /warning/);
      assert.deepEqual(readdirSync(limits), ['client2']);
      mkdirSync(own());
      assert.doesNotMatch(await remove(1), /warning/, 'what a client left that was removed before');
      assert.deepEqual(readdirSync(limits), ['client2']);
    } finally {
      rmSync(join(limits, 'client2'), { recursive: true });
    }
  });

  it('leaves files that are not counts, and reports them', async () => {
    countElsewhere('server_2', 1000);
    writeFileSync(own('notes'), '');
    assert.match(await remove(), /warning: the counts of its limits are not removed: ENOTEMPTY/);
    assert.deepEqual(readdirSync(own()), ['notes']);
  });

  it('removes nothing through a link of the web user', async () => {
    const target = join(site.root, 'elsewhere');
    mkdirSync(target);
    writeFileSync(join(target, 'day-20261130-server_1'), '');
    symlinkSync(target, own());
    await remove();
    assert.ok(existsSync(join(target, 'day-20261130-server_1')));
    rmSync(own());
    countElsewhere('server_2', 1000);
    symlinkSync(join(target, 'day-20261130-server_1'), own('day-20261130-server_3'));
    assert.doesNotMatch(await remove(1), /warning/);
    assert.ok(existsSync(join(target, 'day-20261130-server_1')));
  });
});
