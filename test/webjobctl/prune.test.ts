// prune and hold, on lockers made by real CGI processes: exactly what the rule selects is removed,
// and it is recorded.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { groupNames, makeOldLocker, type OldLocker, readCustody, setAge } from '../support/keep-site.ts';
import { makeRecord } from '../support/locker-site.ts';
import { readFiles } from '../support/tree.ts';

const sha256 = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');

interface Line {
  name?: string;
  groups?: number;
  bytes: number;
  held: number;
  heldPacks: number;
  locked: number;
  action?: string;
  dryRun?: boolean;
}

describe('webjobctl prune', () => {
  let locker: OldLocker;
  before(async () => {
    locker = await makeOldLocker([
      { days: 100 },
      { days: 50, command: 'ps.sh' },
      { days: 40 },
      { days: 30, clientId: 'client2' },
      { days: 20 },
      { days: 1 },
    ]);
  });
  after(() => locker.close());

  /** What `--dry-run` would remove. */
  async function plan(...args: string[]): Promise<string[]> {
    const lines = await locker.readJson<Line>('prune', ...args, '--dry-run');
    assert.equal(lines.at(-1)?.dryRun, true);
    return lines.flatMap(({ name }) => name ?? []);
  }

  const pick = (...indexes: number[]): string[] => indexes.map((index) => locker.names[index] ?? 'none');

  it('lists what would be removed, the oldest first, and touches nothing', async () => {
    const files = readFiles(locker.site.root);
    assert.deepEqual(await plan('--older-than', '35d'), pick(0, 1, 2));
    assert.deepEqual(readFiles(locker.site.root), files);
  });

  it('removes an upload only when every rule allows it', async () => {
    assert.deepEqual(await plan('--keep', '1'), pick(0, 2, 4));
    assert.deepEqual(await plan('--keep', '2'), pick(0, 2));
    assert.deepEqual(await plan('--keep', '1', '--older-than', '45d'), pick(0));
    assert.deepEqual(await plan('--max-bytes', '1k', '--keep', '1'), pick(0, 2, 4));
  });

  it('makes room from the oldest on, and reports when that is not enough', async () => {
    const sizes = [...readFiles(locker.site.incoming).values()].reduce((sum, text) => sum + text.length, 0);
    assert.deepEqual(await plan('--max-bytes', String(sizes)), []);
    assert.deepEqual(await plan('--max-bytes', String(sizes - 1)), pick(0));
    assert.deepEqual(await plan('--max-bytes', '1G'), []);
    const { exitCode, stderr } = await locker.webjobctl(
      'prune',
      '--max-bytes',
      '0',
      '--older-than',
      '35d',
      '--dry-run',
    );
    assert.equal(exitCode, 1);
    assert.match(stderr, /the locker is still .* too large/);
  });

  it('asks, and without a terminal removes nothing unless told to', async () => {
    const files = readFiles(locker.site.incoming);
    const { exitCode, stderr } = await locker.webjobctl('prune', '--older-than', '35d');
    assert.equal(exitCode, 2);
    assert.match(stderr, /without a terminal prune requires --yes/);
    assert.deepEqual(readFiles(locker.site.incoming), files);
    assert.deepEqual(readCustody(locker.site), []);
  });

  for (const [args, says] of [
    [[], /prune requires --older-than, --keep or --max-bytes/],
    [['--older-than', '90'], /--older-than.*a duration is a number/],
    [['--keep', '0'], /--keep.*must be 1 or more/],
    [['--max-bytes', '-1'], /--max-bytes.*a size is a number/],
    [['--max-bytes', '9'.repeat(30)], /--max-bytes.*a size is a number/],
  ] as const) {
    it(`refuses ${args.join(' ') || 'to run without a rule'}`, async () => {
      const { exitCode, stderr } = await locker.webjobctl('prune', ...args, '--yes');
      assert.equal(exitCode, 2, stderr);
      assert.match(stderr, says);
    });
  }

  it('leaves what is being written, and says so', async () => {
    const [oldest = ''] = locker.names;
    const lock = join(locker.site.incoming, `${oldest}.lck`);
    writeFileSync(lock, 'Jid=other\n');
    const { exitCode, stderr } = await locker.webjobctl('prune', '--older-than', '60d', '--yes');
    assert.equal(exitCode, 1);
    assert.match(stderr, /being written or changed, not removed: 1 upload/);
    assert.ok(groupNames(locker.site).includes(oldest));
    rmSync(lock);
  });

  it('removes what it listed and nothing else, with every digest recorded before', async () => {
    const was = readFiles(locker.site.incoming);
    const going = await plan('--older-than', '35d');
    const { exitCode, text } = await locker.webjobctl('--json', 'prune', '--older-than', '35d', '--yes');
    assert.equal(exitCode, 0);
    const lines = text.split('\n').flatMap((line): Line[] => (line ? [JSON.parse(line)] : []));
    assert.deepEqual(
      lines.slice(0, -1).map(({ name, action }) => [name, action]),
      going.map((name) => [name, 'removed']),
    );
    const isGoing = (path: string): boolean => going.includes(path.slice(0, -4));
    const expected = new Map([...was].filter(([path]) => !isGoing(path)));
    assert.deepEqual(readFiles(locker.site.incoming), expected);
    const records = readCustody(locker.site).filter(({ event }) => event === 'prune');
    assert.deepEqual(
      records.flatMap(({ groups }) => groups?.map(({ name }) => name)),
      going,
    );
    for (const { groups = [], by, rule } of records) {
      assert.ok(by);
      assert.equal(rule, '--older-than 3024000s');
      for (const { name, jobId, files } of groups) {
        assert.equal(was.get(`${name}.rdy`), `Jid=${jobId}\n`);
        for (const extension of ['out', 'err', 'env', 'rdy']) {
          const text = was.get(`${name}.${extension}`) ?? 'none';
          assert.deepEqual(files[extension], { bytes: text.length, sha256: sha256(text) });
        }
      }
    }
  });

  it('leaves incomplete groups unless asked', async () => {
    const [name = ''] = pick(3);
    rmSync(join(locker.site.incoming, `${name}.rdy`));
    assert.deepEqual(await plan('--older-than', '25d'), []);
    assert.deepEqual(await plan('--older-than', '25d', '--incomplete'), [name]);
    const { exitCode } = await locker.webjobctl('prune', '--older-than', '25d', '--incomplete', '--yes');
    assert.equal(exitCode, 0);
    assert.ok(!existsSync(join(locker.site.incoming, `${name}.out`)));
  });
});

