// Messages and exit codes of checks: checkpoints over nothing and over a broken record, keys that
// others can read, samples; and verify where a name was deposited twice, where an archive has an
// older upload of a name, and from when on a deposit must be recorded.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';
import { plantGroup } from '../support/verify-site.ts';
import { refuse } from '../support/webjobctl-words.ts';

const DAY_MS = 86_400_000;
const ago = (days: number, milliseconds = 0): Date => new Date(Date.now() - days * DAY_MS + milliseconds);

interface Line {
  kind: string;
  place: string;
  detail: string;
  groups: number;
  bytes: number;
  older: number;
}

const custodyFile = ({ site }: LockerSite, server = 'server_1'): string =>
  join(site.base, 'logfiles', `nph-webjob-custody.${server}.jsonl`);

async function verify(its: LockerSite, ...args: string[]): Promise<string[]> {
  const lines = await its.readJson<Line>('verify', ...args);
  return lines.filter(({ kind }) => kind !== 'summary').map(({ kind, place }) => `${kind} ${place}`);
}

describe('webjobctl custody checkpoint', () => {
  const its = makeLockerSite();
  const { site, webjobctl } = its;
  const key = join(site.root, 'custody.key');
  const checkpoint = () => webjobctl('custody', 'checkpoint', '--key', key);
  const file = custodyFile(its);
  before(async () => {
    assert.equal((await webjobctl('sign', 'keygen', join(site.root, 'custody'))).exitCode, 0);
    plantPast(site, 'UTC', [{ at: ago(3) }, { at: ago(2) }, { at: ago(1) }]);
  });
  after(its.close);

  it('warns of a key that its group or others can read, and of no other', async () => {
    for (const [mode, isOpen] of [
      [0o600, false],
      [0o400, false],
      [0o640, true],
      [0o604, true],
      [0o644, true],
    ] as const) {
      chmodSync(key, mode);
      const { stderr, exitCode } = await checkpoint();
      assert.equal(
        /^webjobctl: warning: \/.*custody\.key can be read by users other than its owner/m.test(stderr),
        isOpen,
        `${mode}`,
      );
      assert.equal(exitCode, 0);
    }
    chmodSync(key, 0o600);
  });

  it('reports a fault in a record, exits with 1, and signs none that was signed differently', async () => {
    const whole = readFileSync(file, 'utf8');
    const [first = '', second = '', third = ''] = whole.split('\n');
    const broken = {
      'edited: a field was changed': [first.replace('"event":"deposit"', '"event":"deposed"'), second, third],
      'broken: the first record was taken out': [second, third],
      'broken: two records changed places': [second, first, third],
      'broken: the one in the middle was taken out': [first, third],
    };
    for (const [what, lines] of Object.entries(broken)) {
      writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
      const { stderr, exitCode, text } = await checkpoint();
      assert.equal(exitCode, 1, what);
      assert.match(stderr, /^webjobctl: warning: nph-webjob-custody\.server_1\.jsonl has been changed/m, what);
      assert.equal(text, '', `${what}: it is not what the last checkpoint says`);
    }
    writeFileSync(file, whole);
    assert.equal((await checkpoint()).exitCode, 0);
    const kept = join(site.base, 'config', 'nph-webjob');
    for (const name of readdirSync(kept)) if (/^custody-/.test(name)) rmSync(join(kept, name));
    writeFileSync(file, [second, third].map((line) => `${line}\n`).join(''));
    const { text, exitCode } = await checkpoint();
    assert.equal(exitCode, 1);
    assert.match(text, /^[^\n]+\/webjob\/server_1\n2\n/, 'one that was never signed is, as it is');
    for (const name of readdirSync(kept)) if (/^custody-/.test(name)) rmSync(join(kept, name));
    writeFileSync(file, whole);
  });

  it('exits with 4 where no custody record exists', async () => {
    rmSync(file);
    const { stderr, exitCode, text } = await checkpoint();
    assert.deepEqual([exitCode, text], [4, '']);
    assert.match(stderr, /^webjobctl: error: no custody record in /);
  });
});

