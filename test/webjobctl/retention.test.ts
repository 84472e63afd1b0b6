// prune, hold and pack where a second criterion decides: the client of an upload, the day that
// counts, and whether an archive really has the same. All selected uploads are removed, and no
// others.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { findOldPacks, prunePack } from '../../admin/retention/pack-removing.ts';
import { readSite } from '../../admin/site/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { groupNames, readCustody } from '../support/keep-site.ts';
import { type LockerSite, makeLockerSite, runWebjobctl } from '../support/locker-site.ts';
import { formatIn, type PastJob, plantPast, setTime } from '../support/past-site.ts';

const DAY_MS = 86_400_000;
const ago = (days: number): Date => new Date(Date.now() - days * DAY_MS);
const dayOf = (at: Date): string => at.toISOString().slice(0, 10);

/** A site for one test, in GMT. */
async function withSite(
  jobs: readonly PastJob[],
  test: (its: ReturnType<typeof makeLockerSite>) => Promise<void>,
  settings: Record<string, string> = {},
): Promise<void> {
  const its = makeLockerSite({ UseGMT: 'Y', ...settings });
  try {
    plantPast(its.site, 'UTC', jobs);
    await test(its);
  } finally {
    its.close();
  }
}

describe('the custody record of webjobctl', () => {
  it('names the user of sudo, and no user twice', async () => {
    const its = makeLockerSite();
    const hold = (id: string, SUDO_USER: string | undefined) =>
      runWebjobctl(['--config', its.site.propertiesFile, 'hold', 'add', '--client', id, '--reason', 'r'], {
        ...process.env,
        SUDO_USER,
      });
    try {
      const { stdout } = await runWebjobctl(['--config', its.site.propertiesFile, '--json', 'hold', 'list']);
      assert.equal(stdout.length, 0);
      const me = process.env.USER ?? '';
      await hold('a', undefined);
      const [{ by: name = me } = {}] = readCustody(its.site);
      for (const [id, user] of [
        ['b', 'alice'],
        ['c', ''],
        ['d', name],
      ] as const)
        assert.equal((await hold(id, user)).exitCode, 0);
      assert.deepEqual(
        readCustody(its.site).map(({ by }) => by),
        [name, `${name} (alice)`, name, name],
      );
      const holds = await its.readJson<{ by: string }>('hold', 'list');
      assert.deepEqual(
        holds.map(({ by }) => by),
        [name, `${name} (alice)`, name, name],
      );
    } finally {
      its.close();
    }
  });
});

