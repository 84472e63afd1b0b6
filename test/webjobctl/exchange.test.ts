// webjobctl as root in a locker whose directories belong to the web user, who replaces one of them
// atomically by a link to a directory of root, at any moment. Whatever the command, it opens, makes
// and removes nothing there.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  cpSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { describe, it } from 'node:test';
import { addUser, configure } from '../../scripts/site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';
import { findWebUser, readFiles, removeTree } from '../support/tree.ts';
import { waitFor } from '../support/wait.ts';

const AT = new Date(Date.now() - 40 * 86_400_000);
const DAY = AT.toISOString().slice(0, 10);
const ATTACKER = join(import.meta.dirname, '..', 'support', 'exchange-attacker.py');
const RUNS = Number(process.env.WEBJOB_TEST_RUNS ?? 1);

/** In one run of a command each directory is a separate attack. */
const FOLDERS = 25;
/** The most events in a directory before it is replaced. */
const MOST = 10;

interface Tried {
  args: string[];
  /** Commands that run before any attack. */
  before?: string[];
}

const COMMANDS: Record<string, Tried> = {
  pack: { args: ['pack', '--older-than', '30d'] },
  prune: { args: ['prune', '--older-than', '30d', '--yes'] },
  unpack: { args: ['unpack', DAY], before: ['pack', '--older-than', '30d'] },
  verify: { args: ['verify'] },
  'verify --since': { args: ['verify', '--since', '50d'] },
  report: { args: ['report', '--html', 'REPORT'] },
  index: { args: ['index'] },
  search: { args: ['search', 'kept'] },
  clients: { args: ['clients'] },
  hold: { args: ['hold', 'add', '--client', 'client1', '--reason', 'r'] },
  show: { args: ['show', 'job-0', '--all'] },
  diff: { args: ['diff', 'job-0', 'job-1'] },
  'custody adopt': { args: ['custody', 'adopt', '--reason', 'r'] },
};

describe('a web user who replaces a directory of the locker with a link', { skip: findObstacle() }, () => {
  for (const [name, tried] of Object.entries(COMMANDS))
    it(`cannot make webjobctl ${name} of root touch anything at its target`, async () => {
      let exchanged = 0;
      for (let run = 0; run < RUNS; run++) {
        const folders = Array.from({ length: FOLDERS }, (_, index) => `incoming/${index}`);
        exchanged += await attack(tried, folders, (index) => 1 + ((index + run) % MOST));
      }
      // A hold depends only on the log and on files of root.
      if (name !== 'hold') assert.ok(exchanged > 0, 'nothing was exchanged');
    });

  for (const name of ['pack', 'prune', 'unpack', 'verify'])
    it(`cannot make webjobctl ${name} touch anything, even by replacing the locker itself`, async () => {
      let exchanged = 0;
      for (let run = 0; run < 2 * RUNS; run++)
        exchanged += await attack(COMMANDS[name] ?? { args: [] }, ['his/incoming'], () => 1 + ((4 * run) % MOST));
      assert.ok(exchanged > 0, 'nothing was exchanged');
    });

  it('cannot make webjobctl client remove of root remove anything at the target of counts', async () => {
    let exchanged = 0;
    for (let run = 0; run < RUNS; run++) exchanged += await attackCounts((index) => 1 + ((index + run) % 4));
    assert.ok(exchanged > 0, 'nothing was exchanged');
  });

  it('cannot make root write anything where the output directory belongs to the user', async () => {
    const its = makeLockerSite();
    const { site } = its;
    const { uid = 0, gid = 0 } = findWebUser() ?? {};
    const ask = async (...args: string[]): Promise<[number | null, string | undefined]> => {
      const { exitCode, stderr } = await its.webjobctl(...args);
      return [
        exitCode,
        /can replace files in (\S+), so root writes nothing there\n.*hint: .*chown root/.exec(stderr)?.[1],
      ];
    };
    try {
      plantPast(site, 'UTC', [{ at: AT, name: 'one', jobId: 'job-0' }]);
      const [packed, index, keep] = ['packed', 'index', 'config/nph-webjob'].map((name) => join(site.base, name)) as [
        string,
        string,
        string,
      ];
      const key = join(site.root, 'custody.key');
      for (const folder of [packed, index, keep]) mkdirSync(folder, { recursive: true });
      assert.deepEqual(await ask('sign', 'keygen', key.replace(/\.key$/, '')), [0, undefined]);
      for (const folder of [site.base, packed, keep]) {
        chownSync(folder, uid, gid);
        const writes = [
          ['pack', '--older-than', '30d'],
          ['prune', '--older-than', '30d', '--yes'],
          ['unpack', DAY],
          ['custody', 'adopt', '--reason', 'r'],
          ['hold', 'add', '--client', 'client1', '--reason', 'r'],
          ['index'],
          ...(folder === keep ? [['custody', 'checkpoint', '--key', key]] : []),
        ];
        for (const args of writes) assert.deepEqual(await ask(...args), [4, folder], args.join(' '));
        assert.deepEqual(await ask('jobs'), [0, undefined], 'what only reads goes on');
        chownSync(folder, 0, 0);
      }
      assert.deepEqual([readdirSync(packed), readdirSync(index)], [[], []]);
      chownSync(index, uid, gid);
      assert.deepEqual(await ask('index'), [4, index]);
      chownSync(index, 0, 0);
      assert.deepEqual(await ask('index'), [0, undefined]);
      chownSync(index, uid, gid);
      const before = readFiles(index);
      assert.deepEqual(await ask('jobs'), [0, undefined]);
      assert.deepEqual(readFiles(index), before, 'an answer is kept there neither');
      for (const args of [
        ['pack', '--older-than', '30d'],
        ['unpack', DAY],
      ])
        assert.deepEqual(await ask(...args), [0, undefined], args.join(' '));
    } finally {
      removeTree(site.root);
    }
  });

  it('gains nothing where the locker is a link of the user, which root refuses', async () => {
    const its = makeLockerSite();
    const { site } = its;
    const { uid = 0, gid = 0 } = findWebUser() ?? {};
    try {
      mkdirSync(join(site.root, 'own'));
      const his = join(site.base, 'his');
      mkdirSync(his);
      symlinkSync('../../own', join(his, 'incoming'));
      configure(site, { IncomingDirectory: join(his, 'incoming') });
      const ask = async (): Promise<[number | null, boolean]> => {
        const { exitCode, stderr } = await its.webjobctl('prune', '--older-than', '30d', '--yes');
        return [exitCode, /incoming is a link that users other than root can change/.test(stderr)];
      };
      assert.deepEqual(await ask(), [0, false], 'a link in a folder of root');
      chownSync(his, uid, gid);
      assert.deepEqual(await ask(), [4, true]);
    } finally {
      removeTree(site.root);
    }
  });
});

