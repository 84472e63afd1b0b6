// The witness shows what the custody record contained when a web user, who can write to the record
// at will, truncates it.
import assert from 'node:assert/strict';
import fs, {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { appendCustody } from '../../cgi/locker/index.ts';
import { LARGE_FOLDER, MetNames } from '../../evidence/met-names.ts';
import { Witness } from '../../evidence/witness.ts';
import { makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf } from '../support/custody-record.ts';
import { verifyAs } from '../support/evidence-site.ts';
import { makeGround, parseLines, runWebjobctl } from '../support/operator.ts';
import { findWebUser } from '../support/tree.ts';
import { type Planted, plantGroup } from '../support/verify-site.ts';

const CUSTODY = 'nph-webjob-custody.server_1.jsonl';
const needsRoot = { skip: process.getuid?.() !== 0 && 'only root keeps a witness' };

let site: Site;
beforeEach(() => {
  site = makeSite({ settings: { PutNameFormat: '%cid_%cmd' } });
});
afterEach(() => site.remove());
const at = (name: string): string => join(site.incoming, name);
const witness = (): string => join(site.base, 'config', 'nph-webjob');
const verify = (...args: string[]): Promise<string[]> => verifyAs([site.propertiesFile], ...args);

function plant(name: string, more: Partial<Planted> = {}): void {
  const places = { incomingDirectory: site.incoming, logfilesDirectory: join(site.base, 'logfiles') };
  plantGroup({ ...places, name, out: `out of ${name}`, err: `err of ${name}`, ...more });
}

function remove(name: string): void {
  for (const extension of ['rdy', 'out', 'err', 'env']) rmSync(at(`${name}.${extension}`));
}

/** What webjobctl custody adopt reports. */
async function adopt(...args: string[]): Promise<string[]> {
  const words = ['--json', '--config', site.propertiesFile, 'custody', 'adopt', '--reason', 'a test', ...args];
  const { code, stdout, stderr } = await runWebjobctl(words);
  assert.equal(code, 0, stderr);
  return parseLines<{ action: string; what: string; place: string }>(stdout)
    .map(({ action, what, place }) => `${action} ${what} ${place}`)
    .sort();
}

describe('a truncated custody record', needsRoot, () => {
  beforeEach(async () => {
    for (const name of ['altered', 'removed', 'kept']) plant(name);
    assert.deepEqual(await verify(), []);
    writeFileSync(at('altered.env'), 'anything\n');
    remove('removed');
  });
  const lost = ['group-missing removed', 'size-changed altered.env'];
  const cut = `witness-truncated ${CUSTODY}`;

  it('hides no change and no missing upload when it is emptied and one PUT follows', async () => {
    truncateSync(custodyOf(site), 0);
    plant('later');
    for (const option of [[], ['--custody'], ['--since', '1h']] as const) {
      const found = await verify(...option);
      assert.ok(found.includes(cut), found.join());
      assert.ok(found.includes('group-missing removed'), found.join());
      if (option[0] !== '--custody') assert.deepEqual(found, [...lost, cut].sort());
    }
  });

  it('is found when it lacks some entries, or is removed', async () => {
    const whole = readFileSync(custodyOf(site));
    truncateSync(custodyOf(site), whole.indexOf('\n') + 1);
    assert.deepEqual(await verify(), [...lost, cut].sort());
    rmSync(custodyOf(site));
    assert.deepEqual(await verify(), [...lost, cut, `custody-missing ${CUSTODY}`].sort());
  });

  it('is found when an expert rewrites it, and its earlier entries count', async () => {
    rmSync(custodyOf(site));
    const names = ['altered', 'kept'];
    for (const name of names) {
      const streams = ['out', 'err', 'env'].map((stream) => [stream, readFileSync(at(`${name}.${stream}`))] as const);
      remove(name);
      const [out, err] = streams.map(([, bytes]) => bytes);
      const env = streams[2]?.[1].toString() ?? '';
      plant(name, { out: out ?? '', err: err ?? '', changeEnv: () => env, jobId: `server_1_1085355126_${name}` });
    }
    for (let count = 0; count < 5; count++) plant(`more${count}`);
    const found = await verify();
    assert.ok(found.includes(`witness-changed ${CUSTODY}`), found.join());
    assert.ok(found.includes('group-missing removed'), found.join());
  });

  it('stays a finding until it is adopted, and its earlier entries are kept', async () => {
    truncateSync(custodyOf(site), 0);
    plant('later');
    for (let time = 0; time < 2; time++) assert.ok((await verify()).includes(cut));
    const done = ['upload altered', 'upload kept', `record ${CUSTODY}`].sort();
    assert.deepEqual(
      await adopt('--dry-run'),
      [...done, `record ${CUSTODY}`].map((one) => `would adopt ${one}`).sort(),
    );
    assert.ok((await verify()).includes(cut));
    await adopt();
    assert.deepEqual(await verify(), []);
    assert.ok(readdirSync(witness()).some((name) => /\.gz\.\d{8}T\d{6}$/.test(name)));
    writeFileSync(at('kept.err'), 'changed');
    remove('altered');
    assert.deepEqual(await verify(), ['group-missing altered', 'hash-wrong kept.err', 'size-changed kept.err']);
  });

  it('gives others the same answers without the witness, and says so', async () => {
    const user = findWebUser();
    assert.ok(user);
    truncateSync(custodyOf(site), 0);
    plant('later');
    chownSync(custodyOf(site), user.uid, user.gid);
    const { stdout, stderr } = await runWebjobctl(['--config', site.propertiesFile, 'verify'], { user, cwd: '/' });
    assert.match(stdout, /^older +altered: /m);
    assert.match(
      stderr,
      /the witness is for root alone: only a checkpoint shows whether the custody record was truncated/,
    );
    assert.doesNotMatch(stdout, /witness-/);
  });
});

describe('webjobctl verify --since', needsRoot, () => {
  const since = (): Promise<string[]> => verify('--since', new Date(Date.now() - 1000).toISOString());
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2500));

  it('reads nothing when nothing is new, and finds what is', async () => {
    for (const name of ['a', 'b', 'deep/c']) plant(name);
    await verify();
    await pause();
    const config = ['--json', '--config', site.propertiesFile, 'verify', '--since', '2s'];
    const quiet = parseLines<{ groups: number; bytes: number }>((await runWebjobctl(config)).stdout);
    assert.deepEqual([quiet.length, quiet[0]?.groups, quiet[0]?.bytes], [1, 0, 0]);
    plant('deep/new');
    writeFileSync(at('deep/new.out'), 'changed');
    assert.deepEqual(await verify('--since', '2s'), ['hash-wrong deep/new.out', 'size-changed deep/new.out']);
    remove('deep/new');
    assert.deepEqual(await verify('--since', '10s'), ['group-missing deep/new']);
  });

  it('finds unrecorded uploads, foreign files, and a record that was touched', async () => {
    for (const name of ['a', 'deep/deeper/b']) plant(name);
    await verify();
    await pause();
    // Nothing changes in the directory between.
    for (const name of ['slipped', 'deep/deeper/slipped']) plant(name, { custody: false });
    writeFileSync(at('notes'), '');
    assert.deepEqual(await since(), ['unexpected notes', 'unrecorded deep/deeper/slipped', 'unrecorded slipped']);
    for (const name of ['slipped', 'deep/deeper/slipped']) remove(name);
    rmSync(at('notes'));
    await pause();
    assert.deepEqual(await since(), []);
    truncateSync(custodyOf(site), 20);
    assert.ok((await since()).includes(`witness-truncated ${CUSTODY}`));
  });

  it('does not rely on a time that a user set back', async () => {
    for (const name of ['a', 'b']) plant(name);
    await verify();
    await pause();
    const { atime, mtime } = statSync(custodyOf(site));
    const text = readFileSync(custodyOf(site), 'latin1');
    writeFileSync(custodyOf(site), text.replace('"clientId":"client1"', '"clientId":"client2"'), 'latin1');
    utimesSync(custodyOf(site), atime, mtime);
    const found = await since();
    assert.ok(
      found.includes(`witness-changed ${CUSTODY}`) && found.includes(`custody-edited ${CUSTODY}`),
      found.join(),
    );
  });

  it('makes checkpoints of the seen and the present entries alike', async () => {
    const key = join(site.root, 'custody');
    for (const name of ['a', 'b']) plant(name);
    assert.equal((await runWebjobctl(['sign', 'keygen', key])).code, 0);
    const words = ['--config', site.propertiesFile, '--json', 'custody', 'checkpoint', '--key', `${key}.key`];
    const take = async (): Promise<unknown[]> => {
      const { code, stdout } = await runWebjobctl(words);
      const [line] = parseLines<{ origin: string; size: number; root: string }>(stdout);
      return [code, line?.origin, line?.size, line?.root];
    };
    const first = await take();
    assert.equal(first[0], 0);
    assert.deepEqual(await take(), first);
    plant('c');
    assert.notDeepEqual(await take(), first);
    truncateSync(custodyOf(site), statSync(custodyOf(site)).size - 10);
    assert.deepEqual((await take()).slice(0, 2), [1, undefined]);
  });
});

