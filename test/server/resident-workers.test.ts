// Several workers at one socket: one that dies is replaced and nothing acknowledged is lost, ids
// and names stay unique, the custody record intact and the log complete; a hook holds nobody up;
// the end of the primary, by SIGTERM or otherwise, is the end of all.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findJobIdParts } from 'webjob-protocol';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { startWay } from '../../scripts/resident.ts';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { FastCgiClient, formatRequest } from '../support/fastcgi-client.ts';
import { giveAway } from '../support/hooks-site.ts';
import { get, getVariables, put, putVariables } from '../support/resident-requests.ts';
import { useResidentSite } from '../support/resident-site.ts';
import { askStrictly, type StrictAnswer } from '../support/strict-client.ts';
import { childrenOf } from '../support/wait.ts';

const THREE = ['--processes', '3'];
/** More than any process id: the steps in which a persistent worker counts. */
const STEP = 4_194_304;

async function until(isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(20)) if (await isTrue()) return true;
  return false;
}

/** False for a zombie too. */
function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** The ids of the processes that issued job ids. */
const servedBy = (ids: readonly string[]): Set<number> =>
  new Set(ids.map((id) => (findJobIdParts(id)?.sequence ?? 0) % STEP));

/** The contents of the locker for a job. */
const outputOf = (site: Site, name: string): string => readFileSync(join(site.incoming, `${name}.out`), 'utf8');

