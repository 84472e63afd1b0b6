// nph-webjob.cfg as the server reads it: every setting of the table with valid and invalid values,
// repeated keys, spellings, and which file is read.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { CONTROLS, type ServerSettings } from '../../cgi/setting-table.ts';
import { DEFAULT_FILES, parseSettings, readSettings } from '../../cgi/settings.ts';

interface Samples {
  /** An allowed value that differs from the default, and what it changes. */
  good: [value: string, changes: Partial<ServerSettings>][];
  bad: string[];
  /** Settings without which this one has no effect. */
  with?: string;
}

const BAD_FLAGS = ['', 'yes', 'no', '1', '0', 'true', 'YN', 'Y N', 'Y;', '"Y"', 'on', '\u{ff39}'];
const GOOD_PATHS = ['/srv/web job', '/a;b"c"=[d]\\$&', '/ä'];
const BAD_PATHS = ['', 'incoming', './incoming', '../incoming', '~/incoming', '<Base>/x', 'C:\\x', '/a\x07', '/a\x7fb'];

/** Samples of the settings other than flags and directories. */
const SAMPLES: Record<string, Samples> = {
  SiteServers: {
    good: ['server_2:/srv/logs', 'a-b:/x y,c.d:/z'].map((siteServers) => [siteServers, { siteServers }]),
    bad: ['server_2', 'server_2:logs', ':/logs', 'a:/b,', 'a:/b,c', 'a b:/c'],
  },
  BaseDirectory: {
    good: ['/var/integrity', '/var/integrity/', '/var/integrity//'].map((value) => [
      value,
      treeBelow('/var/integrity'),
    ]),
    bad: BAD_PATHS,
  },
  ...Object.fromEntries(
    [
      ['MaxBytesPerDay', 15],
      ['MaxContentLength', 20],
      ['MaxRequestsAtOnce', 3],
      ['MaxUploadsPerDay', 8],
      ['GetHookOutputLimit', 15],
      ['CustodySegmentLimit', 15],
    ].map(([key, digits]) => [key, bytes(fieldOf(String(key)), Number(digits))]),
  ),
  ...Object.fromEntries(['GetHookTimeLimit', 'PutHookTimeLimit'].map((key) => [key, seconds(fieldOf(key))])),
  ...Object.fromEntries(['GetHookStatus', 'PutHookStatus'].map((key) => [key, exitStatus(fieldOf(key))])),
  GetHookCommandLine: command('getHookCommandLine', 'GetHookEnable=N', ['%file'], ['%out', '%rdy']),
  GetTriggerCommandLine: command('getTriggerCommandLine', 'GetTriggerEnable=N', [], ['%file', '%env']),
  PutHookCommandLine: command('putHookCommandLine', 'PutHookEnable=N', ['%out %err %env %rdy'], ['%file']),
  PutTriggerCommandLine: command('putTriggerCommandLine', 'PutTriggerEnable=N', ['%out %err %env %rdy'], ['%file']),
  // An enabled command needs its command line.
  ...Object.fromEntries(
    ['GetHook', 'GetTrigger', 'PutHook', 'PutTrigger'].map((name) => [
      `${name}Enable`,
      { with: `${name}CommandLine=true`, good: [['Y', { [fieldOf(`${name}Enable`)]: true }]], bad: BAD_FLAGS },
    ]),
  ),
  DsvSignatureSuffix: {
    good: [
      ['.asc', { dsvSignatureSuffix: '.asc' }],
      ['..x', { dsvSignatureSuffix: '..x' }],
    ],
    bad: ['', '.', 'sig', '/sig', './sig', '.a/b', '.a b', `.${'x'.repeat(33)}`, '.%cid'],
  },
  ViewURL: {
    good: [
      ['https://a.example/webjob-view', { viewURL: 'https://a.example/webjob-view' }],
      ['http://[::1]:8080', { viewURL: 'http://[::1]:8080' }],
    ],
    bad: [
      'a.example',
      'https://',
      'ftp://a',
      'javascript:x',
      'https://a b',
      'https://a?b',
      'https://u@a',
      'https://a"',
      'https://ä',
    ],
  },
  BatchCommand: {
    good: [
      ['batch', { batchCommand: 'batch' }],
      ['a_+.:-1', { batchCommand: 'a_+.:-1' }],
    ],
    bad: ['.', '..', 'a/b', '/a', 'a b', 'a,b', '%cid', 'ä', 'x'.repeat(1025)],
  },
  FolderList: {
    good: [
      ['', { folderList: '' }],
      ['a', { folderList: 'a' }],
      ['a:b.c:D-_9', { folderList: 'a:b.c:D-_9' }],
      ['...:.a', { folderList: '...:.a' }],
    ],
    bad: [
      '.',
      '..',
      'a:..',
      '..:a',
      'a:.:b',
      '../a',
      'a/b',
      '/a',
      ':',
      'a:',
      ':a',
      'a::b',
      'a b',
      'a,b',
      'a\0b',
      '%cid',
    ],
  },
  PutNameFormat: {
    good: [
      ['%cid/%Y/%m/%d/%jid', { putNameFormat: '%cid/%Y/%m/%d/%jid' }],
      ['a', { putNameFormat: 'a' }],
    ],
    bad: ['', '/%cid', '../%cid', '%cid/..', '%cid/', 'a//b', '%x', '%', '%cid %cmd', '$(id)', '`id`', 'a;b', 'a\\b'],
  },
  ServerId: {
    good: [
      ['a', { serverId: 'a' }],
      ['A.b_c-9', { serverId: 'A.b_c-9' }],
      ['x'.repeat(64), { serverId: 'x'.repeat(64) }],
    ],
    bad: ['', 'x'.repeat(65), 'a b', 'a/b', 'a%cid', 'a:b', 'ä', 'a\tb'],
  },
};

