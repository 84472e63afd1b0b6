// Commands that record many uploads do so a hundred at a time: uploads in the second record count
// like those in the first, and uploads that cannot be recorded stay.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { collect } from '../support/bare.ts';
import { groupNames, readCustody, WEBJOBCTL } from '../support/keep-site.ts';
import { makeLockerSite } from '../support/locker-site.ts';

const COUNT = 130;
const BATCH = 100;
const AT = new Date(Date.now() - 40 * 86_400_000);
const DAY = AT.toISOString().slice(0, 10);
const NAMES = Array.from({ length: COUNT }, (_, index) => `client1_${String(index).padStart(3, '0')}`);

const its = makeLockerSite({ UseGMT: 'Y', EnableCustody: 'N' });
const { site } = its;
after(its.close);
const inSite = (...names: string[]): string => join(site.base, ...names);
const custody = inSite('logfiles', 'nph-webjob-custody.webjobctl.jsonl');

/** There are only these uploads, of one day and sorted by name. */
function plant(names: readonly string[]): void {
  for (const folder of ['packed', 'config']) rmSync(inSite(folder), { recursive: true, force: true });
  for (const file of readdirSync(inSite('logfiles')))
    if (file.includes('custody')) rmSync(inSite('logfiles', file), { recursive: true });
  rmSync(site.incoming, { recursive: true });
  mkdirSync(site.incoming);
  for (const [index, name] of names.entries()) {
    const texts = { out: `out of ${name}\n`, err: '', env: 'ClientId=client1\n', rdy: `Jid=job_${index}\n` };
    for (const [extension, text] of Object.entries(texts)) {
      const path = join(site.incoming, `${name}.${extension}`);
      writeFileSync(path, text);
      const at = new Date(Date.parse(`${DAY}T12:00:00Z`) + index * 1000);
      utimesSync(path, at, at);
    }
  }
}

/** Their place in the records of an event, record by record. */
function recorded(event: string, field: 'names' | 'groups' | 'uploads' = 'names'): string[][] {
  const nameOf = (one: string | { name: string }): string => (typeof one === 'string' ? one : one.name);
  return readCustody(site)
    .filter((record) => record.event === event)
    .map((record) => ((record[field] ?? []) as (string | { name: string })[]).map(nameOf).sort());
}

async function run(code: number, ...args: string[]): Promise<string> {
  const { exitCode, text, stderr } = await its.webjobctl(...args);
  assert.equal(exitCode, code, stderr);
  return text + stderr;
}

const BATCHES = [NAMES.slice(0, BATCH), NAMES.slice(BATCH)];

describe(`${COUNT} uploads`, () => {
  beforeEach(() => plant(NAMES));

  it('are adopted, packed, unpacked and pruned, and recorded each time', async () => {
    await run(0, 'custody', 'adopt', '--reason', 'a test');
    assert.deepEqual(
      recorded('adopt', 'uploads').map((names) => names.length),
      [BATCH, COUNT - BATCH],
    );
    assert.deepEqual(recorded('adopt', 'uploads').flat().sort(), NAMES);
    writeFileSync(join(site.incoming, `${NAMES.at(-1)}.out`), 'changed\n');
    assert.match(await run(1, 'verify'), new RegExp(`${NAMES.at(-1)}\\.out`));
    writeFileSync(join(site.incoming, `${NAMES.at(-1)}.out`), `out of ${NAMES.at(-1)}\n`);
    await run(0, 'pack', '--older-than', '30d');
    assert.deepEqual(recorded('pack'), BATCHES);
    const [first, second] = readCustody(site)
      .filter(({ event }) => event === 'pack')
      .map(({ covers }) => (covers as number[])[1] ?? 0);
    assert.ok(Number(second) > Number(first), 'the last record covers the others');
    assert.deepEqual(groupNames(site), []);
    await run(0, 'verify');
    await run(0, 'unpack', DAY);
    assert.deepEqual(groupNames(site), NAMES);
    await run(0, 'pack', '--older-than', '30d');
    await run(0, 'prune', '--older-than', '30d', '--yes');
    assert.deepEqual([recorded('prune'), recorded('prune', 'groups')], [BATCHES, BATCHES]);
    assert.deepEqual(readdirSync(inSite('packed')), []);
    await run(0, 'verify');
  });

  it('are pruned except for one of the second batch that cannot be removed', async () => {
    const odd = NAMES[BATCH + 7] ?? '';
    rmSync(join(site.incoming, `${odd}.err`));
    mkdirSync(join(site.incoming, `${odd}.err`));
    const said = await run(1, '--json', 'prune', '--older-than', '30d', '--yes');
    assert.deepEqual(groupNames(site), [odd]);
    assert.deepEqual(recorded('prune'), BATCHES);
    const summary = said
      .split('\n')
      .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))
      .at(-1);
    assert.deepEqual([summary.groups, summary.locked], [COUNT - 1, 1]);
  });

  it('stay when the second entry cannot be written', async () => {
    plant(NAMES.slice(0, BATCH));
    await run(0, 'prune', '--older-than', '30d', '--yes');
    const blocks = Math.ceil(statSync(custody).size / 512) + 8;
    plant(NAMES);
    const words = [process.execPath, WEBJOBCTL, '-c', site.propertiesFile, 'prune', '--older-than', '30d', '--yes'];
    const limited = ['-c', `trap '' XFSZ; ulimit -f ${blocks}; exec "$@"`, 'sh', ...words];
    const { exitCode, stderr } = await collect(spawn('/bin/sh', limited, { stdio: ['ignore', 'pipe', 'pipe'] }), 60);
    assert.equal(exitCode, 4, stderr);
    assert.match(stderr, /truncated|EFBIG/);
    assert.deepEqual(groupNames(site), BATCHES[1]);
    for (const name of BATCHES[1] ?? [])
      assert.equal(readFileSync(join(site.incoming, `${name}.out`), 'utf8'), `out of ${name}\n`);
    await run(0, 'prune', '--older-than', '30d', '--yes');
    assert.deepEqual(groupNames(site), []);
  });
});