describe('a hold', () => {
  it('is separate for a client and a job, even if the ids are the same', async () => {
    const id = 'server_1_1085355126_00042';
    const jobs = [
      { at: ago(50), clientId: 'other', jobId: id },
      { at: ago(50), clientId: id },
      { at: ago(50), clientId: 'free' },
    ];
    await withSite(jobs, async ({ site, webjobctl, readJson }) => {
      const add = async (kind: string) => (await webjobctl('hold', 'add', `--${kind}`, id, '--reason', kind)).exitCode;
      assert.deepEqual([await add('client'), await add('job'), await add('client'), await add('job')], [0, 0, 1, 1]);
      const holds = await readJson<{ kind: string; id: string; reason: string }>('hold', 'list');
      assert.deepEqual(
        holds.map(({ kind, reason }) => [kind, reason]),
        [
          ['client', 'client'],
          ['job', 'job'],
        ],
      );
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(
        groupNames(site).map((name) => name.split('_2')[0]),
        ['other', id],
      );
      assert.equal((await webjobctl('hold', 'remove', '--client', id, '--reason', 'r')).exitCode, 0);
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(
        groupNames(site).map((name) => name.split('_2')[0]),
        ['other'],
      );
    });
  });

  it('covers what only the name, log or record attributes to the client, and nothing of another', async () => {
    const old = { at: ago(50), command: 'x.sh' };
    const none = { get: false, put: false } as const;
    const claims = (ClientId: string) => ({ ...none, fields: { ClientId } });
    const jobs: PastJob[] = [
      // Only the name, in each place of a name.
      { ...old, ...claims('liar'), name: 'held_1_x.sh' },
      { ...old, ...claims('liar'), name: '1_held_x.sh' },
      { ...old, ...claims('liar'), name: 'x.sh-held' },
      { ...old, ...claims('liar'), name: 'held' },
      { ...old, clientId: 'held', fields: { ClientId: 'liar' }, name: 'log' },
      // The log has this id with an escape.
      { ...old, clientId: 'held', fields: { ClientId: 'liar' }, name: 'log-50', jobId: '50%' },
      { ...old, ...claims('held'), name: 'record' },
      // Other clients whose ids contain the text.
      ...['xheld', 'heldx', '1held', 'held2', 'HELD', 'unheld'].map((clientId) => ({ ...old, clientId })),
    ];
    await withSite(jobs, async ({ site, webjobctl }) => {
      await webjobctl('hold', 'add', '--client', 'held', '--reason', 'r');
      assert.equal((await webjobctl('prune', '--older-than', '30d', '--yes')).exitCode, 0);
      assert.deepEqual(groupNames(site), [
        ...['1_held_x.sh', 'held', 'held_1_x.sh', 'log', 'log-50', 'record', 'x.sh-held'],
      ]);
    });
  });

  it('covers nothing of another client when the PUT of its client was refused', async () => {
    const jobId = 'server_1_1085355126_00043';
    const jobs: PastJob[] = [
      { at: ago(50), clientId: 'thief', jobId, get: false, put: { status: 453 }, out: false },
      { at: ago(50), clientId: 'owner', jobId, name: 'a' },
      { at: ago(49), clientId: 'thief', jobId, get: false, put: { status: 500 }, out: false },
    ];
    await withSite(jobs, async ({ site, webjobctl, readJson }) => {
      await webjobctl('hold', 'add', '--client', 'thief', '--reason', 'r');
      const [group] = await readJson<Record<string, unknown>>('prune', '--older-than', '30d', '--dry-run');
      assert.deepEqual([group?.name, group?.client], ['a', 'owner']);
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(groupNames(site), []);
    });
  });
});

describe('prune --keep', () => {
  it('counts the uploads of each client and command, and keeps uploads without an owner', async () => {
    const jobs: PastJob[] = [
      ...[5, 4, 3].flatMap((days) => [
        { at: ago(days), clientId: 'a' },
        { at: ago(days), clientId: 'a', command: 'ps.sh' },
        { at: ago(days), clientId: 'b' },
      ]),
      ...[7, 6].map((days) => ({ at: ago(days), clientId: 'c', get: false as const, put: false as const })),
    ];
    await withSite(jobs, async ({ site, webjobctl }) => {
      assert.equal((await webjobctl('prune', '--keep', '2', '--yes')).exitCode, 0);
      const left = groupNames(site)
        .map((name) => name.replace(/_\d+_\d+_/, ' '))
        .sort();
      assert.deepEqual(
        left,
        [
          ...['a host.sh', 'a host.sh', 'a ps.sh', 'a ps.sh', 'b host.sh', 'b host.sh', 'c host.sh', 'c host.sh'],
        ].sort(),
      );
      const days = groupNames(site)
        .filter((name) => !name.startsWith('c'))
        .map((name) => /_(\d{8})/.exec(name)?.[1]);
      assert.ok(!days.includes(dayOf(ago(5)).replaceAll('-', '')), `${days}`);
    });
  });
});

