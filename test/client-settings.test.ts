// The command line and webjob.conf: what is understood, what is refused and how, and that no message ever holds a password.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { EXIT_CODES, Failure } from '../client/failure.ts';
import { CONTROLS, type ControlKey } from '../client/controls.ts';
import { readSettings } from '../client/settings.ts';
import { makeClient, runWebjob } from './client-job.ts';
import { type FakeServer, startFake } from './client-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'webjob-settings-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
function writeConf(text: string): string {
  count += 1;
  const path = join(folder, `${count}.conf`);
  writeFileSync(path, text);
  return path;
}

const REQUIRED = 'ClientId=client1\nURLGetURL=http://127.0.0.1:9/get\n';

/** The Failure that settings end in; fails when they do not. */
function failureOf(files: string): Failure {
  try {
    readSettings(files);
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
    assert.equal(error.stage, 'settings');
    return error;
  }
  return assert.fail('the settings were taken');
}

/** Values at the edges of what each control takes. */
const VALUES: Record<ControlKey, { good: string[]; bad: string[] }> = {
  ClientId: { good: ['a', 'A-z_09', 'x'.repeat(64)], bad: ['x'.repeat(65), 'a b', 'a.b', '../a', 'ä'] },
  GetTimeLimit: { good: ['0', '1', '999999'], bad: ['', '-1', '1.5', '1000000', '1s', '0x1'] },
  HashType: { good: ['MD5', 'SHA1', 'SHA256'], bad: ['', 'md5', 'SHA512', 'MD5 SHA1'] },
  OverwriteExecutable: { good: ['Y', 'N', 'y', 'n'], bad: ['', 'yes', '1', 'true'] },
  PutTimeLimit: { good: ['0', '30', '999999'], bad: ['', '-1', '1000000'] },
  RunTimeLimit: { good: ['0', '30', '999999'], bad: ['', '-1', '1000000'] },
  RunType: { good: ['snapshot', 'linktest'], bad: ['', 'Snapshot', 'portrait'] },
  TempDirectory: { good: ['', '/tmp', 'relative/folder', 'C:\\temp'], bad: ['/tmp\u0007', 'a\tb'] },
  TimeoutSignal: { good: ['1', '9', '15', '31'], bad: ['', '0', '32', '-9', 'KILL'] },
  UnlinkExecutable: { good: ['Y', 'n'], bad: ['', 'no'] },
  UnlinkOutput: { good: ['y', 'N'], bad: ['', 'no'] },
  URLAuthType: { good: ['basic', 'none'], bad: ['', 'digest', 'Basic'] },
  URLDownloadLimit: { good: ['0', '1', '999999999999999'], bad: ['', '1k', '-1', '1000000000000000'] },
  URLGetURL: {
    good: ['http://h/x', 'https://u:p@h:8443/a/b', 'http://[::1]:8080/'],
    bad: ['h/x', 'ftp://h/x', 'http://h/x?y=z', 'http://h/a b', 'file:///etc/passwd'],
  },
  URLPassword: { good: ['', 'a b;c="d"=[e]\\'], bad: ['a\u0007b'] },
  URLPutURL: { good: ['', 'http://h/x'], bad: ['h/x', 'http://h/x?y'] },
  URLUsername: { good: ['', 'client 1'], bad: ['\u001bx'] },
};

