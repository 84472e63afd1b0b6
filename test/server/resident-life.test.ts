// The life of a persistent worker: numbers that never repeat, settings that are never half-read,
// and ends in which no request is lost.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chownSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findJobIdParts, formatJobId } from 'webjob-protocol';
import { keepSettings } from '../../cgi/kept-settings.ts';
import { groupPaths } from '../../cgi/locker/index.ts';
import { createSequence } from '../../cgi/sequence.ts';
import type { Configuration } from '../../cgi/settings.ts';
import { configure } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { FastCgiClient, formatRequest } from '../support/fastcgi-client.ts';
import { get, getVariables, put, putVariables } from '../support/resident-requests.ts';
import { useResidentSite } from '../support/resident-site.ts';
import { findWebUser, readLog } from '../support/tree.ts';

const NOTHING = Buffer.alloc(0);
const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=client1&FILENAME=host.sh';

async function until(isTrue: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(10)) if (await isTrue()) return true;
  return false;
}

describe('request numbers', () => {
  it('never repeat, whatever the clock does', () => {
    const start = 1_085_355_126_500;
    const next = createSequence(723, start);
    const second = Math.floor(start / 1000);
    const given = new Set<string>();
    const clock = [0, 0, 0, 1, 1, 2, 0, 0, 1, 2, 2, 3, 3, 3, -5, 3, 4, 4, 3, 4, 5];
    let count = 0;
    for (const offset of clock) {
      for (let turn = 0; turn < 100; turn += 1, count += 1) given.add(`${second + offset} ${next(second + offset)}`);
    }
    assert.equal(given.size, count);
  });

  it('differ between processes, scripts, and an earlier process with the same id', () => {
    const start = 1_085_355_126_000;
    const second = start / 1000;
    const given = new Set<number>();
    const [first, other] = [createSequence(723, start), createSequence(4_194_303, start)];
    for (let turn = 0; turn < 10_000; turn += 1) given.add(first(second)).add(other(second));
    for (let pid = 1; pid < 4_194_304; pid += 997) given.add(pid);
    const scripts = Math.ceil(4_194_303 / 997);
    // Started 20 ms after the first: 10,000 requests take longer.
    const again = createSequence(723, start + 20);
    for (let turn = 0; turn < 10_000; turn += 1) given.add(again(second));
    assert.equal(given.size, 30_000 + scripts);
  });

  it('make job ids that can be split again', () => {
    const next = createSequence(4_194_303, 1_085_355_126_999);
    const id = { serverId: 'server_1', epochSeconds: 1_085_355_126, sequence: next(1_085_355_126) };
    assert.deepEqual(findJobIdParts(formatJobId(id)), id);
  });
});

describe('two persistent workers and scripts on one site', () => {
  const { site, start } = useResidentSite();

  it('issue no id and store no name twice at the same time', async () => {
    const first = await start();
    // The second takes the path over; the first is still reached by open connections.
    const kept = Array.from({ length: 4 }, () => new FastCgiClient(first.socket));
    for (const client of kept) {
      client.socket.write(formatRequest(1, getVariables(site()), NOTHING, true));
      assert.equal((await client.answer(1)).status, 200);
    }
    const second = await start();
    const body = Buffer.from('output');
    const viaFirst = async (client: FastCgiClient): Promise<string[]> => {
      const ids: string[] = [];
      for (let turn = 0; turn < 150 && !client.isClosed; turn += 1) {
        client.socket.write(formatRequest(1, getVariables(site()), NOTHING, true));
        ids.push((await client.answer(1)).headers.get('job-id') ?? '');
      }
      return ids.filter((id) => id !== '');
    };
    const viaSecond = async (): Promise<string[]> => {
      const ids: string[] = [];
      for (let turn = 0; turn < 150; turn += 1) {
        ids.push((await get(second.socket, site())).headers.get('job-id') ?? '');
        assert.equal((await put(second.socket, site(), body)).status, 200);
      }
      return ids;
    };
    const viaScript = async (): Promise<string[]> => {
      const raw = Buffer.from(
        `GET /webjob/nph-webjob.cgi?${QUERY} HTTP/1.1\r\nAuthorization: Basic ${btoa('client1:foo')}\r\nContent-Length: 0\r\n\r\n`,
      );
      const { stdout } = await runBare(raw, {
        settingsFile: site().propertiesFile,
        user: findWebUser(),
        timeLimitSeconds: 60,
      });
      return [/^Job-Id: (.*)$/m.exec(stdout.toString().replaceAll('\r', ''))?.[1] ?? ''];
    };
    const all = (await Promise.all([...kept.map(viaFirst), viaSecond(), viaSecond(), viaScript(), viaScript()])).flat();
    for (const client of kept) client.close();
    assert.ok(all.length >= 302, `${all.length} ids`);
    assert.ok(
      all.every((id) => findJobIdParts(id)),
      all.join(' '),
    );
    assert.equal(new Set(all).size, all.length);
    assert.equal(readdirSync(site().incoming).filter((name) => name.endsWith('.rdy')).length, 300);
    // No client can find the first any longer, so it ends by itself.
    assert.equal(await first.ended, 0);
    assert.equal((await get(second.socket, site())).status, 200);
  });
});