describe('webjobctl pack', () => {
  it('selects days that ended before --older-than, and not the day that contains it', async () => {
    const noon = (days: number): Date => new Date(`${dayOf(ago(days))}T12:00:00Z`);
    const last = new Date(`${dayOf(ago(11))}T23:59:59Z`);
    const jobs = [{ at: noon(12) }, { at: last }, { at: noon(10) }, { at: noon(9) }];
    await withSite(jobs, async ({ site, webjobctl, readJson }) => {
      const planned = await readJson<{ day: string }>('pack', '--older-than', '10d', '--dry-run');
      const days = [dayOf(ago(12)), dayOf(ago(11))];
      assert.deepEqual(
        planned.map(({ day }) => day),
        days,
      );
      await webjobctl('pack', '--older-than', '10d');
      assert.equal(groupNames(site).length, 2);
      assert.deepEqual(
        readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.jsonl')),
        days.map((day) => `${day}.jsonl`).sort(),
      );
    });
  });

  it('overwrites neither an archive nor a manifest that is alone', async () => {
    const day = dayOf(ago(40));
    for (const [alone, isRead] of [
      [`${day}.tar.gz`, true],
      [`${day}.jsonl`, false],
    ] as const) {
      await withSite([{ at: new Date(`${day}T12:00:00Z`) }], async ({ site, webjobctl }) => {
        const packed = join(site.base, 'packed');
        mkdirSync(packed);
        writeFileSync(join(packed, alone), 'the only copy\n');
        const { exitCode } = await webjobctl('pack', '--older-than', '30d');
        assert.equal(readFileSync(join(packed, alone), 'utf8'), 'the only copy\n');
        // A damaged manifest stops it; a damaged archive does not.
        assert.equal(exitCode, isRead ? 0 : 4);
        assert.equal(existsSync(join(packed, `${day}.2.tar.gz`)), isRead);
        assert.equal(groupNames(site).length, isRead ? 0 : 1);
      });
    }
  });

  it('removes no upload as packed whose bytes differ', async () => {
    const at = new Date(`${dayOf(ago(40))}T12:00:00Z`);
    for (const extension of ['out', 'err', 'env', 'rdy'] as const) {
      await withSite([{ at, name: 'same', out: 'first\n' }], async ({ site, webjobctl }) => {
        const files = ['out', 'err', 'env', 'rdy'].map((name) => join(site.incoming, `same.${name}`));
        writeFileSync(join(site.incoming, 'same.err'), 'told\n');
        const contents = files.map((path) => readFileSync(path));
        assert.equal((await webjobctl('pack', '--older-than', '30d')).exitCode, 0);
        for (const [index, path] of files.entries()) {
          const bytes = Buffer.from(contents[index] ?? '');
          // With the same size, and still what its name says.
          if (path.endsWith(extension)) bytes[bytes.length - 2] = (bytes.at(-2) ?? 0) ^ 1;
          writeFileSync(path, bytes);
          contents[index] = bytes;
        }
        setTime(site, 'same', at);
        await webjobctl('pack', '--older-than', '30d');
        const changed = files.findIndex((path) => path.endsWith(extension));
        const second = join(site.base, 'packed', `${dayOf(at)}.2.tar.gz`);
        const found = existsSync(files[changed] ?? '')
          ? readFileSync(files[changed] ?? '')
          : spawnSync('tar', ['xzOf', second, `same.${extension}`]).stdout;
        assert.deepEqual(found, contents[changed], `the changed .${extension} is nowhere`);
      });
    }
  });

  /** A site with an upload both in the locker and in an archive, as a killed run leaves it. */
  async function withBoth(
    at: Date,
    work: (its: LockerSite, files: ReadonlyMap<string, Buffer>) => Promise<void>,
  ): Promise<void> {
    await withSite([{ at, name: 'same' }], async (given) => {
      const { site, webjobctl } = given;
      const paths = ['out', 'err', 'env', 'rdy'].map((name) => join(site.incoming, `same.${name}`));
      const files = new Map(paths.map((path) => [path, readFileSync(path)]));
      await webjobctl('pack', '--older-than', '30d');
      for (const [path, content] of files) writeFileSync(path, content);
      setTime(site, 'same', at);
      await work(given, files);
    });
  }

  it('resolves what is the same in the locker and in an archive', async () => {
    const at = new Date(`${dayOf(ago(40))}T12:00:00Z`);
    await withBoth(at, async ({ site, webjobctl }) => {
      assert.equal((await webjobctl('pack', '--older-than', '30d')).exitCode, 0);
      assert.deepEqual(groupNames(site), []);
      assert.equal(readdirSync(join(site.base, 'packed')).length, 2);
    });
  });

  it('records no archive again that a killed run had recorded', async () => {
    const at = new Date(`${dayOf(ago(40))}T12:00:00Z`);
    const planted = ['one', 'same', 'two'].map((name) => ({ at, name }));
    await withSite(planted, async ({ site, webjobctl }) => {
      const files = new Map(
        ['out', 'err', 'env', 'rdy'].map((name) => [name, readFileSync(join(site.incoming, `same.${name}`))]),
      );
      const events = (): unknown[] => readRecords(custodyOf(site, 'webjobctl')).filter(({ event }) => event === 'pack');
      assert.equal((await webjobctl('pack', '--older-than', '30d')).exitCode, 0);
      const before = events();
      assert.equal(before.length, 1);
      for (const [name, content] of files) writeFileSync(join(site.incoming, `same.${name}`), content);
      setTime(site, 'same', at);
      assert.equal((await webjobctl('pack', '--older-than', '30d')).exitCode, 0);
      assert.deepEqual([groupNames(site), events()], [[], before]);
    });
  });

  it('removes nothing as archived whose archive is damaged', async () => {
    const at = new Date(`${dayOf(ago(40))}T12:00:00Z`);
    await withBoth(at, async ({ site, webjobctl }, files) => {
      const archive = join(site.base, 'packed', `${dayOf(at)}.tar.gz`);
      const bytes = readFileSync(archive);
      bytes.fill(0, 20, 40);
      writeFileSync(archive, bytes);
      const { exitCode, stderr } = await webjobctl('pack', '--older-than', '30d');
      assert.equal(exitCode, 4);
      assert.match(stderr, /\.tar\.gz: damaged, /);
      for (const [path, content] of files) assert.deepEqual(readFileSync(path), content, path);
    });
  });
});