describe('webjobctl prune --keep', () => {
  it('lets no client displace the uploads of another, whatever its record and Job-Id claim', async () => {
    const locker = await makeOldLocker([{ days: 30 }]);
    try {
      const [victim = ''] = locker.names;
      const jobId = /^Jid=(.*)$/m.exec(readFiles(locker.site.incoming).get(`${victim}.rdy`) ?? '')?.[1] ?? '';
      const record = makeRecord({ ClientId: 'client1', GetRequest: 'host.sh', Command: 'host.sh' });
      for (let count = 0; count < 2; count++)
        await locker.put({ clientId: 'mallory', fileName: 'host.sh', jobId, out: 'younger\n', env: record });
      const names = async (): Promise<string[]> => {
        const lines = await locker.readJson<Line>('prune', '--keep', '1', '--dry-run');
        return lines.flatMap(({ name }) => name ?? []);
      };
      const going = await names();
      assert.equal(going.length, 1);
      assert.match(going[0] ?? '', /^mallory_/);
      // An upload that the log does not know belongs to no client for --keep.
      writeFileSync(locker.site.logFile, '');
      assert.deepEqual(await names(), []);
    } finally {
      locker.close();
    }
  });
});

describe('webjobctl hold', () => {
  let locker: OldLocker;
  before(async () => {
    locker = await makeOldLocker([
      { days: 50 },
      { days: 49, clientId: 'client10' },
      { days: 48, clientId: 'client2' },
      { days: 47, clientId: 'client2' },
    ]);
  });
  after(() => locker.close());

  async function going(): Promise<string[]> {
    const lines = await locker.readJson<Line>('prune', '--older-than', '1d', '--dry-run');
    return lines.flatMap(({ name }) => name ?? []);
  }

  const hold = async (code: number, ...args: string[]): Promise<string> => {
    const { exitCode, stderr } = await locker.webjobctl('hold', ...args);
    assert.equal(exitCode, code, stderr);
    return stderr;
  };

  it('keeps the uploads of a client, and none of a client whose name begins alike', async () => {
    const [first, ten, ...others] = locker.names;
    await hold(1, 'list');
    await hold(0, 'add', '--client', 'client1', '--reason', 'case 4711');
    await hold(1, 'add', '--client', 'client1', '--reason', 'again');
    assert.deepEqual(await going(), [ten, ...others]);
    const lines = await locker.readJson<Record<string, string>>('hold', 'list');
    assert.deepEqual(
      lines.map(({ kind, id, reason }) => [kind, id, reason]),
      [['client', 'client1', 'case 4711']],
    );
    await hold(0, 'remove', '--client', 'client1', '--reason', 'closed');
    assert.deepEqual(await going(), [first, ten, ...others]);
    await hold(1, 'remove', '--client', 'client1', '--reason', 'closed');
    const events = readCustody(locker.site).map(({ event, reason }) => `${event} ${reason}`);
    assert.deepEqual(events, ['hold case 4711', 'release closed']);
  });

  it('keeps one job', async () => {
    const [first = '', ...others] = locker.names;
    const jobId = /^Jid=(.*)$/m.exec(readFiles(locker.site.incoming).get(`${first}.rdy`) ?? '')?.[1] ?? '';
    await hold(0, 'add', '--job', jobId, '--reason', 'evidence');
    assert.deepEqual(await going(), others);
    await hold(0, 'remove', '--job', jobId, '--reason', 'evidence');
  });

  it('also keeps what only the log, or only the record, attributes to the client', async () => {
    // PutNameFormat without a client id, and a run record that claims another one.
    await hold(0, 'add', '--client', 'client1', '--reason', 'case 4711');
    const odd = await makeOldLocker([{ days: 50 }], { PutNameFormat: '%jid' });
    try {
      await odd.webjobctl('hold', 'add', '--client', 'client1', '--reason', 'a');
      const [name = ''] = odd.names;
      const record = join(odd.site.incoming, `${name}.env`);
      const lines = async (): Promise<Line[]> => odd.readJson<Line>('prune', '--older-than', '1d', '--dry-run');
      const text = readFileSync(record, 'latin1');
      writeFileSync(record, text.replace('ClientId=client1', 'ClientId=other'));
      setAge(odd.site, name, 50);
      assert.equal((await lines()).at(-1)?.held, 1, 'the log tells');
      writeFileSync(record, text);
      writeFileSync(odd.site.logFile, '');
      setAge(odd.site, name, 50);
      assert.equal((await lines()).at(-1)?.held, 1, 'the record tells');
      writeFileSync(record, '');
      assert.equal((await lines()).at(-1)?.held, 0);
    } finally {
      odd.close();
      await hold(0, 'remove', '--client', 'client1', '--reason', 'closed');
    }
  });

  it('keeps an archive that contains something on hold', async () => {
    const old = await makeOldLocker([{ days: 50 }]);
    try {
      assert.equal((await old.webjobctl('pack', '--older-than', '1d')).exitCode, 0);
      const stay = async (): Promise<unknown> =>
        (await old.readJson<Line>('prune', '--older-than', '1d', '--dry-run')).at(-1)?.heldPacks;
      assert.equal(await stay(), 0);
      assert.equal((await old.webjobctl('hold', 'add', '--client', 'client1', '--reason', 'a')).exitCode, 0);
      assert.equal(await stay(), 1);
    } finally {
      old.close();
    }
  });

  it('stops every removal when the holds cannot be read', async () => {
    await hold(0, 'add', '--client', 'client2', '--reason', 'case 4712');
    const path = join(locker.site.base, 'config', 'nph-webjob', 'holds.jsonl');
    const was = readFileSync(path, 'utf8');
    const files = readFiles(locker.site.incoming);
    for (const damage of ['{"kind":"client"}\n', `${was}{`, `${was.slice(0, -5)}\n`]) {
      writeFileSync(path, damage);
      for (const command of ['prune', 'pack']) {
        const args = command === 'prune' ? ['--yes'] : [];
        const { exitCode, stderr } = await locker.webjobctl(command, '--older-than', '1d', ...args);
        assert.equal(exitCode, 4, stderr);
        assert.match(stderr, /holds\.jsonl: /);
      }
    }
    assert.deepEqual(readFiles(locker.site.incoming), files);
    writeFileSync(path, was);
    await hold(0, 'remove', '--client', 'client2', '--reason', 'closed');
  });

  it('refuses a hold without a client or job, or without a reason', async () => {
    assert.match(await hold(2, 'add', '--reason', 'a'), /--client or for --job/);
    assert.match(await hold(2, 'add', '--client', 'a/b', '--reason', 'a'), /--client is not a client id/);
    assert.match(await hold(2, 'add', '--client', 'a', '--job', 'b', '--reason', 'a'), /--client or for --job/);
    assert.match(await hold(2, 'add', '--client', 'client1', '--reason', ' '), /--reason is empty/);
    assert.match(await hold(2, 'add', '--client', 'client1'), /--reason/);
  });
});