describe('the settings of a persistent worker', () => {
  const { site, start } = useResidentSite();

  it('are read again when they changed, but never while they are being written', async () => {
    const { socket } = await start();
    const file = site().propertiesFile;
    const whole = readFileSync(file, 'utf8');
    assert.equal((await get(socket, site())).status, 200);
    // Half of a file: without BaseDirectory, all paths would be others.
    for (const half of ['', whole.slice(0, 20), `${whole}EnableGetService=N\n`, `${whole}EnableGet`]) {
      writeFileSync(file, half);
      // The future time keeps the file recent on a machine of any speed: each file is checked once.
      const soon = new Date(Date.now() + 60_000);
      utimesSync(file, soon, soon);
      assert.equal((await get(socket, site())).status, 200, JSON.stringify(half));
    }
    writeFileSync(file, `${whole}EnableGetService=N\n`);
    assert.ok(await until(async () => (await get(socket, site())).status === 553), 'the new settings hold');
    // Unchanged for long: it takes effect at once.
    writeFileSync(file, whole);
    utimesSync(file, new Date('2004-05-23'), new Date('2004-05-23'));
    assert.equal((await get(socket, site())).status, 200);
  });

  it('stay those from before when they change while they are read', () => {
    const file = join(site().root, 'changing.cfg');
    const write = (text: string): void => {
      writeFileSync(file, text);
      utimesSync(file, new Date('2004-05-23'), new Date('2004-05-23'));
    };
    const readAndChange = (): string => {
      const text = readFileSync(file, 'utf8');
      if (text === 'half') writeFileSync(file, 'half and half');
      return text;
    };
    const read = keepSettings(() => readAndChange() as unknown as Configuration, []);
    write('good');
    assert.equal(read(file), 'good');
    write('half');
    assert.deepEqual([read(file), read(file)], ['good', 'good']);
    write('whole');
    assert.equal(read(file), 'whole');
  });
});

