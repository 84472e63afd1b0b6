// One verdict: what verify finds in an upload is what the report shows, and an upload that nobody
// read or confirmed is never green.
import assert from 'node:assert/strict';
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { judge, STREAM_STATES, STREAM_WORDS, type StreamState, type Verdict } from '../../evidence/verdict.ts';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf } from '../support/custody-record.ts';
import { reportAs, verifyAs } from '../support/evidence-site.ts';
import { runWebjobctl } from '../support/operator.ts';
import { type Planted, plantGroup } from '../support/verify-site.ts';

let site: Site;
beforeEach(() => {
  site = makeSite({ settings: { PutNameFormat: '%cid_%cmd', OverwriteExistingFiles: 'Y' } });
});
afterEach(() => site.remove());
const at = (name: string): string => join(site.incoming, name);

function plant(name: string, more: Partial<Planted> = {}): void {
  const places = { incomingDirectory: site.incoming, logfilesDirectory: join(site.base, 'logfiles') };
  plantGroup({ ...places, name, out: `out of ${name}`, err: `err of ${name}`, overwrite: true, ...more });
}

describe('verify and report', () => {
  it('find one changed byte in a stream over 256 MiB', async () => {
    plant('large', { out: Buffer.alloc(257 * 1024 * 1024), hashType: 'SHA256' });
    plant('small');
    assert.deepEqual(await verifyAs([site.propertiesFile]), []);
    const fd = openSync(at('large.out'), 'r+');
    writeSync(fd, 'x', 256 * 1024 * 1024 + 7);
    closeSync(fd);
    assert.deepEqual(await verifyAs([site.propertiesFile]), ['digest-changed large.out', 'hash-wrong large.out']);
    const { uploads, overview } = await reportAs(site);
    assert.deepEqual([uploads.get('large')?.look, uploads.get('small')?.look], ['bad', 'good']);
    assert.match(overview, /verification failures 1/);
  });

  for (const order of [
    ['server_2', 'server_10'],
    ['server_10', 'server_2'],
    ['b', 'a'],
    ['webjobctl.a', 'Z'],
  ]) {
    it(`agree on a name that ${order[0]} stored and then ${order[1]}`, async () => {
      for (const [index, serverId] of order.entries()) plant('same', { serverId, out: `from ${index}` });
      configure(site, { ServerId: order[1] ?? '', OverwriteExistingFiles: 'Y' });
      assert.deepEqual(await verifyAs([site.propertiesFile]), []);
      assert.equal((await reportAs(site)).uploads.get('same')?.words, 'verified');
      writeFileSync(at('same.out'), 'from 0');
      const changed = ['digest-changed same.out', 'hash-wrong same.out'];
      assert.deepEqual(await verifyAs([site.propertiesFile]), changed);
      assert.equal((await reportAs(site)).uploads.get('same')?.look, 'bad');
    });
  }

  it('agree on run records that are empty, long, or missing', async () => {
    const long = `Extra=${'x'.repeat(100_000)}\n`;
    for (const [name, change] of [
      ['empty', () => ''],
      ['long', (env: string) => env + long],
      ['none', () => 'not a record\n'],
      ['vast', () => 'x'.repeat(2_000_000)],
    ] as const) {
      plant(name, { changeEnv: change });
    }
    assert.deepEqual(await verifyAs([site.propertiesFile]), []);
    const { uploads } = await reportAs(site);
    assert.deepEqual(
      ['empty', 'long', 'none', 'vast'].map((name) => uploads.get(name)?.words),
      ['verified', 'verified', 'verified', 'verified'],
    );
    assert.match(uploads.get('empty')?.page ?? '', /The record cannot be read: it is empty\./);
    assert.match(uploads.get('long')?.page ?? '', /KidReason The kid exited cleanly\./);
    writeFileSync(at('empty.out'), 'changed');
    writeFileSync(at('long.out'), 'changed');
    assert.deepEqual(await verifyAs([site.propertiesFile]), [
      'hash-wrong long.out',
      'size-changed empty.out',
      'size-changed long.out',
    ]);
    const after = (await reportAs(site)).uploads;
    assert.deepEqual([after.get('empty')?.look, after.get('long')?.look], ['bad', 'bad']);
  });

  it('confirm nothing that only the client claimed', async () => {
    plant('stated');
    plant('nothing', { fields: { HashType: 'NA', StdOutHash: 'NA', StdErrHash: 'NA' } });
    rmSync(custodyOf(site));
    configure(site, { EnableCustody: 'N' });
    assert.deepEqual(await verifyAs([site.propertiesFile]), []);
    const { uploads } = await reportAs(site);
    assert.deepEqual([uploads.get('stated')?.look, uploads.get('stated')?.words], ['plain', 'as the client stated']);
    assert.deepEqual(
      [uploads.get('nothing')?.look, uploads.get('nothing')?.words],
      ['plain', 'nothing to compare with'],
    );
  });

  it('count an upload that another of the same job replaced in another place', async () => {
    for (const name of ['first', 'second']) plant(name, { jobId: 'server_1_1085355126_00723', out: name });
    writeFileSync(at('first.out'), 'FIRST');
    assert.deepEqual(await verifyAs([site.propertiesFile]), ['digest-changed first.out', 'hash-wrong first.out']);
    const { uploads } = await reportAs(site);
    assert.deepEqual([...uploads].map(([, { look }]) => look).includes('bad'), true);
    assert.ok([...uploads].some(([, { page }]) => page.includes('digest-changed first.out')));
  });
});

