// webjob.conf: what is accepted, what is refused and with which message, and that no message ever
// contains a password.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { Failure } from '../../client/failure.ts';
import { CONTROLS, type ControlKey } from '../../client/setting-table.ts';
import { readSettings } from '../../client/settings.ts';

const folder = mkdtempSync(join(tmpdir(), 'webjob-settings-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
function writeConf(text: string): string {
  count += 1;
  const path = join(folder, `${count}.conf`);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

const REQUIRED = 'ClientId=client1\nURLGetURL=http://127.0.0.1:9/get\n';

/** The Failure that settings lead to; fails when there is none. */
function failureOf(files: string): Failure {
  try {
    readSettings(files);
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
    assert.equal(error.kind, 'settings');
    return error;
  }
  return assert.fail('the settings were taken');
}

interface Values {
  good: string[];
  bad: string[];
}

const FLAG: Values = { good: ['Y', 'N', 'y', 'n'], bad: ['', 'yes', '1', 'true', 'YN'] };
const SECONDS: Values = { good: ['0', '1', '999999'], bad: ['', '-1', '1.5', '1000000', '1s', '0x1'] };
const BYTES: Values = { good: ['0', '1', '999999999999999'], bad: ['', '1k', '-1', '1000000000000000'] };
const TEXT: Values = {
  good: ['', 'a b;c="d"=[e]\\', '/etc/ssl/x.pem', 'ä'],
  bad: ['a\u0007b', '\u001bx', 'a\tb', '\u007f'],
};
const AUTHENTICATION: Values = { good: ['basic', 'none', 'Basic', 'NONE'], bad: ['', 'digest', 'basic none'] };

/** Values at the limits of what each setting accepts. */
const VALUES: Record<ControlKey, Values> = {
  ClientId: { good: ['a', 'A-z_09', 'x'.repeat(64)], bad: ['x'.repeat(65), 'a b', 'a.b', '../a', 'ä'] },
  DsvPublicKeyFile: TEXT,
  DsvRequireManifest: FLAG,
  DsvSerialFile: TEXT,
  DsvThreshold: { good: ['1', '2', '999'], bad: ['', '0', '-1', '01', '1000'] },
  DsvTrustedKeysFile: TEXT,
  DsvVerifyManifest: FLAG,
  DsvVerifySignature: FLAG,
  ResultKeyFile: TEXT,
  SealTo: { good: ['age1a', 'age1pq1a, age1b'], bad: ['a;b', 'a\tb', 'ä'] },
  GetHookCommandLine: {
    good: ['', 'gpg -d -o %cmd %file', 'a %% b', '%%cmd', 'x | y && z; "q"'],
    bad: ['%', '%x', '%file2 %', '%%%', 'a %payload', 'a\u0000b'],
  },
  GetHookEnable: FLAG,
  GetHookStatus: { good: ['0', '1', '99', '100', '255'], bad: ['', '256', '300', '-1', '1000', 'x'] },
  GetHookSuffix: {
    good: ['', '.gpg', '.tar.gz', '._-x'],
    bad: ['gpg', '.', './x', '.a b', '.$x', `.${'x'.repeat(33)}`],
  },
  GetHookTimeLimit: SECONDS,
  GetTimeLimit: SECONDS,
  HashType: { good: ['MD5', 'SHA1', 'SHA256', 'sha1'], bad: ['', 'SHA512', 'MD5 SHA1'] },
  JournalFile: TEXT,
  LockFile: TEXT,
  OverwriteExecutable: FLAG,
  PutTimeLimit: SECONDS,
  RetryDelay: SECONDS,
  RetryLimit: { good: ['0', '3', '999'], bad: ['', '-1', '1000', 'always'] },
  RunTimeLimit: SECONDS,
  RunType: { good: ['snapshot', 'linktest', 'LinkTest'], bad: ['', 'snap', 'portrait'] },
  Splay: SECONDS,
  SpoolDirectory: TEXT,
  SpoolLimit: BYTES,
  SSLBundledCAsFile: TEXT,
  SSLExpectedPeerCN: TEXT,
  SSLMaxChainLength: { good: ['1', '9', '10'], bad: ['', '0', '11', '-1', '01'] },
  SSLMinVersion: {
    good: ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3', 'tlsv1.3'],
    bad: ['', '1.2', 'SSLv3', 'TLSv1.4', 'TLSv1x2'],
  },
  SSLPassPhrase: TEXT,
  SSLPassPhraseFile: TEXT,
  SSLPrivateKeyFile: TEXT,
  SSLPublicCertFile: TEXT,
  SSLUseCertificate: FLAG,
  SSLVerifyHost: FLAG,
  SSLVerifyPeerCert: FLAG,
  TempDirectory: { good: ['', '/tmp', 'relative/folder', 'C:\\temp'], bad: ['/tmp\u0007', 'a\tb'] },
  TimeoutSignal: { good: ['1', '9', '15', '31'], bad: ['', '0', '32', '-9', 'KILL'] },
  UnlinkExecutable: FLAG,
  UnlinkOutput: FLAG,
  UploadOnGetFailure: FLAG,
  URLAuthType: AUTHENTICATION,
  URLDownloadLimit: BYTES,
  URLGetURL: {
    good: ['http://h/x', 'https://u:p@h:8443/a/b', 'http://[::1]:8080/', 'HTTPS://h/x'],
    bad: ['h/x', 'ftp://h/x', 'http://h/x?y=z', 'http://h/a b', 'file:///etc/passwd'],
  },
  URLPassword: TEXT,
  URLProxyAuthType: AUTHENTICATION,
  URLProxyPassword: TEXT,
  URLProxyUsername: TEXT,
  URLProxyHost: {
    good: ['', 'proxy.example.com', '::1', '10.0.0.1'],
    bad: ['http://proxy', 'a b', '[::1]', 'a/b', 'u@h'],
  },
  URLProxyPort: {
    good: ['1', '8080', '9999', '59999', '64999', '65499', '65529', '65535'],
    bad: ['', '0', '080', '65536', '65540', '65600', '66000', '70000', '100000', '-1'],
  },
  URLPutURL: { good: ['', 'http://h/x'], bad: ['h/x', 'http://h/x?y'] },
  URLUsername: TEXT,
};

/** Settings that an enabled setting needs. */
const NEEDED: Partial<Record<ControlKey, string>> = {
  DsvVerifyManifest: 'DsvTrustedKeysFile=k\nDsvSerialFile=s\n',
  SealTo: 'ResultKeyFile=k\n',
  DsvVerifySignature: 'DsvPublicKeyFile=k\n',
  GetHookEnable: 'GetHookCommandLine=x\nGetHookSuffix=.x\n',
  SSLUseCertificate: 'SSLPublicCertFile=c\nSSLPrivateKeyFile=k\n',
};

describe('every setting of webjob.conf', () => {
  for (const { key, default: standard } of CONTROLS) {
    const others = `${NEEDED[key] ?? ''}${REQUIRED}`.replace(new RegExp(`^${key}=.*\\n`, 'm'), '');

    it(`accepts its values, in any case of its name: ${key}`, () => {
      for (const value of [...VALUES[key].good, ...(standard === '' ? [] : [standard])]) {
        assert.doesNotThrow(() => readSettings(writeConf(`${key}=${value}\n${others}`)), value);
        assert.doesNotThrow(
          () => readSettings(writeConf(`${key.toUpperCase()} =\t${value} # why\r\n${others}`)),
          value,
        );
      }
    });

    it(`refuses all else, naming file, line and itself, not the value: ${key}`, () => {
      for (const value of VALUES[key].bad) {
        const file = writeConf(`# first line\n${key.toLowerCase()}=${value}\n${others}`);
        assert.equal(failureOf(file).message, `${file} line 2: ${key} has a value that is not allowed`, value);
      }
    });
  }

  it('may have its words in any case, and sends them in the form of the protocol', () => {
    const lines = [
      'RunType=LINKTEST',
      'HashType=sha256',
      'URLAuthType=Basic',
      'URLProxyAuthType=BASIC',
      'SSLMinVersion=tlsv1.3',
    ];
    const { runType, hashType, urlAuthType, urlProxyAuthType, sslMinVersion, get } = readSettings(
      writeConf(`${lines.join('\n')}\nURLUsername=u\nURLPassword=p\n${REQUIRED}`),
    );
    assert.deepEqual(
      [runType, hashType, urlAuthType, urlProxyAuthType, sslMinVersion, get.credentials],
      ['linktest', 'SHA256', 'basic', 'basic', 'TLSv1.3', 'u:p'],
    );
  });

  it('has its documented default when it is not given', () => {
    const { get, ...settings } = readSettings(writeConf(REQUIRED));
    assert.equal(get.url.href, 'http://127.0.0.1:9/get');
    const given = {
      clientId: 'client1',
      urlGetURL: 'http://127.0.0.1:9/get',
      put: undefined,
      proxyCredentials: undefined,
    };
    const texts =
      'dsvPublicKeyFile getHookCommandLine getHookSuffix journalFile lockFile spoolDirectory sslBundledCAsFile sslExpectedPeerCN';
    const more = 'sslPassPhrase sslPassPhraseFile sslPrivateKeyFile sslPublicCertFile urlPassword urlProxyHost';
    const empty =
      `dsvSerialFile dsvTrustedKeysFile resultKeyFile sealTo ${texts} ${more} urlProxyPassword urlProxyUsername urlPutURL urlUsername`.split(
        ' ',
      );
    assert.deepEqual(settings, {
      ...given,
      ...Object.fromEntries(empty.map((name) => [name, ''])),
      dsvVerifyManifest: false,
      dsvRequireManifest: true,
      dsvThreshold: 1,
      dsvVerifySignature: false,
      getHookEnable: false,
      getHookStatus: 0,
      getHookTimeLimit: 60,
      hashType: 'MD5',
      getTimeLimit: 0,
      putTimeLimit: 0,
      runTimeLimit: 0,
      timeoutSignal: 9,
      urlDownloadLimit: 0,
      splay: 0,
      overwriteExecutable: true,
      unlinkExecutable: true,
      unlinkOutput: true,
      uploadOnGetFailure: false,
      retryDelay: 10,
      retryLimit: 0,
      runType: 'snapshot',
      spoolLimit: 2 ** 30,
      tempDirectory: tmpdir(),
      sslMaxChainLength: 1,
      sslMinVersion: 'TLSv1.2',
      sslUseCertificate: false,
      sslVerifyHost: false,
      sslVerifyPeerCert: false,
      urlAuthType: 'none',
      urlProxyAuthType: 'none',
      urlProxyPort: 8080,
    });
  });

  const COMBINATIONS: [lines: string, complaint: string][] = [
    ['GetHookEnable=Y\nGetHookSuffix=.x', 'GetHookEnable=Y requires GetHookCommandLine'],
    ['GetHookEnable=y\nGetHookCommandLine=x', 'GetHookEnable=Y requires GetHookSuffix'],
    ['DsvVerifySignature=Y\nDsvPublicKeyFile=', 'DsvVerifySignature=Y requires DsvPublicKeyFile'],
    ['DsvVerifyManifest=Y\nDsvSerialFile=s', 'DsvVerifyManifest=Y requires DsvTrustedKeysFile'],
    ['DsvVerifyManifest=Y\nDsvTrustedKeysFile=k', 'DsvVerifyManifest=Y requires DsvSerialFile'],
    ['SSLUseCertificate=Y\nSSLPrivateKeyFile=k', 'SSLUseCertificate=Y requires SSLPublicCertFile'],
    ['SSLUseCertificate=Y\nSSLPublicCertFile=c', 'SSLUseCertificate=Y requires SSLPrivateKeyFile'],
    ['SSLPassPhraseFile=f\nSSLPassPhrase=p', 'SSLPassPhraseFile and SSLPassPhrase cannot both be set'],
    ['URLUsername=a:b\nURLAuthType=basic', 'URLUsername contains a colon, which Basic authentication does not allow'],
    [
      'URLProxyUsername=a:b\nURLProxyAuthType=basic',
      'URLProxyUsername contains a colon, which Basic authentication does not allow',
    ],
    ['URLPutURL=http://h:65536/', 'URLPutURL is not a URL'],
    ['URLPutURL=http://u:%zz@h/', 'URLPutURL has a user or password with an invalid %'],
  ];
  for (const [lines, complaint] of COMBINATIONS) {
    it(`must go with the others, or is named with its line: ${complaint}`, () => {
      const file = writeConf(`\n${lines}\n${REQUIRED}`);
      assert.equal(failureOf(file).message, `${file} line 2: ${complaint}`);
    });
  }

  it('needs no other setting while it is off', () => {
    const off = 'GetHookEnable=N\nDsvVerifySignature=N\nSSLUseCertificate=n\nURLProxyUsername=a:b\n';
    assert.equal(readSettings(writeConf(off + REQUIRED)).proxyCredentials, undefined);
    const on = 'URLProxyUsername=a\nURLProxyPassword=b:c\nURLProxyAuthType=basic\n';
    assert.equal(readSettings(writeConf(on + REQUIRED)).proxyCredentials, 'a:b:c');
  });
});

describe('a relative path', () => {
  it('is resolved beside the file that contains it, whatever the working directory', () => {
    const root = mkdtempSync(join(folder, 'kit-'));
    mkdirSync(join(root, 'below'));
    const isPath = ({ key }: { key: string }): boolean => /(?:File|SpoolDirectory)$/.test(key);
    const keys = CONTROLS.filter(isPath).map(({ key }) => key);
    assert.ok(keys.length >= 8);
    const lines = keys.filter((key) => key !== 'SSLPassPhraseFile').map((key) => `${key}=x/../${key}\n`);
    writeFileSync(join(root, 'below', 'paths.conf'), lines.join(''), { mode: 0o600 });
    writeFileSync(
      join(root, 'a.conf'),
      `Import=below/paths.conf\nTempDirectory=a\nSSLPassPhraseFile=../p\n${REQUIRED}`,
      {
        mode: 0o600,
      },
    );
    for (const name of [join(root, 'a.conf'), relative(process.cwd(), join(root, 'a.conf'))]) {
      const settings = readSettings(name);
      assert.equal(
        settings.tempDirectory,
        resolve('a'),
        'of this one setting the working directory was always the place',
      );
      const values = new Set<unknown>(Object.values(settings));
      const placed = keys.map((key) => join(root, key === 'SSLPassPhraseFile' ? '../p' : `below/${key}`));
      assert.deepEqual(
        placed.filter((path) => !values.has(path)),
        [],
      );
    }
  });
});

describe('Import', () => {
  /** Writes files by name in a new directory; returns the path of the first. */
  function writeTree(files: Record<string, string>): string {
    const root = mkdtempSync(join(folder, 'tree-'));
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text, { mode: 0o600 });
    }
    return join(root, Object.keys(files)[0] ?? '');
  }

  it('reads the settings of files beside the importing file, three levels deep', () => {
    const first = writeTree({
      'a.conf': `${REQUIRED}import = sub/b.conf # beside\nHashType=SHA1\n`,
      'sub/b.conf': 'RunTimeLimit=1\nImport=deeper/c.conf\nImport=../e.conf\n',
      'sub/deeper/c.conf': 'GetTimeLimit=2\nImport=../../d.conf',
      'd.conf': 'PutTimeLimit=3\n',
      'e.conf': 'TimeoutSignal=15\n',
    });
    const { runTimeLimit, getTimeLimit, putTimeLimit, timeoutSignal, hashType } = readSettings(first);
    assert.deepEqual([runTimeLimit, getTimeLimit, putTimeLimit, timeoutSignal, hashType], [1, 2, 3, 15, 'SHA1']);
    const absolute = writeConf(`Import=${first}\n`);
    assert.equal(
      failureOf(absolute).message,
      `${join(first, '..', 'sub/deeper/c.conf')} line 2: Import is nested deeper than 3 files`,
    );
  });

  it('ends with file and line when it forms a cycle', () => {
    const circle = writeTree({ 'a.conf': 'Import=b.conf\n', 'b.conf': '\nImport=a.conf\n' });
    assert.equal(
      failureOf(circle).message,
      `${join(circle, '..', 'b.conf')} line 2: Import is nested deeper than 3 files`,
    );
    const itself = writeTree({ 'a.conf': `${REQUIRED}Import=a.conf\n` });
    assert.equal(failureOf(itself).message, `${itself} line 1: ClientId is given twice`);
  });

  it('names the imported file in every error', () => {
    const bad = writeTree({ 'a.conf': `${REQUIRED}Import=b.conf\n`, 'b.conf': 'ClientId=other\n' });
    const inner = join(bad, '..', 'b.conf');
    assert.equal(failureOf(bad).message, `${inner} line 1: ClientId is given twice`);
    for (const [text, complaint] of [
      ['\nHashType=MD4', 'line 2: HashType has a value that is not allowed'],
      ['nonsense', 'line 1: not Key=value'],
      ['GetHookEnable=Y', 'line 1: GetHookEnable=Y requires GetHookCommandLine'],
    ] as const) {
      writeFileSync(inner, text);
      assert.equal(failureOf(bad).message, `${inner} ${complaint}`);
    }
    rmSync(inner);
    assert.equal(failureOf(bad).message, `${inner} cannot be read: ENOENT`);
    const nothing = writeConf(`${REQUIRED}Import=\n`);
    assert.equal(failureOf(nothing).message, `${nothing} line 3: Import names no file`);
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

  it('refuses a setting that is given twice, in one file or in two', () => {
    const one = writeConf(`${REQUIRED}\nclientid=client2\n`);
    assert.equal(failureOf(one).message, `${one} line 4: clientid is given twice`);
    const two = writeConf('# other\nClientId=client1\n');
    assert.equal(failureOf(`${writeConf(REQUIRED)},${two}`).message, `${two} line 2: ClientId is given twice`);
  });

  it('refuses a malformed line and an unknown setting, naming file and line', () => {
    const stray = writeConf(`${REQUIRED}\n\nHashType MD5\n`);
    assert.equal(failureOf(stray).message, `${stray} line 5: not Key=value`);
    for (const key of ['SSLVerifyPeer', 'GetHook', 'Imports', 'constructor', 'toString']) {
      const unknown = writeConf(`${key}=Y\n${REQUIRED}`);
      assert.equal(failureOf(unknown).message, `${unknown} line 1: ${key} is not a setting of this client`);
    }
  });

  it('refuses a file that lacks required settings, and one that cannot be read', () => {
    assert.equal(failureOf(writeConf('URLGetURL=http://h/\n')).message, 'ClientId is required');
    assert.equal(failureOf(writeConf('ClientId=c\nURLGetURL=\n')).message, 'URLGetURL is required');
    assert.match(failureOf(writeConf('')).hints.join(), /^add a line ClientId=/);
    assert.equal(failureOf(join(folder, 'none')).message, `${join(folder, 'none')} cannot be read: ENOENT`);
    assert.equal(failureOf(folder).message, `${folder} cannot be read: EISDIR`);
  });

  it('prefers user and password from a URL, decoded, and takes them out of the URL', () => {
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
        const { message, hints } = failureOf(writeConf(text));
        refused += 1;
        assert.ok(!`${message}${hints}`.includes(secret), `${message} ${hints}`);
      }),
      { numRuns: 200 },
    );
    assert.equal(refused, 200);
  });
});