describe('three workers behind httpd, one of which is killed again and again', async () => {
  const site = makeSite({ resident: true, settings: { PutNameFormat: '%jid' } });
  const { server, resident, close } = await startWay('mod_proxy_fcgi', site, {}, THREE);
  after(async () => {
    await close();
    site.remove();
  });
  const acknowledged = new Map<string, string>();
  const statuses: number[] = [];
  const ids: string[] = [];
  const killed = new Set<number>();

  const ask = async (method: 'GET' | 'PUT', jobId = '', content = ''): Promise<number> => {
    const query = 'VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=client1&FILENAME=host.sh';
    const put = `&RUNTYPE=snapshot&STDOUT_LENGTH=${content.length}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
    const head = [
      `${method} /webjob/nph-webjob.cgi?${query}${method === 'PUT' ? put : ''} HTTP/1.1`,
      ...[`Host: 127.0.0.1:${server.port}`, `Content-Length: ${content.length}`, 'Connection: close'],
      ...[`Authorization: Basic ${btoa('client1:foo')}`, ...(jobId ? [`Job-Id: ${jobId}`] : []), '\r\n'],
    ].join('\r\n');
    const request = { port: server.port, head, body: [Buffer.from(content)], timeLimitSeconds: 120 };
    // The answer of a killed process may break off.
    const answer: StrictAnswer | undefined = await askStrictly(request).catch(() => undefined);
    if (method === 'GET' && answer?.status === 200) ids.push(answer.headers.get('job-id') ?? '');
    statuses.push(answer?.status ?? 0);
    return answer?.status ?? 0;
  };

  it('keep serving, and lose nothing that was acknowledged', async () => {
    assert.ok(resident);
    let isOver = false;
    const lane = async (name: string): Promise<void> => {
      for (let turn = 0; !isOver; turn += 1) {
        const content = `${name} ${turn} `.repeat(1 + (turn % 3) * 4000);
        if ((await ask('PUT', `${name}_${turn}`, content)) === 200) acknowledged.set(`${name}_${turn}`, content);
        await ask('GET');
      }
    };
    const lanes = ['a', 'b', 'c', 'd'].map(lane);
    for (let kill = 0; kill < 4; kill += 1) {
      const enough = acknowledged.size + 8;
      assert.ok(await until(() => acknowledged.size >= enough), `${acknowledged.size} of ${enough}`);
      const children = childrenOf(resident.pid).filter(isAlive);
      const victim = children.find((pid) => !killed.has(pid));
      assert.ok(victim);
      // One that has just started does not listen yet, and the socket ends with the last one that
      // does.
      const others = children.filter((pid) => pid !== victim);
      assert.ok(await until(() => others.some((pid) => servedBy(ids).has(pid))), 'no other one serves');
      killed.add(victim);
      process.kill(victim, 'SIGKILL');
      assert.ok(await until(() => childrenOf(resident.pid).filter(isAlive).length === 3 && !isAlive(victim)));
      // As logrotate does it: no process is told.
      renameSync(site.logFile, `${site.logFile}.${kill}`);
      writeFileSync(site.logFile, '');
      giveAway(site.logFile);
    }
    isOver = true;
    await Promise.all(lanes);
    for (const [name, content] of acknowledged) {
      assert.equal(outputOf(site, name), content, name);
      assert.ok(existsSync(join(site.incoming, `${name}.rdy`)), name);
    }
    // The requests that a killed process had: at most one for each client.
    const lost = statuses.filter((status) => status !== 200);
    assert.ok(lost.length <= killed.size * lanes.length, `${lost} of ${statuses.length}`);
    assert.deepEqual(
      lost.filter((status) => ![0, 502, 503].includes(status)),
      [],
    );
    assert.match(resident.complaints(), /process \d+ ended with SIGKILL, another one replaces it/);
  });

  it('issue no id twice, and all of them issue ids', () => {
    assert.equal(new Set(ids).size, ids.length);
    const served = servedBy(ids);
    assert.ok([...killed].some((pid) => served.has(pid)) && served.size >= 3, [...served].join(' '));
  });

  it('keep one complete custody record, which has every acknowledged upload', () => {
    // A process that was killed in the middle of its line leaves a torn one, which the next record
    // covers.
    const recorded = new Set(readRecords(custodyOf(site)).map(({ name }) => name));
    assert.deepEqual(
      [...acknowledged.keys()].filter((name) => !recorded.has(name)),
      [],
    );
  });

  it('log a line for each of their answers, to the current file or to stderr', () => {
    const folder = join(site.base, 'logfiles');
    const names = readdirSync(folder).filter((name) => name.startsWith('nph-webjob.log'));
    const lines = names.flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n').filter(Boolean));
    assert.equal(names.length, 5);
    for (const line of lines)
      assert.match(line, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ client1 127\.0\.0\.1 (?:GET|PUT) /);
    const answered = statuses.filter((status) => status === 200).length;
    // Between the old file and the new one there is none: such a line goes to stderr.
    const stray =
      resident
        ?.complaints()
        .split('\n')
        .filter((line) => line.startsWith('nph-webjob: nph-webjob.log: ')) ?? [];
    const logged = [...lines, ...stray].filter((line) => line.includes(' 200 -- ')).length;
    // One that was killed between its line and its answer.
    assert.ok(logged >= answered && logged <= answered + killed.size, `${logged} lines, ${answered} answers`);
  });
});

describe('a hook that waits', () => {
  const { site, start } = useResidentSite({ PutNameFormat: '%jid' }, THREE);

  it('delays no other request', async () => {
    const go = join(site().incoming, 'go');
    const command = `until [ -e ${go} ]; do sleep 0.05; done`;
    configure(site(), {
      PutNameFormat: '%jid',
      PutHookEnable: 'Y',
      PutHookCommandLine: command,
      PutHookTimeLimit: '60',
    });
    const { socket } = await start(['--processes', '2']);
    let isDone = false;
    const waiting = put(socket, site(), Buffer.from('slow'), 'slow').then((answer) => {
      isDone = true;
      return answer;
    });
    assert.ok(await until(() => existsSync(join(site().incoming, 'slow.out'))));
    for (let turn = 0; turn < 10; turn += 1) assert.equal((await get(socket, site())).status, 200);
    assert.equal(isDone, false);
    writeFileSync(go, '');
    assert.equal((await waiting).status, 200);
  });
});

describe('the end of several workers', () => {
  const { site, start } = useResidentSite({ PutNameFormat: '%jid' }, THREE);

  it('waits after SIGTERM for the requests that have begun, and loses no client at the next start', async () => {
    let current = await start();
    const uploading = new FastCgiClient(current.socket);
    const body = Buffer.alloc(200_000, 'x');
    const whole = formatRequest(1, putVariables(site(), body.length, 'late'), body);
    uploading.socket.write(whole.subarray(0, 100_000));
    let isOver = false;
    const statuses: number[] = [];
    const ask = async (): Promise<void> => {
      while (!isOver) statuses.push((await get(current.socket, site())).status);
    };
    const asking = [ask(), ask(), ask()];
    const first = current;
    for (let turn = 0; turn < 2; turn += 1) {
      const next = await start();
      await sleep(50);
      const last = current;
      current = next;
      if (turn > 0) assert.equal(await last.stop(), 0);
    }
    isOver = true;
    await Promise.all(asking);
    assert.deepEqual([...new Set(statuses)], [200]);
    uploading.socket.write(whole.subarray(100_000));
    assert.equal((await uploading.answer(1)).status, 200);
    assert.equal(await first.ended, 0, 'nobody can find it any more');
    const workers = childrenOf(current.pid);
    assert.equal(workers.length, 3);
    assert.equal(await current.stop(), 0);
    assert.deepEqual(workers.filter(isAlive), []);
    assert.deepEqual(readdirSync(join(site().root, 'run')), [], 'no socket is left');
  });

  it('refuses new connections to its port at once, while open requests continue', async () => {
    const [port = 0] = await findFreePorts(1);
    const words = [join(site().cgiDirectory, 'nph-webjob.cgi'), '--listen', String(port), ...THREE];
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'inherit'], env: {} });
    const ended = once(child, 'exit');
    try {
      assert.ok(await until(async () => (await get(port, site())).status === 200));
      const client = new FastCgiClient(port);
      const whole = formatRequest(1, putVariables(site(), 3, 'goes-on'), Buffer.from('out'));
      client.socket.write(whole.subarray(0, -20));
      await sleep(200);
      child.kill('SIGTERM');
      // Status 0: the connection was refused.
      assert.ok(await until(async () => (await get(port, site())).status === 0));
      client.socket.write(whole.subarray(-20));
      assert.equal((await client.answer(1)).status, 200);
      assert.deepEqual(await ended, [0, null]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('comes by itself for all at once when there are no requests', async () => {
    const resident = await start([...THREE, '--idle', '3']);
    const workers = childrenOf(resident.pid);
    const client = new FastCgiClient(resident.socket);
    const whole = formatRequest(1, putVariables(site(), 3, 'slow'), Buffer.from('out'));
    client.socket.write(whole.subarray(0, -20));
    await sleep(5_000);
    assert.deepEqual(childrenOf(resident.pid), workers, 'who has nothing to do stays while another is at work');
    client.socket.write(whole.subarray(-20));
    assert.equal((await client.answer(1)).status, 200);
    assert.equal(await resident.ended, 0);
    assert.equal(existsSync(resident.socket), false);
  });

  it('follows when the primary is killed, after the open requests are answered', async () => {
    const resident = await start();
    const workers = childrenOf(resident.pid);
    addCommand(site(), 'client1', 'large', Buffer.alloc(4_000_000, 'x'));
    const body = Buffer.alloc(200_000, 'x');
    const whole = formatRequest(1, putVariables(site(), body.length, 'orphaned'), body);
    const uploading = new FastCgiClient(resident.socket);
    uploading.socket.write(whole.subarray(0, 100_000));
    const reading = new FastCgiClient(resident.socket);
    reading.socket.write(formatRequest(1, getVariables(site(), 'large'), Buffer.alloc(0)));
    assert.ok(await reading.next());
    reading.socket.pause();
    process.kill(resident.pid, 'SIGKILL');
    await resident.ended;
    await sleep(200);
    uploading.socket.write(whole.subarray(100_000));
    assert.equal((await uploading.answer(1)).status, 200);
    assert.equal(outputOf(site(), 'orphaned').length, body.length);
    reading.socket.resume();
    assert.equal((await reading.answer(1)).protocolStatus, 0);
    assert.ok(await until(() => workers.every((pid) => !isAlive(pid))), 'they end');
  });

  it('is not caused by SIGHUP: new workers replace them, and no request is lost', async () => {
    const resident = await start();
    const before = childrenOf(resident.pid);
    let isOver = false;
    const statuses: number[] = [];
    const ask = async (): Promise<void> => {
      while (!isOver) statuses.push((await get(resident.socket, site())).status);
    };
    const asking = [ask(), ask(), ask()];
    process.kill(resident.pid, 'SIGHUP');
    assert.ok(await until(() => before.every((pid) => !isAlive(pid))), 'the old ones stay');
    isOver = true;
    await Promise.all(asking);
    assert.deepEqual([...new Set(statuses)], [200]);
    assert.equal(childrenOf(resident.pid).filter(isAlive).length, 3);
    assert.match(resident.complaints(), /SIGHUP: replacing all processes\n/);
    assert.doesNotMatch(resident.complaints(), /ended with/);
    assert.equal(await resident.stop(), 0);
    assert.match(resident.complaints(), /nph-webjob: ends: SIGTERM\n/);
  });

  it('is not caused by killing all at once: clients wait for the next ones', async () => {
    const resident = await start();
    const workers = childrenOf(resident.pid);
    // The primary starts no worker while it is stopped.
    process.kill(resident.pid, 'SIGSTOP');
    for (const pid of workers) process.kill(pid, 'SIGKILL');
    assert.ok(await until(() => !workers.some(isAlive)));
    const asking = [get(resident.socket, site()), get(resident.socket, site())];
    await sleep(200);
    process.kill(resident.pid, 'SIGCONT');
    const answers = await Promise.all(asking);
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    );
    await resident.stop();
  });

  it('is not caused by killing new workers before one listens', async () => {
    const socket = join(site().root, 'run', 'early');
    const script = join(site().cgiDirectory, 'nph-webjob.cgi');
    const words = [script, '--listen', socket, '--processes', '2'];
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'ignore', 'pipe'], env: {} });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    const pid = child.pid ?? 0;
    assert.ok(await until(() => childrenOf(pid).length === 2));
    for (const worker of childrenOf(pid)) process.kill(worker, 'SIGKILL');
    assert.ok(await until(() => existsSync(socket)), said);
    assert.equal((await get(socket, site())).status, 200);
    assert.equal(said.match(/ended with SIGKILL, another one replaces it\n/g)?.length, 2, said);
    child.kill('SIGTERM');
    await new Promise((resolve) => child.on('exit', resolve));
  });

  it('follows when the primary is killed, and the next one takes the path', async () => {
    const resident = await start();
    const workers = childrenOf(resident.pid);
    process.kill(resident.pid, 'SIGKILL');
    assert.ok(await until(() => workers.every((pid) => !isAlive(pid))), 'they end');
    const next = await start();
    assert.equal((await put(next.socket, site(), Buffer.from('after'), 'after')).status, 200);
    for (const pid of childrenOf(next.pid)) process.kill(pid, 'SIGKILL');
    assert.ok(await until(async () => (await get(next.socket, site()).catch(() => undefined))?.status === 200));
  });
});

/**
 * Acts as systemd: holds a socket and passes it as descriptor 3 to a program, which it restarts
 * after a failure.
 */
const ACTIVATE = `
use Socket; use POSIX ();
my ($path, @command) = @ARGV;
$^F = 10;
my $socket;
socket($socket, PF_UNIX, SOCK_STREAM, 0) && bind($socket, sockaddr_un("$path.new")) && listen($socket, 64) or die "$path: $!";
chmod 0666, "$path.new";
# Whoever sees its name can connect.
rename "$path.new", $path or die;
for my $life (1 .. 3) {
  my $child = fork;
  if (!$child) {
    POSIX::dup2(fileno($socket), 3) or die;
    $ENV{LISTEN_FDS} = 1; $ENV{LISTEN_PID} = $$;
    exec @command;
  }
  waitpid($child, 0);
  print STDOUT "$child $?\\n";
  exit if $? == 0;
}
`;

describe('a socket from systemd', () => {
  const { site } = useResidentSite({}, THREE);

  it('serves several workers, even after all of them were killed', async () => {
    const socket = join(site().root, 'passed');
    const script = join(site().cgiDirectory, 'nph-webjob.cgi');
    const words = ['-e', ACTIVATE, socket, process.execPath, script, '--processes', '2', '--idle', '3'];
    const child = spawn('perl', words, { stdio: ['ignore', 'pipe', 'ignore'], env: {} });
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    const status = async (): Promise<number | undefined> => (await get(socket, site()).catch(() => undefined))?.status;
    assert.ok(await until(() => existsSync(socket)));
    assert.equal(await status(), 200);
    const [primary = 0] = childrenOf(child.pid ?? 0);
    const workers = childrenOf(primary);
    for (const pid of workers) process.kill(pid, 'SIGKILL');
    // A worker that is about to die may take the request with it.
    assert.ok(await until(() => !workers.some(isAlive)));
    assert.equal(await status(), 200);
    await ended;
    assert.equal(said, `${primary} 0\n`, 'the primary ends when nobody asks, and not before');
    assert.equal(existsSync(socket), true);
  });
});

describe('an impossible start of several workers', () => {
  const { site } = useResidentSite({}, THREE);

  it('is reported once with its reason', async () => {
    for (const [args, words] of [
      [['--processes', '0', '--listen', '/tmp/x'], /^nph-webjob: error: --processes must be a number from 1 to 99\n$/],
      [['--processes', '2'], /^nph-webjob: error: --processes works only with --listen and systemd/],
      [['--processes', '2', '--listen', site().propertiesFile], /this path is taken by something that is not a socket/],
      [['--processes', '2', '--listen', join(site().root, 'none', 'socket')], /ENOENT|EACCES/],
    ] as const) {
      const script = join(site().cgiDirectory, 'nph-webjob.cgi');
      const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'ignore', 'pipe'], env: {} });
      let said = '';
      child.stderr.on('data', (chunk: Buffer) => {
        said += chunk;
      });
      assert.equal(await new Promise((resolve) => child.on('exit', resolve)), 1, said);
      assert.match(said, words);
    }
  });
});
