// webjobctl alert at a site whose jobs come from real requests, with real receivers: mail servers,
// a sendmail, programs, and HTTP servers that fail, hang and redirect.
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { custodyPath } from 'webjob-locker';
import {
  type HttpSink,
  hang,
  type MailSink,
  type Received,
  startHttpSink,
  startMailSink,
  status,
} from '../support/alert-sink.ts';
import { type LockerSite, makeLockerSite, nextSecond, WEBJOBCTL } from '../support/locker-site.ts';

let its: LockerSite;
let folder: string;
let sink: HttpSink;

before(async () => {
  its = makeLockerSite({ RequireUser: 'N', BatchCommand: 'batch' });
  folder = join(its.site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'groups'), 'web = web-1 web-2\n');
});
after(() => its.close());
beforeEach(async () => {
  sink = await startHttpSink();
});
afterEach(async () => {
  await sink.close();
  rmSync(join(folder, 'alert.state'), { force: true });
});

const rulesOf = (...lines: string[]): void => writeFileSync(join(folder, 'expect'), `${lines.join('\n')}\n`);
const webhook = (): string => `tell webhook ${sink.origin}/hook`;
/** A problem that persists while this line is in the rules. */
const SILENT = 'expect nobody none.sh every=1h';

interface Letter {
  id: string;
  attempt: number;
  events: { event: string; problem: string; what: string; where: string }[];
}
const letters = (): Letter[] =>
  sink.received.filter(({ path }) => path === '/hook').map(({ body }) => JSON.parse(body));
const events = (): string[] =>
  letters().flatMap((one) => one.events.map(({ event, problem }) => `${event} ${problem}`));

/** Runs a command that must end with this code; returns its output. */
async function alert(code: number, ...words: string[]): Promise<string> {
  const { exitCode, text, stderr } = await its.webjobctl('alert', ...words);
  assert.equal(exitCode, code, `${text}${stderr}`);
  return `${text}${stderr}`;
}

/** The exit code of a run with additional environment variables. */
async function alertAlone(environment: Record<string, string>): Promise<unknown> {
  const words = [WEBJOBCTL, '--config', its.site.propertiesFile, 'alert'];
  return await new Promise((resolve) => {
    const env = { ...process.env, ...environment };
    execFile(process.execPath, words, { env }, (error) => resolve(error?.code ?? 0));
  });
}

/** A self-signed certificate for twenty days. */
function makeCertificate(key: string, certificate: string, ...words: string[]): void {
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '20', '-subj', '/CN=x'];
  execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', certificate, ...words], {
    stdio: 'ignore',
  });
}

/** The findings, by key. */
async function findKeys(): Promise<string[]> {
  rmSync(join(folder, 'alert.state'), { force: true });
  const rows = await its.readJson<{ event: string; problem: string }>('alert', '--dry-run');
  return rows.flatMap(({ event, problem }) => (event === 'begun' ? [problem] : [])).sort();
}

