// The man pages compared with the tables of the sources in both directions, and every example in
// them parsed by the corresponding parser. A new setting, token, status, option or exit code that
// is missing from its page fails here.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openBody, requestFromEnv } from 'node-cgi-compat';
import { parseKeyValue } from 'webjob-conf';
import { parseReady } from 'webjob-locker';
import { parseCommandLogLine, parseGetQuery, parseLogLine, parseRecord, REASONS, RECORD_FIELDS } from 'webjob-protocol';
import { COMMAND_ENVIRONMENT } from '../../cgi/hooks.ts';
import { isListed, parseHostList } from '../../cgi/hosts.ts';
import { JOB_CONTROLS, CONTROLS as SERVER_CONTROLS, SITE_CONTROLS } from '../../cgi/setting-table.ts';
import { DEFAULT_FILES, parseSettings } from '../../cgi/settings.ts';
import { PATH_TOKENS, TOKENS } from '../../cgi/tokens.ts';
import { trackRequest } from '../../cgi/tracking.ts';
import { EXIT_CODES } from '../../client/failure.ts';
import { DIGESTS } from '../../client/modes.ts';
import { CONTROLS as CLIENT_CONTROLS } from '../../client/setting-table.ts';
import { readSettings as readClientSettings } from '../../client/settings.ts';
import { parseCosigners } from '../../evidence/cosigners.ts';
import { runWebjob } from '../support/client-job.ts';
import {
  findLinter,
  MAN_FOLDER,
  MAN_PAGES,
  readDisplays,
  readItems,
  readPage,
  readSection,
  readTitles,
  readWords,
} from '../support/mdoc.ts';

interface Control {
  key: string;
  allowed: string;
  default: string;
}

const project = join(import.meta.dirname, '..', '..');
const read = (path: string): string => readFileSync(join(project, path), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'webjob-man-'));
after(() => rmSync(folder, { recursive: true }));

const cfgPage = readPage('nph-webjob.cfg.5');
const serverPage = readPage('nph-webjob.8');
const confPage = readPage('webjob.conf.5');
const clientPage = readPage('webjob.1');

const keysOf = (controls: readonly Control[]): string[] => controls.map(({ key }) => key);

/** An entry of CONTROLS: `UseGMT (Y or N; default N)`. */
interface Entry {
  key: string;
  values: string;
  default: string;
}

function readEntries(page: readonly string[]): Entry[] {
  return readItems(readSection(page, 'SETTINGS'), 'Ic').map((head) => {
    const match = /^([A-Za-z]+) (.+?) ?; (?:default (.+)|no default|required)$/.exec(head);
    assert.ok(match, `no values and default in: ${head}`);
    const [, key = '', values = '', words = ''] = match;
    return { key, values, default: words.replace(/^(\w+) below BaseDirectory$/, '<Base>/$1') };
  });
}

