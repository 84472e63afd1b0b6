// Concurrent uploads in a persistent worker (cgi/group.ts): they share waiting, and nothing else.
// The core runs in this process; a real worker is used for the order of system calls, failing calls
// and full disks.
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { requestFromEnv } from 'node-cgi-compat';
import { createGroup } from '../../cgi/group.ts';
import { handleRequest, handleSteps } from '../../cgi/handle.ts';
import { appendCustodyOf, listCustodyFiles, readUse, runAlone, type Steps } from '../../cgi/locker/index.ts';
import { type Resident, startResident } from '../../scripts/resident.ts';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { askFastCgi, type FastCgiAnswer } from '../support/fastcgi-client.ts';
import { giveAway } from '../support/hooks-site.ts';
import { randomNumbers } from '../support/locker-kills.ts';
import { inject, NO_STRACE, traceTo } from '../support/locker-strace.ts';
import { fillBytes, findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { makeScratch } from '../support/locker-upload.ts';
import { putVariables, type Variables } from '../support/resident-requests.ts';
import { readFiles, readLog } from '../support/tree.ts';

const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
const RUNS = Number(process.env.WEBJOB_TEST_RUNS ?? 1);
/** Batches for each kind of site, and requests in each. */
const BATCHES = 5 * RUNS;
const REQUESTS = 14;
const CLIENTS = 8;
/** Linux has this flag on every architecture, but Node does not name it. */
const O_PATH = 0o10000000;

const OVERWRITE = { OverwriteExistingFiles: 'Y' };
const KINDS: Record<string, Record<string, string>> = {
  'the first upload of a name stays': {},
  'differing uploads are kept': { ...OVERWRITE, KeepDifferingUploads: 'Y' },
  'uploads are replaced': { ...OVERWRITE, KeepDifferingUploads: 'N' },
  // Two clients share a name, so that some wait for a name and some for a client.
  'a client has limits of a day': {
    ...OVERWRITE,
    KeepDifferingUploads: 'Y',
    PutNameFormat: '%cmd',
    MaxUploadsPerDay: '9',
    MaxBytesPerDay: '90',
  },
  'no custody record is kept': { ...OVERWRITE, EnableCustody: 'N' },
  'a PutHook changes every upload': {
    ...OVERWRITE,
    KeepDifferingUploads: 'Y',
    PutHookEnable: 'Y',
    PutHookCommandLine: 'printf changed >> %out',
  },
};

interface Request {
  variables: Variables;
  body: Buffer;
}

/** A PUT of one of few names, so that many collide. */
function drawRequest(site: Site, random: () => number): Request {
  const choose = <Item>(...items: Item[]): Item => items[Math.floor(random() * items.length)] as Item;
  const client = choose('client1', 'client1', 'client_2');
  const lengths = [choose(4, 4, 5, 40), choose(0, 3), choose(0, 2)];
  const sum = lengths.reduce((one, other) => one + other, 0);
  // Some bodies break off, some have another length than announced.
  const sent = random() < 0.08 ? Math.floor(sum / 2) : sum;
  const announced = random() < 0.05 ? sum + 1 : sum;
  const [out, err, env] = lengths;
  const query = [
    `VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=${client}&FILENAME=${choose('one', 'two')}`,
    `RUNTYPE=${random() < 0.05 ? 'linktest' : 'snapshot'}`,
    `STDOUT_LENGTH=${out}&STDERR_LENGTH=${err}&STDENV_LENGTH=${env}`,
  ].join('&');
  const given = { QUERY_STRING: query, CONTENT_LENGTH: String(announced), REMOTE_USER: client };
  return {
    variables: { ...putVariables(site, 0, choose('job_1', 'job_1', 'job_2')), ...given },
    body: Buffer.alloc(sent, choose('x', 'x', 'y')),
  };
}

function bodyOf(bytes: Buffer) {
  let at = 0;
  return {
    read: (buffer: Uint8Array): number => {
      const count = bytes.copy(buffer, 0, at, at + buffer.length);
      at += count;
      return count;
    },
  };
}

/** The identity of an answer, wherever it came from. */
const statusOf = ({ status }: { status: number }): number => status;

/** The state of a site, without anything that depends on time. */
function describeSite(site: Site) {
  const isKept = existsSync(custodyOf(site));
  const days = readdirSync(join(site.base, 'limits'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.includes('/day-'))
    .sort();
  return {
    files: [...readFiles(site.incoming)],
    records: (isKept ? readRecords(custodyOf(site)) : [])
      .map(({ event, name, jobId, sha256, differsFrom, received, replacedBy }) =>
        JSON.stringify([name, event, jobId, sha256, differsFrom, received, replacedBy]),
      )
      .sort(),
    log: readLog(site.base)
      // The seconds that a request took are in front of its status.
      .map((line) => line.replace(/^\S+ \S+ /, '').replace(/ \d+ (?=\d{3} -- )/, ' '))
      .sort(),
    used: days.map((name) => {
      const fd = openSync(join(site.base, 'limits', name), 'r');
      try {
        return [name, readUse(fd)];
      } finally {
        closeSync(fd);
      }
    }),
  };
}

describe(`concurrent uploads (seed ${SEED})`, () => {
  for (const [kind, settings] of Object.entries(KINDS)) {
    it(`end like sequential ones where ${kind}`, async (t) => {
      const random = randomNumbers(SEED);
      const sites = [0, 1].map(() => {
        const site = makeSite({ settings: { PutNameFormat: '%cid_%cmd', ...settings } });
        mkdirSync(join(site.base, 'limits'), { recursive: true });
        return site;
      }) as [Site, Site];
      const [together, alone] = sites;
      try {
        const group = createGroup({ appendCustodyOf, runAlone });
        const met = new Set<number>();
        for (let batch = 0; batch < (settings.PutHookEnable ? RUNS : BATCHES); batch += 1) {
          const requests = Array.from({ length: REQUESTS }, () => drawRequest(together, random));
          const answers = await Promise.all(
            requests.map(({ variables, body }) => group.run(handleSteps(requestFromEnv(variables), bodyOf(body)))),
          );
          const expected = requests.map(({ variables, body }) =>
            handleRequest(requestFromEnv({ ...variables, WEBJOB_PROPERTIES_FILE: alone.propertiesFile }), bodyOf(body)),
          );
          assert.deepEqual(answers.map(statusOf), expected.map(statusOf), `batch ${batch}`);
          assert.deepEqual(describeSite(together), describeSite(alone), `batch ${batch}`);
          for (const { status } of answers) met.add(status);
        }
        t.diagnostic([...met].sort().join(' '));
        assert.ok(met.has(200) && met.size > 2);
      } finally {
        for (const site of sites) site.remove();
      }
    });
  }
});

it('an upload runs its PutHook to its end at once, and the hook delays no other upload', async () => {
  const hook = { PutHookEnable: 'Y', PutHookCommandLine: 'true' };
  const site = makeSite({ settings: { PutNameFormat: '%jid', ...hook } });
  try {
    const group = createGroup({ appendCustodyOf, runAlone });
    const requests = ['one', 'two'].map((job) => requestFromEnv(putVariables(site, 4, job)));
    const answers = requests.map((request) => {
      const answer = group.run(handleSteps(request, bodyOf(Buffer.from('text'))));
      assert.ok(existsSync(join(site.incoming, `${request.env.HTTP_JOB_ID}.rdy`)));
      return answer;
    });
    assert.deepEqual((await Promise.all(answers)).map(statusOf), [200, 200]);
  } finally {
    site.remove();
  }
});

it('uploads have their names in one directory synced by the descriptor that was opened first', async () => {
  const site = makeSite();
  const first = openSync(site.incoming, 'r');
  // It can be read but not synced.
  const later = openSync(site.incoming, O_PATH);
  try {
    const group = createGroup({ appendCustodyOf, runAlone });
    const sync = function* (fd: number, openedAs: number): Steps<string> {
      yield { kind: 'sync', files: [], folders: [{ fd, openedAs }] };
      return 'on disk';
    };
    const pairs = [
      [later, first],
      [first, later],
    ] as const;
    for (const fds of pairs) {
      const ended = await Promise.all(fds.map((fd) => group.run(sync(fd, fd === first ? 1 : 2))));
      assert.deepEqual(ended, ['on disk', 'on disk']);
    }
    await assert.rejects(group.run(sync(later, 3)), { code: 'EBADF' });
  } finally {
    closeSync(first);
    closeSync(later);
    site.remove();
  }
});

it('uploads fail together when the custody record cannot be written, and the next ones succeed', async () => {
  const site = makeSite();
  try {
    const group = createGroup({ appendCustodyOf, runAlone });
    const record = function* (folder: string, name: string): Steps<string> {
      const path = join(folder, 'nph-webjob-custody.server_1.jsonl');
      yield { kind: 'record', path, facts: { event: 'deposit', name }, segmentLimit: 1e9 };
      return name;
    };
    const names = ['one', 'two', 'three'];
    const missing = names.map((name) => group.run(record(join(site.base, 'missing'), name)));
    const kept = names.map((name) => group.run(record(join(site.base, 'logfiles'), name)));
    const codes = (await Promise.allSettled(missing)).map((it) => it.status === 'rejected' && it.reason.code);
    assert.deepEqual(codes, ['ENOENT', 'ENOENT', 'ENOENT']);
    assert.deepEqual(await Promise.all(kept), names);
    assert.deepEqual(
      readRecords(custodyOf(site)).map(({ name }) => name),
      names,
    );
  } finally {
    site.remove();
  }
});

it('entries that are appended together continue in the next segment', async () => {
  const site = makeSite();
  try {
    const group = createGroup({ appendCustodyOf, runAlone });
    const record = function* (name: string): Steps<void> {
      yield { kind: 'record', path: custodyOf(site), facts: { event: 'deposit', name }, segmentLimit: 1000 };
    };
    for (let round = 0; round < 4; round++)
      await Promise.all(Array.from({ length: 5 }, (_, index) => group.run(record(`${round}_${index}`))));
    assert.ok(listCustodyFiles(join(site.base, 'logfiles')).length > 2);
  } finally {
    site.remove();
  }
});

/** A worker at a site of its own, started by another program. */
async function serve<Result>(
  wrapper: (site: Site) => readonly string[],
  work: (site: Site, worker: Resident) => Promise<Result>,
  prepare: (site: Site) => void = () => {},
): Promise<Result> {
  const site = makeSite({ resident: true, settings: { PutNameFormat: '%jid' } });
  try {
    prepare(site);
    const worker = await startResident(site, [], '', wrapper(site));
    try {
      return await work(site, worker);
    } finally {
      // A wrapper may not pass the signal on.
      process.kill(pidOf(worker), 'SIGTERM');
      await worker.ended;
    }
  } finally {
    site.remove();
  }
}

/** The worker itself, started by its wrapper. */
function pidOf({ pid }: Resident): number {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean);
  return child === undefined ? pid : Number(child);
}

const bytesOf = (job: string, size: number): Buffer => Buffer.alloc(size, `${job}.`);

/**
 * Concurrent clients that send uploads one after the other; resolves with the status of each job.
 */
async function upload(
  site: Site,
  { socket }: Resident,
  each = 1,
  size = 2000,
): Promise<Map<string, FastCgiAnswer['status']>> {
  const statuses = new Map<string, number>();
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, client) => {
      for (let count = 0; count < each; count += 1) {
        const job = `job_${client}_${count}`;
        const { status } = await askFastCgi(socket, putVariables(site, size, job), bytesOf(job, size));
        statuses.set(job, status);
      }
    }),
  );
  return statuses;
}

