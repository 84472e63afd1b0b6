// The live store while other processes write it, while it is killed, and for users who may not
// write it: every answer agrees with the files.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import { readSettings } from '../../cgi/settings.ts';
import { serversOf } from '../../ledger/site.ts';
import { fillStore, openKnownStore } from '../../ledger/store.ts';
import { collect } from '../support/bare.ts';
import { type LockerSite, makeLockerSite, WEBJOBCTL } from '../support/locker-site.ts';
import { makeGround } from '../support/operator.ts';
import { plantPast } from '../support/past-site.ts';

const KILLS = Number(process.env.WEBJOB_TEST_KILLS ?? 5);
const BUSY_MS = 1000 * Number(process.env.WEBJOB_TEST_RUNS ?? 1);
const NOBODY = 65_534;

let planted = 0;

/** Adds a job, with its upload and its custody record. */
function plant({ site }: LockerSite): string {
  const at = new Date(Date.now() - 3_600_000 + ++planted * 1000);
  const [job] = plantPast(site, 'UTC', [{ at, fields: { KidStatus: String(planted % 3) } }]);
  return job?.jobId ?? '';
}

const withoutStore = (its: LockerSite): string => {
  const file = join(its.site.root, 'no-store.cfg');
  const settings = readFileSync(its.site.propertiesFile, 'utf8');
  const { base } = its.site;
  const places = ['incoming', 'logfiles', 'profiles'].map((name) => {
    const key = `${name[0]?.toUpperCase()}${name.slice(1)}Directory`;
    return `${key}=${join(base, name)}\n`;
  });
  writeFileSync(file, `${settings}\nBaseDirectory=${join(its.site.root, 'elsewhere')}\n${places.join('')}`);
  return file;
};