function bytes(field: string, digits: number): Samples {
  return {
    good: ['0', '7', '007', '9'.repeat(digits)]
      .filter((value) => value !== CONTROLS.find(({ key }) => fieldOf(key) === field)?.default)
      .map((value) => [value, { [field]: Number(value) }]),
    bad: ['', '-1', '+1', '1.5', '1e6', '0x10', '10 MB', '1_000', '9'.repeat(digits + 1), 'unlimited'],
  };
}

function seconds(field: string): Samples {
  return {
    good: ['1', '999'].map((value) => [value, { [field]: Number(value) }]),
    bad: ['', '0', '-1', '1000', '1.5', '30s', '030'],
  };
}

function exitStatus(field: string): Samples {
  return {
    good: ['1', '99', '100', '199', '249', '255'].map((value) => [value, { [field]: Number(value) }]),
    bad: ['', '256', '300', '1000', '-1', '1.0', 'zero'],
  };
}

function command(field: string, off: string, tokens: string[], strangers: string[]): Samples {
  const good = ['/bin/x -a \'b c\' "$HOME" | y; z `w` %cid %cmd %jid %pid %sid %ip %ipv4 %s %%', ...tokens];
  return {
    with: off,
    good: good.map((value) => [value, { [field]: value }]),
    bad: ['%', '%x', 'a%', '%Cid', 'a\x07b', 'a\x7fb', 'a\tb', ...strangers],
  };
}

function treeBelow(base: string): Partial<ServerSettings> {
  const parts = ['config', 'dynamic', 'incoming', 'limits', 'logfiles', 'profiles', 'spool'] as const;
  return { baseDirectory: base, ...Object.fromEntries(parts.map((part) => [`${part}Directory`, `${base}/${part}`])) };
}

/** `RequireUser` is `requireUser`. */
function fieldOf(key: string): string {
  return key.replace(/^[A-Z]/, (first) => first.toLowerCase());
}

function samplesOf(control: (typeof CONTROLS)[number]): Samples {
  const { key, allowed } = control;
  const own = SAMPLES[key];
  if (own) return own;
  if (allowed === '[YNyn]') {
    const isOff = control.default === 'N';
    return {
      good: (isOff ? ['Y', 'y'] : ['N', 'n']).map((value) => [value, { [fieldOf(key)]: isOff }]),
      bad: BAD_FLAGS,
    };
  }
  assert.match(key, /Directory$/, `${key} needs a row in SAMPLES`);
  return { good: GOOD_PATHS.map((path) => [path, { [fieldOf(key)]: path }]), bad: BAD_PATHS };
}

function parse(...lines: (string | undefined)[]): { settings: ServerSettings; problems: string[] } {
  const problems: string[] = [];
  return { settings: parseSettings(lines.filter((line) => line !== undefined).join('\n'), problems), problems };
}

const DEFAULTS = parse().settings;

