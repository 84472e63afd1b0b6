// SpoolDirectory: whatever goes wrong with an upload, its result waits there and arrives later,
// byte for byte, once, with its own job id and times.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseEpoch, parseRecord } from 'webjob-protocol';
import { startOf } from '../../cli/processes.ts';
import { JobFolder } from '../../client/spool.ts';
import { startHttpd } from '../../scripts/httpd.ts';
import { type Client, type Ended, makeClient, paste, runWebjob, until } from '../support/client-job.ts';
import {
  afterBody,
  type Behaviour,
  type FakeServer,
  formatAnswer,
  reply,
  splitRequest,
  startFake,
} from '../support/client-server.ts';
import { startClientSite } from '../support/client-site.ts';
import { makeFakeClock, needsFakeClock } from '../support/clock-fake.ts';

const JID = 'server_1_1085355126_00723';
const PROGRAM = '#!/bin/sh\nprintf "out of $1\\0"\nprintf "err of $1\\377" >&2\n';
const client: Client = makeClient();
const spool = join(client.root, 'spool');
const FLUSH = `webjob --flush --file ${client.conf}`;
const WAITS = `webjob: hint: ${FLUSH}\n`;
let fake: FakeServer;

before(async () => {
  fake = await startFake();
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  rmSync(spool, { recursive: true, force: true });
  for (const name of readdirSync(client.temp)) rmSync(join(client.temp, name), { recursive: true });
  fake.get = reply(formatAnswer(PROGRAM, '200 OK', `Job-Id: ${JID}\r\n`));
  fake.put = BREAKS;
  configure();
});

const TAKES = afterBody(formatAnswer());
const BREAKS: Behaviour = (socket) => socket.destroy();

function configure(more: Record<string, string> = {}): void {
  client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, SpoolDirectory: spool, ...more });
}

const flush = (): Promise<Ended> => runWebjob(['--flush', '--file', client.conf]);
const jobs = (): string[] => (existsSync(spool) ? readdirSync(spool).sort() : []);

/** Bodies of the uploads that arrived while `action` ran. */
async function uploadsOf(action: () => Promise<unknown>): Promise<{ head: string; body: string }[]> {
  const earlier = fake.requests().length;
  await action();
  const puts = fake
    .requests()
    .slice(earlier)
    .filter((request) => request.toString('latin1', 0, 3) === 'PUT');
  return puts.map(splitRequest).map(({ head, body }) => ({ head, body: body.toString('latin1') }));
}

/** Runs that cannot be uploaded. */
async function keep(...names: string[]): Promise<void> {
  for (const name of names) assert.equal((await client.execute(['host.sh', name])).code, 5);
}