describe('webjobctl unpack', () => {
  const at = new Date(`${dayOf(ago(40))}T12:00:00Z`);
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site, webjobctl } = its;
  const [archive, manifest] = ['tar.gz', 'jsonl'].map((name) => join(site.base, 'packed', `${dayOf(at)}.${name}`)) as [
    string,
    string,
  ];
  before(async () => {
    plantPast(site, 'UTC', [{ at, name: 'packed', out: 'the output of a program\n' }]);
    await webjobctl('pack', '--older-than', '30d');
  });
  after(its.close);

  it('announces nothing that differs from what was archived, wherever the change is', async () => {
    const [whole, lines] = [readFileSync(archive), readFileSync(manifest, 'utf8').split('\n')];
    const group = JSON.parse(lines[1] ?? '') as { length: number };
    const tar = gunzipSync(whole.subarray(0, group.length)).toString('latin1');
    for (const [text, other] of [
      ['the output of a program', 'the outpuT of a program'],
      ['KidReason=The', 'KidReason=the'],
      ['Jid=server', 'Jid=sErver'],
    ]) {
      const member = gzipSync(Buffer.from(tar.replace(text ?? '', other ?? ''), 'latin1'));
      writeFileSync(archive, Buffer.concat([member, whole.subarray(group.length)]));
      // An attacker who changes the archive can change the manifest to match.
      const changed = [lines[0], JSON.stringify({ ...group, length: member.length }), ...lines.slice(2)];
      writeFileSync(manifest, changed.join('\n'));
      const { exitCode, stderr } = await webjobctl('unpack', dayOf(at));
      assert.equal(exitCode, 4, `${text}: ${stderr}`);
      assert.deepEqual(groupNames(site), [], text);
      assert.deepEqual(readdirSync(site.incoming), [], text);
      assert.ok(existsSync(archive) && existsSync(manifest));
    }
    writeFileSync(archive, whole);
    writeFileSync(manifest, lines.join('\n'));
    assert.equal((await webjobctl('unpack', dayOf(at))).exitCode, 0);
    assert.equal(readFileSync(join(site.incoming, 'packed.out'), 'utf8'), 'the output of a program\n');
  });
});