describe('webjobctl show', () => {
  interface Shown {
    verification: {
      words: string;
      streams: Record<string, string>;
      findings: { kind: string; place: string }[];
    } | null;
  }
  const id = (name: string): string => `server_1_1085355126_${name}`;
  const show = async (name: string): Promise<[string, string[], Record<string, string> | undefined]> => {
    const words = ['--config', site.propertiesFile, '--json', 'show', id(name)];
    const { code, stdout, stderr } = await runWebjobctl(words);
    assert.equal(code, 0, stderr);
    const { verification } = JSON.parse(stdout) as Shown;
    const found = verification?.findings.map(({ kind, place }) => `${kind} ${place}`) ?? [];
    return [verification?.words ?? 'none', found.sort(), verification?.streams];
  };

  it('shows what verify finds in the uploads of the job', async () => {
    // A few records for each segment.
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) plant(name, { segmentLimit: 1000 });
    plant('again', { jobId: id('a'), segmentLimit: 1000 });
    plant('stated', { custody: false });
    const good = { out: 'as received', err: 'as received', env: 'as received' };
    for (const name of ['a', 'c', 'f']) assert.deepEqual(await show(name), ['verified', [], good], name);
    const [words, found] = await show('stated');
    assert.equal(words, 'does not verify');
    assert.match(found.join(), /^(?:older|unrecorded) stated$/);
    writeFileSync(at('c.err'), 'changed');
    writeFileSync(at('again.out'), 'changed');
    rmSync(at('b.rdy'));
    for (const stream of ['out', 'err', 'env']) rmSync(at(`b.${stream}`));
    assert.deepEqual(await show('c'), [
      'does not verify',
      ['hash-wrong c.err', 'size-changed c.err'],
      { ...good, err: 'changed since it was received' },
    ]);
    assert.deepEqual((await show('a'))[1], ['hash-wrong again.out', 'size-changed again.out']);
    const { stdout } = await runWebjobctl(['--config', site.propertiesFile, 'show', id('c')]);
    assert.match(stdout, /^Verification: +does not verify: size-changed c\.err: .*; hash-wrong c\.err: /m);
    const old = Date.now() / 1000 - 3 * 86_400;
    for (const extension of ['out', 'err', 'env', 'rdy']) utimesSync(at(`f.${extension}`), old, old);
    const pack = await runWebjobctl(['--config', site.propertiesFile, 'pack', '--older-than', '1d']);
    assert.equal(pack.code, 0, pack.stderr);
    assert.deepEqual((await show('f')).slice(0, 2), ['verified', []]);
  });

  it('reports streams that it does not read as not checked', async () => {
    plant('large', { out: Buffer.alloc(65 * 1024 * 1024) });
    const [words, found, streams] = await show('large');
    assert.deepEqual([words, found, streams?.out], ['not checked', [], 'not checked']);
  });
});

