// Whatever a program writes, in whatever way it opens its streams, is captured as through a pipe;
// what does not fit on the disk is reported as missing.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { until } from '../support/client-job.ts';
import { type Home, mountDisk, REFUSES, startHome, type Upload } from '../support/client-kept.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { findMountObstacle, unmountTmpfs } from '../support/locker-tmpfs.ts';

const SILENT_SUCCESS = { code: 0, signal: null, stdout: '', stderr: '' };
let home: Home;

before(async () => {
  home = await startHome();
});
after(() => home.close());
beforeEach(() => home.reset());

/** What is uploaded of a script's output; webjob must be silent and succeed. */
async function upload(script: string, args: string[] = []): Promise<Upload> {
  home.serve(script);
  const [only, ...more] = await home.uploadsOf(async () =>
    assert.deepEqual(await home.client.execute(['job.sh', ...args]), SILENT_SUCCESS),
  );
  assert.ok(only && more.length === 0);
  return only;
}

function md5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('hex');
}

describe('a program that opens its own output again', { skip: process.platform === 'win32' && 'no /dev' }, () => {
  const SCRIPTS: Record<string, string> = {
    'by > /dev/stderr between two others': 'echo one >&2; echo two > /dev/stderr; echo three >&2',
    'by > /dev/stdout between two others': 'echo one; echo two > /dev/stdout; echo three',
    'by >> /dev/stdout': 'echo one; echo two >> /dev/stdout; echo three',
    'by /dev/fd/1': 'echo one; echo two > /dev/fd/1; echo three',
    'by /proc/self/fd/1': 'echo one; echo two > /proc/self/fd/1; echo three',
    'in a child': 'echo one; sh -c "echo two > /dev/stdout"; echo three',
    'in a background child': 'echo one; (echo two > /dev/stdout) & wait; echo three',
    'for good, by exec': 'echo one; exec > /dev/stdout; echo two; echo three',
    'for good, stderr by exec': 'echo one >&2; exec 2> /dev/stderr; echo two >&2; echo three >&2',
    'by tee': 'echo one; echo two | tee /dev/stderr; echo three',
    'by dd, which truncates': 'echo one; echo two | dd of=/dev/stdout 2> /dev/null; echo three',
    'as stderr on stdout': 'echo one; echo two > /dev/stderr; echo three',
    'crossed over': 'echo one >&2; exec 3>&1 1>&2 2>&3; echo two > /dev/stdout; echo three >&2',
    'when there is nothing to open': 'echo one; exec >&-; (echo two > /dev/stdout) 2> /dev/null; echo three >&2',
  };
  const END = '--end of a script--\n';
  let [outs, errs]: string[][] = [];
  // One job runs them one after the other, each in a shell of its own with the job's streams.
  before(async () => {
    home.reset();
    const lines = Object.values(SCRIPTS).map((script, index) => {
      const path = join(home.client.root, `script${index}`);
      writeFileSync(path, `${script}\n`);
      return `/bin/sh '${path}'; echo '${END.trim()}'; echo '${END.trim()}' >&2`;
    });
    const { out, err, fields } = await upload(lines.join('\n'));
    assert.deepEqual([fields.StdOutHash, fields.StdErrHash], [md5(out), md5(err)]);
    assert.deepEqual(home.client.left(), []);
    [outs, errs] = [out, err].map((stream) => stream.toString().split(END));
  });
  for (const [index, [how, script]] of Object.entries(SCRIPTS).entries()) {
    it(`has its output captured as from a pipe: ${how}`, () => {
      const expected = spawnSync('/bin/sh', ['-c', pipes(script)], { encoding: 'utf8' }).output;
      const [out = '', err = ''] = (expected[1] ?? '').split('|');
      assert.deepEqual([outs?.[index], errs?.[index]], [out, err]);
    });
  }

  it('has its writes in order, even when both streams are one', async () => {
    const { out } = await upload('exec 2>&1; for i in 1 2 3 4 5; do echo $i; echo $i > /dev/stderr; done');
    assert.equal(out.toString(), '1\n1\n2\n2\n3\n3\n4\n4\n5\n5\n');
  });

  /** Runs the script with each of its streams a pipe; returns what came through them. */
  function pipes(script: string): string {
    const [out, err] = [join(home.client.root, 'expected-out'), join(home.client.root, 'expected-err')];
    writeFileSync(join(home.client.root, 'script'), `${script}\n`);
    const run = `/bin/sh '${join(home.client.root, 'script')}'`;
    return `{ { ${run} 2>&3 | cat > '${out}'; } 3>&1 | cat > '${err}'; }; cat '${out}'; printf '|'; cat '${err}'`;
  }
});