describe('every control of webjob.conf', () => {
  for (const { key, default: standard } of CONTROLS) {
    const others = REQUIRED.split('\n')
      .filter((line) => !line.startsWith(`${key}=`))
      .join('\n');

    it(`${key} takes what it should, in any case of its name`, () => {
      for (const value of [...VALUES[key].good, ...(standard === '' ? [] : [standard])]) {
        assert.doesNotThrow(() => readSettings(writeConf(`${key}=${value}\n${others}`)), value);
        assert.doesNotThrow(
          () => readSettings(writeConf(`${key.toUpperCase()} =\t${value} # why\r\n${others}`)),
          value,
        );
      }
    });

    it(`${key} refuses all else, naming file, line and itself, not the value`, () => {
      for (const value of VALUES[key].bad) {
        const file = writeConf(`# first line\n${key.toLowerCase()}=${value}\n${others}`);
        assert.equal(failureOf(file).message, `${file} line 2: ${key} has a value that is not allowed`, value);
      }
    });
  }

  it('keeps a default that the table allows', () => {
    const settings = readSettings(writeConf(REQUIRED));
    assert.deepEqual(
      { ...settings, get: settings.get.url.href },
      {
        ...{ clientId: 'client1', get: 'http://127.0.0.1:9/get', put: undefined, runType: 'snapshot' },
        ...{ tempDirectory: tmpdir(), overwriteExecutable: true, unlinkExecutable: true, unlinkOutput: true },
        ...{ getLimitSeconds: 0, runLimitSeconds: 0, putLimitSeconds: 0, timeoutSignal: 9, hashType: 'MD5' },
        ...{ downloadLimitBytes: 0 },
      },
    );
  });
});