describe('every setting of nph-webjob.cfg', () => {
  it('has its documented default', () => {
    assert.deepEqual(parse(), { settings: DEFAULTS, problems: [] });
    const { folderList, capContentLength, putNameFormat, serverId, useGMT, requireUser, requireMatch } = DEFAULTS;
    assert.deepEqual(
      { folderList, capContentLength, putNameFormat, serverId, useGMT, requireUser, requireMatch },
      {
        folderList: 'common',
        capContentLength: false,
        putNameFormat: '%cid_%Y%m%d%H%M%S_%pid_%cmd',
        serverId: 'server_1',
        useGMT: false,
        requireUser: true,
        requireMatch: true,
      },
    );
    assert.deepEqual({ ...DEFAULTS, ...treeBelow('/var/webjob') }, DEFAULTS);
  });

  it('accepts its default', () => {
    const written = CONTROLS.filter((control) => !control.default.startsWith('<Base>'));
    const lines = written.map((control) => `${control.key}=${control.default}`);
    assert.deepEqual(parse(...lines), { settings: DEFAULTS, problems: [] });
  });
});

for (const control of CONTROLS) {
  describe(control.key, () => {
    const { key } = control;
    const samples = samplesOf(control);
    const unchanged = parse(samples.with).settings;

    it('accepts its documented values', () => {
      for (const [value, changes] of samples.good) {
        assert.deepEqual(parse(samples.with, `${key}=${value}`), {
          settings: { ...unchanged, ...changes },
          problems: [],
        });
        assert.notDeepEqual({ ...unchanged, ...changes }, unchanged, `${value} is no default`);
      }
    });

    it('is the same in any case, with blanks, comments and CR', () => {
      const [value, changes] = samples.good[0] ?? assert.fail('no good value');
      const expected = { settings: { ...unchanged, ...changes }, problems: [] };
      for (const spelling of [key.toLowerCase(), key.toUpperCase(), `  ${key}  `]) {
        assert.deepEqual(parse(samples.with, `${spelling}=\t${value} # ${key}=`, ''), expected, spelling);
      }
      assert.deepEqual(parse(`${samples.with ?? ''}\r`, `${key}=${value}\r`, '\r'), expected);
      assert.deepEqual(parse(samples.with, `${key}s=${value}`, `X${key}=${value}`), {
        settings: unchanged,
        problems: [],
      });
    });

    it('refuses other values, naming itself and hiding the value', () => {
      for (const value of samples.bad) {
        const { settings, problems } = parse(samples.with, '# a comment', `${key.toLowerCase()}=${value}`);
        const line = samples.with === undefined ? 2 : 3;
        assert.deepEqual(problems, [`${key} in line ${line} has a value that is not allowed`], JSON.stringify(value));
        assert.deepEqual(settings, unchanged);
      }
    });

    it('takes the last of several values', () => {
      const [good, changes] = samples.good[0] ?? assert.fail('no good value');
      const bad = samples.bad.at(-1) ?? assert.fail('no bad value');
      const changed = { settings: { ...unchanged, ...changes }, problems: [] };
      assert.deepEqual(parse(samples.with, `${key}=${bad}`, `${key.toUpperCase()}=${good}`), changed);
      assert.equal(parse(samples.with, `${key.toUpperCase()}=${good}`, `${key}=${bad}`).problems.length, 1);
      if (control.default.startsWith('<Base>')) return;
      const back = parse(samples.with, `${key}=${good}`, `${key}=${control.default}`);
      assert.deepEqual(back, { settings: unchanged, problems: [] });
    });
  });
}

describe('several settings', () => {
  it('report every problem', () => {
    const { problems } = parse('RequireUser=1', 'UseGmt=2', 'ServerId=a/b');
    assert.deepEqual(problems.map((problem) => problem.split(' ')[0]).sort(), ['RequireUser', 'ServerId', 'UseGMT']);
  });

  it('keep MaxContentLength checked while there is no limit', () => {
    assert.deepEqual(parse('MaxContentLength=7'), { settings: { ...DEFAULTS, maxContentLength: 7 }, problems: [] });
    assert.equal(parse('CapContentLength=N', 'MaxContentLength=x').problems.length, 1);
  });

  it('move one part of the tree and leave the rest below BaseDirectory', () => {
    const { settings } = parse('IncomingDirectory=/elsewhere', 'BaseDirectory=/a$&b');
    assert.deepEqual(settings, { ...DEFAULTS, ...treeBelow('/a$&b'), incomingDirectory: '/elsewhere' });
    assert.deepEqual(parse('BaseDirectory=/').settings, { ...DEFAULTS, ...treeBelow('') });
  });

  it('are read past malformed lines', () => {
    const noise = [
      '[section]',
      'stray',
      '=x',
      '__proto__=x',
      'constructor=x',
      'toString=x',
      'NoSuchControl=x',
      ';ServerId=x',
    ];
    assert.deepEqual(parse(...noise, 'ServerId=a', ...noise), {
      settings: { ...DEFAULTS, serverId: 'a' },
      problems: [],
    });
  });

  it('spell UseGMT in either way', () => {
    for (const key of ['UseGMT', 'UseGmt', 'usegmt', 'USEGMT'])
      assert.equal(parse(`${key}=Y`).settings.useGMT, true, key);
  });
});