describe('a PUT that fails', () => {
  const FAILURES: Record<string, Behaviour> = {
    'because the server closes': BREAKS,
    'because the server refuses': afterBody(formatAnswer('', '452 Over Limit')),
    'because the server is ill': afterBody(formatAnswer('', '500 Internal Server Error')),
    'because the server is silent': () => {},
    'because the answer breaks off': afterBody(Buffer.from('HTTP/1.1 200 OK\r\nContent-Len')),
    'because the answer has no length': afterBody(Buffer.from('HTTP/1.1 200 OK\r\n\r\n')),
    'because the answer is no HTTP': afterBody(Buffer.from('SSH-2.0-x\r\n\r\n')),
    'because nobody listens': () => {},
  };
  for (const [why, put] of Object.entries(FAILURES)) {
    it(`${why} leaves the job in the spool, and --flush delivers it`, async () => {
      fake.put = put;
      const nobody = why.endsWith('listens');
      configure({ PutTimeLimit: '1', ...(nobody && { URLPutURL: 'http://127.0.0.1:1/' }) });
      const { code, stdout, stderr } = await client.execute(['host.sh', 'a']);
      assert.match(stderr, /^webjob: error: PUT of host\.sh failed: [^\n]+\n/);
      assert.ok(stderr.endsWith(`\n${WAITS}`), stderr);
      assert.deepEqual([code, stdout, client.left()], [5, '', []]);
      assert.match(jobs().join(), /^job-\d{13}-\d+$/);
      configure();
      fake.put = TAKES;
      const [upload, ...more] = await uploadsOf(async () => {
        assert.deepEqual(await flush(), {
          code: 0,
          signal: null,
          stdout: '',
          stderr: 'webjob: delivered 1 of 1 job\n',
        });
      });
      assert.deepEqual([more, jobs()], [[], []]);
      assert.ok(upload?.body.startsWith('out of a\0err of a\xff'));
    });
  }

  it('keeps out, err, record and job id unchanged and private', async () => {
    const first = await uploadsOf(async () => {
      fake.put = afterBody(formatAnswer('', '503 Service Unavailable'));
      await keep('x');
      const paths = readdirSync(spool, { recursive: true }).map((name) => join(spool, String(name)));
      assert.equal(paths.length, 5);
    });
    await new Promise((resolve) => setTimeout(resolve, 1100));
    fake.put = TAKES;
    const second = await uploadsOf(flush);
    assert.deepEqual(second, first);
    assert.equal(second.length, 1);
    assert.match(second[0]?.head ?? '', new RegExp(`\r\nJob-Id: ${JID}\r\n`));
    const env = second[0]?.body.slice('out of x\0err of x\xff'.length) ?? '';
    const { Jid, CommandLine, PutEpoch } = parseRecord(env).fields;
    assert.deepEqual([Jid, CommandLine], [JID, 'host.sh x']);
    assert.ok(parseEpoch(PutEpoch) < (Date.now() - 1000) * 1000, 'told when it was, not when it was delivered');
  });

  it('reports and keeps nothing when it succeeds', async () => {
    fake.put = TAKES;
    assert.deepEqual(await client.execute(['host.sh']), { code: 0, signal: null, stdout: '', stderr: '' });
    assert.deepEqual([jobs(), client.left()], [[], []]);
  });
});

