// Functions that the programs for operators share: text for terminals, units, files and locks;
// formats of jobs for other programs; and reading lines in a search.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs, {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { csvFormat, sqlFormat } from '../../admin/jobs/formats.ts';
import { makeJobFilter } from '../../admin/jobs/options.ts';
import { formatFamilies } from '../../admin/metrics/exposition.ts';
import { compileSearch, MAX_LINE_LENGTH, searchLines, textsOf } from '../../admin/search/lines.ts';
import { reloadHttpd } from '../../admin/site/httpd-control.ts';
import { parseDuration, parseInstant } from '../../cli/durations.ts';
import {
  createFile,
  isRootsOwn,
  markOf,
  removeFile,
  removeUnfinished,
  replaceFile,
  syncTree,
} from '../../cli/files.ts';
import { isDeadLock, openLocks, withLock } from '../../cli/lockfile.ts';
import { formatBytes, formatJson, formatTable, paint, safeLine, safeText } from '../../cli/output.ts';
import { isAlive, startOf } from '../../cli/processes.ts';
import { parseCount, parseSize } from '../../cli/sizes.ts';
import { FIELDS } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import type { Site } from '../../ledger/site.ts';
import { readPieces } from '../../pad/files.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-cli-'));
after(() => rmSync(root, { recursive: true }));
const isRoot = process.getuid?.() === 0;
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
});
const at = (name: string): string => join(folder, name);
const mode = (path: string): number => statSync(path).mode & 0o7777;

describe('text for a terminal', () => {
  it('contains nothing that a terminal or a reader interprets', () => {
    for (const [text, shown] of [
      ['a\tb\nc', 'a\tb\nc'],
      ['\x1b[2J\x07\r\x00', '\\x1b[2J\\x07\\x0d\\x00'],
      ['\x7f\x9b31m\x9f', '\\x7f\\x9b31m\\x9f'],
      ['\u200e\u202e\u2028\u2066\ufeff\u061c', '\\u200e\\u202e\\u2028\\u2066\\ufeff\\u061c'],
      ['\xa0\xe4\u20ac\u{1f600}', '\xa0\xe4\u20ac\u{1f600}'],
      ['\x08\x0b\x0e\x1f ~', '\\x08\\x0b\\x0e\\x1f ~'],
    ] as const) {
      assert.equal(safeText(text), shown);
      assert.equal(safeLine(text), shown.replaceAll('\n', '\\n').replaceAll('\t', '\\t'));
      assert.equal(JSON.parse(formatJson({ text })).text, text);
      assert.equal(/[\x00-\x1f\x7f-\x9f\u202e\u2028]/.test(formatJson({ text })), false);
    }
    for (let code = 0; code < 0x10000; code++) {
      const text = String.fromCharCode(code);
      const isShown = safeLine(text) === text;
      assert.equal(isShown, !/[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}\ufeff]/u.test(text), code.toString(16));
    }
    assert.deepEqual([paint('x', 'red', true), paint('x', 'red', false)], ['\x1b[31mx\x1b[0m', 'x']);
  });

  it('is in columns as wide as their widest cell', () => {
    const rows = [
      { name: 'a', count: 5 },
      { name: 'longer\n', count: 12_345 },
    ];
    const columns = [
      { title: 'NAME', value: ({ name }: (typeof rows)[0]) => name },
      { title: 'N', align: 'right', value: ({ count }: (typeof rows)[0]) => String(count) },
      { title: 'LAST', value: () => '' },
    ] as const;
    assert.deepEqual(formatTable(rows, columns), ['NAME          N  LAST', 'a             5', 'longer\\n  12345']);
    assert.deepEqual(formatTable([], columns), ['NAME  N  LAST']);
  });

  it('has sizes in common units', () => {
    assert.deepEqual([0, 999, 1000, 1949, 99_949, 99_960, 100_000, 1e6, 1e9, 1e12, 5e15].map(formatBytes), [
      ...['0 B', '999 B', '1.0 kB', '1.9 kB', '99.9 kB', '100.0 kB', '100 kB', '1.0 MB', '1.0 GB', '1.0 TB', '5000 TB'],
    ]);
  });
});