describe('output of any amount', () => {
  it('arrives complete on both streams at once, with holes and NULs', async () => {
    const script =
      'head -c 5000001 /dev/zero & head -c 3000003 /dev/zero | tr "\\0" "e" >&2 & wait; printf "end\\0"; printf "\\377" >&2';
    const { out, err, fields } = await upload(script);
    assert.deepEqual(out, Buffer.concat([Buffer.alloc(5_000_001), Buffer.from('end\0')]));
    assert.deepEqual(err, Buffer.concat([Buffer.alloc(3_000_003, 'e'), Buffer.of(0xff)]));
    assert.deepEqual([fields.StdOutHash, fields.StdErrHash], [md5(out), md5(err)]);
  });

  it('includes what was written just before the end', async () => {
    for (let round = 0; round < 4; round++) {
      const { out, err } = await upload('head -c 65536 /dev/zero; head -c 65536 /dev/zero >&2');
      assert.deepEqual([out.length, err.length], [65_536, 65_536]);
    }
  });

  it('is not subject to ulimit -f, which applies to files; the program has no limit', async () => {
    home.serve('head -c 100000 /dev/zero; echo $? >&2');
    const [{ out, err } = { out: [], err: '' }] = await home.uploadsOf(() =>
      home.client.execute(['job.sh'], { wrapper: ['/bin/sh', '-c', 'ulimit -f 400; exec "$@"', 'sh'] }),
    );
    assert.deepEqual([out.length, String(err)], [100_000, '0\n']);
  });
});

describe('background children', () => {
  it('are not waited for while they hold the output open; what they wrote before is kept', async () => {
    const pids = join(home.client.root, 'pids');
    const before = Date.now();
    const { out, err } = await upload(`(echo early; exec sleep 300) & echo $! > ${pids}; sleep 0.3; echo err >&2`);
    process.kill(Number(readFileSync(pids, 'utf8')), 'SIGKILL');
    assert.ok(Date.now() - before < 200_000);
    assert.deepEqual([out.toString(), err.toString()], ['early\n', 'err\n']);
  });

  it('are cut off when the program ends, even if they never stop writing', async () => {
    const { out, fields } = await upload(`${forever('')} & ${forever('>&2')} & sleep 0.3; echo end`);
    assert.ok(out.includes('end\n'));
    assert.equal(fields.StdOutHash, md5(out));
  });

  const forever = (to: string): string => `(while [ -d ${home.client.root} ]; do echo more ${to} || exit; done)`;

  it('are not waited for after RunTimeLimit when they left the process group', async () => {
    home.reset({ RunTimeLimit: '1' });
    const pids = join(home.client.root, 'pids');
    home.serve(`echo begun; setsid sleep 300 & echo $! > ${pids}; sleep 300`);
    const [{ out, fields } = { out: '', fields: undefined }] = await home.uploadsOf(async () => {
      const { code, stderr } = await home.client.execute(['job.sh']);
      assert.deepEqual([code, stderr], [4, 'webjob: error: job.sh ended by RunTimeLimit after 1 seconds\n']);
    });
    process.kill(Number(readFileSync(pids, 'utf8')), 'SIGKILL');
    assert.deepEqual([String(out), fields?.RunError], ['begun\n', 'ended by RunTimeLimit after 1 seconds']);
  });
});