describe('verify --since in a large directory', needsRoot, () => {
  const kept = (): string[] => readdirSync(witness()).filter((name) => name.startsWith('locker-names.'));

  /** Many uploads from before the custody record began. */
  function plantMany(folder = ''): void {
    mkdirSync(at(folder), { recursive: true });
    for (let number = 0; number < LARGE_FOLDER; number++) {
      for (const extension of ['out', 'err', 'env']) writeFileSync(at(`${folder}old_${number}.${extension}`), '');
      writeFileSync(at(`${folder}old_${number}.rdy`), `Jid=server_1_1085355126_${number}\n`);
      utimesSync(at(`${folder}old_${number}.rdy`), 1e9, 1e9);
    }
  }

  /** A time after everything that was done so far, and before everything that follows. */
  async function pause(): Promise<Date> {
    await sleep(20);
    const instant = new Date();
    await sleep(20);
    return instant;
  }

  const since = (instant: Date): Promise<string[]> => verify('--since', instant.toISOString());

  it('reads every upload that root has not seen, and no other', async () => {
    plantMany();
    const before = await pause();
    plant('first');
    await verify();
    assert.deepEqual(await since(before), []);
    assert.deepEqual([kept().length, statSync(join(witness(), kept()[0] ?? '')).mode & 0o777], [1, 0o600]);
    const instant = await pause();
    plant('slipped', { custody: false });
    writeFileSync(at('unfinished.out'), '');
    writeFileSync(at('notes'), '');
    rmSync(at('old_6.out'));
    symlinkSync('/etc/passwd', at('old_6.out'));
    chmodSync(at('old_5.rdy'), 0o666);
    const found = ['incomplete unfinished', 'link old_6.out', 'unexpected notes', 'unrecorded slipped'];
    assert.deepEqual(await since(instant), found);
    assert.deepEqual(await since(instant), found, 'what root has met came since, all the same');
    for (const args of [[], ['--touched', instant.toISOString()]])
      assert.ok((await verify(...args)).includes('mode old_5.rdy'), args.join(' '));
    const later = await pause();
    writeFileSync(at('unfinished.err'), '');
    assert.deepEqual(await since(later), found.slice(0, 3), 'what is not whole was never met');
  });

  it('reads all of them when its notes are damaged, and keeps none for a small directory', async () => {
    plantMany();
    const before = await pause();
    plant('first');
    await verify();
    await since(before);
    const path = join(witness(), kept()[0] ?? '');
    const instant = await pause();
    chmodSync(at('old_5.rdy'), 0o666);
    plant('second');
    assert.deepEqual(await since(instant), []);
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
    writeFileSync(path, bytes);
    assert.deepEqual(await since(instant), ['mode old_5.rdy', 'older old_5']);
    for (let number = 0; number < 10; number++) remove(`old_${number}`);
    assert.deepEqual(await since(instant), []);
    assert.deepEqual(kept(), []);
  });

  it('keeps nothing of a directory that is gone', async () => {
    const before = await pause();
    plantMany('deep/');
    plant('first');
    await verify();
    await since(before);
    assert.equal(kept().length, 1);
    rmSync(at('deep'), { recursive: true });
    plantMany('other/');
    await since(before);
    assert.equal(kept().length, 1);
  });
});