describe('a value on the command line', () => {
  it('is a size, a count or a duration, within its limits', () => {
    assert.deepEqual(
      ['0', '5', '5k', '5K', '5kb', '5M', '2G', '3tb', '5B'].map(parseSize),
      [0, 5, 5000, 5000, 5000, 5e6, 2e9, 3e12, 5],
    );
    for (const bad of ['', 'k', '-1', '1.5M', '5x', '9999999999999', '99999t', ' 5'])
      assert.throws(() => parseSize(bad), bad);
    assert.deepEqual(['1', '999999999'].map(parseCount), [1, 999_999_999]);
    for (const bad of ['0', '01', '', '1000000000', '1.5', '-1']) assert.throws(() => parseCount(bad), bad);
    assert.deepEqual(
      ['1s', '2m', '3h', '4d', '5w', '0s', '999999s'].map(parseDuration),
      [1, 120, 10_800, 345_600, 3_024_000, 0, 999_999],
    );
    for (const bad of ['5', 's', '1000000s', '1y', '-1s', '1.5h']) assert.throws(() => parseDuration(bad), bad);
  });

  it('is a TIME, in local time unless it has a zone', () => {
    const local = (...parts: [number, number, number, number?, number?, number?]): number =>
      new Date(...parts).getTime();
    const zone = process.env.TZ;
    process.env.TZ = 'America/New_York';
    for (const [text, time] of [
      ['2026-11-01', local(2026, 10, 1)],
      ['2026-11-01 12:30', local(2026, 10, 1, 12, 30)],
      ['2026-11-01T12:30:15', local(2026, 10, 1, 12, 30, 15)],
      ['2026-11-01T12:30:15.5Z', Date.UTC(2026, 10, 1, 12, 30, 15, 500)],
      ['2026-11-01 12:30Z', Date.UTC(2026, 10, 1, 12, 30)],
      ['2026-11-01T12:30+02:00', Date.UTC(2026, 10, 1, 10, 30)],
    ] as const)
      assert.equal(parseInstant(text).getTime(), time, text);
    if (zone === undefined) delete process.env.TZ;
    else process.env.TZ = zone;
    assert.ok(Math.abs(parseInstant('1h').getTime() - (Date.now() - 3_600_000)) < 5000);
    for (const bad of [
      '',
      'now',
      '2026-13-01',
      '2026-11-01 25:00',
      '26-11-01',
      '1.11.2026',
      '2026-11-01 12',
      '2026-11-01x',
    ])
      assert.throws(() => parseInstant(bad), bad);
  });
});