/**
 * Exactly the uploads with a 200 are announced and complete, and everything announced is recorded.
 */
function assertHonest(site: Site, incoming: string, statuses: Map<string, number>, size = 2000): void {
  const recorded = new Set(readRecords(custodyOf(site)).map(({ name }) => name));
  for (const [job, status] of statuses) {
    const isAnnounced = existsSync(join(incoming, `${job}.rdy`));
    assert.equal(isAnnounced, status === 200, `${job}: ${status}`);
    if (!isAnnounced) continue;
    assert.ok(readFileSync(join(incoming, `${job}.out`)).equals(bytesOf(job, size)), job);
    assert.ok(recorded.has(job), job);
  }
}

interface TracedCall {
  text: string;
  /** The lines of the trace on which it began and ended. */
  begun: number;
  ended: number;
}

/** The calls with the times of both ends, because calls of several threads overlap. */
function readCalls(file: string): TracedCall[] {
  const open = new Map<string, TracedCall>();
  const calls: TracedCall[] = [];
  for (const [index, line] of readFileSync(file, 'latin1').split('\n').entries()) {
    const [, thread = '', said = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(said);
    if (resumed) {
      const call = open.get(thread);
      if (!call) continue;
      call.text += resumed[1];
      call.ended = index;
      open.delete(thread);
    } else {
      const isOpen = said.endsWith('<unfinished ...>');
      const call = { text: said.replace(/ ?<unfinished \.\.\.>$/, ''), begun: index, ended: index };
      calls.push(call);
      if (isOpen) open.set(thread, call);
    }
  }
  return calls;
}

describe('the order of system calls', { skip: NO_STRACE }, () => {
  it('is that of one upload for each of several, which share fsyncs of record and directory', async (t) => {
    const trace = (site: Site): string => join(makeScratch(site, 'scratch'), 'trace');
    const whole = (site: Site): string[] => traceTo(trace(site)).map((word) => (word === '16' ? '200000' : word));
    await serve(whole, async (site, worker) => {
      const statuses = await upload(site, worker, 4);
      assert.deepEqual([...new Set(statuses.values())], [200], worker.complaints());
      const calls = readCalls(trace(site));
      const find = (...parts: string[]): TracedCall[] =>
        calls.filter(({ text }) => parts.every((part) => text.includes(part)));
      const records = find('write(', custodyOf(site));
      const answers = find('Status: 200');
      const logged = find('write(', `<${site.logFile}>`);
      const folders = find('fsync(', `<${site.incoming}>`, '= 0');
      for (const job of statuses.keys()) {
        const [made] = find('openat(', `"${join(site.incoming, job)}.env"`).map(({ ended }) => ended);
        const files = ['lck', 'out', 'err', 'env'].flatMap((name) =>
          find('fsync(', `<${join(site.incoming, job)}.${name}>`, '= 0'),
        );
        const [record] = records.filter(({ text }) => text.includes(`\\"name\\":\\"${job}\\"`));
        const [rename] = find('rename(', `"${join(site.incoming, job)}.lck"`, '= 0');
        const [line] = logged.filter(({ text }) => text.includes(` ${job} `));
        assert.ok(made !== undefined && record && rename && line, job);
        assert.equal(files.length, 4, job);
        assert.ok(
          files.every(({ ended }) => ended < record.begun),
          `${job}: streams, then the record`,
        );
        const between = (some: TracedCall[], from: number, to: number): boolean =>
          some.some(({ begun, ended }) => begun > from && ended < to);
        assert.ok(between(folders, made, record.begun), `${job}: names, then the record`);
        assert.ok(
          between(find('fsync(', custodyOf(site), '= 0'), record.ended, rename.begun),
          `${job}: record, then .rdy`,
        );
        assert.ok(between(folders, rename.ended, line.begun), `${job}: .rdy, then the log`);
      }
      for (const [index, { begun }] of answers.entries())
        assert.ok(logged.filter(({ ended }) => ended < begun).length > index, `answer ${index} before its log line`);
      assert.equal(answers.length, statuses.size);
      t.diagnostic(`${statuses.size} uploads: ${records.length} records, ${folders.length} fsyncs of the folder`);
      assert.ok(records.length < statuses.size && folders.length < 2 * statuses.size);
    });
  });
});

describe('one of several concurrent uploads', { skip: NO_STRACE }, () => {
  const inTrace = (injection: string, paths: (site: Site) => string[]) => (site: Site) =>
    inject(join(makeScratch(site, 'scratch'), 'trace'), injection, paths(site));
  const ofOne = (extension: string) => (site: Site) => [join(site.incoming, `job_3_0.${extension}`)];

  for (const [what, injection, extension, status] of [
    ['a stream that is not on disk', 'fsync:error=EIO', 'out', 500],
    ['a stream for which there is no room', 'write:error=ENOSPC', 'env', 507],
    ['a lock that is not on disk', 'fsync:error=EIO', 'lck', 500],
    ['a name that cannot be given', 'rename:error=EIO', 'lck', 500],
  ] as const) {
    it(`fails alone with ${what}`, async () => {
      await serve(inTrace(injection, ofOne(extension)), async (site, worker) => {
        const size = 1000;
        // All three streams have bytes.
        const statuses = new Map<string, number>();
        await Promise.all(
          Array.from({ length: CLIENTS }, async (_, client) => {
            const job = `job_${client}_0`;
            const given = putVariables(site, size, job);
            const lengths = `STDOUT_LENGTH=${size - 2}&STDERR_LENGTH=1&STDENV_LENGTH=1`;
            const query = given.QUERY_STRING?.replace(/STDOUT_LENGTH=.*/, lengths) ?? '';
            const { status } = await askFastCgi(worker.socket, { ...given, QUERY_STRING: query }, bytesOf(job, size));
            statuses.set(job, status);
          }),
        );
        assert.equal(statuses.get('job_3_0'), status, worker.complaints());
        statuses.delete('job_3_0');
        assert.deepEqual([...new Set(statuses.values())], [200]);
        assert.ok(!existsSync(join(site.incoming, 'job_3_0.rdy')));
        const left = readdirSync(site.incoming).filter((name) => name.startsWith('job_3_0'));
        assert.equal(left.length, status === 507 ? 0 : 3, left.join());
        const { status: next } = await askFastCgi(worker.socket, putVariables(site, 10, 'next'), bytesOf('next', 10));
        assert.equal(next, 200);
      });
    });
  }

  for (const [what, path] of [
    ['folder', (site: Site) => site.incoming],
    ['custody record', custodyOf],
  ] as const) {
    it(`fails with all that share an fsync, and with no other: that of the ${what}`, async (t) => {
      await serve(
        inTrace('fsync:error=EIO:when=2..3', (site) => [path(site)]),
        async (site, worker) => {
          const statuses = await upload(site, worker, 3);
          assertHonest(site, site.incoming, statuses);
          const failed = [...statuses.values()].filter((status) => status === 500).length;
          t.diagnostic(`${failed} of ${statuses.size} failed`);
          assert.ok(failed > 0 && failed < statuses.size, worker.complaints());
        },
      );
    });
  }

  it('succeeds when the file system cannot sync directories', async () => {
    await serve(
      inTrace('fsync:error=EINVAL', (site) => [site.incoming]),
      async (site, worker) => {
        const statuses = await upload(site, worker);
        assert.deepEqual([...new Set(statuses.values())], [200], worker.complaints());
      },
    );
  });
});

describe('a disk that is full in the middle of a batch', { skip: findMountObstacle() }, () => {
  let small = '';
  const mount = (limits: string) => (site: Site) => {
    small = join(site.base, 'small');
    mkdirSync(small);
    mountTmpfs(small, limits);
  };
  const counts = (statuses: Map<string, number>): number[] =>
    [200, 507].map((wanted) => [...statuses.values()].filter((status) => status === wanted).length);

  it('accepts the uploads that fit, and leaves nothing of the others', async (t) => {
    const size = 40_000;
    const prepare = (site: Site): void => {
      mount('size=1260k')(site);
      configure(site, { IncomingDirectory: small, PutNameFormat: '%jid' });
    };
    await serve(
      () => [],
      async (site, worker) => {
        try {
          const statuses = await upload(site, worker, 1, size);
          const [stored = 0, refused = 0] = counts(statuses);
          t.diagnostic(`${stored} stored, ${refused} refused`);
          assert.ok(stored > 0 && refused > 0 && stored + refused === CLIENTS, worker.complaints());
          assertHonest(site, small, statuses, size);
          assert.equal(readdirSync(small).length, 4 * stored);
        } finally {
          unmountTmpfs(small);
        }
      },
      prepare,
    );
  });

  it('keeps the deposits that fit, and only these are announced', async (t) => {
    const prepare = (site: Site): void => {
      mount('size=64k')(site);
      writeFileSync(join(small, 'nph-webjob-custody.server_1.jsonl'), '');
      giveAway(join(small, 'nph-webjob-custody.server_1.jsonl'));
      fillBytes(join(small, 'filling'));
      configure(site, { LogfilesDirectory: small, PutNameFormat: '%jid', EnableLogging: 'N' });
    };
    await serve(
      () => [],
      async (site, worker) => {
        try {
          // Space for one page: some five records.
          truncateSync(join(small, 'filling'), statSync(join(small, 'filling')).size - 4096);
          const statuses = await upload(site, worker);
          const [stored = 0, refused = 0] = counts(statuses);
          t.diagnostic(`${stored} stored, ${refused} refused`);
          assert.ok(stored > 0 && refused > 0 && stored + refused === CLIENTS, worker.complaints());
          const text = readFileSync(join(small, 'nph-webjob-custody.server_1.jsonl'), 'latin1');
          for (const [job, status] of statuses) {
            assert.equal(existsSync(join(site.incoming, `${job}.rdy`)), status === 200, job);
            assert.ok(status !== 200 || new RegExp(`"name":"${job}".*"sum":"[0-9a-f]{64}"\\}\n`).test(text), job);
            if (status !== 200) assert.ok(!existsSync(join(site.incoming, `${job}.out`)), job);
          }
        } finally {
          unmountTmpfs(small);
        }
      },
      prepare,
    );
  });
});
