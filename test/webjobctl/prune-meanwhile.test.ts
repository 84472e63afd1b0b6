// What happens during a prune: a hold that is set meanwhile counts, and a damaged record of an
// earlier prune does not stop it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readlinkSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  groupNames,
  makeOldLocker,
  type OldLocker,
  readCustody,
  runKilled,
  setAge,
  WEBJOBCTL,
} from '../support/keep-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { waitFor } from '../support/wait.ts';

const sha256 = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');

describe('webjobctl prune while a hold is set', () => {
  const hold = (locker: OldLocker) => locker.webjobctl('hold', 'add', '--client', 'client1', '--reason', 'case 4711');

  it('leaves the upload that it had begun to read', async () => {
    const locker = await makeOldLocker([{ days: 50 }, { days: 50, clientId: 'client2' }]);
    try {
      const [mine = '', other = ''] = locker.names;
      // Takes seconds to read, and no space.
      truncateSync(join(locker.site.incoming, `${mine}.out`), 1.2e9);
      setAge(locker.site, mine, 50);
      const prune = spawn(
        process.execPath,
        [WEBJOBCTL, '--config', locker.site.propertiesFile, 'prune', '--older-than', '1d', '--yes'],
        { stdio: 'ignore' },
      );
      const ended = once(prune, 'exit');
      await waitFor('prune reads the upload', () => opensFile(prune.pid, `${mine}.out`));
      assert.equal((await hold(locker)).exitCode, 0);
      assert.ok(opensFile(prune.pid, `${mine}.out`), 'the hold came in time');
      assert.deepEqual(await ended, [0, null]);
      const ready = readdirSync(locker.site.incoming).filter((file) => file.endsWith('.rdy'));
      assert.deepEqual(ready, [`${mine}.rdy`]);
      const pruned = readCustody(locker.site).flatMap(({ event, names }) => (event === 'prune' ? names : []));
      assert.deepEqual(pruned, [other]);
    } finally {
      locker.close();
    }
  });

  it('leaves the archives that are not removed yet', { skip: NO_STRACE }, async () => {
    const locker = await makeOldLocker([{ days: 60, clientId: 'client2' }, { days: 50 }]);
    try {
      assert.equal((await locker.webjobctl('pack', '--older-than', '1d')).exitCode, 0);
      const packs = join(locker.site.base, 'packed');
      const manifests = readdirSync(packs).filter((name) => name.endsWith('.jsonl'));
      const [first = ''] = manifests;
      const trace = join(locker.site.root, 'trace');
      const wrapper = inject(trace, '?unlink,?unlinkat:delay_enter=4000000:when=1', [join(packs, first)]);
      const ended = runKilled(locker.site, ['prune', '--older-than', '1d', '--yes'], undefined, wrapper);
      await waitFor('the record', () => readCustody(locker.site).some(({ event }) => event === 'prune-pack'));
      assert.equal((await hold(locker)).exitCode, 0);
      assert.ok(existsSync(join(packs, first)), 'the hold came in time');
      await ended;
      assert.deepEqual(
        readdirSync(packs).filter((name) => name.endsWith('.jsonl')),
        manifests.slice(1),
      );
    } finally {
      locker.close();
    }
  });
});

/** Whether a process has a file of that name open. */
function opensFile(pid: number | undefined, name: string): boolean {
  try {
    const folder = `/proc/${pid}/fd`;
    return readdirSync(folder).some((fd) => readlinkSync(join(folder, fd)).endsWith(`/${name}`));
  } catch {
    return false;
  }
}

describe('webjobctl prune with a mangled record of its own', () => {
  it('continues past malformed entries', async () => {
    const locker = await makeOldLocker([{ days: 50 }, { days: 1 }]);
    try {
      const [old = '', young = ''] = locker.names;
      rmSync(join(locker.site.incoming, `${young}.rdy`));
      const path = join(locker.site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl');
      const mangled = [
        '"event":"prune"',
        '"event":"prune" x',
        '"event":"prune","groups":[null]',
        '"event":"pack","names":7',
      ];
      for (const body of mangled) {
        const text = `{"covers":[0,0],"prev":"${'0'.repeat(64)}",${body}`;
        appendFileSync(path, `${text},"sum":"${sha256(text)}"}\n`);
      }
      appendFileSync(path, `${'y'.repeat(9e6)}"event":"prune"\n${'\n'.repeat(1e6)}`);
      const { exitCode, stderr } = await locker.webjobctl('prune', '--older-than', '30d', '--yes');
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(groupNames(locker.site), []);
      const verified = await locker.readJson<{ kind: string; place: string }>('verify', '--custody');
      const kinds = verified.map(({ kind }) => kind);
      assert.ok(
        ['custody-edited', 'custody-broken', 'summary'].every((kind) => kinds.includes(kind)),
        kinds.join(),
      );
      assert.ok(!existsSync(join(locker.site.incoming, `${old}.out`)));
    } finally {
      locker.close();
    }
  });
});

describe('webjobctl prune with a directory under the name of a stream', () => {
  it('leaves that upload and removes the others, also in the next run', async () => {
    const locker = await makeOldLocker([{ days: 50 }, { days: 50 }]);
    try {
      const [odd = ''] = locker.names;
      const path = join(locker.site.incoming, `${odd}.err`);
      rmSync(path);
      mkdirSync(path);
      for (let run = 0; run < 2; run++) {
        const { exitCode, stderr } = await locker.webjobctl('prune', '--older-than', '30d', '--yes');
        assert.equal(exitCode, 1, stderr);
        assert.match(stderr, /being written or changed, not removed: 1 upload\n/);
        assert.deepEqual(groupNames(locker.site), [odd]);
      }
    } finally {
      locker.close();
    }
  });
});