/** Values on both sides of every limit that the words of an entry describe. */
function sampleValues(words: string): { good: string[]; bad: string[] } {
  const [, low = '', high = ''] = /(?:from )?([0-9]+) to ([0-9]+)/.exec(words) ?? [];
  const specials = [...(/digits and (.*)$/.exec(words)?.[1] ?? '')].filter((character) => character !== ' ');
  const fixed: Record<string, { good: string[]; bad: string[] }> = {
    'absolute path': { good: ['/', '/a b/c'], bad: ['', 'a/b', '/\u0001'] },
    'relative path with tokens': { good: ['%cid', 'a/%s'], bad: ['', '/a', 'a/../b', './a', 'a//b', '%q', 'a b'] },
    'directories separated by colons, or nothing': { good: ['', 'a', 'a:b.c:_-'], bad: ['a/b', '..', 'a::b', 'a b'] },
    'server ids with directories, separated by commas, or nothing': {
      good: ['', 'server_2:/a b', 's-2:/a,s.3:/b/c'],
      bad: ['a', 'a:b', 'a:/b,', '/b', 'a b:/c', 'a:/\u0001'],
    },
    'file name, or nothing': { good: ['', 'batch', 'a_+.:-1'], bad: ['a b', 'a/b', 'a~'] },
    'address with http or https, or nothing': {
      good: ['', 'https://a.example/view', 'http://[::1]:8080/v/'],
      bad: ['a.example', 'ftp://a', 'https://', 'https://a b', 'https://a?b'],
    },
    command: { good: ['', 'a "b" | c; d', '%cid%%'], bad: ['%q', '100%', 'a\u0001'] },
    URL: { good: ['http://h/', 'https://u:p@h:1/a'], bad: ['ftp://h/', 'http://h/?a', 'http://h/ a', 'h'] },
    text: { good: ['', 'a b', '%'], bad: ['\u0001'] },
    'command with %file and %cmd': { good: ['%cmd', 'a "b" | c; d', '%file%%'], bad: ['', '%q', '100%', 'a\u0001'] },
    host: { good: ['proxy.example.com', '10.0.0.1', '::1'], bad: ['', 'a b', 'a/b', 'a@b'] },
    path: { good: ['', '/a b', 'C:\\temp'], bad: ['\u0001'] },
    'age recipients, separated by commas': {
      good: ['age1a', 'age1a,age1b', 'age1a, age1b'],
      bad: ['', 'age1a;b', 'ä'],
    },
  };
  if (fixed[words]) return fixed[words];
  if (words === 'Y or N') return { good: ['Y', 'N', 'y', 'n'], bad: ['', 'yes', '1', 'YN'] };
  if (/^(?:number|seconds) from /.test(words))
    return { good: [low, high], bad: [`${+low - 1}`, `${+high + 1}`, '', 'a'] };
  if (/ digits$/.test(words)) return { good: ['0', '9'.repeat(+high)], bad: ['', '9'.repeat(+high + 1), '-1', 'a'] };
  if (specials.length > 0) {
    const start = words.startsWith('a dot, then ') ? '.' : '';
    const good = ['a'.repeat(+low), 'Z9'.repeat(+high / 2), ...specials].map((value) => start + value);
    return { good, bad: [start, `${start}${'a'.repeat(+high + 1)}`, `${start}a b`, `${start}a/b`, `${start}a~`] };
  }
  const good = words.split(/ or | , /);
  assert.ok(good.length > 1 && good.every((word) => /^[\w.]+$/.test(word)), `no samples for: ${words}`);
  return { good, bad: ['', 'other', `${good[0]}${good[1]}`, `${good[0]}`.replace(/\.|$/, 'x')] };
}

const NONE = { refused: [], allowed: [] };