describe('RunTimeLimit', { skip: process.platform !== 'linux' && 'sessions are looked up in /proc' }, () => {
  const pids = (): string => join(home.client.root, 'pids');
  /** Ways of a program to have children in other process groups. */
  const GROUPS: Record<string, string> = {
    'by timeout': 'timeout 100 sleep 311',
    'by timeout in the background': 'timeout 100 sleep 311 & timeout 100 sleep 312',
    'by a shell with job control': 'set -m; sleep 311 & sleep 312 & wait',
    'below an interactive shell': `bash -ic 'sleep 311 & sleep 312' 2>/dev/null`,
    'that ignore the first signal': `set -m; (trap '' TERM; sleep 311; sleep 311) & sleep 312`,
  };
  for (const [how, script] of Object.entries(GROUPS)) {
    // An interactive shell ignores signal 15, and a process that ignores it has five seconds left.
    for (const signal of how.startsWith('that ignore') ? ['9', '15'] : ['9']) {
      it(`ends the program's own process groups (${how}) with signal ${signal}`, async () => {
        home.reset({ RunTimeLimit: '1', TimeoutSignal: signal });
        home.serve(`echo $$ > ${pids()}; ${script}; sleep 313`);
        const { code, stderr } = await home.client.execute(['job.sh']);
        assert.deepEqual([code, stderr], [4, 'webjob: error: job.sh ended by RunTimeLimit after 1 seconds\n']);
        assert.deepEqual(findSession(readFileSync(pids(), 'utf8').trim()), []);
      });
    }
  }

  it('gives a program that ends by itself five seconds, and keeps its last words', async () => {
    home.reset({ RunTimeLimit: '1', TimeoutSignal: '15' });
    home.serve(`set -m; (trap 'sleep 1; echo bye; exit' TERM; while :; do sleep 0.1; done) & exec sleep 311`);
    const [only] = await home.uploadsOf(() => home.client.execute(['job.sh']));
    assert.equal(only?.out.toString(), 'bye\n');
  });

  it('leaves running what a program that ends in time started on purpose', async () => {
    home.reset({ RunTimeLimit: '30' });
    home.serve(`echo $$ > ${pids()}; set -m; sleep 311 >/dev/null 2>&1 & exit 0`);
    assert.equal((await home.client.execute(['job.sh'])).code, 0);
    const left = findSession(readFileSync(pids(), 'utf8').trim());
    for (const pid of left) process.kill(pid, 'SIGKILL');
    assert.equal(left.length, 1);
  });

  it('is not needed when webjob itself is ended: the signal reaches the children, too', async () => {
    home.reset();
    rmSync(pids(), { force: true });
    home.serve(`set -m; timeout 100 sleep 311 & echo $$ > ${pids()}.new; mv ${pids()}.new ${pids()}; wait`);
    const { child, ended } = home.client.start(['job.sh']);
    await until(() => existsSync(pids()), 'the program runs');
    const session = readFileSync(pids(), 'utf8').trim();
    await until(() => findSession(session).length === 3, 'timeout and sleep run, too');
    child.kill('SIGTERM');
    await ended;
    await until(() => findSession(session).length === 0, 'all are gone');
  });

  /** The living processes of a session, according to `ps`. */
  function findSession(session: string): number[] {
    const { stdout } = spawnSync('ps', ['-o', 'pid=,stat=', '-s', session], { encoding: 'utf8' });
    return stdout.split('\n').flatMap((line) => (/^ *\d+ +[^Z ]/.test(line) ? [Number.parseInt(line, 10)] : []));
  }
});

describe('stdin of the program', () => {
  it('is the stdin of webjob', async () => {
    home.serve('cat');
    const [only] = await home.uploadsOf(() =>
      home.client.execute(['job.sh'], { wrapper: ['/bin/sh', '-c', 'echo given | "$@"', 'sh'] }),
    );
    assert.equal(only?.out.toString(), 'given\n');
  });
});

