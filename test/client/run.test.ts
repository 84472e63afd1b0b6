// Runs and their records, end to end with httpd: a program's output arrives in the locker, and the
// machine is left as it was found.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname, machine, release, type as systemType } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseEpoch, parseRecord, RECORD_FIELDS } from 'webjob-protocol';
import { type Ended, until } from '../support/client-job.ts';
import { type ClientSite, startClientSite, type Upload } from '../support/client-site.ts';

const MEGABYTE = 1024 * 1024;
const SILENT_SUCCESS: Ended = { code: 0, signal: null, stdout: '', stderr: '' };
let home: ClientSite;

before(async () => {
  home = await startClientSite();
});
after(() => home.close());
beforeEach(() => {
  home.configure();
  for (const name of readdirSync(home.client.temp)) rmSync(join(home.client.temp, name), { recursive: true });
  for (const name of readdirSync(home.site.incoming)) rmSync(join(home.site.incoming, name));
});

/**
 * Runs a shell script of these lines and uploads its output; webjob itself must be silent and
 * succeed.
 */
/** In a process of its own, because in a warm one a stage may take less than a millisecond. */
async function upload(script: string, args: string[] = []): Promise<Upload> {
  home.add('job.sh', `#!/bin/sh\n${script}\n`);
  assert.deepEqual(await home.client.start(['job.sh', ...args]).ended, SILENT_SUCCESS);
  return home.takeUpload();
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie that was not waited for counts as dead.
    return !/^State:\s+Z/m.test(existsSync(`/proc/${pid}/status`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : '');
  } catch {
    return false;
  }
}

function digest(type: string, bytes: Buffer): string {
  return createHash(type).update(bytes).digest('hex');
}

describe('the end of a program', () => {
  const ENDINGS: [script: string, status: string, signal: string, reason: string][] = [
    ['exit 0', '0', '0', 'The kid exited cleanly.'],
    ['exit 3', '3', '0', 'The kid exited with a status of 3.'],
    ['exit 255', '255', '0', 'The kid exited with a status of 255.'],
    ['kill -KILL $$', '0', '9', 'The kid was terminated by signal 9.'],
    ['kill -TERM $$', '0', '15', 'The kid was terminated by signal 15.'],
    ['ulimit -c 0; kill -SEGV $$', '0', '11', 'The kid was terminated by signal 11.'],
  ];
  for (const [script, status, signal, reason] of ENDINGS) {
    it(`is reported for ${script}: ${reason}`, async () => {
      const { fields } = parseRecord((await upload(script)).env);
      const { KidStatus, KidSignal, KidReason, RunError, GetError } = fields;
      assert.deepEqual([KidStatus, KidSignal, KidReason], [status, signal, reason]);
      assert.deepEqual([RunError, GetError], ['NA', 'NA']);
      assert.deepEqual(home.client.left(), []);
    });
  }

  it('kills the whole process group at RunTimeLimit, with exit code 4 and the output so far', async () => {
    const pidFile = join(home.client.root, 'pids');
    home.configure({ RunTimeLimit: '1', TimeoutSignal: '15' });
    home.add('slow.sh', `#!/bin/sh\necho begun\nsleep 300 &\necho $$ $! > ${pidFile}\nwait\n`);
    const { code, stdout, stderr } = await home.client.execute(['slow.sh']);
    assert.equal(stderr, 'webjob: error: slow.sh ended by RunTimeLimit after 1 seconds\n');
    assert.deepEqual([code, stdout], [4, '']);
    const { out, env } = home.takeUpload();
    const { KidSignal, RunError } = parseRecord(env).fields;
    assert.deepEqual([out.toString(), KidSignal], ['begun\n', '15']);
    assert.equal(RunError, 'ended by RunTimeLimit after 1 seconds');
    const pids = readFileSync(pidFile, 'utf8').trim().split(' ').map(Number);
    assert.equal(pids.length, 2);
    await until(() => !pids.some(isAlive), 'kid and grandchild are gone');
  });

  it('causes exit code 4 without its interpreter, which the record names', async () => {
    home.add('nope.sh', '#!/nope\n');
    const failed = 'webjob: error: nope.sh cannot be run: its interpreter /nope does not exist\n';
    assert.deepEqual(await home.client.execute(['nope.sh']), { code: 4, signal: null, stdout: '', stderr: failed });
    const { out, env } = home.takeUpload();
    const { KidPid, KidStatus, KidSignal, KidReason, RunError } = parseRecord(env).fields;
    assert.deepEqual([out.length, KidPid, KidStatus, KidSignal], [0, 'NA', 'NA', 'NA']);
    assert.equal(KidReason, 'The kid could not be started.');
    assert.equal(RunError, 'cannot be run: its interpreter /nope does not exist');
    assert.deepEqual(home.client.left(), []);
    home.configure({ URLPutURL: '' });
    assert.deepEqual(await home.client.execute(['nope.sh']), { code: 4, signal: null, stdout: '', stderr: failed });
  });

  it('is never a success for a file in no executable format', async () => {
    home.add('broken', Buffer.from('\x7fELF\x02\x01 of another machine\n', 'latin1'));
    const { code } = await home.client.execute(['broken']);
    const { KidStatus } = parseRecord(home.takeUpload().env).fields;
    assert.notEqual(KidStatus, '0');
    // Where the C library passes such a file to the shell, the shell's failure is the program's.
    assert.equal(code, KidStatus === 'NA' ? 4 : 0);
  });

  it('is exit code 3 when the server does not have the program; nothing is put or left', async () => {
    const { code, stdout, stderr } = await home.client.execute(['none.sh']);
    assert.deepEqual([code, stdout], [3, '']);
    assert.equal(stderr, 'webjob: error: GET of none.sh failed: Status = [404], Reason = [Not Found]\n');
    assert.deepEqual([readdirSync(home.site.incoming), home.client.left()], [[], []]);
  });
});