describe('webjobctl verify', () => {
  it('accepts samples of more than 0 % and up to 100 %', async () => {
    const its = makeLockerSite();
    try {
      plantPast(
        its.site,
        'UTC',
        Array.from({ length: 20 }, (_, index) => ({ at: ago(1, index * 1000) })),
      );
      for (const percent of ['0%', '0.0%', '100.1%', '101%', '150%', '999%', '1000%', '-1%', '50', '%'])
        assert.match(await refuse('verify', `--sample=${percent}`), /^webjobctl: error: option '--sample /, percent);
      assert.equal((await its.webjobctl('verify', '--sample=101%')).exitCode, 2);
      const summaryOf = async (...args: string[]) => (await its.readJson<Line>('verify', ...args)).at(-1);
      assert.equal((await summaryOf('--sample', '100%'))?.groups, 20);
      const some = (await summaryOf('--sample', '40%', '--seed', 'a'))?.groups ?? 0;
      assert.ok(some > 0 && some < 20, `${some} of 20`);
    } finally {
      its.close();
    }
  });

  it('uses the latest deposit of a name, whichever server recorded it', async () => {
    for (const [older, newer] of [
      ['server_1', 'server_2'],
      ['server_2', 'server_1'],
    ] as const) {
      const its = makeLockerSite();
      try {
        const { incoming: incomingDirectory, base } = its.site;
        const common = { incomingDirectory, logfilesDirectory: join(base, 'logfiles'), name: 'same', err: '' };
        const plant = (serverId: string, out: string, days: number): void => {
          const time = ago(days).toISOString();
          plantGroup({ ...common, out, serverId, overwrite: true, custody: { time, receivedAt: time } });
        };
        plant(older, 'first\n', 2);
        plant(newer, 'second\n', 1);
        assert.deepEqual(await verify(its), [], `${older}, then ${newer}`);
        writeFileSync(join(incomingDirectory, 'same.out'), 'first\n');
        assert.deepEqual(await verify(its), ['size-changed same.out', 'hash-wrong same.out']);
      } finally {
        its.close();
      }
    }
  });

  it('misses the record of what came after the first deposit was received', async () => {
    const its = makeLockerSite();
    try {
      const [received, recorded] = [ago(2), ago(2, 60_000)];
      plantPast(its.site, 'UTC', [
        { at: ago(2, -1000), name: 'before', custody: false },
        { at: received, name: 'first', custody: { time: recorded.toISOString(), receivedAt: received.toISOString() } },
        { at: ago(2, 30_000), name: 'between', custody: false },
        { at: ago(1), name: 'later', custody: false },
      ]);
      assert.deepEqual(await verify(its), ['older before', 'unrecorded between', 'unrecorded later']);
      assert.equal((await its.readJson<Line>('verify')).at(-1)?.older, 1);
    } finally {
      its.close();
    }
  });
});

describe('webjobctl verify of an archive', () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site, webjobctl } = its;
  const packed = join(site.base, 'packed');
  let archive = '';
  before(async () => {
    plantPast(site, 'UTC', [
      { at: ago(40), name: 'again', out: 'older\n' },
      { at: ago(40), name: 'other' },
    ]);
    assert.equal((await webjobctl('pack', '--older-than', '30d')).exitCode, 0);
    archive = readdirSync(packed).find((name) => name.endsWith('.tar.gz')) ?? '';
  });
  after(its.close);

  it('does not compare an archived upload with a later deposit of its name', async () => {
    plantPast(site, 'UTC', [{ at: ago(0), name: 'again', out: 'newer and longer\n' }]);
    assert.deepEqual(await verify(its), []);
    writeFileSync(join(site.incoming, 'again.out'), 'older\n');
    assert.deepEqual(await verify(its), ['size-changed again.out', 'hash-wrong again.out']);
    writeFileSync(join(site.incoming, 'again.out'), 'newer and longer\n');
  });

  it('reads only what changed since, and only a sample', async () => {
    const path = join(packed, archive);
    const whole = readFileSync(path);
    appendFileSync(path, 'x');
    const changedAt = statSync(path).ctimeMs;
    await sleep(20);
    const [before, after] = [-5, 10].map((shift) => new Date(changedAt + shift).toISOString());
    const wrong = [`pack-changed packed/${archive}`];
    assert.deepEqual(await verify(its), wrong);
    assert.deepEqual(await verify(its, '--touched', before ?? ''), wrong);
    assert.deepEqual(await verify(its, '--touched', after ?? ''), []);
    // Some seeds select the archive, and some do not.
    const found: number[] = [];
    for (let seed = 0; seed < 40 && new Set(found).size < 2; seed++)
      found.push((await verify(its, '--sample', '50%', '--seed', String(seed))).length);
    assert.ok(found.includes(0) && found.includes(1), `${found}`);
    writeFileSync(path, whole);
    assert.deepEqual(await verify(its), []);
  });

  it('finds a missing archive, or a changed manifest', async () => {
    const manifest = archive.replace('.tar.gz', '.jsonl');
    for (const name of [archive, manifest]) {
      const whole = readFileSync(join(packed, name));
      rmSync(join(packed, name));
      assert.deepEqual(await verify(its), [`pack-missing packed/${name}`]);
      const other = Buffer.from(whole);
      other[other.length - 1] = (other.at(-1) ?? 0) ^ 1;
      writeFileSync(join(packed, name), other);
      assert.deepEqual(await verify(its), [`pack-changed packed/${name}`]);
      writeFileSync(join(packed, name), whole);
    }
    mkdirSync(packed, { recursive: true });
    assert.deepEqual(await verify(its), []);
  });
});