/**
 * Replaces each of the directories after this many events in it. Returns how many were replaced.
 * Throws AssertionError.
 */
async function attack(
  { args, before }: Tried,
  folders: readonly string[],
  countOf: (index: number) => number,
): Promise<number> {
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site } = its;
  const own = join(site.root, 'own');
  const helpers: ChildProcess[] = [];
  try {
    const locker = folders[0]?.startsWith('his/') ? 'his/incoming' : 'incoming';
    const names = folders.flatMap((folder, index) =>
      ['a', 'b'].map((file) => ({
        at: AT,
        name: relative(locker, join(folder, `${index}${file}`)),
        // For `custody adopt` to have something to read.
        ...(file === 'b' && { custody: false as const }),
      })),
    );
    plantPast(
      site,
      'UTC',
      names.map((job, index) => ({ ...job, jobId: `job-${index}` })),
    );
    if (locker !== 'incoming') {
      mkdirSync(join(site.base, 'his'));
      renameSync(site.incoming, join(site.base, locker));
      configure(site, { UseGMT: 'Y', IncomingDirectory: join(site.base, locker) });
    }
    mkdirSync(own, { mode: 0o700 });
    const plans = folders.map((folder, index) => {
      const secret = join(own, String(index));
      cpSync(join(site.base, folder), secret, { recursive: true, preserveTimestamps: true });
      return { folder: join(site.base, folder), secret, link: join(site.base, `${folder}.link`) };
    });
    giveAway(site.base, locker);
    if (before) {
      await its.webjobctl(...before);
      // Where something is made, there must be space for it.
      for (const { secret } of plans) for (const name of readdirSync(secret)) rmSync(join(secret, name));
    } else for (const { secret } of plans) writeFileSync(join(secret, 'a.out'), 'for root alone');
    for (const { secret, link } of plans) makeLink(secret, link);
    const was = readFiles(own);
    const exchanges = plans.map(({ folder, link }, index) => `${countOf(index)}:${folder}:${link}`);
    const [touched, told] = await Promise.all([
      startHelper(helpers, 'watch', ...plans.map(({ secret }) => secret)),
      startHelper(helpers, 'exchange', String(findWebUser()?.uid), ...exchanges),
    ]);
    const words = args.map((word) => (word === 'REPORT' ? join(site.root, 'report') : word));
    const { exitCode, stderr } = await its.webjobctl(...words);
    // It reports events in their order.
    const last = join(own, '0', 'last');
    writeFileSync(last, '');
    await waitFor('the last thing that is told', () => touched.includes(last));
    await endHelpers(helpers);
    rmSync(last);
    assert.deepEqual(touched.slice(1, touched.indexOf(last)), [], `opened, made or removed: ${stderr}`);
    assert.deepEqual(readFiles(own), was);
    // 5: the upload that diff was to compare is gone.
    assert.ok([0, 1, 4, 5].includes(exitCode ?? -1), `${exitCode}: ${stderr}`);
    return told.length - 1;
  } finally {
    await endHelpers(helpers);
    removeTree(site.root);
  }
}