async function ask(
  file: string,
  ...args: string[]
): Promise<{ text: string; stderr: string; exitCode: number | null }> {
  const child = spawn(process.execPath, [WEBJOBCTL, '-c', file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const { stdout, stderr, exitCode } = await collect(child, 120);
  return { text: stdout.toString(), stderr, exitCode };
}

describe('the live store', () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  const { site } = its;
  const store = join(site.base, 'index', 'webjob.sqlite');
  before(async () => {
    writeFileSync(site.logFile, '');
    for (let count = 0; count < 5; count++) plant(its);
    assert.equal((await its.webjobctl('index')).exitCode, 0);
  });
  after(its.close);

  const QUESTIONS = [
    ['metrics', '--textfile', '-'],
    ['--json', 'jobs'],
    ['--json', 'clients'],
    ['search', 'kept'],
  ] as const;

  /**
   * The output of metrics, which reads every job and every sum, or of all commands, with the store
   * and from the files alone.
   */
  async function isTrue(questions: readonly (readonly string[])[] = QUESTIONS.slice(0, 1)): Promise<void> {
    for (const args of questions) {
      // Without values that depend on the moment, and BaseDirectory, which differs without the
      // store.
      const plain = (text: string): string =>
        text.replace(/^.*(?:timestamp|duration|free).*\n/gm, '').replace(/\bsite="[^"]*"/g, 'site');
      const [files, live] = [await ask(withoutStore(its), ...args), await its.webjobctl(...args)];
      assert.deepEqual([live.exitCode, live.stderr], [files.exitCode, files.stderr], args.join(' '));
      assert.equal(plain(live.text), plain(files.text), args.join(' '));
    }
  }

  it('has what came since for every reader, and keeps it', async () => {
    const jobId = plant(its);
    const { text } = await its.webjobctl('show', jobId);
    assert.match(text, new RegExp(`^Job: +${jobId}$`, 'm'));
    const database = new DatabaseSync(store, { readOnly: true });
    assert.equal(database.prepare('SELECT count(*) AS count FROM jobs WHERE job_id = ?').get(jobId)?.count, 1);
    database.close();
    await isTrue(QUESTIONS);
  });

  it('forgets an upload that a query finds gone, even where the locker is too large to walk', async () => {
    const jobId = plant(its);
    assert.equal((await its.webjobctl('jobs')).exitCode, 0);
    const edit = new DatabaseSync(store);
    const last = edit.prepare('SELECT id, name FROM uploads ORDER BY id DESC LIMIT 1').get();
    const count = (): unknown =>
      edit.prepare('SELECT count(*) AS count FROM uploads WHERE name = ?').get(String(last?.name))?.count;
    // As in a locker of this size: the highest id is taken for the number.
    edit.prepare('UPDATE uploads SET id = 30000 WHERE id = ?').run(Number(last?.id));
    edit.prepare("INSERT OR REPLACE INTO facts VALUES ('walked', ?)").run(String(Date.now()));
    assert.equal(count(), 1);
    for (const extension of ['rdy', 'out', 'err', 'env']) rmSync(join(site.incoming, `${last?.name}.${extension}`));
    const { text } = await its.webjobctl('--json', 'jobs', '--limit', '1');
    const job = JSON.parse(text.split('\n')[0] ?? '') as { jobId: string; state: string };
    assert.deepEqual([job.jobId, job.state, count()], [jobId, 'missing', 0]);
    edit.close();
    await isTrue(QUESTIONS);
  });

  it('is used by nobody until it is complete', async () => {
    const { settings } = readSettings(site.propertiesFile);
    const seen = { propertiesFile: site.propertiesFile, settings, servers: serversOf(settings), label: undefined };
    const advance = (): void => {
      throw new Error('killed');
    };
    await assert.rejects(fillStore(store, seen, { rebuild: true }, { advance }), /killed/);
    assert.equal(await openKnownStore(seen), undefined);
    await isTrue();
    assert.equal((await its.webjobctl('index')).exitCode, 0);
    const whole = await openKnownStore(seen);
    assert.ok(whole?.isShared);
    whole.close();
    await isTrue();
  });

  it(`can be killed at any moment, ${KILLS} times while jobs come`, async () => {
    const words = [['index'], ['index', '--rebuild'], ['jobs'], ['search', 'kept'], ['clients']];
    for (let kill = 0; kill < KILLS; kill++) {
      plant(its);
      const args = words[kill % words.length] ?? [];
      const child = spawn(process.execPath, [WEBJOBCTL, '-c', site.propertiesFile, ...args], { stdio: 'ignore' });
      const timer = setTimeout(() => child.kill('SIGKILL'), 60 + Math.random() * 400);
      await once(child, 'exit');
      clearTimeout(timer);
      if (kill % words.length === 3) await isTrue();
    }
    await isTrue(QUESTIONS);
    const database = new DatabaseSync(store, { readOnly: true });
    assert.equal(database.prepare('PRAGMA integrity_check').get()?.integrity_check, 'ok');
    database.close();
  });

  it('serves eight readers and two writers at once, without locking any out', async () => {
    assert.equal((await its.webjobctl('index')).exitCode, 0);
    const until = Date.now() + BUSY_MS;
    const commands = [
      ['jobs', '--limit', '3'],
      ['clients'],
      ['--json', 'jobs'],
      ['search', 'kept'],
      ['metrics', '--textfile', '-'],
    ];
    let count = 0;
    const work = async (args: string[]): Promise<void> => {
      do {
        const { exitCode, stderr } = await its.webjobctl(...args);
        assert.deepEqual([exitCode, stderr], [0, ''], args.join(' '));
        count++;
      } while (Date.now() < until);
    };
    const write = async (): Promise<void> => {
      do {
        plant(its);
        const { exitCode, stderr } = await its.webjobctl('--json', 'index');
        // Of two processes that make the index, one leaves it for another time.
        assert.ok(exitCode === 0 || /another webjobctl is running/.test(stderr), stderr);
      } while (Date.now() < until);
    };
    await Promise.all([
      ...Array.from({ length: 8 }, (_, reader) => work(commands[reader % commands.length] ?? [])),
      write(),
      write(),
    ]);
    assert.ok(count >= 8);
    await isTrue(QUESTIONS);
  });

  it('does not block readers while another process holds it', async () => {
    plant(its);
    const holder = new DatabaseSync(store);
    holder.exec('BEGIN IMMEDIATE');
    try {
      await isTrue(QUESTIONS);
    } finally {
      holder.exec('ROLLBACK');
      holder.close();
    }
    await isTrue();
  });

  it('answers a user who may not write it like any other, with what came since', {
    skip: process.geteuid?.() !== 0,
  }, async () => {
    const ground = makeGround();
    try {
      const program = join(ground.root, 'webjobctl');
      writeFileSync(program, readFileSync(WEBJOBCTL), { mode: 0o755 });
      for (const folder of [site.root, site.base, site.incoming, join(site.base, 'logfiles')]) chmodSync(folder, 0o755);
      assert.equal((await its.webjobctl('index')).exitCode, 0);
      const jobId = plant(its);
      const before = statSync(store, { bigint: true }).mtimeNs;
      const child = spawn(ground.node, [program, '--config', site.propertiesFile, '--json', 'jobs'], {
        stdio: ['ignore', 'pipe', 'pipe'],
        cwd: '/',
        uid: NOBODY,
        gid: NOBODY,
      });
      const { stdout, stderr, exitCode } = await collect(child, 60);
      assert.deepEqual([exitCode, stderr], [0, '']);
      assert.ok(stdout.toString().includes(jobId));
      assert.equal(statSync(store, { bigint: true }).mtimeNs, before);
      assert.ok(!existsSync(`${store}-wal`), 'nothing is left beside it');
      assert.equal(stdout.toString(), (await its.webjobctl('--json', 'jobs')).text);
    } finally {
      ground.remove();
    }
  });

  it('is ignored once it is damaged, and the files answer', async () => {
    appendFileSync(store, '');
    const size = statSync(store).size;
    const whole = readFileSync(store);
    writeFileSync(store, Buffer.concat([whole.subarray(0, 100), Buffer.alloc(size - 100, 0x55)]));
    await isTrue();
    assert.equal((await its.webjobctl('index')).exitCode, 4);
    assert.equal((await its.webjobctl('index', '--rebuild')).exitCode, 0);
    await isTrue();
  });
});
