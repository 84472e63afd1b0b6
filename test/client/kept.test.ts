// Results that cannot be sent or stored: each is a job that one command delivers, once; and what a
// webjob killed at any moment leaves is reported and can be delivered.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { type Ended, findKeptJob, paste, runWebjob, until } from '../support/client-job.ts';
import { type Home, mountDisk, REFUSES, startHome, TAKES } from '../support/client-kept.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { fillBytes, findMountObstacle, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { part } from '../support/thorough.ts';

let home: Home;

before(async () => {
  home = await startHome();
});
after(() => home.close());
beforeEach(() => {
  home.reset();
  home.serve('echo "out of $1"; echo "err of $1" >&2');
});

const flush = (...directory: string[]): Promise<Ended> =>
  runWebjob(['--flush', ...directory, '--file', home.client.conf]);

/**
 * Pastes a command; returns the first line of stdout of each upload, and checks that nothing is
 * left.
 */
async function deliver(command: string): Promise<(string | undefined)[]> {
  home.fake.put = TAKES;
  const uploads = await home.uploadsOf(async () => {
    const { code, stderr } = await paste(command);
    assert.deepEqual([code, stderr], [0, `webjob: delivered ${1} of 1 job\n`]);
  });
  return uploads.map(({ out }) => out.toString().split('\n')[0]);
}

describe('a PUT that fails without SpoolDirectory', () => {
  it('leaves a complete job, which the hint delivers once, leaving nothing', async () => {
    home.fake.put = REFUSES;
    const first = await home.uploadsOf(async () => {
      const { code, stderr } = await home.client.execute(['job.sh', 'a']);
      assert.equal(code, 5);
      const { command, job } = findKeptJob(stderr);
      assert.deepEqual(readdirSync(job).sort(), ['env', 'err', 'out', 'parcel.json']);
      home.fake.put = TAKES;
      const second = await home.uploadsOf(() => paste(command));
      assert.equal(second.length, 1);
    });
    const [sent, again] = first;
    assert.deepEqual([again?.out, again?.err, again?.env], [sent?.out, sent?.err, sent?.env]);
    assert.deepEqual(home.client.left(), []);
  });

  it('is delivered by --flush alone when TempDirectory is the same', async () => {
    home.fake.put = REFUSES;
    for (const name of ['a', 'b']) assert.equal((await home.client.execute(['job.sh', name])).code, 5);
    home.fake.put = TAKES;
    const folders = readdirSync(home.client.temp).map((name) => join(home.client.temp, name));
    for (const folder of folders) chmodSync(folder, 0o777);
    assert.equal((await flush()).code, 2, 'somebody else could have put them there');
    for (const folder of folders) chmodSync(folder, 0o700);
    if (process.geteuid?.() === 0) {
      for (const folder of folders) chownSync(folder, 65_534, 65_534);
      assert.equal((await flush()).code, 2, 'somebody else has put them there');
      for (const folder of folders) chownSync(folder, 0, 0);
    }
    const uploads = await home.uploadsOf(async () =>
      assert.deepEqual(await flush(), {
        code: 0,
        signal: null,
        stdout: '',
        stderr: 'webjob: delivered 2 of 2 jobs\n',
      }),
    );
    assert.deepEqual(uploads.map(({ out }) => out.toString()).sort(), ['out of a\n', 'out of b\n']);
    assert.deepEqual(home.client.left(), []);
    assert.equal((await flush()).code, 2, 'no SpoolDirectory, and nothing that waits');
  });

  it('is not delivered with the settings of another server or client unless named', async () => {
    home.fake.put = REFUSES;
    const { stderr } = await home.client.execute(['job.sh', 'a']);
    const { command } = findKeptJob(stderr);
    home.client.configure({ URLGetURL: home.fake.url, URLPutURL: `${home.fake.url}?other`.replace('?', '/') });
    home.fake.put = TAKES;
    assert.deepEqual(await home.uploadsOf(flush), []);
    home.client.configure({ URLGetURL: home.fake.url, URLPutURL: home.fake.url, ClientId: 'client2' });
    assert.deepEqual(await home.uploadsOf(flush), []);
    home.client.configure({ URLGetURL: home.fake.url, URLPutURL: home.fake.url });
    assert.deepEqual(await deliver(command), ['out of a']);
  });

  it('is delivered from directories and settings with names that a shell would split', async () => {
    const temp = join(home.client.root, "it's a place");
    const conf = join(home.client.root, "it's a $conf");
    mkdirSync(temp, { mode: 0o755 });
    home.reset({ TempDirectory: temp });
    writeFileSync(conf, readFileSync(home.client.conf), { mode: 0o600 });
    home.fake.put = REFUSES;
    const { stderr } = await runWebjob(['--execute', '--file', "it's a $conf", 'job.sh', 'q'], {
      cwd: home.client.root,
    });
    const [, command = ''] = /hint: (webjob --flush .*)\n$/.exec(stderr) ?? [];
    assert.deepEqual(await deliver(command), ['out of q']);
    assert.deepEqual(readdirSync(temp), []);
  });

  it('reports what remains when only the run record, or nothing, can be delivered', async () => {
    home.fake.put = REFUSES;
    const { stderr } = await home.client.execute(['job.sh', 'a']);
    const { folder, job } = findKeptJob(stderr);
    rmSync(join(job, 'out'));
    home.fake.put = TAKES;
    const { code, stderr: says } = await flush(folder);
    assert.equal(code, 5);
    assert.ok(says.includes(`webjob: warning: ${job}: ${job}/out cannot be read: ENOENT\n`), says);
    const nothing = await flush(home.client.root);
    assert.deepEqual([nothing.code, /contains no job/.test(nothing.stderr)], [1, true]);
  });
});