describe('the output of a program', () => {
  for (const type of ['MD5', 'SHA1', 'SHA256']) {
    it(`arrives byte for byte, with the ${type} that ${type.toLowerCase()}sum prints`, async () => {
      home.configure({ HashType: type });
      const bytes = join(home.client.root, 'bytes');
      writeFileSync(bytes, randomBytes(MEGABYTE + 1));
      const { out, err, env } = await upload(`cat '${bytes}'; echo $? >&2; cat '${bytes}' >&2`);
      assert.deepEqual(out, readFileSync(bytes));
      assert.deepEqual(err, Buffer.concat([Buffer.from('0\n'), out]));
      const sum = execFileSync(`${type.toLowerCase()}sum`, [bytes], { encoding: 'utf8' }).split(' ')[0];
      const { HashType, StdOutHash, StdErrHash } = parseRecord(env).fields;
      assert.deepEqual([HashType, StdOutHash, StdErrHash], [type, sum, digest(type.toLowerCase(), err)]);
    });
  }

  it('may be empty', async () => {
    const { out, err, env } = await upload(':');
    assert.deepEqual([out.length, err.length], [0, 0]);
    assert.equal(parseRecord(env).fields.StdOutHash, digest('md5', out));
  });

  it('may still grow from the background: hash, length and bytes agree, without a wait', async () => {
    const pidFile = join(home.client.root, 'pid');
    const { out, env } = await upload(
      `echo first; (trap '' PIPE; while [ -d ${home.client.root} ]; do echo more; done 2> /dev/null) & echo $! > ${pidFile}`,
    );
    const pid = Number(readFileSync(pidFile, 'utf8'));
    assert.ok(isAlive(pid), 'the background process goes on');
    process.kill(pid, 'SIGKILL');
    assert.ok(out.length > 0);
    assert.equal(parseRecord(env).fields.StdOutHash, digest('md5', out));
  });

  it('arrives even when the program removes its files', async () => {
    const { out } = await upload(`echo kept; rm -r '${home.client.temp}'/*`);
    assert.equal(out.toString(), 'kept\n');
  });

  it('passes through with its exit code when URLPutURL is not set', async () => {
    home.configure({ URLPutURL: '' });
    home.add('job.sh', '#!/bin/sh\necho to stdout\necho to stderr >&2\n[ "$1" ] && kill -$1 $$\nexit 7\n');
    const shown = { signal: null, stdout: 'to stdout\n', stderr: 'to stderr\n' };
    assert.deepEqual(await home.client.execute(['job.sh']), { code: 7, ...shown });
    assert.deepEqual(await home.client.execute(['job.sh', 'TERM']), { code: 143, ...shown });
    assert.deepEqual([readdirSync(home.site.incoming), home.client.left()], [[], []]);
  });

  it('is not stored by a link test', async () => {
    home.configure({ RunType: 'linktest' });
    home.add('job.sh', '#!/bin/sh\necho tested\n');
    assert.deepEqual(await home.client.execute(['job.sh']), SILENT_SUCCESS);
    assert.deepEqual(readdirSync(home.site.incoming), []);
    assert.match(
      readFileSync(home.site.logFile, 'utf8').trimEnd().split('\n').at(-1) ?? '',
      / PUT client1 job\.sh .* 251 -- /,
    );
  });
});

