// pack and unpack, on lockers made by real CGI processes: every byte and every time is restored,
// other programs can read an archive, and damage is reported and never mistaken for a complete
// archive.
import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readGroup } from '../../archive/archive.ts';
import { readManifest } from '../../archive/manifest.ts';
import {
  filesOf,
  groupNames,
  makeOldLocker,
  type OldLocker,
  readCustody,
  readTimes,
  unpackByTar,
} from '../support/keep-site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';
import { readFiles } from '../support/tree.ts';

const AT = new Date(Date.now() - 40 * 86_400_000);

const LONG = `${'long-name'.repeat(12)}.sh`;
const BINARY = String.fromCharCode(...Array.from({ length: 256 }, (_, byte) => byte)).repeat(4000);

function packed(locker: OldLocker): string[] {
  const folder = join(locker.site.base, 'packed');
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

function dayOf(days: number): string {
  const then = new Date(Date.now() - days * 86_400_000);
  const local = new Date(then.getTime() - then.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 10);
}

describe('webjobctl pack', () => {
  let locker: OldLocker;
  let files: Map<string, string>;
  let times: Record<string, number>;
  before(async () => {
    const settings = { PutNameFormat: '%cid/%s_%pid_%cmd' };
    locker = await makeOldLocker(
      [
        { days: 40, out: BINARY },
        { days: 40, command: LONG },
        { days: 35, clientId: 'client2', out: '' },
        { days: 35, clientId: 'held' },
        { days: 1 },
      ],
      settings,
    );
    files = readFiles(locker.site.incoming);
    times = readTimes(locker.site);
    await locker.webjobctl('hold', 'add', '--client', 'held', '--reason', 'case 4711');
  });
  after(() => locker.close());

  it('lists days with --dry-run and touches nothing', async () => {
    const lines = await locker.readJson<{ day: string; groups: number }>('pack', '--older-than', '30d', '--dry-run');
    assert.deepEqual(
      lines.map(({ day, groups }) => [day, groups]),
      [
        [dayOf(40), 2],
        [dayOf(35), 1],
      ],
    );
    assert.deepEqual(readFiles(locker.site.incoming), files);
    assert.deepEqual(packed(locker), []);
  });

  it('puts each day into an archive that every tar reads, and removes the originals', async () => {
    const lines = await locker.readJson<{ pack: string; archiveSha256: string }>('pack', '--older-than', '30d');
    assert.deepEqual(
      lines.map(({ pack }) => pack),
      [dayOf(40), dayOf(35)],
    );
    assert.deepEqual(
      packed(locker),
      [dayOf(40), dayOf(35)].flatMap((day) => [`${day}.jsonl`, `${day}.tar.gz`]),
    );
    const [, , , held = '', young = ''] = locker.names;
    assert.deepEqual(groupNames(locker.site), [young, held].sort());
    const unpacked = unpackByTar(locker.site);
    assert.equal(unpacked.size, 12);
    for (const name of locker.names.slice(0, 3)) assert.deepEqual(filesOf(unpacked, name), filesOf(files, name));
    const records = readCustody(locker.site).filter(({ event }) => event === 'pack');
    assert.deepEqual(
      records.map(({ pack, archiveSha256 }) => [pack, archiveSha256]),
      lines.map(({ pack, archiveSha256 }) => [pack, archiveSha256]),
    );
  });

  it('lets one upload be read without the others', async () => {
    const base = join(locker.site.base, 'packed', dayOf(40));
    for (const group of readManifest(`${base}.jsonl`)) {
      const found: Record<string, string> = {};
      for await (const { extension, chunks } of readGroup(`${base}.tar.gz`, group)) {
        const parts: Buffer[] = [];
        for await (const chunk of chunks) parts.push(chunk);
        found[`${group.name}.${extension}`] = Buffer.concat(parts).toString('latin1');
      }
      assert.deepEqual(found, filesOf(files, group.name));
    }
  });

  it('can be read only by those who could read every upload in it', async () => {
    const modes: [locker: number, file: number, gid: number, pack: number][] = [
      [0o755, 0o644, 0, 0o644],
      [0o755, 0o640, 0, 0o640],
      [0o755, 0o640, 1, 0o600],
      [0o755, 0o600, 0, 0o600],
      [0o750, 0o644, 0, 0o640],
      [0o700, 0o644, 0, 0o600],
    ];
    for (const [locker, file, gid, expected] of modes) {
      const own = makeLockerSite({ UseGMT: 'Y' });
      try {
        plantPast(own.site, 'UTC', [
          { at: AT, name: 'one' },
          { at: AT, name: 'two' },
        ]);
        chmodSync(join(own.site.incoming, 'two.out'), file);
        if (process.getuid?.() === 0) chownSync(join(own.site.incoming, 'two.out'), 0, gid);
        else if (gid !== 0) continue;
        chmodSync(own.site.incoming, locker);
        assert.equal((await own.webjobctl('pack', '--older-than', '30d')).exitCode, 0);
        const packed = join(own.site.base, 'packed');
        const found = readdirSync(packed).map((name) => statSync(join(packed, name)).mode & 0o777);
        assert.deepEqual(found, [expected, expected], `${[locker, file, gid].map((mode) => mode.toString(8))}`);
      } finally {
        own.close();
      }
    }
  });

  it('does nothing when there is nothing to do', async () => {
    const { exitCode, text } = await locker.webjobctl('pack', '--older-than', '30d');
    assert.deepEqual([exitCode, text], [0, '']);
  });

  it('is undone by unpack, which restores every byte and every time', async () => {
    for (const day of [dayOf(40), dayOf(35)]) {
      const { exitCode, stderr } = await locker.webjobctl('unpack', day);
      assert.equal(exitCode, 0, stderr);
    }
    assert.deepEqual(readFiles(locker.site.incoming), files);
    assert.deepEqual(readTimes(locker.site), times);
    assert.deepEqual(packed(locker), []);
    assert.deepEqual(
      readCustody(locker.site).map(({ event }) => event),
      ['hold', 'pack', 'pack', 'unpack', 'unpack'],
    );
  });
});

describe('webjobctl unpack', () => {
  it('restores the longest name that an upload can have', async () => {
    const command = 'c'.repeat(255 - 'client1_.out'.length);
    const locker = await makeOldLocker([{ days: 40, command }], { PutNameFormat: '%cid_%cmd' });
    try {
      const files = readFiles(locker.site.incoming);
      assert.equal(files.size, 4);
      assert.equal((await locker.webjobctl('pack', '--older-than', '30d')).exitCode, 0);
      const { exitCode, stderr } = await locker.webjobctl('unpack', dayOf(40));
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(readFiles(locker.site.incoming), files);
    } finally {
      locker.close();
    }
  });

  it('writes nothing through a link that replaced a directory', async () => {
    const locker = await makeOldLocker([{ days: 40 }], { PutNameFormat: '%cid/%s_%pid_%cmd' });
    try {
      assert.equal((await locker.webjobctl('pack', '--older-than', '30d')).exitCode, 0);
      const [folder, elsewhere] = [join(locker.site.incoming, 'client1'), join(locker.site.root, 'elsewhere')];
      renameSync(folder, elsewhere);
      symlinkSync(elsewhere, folder);
      const { exitCode, stderr } = await locker.webjobctl('unpack', dayOf(40));
      assert.equal(exitCode, 4);
      assert.match(stderr, /incoming\/client1 is not a directory/);
      assert.deepEqual(readdirSync(elsewhere), []);
      assert.equal(packed(locker).length, 2);
      rmSync(folder);
      assert.equal((await locker.webjobctl('unpack', dayOf(40))).exitCode, 0);
    } finally {
      locker.close();
    }
  });
});

describe('webjobctl pack with irregular uploads', () => {
  let locker: OldLocker;
  before(async () => {
    locker = await makeOldLocker([{ days: 40 }, { days: 40 }, { days: 40 }]);
  });
  after(() => locker.close());

  it('leaves an incomplete upload, and reports it', async () => {
    const [first = '', second = ''] = locker.names;
    rmSync(join(locker.site.incoming, `${first}.err`));
    writeFileSync(join(locker.site.incoming, `${second}.lck`), 'Jid=writing\n');
    const { exitCode, stderr } = await locker.webjobctl('pack', '--older-than', '30d');
    assert.equal(exitCode, 1);
    assert.match(stderr, /incomplete uploads, and uploads being changed, stay: 1, first client1_/);
    assert.deepEqual(groupNames(locker.site), [first, second].sort());
    assert.equal(unpackByTar(locker.site).size, 4);
  });

  it('packs the rest of a day into one more archive', async () => {
    const [first = '', second = ''] = locker.names;
    writeFileSync(join(locker.site.incoming, `${first}.err`), '');
    rmSync(join(locker.site.incoming, `${second}.lck`));
    const lines = await locker.readJson<{ pack: string }>('pack', '--older-than', '30d');
    assert.deepEqual(
      lines.map(({ pack }) => pack),
      [`${dayOf(40)}.2`],
    );
    assert.equal(unpackByTar(locker.site).size, 12);
    assert.deepEqual(groupNames(locker.site), []);
  });

  it('does not restore what would overwrite another upload', async () => {
    const [, second = ''] = locker.names;
    writeFileSync(join(locker.site.incoming, `${second}.out`), 'another\n');
    const { exitCode, stderr } = await locker.webjobctl('unpack', `${dayOf(40)}.2`);
    assert.equal(exitCode, 1);
    assert.match(stderr, /their names are taken, and the archive stays: 1 upload/);
    assert.equal(readFileSync(join(locker.site.incoming, `${second}.out`), 'utf8'), 'another\n');
    assert.ok(packed(locker).includes(`${dayOf(40)}.2.tar.gz`));
    assert.ok(!readdirSync(locker.site.incoming).some((file) => file.endsWith('.unpack')));
  });

  it('reports a damaged archive and a truncated manifest', async () => {
    const base = join(locker.site.base, 'packed', dayOf(40));
    const archive = readFileSync(`${base}.tar.gz`);
    writeSync(openSync(`${base}.tar.gz`, 'r+'), Buffer.from([(archive[60] ?? 0) ^ 1]), 0, 1, 60);
    const damaged = await locker.webjobctl('unpack', dayOf(40));
    assert.equal(damaged.exitCode, 4);
    assert.match(damaged.stderr, /\.tar\.gz: damaged, /);
    // One that is cut off in the middle of an upload does not leave half a stream behind either.
    const lies = (): string[] => readdirSync(locker.site.incoming).sort();
    const before = lies();
    const last =
      readFileSync(`${base}.jsonl`, 'utf8')
        .match(/"offset":\d+,"length":\d+/g)
        ?.at(-1) ?? '';
    const [offset = 0, length = 0] = last.match(/\d+/g)?.map(Number) ?? [];
    for (let end = offset + 1; end < offset + length / 2; end += 16) {
      writeFileSync(`${base}.tar.gz`, archive.subarray(0, end));
      const { exitCode, stderr } = await locker.webjobctl('unpack', dayOf(40));
      assert.match(`${exitCode} ${stderr}`, /^4 [\s\S]*\.tar\.gz: damaged, /);
      assert.doesNotMatch(stderr, /\n +at /);
      assert.deepEqual(
        lies().filter((file) => file.endsWith('.unpack')),
        [],
      );
    }
    for (const file of lies()) if (!before.includes(file)) rmSync(join(locker.site.incoming, file));
    writeFileSync(`${base}.tar.gz`, archive);
    const manifest = readFileSync(`${base}.jsonl`, 'utf8');
    writeFileSync(`${base}.jsonl`, manifest.replace(/[^\n]*\n$/, ''));
    const cut = await locker.webjobctl('unpack', dayOf(40));
    assert.equal(cut.exitCode, 4);
    assert.match(cut.stderr, /the manifest is truncated/);
    const evils = [
      manifest.replace(/"name":"[^"]*"/, '"name":"../../../evil"'),
      manifest.replace(/"offset":0/, '"offset":9007199254740991'),
      manifest.replace('\n', '\nnull\n'),
    ];
    for (const evil of evils) {
      writeFileSync(`${base}.jsonl`, evil);
      const { exitCode, stderr } = await locker.webjobctl('unpack', dayOf(40));
      assert.equal(exitCode, 4);
      assert.match(stderr, /not (?:an upload|a line) of a manifest\n$/);
    }
    assert.deepEqual(packed(locker).filter((file) => file.startsWith(`${dayOf(40)}.tar`)).length, 1);
    writeFileSync(`${base}.jsonl`, manifest);
  });

  it('makes an archive that is pruned as a whole, and not while a part is on hold', async () => {
    const prune = async (): Promise<string> => (await locker.webjobctl('prune', '--older-than', '30d', '--yes')).text;
    await locker.webjobctl('hold', 'add', '--client', 'client1', '--reason', 'case 4711');
    assert.equal(await prune(), '');
    await locker.webjobctl('hold', 'remove', '--client', 'client1', '--reason', 'closed');
    assert.match(await prune(), new RegExp(`^archive ${dayOf(40)}\narchive ${dayOf(40)}\\.2\n`));
    assert.deepEqual(packed(locker), []);
    const names = readCustody(locker.site).flatMap(({ event, groups }) =>
      event === 'prune' ? (groups ?? []).map(({ name }) => name) : [],
    );
    for (const name of locker.names) assert.ok(names.includes(name), 'every group of a pack is on record');
  });
});