describe('the table of a large directory', () => {
  it('has every name that was met, however much it grows, and forgets those that are gone', () => {
    const open = (): MetNames => new MetNames(site.base, site.incoming, '');
    const [count, half] = [10_000, 5_000];
    const times = (met: MetNames, isReady: boolean, end = count): number[] =>
      Array.from({ length: end }, (_, number) => met.cameAt(`name_${number}.rdy`, isReady));
    const expected = Array.from({ length: count }, (_, number) => 1e12 + number);
    const first = open();
    for (const [number, time] of expected.entries()) first.note(`folder/name_${number}`, time);
    assert.deepEqual(times(first, false), expected);
    first.save();
    const second = open();
    assert.deepEqual(times(second, false), expected);
    assert.deepEqual(times(second, true, half), expected.slice(0, half));
    second.save();
    const third = open();
    assert.deepEqual(times(third, false, half), expected.slice(0, half));
    for (const name of [`name_${half}.rdy`, `name_${count}.rdy`])
      assert.equal(third.cameAt(name, false), Number.POSITIVE_INFINITY, name);
  });
});

describe('the witness', needsRoot, () => {
  it('is kept where only root can read or write, grows with the record, and is otherwise left alone', async () => {
    plant('a');
    await verify();
    const [index = ''] = readdirSync(witness()).filter((name) => name.endsWith('.json'));
    const path = join(witness(), index);
    for (const name of readdirSync(witness())) assert.equal(statSync(join(witness(), name)).mode & 0o777, 0o600, name);
    const first = readFileSync(path, 'utf8');
    await verify();
    assert.equal(readFileSync(path, 'utf8'), first);
    plant('b');
    await verify();
    assert.notEqual(readFileSync(path, 'utf8'), first);
    truncateSync(custodyOf(site), 10);
    assert.ok((await verify()).includes(`witness-truncated ${CUSTODY}`));
  });

  it('has entries of a record on disk before its index names them', () => {
    plant('a');
    const steps: string[] = [];
    const { fsyncSync, renameSync } = fs;
    const seen = {
      fsyncSync: (fd: number): void => {
        steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`))}`);
        fsyncSync(fd);
      },
      renameSync: (from: string, to: string): void => {
        steps.push(`rename ${basename(to)}`);
        renameSync(from, to);
      },
    };
    Object.assign(fs, seen);
    syncBuiltinESMExports();
    try {
      const found = { file: CUSTODY, size: statSync(custodyOf(site)).size, newest: Date.now() };
      new Witness(witness()).update(join(site.base, 'logfiles'), [found]);
    } finally {
      Object.assign(fs, { fsyncSync, renameSync });
      syncBuiltinESMExports();
    }
    const [copy = ''] = readdirSync(witness()).filter((name) => name.endsWith('.gz'));
    const [kept, named] = [steps.indexOf(`fsync ${copy}`), steps.indexOf('rename custody-witness.json')];
    assert.deepEqual(steps.slice(kept, kept + 2), [`fsync ${copy}`, 'fsync nph-webjob'], steps.join('\n'));
    assert.ok(kept >= 0 && kept < named, steps.join('\n'));
    assert.deepEqual(steps.slice(named), ['rename custody-witness.json', 'fsync nph-webjob']);
  });

  it('does not accept what differs from what was written', async () => {
    for (const name of ['a', 'b']) plant(name);
    const text = readFileSync(custodyOf(site), 'latin1');
    writeFileSync(custodyOf(site), text.replace('"clientId":"client1"', '"clientId":"client2"'), 'latin1');
    const found = await verify();
    assert.ok(found.includes(`custody-edited ${CUSTODY}`));
    assert.ok(!existsSync(witness()) || !readdirSync(witness()).some((name) => name.includes('server_1')));
  });

  it('is not kept where others can write, and nothing there counts', async () => {
    const user = findWebUser();
    assert.ok(user);
    plant('a');
    await verify();
    chownSync(join(site.base, 'config'), user.uid, user.gid);
    truncateSync(custodyOf(site), 0);
    const { stderr, stdout } = await runWebjobctl(['--config', site.propertiesFile, 'verify']);
    assert.match(stderr, /users other than root can write there, so no witness is kept or used/);
    assert.doesNotMatch(stdout, /witness-/);
  });
});