/**
 * Replaces the counts of some clients, one after the other, while root removes them. Returns how
 * many were replaced. Throws AssertionError.
 */
async function attackCounts(countOf: (index: number) => number): Promise<number> {
  const its = makeLockerSite({ MaxUploadsPerDay: '9' });
  const { site } = its;
  const own = join(site.root, 'own');
  const limits = join(site.base, 'limits');
  const helpers: ChildProcess[] = [];
  try {
    mkdirSync(own, { mode: 0o700 });
    const clients = Array.from({ length: FOLDERS }, (_, index) => `removed${index}`);
    const plans = clients.map((client) => {
      addUser(site, client, 'foo');
      const [folder, secret, link] = [join(limits, client), join(own, client), join(limits, `${client}.link`)];
      for (const place of [folder, secret]) {
        mkdirSync(place);
        for (const name of ['slot-server_1-1', 'day-server_1-20261101', 'day-server_1-20261102'])
          writeFileSync(join(place, name), '');
      }
      return { folder, secret, link };
    });
    giveAway(site.base, 'limits');
    for (const { secret, link } of plans) makeLink(secret, link);
    const was = readFiles(own);
    const exchanges = plans.map(({ folder, link }, index) => `${countOf(index)}:${folder}:${link}`);
    const told = await startHelper(helpers, 'exchange', String(findWebUser()?.uid), ...exchanges);
    for (const client of clients) {
      const { exitCode, stderr } = await its.webjobctl('client', 'remove', client);
      assert.equal(exitCode, 0, stderr);
    }
    await endHelpers(helpers);
    assert.deepEqual(readFiles(own), was);
    return told.length - 1;
  } finally {
    await endHelpers(helpers);
    removeTree(site.root);
  }
}

function makeLink(target: string, path: string): void {
  const { uid = 0, gid = 0 } = findWebUser() ?? {};
  symlinkSync(target, path);
  lchownSync(path, uid, gid);
}

/**
 * Gives the locker and its contents to the web user, and its parent directory if that is for it
 * alone.
 */
function giveAway(base: string, locker: string): void {
  const { uid = 0, gid = 0 } = findWebUser() ?? {};
  for (const path of [dirname(base), base, join(base, 'logfiles')]) chmodSync(path, 0o755);
  for (let path = locker; path !== '.'; path = dirname(path)) chownSync(join(base, path), uid, gid);
  for (const entry of readdirSync(join(base, locker), { recursive: true, withFileTypes: true }))
    lchownSync(join(entry.parentPath, entry.name), uid, gid);
}

/** Resolves with the lines that it prints, to which more are added as they arrive. */
async function startHelper(helpers: ChildProcess[], ...words: string[]): Promise<string[]> {
  const child = spawn('python3', [ATTACKER, ...words], { stdio: ['ignore', 'pipe', 'inherit'] });
  helpers.push(child);
  const lines: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => lines.push(...text.split('\n').filter((line) => line)));
  const ended = once(child, 'close').then(() => {
    throw new Error(`the attacker ended: ${words[0]}`);
  });
  ended.catch(() => {});
  await Promise.race([once(child.stdout, 'data'), ended]);
  return lines;
}

async function endHelpers(helpers: ChildProcess[]): Promise<void> {
  await Promise.all(
    helpers.splice(0).map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`the attacker ended with ${child.exitCode}`);
      const closed = once(child, 'close');
      child.kill('SIGKILL');
      await closed;
    }),
  );
}

/** Why the attack is not possible here; undefined when it is. */
function findObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const folder = mkdtempSync(join(tmpdir(), 'webjob-exchange-'));
  try {
    const [one = '', other = ''] = ['one', 'other'].map((name) => join(folder, name));
    for (const path of [one, other]) mkdirSync(path);
    const { status, error } = spawnSync('python3', [ATTACKER, 'now', one, other]);
    if (error) return 'python3 is not installed';
    return status === 0 ? undefined : 'renameat2 exchanges nothing here';
  } finally {
    rmSync(folder, { recursive: true });
  }
}