describe('webjobctl alert', () => {
  it('reports the beginning and the end of a problem once each, and records both', async () => {
    rulesOf(SILENT, webhook());
    assert.match(await alert(1), /^begun {4}nobody: none\.sh: no result within 1h/);
    assert.equal(await alert(1), '');
    rulesOf(webhook());
    assert.match(await alert(0), /^ended {4}nobody: .* \(began 2/);
    await alert(0);
    assert.deepEqual(events(), ['begun expect nobody none.sh late', 'ended expect nobody none.sh late']);
    const record = readFileSync(custodyPath(join(its.site.base, 'logfiles'), 'webjobctl'), 'utf8');
    assert.match(record, /"event":"alert","begun":\["expect nobody none\.sh late"\],"ended":\[\]/);
    assert.match(record, /"event":"alert","begun":\[\],"ended":\["expect nobody none\.sh late"\]/);
  });

  it('does not run twice at the same time', async () => {
    rulesOf(SILENT, webhook());
    let isHeld: (() => void) | undefined;
    sink.answers.push((response) => {
      isHeld = () => response.writeHead(204).end();
    });
    // In a process of its own, because the lock names a process.
    const first = alertAlone({});
    while (!isHeld) await sleep(20);
    assert.match(await alert(4), /another webjobctl is running on this site/);
    isHeld();
    assert.equal(await first, 1);
    assert.equal(letters().length, 1);
  });

  it('prints with --dry-run what it would send, and sends and remembers nothing', async () => {
    rulesOf(SILENT, webhook());
    const text = await alert(1, '--dry-run');
    assert.match(text, /^begun {4}nobody: .*\nto send {2}webhook 127\.0\.0\.1:\d+ [0-9a-f]{8}: 1 event\n$/);
    assert.deepEqual([sink.received.length, existsSync(join(folder, 'alert.state'))], [0, false]);
    await alert(1);
    assert.match(await alert(1, '--dry-run'), /^goes on {2}nobody: .* \(began [^)]*\)\n$/);
  });

  it('requires rules, and names a wrong line', async () => {
    rmSync(join(folder, 'expect'));
    assert.match(await alert(4), /there is no .*\/expect/);
    rulesOf('# good', 'expect web');
    assert.match(await alert(4), /expect cannot be read: line 2: nothing is not a command/);
    assert.match(await alert(4, '--rules', '/dev/null/none'), /there is no \/dev\/null\/none/);
    writeFileSync(join(its.site.root, 'others'), `${SILENT}\n`);
    assert.match(await alert(1, '--rules', join(its.site.root, 'others')), /^begun/);
  });

  it('sends nothing in quiet hours, and everything afterwards', async () => {
    const minutes = (offset: number): string => new Date(Date.now() + offset * 60_000).toTimeString().slice(0, 5);
    rulesOf(SILENT, webhook(), `quiet ${minutes(-2)}-${minutes(5)}`);
    await alert(1);
    assert.match(await alert(1, '--dry-run'), /quiet {4}1 event until the quiet hours end/);
    rulesOf(webhook(), `quiet ${minutes(-2)}-${minutes(5)}`);
    await alert(0);
    assert.equal(sink.received.length, 0);
    rulesOf(webhook(), `quiet ${minutes(5)}-${minutes(7)}`);
    await alert(0);
    assert.deepEqual(
      letters().map((one) => one.events.map(({ event }) => event)),
      [['begun', 'ended']],
    );
  });

  it('sends reminders', async () => {
    rulesOf(SILENT, webhook(), 'remind 1s');
    await alert(1);
    await sleep(1100);
    await alert(1);
    assert.deepEqual(events(), ['begun expect nobody none.sh late', 'goes on expect nobody none.sh late']);
  });

  it('requests the ping URL only while nothing is wrong', async () => {
    const pings = (): number => sink.received.filter(({ path }) => path === '/ping').length;
    rulesOf(SILENT, `ping ${sink.origin}/ping`);
    await alert(1);
    assert.equal(pings(), 0);
    rulesOf(`ping ${sink.origin}/ping`);
    await alert(0);
    assert.equal(pings(), 1);
    rulesOf(webhook(), `ping ${sink.origin}/ping`, 'retry 1h');
    rulesOf(SILENT, webhook());
    sink.answers.push(status(500), status(500));
    await alert(4);
    rulesOf(webhook(), `ping ${sink.origin}/ping`, 'retry 1h');
    await alert(4);
    assert.equal(pings(), 1, 'a message that waits is not well');
  });

  it('ends with 4 when the ping fails', async () => {
    rulesOf('ping http://127.0.0.1:1/secret');
    assert.match(await alert(4), /error: 127\.0\.0\.1:1: /);
  });

  it('sends a test over every channel', async () => {
    rulesOf(webhook(), 'tell command /bin/false');
    assert.match(
      await alert(4, '--test'),
      /^sent {5}webhook .*\n.*not sent, command \/bin\/false: \/bin\/false ended with 1/,
    );
    assert.deepEqual(events(), ['begun test']);
    assert.equal(existsSync(join(folder, 'alert.state')), false);
    rulesOf(SILENT);
    assert.match(await alert(1, '--test'), /no line that begins with tell/);
  });
});