describe('--flush', () => {
  const names = (uploads: { body: string }[]): string[] =>
    uploads.map(({ body }) => /^out of (\w+)\0/.exec(body)?.[1] ?? '');

  it('delivers in the order of the runs, as does the next run that can upload, after its own', async () => {
    await keep('a', 'b', 'c');
    fake.put = TAKES;
    assert.deepEqual(names(await uploadsOf(flush)), ['a', 'b', 'c']);
    fake.put = BREAKS;
    await keep('d', 'e');
    fake.put = TAKES;
    const run = async (): Promise<void> =>
      assert.deepEqual(await client.execute(['host.sh', 'f']), { code: 0, signal: null, stdout: '', stderr: '' });
    assert.deepEqual(names(await uploadsOf(run)), ['f', 'd', 'e']);
    assert.deepEqual(jobs(), []);
  });

  it('tries each job once after a run, which holds its lock throughout', async () => {
    await keep('a');
    configure({ RetryLimit: '5', RetryDelay: '0' });
    let taken = 0;
    fake.put = (socket, received) => (taken++ === 0 ? TAKES : BREAKS)(socket, received);
    const uploads = await uploadsOf(async () => {
      const { code, stderr } = await client.execute(['host.sh', 'b']);
      assert.equal(code, 0);
      assert.match(stderr, /^webjob: warning: 1 job waits in the spool: PUT of host\.sh failed: [^\n]+\n$/);
    });
    assert.deepEqual(names(uploads), ['b', 'a']);
  });

  it('ends when the network fails, and reports what is left', async () => {
    await keep('a', 'b', 'c');
    let taken = 0;
    fake.put = (socket, received) => (taken++ === 0 ? TAKES : BREAKS)(socket, received);
    const attempted = await uploadsOf(async () => {
      const { code, stderr } = await flush();
      assert.match(
        stderr,
        /^webjob: delivered 1 of 3 jobs\nwebjob: error: 2 jobs wait in the spool: PUT of host\.sh failed: /,
      );
      assert.equal(code, 5);
    });
    assert.deepEqual(names(attempted), ['a', 'b'].slice(0, attempted.length));
    fake.put = TAKES;
    assert.deepEqual(names(await uploadsOf(flush)), ['b', 'c']);
  });

  it('delivers the others when the server refuses a job or a job is damaged', async () => {
    await keep('a', 'b', 'c', 'd', 'e');
    const [, second = '', third = '', fourth = ''] = jobs();
    writeFileSync(join(spool, second, 'parcel.json'), '{"clientId":"../x"}');
    rmSync(join(spool, third, 'out'));
    rmSync(join(spool, fourth, 'parcel.json'));
    let count = 0;
    fake.put = (socket, received) =>
      (count++ === 0 ? afterBody(formatAnswer('', '452 Over Limit')) : TAKES)(socket, received);
    const attempted = await uploadsOf(async () => {
      const { code, stderr } = await flush();
      assert.match(stderr, /^webjob: delivered 1 of 5 jobs\nwebjob: error: 4 jobs wait in the spool: [^\n]*452/);
      assert.equal(code, 5);
    });
    assert.deepEqual(names(attempted), ['a', 'e']);
    const { stderr } = await flush();
    const [inSecond, inThird, inFourth] = [second, third, fourth].map((name) => join(spool, name));
    assert.deepEqual(stderr.split('\n'), [
      'webjob: delivered 1 of 4 jobs',
      `webjob: error: 3 jobs wait in the spool: ${inSecond} has no valid parcel.json`,
      'webjob: hint: it was not written by webjob, or is damaged',
      `webjob: warning: ${inSecond}: ${inSecond} has no valid parcel.json`,
      `webjob: warning: ${inThird}: ${inThird}/out cannot be read: ENOENT`,
      `webjob: warning: ${inFourth}: ${inFourth} has no valid parcel.json`,
      '',
    ]);
    assert.deepEqual(jobs(), [second, third, fourth]);
  });

  const DAMAGES: Record<string, [damage: (job: string) => void, why: string]> = {
    'stdout is shorter': [
      (job) => truncateSync(join(job, 'out'), 3),
      'out is not what the program printed: its MD5 differs',
    ],
    'stdout is empty': [
      (job) => truncateSync(join(job, 'out')),
      'out is not what the program printed: its MD5 differs',
    ],
    'stdout is full of zeros': [
      (job) => writeFileSync(join(job, 'out'), Buffer.alloc(statSync(join(job, 'out')).size)),
      'out is not what the program printed: its MD5 differs',
    ],
    'stderr is longer': [
      (job) => appendFileSync(join(job, 'err'), '\0'),
      'err is not what the program printed: its MD5 differs',
    ],
    'the record is empty': [
      (job) => truncateSync(join(job, 'env')),
      'env is not a complete run record: line 1 of the record is not Version',
    ],
    'the record ends in a line': [
      (job) => truncateSync(join(job, 'env'), 300),
      'env is not a complete run record: the record does not end in a newline',
    ],
    'the record is full of zeros': [
      (job) => writeFileSync(join(job, 'env'), Buffer.alloc(700)),
      'env is not a complete run record: the record does not end in a newline',
    ],
    'stdout is a pipe': [
      (job) => {
        rmSync(join(job, 'out'));
        assert.equal(spawnSync('mkfifo', [join(job, 'out')]).status, 0);
      },
      'out cannot be read: EFTYPE',
    ],
    'stdout is a link': [
      (job) => {
        renameSync(join(job, 'out'), join(client.root, 'elsewhere'));
        symlinkSync(join(client.root, 'elsewhere'), join(job, 'out'));
      },
      'out cannot be read: ELOOP',
    ],
  };
  it(`never sends a damaged job as a complete one (${Object.keys(DAMAGES).join(', or ')})`, async () => {
    const damages = Object.entries(DAMAGES);
    await keep('a', ...damages.map((_, index) => `b${index}`), 'c');
    const damaged = jobs().slice(1, -1);
    for (const [index, [, [damage]]] of damages.entries()) damage(join(spool, damaged[index] ?? ''));
    fake.put = TAKES;
    const attempted = await uploadsOf(async () => {
      const { code, stderr } = await flush();
      assert.equal(code, 5);
      for (const [index, [what, [, why]]] of damages.entries()) {
        const path = join(spool, damaged[index] ?? '');
        assert.ok(stderr.includes(`webjob: warning: ${path}: ${path}/${why}\n`), `${what}: ${stderr}`);
      }
    });
    assert.deepEqual(names(attempted), ['a', 'c']);
    assert.deepEqual(jobs(), damaged);
  });

  it('also sends jobs from before September 2001 in their order', async () => {
    await keep('a', 'b', 'c');
    for (const [index, time] of ['5', '999999999999', '1000000000000'].entries())
      renameSync(
        join(spool, jobs().find((name) => /-17\d{11}-/.test(name)) ?? ''),
        join(spool, `job-${time}-${index}`),
      );
    fake.put = TAKES;
    assert.deepEqual(names(await uploadsOf(flush)), ['a', 'b', 'c']);
  });

  it('sends a job from before 1970', needsFakeClock, async () => {
    const clock = makeFakeClock(join(client.root, 'clock'));
    clock.set('@1969-12-30 20:13:27');
    assert.equal((await client.execute(['host.sh', 'old'], { environment: clock.environment })).code, 5);
    fake.put = TAKES;
    assert.deepEqual(names(await uploadsOf(flush)), ['old']);
    assert.deepEqual(jobs(), []);
  });

  it('delivers each job once when two run at once', async () => {
    await keep('a', 'b', 'c', 'd', 'e', 'f');
    fake.put = TAKES;
    const delivered = await uploadsOf(async () => {
      const ended = await Promise.all([flush(), flush(), flush()]);
      assert.deepEqual(
        ended.map(({ code }) => code),
        [0, 0, 0],
      );
    });
    assert.deepEqual(names(delivered).sort(), ['a', 'b', 'c', 'd', 'e', 'f']);
    assert.deepEqual(jobs(), []);
  });

  it('does nothing without a spool directory, and needs SpoolDirectory', async () => {
    assert.deepEqual(await flush(), { code: 0, signal: null, stdout: '', stderr: '' });
    configure({ SpoolDirectory: '' });
    const { code, stderr } = await flush();
    assert.deepEqual([code, stderr], [2, 'webjob: error: SpoolDirectory is required for --flush\n']);
  });
});