const EPOCH = '\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d';

describe('the run record', () => {
  it('has the 22 fields of the article, byte for byte', async () => {
    const earliest = Date.now();
    const { env, rdy } = await upload('echo $$ $PPID', ['-a', 'b  c', 'line\nbreak', '--x=ä']);
    const { Version, Jid, Pid, KidPid, JobEpoch, GetEpoch, RunEpoch, PutEpoch } = parseRecord(env).fields;
    const NOTHING = digest('md5', Buffer.of());
    const expected: Record<(typeof RECORD_FIELDS)[number], string> = {
      Version,
      Hostname: hostname(),
      SystemOS: `${machine()} ${systemType()} ${release()}`,
      ClientId: 'client1',
      GetRequest: 'job.sh',
      Command: 'job.sh',
      CommandLine: 'job.sh -a b  c line%0abreak --x=ä',
      Jid: rdy.slice(4, -1),
      Pid,
      KidPid,
      KidStatus: '0',
      KidSignal: '0',
      KidReason: 'The kid exited cleanly.',
      JobEpoch,
      GetEpoch,
      RunEpoch,
      PutEpoch,
      HashType: 'MD5',
      StdOutHash: digest('md5', Buffer.from(`${KidPid} ${Pid}\n`)),
      StdErrHash: NOTHING,
      GetError: 'NA',
      RunError: 'NA',
    };
    assert.equal(env, RECORD_FIELDS.map((name) => `${name}=${expected[name]}\n`).join(''));
    assert.match(Version, /^webjob \d+\.\d+\.\d+(?:-rc\.\d+)? ssl (?:32|64) bit$/);
    assert.match(Jid, /^server_1_\d{10}_\d{5,}$/);
    assert.match(`${Pid} ${KidPid}`, /^\d+ \d+$/);
    const instants = [
      earliest * 1000,
      ...[JobEpoch, GetEpoch, RunEpoch, PutEpoch].map(parseEpoch),
      (Date.now() + 1) * 1000,
    ];
    assert.deepEqual(
      instants.toSorted((a, b) => a - b),
      instants,
      'in the order in which it happened',
    );
    assert.ok(parseEpoch(GetEpoch) > parseEpoch(JobEpoch), 'each instant is taken when its stage begins');
  });

  const zones = existsSync('/usr/share/zoneinfo/Europe/Berlin');
  for (const tz of [
    'UTC',
    'Europe/Berlin',
    'America/St_Johns',
    'Asia/Kolkata',
    ':America/New_York',
    'EST5EDT',
    'XYZ-3',
    '',
    undefined,
  ]) {
    it(`gives times as date does with TZ=${tz ?? ' not set'}`, { skip: !zones && 'no zone files' }, async () => {
      home.add('job.sh', '#!/bin/sh\n');
      assert.deepEqual(await home.client.execute(['job.sh'], { environment: { TZ: tz } }), SILENT_SUCCESS);
      const { JobEpoch, PutEpoch } = parseRecord(home.takeUpload().env).fields;
      for (const epoch of [JobEpoch, PutEpoch]) {
        const [, shown, seconds] = new RegExp(`^(${EPOCH} \\S+) \\((\\d{10})\\.\\d{6}\\)$`).exec(epoch) ?? [];
        const { TZ: _, ...environment } = process.env;
        const env = tz === undefined ? environment : { ...environment, TZ: tz };
        const date = execFileSync('date', ['-d', `@${seconds}`, '+%F %T %Z'], { env, encoding: 'utf8' });
        assert.equal(`${shown}\n`, date);
      }
    });
  }
});