describe('webjob.conf', () => {
  it('reads several files as one', () => {
    const second = writeConf('URLPutURL=https://h/put\nHashType=SHA1\n');
    const settings = readSettings(`${writeConf(REQUIRED)},${second}`);
    assert.equal(settings.put?.url.href, 'https://h/put');
    assert.equal(settings.hashType, 'SHA1');
    assert.equal(settings.clientId, 'client1');
  });

  it('refuses a control that is given twice, in one file or in two', () => {
    const one = writeConf(`${REQUIRED}\nclientid=client2\n`);
    assert.equal(failureOf(one).message, `${one} line 4: clientid is given twice`);
    const two = writeConf('# other\nClientId=client1\n');
    assert.equal(failureOf(`${writeConf(REQUIRED)},${two}`).message, `${two} line 2: ClientId is given twice`);
  });

  it('refuses a stray line and an unknown control, naming file and line', () => {
    const stray = writeConf(`${REQUIRED}\n\nHashType MD5\n`);
    assert.equal(failureOf(stray).message, `${stray} line 5: not control=value`);
    for (const key of ['SSLVerifyPeerCert', 'Import', 'GetHookEnable', 'constructor', 'toString']) {
      const unknown = writeConf(`${key}=Y\n${REQUIRED}`);
      assert.equal(failureOf(unknown).message, `${unknown} line 1: ${key} is not a control that this client obeys`);
    }
  });

  it('refuses a file without the required controls, and one that cannot be read', () => {
    assert.equal(failureOf(writeConf('URLGetURL=http://h/\n')).message, 'ClientId is required');
    assert.equal(failureOf(writeConf('ClientId=c\nURLGetURL=\n')).message, 'URLGetURL is required');
    assert.match(failureOf(writeConf('')).hint ?? '', /^add a line ClientId=/);
    assert.equal(failureOf(join(folder, 'none')).message, `${join(folder, 'none')} cannot be read: ENOENT`);
    assert.equal(failureOf(folder).message, `${folder} cannot be read: EISDIR`);
  });

  it('prefers user and password of a URL, decoded, and takes them out of it', () => {
    const own = 'URLUsername=own\nURLPassword=pair\nURLAuthType=basic\n';
    const conf = `ClientId=c\nURLGetURL=http://us%65r:p%40ss@h/x\nURLPutURL=http://h/y\n${own}`;
    const { get, put } = readSettings(writeConf(conf));
    assert.deepEqual([get.credentials, get.url.href], ['user:p@ss', 'http://h/x']);
    assert.deepEqual([put?.credentials, put?.url.href], ['own:pair', 'http://h/y']);
    assert.equal(readSettings(writeConf(conf.replace('=basic', '=none'))).put?.credentials, undefined);
  });

  it('never shows a password, whatever is wrong', () => {
    const password = fc.stringMatching(/^Zq7[A-Za-z0-9%:=;$'"!-]{3,20}$/);
    const breakage = fc.constantFrom(
      ...['HashType=PW', 'PW', 'PW PW', 'ClientId=PW.', 'URLPassword=PW', 'URLGetURL=http://u:PW@h/', 'HashType=MD4'],
      ...['URLPutURL=http://u:PW@', 'URLPutURL=http://u:PW@h ost/', 'URLPutURL=ftp://u:PW@h/', 'URLPutURL=PW'],
      ...[
        'URLPutURL=http://u:PW@h:99999/',
        'URLPutURL=http://u:PW%zz@h/',
        'URLPutURL=http://u:PW@h/?PW',
        'TempDirectory=PW\u0001',
      ],
    );
    let refused = 0;
    fc.assert(
      fc.property(password, breakage, (secret, line) => {
        const text = `ClientId=c\nURLGetURL=http://user:${secret}@h/\nURLPassword=${secret}\n${line.replaceAll('PW', secret)}\n`;
        const { message, hint } = failureOf(writeConf(text));
        refused += 1;
        assert.ok(!`${message}${hint}`.includes(secret), `${message} ${hint}`);
      }),
      { numRuns: 200 },
    );
    assert.equal(refused, 200);
  });
});

describe('the command line', async () => {
  const PROGRAM = '#!/bin/sh\nprintf "[%s]" "$@"\n';
  let fake: FakeServer;
  const client = makeClient();
  before(async () => {
    fake = await startFake(PROGRAM);
  });
  after(async () => {
    await fake.close();
    client.remove();
  });

  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'));

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

  it('explains in its help every exit code there is', async () => {
    const { stdout } = await runWebjob(['--help']);
    const documented = [...stdout.matchAll(/^ {2}(\d) {2}\S/gm)].map(([, code]) => Number(code));
    assert.deepEqual(documented, Object.values(EXIT_CODES));
  });

  const WRONG: [args: string[], complaint: RegExp][] = [
    [[], /^webjob: error: required option '-e, --execute' not specified\n/],
    [['-e', 'host.sh'], /^webjob: error: required option '-f, --file <config>' not specified\n/],
    [['-f', 'none.conf', 'host.sh'], /^webjob: error: required option '-e, --execute' not specified\n/],
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

  it('refuses a program that is no name, before it asks the server', async () => {
    client.configure({ URLGetURL: fake.url });
    for (const name of ['../host.sh', '/bin/sh', 'a b', '..', '', 'x'.repeat(1025)]) {
      const { code, stdout, stderr } = await client.execute([name]);
      assert.deepEqual([code, stdout], [1, ''], name);
      assert.match(stderr, /^webjob: error: the program is not [^\n]*\nwebjob: hint: name it as [^\n]*\n$/);
    }
    assert.equal(fake.requests().length, 0);
  });

  it('says on stderr what is wrong with the settings and how to go on', async () => {
    const file = writeConf('URLGetURL=http://h/\n');
    assert.deepEqual(await runWebjob(['-e', '-f', file, 'host.sh']), {
      ...{ code: 2, signal: null, stdout: '' },
      stderr:
        'webjob: error: ClientId is required\nwebjob: hint: add a line ClientId=... to the file given with --file\n',
    });
  });

  it('hands every option after the program on, untouched', async () => {
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

  it('takes several files separated by commas', async () => {
    const target = writeConf(`URLGetURL=${fake.url}\n`);
    const rest = writeConf(`ClientId=client9\nTempDirectory=${client.temp}\n`);
    const { code, stdout } = await runWebjob(['-e', '-f', `${target},${rest}`, 'prog', 'one']);
    assert.deepEqual([code, stdout], [0, '[one]']);
    assert.match(fake.requests().at(-1)?.toString() ?? '', /&CLIENTID=client9&/);
  });

  it('runs what it fetched, not a program of that name in PATH, when TempDirectory is the current folder', async () => {
    client.configure({ URLGetURL: fake.url, TempDirectory: '.' });
    const { code, stdout } = await client.execute(['ls', 'fetched'], { cwd: client.temp });
    assert.deepEqual([code, stdout], [0, '[fetched]']);
    assert.deepEqual(client.left(), []);
  });
});