describe('a client that is ended while it sends', () => {
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    it(`has its job delivered by the next --flush, whatever the server has (${signal})`, async () => {
      let isSending = false;
      fake.put = () => {
        isSending = true;
      };
      const { child, ended } = client.start(['host.sh', 'z']);
      await until(() => isSending, 'the upload has begun');
      child.kill(signal);
      const { code, stderr } = await ended;
      const says = `webjob: warning: ended by SIGTERM before the upload was complete; to deliver it: ${FLUSH}\n`;
      assert.deepEqual([code, stderr], signal === 'SIGTERM' ? [143, says] : [null, '']);
      assert.match(jobs().join(), new RegExp(`^sending-${child.pid}-\\d+-job-\\d+-${child.pid}$`));
      fake.put = TAKES;
      const [upload, ...more] = await uploadsOf(flush);
      assert.ok(upload?.body.startsWith('out of z\0'));
      assert.deepEqual([more, jobs()], [[], []]);
    });
  }

  it('keeps its job as long as it lives', async () => {
    await keep('a');
    const [job = ''] = jobs();
    const sending = `sending-${process.pid}-${startOf(process.pid)}-${job}`;
    renameSync(join(spool, job), join(spool, sending));
    fake.put = TAKES;
    assert.deepEqual(await uploadsOf(flush), []);
    assert.deepEqual(jobs(), [sending]);
    // After a restart of the machine, a daemon may have the process id forever.
    renameSync(join(spool, sending), join(spool, `sending-${process.pid}-1-${job}`));
    assert.equal((await uploadsOf(flush)).length, 1);
    assert.deepEqual(jobs(), []);
  });
});