describe('servers with a log directory each', () => {
  it('are one site where all their settings are given', async () => {
    const [first, second] = [site.propertiesFile, join(site.root, 'second.cfg')];
    const logs = join(site.base, 'logfiles_2');
    mkdirSync(logs, { mode: 0o755 });
    copyFileSync(first, second);
    writeFileSync(second, `${readFileSync(first, 'utf8')}ServerId=server_2\nLogfilesDirectory=${logs}\n`);
    plant('one');
    plant('two', { logfilesDirectory: logs, serverId: 'server_2' });
    plant('both');
    plant('both', { logfilesDirectory: logs, serverId: 'server_2', out: 'newer' });
    for (const configs of [
      [first, second],
      [second, first],
    ])
      assert.deepEqual(await verifyAs(configs), []);
    rmSync(at('two.rdy'));
    for (const stream of ['out', 'err', 'env']) rmSync(at(`two.${stream}`));
    writeFileSync(at('one.err'), 'changed');
    const found = ['group-missing two', 'hash-wrong one.err', 'size-changed one.err'];
    for (const configs of [
      [first, second],
      [second, first],
    ])
      assert.deepEqual(await verifyAs(configs), found);
    rmSync(join(logs, 'nph-webjob-custody.server_2.jsonl'));
    assert.ok((await verifyAs([first, second])).includes('custody-missing nph-webjob-custody.server_2.jsonl'));
  });
});

describe('a name that is used again when its upload is in an archive', () => {
  const verify = (): Promise<string[]> => verifyAs([site.propertiesFile]);
  const pack = async (...names: string[]): Promise<void> => {
    const old = Date.now() / 1000 - 3 * 86_400;
    for (const name of names)
      for (const extension of ['out', 'err', 'env', 'rdy']) utimesSync(at(`${name}.${extension}`), old, old);
    const { code, stderr } = await runWebjobctl(['--config', site.propertiesFile, 'pack', '--older-than', '1d']);
    assert.equal(code, 0, stderr);
  };

  it('is a finding with other bytes of the same job, and fine for another job or the same bytes', async () => {
    for (const name of ['bytes', 'job', 'retry', 'kept']) plant(name);
    await pack('bytes', 'job', 'retry', 'kept');
    assert.deepEqual(await verify(), []);
    plant('bytes', { out: 'other' });
    plant('job', { jobId: 'another' });
    plant('retry');
    assert.deepEqual(await verify(), ['differing bytes']);
    const { uploads } = await reportAs(site);
    assert.deepEqual(
      ['bytes', 'job', 'retry'].map((name) => uploads.get(name)?.words),
      ['does not verify', 'verified', 'verified'],
    );
  });

  it('does not hide that the archived upload was changed before', async () => {
    plant('again');
    writeFileSync(at('again.out'), 'changed');
    await pack('again');
    plant('again');
    const found = (await verify()).map((line) => line.replace(/\d{4}-\d\d-\d\d/, 'DAY'));
    assert.deepEqual(found, ['differing again', 'size-changed packed/DAY: again.out']);
  });
});

