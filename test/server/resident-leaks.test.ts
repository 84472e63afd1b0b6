// Every path of a persistent worker, repeatedly, in one process with a low limit of descriptors: a
// file that stays open on any of them would end the service some day, and is noticed here at once.
// The answers of each path are checked too.
import assert from 'node:assert/strict';
import {
  mkdirSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatRecord, formatStream, RECORD_TYPES } from 'node-cgi-compat/responder';
import { type Resident, startResident } from '../../scripts/resident.ts';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf } from '../support/custody-record.ts';
import { askFastCgi, FastCgiClient, formatRequest } from '../support/fastcgi-client.ts';
import { findProcesses, giveAway } from '../support/hooks-site.ts';
import { findMountObstacle, mountTmpfs, unmountTmpfs } from '../support/locker-tmpfs.ts';
import { getVariables, putVariables, type Variables } from '../support/resident-requests.ts';
import { many } from '../support/thorough.ts';
import { HOST_SH } from '../support/tree.ts';

/**
 * The number of repetitions of each path: a leak of one descriptor for each request is far larger
 * than any other change.
 */
const TIMES = many(12, 5);
/** The process's limit of descriptors (`ulimit -n`). */
const DESCRIPTORS = 64;
/**
 * More than a socket and a stream hold, so that an answer or a body is in transit for as long as a
 * test needs.
 */
const LARGE_BYTES = 8_000_000;
/** More than is kept in memory of a body. */
const SPOOLED_BYTES = 150_000;
/** Seconds of a sleep that no other test uses. */
const LONG = 1_000_000 + process.pid;
const NOTHING = Buffer.alloc(0);

const noMount = findMountObstacle();

let site: Site;
let resident: Resident;
let idleSockets = 0;
let uploads = 0;
let failed = 0;

const inSite = (...names: string[]): string => join(site.base, ...names);
const openFiles = (): string[] =>
  readdirSync(`/proc/${resident.pid}/fd`).flatMap((fd) => {
    try {
      return readlinkSync(`/proc/${resident.pid}/fd/${fd}`);
    } catch {
      return [];
    }
  });

async function until(isTrue: () => boolean, what: () => string): Promise<void> {
  for (const deadline = Date.now() + 60_000; !isTrue(); await sleep(5))
    if (Date.now() > deadline) assert.fail(`${what()}\n${openFiles().join('\n')}`);
}