describe('a rule', () => {
  before(async () => {
    for (const clientId of ['web-1', 'web-2', 'db-1']) {
      await its.run({ clientId, fileName: 'list.sh', out: 'pid 1\nsame\n' });
      await nextSecond();
      const record = {
        KidStatus: clientId === 'db-1' ? '3' : '0',
        RunEpoch: '2026-11-24 06:00:00 UTC (1795500000.000000)',
        PutEpoch: '2026-11-24 06:02:00 UTC (1795500120.000000)',
      };
      await its.run({
        clientId,
        fileName: 'list.sh',
        out: `pid 2\n${clientId === 'web-2' ? 'other' : 'same'}\n`,
        record,
      });
    }
  });

  const rows: [rule: string, keys: string[]][] = [
    ['expect web list.sh every=1h', []],
    ['expect web,x list.sh every=1h', []],
    ['expect web-? list.sh every=1h grace=1m', []],
    ['expect web-9 list.sh every=1h', ['expect web-9 list.sh late']],
    ['expect web-1 none.sh every=1h', ['expect web-1 none.sh late']],
    ['expect web * every=1h', []],
    ['expect web-9 * every=1h', ['expect web-9 * late']],
    ['expect db-1 list.sh exit=0', ['expect db-1 list.sh exit']],
    ['expect db-1 list.sh exit=0,3', []],
    ['expect web list.sh exit=0', []],
    ['expect web list.sh unchanged', ['expect web-1 list.sh output', 'expect web-2 list.sh output']],
    ['expect web list.sh unchanged ignore="^pid \\d+$"', ['expect web-2 list.sh output']],
    ['expect web list.sh unchanged stream=err', []],
    ['expect web list.sh unchanged-since=2026-01-01', []],
    ['expect web list.sh golden=none', ['expect web-1 list.sh output', 'expect web-2 list.sh output']],
    ['expect web list.sh longest=2m', []],
    ['expect web list.sh longest=119s', ['expect web-1 list.sh duration', 'expect web-2 list.sh duration']],
    ['warn disk 100%', ['room disk']],
    ['warn disk 1k', []],
    ['warn inodes 100%', ['room inodes']],
    ['warn inodes 1', []],
    ['warn checkpoint 1d', ['checkpoint server_1', 'checkpoint webjobctl']],
    ['warn rollout', []],
    ['warn verify 1d', []],
  ];
  for (const [rule, keys] of rows)
    it(`finds with ${rule}: ${keys.length === 0 ? 'nothing' : keys.join(', ')}`, async () => {
      if (rule.includes(',x')) {
        rulesOf(rule);
        assert.match(await alert(4), /web,x is not a client id/);
        return;
      }
      rulesOf(rule);
      const shorten = (key: string): string => key.replace(/^(room \w+) .*/, '$1');
      assert.deepEqual([...new Set((await findKeys()).map(shorten))], keys);
    });

  it('compares output with a golden job and with that of a day', async () => {
    const jobs = await its.readJson<{ jobId: string; client: string }>(
      'jobs',
      '--command',
      'list.sh',
      '--client',
      'web-?',
    );
    const golden = jobs.filter(({ client }) => client === 'web-1').at(-1)?.jobId;
    rulesOf(`expect web list.sh golden=${golden}`);
    assert.deepEqual(await findKeys(), ['expect web-2 list.sh output']);
    const minute = new Date(Date.now() + 60_000).toISOString().slice(0, 19);
    rulesOf(`expect web list.sh unchanged-since=${minute}Z`);
    assert.deepEqual(await findKeys(), []);
  });

  it('reports an old result', async () => {
    rulesOf('expect web-1 list.sh every=1s');
    await nextSecond();
    await nextSecond();
    assert.match(await alert(1), /web-1: list\.sh: no result within 1s: the last one was at 2/);
  });

  it('reports an old checkpoint, but not a new one', async () => {
    const path = join(folder, 'custody-checkpoints.server_1');
    rulesOf('warn checkpoint 1d');
    writeFileSync(path, 'x');
    assert.deepEqual(await findKeys(), ['checkpoint webjobctl']);
    utimesSync(path, 1, 1);
    assert.deepEqual(await findKeys(), ['checkpoint server_1', 'checkpoint webjobctl']);
    rmSync(path);
  });

  it('reports a stopped rollout, but not a paused one', async () => {
    rulesOf('warn rollout');
    mkdirSync(join(its.site.base, 'dynamic'), { recursive: true });
    const assign = async (): Promise<string> =>
      (await its.readJson<{ assignment: string }>('assign', 'host.sh', '--to', 'web', '--stages', '50%,100%'))[0]
        ?.assignment ?? '';
    const [paused, stopped] = [await assign(), await assign()];
    assert.equal((await its.webjobctl('assign', 'pause', paused)).exitCode, 0);
    assert.deepEqual(await findKeys(), []);
    assert.equal(
      (await its.webjobctl('assign', 'pause', stopped, '--reason', 'stopped: 1 of 1 results are bad')).exitCode,
      0,
    );
    assert.deepEqual(await findKeys(), [`rollout ${stopped}`]);
    await its.webjobctl('assign', 'resume', stopped);
    assert.deepEqual(await findKeys(), []);
  });

  it('verifies when it is due, and keeps its findings until the next time', async () => {
    const [job] = await its.readJson<{ group: string }>('jobs', '--command', 'list.sh', '--client', 'db-1');
    const path = join(its.site.incoming, `${job?.group}.out`);
    const good = readFileSync(path);
    writeFileSync(path, 'changed\n');
    rulesOf('warn verify 1h', webhook());
    await alert(1);
    assert.ok(
      events().some((event) => /^begun verify \S+ db-1/.test(event)),
      events().join(),
    );
    const told = events().length;
    writeFileSync(path, good);
    await alert(1);
    assert.equal(events().length, told, 'not again within the hour');
    const moveClock = (milliseconds: number): void => {
      const state = JSON.parse(readFileSync(join(folder, 'alert.state'), 'utf8'));
      state.verified.at -= milliseconds;
      writeFileSync(join(folder, 'alert.state'), JSON.stringify(state));
    };
    const kinds = (): (string | undefined)[] =>
      events()
        .slice(told)
        .map((event) => event.split(' ')[0]);
    moveClock(-86_400_000);
    await alert(0);
    assert.deepEqual(kinds(), Array(told).fill('ended'), 'after the clock was set back');
    writeFileSync(path, 'changed\n');
    rulesOf('warn verify 1h since=1d', webhook());
    moveClock(3_600_000);
    await alert(1);
    writeFileSync(path, good);
    moveClock(3_600_000);
    await alert(0);
    assert.deepEqual(
      kinds(),
      ['ended', 'begun', 'ended'].flatMap((kind) => Array(told).fill(kind)),
    );
  });

  it('reports a failed check, and keeps the earlier findings', async () => {
    rulesOf(SILENT, webhook());
    await alert(1);
    writeFileSync(join(folder, 'groups'), 'web = /\n');
    await alert(1);
    writeFileSync(join(folder, 'groups'), 'web = web-1 web-2\n');
    await alert(1);
    assert.deepEqual(events(), ['begun expect nobody none.sh late', 'begun check expect', 'ended check expect']);
  });
});