describe('a hook or trigger', () => {
  it('requires a command line when it is enabled', () => {
    for (const name of ['GetHook', 'PutHook', 'GetTrigger', 'PutTrigger']) {
      assert.deepEqual(parse(`${name}Enable=Y`).problems, [`${name}CommandLine is missing, and ${name}Enable=Y`]);
    }
  });

  it('accepts no path that a shell would split', () => {
    for (const path of ['/a b', '/a;b', '/$(id)', "/a'b", '/a%b', '/a\\b', '/*']) {
      for (const [name, directory] of [
        ['GetHook', 'ProfilesDirectory'],
        ['PutHook', 'IncomingDirectory'],
        ['PutTrigger', 'IncomingDirectory'],
      ] as const) {
        const lines = [`${directory}=${path}`, `${name}CommandLine=true`];
        assert.deepEqual(parse(...lines).problems, [], 'harmless while it is off');
        assert.deepEqual(parse(...lines, `${name}Enable=Y`).problems, [
          `${directory} contains a character that ${name}CommandLine must not receive`,
        ]);
      }
    }
  });
});

describe('the settings file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-settings-'));
  after(() => rmSync(folder, { recursive: true }));
  const write = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const missing = join(folder, 'missing', 'nph-webjob.cfg');
  const first = write('first.cfg', 'ServerId=first\n');
  const second = write('second.cfg', 'ServerId=second\n');
  const read = (...args: Parameters<typeof readSettings>) => {
    const { settings, problems } = readSettings(...args);
    return { settings, problems };
  };
  const serverId = (file: string | undefined, defaults?: string[]): string => {
    const { settings, problems } = read(file, defaults);
    assert.deepEqual(problems, []);
    return settings.serverId;
  };

  it('is the named one, or none', () => {
    assert.equal(serverId(second, [first]), 'second');
    assert.equal(serverId(missing, [first, second]), 'server_1');
    assert.deepEqual(read(missing), { settings: DEFAULTS, problems: [] });
  });

  it('is otherwise the first existing default, or none', () => {
    assert.equal(serverId(undefined, [first, second]), 'first');
    assert.equal(serverId(undefined, [second, first]), 'second');
    assert.equal(serverId(undefined, [missing, second]), 'second');
    assert.equal(serverId(undefined, [missing]), 'server_1');
  });

  it('is in the documented default places, in that order', () => {
    const contract = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'protocol.md'), 'utf8');
    const documented = [...contract.matchAll(/`(\/[^`]*\/nph-webjob\.cfg)`/g)].map(([, path]) => path);
    assert.deepEqual(DEFAULT_FILES, documented);
  });

  it('is an error when it exists and cannot be read: no other is read in its place', () => {
    mkdirSync(join(folder, 'folder.cfg'));
    symlinkSync('loop.cfg', join(folder, 'loop.cfg'));
    const unreadable: [name: string, code: string][] = [
      ['folder.cfg', 'EISDIR'],
      ['loop.cfg', 'ELOOP'],
      ['first.cfg/nph-webjob.cfg', 'ENOTDIR'],
    ];
    chmodSync(write('secret.cfg', 'ServerId=secret\n'), 0);
    chmodSync(folder, 0o755);
    if (process.platform !== 'win32') unreadable.push(['secret.cfg', 'EACCES']);
    const owner = process.geteuid?.() ?? 0;
    // Root can read everything.
    if (owner === 0) process.seteuid?.(65_534);
    try {
      for (const [name, code] of unreadable) {
        const expected = { settings: DEFAULTS, problems: [`the settings file cannot be read: ${code}`] };
        assert.deepEqual(read(join(folder, name)), expected, name);
        assert.deepEqual(read(undefined, [join(folder, name), second]), expected, name);
      }
    } finally {
      process.seteuid?.(owner);
    }
  });

  it('may contain any bytes', () => {
    const path = join(folder, 'bytes.cfg');
    writeFileSync(
      path,
      Buffer.concat([Buffer.from([0xff, 0xfe, 0, 0x80, 10]), Buffer.from('ServerId=a\n'), Buffer.alloc(9)]),
    );
    assert.equal(serverId(path), 'a');
  });
});