describe('webjob that is ended without SpoolDirectory', () => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGKILL'] as const) {
    it(`leaves a waiting job, which --flush delivers, after ${signal} in PUT`, async () => {
      let isSending = false;
      home.fake.put = () => {
        isSending = true;
      };
      const { child, ended } = home.client.start(['job.sh', 'z']);
      await until(() => isSending, 'the upload has begun');
      child.kill(signal);
      const { stderr } = await ended;
      const said = /^webjob: warning: ended by \w+ before the upload was complete; to deliver it: (.*)\n$/.exec(
        stderr,
      )?.[1];
      // A killed process removes nothing.
      rmSync(join(home.client.temp, 'job.sh'), { force: true });
      assert.equal(said === undefined, signal === 'SIGKILL', stderr);
      assert.deepEqual(await deliver(said ?? `webjob --flush --file ${home.client.conf}`), ['out of z']);
      assert.deepEqual(home.client.left(), []);
    });
  }
});

describe('SpoolDirectory on another disk than TempDirectory', { skip: findMountObstacle() }, () => {
  it('leaves the output in TempDirectory with UnlinkOutput=N, and nothing in the spool', async () => {
    home.reset({ SpoolDirectory: home.spool, UnlinkOutput: 'N' });
    mkdirSync(home.spool, { mode: 0o700 });
    mountDisk(home.spool, 'size=1m');
    chmodSync(home.spool, 0o700);
    try {
      assert.deepEqual(await home.client.execute(['job.sh', 'x']), { code: 0, signal: null, stdout: '', stderr: '' });
      const [folder = '', ...files] = home.client.left();
      assert.deepEqual(files, [`${folder}/job.sh.err`, `${folder}/job.sh.out`]);
      const [err, out] = files.map((name) => readFileSync(join(home.client.temp, name), 'utf8'));
      assert.deepEqual([out, err, readdirSync(home.spool)], ['out of x\n', 'err of x\n', []]);
    } finally {
      unmountTmpfs(home.spool);
    }
  });
});