describe('a webhook', () => {
  it('is signed according to Standard Webhooks', async () => {
    const key = Buffer.from('of the tests');
    const file = join(its.site.root, 'secret');
    for (const [secret, bytes] of [
      [`whsec_${key.toString('base64')}`, key],
      ['of the tests', key],
    ] as const) {
      writeFileSync(file, `${secret}\n`, { mode: 0o600 });
      rulesOf(SILENT, `${webhook()} secret-file=${file}`);
      await alert(1);
      rmSync(join(folder, 'alert.state'));
      const { headers = {}, body = '' } = sink.received.at(-1) ?? ({} as Partial<Received>);
      const [id, timestamp] = [headers['webhook-id'], headers['webhook-timestamp']];
      const digest = createHmac('sha256', bytes).update(`${id}.${timestamp}.${body}`).digest('base64');
      assert.equal(headers['webhook-signature'], `v1,${digest}`);
      assert.ok(Math.abs(Date.now() / 1000 - Number(timestamp)) < 60);
      assert.deepEqual([id, headers['idempotency-key']], [`msg_${JSON.parse(body).id}`, `"${id}"`]);
    }
    writeFileSync(file, '\n');
    assert.match(await alert(4), /secret is empty/);
    rmSync(file);
  });

  it('is retried with the same id at growing intervals, and no message is lost', async () => {
    rulesOf(SILENT, webhook(), 'retry 1h');
    sink.answers.push(status(500));
    assert.match(await alert(4), /not sent, webhook .*: it answered 500/);
    await alert(4);
    assert.equal(sink.received.length, 1, 'not before its pause is over');
    const path = join(folder, 'alert.state');
    writeFileSync(path, readFileSync(path, 'utf8').replace(/"nextAt":\d+/, '"nextAt":1'));
    rulesOf(webhook());
    await alert(0);
    assert.deepEqual(
      letters().map(({ attempt }) => attempt),
      [1, 2, 1],
    );
    assert.equal(letters()[0]?.id, letters()[1]?.id);
    assert.deepEqual(
      letters()
        .slice(1)
        .flatMap((one) => one.events.map(({ event }) => event)),
      ['begun', 'ended'],
    );
  });

  it('does not stop other channels when it fails', async () => {
    const other = await startHttpSink();
    rulesOf(SILENT, webhook(), `tell webhook ${other.origin}/hook`);
    sink.answers.push(status(503));
    await alert(4);
    assert.equal(other.received.length, 1);
    await other.close();
  });

  it('is ended at its time limit when it hangs', async () => {
    rulesOf(SILENT, webhook(), 'timeout 1s');
    sink.answers.push(hang);
    const startedAt = Date.now();
    assert.match(await alert(4), /no answer within 1 s/);
    assert.ok(Date.now() - startedAt < 20_000);
  });

  it('may redirect to another path, but not to another host', async () => {
    const other = await startHttpSink();
    rulesOf(SILENT, `tell webhook ${sink.origin}/first`);
    sink.answers.push(status(308, { Location: '/hook' }));
    await alert(1);
    assert.deepEqual(
      sink.received.map(({ method, path }) => `${method} ${path}`),
      ['POST /first', 'POST /hook'],
    );
    assert.equal(letters().length, 1);
    for (const [code, location] of [
      [307, `${other.origin}/hook`],
      [302, '/hook'],
      [307, 'http://['],
    ] as const) {
      rmSync(join(folder, 'alert.state'));
      sink.answers.push(status(code, { Location: location }));
      assert.match(await alert(4), new RegExp(`it answered ${code}`));
    }
    rmSync(join(folder, 'alert.state'));
    sink.answers.push(...Array(9).fill(status(307, { Location: '/again' })));
    assert.match(await alert(4), /is not followed/);
    sink.answers.length = 0;
    assert.equal(other.received.length, 0);
    await other.close();
  });

  it('may have its URL in a file, and never has its path printed', async () => {
    const file = join(its.site.root, 'url');
    writeFileSync(file, `${sink.origin}/secret-path\n`, { mode: 0o600 });
    rulesOf(SILENT, `tell webhook @${file}`);
    sink.answers.push(status(404));
    assert.doesNotMatch(await alert(4), /secret-path/);
    assert.equal(sink.received[0]?.path, '/secret-path');
  });

  it('gets nothing once its line is removed', async () => {
    rulesOf(SILENT, webhook());
    sink.answers.push(status(500));
    await alert(4);
    rulesOf(SILENT);
    await alert(1);
    assert.deepEqual(JSON.parse(readFileSync(join(folder, 'alert.state'), 'utf8')).outbox, []);
  });
});