describe('the end of a persistent worker', () => {
  const { site, start } = useResidentSite({ PutNameFormat: '%jid' });

  it('waits after SIGTERM for the requests that have begun or are about to', async () => {
    const resident = await start();
    const [uploading, silent, kept] = [0, 1, 2].map(() => new FastCgiClient(resident.socket)) as [
      FastCgiClient,
      FastCgiClient,
      FastCgiClient,
    ];
    const body = Buffer.alloc(200_000, 'x');
    const whole = formatRequest(1, putVariables(site(), body.length, 'late'), body, true);
    uploading.socket.write(whole.subarray(0, 100_000));
    kept.socket.write(formatRequest(1, getVariables(site()), NOTHING, true));
    assert.equal((await kept.answer(1)).status, 200);
    const exit = resident.stop();
    assert.equal(await kept.next(), undefined, 'one that is only kept ends');
    await sleep(100);
    silent.socket.write(formatRequest(1, getVariables(site()), NOTHING, true));
    assert.equal((await silent.answer(1)).status, 200);
    uploading.socket.write(whole.subarray(100_000));
    assert.equal((await uploading.answer(1)).status, 200);
    assert.equal(await exit, 0);
    assert.equal(existsSync(resident.socket), false);
    assert.ok(existsSync(join(site().incoming, 'late.rdy')));
  });

  it('loses no client when the next one starts on the same path', async () => {
    let current = await start();
    let isOver = false;
    const statuses: number[] = [];
    const ask = async (): Promise<void> => {
      while (!isOver) statuses.push((await get(current.socket, site())).status);
    };
    const asking = [ask(), ask(), ask()];
    for (let turn = 0; turn < 3; turn += 1) {
      const next = await start();
      await sleep(50);
      const before = current;
      current = next;
      assert.equal(await before.stop(), 0);
    }
    isOver = true;
    await Promise.all(asking);
    assert.deepEqual([...new Set(statuses)], [200]);
    assert.ok(statuses.length > 20, `${statuses.length} requests`);
    await current.stop();
  });

  it('comes by itself when there are no requests', async () => {
    const resident = await start(['--idle', '3']);
    assert.equal((await get(resident.socket, site())).status, 200);
    assert.equal(await resident.ended, 0);
    assert.equal(existsSync(resident.socket), false);
  });

  it('leaves no .rdy beside incomplete streams after SIGKILL amid uploads, and nothing else', async () => {
    const SIZE = 400_000;
    const body = Buffer.alloc(SIZE, 'x');
    const answered = new Set<string>();
    for (let life = 0; life < 5; life += 1) {
      const resident = await start();
      let isDead = false;
      const upload = async (lane: number): Promise<void> => {
        for (let turn = 0; !isDead; turn += 1) {
          const name = `kill_${life}_${lane}_${turn}`;
          if ((await put(resident.socket, site(), body, name)).status === 200) answered.add(name);
        }
      };
      const uploading = [0, 1, 2].map(upload);
      const enough = answered.size + 2;
      assert.ok(await until(() => answered.size >= enough));
      await sleep(7 * life);
      process.kill(resident.pid, 'SIGKILL');
      assert.equal(await resident.ended, 'SIGKILL');
      isDead = true;
      await Promise.all(uploading);
    }
    const files = readdirSync(site().incoming).filter((name) => name.startsWith('kill_') || name.startsWith('.'));
    assert.deepEqual(
      files.filter((name) => !/^kill_\d_\d_\d+\.(?:out|err|env|lck|rdy)$/.test(name)),
      [],
    );
    for (const name of files.filter((file) => file.endsWith('.rdy'))) {
      const paths = groupPaths(join(site().incoming, name.replace('.rdy', '')));
      assert.deepEqual(
        [paths.out, paths.err, paths.env].map((path) => statSync(path).size),
        [SIZE, 0, 0],
        name,
      );
    }
    for (const name of answered) assert.ok(files.includes(`${name}.rdy`), name);
    // The dead one's socket is not an obstacle.
    const next = await start();
    assert.equal((await put(next.socket, site(), body, 'after_kill')).status, 200);
  });
});

describe('a trigger', () => {
  const { site, start } = useResidentSite();

  it('runs after the answer, and outlives the process', async () => {
    const log = join(site().base, 'logfiles', 'nph-webjob-trigger.log');
    writeFileSync(log, '');
    const user = findWebUser();
    if (user) chownSync(log, user.uid, user.gid);
    configure(site(), { PutTriggerEnable: 'Y', PutTriggerCommandLine: 'sleep 1; cp %out %out.copy' });
    const resident = await start();
    assert.equal((await put(resident.socket, site(), Buffer.from('seen'))).status, 200);
    assert.equal(await resident.stop(), 0);
    assert.ok(await until(() => / 0 -- ended\n$/.test(readFileSync(log, 'utf8'))), readFileSync(log, 'utf8'));
    const copies = readdirSync(site().incoming).filter((name) => name.endsWith('.copy'));
    assert.deepEqual(
      copies.map((name) => readFileSync(join(site().incoming, name), 'utf8')),
      ['seen'],
    );
    assert.match(readLog(site().base).join('\n'), / PUT client1 host.sh 4 0 \d+ 200 -- Success/);
  });
});