describe('a file that is written', () => {
  it('is complete, on disk and with its mode, or missing', () => {
    const steps: string[] = [];
    const { fsyncSync, renameSync, linkSync: link } = fs;
    Object.assign(fs, {
      fsyncSync: (fd: number): void => {
        steps.push(`fsync ${basename(readlinkSync(`/proc/self/fd/${fd}`)).replace(/^\.(\w+)\.[0-9a-f]{12}$/, '.$1')}`);
        fsyncSync(fd);
      },
      renameSync: (from: string, to: string): void => {
        steps.push(`name ${basename(to)} ${mode(from).toString(8)}`);
        renameSync(from, to);
      },
      linkSync: (from: string, to: string): void => {
        steps.push(`name ${basename(to)} ${mode(from).toString(8)}`);
        link(from, to);
      },
    });
    syncBuiltinESMExports();
    const before = process.umask(0o077);
    try {
      createFile(at('a'), 'text', { mode: 0o644 });
      replaceFile(at('a'), Buffer.from('other'), { mode: 0o664 });
      assert.throws(() => createFile(at('a'), 'third', { mode: 0o600 }), { code: 'EEXIST' });
      assert.throws(() => replaceFile(at('none/a'), '', { mode: 0o600 }), { code: 'ENOENT' });
      mkdirSync(at('folder'));
      assert.throws(() => replaceFile(at('folder'), '', { mode: 0o600 }), { code: 'EISDIR' });
    } finally {
      process.umask(before);
      Object.assign(fs, { fsyncSync, renameSync, linkSync: link });
      syncBuiltinESMExports();
    }
    const own = basename(folder);
    assert.deepEqual(steps.slice(0, 6), [
      'fsync .a',
      'name a 644',
      `fsync ${own}`,
      'fsync .a',
      'name a 664',
      `fsync ${own}`,
    ]);
    assert.deepEqual(
      [readFileSync(at('a'), 'utf8'), mode(at('a')), readdirSync(folder).sort()],
      ['other', 0o664, ['a', 'folder']],
    );
  });

  it('belongs to its intended owner', { skip: !isRoot && 'owners need root' }, () => {
    replaceFile(at('a'), '', { mode: 0o640, owner: { uid: 12_345, gid: 23_456 } });
    const { uid, gid } = statSync(at('a'));
    assert.deepEqual([uid, gid, mode(at('a'))], [12_345, 23_456, 0o640]);
  });

  it('loses leftovers of a killed writer beside it, and nothing else', () => {
    const names = [
      '.a.0123456789ab',
      '.a.new-AbC123',
      '.a.0123456789abc',
      '.a.0123456789AB',
      '.b.0123456789ab',
      'a.0123456789ab',
      '.a.new-AbC12',
    ];
    for (const name of names) writeFileSync(at(name), '');
    mkdirSync(at('.a.aaaaaaaaaaaa'));
    removeUnfinished(at('a'));
    assert.deepEqual(readdirSync(folder).sort(), names.slice(2).sort());
    removeFile(at('a.0123456789ab'));
    removeFile(at('a.0123456789ab'));
    assert.ok(!existsSync(at('a.0123456789ab')));
    assert.throws(() => removeFile(at('a.0123456789ab/x/y')) ?? removeFile(folder));
  });

  it('is on disk and closed with all in its directory', () => {
    mkdirSync(at('sub'));
    writeFileSync(at('sub/inner'), '');
    writeFileSync(at('outer'), '');
    symlinkSync('/nowhere', at('link'));
    const synced: string[] = [];
    const { fsyncSync } = fs;
    const open = readdirSync('/proc/self/fd').length;
    fs.fsyncSync = (fd) => {
      synced.push(basename(readlinkSync(`/proc/self/fd/${fd}`)));
      fsyncSync(fd);
    };
    syncBuiltinESMExports();
    try {
      syncTree(folder);
    } finally {
      fs.fsyncSync = fsyncSync;
      syncBuiltinESMExports();
    }
    assert.deepEqual(synced.sort(), ['inner', 'outer', 'sub', basename(folder)].sort());
    assert.equal(readdirSync('/proc/self/fd').length, open);
  });

  it('is known by its inode, size and time', () => {
    writeFileSync(at('a'), 'x');
    utimesSync(at('a'), 1000, 1000);
    const mark = markOf(at('a'));
    assert.equal(markOf(at('a')), mark);
    for (const change of [
      () => utimesSync(at('a'), 1000, 1000.001),
      () => writeFileSync(at('a'), 'xy'),
      () => {
        writeFileSync(at('b'), 'x');
        utimesSync(at('b'), 1000, 1000);
        fs.renameSync(at('b'), at('a'));
      },
    ]) {
      change();
      assert.notEqual(markOf(at('a')), mark);
    }
    symlinkSync('a', at('link'));
    assert.deepEqual([markOf(at('link')), markOf(at('none')), markOf(folder)], [undefined, undefined, undefined]);
  });

  it('is used by root where nobody else can replace it', { skip: !isRoot && 'owners need root' }, () => {
    chmodSync(folder, 0o755);
    assert.ok(isRootsOwn(folder));
    assert.ok(isRootsOwn(at('none/yet')));
    mkdirSync(at('sub'));
    for (const bad of [0o775, 0o757, 0o1777]) {
      chmodSync(at('sub'), bad);
      assert.ok(!isRootsOwn(at('sub')), bad.toString(8));
    }
    mkdirSync(at('sub/inner'), { mode: 0o755 });
    assert.ok(isRootsOwn(at('sub/inner')), 'below a sticky folder');
    chmodSync(at('sub'), 0o777);
    assert.ok(!isRootsOwn(at('sub/inner')));
    chmodSync(at('sub'), 0o755);
    chownSync(at('sub'), 12_345, 0);
    assert.ok(!isRootsOwn(at('sub/inner')));
  });
});

describe('a payload that is read', () => {
  it('has as many bytes as when it was listed, or is a failure', () => {
    writeFileSync(at('payload'), '12345');
    const read = (size: number): string => Buffer.concat([...readPieces(at('payload'), size)]).toString();
    assert.equal(read(5), '12345');
    for (const size of [4, 6]) assert.throws(() => read(size), /changed while it was read/, String(size));
  });
});