describe('a day that cannot be archived', () => {
  it('leaves no archive when none of its uploads is complete', async () => {
    const [name = ''] = NAMES;
    plant([name]);
    rmSync(join(site.incoming, `${name}.err`));
    assert.match(await run(1, 'pack', '--older-than', '30d'), new RegExp(`stay: 1, first ${name}`));
    assert.deepEqual([readdirSync(inSite('packed')), recorded('pack')], [[], []]);
  });

  it('keeps no earlier day from being archived', async () => {
    plant(NAMES.slice(0, 3));
    const late = NAMES[2] ?? '';
    // More than the limit, however well it is compressed.
    writeFileSync(join(site.incoming, `${late}.out`), randomBytes(200_000));
    const at = new Date(AT.getTime() + 2 * 86_400_000);
    for (const extension of ['out', 'err', 'env', 'rdy'])
      utimesSync(join(site.incoming, `${late}.${extension}`), at, at);
    const words = [process.execPath, WEBJOBCTL, '-c', site.propertiesFile, 'pack', '--older-than', '30d'];
    const limited = ['-c', `trap '' XFSZ; ulimit -f 200; exec "$@"`, 'sh', ...words];
    const { exitCode, stderr } = await collect(spawn('/bin/sh', limited, { stdio: ['ignore', 'pipe', 'pipe'] }), 60);
    assert.equal(exitCode, 4, stderr);
    assert.match(stderr, /EFBIG/);
    assert.deepEqual(readdirSync(inSite('packed')).sort(), [`${DAY}.jsonl`, `${DAY}.tar.gz`]);
    assert.deepEqual([recorded('pack'), groupNames(site)], [[NAMES.slice(0, 2)], [late]]);
  });
});

describe('an archive that was interrupted after it got its name', () => {
  /** Restores what was archived, and replaces its name in the manifest. */
  async function cutOff(): Promise<{ archive: string; manifest: string }> {
    plant(NAMES.slice(0, 2));
    await run(0, 'pack', '--older-than', '30d');
    const [archive, manifest] = [inSite('packed', `${DAY}.tar.gz`), inSite('packed', `${DAY}.jsonl`)];
    const [packed, listed] = [readFileSync(archive), readFileSync(manifest)];
    plant(NAMES.slice(0, 2));
    mkdirSync(inSite('packed'));
    writeFileSync(archive, packed);
    writeFileSync(`${manifest}.part`, listed);
    return { archive, manifest };
  }

  it('leaves nothing in the locker of an upload without .rdy and with older streams', async () => {
    const midnight = Date.parse(`${DAY}T00:00:00Z`);
    const age = (extensions: readonly string[], at: number): void => {
      for (const extension of extensions)
        utimesSync(join(site.incoming, `${NAMES[0]}.${extension}`), new Date(at), new Date(at));
    };
    const streams = ['out', 'err', 'env'];
    plant(NAMES.slice(0, 1));
    age(streams, midnight - 1000);
    age(['rdy'], midnight + 1000);
    await run(0, 'pack', '--older-than', '30d');
    assert.deepEqual(readdirSync(inSite('packed')).sort(), [`${DAY}.jsonl`, `${DAY}.tar.gz`]);
    for (const [extension, text] of [
      ['out', `out of ${NAMES[0]}\n`],
      ['err', ''],
      ['env', 'ClientId=client1\n'],
    ] as const)
      writeFileSync(join(site.incoming, `${NAMES[0]}.${extension}`), text);
    age(streams, midnight - 1000);
    await run(0, 'pack', '--older-than', '30d');
    assert.deepEqual(readdirSync(site.incoming), []);
  });

  it('is finished when it is complete, and the originals are removed', async () => {
    const { archive, manifest } = await cutOff();
    await run(0, 'pack', '--older-than', '30d');
    assert.deepEqual([readdirSync(inSite('packed')).sort(), groupNames(site)], [[`${DAY}.jsonl`, `${DAY}.tar.gz`], []]);
    assert.ok(statSync(archive).size > 0 && statSync(manifest).size > 0);
    assert.deepEqual(recorded('pack'), [NAMES.slice(0, 2)]);
  });

  for (const [what, change] of [
    ['its archive was changed', (bytes: Buffer): Buffer => bytes.fill(0, 60, 61)],
    ['its archive is longer', (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(1)])],
  ] as const)
    it(`is discarded when ${what}: the originals go into another one`, async () => {
      const { archive } = await cutOff();
      writeFileSync(archive, change(readFileSync(archive)));
      await run(0, 'pack', '--older-than', '30d');
      assert.deepEqual(readdirSync(inSite('packed')).sort(), [`${DAY}.2.jsonl`, `${DAY}.2.tar.gz`, `${DAY}.tar.gz`]);
      assert.deepEqual([recorded('pack'), groupNames(site)], [[NAMES.slice(0, 2)], []]);
      await run(0, 'unpack', `${DAY}.2`);
      assert.deepEqual(groupNames(site), NAMES.slice(0, 2));
    });
});