describe('webjobctl with an existing lock', () => {
  it('waits neither for a living process nor for a dead one', async () => {
    const locker = await makeOldLocker([{ days: 50 }]);
    try {
      await locker.webjobctl('hold', 'list');
      const folder = join(locker.site.base, 'config', 'nph-webjob');
      const holder = await locker.webjobctl('hold', 'add', '--client', 'other', '--reason', 'makes the folder');
      assert.equal(holder.exitCode, 0);
      const lock = join(folder, 'keep.lck');
      const { hostname } = await import('node:os');
      appendFileSync(lock, `webjobctl ${process.pid} ${hostname()} ${startTicks()}\n`);
      const refused = await locker.webjobctl('prune', '--older-than', '1d', '--yes');
      assert.equal(refused.exitCode, 4);
      assert.match(refused.stderr, /another webjobctl is running/);
      writeFileSync(lock, `webjobctl ${process.pid} ${hostname()} 1\n`);
      const taken = await locker.webjobctl('prune', '--older-than', '1d', '--yes');
      assert.equal(taken.exitCode, 0, taken.stderr);
      assert.ok(!existsSync(lock));
    } finally {
      locker.close();
    }
  });
});

function startTicks(): string {
  return /.*\) (?:\S+ ){19}(\d+)/s.exec(readFileSync('/proc/self/stat', 'latin1'))?.[1] ?? '0';
}