describe('webjobctl prune of archives', () => {
  it('removes an archive when its last upload may be removed, in any time zone', async () => {
    for (const [zone, hour] of [
      ['UTC', 0],
      ['UTC', 23],
      ['Pacific/Kiritimati', 0],
      ['America/St_Johns', 23],
    ] as const) {
      const its = makeLockerSite();
      const { site } = its;
      const run = (...args: string[]) =>
        runWebjobctl(['--config', site.propertiesFile, ...args], { ...process.env, TZ: zone });
      try {
        const day = formatIn(zone, ago(6)).slice(0, 10);
        // The first and the last half hour of a day there.
        const at = findInstant(zone, `${day} ${String(hour).padStart(2, '0')}:30`);
        plantPast(site, zone, [{ at, name: 'one' }]);
        assert.equal((await run('pack', '--older-than', '2d')).exitCode, 0);
        assert.ok(existsSync(join(site.base, 'packed', `${day}.jsonl`)), `${zone} ${hour}`);
        const seconds = (margin: number): string => `${Math.floor((Date.now() - at.getTime()) / 1000) + margin}s`;
        await run('prune', '--older-than', seconds(60), '--yes');
        assert.equal(readdirSync(join(site.base, 'packed')).length, 2, `${zone} ${hour}: it is younger`);
        await run('prune', '--older-than', seconds(-1), '--yes');
        assert.deepEqual(readdirSync(join(site.base, 'packed')), [], `${zone} ${hour}: it is older`);
      } finally {
        its.close();
      }
    }
  });

  it('keeps archives where a rule other than the age must allow the removal, too', async () => {
    await withSite([{ at: ago(40) }], async ({ site, webjobctl }) => {
      await webjobctl('pack', '--older-than', '30d');
      const archives = (): string[] => readdirSync(join(site.base, 'packed'));
      assert.equal(archives().length, 2);
      for (const rule of [
        ['--keep', '1'],
        ['--max-bytes', '1'],
      ]) {
        assert.equal((await webjobctl('prune', '--older-than', '30d', ...rule, '--yes')).exitCode, 0);
        assert.equal(archives().length, 2, rule[0]);
      }
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(archives(), []);
    });
  });

  it('keeps an archive on which a hold was set since it was selected', async () => {
    await withSite([{ at: ago(40) }], async ({ site, webjobctl }) => {
      await webjobctl('pack', '--older-than', '30d');
      const { settings } = readSite(site.propertiesFile);
      const { free } = await findOldPacks(settings, Date.now());
      const [pack = assert.fail()] = free;
      assert.equal((await webjobctl('hold', 'add', '--client', 'client1', '--reason', 'r')).exitCode, 0);
      assert.equal(await prunePack(settings, pack, 'rule'), false);
      assert.ok(existsSync(pack.archive) && existsSync(pack.manifest));
    });
  });

  it('finishes the removal of the recorded archive, and of no other', async () => {
    const at = ago(40);
    await withSite([{ at }], async ({ site, webjobctl }) => {
      const packed = join(site.base, 'packed');
      await webjobctl('pack', '--older-than', '30d');
      const archive = join(packed, `${dayOf(at)}.tar.gz`);
      const kept = join(site.root, 'kept.tar.gz');
      writeFileSync(kept, readFileSync(archive));
      assert.equal((await webjobctl('prune', '--older-than', '30d', '--yes')).exitCode, 0);
      assert.deepEqual(readdirSync(packed), []);
      // The process that removed the archive was killed before the file was gone, and the file was
      // changed since.
      writeFileSync(archive, Buffer.concat([readFileSync(kept), Buffer.from('x')]));
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.ok(existsSync(archive), 'a changed archive is gone');
      renameSync(kept, archive);
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(readdirSync(packed), []);
      appendFileSync(join(packed, 'foreign.tar.gz'), 'x');
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(readdirSync(packed), ['foreign.tar.gz']);
      rmSync(packed, { recursive: true });
    });
    // The process that unpacked one was killed before the archive was gone.
    await withSite([{ at }], async ({ site, webjobctl }) => {
      const packed = join(site.base, 'packed');
      await webjobctl('pack', '--older-than', '30d');
      const archive = join(packed, `${dayOf(at)}.tar.gz`);
      const bytes = readFileSync(archive);
      assert.equal((await webjobctl('unpack', dayOf(at))).exitCode, 0);
      assert.deepEqual(readdirSync(packed), []);
      writeFileSync(archive, bytes);
      await webjobctl('prune', '--older-than', '30d', '--yes');
      assert.deepEqual(readdirSync(packed), []);
    });
  });
});

/** The time of a text such as `2026-11-01 23:30`, by the clock of a zone. */
function findInstant(zone: string, text: string): Date {
  const step = 15 * 60_000;
  let at = Date.parse(`${text.replace(' ', 'T')}Z`) - 15 * 3_600_000;
  while (formatIn(zone, new Date(at)).slice(0, 16) !== text) at += step;
  return new Date(at);
}
