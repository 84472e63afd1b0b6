// The command line of webjob: every mode, every refusal, and every exit code that a command line
// alone can cause.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EXIT_CODES } from '../../client/failure.ts';
import { makeClient, runWebjob, WEBJOB } from '../support/client-job.ts';
import { afterBody, type FakeServer, formatAnswer, reply, startFake } from '../support/client-server.ts';

const PROGRAM = '#!/bin/sh\nprintf "[%s]" "$@"\n';
const SECRET = 'pAss-w0rd-7291';
const client = makeClient();
let fake: FakeServer;
before(async () => {
  fake = await startFake(PROGRAM);
});
after(async () => {
  await fake.close();
  client.remove();
});

let count = 0;
function writeConf(text: string): string {
  count += 1;
  const path = join(client.root, `${count}.conf`);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

describe('the command line', () => {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8'));

  it('prints help and version on stdout and exits with 0', async () => {
    const help = await runWebjob(['--help']);
    assert.deepEqual([help.code, help.stderr], [0, '']);
    assert.match(
      help.stdout,
      /^Usage: webjob \{-e\|--execute\} \{-f\|--file\} config\[,config\.\.\] program \[options\]\n/,
    );
    for (const option of ['-v', '--version']) {
      const bits = /64|s390x/.test(process.arch) ? 64 : 32;
      const expected = { code: 0, signal: null, stdout: `webjob ${version} ssl ${bits} bit\n`, stderr: '' };
      assert.deepEqual(await runWebjob([option]), expected);
    }
  });

  it('explains every exit code in its help', async () => {
    const { stdout } = await runWebjob(['--help']);
    const documented = [...stdout.matchAll(/^ {2}(\d+) {1,2}(?! *\+)\S/gm)].map(([, code]) => Number(code));
    assert.deepEqual(documented, Object.values(EXIT_CODES));
  });

  const NO_MODE =
    /^webjob: error: use one of --execute, --batch, --get-url, --hashsum and --flush\nwebjob: hint: webjob --help\n$/;
  const WRONG: [args: string[], complaint: RegExp][] = [
    [[], NO_MODE],
    [['host.sh'], NO_MODE],
    [['-f', 'none.conf', 'host.sh'], NO_MODE],
    [['-e', '-g', '-f', 'none.conf', 'host.sh'], NO_MODE],
    [['-e', '--flush', '-f', 'none.conf'], NO_MODE],
    [['-e', 'host.sh'], /^webjob: error: required option '-f, --file <config>' not specified\n/],
    [['--flush'], /^webjob: error: required option '-f, --file <config>' not specified\n/],
    [['--flush', '-f', 'none.conf', 'x'], /^webjob: error: --flush takes no arguments\n/],
    [['-g'], /^webjob: error: missing required argument 'url'\n/],
    [['-g', 'http://h/', 'http://h/'], /^webjob: error: too many arguments: 2\n/],
    [['-g', 'file:///etc/passwd'], /^webjob: error: the URL is not http:\/\/\.\.\. or https:\/\/\.\.\.\n/],
    [['-h', 'file'], /^webjob: error: required option '-t, --type <digest>' not specified\n/],
    [['-h', '-t', 'CRC32', 'file'], /^webjob: error: the digest must be one of MD5, SHA1, SHA256, SHA512\n/],
    [['-h', '-t', 'MD5', 'a', 'b'], /^webjob: error: too many arguments: 2\n/],
    [['-h', '-t', 'MD5', '/nowhere/x'], /^webjob: error: \/nowhere\/x cannot be read: ENOENT\n$/],
    [['-h', '-t', 'MD5', '/'], /^webjob: error: \/ cannot be read: EISDIR\n$/],
    [['-e', '-f'], /^webjob: error: option '-f, --file <config>' argument missing\n/],
    [['-e', '-f', 'none.conf'], /^webjob: error: missing required argument 'program'\n/],
    [['-e', '-f', 'none.conf', '--sideways', 'host.sh'], /^webjob: error: unknown option '--sideways'\n/],
    [['-e', '-f', 'none.conf', '-x', 'host.sh'], /^webjob: error: unknown option '-x'\n/],
  ];
  for (const [args, complaint] of WRONG) {
    it(`refuses: webjob ${args.join(' ')}`, async () => {
      const { code, stdout, stderr } = await runWebjob(args);
      assert.match(stderr, complaint);
      assert.deepEqual([code, stdout], [1, '']);
    });
  }

  it('refuses an invalid program name before it asks the server', async () => {
    client.configure({ URLGetURL: fake.url });
    for (const name of ['../host.sh', '/bin/sh', 'a b', '..', '', 'x'.repeat(1025)]) {
      const { code, stdout, stderr } = await client.execute([name]);
      assert.deepEqual([code, stdout], [1, ''], name);
      assert.match(stderr, /^webjob: error: the program is not [^\n]*\nwebjob: hint: use its name in [^\n]*\n$/);
    }
    assert.equal(fake.requests().length, 0);
  });

  it('reports on stderr what is wrong with the settings and how to fix it', async () => {
    const file = writeConf('URLGetURL=http://h/\n');
    assert.deepEqual(await runWebjob(['-e', '-f', file, 'host.sh']), {
      code: 2,
      signal: null,
      stdout: '',
      stderr:
        'webjob: error: ClientId is required\nwebjob: hint: add a line ClientId=... to the file given with --file\n',
    });
  });

  it('passes every option after the program on, unchanged', async () => {
    client.configure({ URLGetURL: fake.url });
    const options = [
      '-x',
      '--help',
      '-e',
      '--version',
      '-f',
      'x',
      '--',
      '--',
      'a',
      'b c',
      '',
      '*',
      "'",
      '$HOME',
      'a=b',
    ];
    for (const own of [
      ['-e', '-f', client.conf],
      ['--file', client.conf, '--execute'],
      ['-ef', client.conf],
      [`--file=${client.conf}`, '-e', '--'],
    ]) {
      const { code, stdout, stderr } = await runWebjob([...own, 'prog', ...options]);
      assert.deepEqual([code, stdout, stderr], [0, options.map((option) => `[${option}]`).join(''), '']);
    }
  });

  it('accepts several files separated by commas', async () => {
    const target = writeConf(`URLGetURL=${fake.url}\n`);
    const rest = writeConf(`ClientId=client9\nTempDirectory=${client.temp}\n`);
    const { code, stdout } = await runWebjob(['-e', '-f', `${target},${rest}`, 'prog', 'one']);
    assert.deepEqual([code, stdout], [0, '[one]']);
    assert.match(fake.requests().at(-1)?.toString() ?? '', /&CLIENTID=client9&/);
  });

  it('runs the fetched program, not one of that name in PATH, when TempDirectory is "."', async () => {
    client.configure({ URLGetURL: fake.url, TempDirectory: '.' });
    const { code, stdout } = await client.execute(['ls', 'fetched'], { cwd: client.temp });
    assert.deepEqual([code, stdout], [0, '[fetched]']);
    assert.deepEqual(client.left(), []);
  });
});

describe('a webjob.conf that everyone can read', () => {
  const warning = (file: string): string =>
    `webjob: warning: ${file} contains a password, and every user of this machine can read it\n`;

  for (const [line, warns] of [
    [`URLPassword=${SECRET}`, true],
    [`URLProxyPassword=${SECRET}`, true],
    [`SSLPassPhrase=${SECRET}`, true],
    [`URLPutURL=http://u:${SECRET}@h/`, true],
    [`URLPutURL=HTTPS://u:${SECRET}@h/`, true],
    ['URLPassword=', false],
    ['URLPutURL=http://h/a@b', false],
  ] as const) {
    it(`${warns ? 'draws a warning for' : 'draws no warning for'} ${line}`, async () => {
      const file = writeConf(`ClientId=c\nURLGetURL=${fake.url}\nTempDirectory=${client.temp}\n${line}\n`);
      chmodSync(file, 0o644);
      const { stderr } = await runWebjob(['-e', '-f', file, '..']);
      assert.equal(stderr.startsWith(warning(file)), warns, stderr);
      assert.ok(!stderr.includes(SECRET));
      chmodSync(file, 0o640);
      assert.doesNotMatch((await runWebjob(['-e', '-f', file, '..'])).stderr, /warning/);
    });
  }

  it('draws a warning even when only an imported file is readable', async () => {
    const secret = writeConf(`URLPassword=${SECRET}\n`);
    chmodSync(secret, 0o644);
    const file = writeConf(`Import=${secret}\nURLGetURL=${fake.url}\n`);
    const { code, stderr } = await runWebjob(['-e', '-f', file, 'x']);
    assert.ok(stderr.startsWith(`${warning(secret)}webjob: error: ClientId is required\n`), stderr);
    assert.equal(code, 2);
  });
});

describe('--get-url', () => {
  const PAGE = Buffer.from([0, 255, 10, 13, 128, ...Buffer.from('page')]);

  it('writes the bytes of the URL, with or without settings', async () => {
    fake.get = reply(formatAnswer(PAGE));
    const url = `http://127.0.0.1:${fake.port}/some/page?a=b&c`;
    const login = `URLAuthType=basic\nURLUsername=u\nURLPassword=${SECRET}\n`;
    const ofThisServer = writeConf(`${login}URLGetURL=http://127.0.0.1:${fake.port}/webjob\n`);
    const ofAnother = writeConf(`${login}URLGetURL=http://127.0.0.2:${fake.port}/webjob\n`);
    const ofAnotherPort = writeConf(`${login}URLGetURL=http://127.0.0.1:${fake.port + 1}/webjob\n`);
    for (const [args, isKnown] of [
      [['-g', url], false],
      [['--get-url', '-f', ofThisServer, url], true],
      [['--get-url', '-f', ofAnother, url], false],
      [['--get-url', '-f', ofAnotherPort, url], false],
    ] as const) {
      const { code, stdout, stderr } = await runWebjob(args);
      assert.deepEqual([code, stdout, stderr], [0, PAGE.toString('latin1'), '']);
      const request = fake.requests().at(-1)?.toString() ?? '';
      assert.match(request, /^GET \/some\/page\?a=b&c HTTP\/1\.1\r\n/);
      assert.equal(/^Authorization: Basic /m.test(request), isKnown, 'the password goes to its own server alone');
    }
  });

  it('fails as GET does, with exit code 3 and without showing the password', async () => {
    fake.get = reply(formatAnswer('no', '404 Not Found'));
    const { code, stdout, stderr } = await runWebjob(['-g', `http://u:${SECRET}@127.0.0.1:${fake.port}/`]);
    assert.deepEqual([code, stdout], [3, '']);
    assert.equal(stderr, 'webjob: error: GET failed: Status = [404], Reason = [Not Found]\n');
    fake.get = () => {};
    const url = `http://127.0.0.1:${fake.port}/`;
    const silent = await runWebjob(['-g', '-f', writeConf(`URLGetURL=${url}\nGetTimeLimit=1\n`), url]);
    assert.deepEqual([silent.code, silent.stdout], [3, '']);
    assert.equal(silent.stderr, 'webjob: error: GET failed: no complete answer within 1 seconds\n');
  });
});

describe('--hashsum', () => {
  for (const type of ['MD5', 'SHA1', 'SHA256', 'SHA512']) {
    it(`prints the same ${type} as ${type.toLowerCase()}sum, for a file and for stdin`, async () => {
      const file = join(client.root, 'bytes');
      writeFileSync(file, Buffer.alloc(300_001, 'webjob\0\n'));
      const expected = execFileSync(`${type.toLowerCase()}sum`, [file], { encoding: 'utf8' }).split(' ')[0];
      const given = await runWebjob(['--hashsum', '--type', type, file]);
      assert.deepEqual([given.code, given.stdout, given.stderr], [0, `${expected}\n`, '']);
      const args = [WEBJOB, '-h', '-t', type.toLowerCase()];
      const piped = spawnSync(process.execPath, args, { input: readFileSync(file), encoding: 'utf8', timeout: 60_000 });
      assert.deepEqual([piped.status, piped.stdout, piped.stderr], [0, `${expected}\n`, '']);
    });
  }
});

describe('the exit code', () => {
  it('is that of the stage that failed', async () => {
    const lock = join(client.root, 'lock');
    const put = { URLGetURL: fake.url, URLPutURL: fake.url };
    fake.get = reply(formatAnswer('#!/bin/sh\n'));
    client.configure(put);
    assert.equal((await client.execute(['x'])).code, EXIT_CODES.ok);
    client.configure({ ...put, TempDirectory: join(client.root, 'none') });
    assert.equal((await client.execute(['x'])).code, EXIT_CODES.run);
    fake.put = reply('HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n');
    client.configure(put);
    assert.equal((await client.execute(['x'])).code, EXIT_CODES.put);
    fake.put = afterBody(formatAnswer());
    writeFileSync(lock, `${process.pid}\n`, { mode: 0o400 });
    const held = openSync(lock, 'r');
    client.configure({ ...put, LockFile: lock });
    assert.equal((await client.execute(['x'])).code, EXIT_CODES.lock);
    closeSync(held);
    client.configure(put);
    assert.equal((await runWebjob(['--flush', '-f', client.conf])).code, EXIT_CODES.ok, 'what the failed PUT left');
    assert.equal((await runWebjob(['--flush', '-f', client.conf])).code, EXIT_CODES.settings);
    mkdirSync(join(client.root, 'spool'), { mode: 0o700 });
    client.configure({ ...put, SpoolDirectory: join(client.root, 'spool') });
    assert.equal((await runWebjob(['--flush', '-f', client.conf])).code, EXIT_CODES.ok);
  });
});