describe('webjobctl verify JOB', () => {
  const id = (name: string): string => `server_1_1085355126_${name}`;

  it('verifies the uploads of that job, and nothing else', async () => {
    for (const name of ['one', 'two', 'gone']) plant(name);
    plant('again', { jobId: id('one'), out: 'more' });
    assert.deepEqual(await verifyAs([site.propertiesFile], id('one')), []);
    for (const name of ['one', 'two', 'again']) writeFileSync(at(`${name}.err`), 'changed');
    rmSync(at('gone.rdy'));
    for (const stream of ['out', 'err', 'env']) rmSync(at(`gone.${stream}`));
    const changed = ['again', 'one'].flatMap((name) => [`hash-wrong ${name}.err`, `size-changed ${name}.err`]).sort();
    for (const part of [id('one'), '_one']) assert.deepEqual(await verifyAs([site.propertiesFile], part), changed);
    assert.deepEqual(await verifyAs([site.propertiesFile], 'gone'), ['group-missing gone']);
    for (const [code, part] of [
      [1, 'nothing'],
      [2, 'server_1'],
    ] as const) {
      const ended = await runWebjobctl(['--config', site.propertiesFile, 'verify', part]);
      assert.deepEqual([ended.code, ended.stdout], [code, ''], ended.stderr);
    }
  });

  it('finds uploads without a custody record, and those in an archive', async () => {
    plant('bare', { custody: false });
    plant('packed');
    const old = Date.now() / 1000 - 3 * 86_400;
    for (const extension of ['out', 'err', 'env', 'rdy']) utimesSync(at(`packed.${extension}`), old, old);
    const pack = await runWebjobctl(['--config', site.propertiesFile, 'pack', '--older-than', '1d']);
    assert.equal(pack.code, 0, pack.stderr);
    assert.deepEqual(await verifyAs([site.propertiesFile], id('packed')), []);
    const found = await verifyAs([site.propertiesFile], id('bare'));
    assert.ok(['older bare', 'unrecorded bare'].includes(found.join()), found.join());
    const [archive = ''] = readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.tar.gz'));
    truncateSync(join(site.base, 'packed', archive), 40);
    assert.deepEqual(await verifyAs([site.propertiesFile], id('packed')), [`pack-changed packed/${archive}`]);
  });
});

describe('the verdict on an upload', () => {
  const verdict = (...states: [StreamState, StreamState, StreamState]): Verdict => {
    const [out, err, env] = states.map((state) => ({ state, bytes: 1, sha256: undefined, proof: undefined }));
    assert.ok(out && err && env);
    const unknown = { record: undefined, recordProblem: undefined, result: undefined };
    return { streams: { out, err, env }, findings: [], ...unknown, isAnnounced: true };
  };

  it('is that of its worst stream', () => {
    const words = (...states: [StreamState, StreamState, StreamState]): string => judge(verdict(...states)).words;
    for (const state of STREAM_STATES)
      for (const states of [
        [state, 'received', 'received'],
        ['received', state, 'received'],
        ['received', 'received', state],
      ] as [StreamState, StreamState, StreamState][]) {
        const { look } = judge(verdict(...states));
        assert.equal(look === 'good', state === 'received', state);
        assert.equal(look === 'bad', ['missing', 'unreadable', 'changed', 'contradicted'].includes(state), state);
      }
    assert.equal(new Set(Object.values(STREAM_WORDS)).size, STREAM_STATES.length, 'each has words of its own');
    assert.equal(words('received', 'received', 'received'), 'verified');
    assert.equal(words('unread', 'received', 'received'), 'not checked');
    assert.equal(words('unread', 'claimed', 'unproven'), 'not checked');
    assert.equal(words('claimed', 'claimed', 'unproven'), 'as the client stated');
  });

  it('is bad with any finding, and absent before the upload is announced', () => {
    const findings = [{ kind: 'mode', place: 'a', detail: '' }] as const;
    assert.equal(judge({ ...verdict('received', 'received', 'received'), findings }).look, 'bad');
    assert.equal(judge({ ...verdict('received', 'received', 'received'), isAnnounced: false }).look, 'plain');
  });
});