describe('the spool directory', () => {
  it('takes no more than SpoolLimit; what is over waits until it is sent by its name', async () => {
    configure();
    await keep('a', 'b');
    const bytes = readdirSync(spool, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0);
    configure({ SpoolLimit: String(Math.floor(bytes * 1.4)) });
    const { code, stderr } = await client.execute(['host.sh', 'c']);
    const [, command = '', path = ''] = /hint: (webjob --flush (\S+) --file \S+)\n$/.exec(stderr) ?? [];
    assert.equal(code, 5);
    assert.equal(readFileSync(join(path, 'out'), 'latin1'), 'out of c\0');
    fake.put = TAKES;
    const plain = await uploadsOf(async () => {
      const { code: left, stderr: says } = await flush();
      assert.equal(left, 5);
      assert.equal(
        says,
        'webjob: delivered 2 of 3 jobs\nwebjob: error: 1 job waits in the spool\n' +
          `webjob: warning: ${path}: over SpoolLimit; to deliver it: ${command}; to remove it: rm -r ${path}\n`,
      );
    });
    assert.equal(plain.length, 2);
    const [named] = await uploadsOf(async () => assert.equal((await paste(command)).code, 0));
    assert.ok(named?.body.startsWith('out of c\0'));
    assert.deepEqual(jobs(), []);
  });

  it('is refused before anything is run or sent when others can write to it', async () => {
    mkdirSync(spool);
    fake.put = TAKES;
    for (const mode of [0o777, 0o1777, 0o770]) {
      chmodSync(spool, mode);
      const refused = `webjob: error: SpoolDirectory: others can write in ${spool}\nwebjob: hint: chmod 700 ${spool}\n`;
      const sent = await uploadsOf(async () => {
        for (const ended of [await client.execute(['host.sh']), await flush()])
          assert.deepEqual([ended.code, ended.stderr], [2, refused]);
      });
      assert.deepEqual([sent, jobs(), client.left()], [[], [], []]);
    }
  });

  it('is refused when another user owns it or a link to it', {
    skip: process.getuid?.() !== 0 && 'only root can give away',
  }, async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'webjob-spool-'));
    try {
      mkdirSync(spool, { mode: 0o700 });
      chownSync(spool, 1, 1);
      assert.match(
        (await flush()).stderr,
        /^webjob: error: SpoolDirectory: \S+ belongs to another user\nwebjob: hint: /,
      );
      rmSync(spool, { recursive: true });
      symlinkSync(elsewhere, spool);
      assert.equal((await client.execute(['host.sh'])).code, 5);
      lchownSync(spool, 1, 1);
      assert.equal((await client.execute(['host.sh'])).code, 2);
    } finally {
      rmSync(spool);
      rmSync(elsewhere, { recursive: true });
    }
  });

  it('is refused when it is not a directory', async () => {
    writeFileSync(spool, '');
    for (const { code, stderr } of [await client.execute(['host.sh']), await flush()]) {
      assert.match(stderr, /^webjob: error: SpoolDirectory cannot be used: E[A-Z]+\n$/);
      assert.equal(code, 2);
    }
  });
});

describe('an httpd that was stopped while a job ran', () => {
  it('has the result after a restart and --flush', async () => {
    const home = await startClientSite();
    const { site, server } = home;
    try {
      home.configure({ SpoolDirectory: join(home.client.root, 'spool'), UnlinkOutput: 'N' });
      home.add(
        'job.sh',
        '#!/bin/sh\necho begun; : > "$1.begun"; while [ ! -e "$1" ]; do sleep 0.05; done; echo done\n',
      );
      const [mayEnd, bytes] = [join(home.client.root, 'end'), 'begun\ndone\n'];
      const { ended } = home.client.start(['job.sh', mayEnd]);
      await until(() => existsSync(`${mayEnd}.begun`), 'the program began');
      await server.stop();
      writeFileSync(mayEnd, '');
      assert.equal((await ended).code, 5);
      const again = await startHttpd({ site, mpm: 'event', port: server.port });
      try {
        assert.equal((await runWebjob(['--flush', '--file', home.client.conf])).code, 0);
        const { out, env, rdy } = home.takeUpload();
        assert.deepEqual([out.toString(), `Jid=${parseRecord(env).fields.Jid}\n`], [bytes, rdy]);
      } finally {
        await again.stop();
      }
    } finally {
      await home.close();
    }
  });
});

describe('a file of a job', () => {
  it('holds what was written last, even if that is shorter than the earlier content', () => {
    const folder = JobFolder.makeRun(client.root);
    try {
      for (const text of ['the first record', 'the next']) {
        folder.write('env', Buffer.from(text));
        assert.equal(readFileSync(join(folder.path, 'env'), 'latin1'), text);
      }
    } finally {
      folder.discard();
    }
  });
});