function describeControls(
  name: string,
  page: readonly string[],
  controls: readonly Control[],
  shippedFile: string,
): void {
  describe(`${name}, SETTINGS`, () => {
    const entries = readEntries(page);
    const find = ({ key }: Control): Entry => {
      const entry = entries.find((candidate) => candidate.key === key);
      assert.ok(entry, `${key} has no entry`);
      return entry;
    };

    it('lists every setting once, and no other', () => {
      assert.deepEqual(keysOf(controls).sort(), entries.map(({ key }) => key).sort());
    });

    it('gives each setting its default', () => {
      for (const control of controls) assert.equal(find(control).default, control.default, control.key);
    });

    it('gives the values of each setting', () => {
      for (const control of controls) {
        const { good, bad } = sampleValues(find(control).values);
        const isAllowed = (value: string): boolean => new RegExp(`^(?:${control.allowed})$`).test(value);
        assert.deepEqual(
          { refused: good.filter((value) => !isAllowed(value)), allowed: bad.filter(isAllowed) },
          NONE,
          control.key,
        );
      }
    });

    it('groups and orders settings as the shipped file does', () => {
      const shipped = read(shippedFile);
      const titles = [...shipped.matchAll(/^# ---- (.+?)(?:: .*)? ----$/gm)].map(([, title]) => title);
      assert.deepEqual(readTitles(readSection(page, 'SETTINGS')), titles);
      const order = [...shipped.matchAll(/^#?([A-Z][A-Za-z0-9]*)=/gm)].map(([, key]) => key);
      assert.deepEqual(
        entries.map(({ key }) => key),
        order,
      );
    });
  });
}

describeControls('nph-webjob.cfg(5)', cfgPage, SERVER_CONTROLS, 'conf/nph-webjob.cfg');
describeControls('webjob.conf(5)', confPage, CLIENT_CONTROLS, 'conf/webjob.conf');

describe('nph-webjob.cfg(5)', () => {
  it('looks for the settings file where the server does', () => {
    assert.deepEqual(
      readWords(readSection(cfgPage, 'DESCRIPTION'), 'Pa').slice(0, DEFAULT_FILES.length),
      DEFAULT_FILES,
    );
  });

  it('lists every token once, in the order of the tables, and no other', () => {
    const tokens = readItems(readSection(cfgPage, 'TOKENS'), 'Cm').map((head) => head.split(' ')[0]);
    assert.deepEqual(
      tokens,
      [...TOKENS, ...PATH_TOKENS].map((token) => `%${token}`),
    );
  });

  it('says where each token is known', () => {
    const places = SERVER_CONTROLS.filter(({ key }) => /CommandLine$|^PutNameFormat$/.test(key));
    for (const head of readItems(readSection(cfgPage, 'TOKENS'), 'Cm')) {
      const [token = '', ...noted] = head.split(/ (?:, )?/);
      const known = places.filter(({ allowed }) => new RegExp(`^(?:${allowed})$`).test(token));
      assert.deepEqual(noted.length > 0 ? noted : keysOf(places), keysOf(known), token);
    }
  });

  it('lists the settings that no override may change', () => {
    const section = readSection(cfgPage, 'Settings of the main file alone', 'Ss');
    assert.deepEqual(readWords(section, 'Ic').sort(), keysOf(SITE_CONTROLS).sort());
  });

  it('gives the PATH of hooks and triggers', () => {
    assert.ok(readWords(readSection(cfgPage, 'HOOKS AND TRIGGERS'), 'Pa').includes(COMMAND_ENVIRONMENT.PATH));
  });
});

describe('nph-webjob(8)', () => {
  it('lists every status with its reason, and no other', () => {
    const statuses = Object.entries(REASONS).map(([code, reason]) => `${code} ${reason}`);
    assert.deepEqual(readItems(readSection(serverPage, 'STATUS CODES')), statuses);
  });

  it('lists checks in the order of docs/protocol.md', () => {
    const codesAfter = (text: string, words: string): string[] =>
      (text.split(words)[1] ?? '').split(/456[;.]/)[0]?.match(/\b[0-9]{3}\b/g) ?? [];
    const documented = codesAfter(read('docs/protocol.md'), 'Checks run in this order');
    assert.equal(documented.length, 13);
    const page = readSection(serverPage, 'STATUS CODES').join('\n');
    assert.deepEqual(codesAfter(page, 'If several apply, the answer is the first in this order'), documented);
  });

  it('lists every variable that the sources read, and no other', () => {
    const shells = ['request', 'listener'].map((name) => `cgi/node-cgi-compat/${name}.ts`);
    const files = [...shells, ...readdirSync(join(project, 'cgi')).map((name) => `cgi/${name}`)];
    const sources = files
      .filter((name) => name.endsWith('.ts'))
      .map(read)
      .join('\n');
    const variables = [...sources.matchAll(/\benv\.([A-Z][A-Z_]+)/g)].map(([, name]) => name);
    const headers = [...sources.matchAll(/findHeader\([a-z.]+, '([A-Za-z-]+)'/g)].map(
      ([, name = '']) => `HTTP_${name.toUpperCase().replaceAll('-', '_')}`,
    );
    assert.ok(headers.length > 0);
    const listed = readItems(readSection(serverPage, 'ENVIRONMENT'), 'Ev').flatMap((head) => head.split(' , '));
    assert.deepEqual(listed.sort(), [...new Set([...variables, ...headers, 'TZ'])].sort());
  });

  it('shows in its example what request tracking writes of the request', () => {
    const [text = ''] = readDisplays(serverPage).flatMap(({ kind, text }) => (kind === 'json' ? text : []));
    const shown = JSON.parse(text);
    const payload = '#!/bin/sh\nhostname\n';
    assert.deepEqual(Object.entries(trackExample(payload)), Object.entries({ ...shown, ...CHANGING }));
    assert.equal(shown.sha256.payload, createHash('sha256').update(payload).digest('hex'));
  });
});

/** What differs between runs. */
const CHANGING = { time: '', pid: 0, milliseconds: 0 };

/** What trackRequest() writes for the article's GET. */
function trackExample(payload: string): Record<string, unknown> {
  const request = requestFromEnv({
    REQUEST_METHOD: 'GET',
    REMOTE_USER: 'client1',
    REMOTE_ADDR: '192.168.1.120',
    CONTENT_LENGTH: '0',
    QUERY_STRING: 'VERSION=webjob+1.4.0+ssl+32+bit&SYSTEM=sparc+OpenBSD+3.5&CLIENTID=client1&FILENAME=host.sh',
  });
  const settings = parseSettings(`LogfilesDirectory=${folder}\n`, []);
  const query = parseGetQuery(request.query);
  const known = { query, jobId: 'server_1_1085355126_00723' };
  writeFileSync(join(folder, 'payload'), payload);
  const fd = openSync(join(folder, 'payload'), 'r');
  try {
    trackRequest(
      { request, settings, body: openBody(fd, 0), receivedAt: new Date(), sequence: 723, ...known },
      { status: 200, file: { fd, size: payload.length } },
    );
  } finally {
    closeSync(fd);
  }
  return { ...JSON.parse(readFileSync(join(folder, 'nph-webjob.json.log'), 'utf8')), ...CHANGING };
}

describe('webjob(1)', () => {
  it('lists every exit code, and no other', () => {
    const codes = readItems(readSection(clientPage, 'EXIT STATUS'));
    assert.deepEqual(codes, [...Object.values(EXIT_CODES).map(String), '128 + n']);
  });

  it('shows every mode of webjob --help in its synopsis, in the same order', async () => {
    const { stdout } = await runWebjob(['--help']);
    const [usage = ''] = /^Usage: .*?\n\n/s.exec(stdout) ?? [];
    const modes = usage
      .trimEnd()
      .split('\n')
      .map((line) => /-\w\|(--[a-z-]+)|(--(?:flush|batch))/.exec(line)?.slice(1).join(''));
    assert.ok(modes.length >= 5 && modes.every(Boolean), usage);
    const synopsis = readSection(clientPage, 'SYNOPSIS')
      .join('\n')
      .split(/^\.Nm$/m)
      .slice(1);
    const listed = synopsis.map((form) => /^\n(?:\.Brq Fl \w \| Fl|\.Fl) (-[a-z-]+)/.exec(form)?.[1]);
    assert.deepEqual(listed, [...modes.map((mode) => mode?.slice(1)), '-help']);
  });

  it('lists every variable that the sources read, and no other', () => {
    const own = readdirSync(join(project, 'client')).filter((name) => name.endsWith('.ts'));
    const client = own.map((name) => read(`client/${name}`)).join('\n');
    const shared = readdirSync(join(project, 'cli')).filter((name) => client.includes(`'../cli/${name}'`));
    const sources = [client, ...shared.map((name) => read(`cli/${name}`))].join('\n');
    const variables = [...sources.matchAll(/\b[A-Z_]+_VARIABLE = '([A-Z_]+)'/g)].map(([, name]) => name);
    const direct = [...sources.matchAll(/\benv(?:\.|\[')([A-Z]\w+)/g)].map(([, name]) => name ?? '');
    const named = direct.filter((name) => !name.endsWith('_VARIABLE'));
    assert.ok(variables.length >= 2);
    // os.tmpdir() needs one variable, and the C library the other.
    const listed = readItems(readSection(clientPage, 'ENVIRONMENT'), 'Ev');
    assert.deepEqual(listed.sort(), [...new Set([...variables, ...named, 'TMPDIR', 'TZ'])].sort());
  });

  it('names the field of an inner record, and every digest', () => {
    assert.ok(read('client/record.ts').includes("'OuterJid'"));
    assert.ok(readWords(readSection(clientPage, 'DESCRIPTION'), 'Ic').includes('OuterJid'));
    const section = readSection(clientPage, 'DESCRIPTION').join('\n');
    for (const digest of DIGESTS) assert.match(section, new RegExp(`\\b${digest}\\b`));
  });

  it('lists the options of webjob --help, and no other', async () => {
    const { stdout } = await runWebjob(['--help']);
    const offered = [...stdout.matchAll(/^ {2}(?:(-[a-z]), )?(--[a-z-]+) /gm)].map(([, short, long]) =>
      [short, long].filter(Boolean).join(' '),
    );
    assert.ok(offered.length >= 4, stdout);
    const listed = readSection(clientPage, 'DESCRIPTION')
      .filter((line) => line.startsWith('.It Fl '))
      .map((line) => [...line.matchAll(/Fl (\S+)/g)].map(([, option]) => `-${option}`).join(' '));
    assert.deepEqual(listed, offered);
  });
});

describe('the examples in the man pages', () => {
  const parsers: Record<string, (text: string) => void> = {
    'nph-webjob.cfg': (text) => parseServerExample(text, SERVER_CONTROLS),
    override: (text) => parseServerExample(text, JOB_CONTROLS),
    'hosts.access': (text) => {
      const list = parseHostList(text);
      assert.ok(isListed(list, 'client1', '192.168.1.120') && isListed(list, 'client2', '::1'));
    },
    'webjob.conf': (text) => {
      const path = join(folder, 'webjob.conf');
      // What others import is the first example, the article's client.
      const first = readDisplays(confPage).find(({ kind }) => kind === 'webjob.conf')?.text ?? '';
      for (const [file, content] of [
        [join(folder, 'server.conf'), first],
        [path, text],
      ] as const)
        writeFileSync(file, content, { mode: 0o600 });
      assert.match(readClientSettings(path).get.url.href, /\/nph-webjob\.cgi$/);
    },
    log: (text) => forEachLine(text, parseLogLine),
    'command log': (text) => forEachLine(text, parseCommandLogLine),
    json: JSON.parse,
    'tlog-policy': parseCosigners,
    ready: parseReady,
    record: (text) => assert.deepEqual(Object.keys(parseRecord(text).fields), [...RECORD_FIELDS]),
    shell: (text) => assert.equal(spawnSync('/bin/sh', ['-n'], { input: text }).stderr.toString(), ''),
  };

  for (const page of MAN_PAGES) {
    for (const { kind, text } of readDisplays(readPage(page))) {
      it(`parse: ${kind} in ${page}: ${text.split('\n')[0]}`, () => {
        const parse = parsers[kind];
        assert.ok(parse, `there is no parser for ${kind}`);
        parse(text);
      });
    }
  }
});

function parseServerExample(text: string, controls: readonly Control[]): void {
  const problems: string[] = [];
  parseSettings(text, problems);
  const { entries, otherLines } = parseKeyValue(text);
  const unknown = entries.filter(({ key }) => !keysOf(controls).includes(key));
  assert.deepEqual({ problems, otherLines, unknown }, { problems: [], otherLines: [], unknown: [] });
}

function forEachLine(text: string, parse: (line: string) => unknown): void {
  for (const line of text.trimEnd().split('\n')) parse(line);
}

describe('the man pages', () => {
  it('are all named in package.json, and no other page is', () => {
    const { man } = JSON.parse(read('package.json'));
    assert.deepEqual([...man].sort(), MAN_PAGES.map((name) => `docs/man/${name}`).sort());
  });

  it('name only existing settings and refer only to existing pages', () => {
    const keys = [
      ...keysOf(SERVER_CONTROLS),
      ...keysOf(CLIENT_CONTROLS),
      ...RECORD_FIELDS,
      'OuterJid',
      'Assignment',
      'Key',
      'Name',
      'Import',
    ];
    for (const name of MAN_PAGES) {
      const page = readPage(name);
      // A history mentions former settings.
      const text = page.filter((line) => !readSection(page, 'HISTORY').includes(line));
      const unknown = readWords(text, 'Ic').filter((word) => !keys.includes(word));
      assert.deepEqual(unknown, [], name);
      for (const line of page.filter((candidate) => candidate.startsWith('.Xr '))) {
        const [, title, section] = line.split(' ');
        assert.ok(
          [...MAN_PAGES, 'httpd.8', 'cron.8', 'crontab.5', 'diff.1', 'logrotate.8'].includes(`${title}.${section}`),
          `${name}: ${line}`,
        );
      }
    }
  });

  const linter = findLinter();
  const skip = linter ? false : 'neither mandoc, groff nor man is installed';
  it(`are free of warnings${linter ? `, says ${linter[0]}` : ''}`, { skip }, () => {
    const [command = '', ...args] = linter ?? [];
    for (const name of MAN_PAGES) {
      const run = spawnSync(command, [...args, join(MAN_FOLDER, name)], { env: { ...process.env, LC_ALL: 'C.UTF-8' } });
      const said = command === 'mandoc' ? `${run.stdout}${run.stderr}` : run.stderr.toString();
      assert.deepEqual({ status: run.status, said }, { status: 0, said: '' }, name);
    }
  });
});