describe('mail', () => {
  let mail: MailSink;
  after(() => mail?.close());

  it('is sent by SMTP, with the same id on each attempt', async () => {
    mail = await startMailSink();
    rulesOf(
      SILENT,
      `tell mail ops@example.org,b@example.org from=webjob@example.org smtp=smtp://127.0.0.1:${mail.port}`,
    );
    await alert(1);
    const [one] = mail.mails;
    assert.deepEqual([one?.from, one?.to], ['webjob@example.org', ['ops@example.org', 'b@example.org']]);
    assert.match(one?.text ?? '', /^Subject: \[webjob\] begun: none\.sh: no result within 1h/m);
    assert.match(one?.text ?? '', /^Auto-Submitted: auto-generated\r?$/m);
    const [, id] = /^X-WebJob-Alert: (\S+)\r?$/im.exec(one?.text ?? '') ?? [];
    assert.match(one?.text ?? '', new RegExp(`^Message-ID: <${id}@`, 'm'));
    await mail.close();
    rulesOf(`tell mail ops@example.org,b@example.org from=webjob@example.org smtp=smtp://127.0.0.1:${mail.port}`);
    assert.match(
      await alert(4),
      /not sent, mail ops@example\.org,b@example\.org: 127\.0\.0\.1:\d+: connect ECONNREFUSED/,
    );
  });

  it('sends a password only over TLS', async () => {
    const file = join(its.site.root, 'password');
    writeFileSync(file, 'swordfish\n', { mode: 0o600 });
    const passwords: unknown[] = [];
    mail = await startMailSink({
      authOptional: false,
      hideSTARTTLS: true,
      allowInsecureAuth: true,
      onAuth({ username, password }, _session, done) {
        passwords.push(password);
        done(null, { user: username });
      },
    });
    rulesOf(SILENT, `tell mail a@example.org smtp=smtp://127.0.0.1:${mail.port} user=u password-file=${file}`);
    await alert(4);
    assert.deepEqual([passwords, mail.mails], [[], []]);
    await mail.close();
    const [key, certificate] = ['mail.key', 'mail.crt'].map((name) => join(its.site.root, name)) as [string, string];
    makeCertificate(key, certificate, '-addext', 'subjectAltName=IP:127.0.0.1');
    mail = await startMailSink({
      authOptional: false,
      secure: true,
      key: readFileSync(key),
      cert: readFileSync(certificate),
      onAuth({ username, password }, _session, done) {
        passwords.push(password);
        done(null, { user: username });
      },
    });
    const rules = `tell mail a@example.org smtp=smtps://127.0.0.1:${mail.port} user=u password-file=${file}`;
    rmSync(join(folder, 'alert.state'));
    rulesOf(SILENT, rules);
    assert.match(await alert(4), /self-signed certificate/);
    rmSync(join(folder, 'alert.state'));
    const code = await alertAlone({ NODE_EXTRA_CA_CERTS: certificate });
    assert.deepEqual([code, passwords], [1, ['swordfish']]);
    assert.deepEqual(
      mail.mails.map(({ user, isSecure }) => [user, isSecure]),
      [['u', true]],
    );
    await mail.close();
  });

  it('is sent by sendmail, without a shell', async () => {
    const [program, told] = [join(its.site.root, 'sendmail'), join(its.site.root, 'told')];
    writeFileSync(program, `#!/bin/sh\n{ printf '%s\\n' "$@"; cat; } > ${told}\n`);
    chmodSync(program, 0o755);
    rulesOf(SILENT, `tell mail ops@example.org from=webjob@example.org sendmail=${program}`);
    await alert(1);
    const text = readFileSync(told, 'utf8');
    assert.match(text, /^-i\n-f\nwebjob@example\.org\nops@example\.org\nAuto-Submitted: /);
    assert.match(text, /^From: webjob@example\.org\nTo: ops@example\.org$/m);
    assert.doesNotMatch(text, /\r/);
  });
});