describe('TempDirectory', () => {
  const HOST = '#!/bin/sh\nhostname\n';
  const program = (): string => join(home.client.temp, 'host.sh');

  it('is empty afterwards, or keeps what UnlinkExecutable=N and UnlinkOutput=N name', async () => {
    for (const [UnlinkExecutable, UnlinkOutput] of [
      ['Y', 'Y'],
      ['N', 'Y'],
      ['Y', 'N'],
      ['N', 'N'],
    ] as const) {
      home.configure({ UnlinkExecutable, UnlinkOutput });
      assert.deepEqual(await home.client.execute(['host.sh']), SILENT_SUCCESS);
      const left = home.client.left().map((name) => name.replace(/webjob-[A-Za-z0-9]{6}/, 'FOLDER'));
      const output = ['FOLDER', 'FOLDER/host.sh.err', 'FOLDER/host.sh.out'];
      assert.deepEqual(left.sort(), [
        ...(UnlinkOutput === 'N' ? output : []),
        ...(UnlinkExecutable === 'N' ? ['host.sh'] : []),
      ]);
      if (UnlinkExecutable === 'N') assert.equal(readFileSync(program(), 'utf8'), HOST);
      for (const name of home.client.left()) {
        assert.equal(statSync(join(home.client.temp, name)).mode & 0o077, 0, `${name} is private`);
        if (name.endsWith('.out')) assert.equal(readFileSync(join(home.client.temp, name), 'utf8'), `${hostname()}\n`);
      }
      for (const name of readdirSync(home.client.temp)) rmSync(join(home.client.temp, name), { recursive: true });
      home.takeUpload();
    }
  });

  it("keeps another run's program, even under the number of the run's own", async () => {
    const path = join(home.client.temp, 'job.sh');
    home.add('job.sh', '#!/bin/sh\ntouch "$1"\nexec sleep 2\n');
    const started = join(home.client.temp, 'started');
    const running = home.client.start(['job.sh', started]);
    await until(() => existsSync(started), 'the program runs', running);
    const { ino } = statSync(path);
    rmSync(path);
    // A file system reuses the inode number of a removed file.
    for (let i = 0; i < 200; i++) {
      writeFileSync(join(home.client.temp, `next-${i}`), 'another program');
      if (i === 0 || statSync(join(home.client.temp, `next-${i}`)).ino === ino)
        renameSync(join(home.client.temp, `next-${i}`), path);
    }
    assert.deepEqual(await running.ended, SILENT_SUCCESS);
    assert.equal(readFileSync(path, 'utf8'), 'another program');
    home.takeUpload();
  });

  it('is private to the client while a program runs in it', async () => {
    const { out } = await upload('cd "$(dirname "$0")" && stat -c "%A %n" job.sh webjob-*/ webjob-*/* webjob-*/*/*');
    assert.deepEqual(
      out
        .toString()
        .replace(/webjob-[A-Za-z0-9]{6}/g, 'FOLDER')
        .replace(/run-[0-9]+-[0-9]+-[A-Za-z0-9]{6}/g, 'RUN')
        .trimEnd()
        .split('\n'),
      [
        ...['-rwx------ job.sh', 'drwx------ FOLDER/', 'drwx------ FOLDER/RUN'],
        ...['env', 'err', 'out', 'parcel.json'].map((name) => `-rw------- FOLDER/RUN/${name}`),
      ],
    );
  });

  it('may hold a file or link at the name of the program: replaced, never followed', async () => {
    const victim = join(home.client.root, 'victim');
    for (const plant of [() => writeFileSync(program(), 'old'), () => symlinkSync(victim, program())]) {
      for (const exists of [true, false]) {
        rmSync(victim, { force: true });
        if (exists) writeFileSync(victim, 'untouched');
        plant();
        assert.deepEqual(await home.client.execute(['host.sh']), SILENT_SUCCESS);
        assert.equal(existsSync(victim) ? readFileSync(victim, 'utf8') : undefined, exists ? 'untouched' : undefined);
        assert.equal(home.takeUpload().out.toString(), `${hostname()}\n`);
        assert.deepEqual(home.client.left(), []);
      }
    }
  });

  it('keeps such a file with OverwriteExecutable=N: exit code 4', async () => {
    const refuse = async (): Promise<void> => {
      const { code: exit, stdout, stderr } = await home.client.execute(['host.sh']);
      const hint = 'webjob: hint: remove it, or set OverwriteExecutable=Y\n';
      assert.equal(stderr, `webjob: error: ${program()} cannot be written: EEXIST\n${hint}`);
      assert.deepEqual([exit, stdout, home.client.left()], [4, '', ['host.sh']]);
      assert.deepEqual(readdirSync(home.site.incoming), []);
      rmSync(program(), { recursive: true });
    };
    home.configure({ OverwriteExecutable: 'N' });
    mkdirSync(program());
    await refuse();
    writeFileSync(program(), 'mine');
    await refuse();
    symlinkSync('/nowhere', program());
    await refuse();
    assert.deepEqual(await home.client.execute(['host.sh']), SILENT_SUCCESS);
  });

  it('must exist', async () => {
    home.configure({ TempDirectory: join(home.client.root, 'none') });
    const { code, stderr } = await home.client.execute(['host.sh']);
    assert.match(stderr, /^webjob: error: TempDirectory cannot be used: ENOENT\nwebjob: hint: [^\n]+\n$/);
    assert.equal(code, 4);
  });
});