describe('a program that cannot be removed', { skip: findMountObstacle() }, () => {
  it('does not keep other files from being removed, and is not an error of the job', async () => {
    const lock = join(home.client.root, 'lock');
    home.reset({ LockFile: lock });
    home.serve('mount --bind "$0" "$0"');
    const placed = join(home.client.temp, 'job.sh');
    try {
      assert.deepEqual(await home.client.execute(['job.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
      assert.deepEqual([home.client.left(), existsSync(lock)], [['job.sh'], false]);
    } finally {
      spawnSync('umount', [placed]);
    }
  });
});

describe('a webjob that was killed while its program ran', () => {
  for (const withSpool of [false, true]) {
    it(`is listed by --flush ${withSpool ? 'with' : 'without'} SpoolDirectory, and its name delivers what remains`, async () => {
      home.reset(withSpool ? { SpoolDirectory: home.spool } : {});
      const pids = join(home.client.root, 'pids');
      rmSync(pids, { force: true });
      home.serve(`echo begun; echo $$ > ${pids}.new; mv ${pids}.new ${pids}; exec sleep 300`);
      const { child, ended } = home.client.start(['job.sh']);
      await until(() => existsSync(pids) && keptOut() === 'begun\n', 'the program runs, and its output is kept');
      const alive = await flush();
      assert.deepEqual([alive.code, alive.stderr], [0, ''], 'nothing that a webjob works at is left over');
      child.kill('SIGKILL');
      await ended;
      process.kill(Number(readFileSync(pids, 'utf8')), 'SIGKILL');
      const { code, stderr } = await flush();
      const [, path = '', command = ''] =
        /^webjob: error: 1 job waits in the spool\nwebjob: warning: (\S+): left by a webjob that was killed; to deliver it: (.*); to remove it: rm -r \1\n$/.exec(
          stderr,
        ) ?? [];
      assert.equal(code, 5);
      const uploads = await home.uploadsOf(async () => assert.equal((await paste(command)).code, 0));
      const { RunError, KidPid, StdOutHash, CommandLine, PutEpoch } = uploads[0]?.fields ?? assert.fail(stderr);
      assert.deepEqual(
        [uploads.length, uploads[0]?.out.toString(), CommandLine, KidPid, StdOutHash, PutEpoch],
        [1, 'begun\n', 'job.sh', 'NA', 'NA', 'NA'],
      );
      assert.equal(RunError, 'was still running when webjob was ended');
      assert.equal(existsSync(path), false);
      const left = home.client.left().filter((name) => !withSpool || !name.startsWith('webjob-'));
      assert.deepEqual(left, ['job.sh']);
    });
  }

  it('can be removed as the message says when it had no record', async () => {
    home.reset({ SpoolDirectory: home.spool });
    mkdirSync(join(home.spool, 'run-1-0-abcdef'), { recursive: true, mode: 0o700 });
    chmodSync(home.spool, 0o700);
    const { code, stderr } = await flush();
    const path = join(home.spool, 'run-1-0-abcdef');
    assert.equal(code, 5);
    assert.ok(
      stderr.endsWith(`${path}: left by a webjob that was killed, without a record; to remove it: rm -r ${path}\n`),
    );
  });

  it('has only names that webjob made: others could take over the terminal or forge a line', async () => {
    home.reset({ SpoolDirectory: home.spool });
    const names = [
      'run-1-0-a\nwebjob: delivered 9 of 9 jobs',
      'run-1-0-\x1b[2Jabc',
      'over-job-1-1 ',
      'over-job-1-\x9b31m',
    ];
    for (const name of names) mkdirSync(join(home.spool, name), { recursive: true, mode: 0o700 });
    chmodSync(home.spool, 0o700);
    assert.deepEqual(await flush(), { code: 0, signal: null, stdout: '', stderr: '' });
  });

  /** The part of stdout that is stored so far, in any directory. */
  function keptOut(): string | undefined {
    const found = [home.client.temp, home.spool].flatMap((folder) =>
      existsSync(folder) ? readdirSync(folder, { recursive: true }).map((name) => join(folder, String(name))) : [],
    );
    const out = found.find((path) => path.endsWith('/out'));
    return out && readFileSync(out, 'utf8');
  }
});

describe('a webjob that is killed at any system call of keeping', { skip: NO_STRACE }, () => {
  /** Killed after the answer, before the job has the name of one that was sent. */
  const isSentTwice = (name: string, call: number): boolean => name === 'rename' && call === 3;

  it('leaves a job or a run that can be delivered, or one that is reported as empty', async () => {
    for (const call of part([1, 2, 3, 4, 5, 6], 3)) {
      for (const name of ['rename', 'fsync']) {
        home.reset({ SpoolDirectory: home.spool });
        home.fake.put = TAKES;
        const wrapper = inject(join(home.client.root, 'trace'), `${name}:signal=KILL:when=${call}`, []);
        const uploads = await home.uploadsOf(async () => {
          await home.client.execute(['job.sh', 'k'], { wrapper });
          const { code, stderr } = existsSync(home.spool) ? await flush() : { code: 0, stderr: '' };
          const command = /to deliver it: (webjob .*?); to remove/.exec(stderr)?.[1];
          if (command) assert.equal((await paste(command)).code, 0, stderr);
          else assert.equal(code, 0, stderr);
        });
        // The first rename gives the program its name, the first sync is that of the directory in
        // which the spool is made.
        const isRun = call > 1;
        assert.ok(uploads.length === (isRun ? 1 : 0) || isSentTwice(name, call), `${name} ${call}: ${uploads.length}`);
        for (const { out } of uploads) assert.equal(out.toString(), 'out of k\n', `${name} ${call}`);
        if (existsSync(home.spool)) assert.deepEqual(readdirSync(home.spool), [], `${name} ${call}`);
      }
    }
  });
});

describe('SpoolDirectory on a disk that refuses writes', { skip: findMountObstacle() }, () => {
  let disk: string;
  const spool = (): string => join(disk, 'spool');
  before(() => {
    disk = join(home.client.root, 'disk');
    mkdirSync(disk);
  });
  afterEach(() => unmountTmpfs(disk));

  const ILLS: Record<string, () => void> = {
    'because it has no byte left': () => {
      mountDisk(disk, 'size=1m');
      mkdirSync(spool(), { mode: 0o700 });
      fillBytes(join(disk, 'filler'));
    },
    'because it has no inode left': () => {
      mountDisk(disk, 'size=1m,nr_inodes=20');
      mkdirSync(spool(), { mode: 0o700 });
      mkdirSync(join(disk, 'filler'));
      try {
        for (let i = 0; ; i++) writeFileSync(join(disk, 'filler', String(i)), '');
      } catch {
        // The disk is full.
      }
    },
    'because it has inodes for the folder only': () => {
      mountDisk(disk, 'size=1m,nr_inodes=4');
      mkdirSync(spool(), { mode: 0o700 });
    },
    'because it is read-only': () => {
      mountDisk(disk, 'size=1m');
      mkdirSync(spool(), { mode: 0o700 });
      assert.equal(spawnSync('mount', ['-o', 'remount,ro', disk]).status, 0);
    },
  };
  for (const [why, make] of Object.entries(ILLS)) {
    it(`${why} has each job sent at once, with a warning, and keeps nothing`, async () => {
      make();
      home.reset({ SpoolDirectory: spool() });
      for (const name of ['a', 'b', 'c']) {
        const uploads = await home.uploadsOf(async () => {
          const { code, stderr } = await home.client.execute(['job.sh', name]);
          assert.match(
            stderr,
            /^webjob: warning: SpoolDirectory cannot be used: E\w+; the job is kept in \S+ until it is sent\n$/,
          );
          assert.equal(code, 0);
        });
        assert.deepEqual(
          uploads.map(({ out, fields }) => [out.toString(), fields.RunError]),
          [[`out of ${name}\n`, 'NA']],
        );
      }
      assert.deepEqual([readdirSync(spool()), home.client.left()], [[], []]);
      assert.equal((await flush()).code, 0);
    });

    it(`${why} leaves a job that cannot be sent either in TempDirectory, where the hint delivers it`, async () => {
      make();
      home.reset({ SpoolDirectory: spool() });
      home.fake.put = REFUSES;
      const { code, stderr } = await home.client.execute(['job.sh', 'a']);
      assert.equal(code, 5);
      assert.deepEqual(await deliver(findKeptJob(stderr).command), ['out of a']);
      assert.deepEqual(home.client.left(), []);
    });
  }

  it('loses no job when the disk goes away in the middle of a run', async () => {
    mountDisk(disk, 'size=1m');
    home.reset({ SpoolDirectory: spool() });
    home.serve(`echo kept; rm -r ${spool()}`);
    const uploads = await home.uploadsOf(async () => {
      const { code, stderr } = await home.client.execute(['job.sh']);
      assert.match(stderr, /^webjob: warning: the job cannot be kept in \S+: ENOENT; it is sent at once\n$/);
      assert.equal(code, 0);
    });
    assert.deepEqual(
      uploads.map(({ out }) => out.toString()),
      ['kept\n'],
    );
    assert.deepEqual(home.client.left(), []);
  });

  it('leaves the job in TempDirectory when the disk and the server go away', async () => {
    mountDisk(disk, 'size=1m');
    home.reset({ SpoolDirectory: spool() });
    home.serve(`echo kept; rm -r ${spool()}`);
    home.fake.put = REFUSES;
    const { code, stderr } = await home.client.execute(['job.sh']);
    assert.equal(code, 5);
    assert.deepEqual(await deliver(findKeptJob(stderr).command), ['kept']);
    assert.deepEqual(home.client.left(), []);
  });

  it('makes --flush list waiting jobs and fail when the disk has become read-only', async () => {
    mountDisk(disk, 'size=1m');
    home.reset({ SpoolDirectory: spool() });
    home.fake.put = REFUSES;
    for (const name of ['a', 'b']) await home.client.execute(['job.sh', name]);
    assert.equal(spawnSync('mount', ['-o', 'remount,ro', disk]).status, 0);
    home.fake.put = TAKES;
    const uploads = await home.uploadsOf(async () => {
      const { code, stderr } = await flush();
      assert.equal(code, 5);
      for (const job of readdirSync(spool()))
        assert.ok(
          stderr.includes(`webjob: warning: ${join(spool(), job)}: ${join(spool(), job)} cannot be taken: EROFS\n`),
          stderr,
        );
    });
    assert.deepEqual(uploads, []);
  });
});