/** Acts as systemd: descriptor 3 is a listening socket, and the environment says so. */
const ACTIVATE = `
use Socket; use POSIX ();
my ($path, @command) = @ARGV;
$^F = 10;
my $socket;
socket($socket, PF_UNIX, SOCK_STREAM, 0) && bind($socket, sockaddr_un("$path.new")) && listen($socket, 64) or die "$path: $!";
chmod 0666, "$path.new";
# Whoever sees its name can connect.
rename "$path.new", $path or die;
POSIX::dup2(fileno($socket), 3) or die;
$ENV{LISTEN_FDS} = 1; $ENV{LISTEN_PID} = $$;
exec @command;
`;

describe('a socket from systemd', () => {
  const { site } = useResidentSite();

  it('is served, and stays when the process ends', async () => {
    const socket = join(site().root, 'passed');
    const words = [
      '-e',
      ACTIVATE,
      socket,
      process.execPath,
      join(site().cgiDirectory, 'nph-webjob.cgi'),
      '--idle',
      '1',
    ];
    const child = spawn('perl', words, { stdio: ['ignore', 'ignore', 'inherit'], env: {} });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    assert.ok(await until(() => existsSync(socket)));
    assert.equal((await get(socket, site())).status, 200);
    assert.equal(await ended, 0);
    assert.equal(existsSync(socket), true);
  });
});

describe('a start that is impossible', () => {
  const { site, start } = useResidentSite();
  const run = (script: string, ...args: string[]) => {
    const { status, stderr } = spawnSync(process.execPath, [script, ...args], {
      env: {},
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 60_000,
    });
    return [status, stderr.toString()] as const;
  };

  it('is reported with its reason', async () => {
    const script = join(site().cgiDirectory, 'nph-webjob.cgi');
    const file = join(site().root, 'file');
    writeFileSync(file, 'mine');
    for (const [args, words] of [
      [[], /^nph-webjob: error: httpd starts this script; started by hand, it needs a socket, as in --listen PATH/],
      [['--listen', 'relative'], /--listen: neither a port nor an absolute path/],
      [['--listen', '70000'], /--listen: neither/],
      [['--listen', `/${'x'.repeat(100)}`], /--listen: a path of more than 95 bytes/],
      [['--listen', file], /this path is taken by something that is not a socket/],
      [['--listen', join(site().root, 'none', 'socket')], /EACCES|ENOENT/],
      [['--idle', 'soon'], /--idle must be a number of seconds/],
      [['--other'], /Unknown option '--other'/],
    ] as const) {
      const [status, said] = run(script, ...args);
      assert.deepEqual([status, words.test(said)], [1, true], said);
    }
    assert.equal(readFileSync(file, 'utf8'), 'mine');
    const alone = join(site().root, 'nph-alone.cgi');
    copyFileSync(script, alone);
    assert.match(
      run(alone)[1],
      /as a persistent worker, it needs \.\/nph-webjob-resident\.cjs beside it: MODULE_NOT_FOUND/,
    );
  });

  it('is not caused by --help, which prints the options', () => {
    const script = join(site().cgiDirectory, 'nph-webjob.cgi');
    for (const option of ['--help', '-h']) {
      const { status, stdout } = spawnSync(process.execPath, [script, option], { env: {}, encoding: 'utf8' });
      assert.equal(status, 0);
      assert.match(stdout, /^Usage: nph-webjob\.cgi --listen PLACE .*\n[\s\S]*--processes N[\s\S]*--idle SECONDS/);
    }
  });

  it('is not caused by a socket, which only its owner can use', async () => {
    const resident = await start();
    assert.equal(statSync(resident.socket).mode & 0o777, 0o600, "a socket is its owner's alone");
  });
});