describe('a signal to webjob', () => {
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ] as const) {
    it(`${signal} in RUN reaches the program's whole group, whose end is reported`, async () => {
      const pidFile = join(home.client.root, `pids-${signal}`);
      home.add(
        'long.sh',
        `#!/bin/sh\necho begun\nsleep 300 &\necho $$ $! > ${pidFile}.new\nmv ${pidFile}.new ${pidFile}\nwait\n`,
      );
      const { child, ended } = home.client.start(['long.sh']);
      await until(() => existsSync(pidFile), 'the program runs');
      child.kill(signal);
      assert.deepEqual(await ended, SILENT_SUCCESS);
      const { out, env } = home.takeUpload();
      const { KidSignal, KidReason } = parseRecord(env).fields;
      assert.deepEqual([out.toString(), KidSignal], ['begun\n', String(number)]);
      assert.equal(KidReason, `The kid was terminated by signal ${number}.`);
      const [kid = 0, grandchild = 0] = readFileSync(pidFile, 'utf8').trim().split(' ').map(Number);
      // A shell without job control makes its background processes ignore SIGINT.
      if (signal === 'SIGINT') process.kill(grandchild, 'SIGKILL');
      await until(() => !isAlive(kid) && !isAlive(grandchild), 'the group is gone');
      assert.deepEqual(home.client.left(), []);
    });
  }
});