describe('a command', () => {
  it('gets the message on stdin and in its environment, without a shell', async () => {
    const [program, told] = [join(its.site.root, 'page'), join(its.site.root, 'paged')];
    writeFileSync(
      program,
      `#!/bin/sh\n{ echo "$# $1 $WEBJOB_ALERT_ATTEMPT $WEBJOB_ALERT_ID $WEBJOB_ALERT_SUBJECT"; cat; } > ${told}\n`,
    );
    chmodSync(program, 0o755);
    rulesOf(SILENT, `tell command ${program} "$(touch ${told}.bad) two"`);
    await alert(1);
    const [first = '', second = ''] = readFileSync(told, 'utf8').split('\n');
    const { id } = JSON.parse(second) as Letter;
    assert.match(first, new RegExp(`^1 \\$\\(touch .*\\) two 1 ${id} \\[webjob\\] begun: `));
    assert.equal(existsSync(`${told}.bad`), false);
  });

  it('is ended at its time limit, with its child processes', async () => {
    const program = join(its.site.root, 'slow');
    writeFileSync(program, '#!/bin/sh\nsleep 60 &\nwait\n');
    chmodSync(program, 0o755);
    rulesOf(SILENT, `tell command ${program}`, 'timeout 1s');
    assert.match(await alert(4), /did not end within 1 s/);
  });
});

describe('certificates', () => {
  it('are reported before they expire', async () => {
    const etc = join(its.site.propertiesFile, '..');
    makeCertificate('/dev/null', join(etc, 'webjob-server.crt'));
    rulesOf('warn certificates 30d');
    assert.deepEqual(await findKeys(), [
      `certificates the certificate of the server ${join(etc, 'webjob-server.crt')}`,
    ]);
    rulesOf('warn certificates 10d');
    assert.deepEqual(await findKeys(), []);
    writeFileSync(join(etc, 'webjob-ca.crl'), 'none');
    assert.deepEqual(await findKeys(), ['check certificates']);
    for (const name of ['webjob-server.crt', 'webjob-ca.crl']) rmSync(join(etc, name));
  });
});