describe('a lock', () => {
  it('is free again when its process is gone, on this machine', async () => {
    const child = spawn('sleep', ['1000']);
    const { pid = 0 } = child;
    const own = `webjobctl ${pid} ${hostname()} ${startOf(pid)}\n`;
    const isDead = (text: string): boolean => {
      writeFileSync(at('lock'), text);
      return isDeadLock(at('lock'));
    };
    assert.deepEqual([isAlive(pid), isAlive(process.pid), isAlive(2 ** 30)], [true, true, false]);
    assert.notEqual(startOf(pid), '0');
    assert.ok(!isDead(own));
    assert.ok(isDead(own.replace(/\d+\n$/, '1\n')), 'another process with its id');
    assert.ok(!isDead(own.replace(hostname(), 'elsewhere')));
    for (const other of [
      '',
      'Jid=job\n',
      own.trimEnd(),
      `${own}x`,
      `x${own}`,
      `${own.trimEnd()} \n`,
      `${own}${'x'.repeat(600)}`,
    ])
      assert.ok(!isDead(other), other);
    const ended = new Promise((resolve) => child.on('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    assert.ok(isDead(own));
    assert.ok(!isDead(own.replace(hostname(), 'elsewhere')));
    mkdirSync(at('folder'));
    symlinkSync('lock', at('link'));
    assert.deepEqual([isDeadLock(at('folder')), isDeadLock(at('link')), isDeadLock(at('none'))], [false, false, false]);
  });

  it('is held by one process, released by that process, and leaves nothing', () => {
    const [first, second] = [openLocks(at('first')), openLocks(at('second'))];
    assert.deepEqual([first.take(at('a')), second.take(at('a')), second.take(at('b'))], [true, false, true]);
    assert.match(readFileSync(at('a'), 'latin1'), /^webjobctl \d+ \S+ \d+\n$/);
    rmSync(at('a'));
    writeFileSync(at('a'), 'of another');
    first.release();
    assert.deepEqual(readdirSync(folder).sort(), ['a', 'b', 'second']);
    second.release();
    assert.deepEqual(readdirSync(folder), ['a']);
    writeFileSync(at('x.lock.999999999.new'), `webjobctl 999999999 ${hostname()} 1\n`);
    assert.equal(
      withLock(at('x'), () => readdirSync(folder).sort().join(' ')),
      `a x.lock x.lock.${process.pid}.new`,
    );
    assert.throws(() => withLock(at('x'), () => assert.fail('in it')), /in it/);
    assert.deepEqual(readdirSync(folder), ['a']);
    linkSync(at('a'), at('c'));
  });
});

describe('jobs for other programs', () => {
  const job = (more: Partial<Job>): Job => {
    const nothing = { clientId: undefined, command: undefined, get: undefined, put: undefined, group: undefined };
    const none = {
      packed: undefined,
      exitCode: undefined,
      signal: undefined,
      outerId: undefined,
      clockSkew: undefined,
      seenAt: undefined,
    };
    return {
      jobId: 'job',
      state: 'done',
      at: new Date(0),
      attempts: [],
      uploads: [],
      differing: [],
      left: [],
      ...nothing,
      ...none,
      ...more,
    };
  };
  const site = { settings: { useGMT: true }, label: undefined } as Site;
  const cellOf = (forSpreadsheet: boolean, more: Partial<Job>, column: string): string | undefined => {
    const [line = ''] = csvFormat(forSpreadsheet)
      .rows(site, [job(more)])
      .split('\r\n');
    const cells = [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)].map(([, cell]) => cell);
    return cells[FIELDS.findIndex((field) => field.column === column)];
  };

  it('are CSV that parses to the same values, and runs in no spreadsheet', () => {
    for (const [text, cell] of [
      ['a', 'a'],
      ['a,b', '"a,b"'],
      ['a"b', '"a""b"'],
      ['a\rb', '"a\rb"'],
      ['a\nb', '"a\nb"'],
      ['', '""'],
      ['=1', '=1'],
    ] as const)
      assert.equal(cellOf(false, { command: text }, 'command'), cell);
    for (const start of '=+-@\t\r') assert.match(cellOf(true, { command: `${start}x` }, 'command') ?? '', /^"?'/);
    assert.equal(cellOf(true, { command: 'x=' }, 'command'), 'x=');
    assert.deepEqual([cellOf(true, { exitCode: 3 }, 'exit_code'), cellOf(true, {}, 'exit_code')], ['3', '']);
    assert.equal(csvFormat(false).head().split(',').length, FIELDS.length);
  });

  it('are SQL in which no text ends early', () => {
    const rows = sqlFormat('t').rows(site, [job({ command: "a'b\0\\" }), job({ exitCode: 2 })]);
    assert.match(rows, /^INSERT INTO "t" \("job_id", /);
    assert.match(rows, /'a''b\ufffd\\'/);
    assert.match(rows, /\),\n\('job', NULL, NULL, 'done', '1970-01-01T00:00:00\.000Z', 2, /);
    assert.match(rows, /\);\n$/);
  });

  it('are selected by the deciding status, and the exit status of programs that ran to their end', () => {
    const line = (status: number) => ({ status }) as Job['put'];
    const isPicked = (options: Parameters<typeof makeJobFilter>[0], more: Partial<Job>): boolean =>
      makeJobFilter(options)(job(more));
    assert.ok(
      isPicked({ status: '4xx' }, { put: line(453) }) &&
        !isPicked({ status: '4xx' }, { put: line(500), get: line(404) }),
    );
    assert.ok(isPicked({ status: '45x' }, { get: line(451) }) && !isPicked({ status: '404' }, {}));
    assert.ok(isPicked({ exitCode: 0 }, { exitCode: 0 }) && !isPicked({ exitCode: 0 }, { exitCode: 0, signal: 9 }));
    assert.ok(!isPicked({ exitCode: 0 }, {}) && isPicked({}, {}));
  });

  it('are metrics with a name and a help text each', () => {
    const samples = [{ labels: { a: 'x"\\\n', b: 'y' }, value: 1.5 }, { value: Number.POSITIVE_INFINITY }];
    const family = { name: 'n', help: 'a\\b\nc', type: 'gauge', samples } as const;
    assert.equal(
      formatFamilies([family, { ...family, name: 'none', samples: [] }]),
      '# HELP n a\\\\b\\nc\n# TYPE n gauge\nn{a="x\\"\\\\\\n",b="y"} 1.5\nn +Inf\n',
    );
  });
});

describe('a search', () => {
  const search = async (text: string, ...pieces: (string | Buffer)[]): Promise<string[]> => {
    const stream = (async function* () {
      for (const piece of pieces) yield Buffer.from(piece as string);
    })();
    const found: string[] = [];
    for await (const { line, text: shown } of searchLines(stream, compileSearch(text)))
      found.push(`${line} ${shown.slice(0, 20)}`);
    return found;
  };

  it('finds lines with their numbers, however the blocks fall', async () => {
    assert.deepEqual(await search('b', 'ab\nc', 'd\nb', ''), ['1 ab', '3 b']);
    assert.deepEqual(await search('\u00e4', Buffer.from('x\u00e4').subarray(0, 2), Buffer.from('\u00e4').subarray(1)), [
      '1 x\u00e4',
    ]);
    assert.deepEqual(await search('\ufffd', Buffer.from([0x61, 0xff, 0x0a])), ['1 a\ufffd']);
    assert.deepEqual(await search('/^B$/i', 'b\nab\nB'), ['1 b', '3 B']);
    assert.deepEqual(await search('/b/', 'B\nb'), ['2 b']);
    assert.deepEqual(await search('/', 'a/b'), ['1 a/b']);
  });

  it('cuts a line that is too long, and counts it as one', async () => {
    const long = 'x'.repeat(MAX_LINE_LENGTH);
    assert.deepEqual(await search('end', `${long}x`, 'end\nend'), ['1 xend', '2 end']);
    assert.equal((await search('x', long)).length, 1);
    assert.equal((await search('x', `${long}x`)).length, 2);
    assert.deepEqual([textsOf('abc'), textsOf('/abc/')], [['abc'], ['abc']]);
    assert.throws(() => compileSearch('/(/'), SyntaxError);
  });
});

describe('a failure message', () => {
  it('reports an httpd that does not reload, with its output and a remedy', () => {
    assert.throws(() => reloadHttpd({ httpd: '/bin/false' }), {
      name: 'Error',
      message: 'httpd was not reloaded: ',
      hints: ['fix that, then /bin/false graceful'],
    });
  });

  it('contains no terminal sequence, in the message and in the hint', () => {
    const [failure, program] = ['failure', 'program'].map((name) => join(import.meta.dirname, `../../cli/${name}.ts`));
    const text = `import { Failure } from '${failure}'; import { reportEnd } from '${program}';
      reportEnd('x', { usage: 2, bug: 70 }, new Failure('failed', 'a \\x1b[31m', 'b \\x9b31m'));`;
    const { stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', text], { encoding: 'utf8' });
    assert.equal(stderr, 'x: error: a \\x1b[31m\nx: hint: b \\x9b31m\n');
  });
});