describe('a system without FIFOs', { skip: NO_STRACE }, () => {
  it('gets the output through a socket, with a warning on Linux', async () => {
    home.serve('echo out; head -c 300000 /dev/zero >&2; exit 3');
    const traced = inject(join(home.client.root, 'trace'), 'mknodat,mknod:error=EPERM', []);
    const [only] = await home.uploadsOf(async () => {
      const { code, stderr } = await home.client.execute(['job.sh'], { wrapper: traced });
      assert.equal(code, 0);
      if (process.platform === 'linux')
        assert.match(stderr, /^webjob: warning: mkfifo failed: a program that opens \/dev\/stdout or \/dev\/stderr/);
    });
    assert.deepEqual([only?.out.toString(), only?.err.length, only?.fields.KidStatus], ['out\n', 300_000, '3']);
    assert.equal(only?.fields.StdErrHash, md5(only?.err ?? Buffer.of()));
  });
});

describe('a full disk', { skip: findMountObstacle() }, () => {
  const SIZE = 4_194_304;
  let disk: string;
  before(() => {
    disk = join(home.client.root, 'disk');
    mkdirSync(disk);
  });
  beforeEach(() => mountDisk(disk, `size=${SIZE}`));
  afterEach(() => unmountTmpfs(disk));

  it('leaves what fits under TempDirectory, and the rest is counted and reported', async () => {
    home.reset({ TempDirectory: disk });
    await isCut('head -c 9000000 /dev/zero; echo $? >&2', 'ENOSPC', 'stdout', 9_000_000, `webjob: hint: df ${disk}\n`);
    assert.deepEqual(readdirSync(disk), []);
  });

  it('cuts stderr under TempDirectory, while stdout continues as long as there is room', async () => {
    home.reset({ TempDirectory: disk });
    const upload = await isCut(
      'head -c 9000000 /dev/zero >&2; echo $?',
      'ENOSPC',
      'stderr',
      9_000_000,
      `webjob: hint: df ${disk}\n`,
    );
    assert.ok(['', '0\n'].includes(upload.out.toString()));
  });

  it('moves a job from SpoolDirectory to TempDirectory, where it is complete', async () => {
    home.reset({ SpoolDirectory: join(disk, 'spool'), HashType: 'SHA256' });
    home.serve('head -c 9000000 /dev/zero; echo err >&2; head -c 1000000 /dev/zero');
    const [only] = await home.uploadsOf(async () => {
      const { code, stderr } = await home.client.execute(['job.sh']);
      assert.match(
        stderr,
        /^webjob: warning: SpoolDirectory is full or unusable: ENOSPC; the job is kept in \S+ until it is sent\n$/,
      );
      assert.equal(code, 0);
    });
    assert.deepEqual([only?.out.length, only?.err.toString(), only?.fields.RunError], [10_000_000, 'err\n', 'NA']);
    assert.equal(only?.fields.StdOutHash, createHash('sha256').update(Buffer.alloc(10_000_000)).digest('hex'));
    assert.deepEqual([readdirSync(join(disk, 'spool')), home.client.left()], [[], []]);
  });

  it('has the same effect under both directories as without a spool', async () => {
    home.reset({ TempDirectory: disk, SpoolDirectory: join(disk, 'spool') });
    await isCut('head -c 9000000 /dev/zero; echo $? >&2', 'ENOSPC', 'stdout', 9_000_000);
    assert.deepEqual(readdirSync(join(disk, 'spool')), []);
  });

  it('is reported beside a server that refuses, and the kept output waits', async () => {
    home.reset({ TempDirectory: disk });
    home.fake.put = REFUSES;
    home.serve('head -c 9000000 /dev/zero');
    const { code, stderr } = await home.client.execute(['job.sh']);
    assert.match(stderr, /^webjob: warning: job\.sh printed 9000000 bytes to stdout, of which \d+ were kept: ENOSPC\n/);
    assert.match(stderr, /\nwebjob: error: PUT of job\.sh failed: [^\n]+\nwebjob: hint: webjob --flush /);
    assert.equal(code, 5);
  });
});