describe('uploads without a custody record', () => {
  it('are a finding until they are adopted, and then evidence like all others', async () => {
    for (const name of ['old', 'older', 'oldest']) plant(name, { custody: false });
    await new Promise((resolve) => setTimeout(resolve, 20));
    appendCustody(custodyOf(site), { event: 'remark', time: new Date() });
    const before = ['older old', 'older older', 'older oldest'];
    assert.deepEqual(await verify(), before);
    assert.deepEqual(
      await adopt('--dry-run'),
      ['record nph-webjob-custody.server_1.jsonl', 'upload old', 'upload older', 'upload oldest'].map(
        (one) => `would adopt ${one}`,
      ),
    );
    assert.deepEqual(await verify(), before);
    assert.equal((await adopt()).length, 4);
    assert.deepEqual(await adopt(), []);
    assert.deepEqual(await verify(), []);
    writeFileSync(at('old.rdy'), 'Jid=another\n');
    writeFileSync(at('older.env'), '');
    remove('oldest');
    assert.deepEqual(await verify(), ['group-missing oldest', 'ready-wrong old.rdy', 'size-changed older.env']);
  });
});

describe('a site that webjobctl init made', needsRoot, () => {
  it('finds a record that was truncated before anyone looked', async () => {
    const ground = makeGround();
    try {
      const base = join(ground.root, 'site');
      await ground.run(0, 'init', '--prefix', base, '--node', ground.node);
      const config = join(ground.root, 'site', 'etc', 'nph-webjob.cfg');
      const found = readdirSync(ground.root, { recursive: true }).map(String);
      const custody = join(ground.root, found.find((name) => name.endsWith(CUSTODY)) ?? '');
      const places = {
        incomingDirectory: join(custody, '..', '..', 'incoming'),
        logfilesDirectory: join(custody, '..'),
      };
      assert.match(readFileSync(custody, 'utf8'), /"event":"genesis"/);
      const configs = [
        existsSync(config) ? config : join(ground.root, found.find((name) => name.endsWith('nph-webjob.cfg')) ?? ''),
      ];
      plantGroup({ ...places, name: 'a', out: '', err: '' });
      assert.deepEqual(await verifyAs(configs), []);
      truncateSync(custody, 0);
      plantGroup({ ...places, name: 'b', out: 'b', err: '' });
      assert.ok((await verifyAs(configs)).some((line) => line.startsWith('witness-')));
    } finally {
      ground.remove();
    }
  });
});
