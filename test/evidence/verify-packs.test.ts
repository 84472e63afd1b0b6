// webjobctl verify and archives: archived uploads stay evidence, so a changed or missing archive is
// reported like an upload, and so is an upload that was changed before it was archived, or is
// missing after it was unpacked.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { makeOldLocker, type OldLocker, setAge } from '../support/keep-site.ts';

let locker: OldLocker;
let base = '';
beforeEach(async () => {
  locker = await makeOldLocker([{ days: 40 }, { days: 40, clientId: 'client2' }, { days: 1 }]);
});
afterEach(() => locker.close());

async function pack(): Promise<void> {
  const { exitCode, stderr } = await locker.webjobctl('pack', '--older-than', '30d');
  assert.equal(exitCode, 0, stderr);
  const [manifest = ''] = readdirSync(join(locker.site.base, 'packed')).filter((name) => name.endsWith('.jsonl'));
  base = join(locker.site.base, 'packed', manifest.slice(0, -6));
}

async function verify(...args: string[]): Promise<string[]> {
  const lines = await locker.readJson<{ kind: string; place: string }>('verify', ...args);
  assert.equal(lines.pop()?.kind, 'summary');
  return lines.map(({ kind, place }) => `${kind} ${place.replaceAll(/\d{4}-\d\d-\d\d/g, 'DAY')}`).sort();
}

describe('webjobctl verify with archives', () => {
  it('finds nothing in an unchanged archive, even after it was unpacked or pruned', async () => {
    await pack();
    assert.deepEqual(await verify(), []);
    const bytes = async (...args: string[]): Promise<number> =>
      (await locker.readJson<{ bytes: number }>('verify', ...args)).at(-1)?.bytes ?? 0;
    const { size } = statSync(`${base}.jsonl`);
    assert.equal(await bytes('--custody'), size, 'of the archive only its manifest is read');
    assert.ok((await bytes()) > size + statSync(`${base}.tar.gz`).size);
    assert.equal((await locker.webjobctl('unpack', base.slice(-10))).exitCode, 0);
    assert.deepEqual(await verify(), []);
    await pack();
    assert.deepEqual(await verify(), []);
    assert.equal((await locker.webjobctl('prune', '--older-than', '30d', '--yes')).exitCode, 0);
    assert.deepEqual(readdirSync(join(locker.site.base, 'packed')), []);
    assert.deepEqual(await verify(), []);
  });

  it('finds an archive or a manifest that was changed or removed', async () => {
    await pack();
    for (const file of [`${base}.tar.gz`, `${base}.jsonl`]) {
      const place = `packed/DAY${file.slice(base.length)}`;
      const bytes = readFileSync(file);
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(60) ^ 1, 60);
      writeFileSync(file, flipped);
      assert.deepEqual(await verify(), [`pack-changed ${place}`]);
      for (const other of [Buffer.concat([bytes, Buffer.of(0)]), bytes.subarray(0, -1)]) {
        writeFileSync(file, other);
        assert.deepEqual(await verify('--custody'), [`pack-changed ${place}`], `${other.length} of ${bytes.length}`);
      }
      truncateSync(file, 70);
      assert.deepEqual(await verify('--custody'), [`pack-changed ${place}`]);
      rmSync(file);
      assert.deepEqual(await verify('--custody'), [`pack-missing ${place}`]);
      assert.deepEqual(await verify('--since', '1h'), [`pack-missing ${place}`]);
      writeFileSync(file, bytes);
      assert.deepEqual(await verify(), []);
    }
  });

  it('finds an unrecorded archive', async () => {
    await pack();
    for (const extension of ['tar.gz', 'jsonl']) copyFileSync(`${base}.${extension}`, `${base}.7.${extension}`);
    assert.deepEqual(await verify(), ['unrecorded packed/DAY.7.jsonl']);
  });

  it('finds changes in the locker from before it was packed', async () => {
    const [first = '', second = ''] = locker.names;
    const path = (name: string): string => join(locker.site.incoming, name);
    writeFileSync(path(`${first}.out`), '41 days ago\n');
    writeFileSync(path(`${second}.err`), 'told more\n');
    for (const name of [first, second]) setAge(locker.site, name, 40);
    await pack();
    const found = [`digest-changed packed/DAY: ${first}.out`, `size-changed packed/DAY: ${second}.err`];
    assert.deepEqual(await verify(), found);
    assert.deepEqual(await verify('--custody'), found);
  });

  it('misses an upload that was unpacked and is gone', async () => {
    await pack();
    await locker.webjobctl('unpack', base.slice(-10));
    const [first = ''] = locker.names;
    for (const file of readdirSync(locker.site.incoming))
      if (file.startsWith(`${first}.`)) renameSync(join(locker.site.incoming, file), join(locker.site.root, file));
    assert.deepEqual(await verify(), [`group-missing ${first}`]);
  });
});