describe('a file size limit', { skip: process.platform === 'win32' && 'no ulimit' }, () => {
  for (const spool of ['', 'spool']) {
    it(`ends neither webjob itself nor the program ${spool && 'with a spool'}`, async () => {
      home.reset({ SpoolDirectory: spool && home.spool });
      const limited = ['/bin/sh', '-c', 'ulimit -f 1000; exec "$@"', 'sh'];
      const hint = 'webjob: hint: ulimit -f unlimited\n';
      const cut = await isCut('head -c 3000000 /dev/zero; echo $? >&2', 'EFBIG', 'stdout', 3_000_000, hint, limited);
      assert.ok(cut.out.length === 512_000 || cut.out.length === 1_024_000, String(cut.out.length));
      assert.equal(cut.err.toString(), '0\n');
    });
  }
});

describe('a failing disk', { skip: NO_STRACE }, () => {
  /** The output of the first fsync, or the second, fails. */
  const CASES = { out: 'stdout', err: 'stderr' } as const;
  // libuv has no name for the second error.
  for (const [file, stream] of Object.entries(CASES))
    for (const code of file === 'out' ? ['EIO'] : ['EDQUOT'])
      it(`is named in RunError, while the other stream and the job are sent (${file}, ${code})`, async () => {
        home.reset({ SpoolDirectory: home.spool });
        home.serve('echo to out; echo to err >&2');
        const when = file === 'out' ? 1 : 2;
        const traced = inject(join(home.client.root, 'trace'), `fsync:error=${code}:when=${when + syncsBefore()}`, []);
        const [only] = await home.uploadsOf(async () => {
          const ended = await home.client.execute(['job.sh'], { wrapper: traced });
          assert.match(ended.stderr, new RegExp(`bytes to ${stream}, of which 7 were kept: ${code} in fsync\n`));
          assert.equal(ended.code, 4);
        });
        assert.deepEqual([only?.out.toString(), only?.err.toString()], ['to out\n', 'to err\n']);
        assert.equal(only?.fields.RunError, `printed 7 bytes to ${stream}, of which 7 were kept: ${code} in fsync`);
        assert.equal(only?.fields.StdOutHash, md5(Buffer.from('to out\n')));
      });

  for (const code of ['ENOSPC', 'EDQUOT'])
    it(`lets no program run without room for a directory in TempDirectory (${code})`, async () => {
      home.reset();
      const traced = inject(join(home.client.root, 'trace'), `mkdir:error=${code}`, []);
      const ended = await home.client.execute(['job.sh'], { wrapper: traced });
      const lines = [`error: TempDirectory cannot be used: ${code}`, `hint: df -i ${home.client.temp}`];
      assert.deepEqual([ended.code, ended.stderr], [4, lines.map((line) => `webjob: ${line}\n`).join('')]);
    });

  /** The directory of the spool exists, so that nothing else is synced before the streams. */
  function syncsBefore(): number {
    if (!existsSync(home.spool)) mkdirSync(home.spool, { mode: 0o700 });
    return 0;
  }
});

/** Runs a script whose output does not fit; returns what was uploaded of it. */
async function isCut(
  script: string,
  code: string,
  stream: 'stdout' | 'stderr',
  written: number,
  hint = '',
  wrapper: string[] = [],
): Promise<Upload> {
  home.serve(script);
  let stderr = '';
  const [only] = await home.uploadsOf(async () => {
    const ended = await home.client.execute(['job.sh'], { wrapper });
    stderr = ended.stderr;
    assert.deepEqual([ended.code, ended.stdout], [4, ''], stderr);
  });
  assert.ok(only, stderr);
  const kept = stream === 'stdout' ? only.out : only.err;
  assert.ok(kept.length > 0 && kept.length < written, String(kept.length));
  const trouble = `printed ${written} bytes to ${stream}, of which ${kept.length} were kept: ${code}`;
  assert.ok(only.fields.RunError.includes(trouble), only.fields.RunError);
  assert.ok(stderr.includes(`webjob: error: job.sh ${only.fields.RunError}\n`) && stderr.endsWith(hint), stderr);
  assert.deepEqual([only.fields.KidStatus, only.fields.KidReason], ['0', 'The kid exited cleanly.']);
  assert.deepEqual([only.fields.StdOutHash, only.fields.StdErrHash], [md5(only.out), md5(only.err)]);
  return only;
}