function write(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

before(async () => {
  site = makeSite({ resident: true });
  for (const name of ['signed', 'spoilt', 'boxed', 'overridden', 'wrong', 'unreadable'])
    addCommand(site, 'client1', name, HOST_SH);
  mkdirSync(join(site.profiles, 'client1', 'folder'));
  write(join(site.profiles, 'client1', 'signed.sig'), 'signature\n');
  write(join(site.profiles, 'client1', 'spoilt.sig'), 'two\nlines\n');
  mkdirSync(join(site.profiles, 'client1', 'boxed.sig'));
  const overrides = inSite('config', 'nph-webjob', 'commands');
  write(join(overrides, 'overridden', 'nph-webjob.cfg'), 'DsvRequireSignatures=N\n');
  write(join(overrides, 'wrong', 'nph-webjob.cfg'), 'DsvRequireSignatures=perhaps\n');
  write(join(overrides, 'roomy', 'nph-webjob.cfg'), 'MaxContentLength=1000000\n');
  mkdirSync(join(overrides, 'unreadable', 'nph-webjob.cfg'), { recursive: true });
  write(inSite('config', 'nph-webjob', 'hosts.access'), 'client1=192.0.2.0/24\n');
  mkdirSync(inSite('spool'));
  for (const log of ['nph-webjob-hook.log', 'nph-webjob-trigger.log', 'nph-webjob.json.log']) {
    write(inSite('logfiles', log), '');
    giveAway(inSite('logfiles', log));
  }
  giveAway(inSite('spool'));
  mkdirSync(inSite('tight'));
  // One for itself, one for a file.
  if (noMount === undefined) mountTmpfs(inSite('tight'), 'size=64k,nr_inodes=2');
  resident = await startResident(site, [], '', ['/bin/sh', '-c', `ulimit -n ${DESCRIPTORS}; exec "$0" "$@"`]);
  idleSockets = openFiles().filter((path) => path.startsWith('socket:')).length;
});
after(async () => {
  await resident?.stop();
  if (noMount === undefined) unmountTmpfs(inSite('tight'));
  site.remove();
});

/** Takes a path once, then repeatedly: the process must have as many descriptors as before. */
function leavesNothing(
  name: string,
  take: () => Promise<void>,
  settings: () => Record<string, string> = () => ({}),
  obstacle?: string,
) {
  it(`${name} leave no descriptor open`, { skip: obstacle }, async (t) => {
    // A process that has leaked this many would soon fail, and every test would wait for it.
    if (failed > 2) return t.skip('three paths before this one failed');
    failed += 1;
    configure(site, { PutNameFormat: '%jid', EnableConfigOverrides: 'Y', ...settings() });
    // What is loaded or opened once for all requests.
    await take();
    await until(
      () => !hasConnections(),
      () => 'connections stay',
    );
    const before = openFiles().length;
    for (let time = 0; time < TIMES; time += 1) await take();
    await until(
      () => openFiles().length <= before,
      () => `${before} descriptors became ${openFiles().length}`,
    );
    failed -= 1;
  });
}

/** Besides the listening socket and Node's own descriptors, a connection is one more. */
function hasConnections(): boolean {
  return openFiles().filter((path) => path.startsWith('socket:')).length > idleSockets;
}

const asked =
  (command: string, status: number, more: Variables = {}) =>
  async (): Promise<void> => {
    const answer = await askFastCgi(resident.socket, { ...getVariables(site, command), ...more });
    assert.deepEqual([answer.status, answer.protocolStatus], [status, 0], resident.complaints().slice(-500));
  };

const sent =
  (bytes: number, status: number, more: Variables = {}) =>
  async (): Promise<void> => {
    const variables = { ...putVariables(site, bytes, `upload_${++uploads}`), ...more };
    const answer = await askFastCgi(resident.socket, variables, Buffer.alloc(bytes, 'x'));
    assert.deepEqual([answer.status, answer.protocolStatus], [status, 0], resident.complaints().slice(-500));
  };

/** Sends records in any order. */
const spoken = (speak: (client: FastCgiClient) => Promise<void>) => async (): Promise<void> => {
  const client = new FastCgiClient(resident.socket);
  try {
    await speak(client);
  } finally {
    client.close();
  }
};

const getHook =
  (command: string, more: Record<string, string> = {}) =>
  () => ({
    GetHookEnable: 'Y',
    GetHookCommandLine: command,
    ...more,
  });
const putHook = (command: string) => () => ({ PutHookEnable: 'Y', PutHookCommandLine: command });
const abort = (requestId: number): Buffer =>
  formatRecord({ type: RECORD_TYPES.abortRequest, requestId, content: NOTHING });

describe(`${TIMES} GETs`, () => {
  leavesNothing('of a command that is there', asked('host.sh', 200));
  leavesNothing('of one that is not', asked('missing', 404));
  leavesNothing('of a folder', asked('folder', 457));
  leavesNothing('with a query that does not match', asked('host.sh', 450, { QUERY_STRING: 'VERSION=1' }));
  leavesNothing("of another client's", asked('host.sh', 453, { REMOTE_USER: 'client2' }));
  leavesNothing('with another method', asked('host.sh', 405, { REQUEST_METHOD: 'POST' }));
  leavesNothing('whose settings file is missing', asked('host.sh', 550, { WEBJOB_PROPERTIES_FILE: '/nonexistent' }));
  leavesNothing('that are tracked', asked('host.sh', 200), () => ({ EnableRequestTracking: 'Y' }));
  leavesNothing('with an override', asked('overridden', 200), () => ({ DsvRequireSignatures: 'Y' }));
  leavesNothing('with an override that is wrong', asked('wrong', 550));
  leavesNothing('with an override that is a folder', asked('unreadable', 550));
  leavesNothing('with a signature', asked('signed', 200), () => ({ DsvRequireSignatures: 'Y' }));
  leavesNothing('with a signature that is none', asked('spoilt', 459), () => ({ DsvRequireSignatures: 'Y' }));
  leavesNothing('with a signature that is none and not required', asked('spoilt', 200));
  leavesNothing('with a signature that is a folder', asked('boxed', 459), () => ({ DsvRequireSignatures: 'Y' }));
  leavesNothing('without the signature that is required', asked('host.sh', 459), () => ({ DsvRequireSignatures: 'Y' }));
  leavesNothing('that a list of hosts turns away', asked('host.sh', 472), () => ({ EnableHostAccessList: 'Y' }));
  leavesNothing('that start a trigger', asked('host.sh', 200), () => ({
    GetTriggerEnable: 'Y',
    GetTriggerCommandLine: 'true',
  }));
});

describe(`${TIMES} GETs with a hook`, () => {
  const limit = { GetHookOutputLimit: '1024' };
  leavesNothing('that makes the payload of a command', asked('host.sh', 200), getHook('cat %file'));
  leavesNothing('that makes a payload where there is no command', asked('missing', 200), getHook('echo made'));
  leavesNothing('that fails', asked('host.sh', 551), getHook('exit 1'));
  leavesNothing('that fails where there is no command', asked('missing', 551), getHook('exit 1'));
  leavesNothing('that complains', asked('host.sh', 200), getHook('echo a >&2', { GetHookLogDivertedOutput: 'Y' }));
  leavesNothing('that reaches its limit to the byte', asked('host.sh', 200), getHook('head -c 1024 /dev/zero', limit));
  // The hook hides that the shell's limit ended it; its partial output must not be the payload.
  const cutShort = getHook('head -c 2000 /dev/zero; exit 0', limit);
  leavesNothing('that goes over a limit of whole blocks', asked('host.sh', 551), cutShort);
  leavesNothing('that goes over its limit by a byte', asked('host.sh', 551), getHook('head -c 1025 /dev/zero', limit));
  const signs = { DsvRequireSignatures: 'Y' };
  leavesNothing('that signs what it makes', asked('host.sh', 200), getHook('echo made; echo signed > %sig', signs));
  leavesNothing('that signs with what is no signature', asked('host.sh', 459), getHook('cat %file > %sig', signs));
  leavesNothing('that removes the file of its signature', asked('host.sh', 459), getHook('rm %sig', signs));
  leavesNothing('that may not sign and has to', asked('host.sh', 459), getHook('echo made', signs));
  const tight = (): string => inSite('tight');
  const signsThere = () => ({ ...getHook('echo made; echo signed > %sig', signs)(), SpoolDirectory: tight() });
  const refused = async (): Promise<void> => {
    await asked('host.sh', 550)();
    // Descriptors left open by the first one would leave no room to notice more.
    assert.deepEqual(
      openFiles().filter((path) => path.startsWith(tight())),
      [],
    );
  };
  leavesNothing('that has room for its payload and none for its signature', refused, signsThere, noMount);
  const nowhere = getHook('echo made', { SpoolDirectory: '/nonexistent' });
  leavesNothing('that has nowhere to put it', asked('host.sh', 550), nowhere);
});

describe(`${TIMES} lost answers`, () => {
  const garbled = { SERVER_SOFTWARE: 'Apache\u00e9' };
  leavesNothing('whose header cannot be sent', asked('host.sh', 500, garbled));
  leavesNothing('whose header cannot be sent, of a hook', asked('host.sh', 500, garbled), getHook('echo made'));

  const large = (): string => join(site.profiles, 'client1', 'large');
  /** Reads the first record of the answer, and nothing else. */
  async function begin(client: FastCgiClient): Promise<void> {
    addCommand(site, 'client1', 'large', '');
    truncateSync(large(), LARGE_BYTES);
    client.socket.write(formatRequest(1, getVariables(site, 'large'), NOTHING));
    assert.ok(await client.next());
    client.socket.pause();
    assert.ok(openFiles().includes(large()), 'no answer is on its way');
  }

  const leaves = spoken(async (client) => {
    await begin(client);
    client.close();
    await until(
      () => !openFiles().includes(large()),
      () => 'the file of a client that left stays open',
    );
  });
  leavesNothing('whose client goes away', leaves);
  const aborts = spoken(async (client) => {
    await begin(client);
    client.socket.write(abort(1));
    await until(
      () => !openFiles().includes(large()),
      () => 'the file of an answer that was aborted stays open',
    );
  });
  leavesNothing('that the web server aborts', aborts);
  const shrinks = spoken(async (client) => {
    await begin(client);
    truncateSync(large(), 1000);
    client.socket.resume();
    const { body, protocolStatus } = await client.answer(1);
    assert.equal(protocolStatus, undefined, 'half a file must not look like a whole one');
    assert.ok(client.isClosed && body.length < LARGE_BYTES);
  });
  leavesNothing('whose file shrinks', shrinks);
  const vanishes = spoken(async (client) => {
    client.socket.write(formatRequest(1, getVariables(site), NOTHING));
    client.socket.end();
  });
  leavesNothing('whose client asks and is gone', vanishes);
});

describe(`${TIMES} PUTs`, () => {
  leavesNothing('that are stored', sent(100, 200));
  leavesNothing('that wait in a file', sent(SPOOLED_BYTES, 200));
  leavesNothing('that are tracked', sent(100, 200), () => ({ EnableRequestTracking: 'Y' }));
  leavesNothing('that start a trigger', sent(100, 200), () => ({
    PutTriggerEnable: 'Y',
    PutTriggerCommandLine: 'true',
  }));
  const again = { PutNameFormat: 'one', OverwriteExistingFiles: 'Y' };
  leavesNothing('that replace each other', sent(100, 200), () => ({ ...again, KeepDifferingUploads: 'N' }));
  leavesNothing('that stand beside each other', sent(100, 200), () => again);
  /** Two with one job id, the second with another byte if `isOther` says so. */
  const twice = (status: number, isOther: boolean) => async (): Promise<void> => {
    const jobId = `upload_${++uploads}`;
    const body = Buffer.alloc(SPOOLED_BYTES, 'x');
    await sent(body.length, 200, { HTTP_JOB_ID: jobId })();
    if (isOther) body.write('y', body.length - 20);
    const answer = await askFastCgi(resident.socket, putVariables(site, body.length, jobId), body);
    assert.deepEqual([answer.status, answer.protocolStatus], [status, 0]);
  };
  leavesNothing('that are sent again', twice(200, false));
  leavesNothing('that are sent again and differ at the end', twice(451, true));
  leavesNothing('that are sent again, differ, and are kept', twice(200, true), () => ({
    OverwriteExistingFiles: 'Y',
  }));
  // Each of them is different and of the same length, and the process may not have all of them
  // open.
  const differing = async (): Promise<void> => {
    const body = Buffer.alloc(200, 'x');
    body.write(String(++uploads), 100);
    const answer = await askFastCgi(resident.socket, putVariables(site, body.length, 'same_id'), body);
    assert.deepEqual([answer.status, answer.protocolStatus], [200, 0]);
    const again = await askFastCgi(resident.socket, putVariables(site, body.length, 'same_id'), body);
    assert.equal(again.status, 200);
    const kept = readdirSync(site.incoming).filter((name) => /^same_id.*\.rdy$/.test(name));
    assert.equal(kept.length, ++differed, 'the second one is the first, sent again');
  };
  let differed = 0;
  const beside = { OverwriteExistingFiles: 'Y' };
  leavesNothing('that differ and are kept beside each other', differing, () => beside);
  leavesNothing('that differ, when many are kept already', differing, () => beside);
  leavesNothing('into new folders', sent(100, 200), () => ({ PutNameFormat: '%cid/%jid/upload' }));
  leavesNothing('of a name that is taken', sent(100, 451), () => {
    write(join(site.incoming, 'taken.out'), '');
    return { PutNameFormat: 'taken' };
  });
  leavesNothing('of a link test', async () => {
    const { QUERY_STRING: query = '' } = putVariables(site, SPOOLED_BYTES);
    await sent(SPOOLED_BYTES, 251, { QUERY_STRING: query.replace('snapshot', 'linktest') })();
  });
  leavesNothing("of another client's", sent(SPOOLED_BYTES, 453, { REMOTE_USER: 'client2' }));
  leavesNothing('whose lengths do not add up', sent(SPOOLED_BYTES, 456, { CONTENT_LENGTH: '7' }));
  const capped = { CapContentLength: 'Y', MaxContentLength: '1000' };
  leavesNothing('that are too long', sent(SPOOLED_BYTES, 455), () => capped);
  const counted = { MaxRequestsAtOnce: '5', MaxUploadsPerDay: '99999', MaxBytesPerDay: '99999999' };
  leavesNothing('that are counted', sent(100, 200), () => counted);
  leavesNothing('that are counted and sent again', twice(200, false), () => counted);
  leavesNothing('that are over their day', sent(SPOOLED_BYTES, 507), () => ({ ...counted, MaxBytesPerDay: '1000' }));
  leavesNothing('with a hook', sent(100, 200), putHook('true'));
  leavesNothing('with a hook that fails', sent(100, 551), putHook('false'));
  leavesNothing('with a hook that talks', sent(100, 200), () => ({
    ...putHook('echo a; echo b >&2')(),
    PutHookLogDivertedOutput: 'Y',
  }));
  leavesNothing('with a hook that talks too much', sent(100, 551), () => ({
    ...putHook('head -c 100000 /dev/zero')(),
    PutHookLogDivertedOutput: 'Y',
  }));
  leavesNothing(
    'with a hook that leaves a process',
    async () => {
      const marked = `sleep\0${LONG}`;
      await sent(100, 200)();
      await until(
        () => findProcesses(marked).length === 0,
        () => 'the process of a PutHook lives on',
      );
    },
    putHook(`sleep ${LONG} & :`),
  );
  leavesNothing('with a hook that removes a stream', sent(100, 551), putHook('rm %out'));
  leavesNothing('with a hook that leaves a FIFO', sent(100, 551), putHook('rm %out; mkfifo %out'));

  for (const [how, bytes] of [
    ['a small', 1000],
    ['a large', SPOOLED_BYTES],
  ] as const) {
    const whole = (): Buffer => {
      const variables = putVariables(site, bytes, `upload_${++uploads}`);
      return formatRequest(1, variables, Buffer.alloc(bytes, 'x'));
    };
    const part = (bytes: Buffer): Buffer => bytes.subarray(0, bytes.length - 500);
    const broken = spoken(async (client) => {
      const name = `upload_${uploads + 1}.out`;
      await new Promise((resolve) => client.socket.write(part(whole()), resolve));
      client.socket.destroy();
      await until(
        () => readdirSync(site.incoming).includes(name),
        () => `${name} does not come`,
      );
    });
    leavesNothing(`${how} one that breaks off`, broken);
    const ended = spoken(async (client) => {
      client.socket.end(part(whole()));
      assert.equal((await client.answer(1)).status, 456);
    });
    leavesNothing(`${how} one that ends early`, ended);
    const aborted = spoken(async (client) => {
      const variables = putVariables(site, bytes, `upload_${++uploads}`);
      const head = formatRequest(1, variables, NOTHING);
      client.socket.write(head.subarray(0, head.length - 8));
      for (const record of formatStream(RECORD_TYPES.stdin, 1, Buffer.alloc(bytes - 1))) client.socket.write(record);
      client.socket.write(abort(1));
      assert.equal((await client.answer(1)).status, 456);
    });
    leavesNothing(`${how} one that is aborted`, aborted);
  }

  leavesNothing(
    'that an override lets be long',
    async () => {
      const query = putVariables(site, SPOOLED_BYTES, undefined, 'roomy').QUERY_STRING ?? '';
      await sent(SPOOLED_BYTES, 200, { QUERY_STRING: query })();
    },
    () => capped,
  );

  it('keep no byte of a body when they find no room', async () => {
    configure(site, { PutNameFormat: '%jid' });
    // Far more than any disk of this machine.
    const variables = putVariables(site, 8_000_000_000_000_000, 'huge');
    const bodies = (): string[] => openFiles().filter((path) => path.startsWith(site.incoming));
    for (let time = 0; time < TIMES; time += 1) {
      await spoken(async (client) => {
        const head = formatRequest(1, variables, NOTHING);
        client.socket.write(head.subarray(0, head.length - 8));
        for (const record of formatStream(RECORD_TYPES.stdin, 1, Buffer.alloc(SPOOLED_BYTES)))
          client.socket.write(record);
        await asked('host.sh', 200)();
        assert.deepEqual(bodies(), [], 'the body of an upload that cannot fit takes room');
        client.socket.write(abort(1));
        assert.equal((await client.answer(1)).status, 507);
      })();
    }
    assert.deepEqual(bodies(), []);
    assert.deepEqual(
      readdirSync(site.incoming).filter((name) => name.startsWith('huge')),
      [],
    );
  });
});

describe(`${TIMES} requests that cannot be recorded`, () => {
  /** Replaces a file by a directory during `work`. */
  async function without(path: string, work: () => Promise<void>): Promise<void> {
    renameSync(path, `${path}.kept`);
    mkdirSync(path);
    try {
      await work();
    } finally {
      rmSync(path, { recursive: true });
      renameSync(`${path}.kept`, path);
    }
  }

  leavesNothing('in the custody record', () => without(custodyOf(site), sent(100, 500)));
  leavesNothing('in the custody record, with a hook', () => without(custodyOf(site), sent(100, 500)), putHook('true'));
  leavesNothing('in the log', () => without(site.logFile, asked('host.sh', 200)));
  leavesNothing('in the log, of an upload', () => without(site.logFile, sent(100, 200)));

  it('are all served by the process that was started, with its log at the end', () => {
    assert.ok(statSync(site.logFile).size > 10_000);
    assert.doesNotMatch(resident.complaints(), /EMFILE/);
    assert.ok(openFiles().length > 0);
  });
});
