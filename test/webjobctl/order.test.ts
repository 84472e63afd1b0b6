// The order of system calls that move or remove evidence, from strace on the real webjobctl: what
// must be on disk is there before anything relies on it, and nothing is removed before its custody
// record is on disk.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { collect } from '../support/bare.ts';
import { makeScratch, WEBJOBCTL } from '../support/keep-site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { type Call, NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import { plantPast } from '../support/past-site.ts';

const AT = new Date(Date.now() - 40 * 86_400_000);
const DAY = AT.toISOString().slice(0, 10);

describe('webjobctl under strace', { skip: NO_STRACE }, () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site } = its;
  before(() => {
    plantPast(site, 'UTC', [
      { at: AT, name: 'a/one' },
      { at: AT, name: 'b/two' },
    ]);
  });
  after(its.close);

  /**
   * Runs webjobctl under strace; returns the steps that touched evidence or its records, without
   * repetitions.
   */
  async function trace(...args: string[]): Promise<string[]> {
    const file = join(makeScratch(site), 'trace');
    const [program = '', ...words] = [...traceTo(file), process.execPath, WEBJOBCTL, '--config', site.propertiesFile];
    const child = spawn(program, [...words, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    const { exitCode, stderr } = await collect(child, 60);
    assert.equal(exitCode, 0, stderr);
    const steps = readTrace(file).flatMap((call) => describeCall(call) ?? []);
    return steps.filter((step, index) => step !== steps[index - 1]);
  }

  function describeCall({ name, text }: Call): string | undefined {
    if (/ = -1 \w+/.test(text) || name === 'close') return undefined;
    const verb = verbOf(name, text);
    const quoted = [...text.matchAll(/"([^"]*)"/g)].map((match) => match[1] ?? '');
    const onDescriptor = /^\w+\(\d+<([^>]*)>/.exec(text)?.[1];
    const labels = (onDescriptor === undefined ? quoted : [onDescriptor]).map((path) => labelOf(path, verb));
    return verb === undefined || labels.length === 0 || labels.includes(undefined)
      ? undefined
      : [verb, ...labels].join(' ');
  }

  /** The kind of a path; undefined when no evidence depends on it. Only archives are read back. */
  function labelOf(path: string, verb: string | undefined): string | undefined {
    const place = relative(site.base, path);
    const isLock = /\.lck(?:\.\d+\.new)?$/.test(path);
    if (verb === 'read') return /^packed\/\d/.test(place) ? place.replace(DAY, 'DAY') : undefined;
    if (place.startsWith('..') || (isLock && !place.startsWith('incoming/'))) return undefined;
    if (basename(path) === 'nph-webjob-custody.webjobctl.jsonl') return 'custody';
    return place.replace(DAY, 'DAY').replace(/\.[0-9a-f]{12}$/, '.new') || '.';
  }

  const remove = (...names: string[]): string[] => [
    ...['create', 'write'].map((verb) => `${verb} incoming/${names[0]}.lck`),
    // The locks of a batch are links to one file.
    ...names.slice(1).map((name) => `link incoming/${names[0]}.lck incoming/${name}.lck`),
    ...names.map((name) => `unlink incoming/${name}.rdy`),
    ...['a', 'b'].map((folder) => `fsync incoming/${folder}`),
    ...names.flatMap((name) => ['out', 'err', 'env'].map((extension) => `unlink incoming/${name}.${extension}`)),
    ...['a', 'b'].map((folder) => `fsync incoming/${folder}`),
    ...names.map((name) => `unlink incoming/${name}.lck`),
  ];
  const record = ['write custody', 'fsync custody'];

  it('packs in order: archive and manifest, read back, their names, custody record, originals', async () => {
    const [archive, manifest] = ['packed/DAY.tar.gz', 'packed/DAY.jsonl'];
    assert.deepEqual(await trace('pack', '--older-than', '30d'), [
      ...['mkdir config', 'fsync .', 'mkdir config/nph-webjob', 'fsync config', 'mkdir packed', 'fsync .'],
      ...[`create ${archive}.part`, `create ${manifest}.part`],
      ...[`write ${archive}.part`, `write ${manifest}.part`],
      ...[`fsync ${archive}.part`, `read ${archive}.part`, `write ${manifest}.part`, `fsync ${manifest}.part`],
      ...[`read ${archive}.part`, `read ${manifest}.part`],
      ...[`rename ${archive}.part ${archive}`, 'fsync packed', `rename ${manifest}.part ${manifest}`, 'fsync packed'],
      ...[`read ${manifest}`, 'open custody', 'fsync logfiles', ...record],
      ...remove('a/one', 'b/two'),
    ]);
  });

  it('unpacks in order: every stream, its directory, .rdy, custody record, manifest, archive', async () => {
    // One directory must be made again.
    rmSync(join(site.incoming, 'a'), { recursive: true });
    const restore = (name: string): string[] => {
      const path = `incoming/${name}`;
      const streams = ['env', 'err', 'out'].map((extension) => `${path}.${extension}`);
      const write = (file: string): string[] => [
        `create ${file}.unpack`,
        ...(file.endsWith('.err') ? [] : [`write ${file}.unpack`]),
        `fsync ${file}.unpack`,
      ];
      const place = (file: string): string[] => [`link ${file}.unpack ${file}`, `unlink ${file}.unpack`];
      return [
        ...[
          `create ${path}.lck`,
          `write ${path}.lck`,
          'read packed/DAY.tar.gz',
          ...[...streams, `${path}.rdy`].flatMap(write),
        ],
        ...[...streams.flatMap(place), `fsync incoming/${name[0]}`],
        ...[...place(`${path}.rdy`), `fsync incoming/${name[0]}`, `unlink ${path}.lck`],
      ];
    };
    assert.deepEqual(await trace('unpack', DAY), [
      'read packed/DAY.jsonl',
      ...['mkdir incoming/a', 'fsync incoming', ...restore('a/one'), ...restore('b/two')],
      ...['read packed/DAY.jsonl', 'open custody', ...record].filter((step) => step !== 'open custody'),
      ...['unlink packed/DAY.jsonl', 'fsync packed', 'unlink packed/DAY.tar.gz', 'fsync packed'],
    ]);
  });

  it('prunes in order: custody record, .rdy, its directory, streams', async () => {
    assert.deepEqual(await trace('prune', '--older-than', '30d', '--yes'), [...record, ...remove('a/one', 'b/two')]);
  });

  it('prunes an archive in order: custody records, manifest, its directory, archive', async () => {
    plantPast(site, 'UTC', [{ at: AT, name: 'three' }]);
    await trace('pack', '--older-than', '30d');
    const steps = await trace('prune', '--older-than', '30d', '--yes');
    assert.deepEqual(
      steps.filter((step) => !step.startsWith('read')),
      [...record, ...record, 'unlink packed/DAY.jsonl', 'fsync packed', 'unlink packed/DAY.tar.gz', 'fsync packed'],
    );
  });

  it('writes the holds before the record when one is set, and after it when one ends', async () => {
    const holds = 'config/nph-webjob/holds.jsonl';
    const temporary = `config/nph-webjob/.holds.jsonl.new`;
    const place = [`fsync ${temporary}`, `rename ${temporary} ${holds}`, 'fsync config/nph-webjob'];
    const add = await trace('hold', 'add', '--client', 'client1', '--reason', 'r');
    assert.deepEqual(add, [`create ${temporary}`, `write ${temporary}`, ...place, ...record]);
    const end = await trace('hold', 'remove', '--client', 'client1', '--reason', 'r');
    assert.deepEqual(end, [...record, `create ${temporary}`, ...place]);
  });

  it('replaces a file in order: its bytes before its name, its name before the end', async () => {
    mkdirSync(join(site.base, 'made'));
    assert.deepEqual(await trace('metrics', '--textfile', join(site.base, 'made', 'webjob.prom')), [
      ...['create', 'write', 'fsync'].map((verb) => `${verb} made/.webjob.prom.new`),
      ...['rename made/.webjob.prom.new made/webjob.prom', 'fsync made'],
    ]);
  });

  it('writes no page of the index before it is on disk in the log beside it', async () => {
    plantPast(site, 'UTC', [{ at: AT, name: 'four' }]);
    const [database, journal] = ['index/webjob.sqlite', 'index/webjob.sqlite-wal'];
    const made = (await trace('index')).filter((step) => step.endsWith(database)).join(', ');
    assert.match(made, new RegExp(`(write ${database}, fsync ${database}(, |$)){3}`), 'marked, filled, and published');
    plantPast(site, 'UTC', [{ at: new Date(AT.getTime() + 1000), name: 'five' }]);
    const steps = (await trace('index')).filter((step) => step.endsWith(database) || step.endsWith(journal));
    let unsynced = false;
    let writes = 0;
    for (const step of steps) {
      if (step === `write ${journal}`) unsynced = true;
      if (step === `fsync ${journal}`) unsynced = false;
      if (step !== `write ${database}`) continue;
      writes++;
      assert.ok(!unsynced, `the database was written before its log was on disk: ${steps.join(', ')}`);
    }
    assert.ok(writes > 0 && steps.includes(`fsync ${journal}`) && steps.includes(`fsync ${database}`), `${steps}`);
  });
});

/** What a call does; undefined for one without an effect. */
function verbOf(name: string, text: string): string | undefined {
  if (name === 'fdatasync') return 'fsync';
  if (name === 'statfs') return undefined;
  if (name !== 'openat') return name.replace(/^p?(write|rename|unlink|mkdir|link).*/, '$1');
  if (text.includes('O_CREAT')) return text.includes('O_EXCL') ? 'create' : 'open';
  return text.includes('O_DIRECTORY') ? undefined : 'read';
}
