// The parts of the ledger: lines and files of a log, the facts in a run record or a name, and which
// requests and uploads are one job.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { crc32, deflateRawSync } from 'node:zlib';
import { formatLogLine, type LogLine, parseLogLine } from 'webjob-protocol';
import { quantile } from '../../bench/quantile.ts';
import { readSettings } from '../../cgi/settings.ts';
import { describeClockSkew, findClockSkew } from '../../ledger/clock.ts';
import { describeEnding, parseRecordFields } from '../../ledger/ending.ts';
import { FIELDS } from '../../ledger/fields.ts';
import { readHead, readHeadAndSize } from '../../ledger/head.ts';
import type { Job } from '../../ledger/job.ts';
import {
  joinUnit,
  LOCKER,
  type Located,
  takenPlace,
  type Upload,
  unitOfLine,
  unitOfUpload,
} from '../../ledger/join.ts';
import { makeCutter } from '../../ledger/lines.ts';
import { makeLister } from '../../ledger/listing.ts';
import { readLogBlocks } from '../../ledger/log.ts';
import { listLogs, openLogFiles } from '../../ledger/log-files.ts';
import { compileNames, makeGuesser, selectNames } from '../../ledger/names.ts';
import {
  packEnding,
  packFiles,
  parseJobId,
  readUpload,
  unpackEnding,
  unpackFiles,
  whoseIs,
} from '../../ledger/read-upload.ts';
import { TABLES } from '../../ledger/schema.ts';
import { logFolders, type Site, serversOf } from '../../ledger/site.ts';
import { openDatabase } from '../../ledger/sqlite.ts';
import { openWindowStore } from '../../ledger/store.ts';
import { findStreams } from '../../ledger/streams.ts';
import { formatMatch, indexTexts } from '../../ledger/texts.ts';
import { type FileKind, readNewLines } from '../../ledger/tracked-files.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-ledger-'));
after(() => rmSync(root, { recursive: true }));
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
});

const put = (name: string, content: string | Buffer = ''): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

/** A site with its logs and uploads in one directory. */
function siteWith(more: Record<string, string> = {}): Site {
  const lines = { LogfilesDirectory: folder, IncomingDirectory: folder, UseGMT: 'Y', ...more };
  const file = put(
    'cfg',
    Object.entries(lines)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(''),
  );
  const { settings, problems } = readSettings(file);
  assert.deepEqual(problems, []);
  return { propertiesFile: file, settings, servers: serversOf(settings), label: undefined };
}

describe('lines of a log', () => {
  it('are the same however the blocks fall, without those that are too long', () => {
    const text = `one\n\ntw\u00f6\n${'x'.repeat(10)}\n${'y'.repeat(11)}\n${'z'.repeat(40)}\nlast`;
    const bytes = Buffer.from(text);
    for (let size = 1; size <= bytes.length; size++) {
      const cutter = makeCutter((line, offset) => `${offset} ${line}`, 10);
      const found: string[] = [];
      const block = Buffer.alloc(size);
      for (let at = 0; at < bytes.length; at += size) {
        const count = bytes.copy(block, 0, at, at + size);
        found.push(...cutter.cut(block.subarray(0, count)));
      }
      found.push(...cutter.end());
      assert.deepEqual(found, ['0 one', '4 ', '5 tw\u00f6', `10 ${'x'.repeat(10)}`, '74 last'], `blocks of ${size}`);
    }
    const cutter = makeCutter((line) => line);
    cutter.cut(Buffer.from('all\n'));
    assert.deepEqual(cutter.end(), []);
  });

  it('are all found by a text however the blocks fall, and few others are looked at', () => {
    const others = Array.from({ length: 50 }, (_, number) => `other ${number}`);
    const lines = ['a first', ...others.slice(0, 20), 'the b', 'b and a', ...others.slice(20), 'a', 'the last, not a'];
    const bytes = Buffer.from(lines.join('\n'));
    const isHolding = (line: string): boolean => /a|b/.test(line);
    for (let size = 1; size <= bytes.length; size++) {
      let looks = 0;
      const take = (line: string): string | undefined => {
        looks++;
        return isHolding(line) ? line : undefined;
      };
      const cutter = makeCutter(take, undefined, ['a', 'b']);
      const found: string[] = [];
      for (let at = 0; at < bytes.length; at += size) found.push(...cutter.cut(bytes.subarray(at, at + size)));
      found.push(...cutter.end());
      assert.deepEqual(found, lines.filter(isHolding), `blocks of ${size}`);
      assert.ok(looks <= 6 + Math.ceil(bytes.length / size), `${looks} looks in blocks of ${size}`);
    }
  });
});

describe('the files of a log', () => {
  const lineAt = (time: string, jobId = 'job'): string =>
    `${time} ${jobId} client1 127.0.0.1 GET client1 host.sh 0 19 0 200 -- Success\n`;
  const names = (site: Site, span: Parameters<typeof openLogFiles>[1]): string[] => {
    const files = openLogFiles(site, span);
    for (const { fd } of files) closeSync(fd);
    return files.map(({ path }) => basename(path).slice('nph-webjob.log'.length));
  };
  const open = (): number => readdirSync('/proc/self/fd').length;

  it('are those that rotation makes from its name, and no others', () => {
    const good = ['', '.1', '.2.gz', '-20261101', '-20261101.gz', '.2026-11-01', '.old', '-old', '.1.zst'];
    for (const ending of good) put(`nph-webjob.log${ending}`);
    for (const name of [
      'nph-webjob.log.swp',
      'nph-webjob.log.1~',
      'nph-webjob.log2',
      'nph-webjob.json.log',
      'a.nph-webjob.log',
      'nph-webjob.log.lock',
    ])
      put(name);
    assert.deepEqual(
      listLogs(folder)
        .map((path) => basename(path).slice(14))
        .sort(),
      good.sort(),
    );
    assert.throws(() => listLogs(join(folder, 'none')), { kind: 'failed' });
  });

  it('are opened when they can hold lines of a time, the oldest first and each once', () => {
    const site = siteWith();
    assert.throws(() => openLogFiles(site, { since: undefined, until: undefined }), /there is no log/);
    put('nph-webjob.log', lineAt('2026-11-05 00:00:00') + lineAt('2026-11-06 00:00:00'));
    put('nph-webjob.log.1', lineAt('2026-11-03 00:00:00') + lineAt('2026-11-04 00:00:00'));
    const oldest = put('nph-webjob.log.2', lineAt('2026-11-01 00:00:00') + lineAt('2026-11-02 00:00:00'));
    linkSync(oldest, join(folder, 'nph-webjob.log.3'));
    const before = open();
    const select = (since?: string, until?: string, follow = false): string[] => {
      const found = names(site, { since, until, follow });
      return found.map((ending) => (ending === '.3' ? '.2' : ending));
    };
    assert.deepEqual(select(), ['.2', '.1', '']);
    assert.deepEqual(select('2026-11-02 00:00:00'), ['.2', '.1', '']);
    assert.deepEqual(select('2026-11-02 00:00:01'), ['.1', '']);
    assert.deepEqual(select(undefined, '2026-11-03 00:00:00'), ['.2', '.1']);
    assert.deepEqual(select(undefined, '2026-11-02 23:59:59'), ['.2']);
    assert.deepEqual(select('2026-11-07 00:00:00'), []);
    assert.deepEqual(select('2026-11-07 00:00:00', undefined, true), ['']);
    assert.equal(open(), before, 'what is not read stays open');
  });

  it('are followed after the last complete line of the newest', () => {
    const site = siteWith();
    put('nph-webjob.log', `${lineAt('2026-11-01 00:00:00')}half`);
    put('nph-webjob.log.1', lineAt('2026-11-02 00:00:00'));
    const files = openLogFiles(site, { since: undefined, until: undefined, follow: true });
    for (const { fd } of files) closeSync(fd);
    const live = files.at(-1);
    assert.deepEqual(
      [basename(live?.path ?? ''), live?.size],
      ['nph-webjob.log', lineAt('2026-11-01 00:00:00').length],
    );
  });

  it('are read past malformed lines, to the end of the requested time', async () => {
    const site = siteWith();
    const before = open();
    const minutes = Array.from({ length: 60 }, (_, minute) => `2026-11-01 00:${String(minute).padStart(2, '0')}:00`);
    put('nph-webjob.log.1', minutes.map((time, index) => lineAt(time, `job_${index}`)).join(''));
    put('nph-webjob.log', lineAt('2026-11-01 03:00:00', 'later'));
    const read = async (range: Parameters<typeof readLogBlocks>[1]): Promise<string[]> => {
      const found: string[] = [];
      for await (const lines of readLogBlocks(site, { ...range, isTrial: true }))
        found.push(...lines.map(({ line }) => line.jobId ?? ''));
      return found;
    };
    assert.equal((await read({})).length, 61);
    // Ten minutes more on both sides, because the log is not strictly ordered.
    const found = await read({ since: new Date('2026-11-01T00:30:00Z'), until: new Date('2026-11-01T00:40:00Z') });
    assert.deepEqual([found[0], found.at(-1)], ['job_20', 'job_50']);
    assert.deepEqual(await read({ before: '2026-11-01 00:02:00' }), ['job_0', 'job_1']);
    assert.deepEqual(await read({ contains: 'job_5 ' }), ['job_5']);
    assert.equal(open(), before);
  });

  it('are unpacked whatever the header of a gzip member contains', async () => {
    const site = siteWith();
    const member = (flags: number, header: Buffer, text: string): Buffer => {
      const trailer = Buffer.alloc(8);
      trailer.writeUInt32LE(crc32(text));
      trailer.writeUInt32LE(text.length, 4);
      return Buffer.concat([
        Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3]),
        header,
        deflateRawSync(text),
        trailer,
      ]);
    };
    const extra = Buffer.from([3, 0, 1, 0, 2]);
    const name = Buffer.from('name\0');
    const members = [
      [0, Buffer.alloc(0)],
      [2, Buffer.from([0, 0])],
      [4, extra],
      [8, name],
      [16, Buffer.from('a comment\0')],
      [30, Buffer.concat([extra, name, Buffer.from('c\0'), Buffer.from([0, 0])])],
    ] as const;
    const packed = members.map(([flags, header]) =>
      member(flags, header, lineAt('2026-11-01 00:00:00', `flags_${flags}`)),
    );
    put('nph-webjob.log.1.gz', Buffer.concat(packed));
    const found: string[] = [];
    for await (const lines of readLogBlocks(site)) found.push(...lines.map(({ line }) => line.jobId ?? ''));
    assert.deepEqual(
      found,
      members.map(([flags]) => `flags_${flags}`),
    );
  });
});

describe('the content of a run record', () => {
  it('is the first value of a name, whatever ends its lines', () => {
    const fields = parseRecordFields('A=1\r\nB=\nA=2\n C=3\nD =4\nno\nE=a=b\n');
    assert.deepEqual(
      [...fields],
      [
        ['A', '1'],
        ['B', ''],
        ['E', 'a=b'],
      ],
    );
  });

  for (const [text, isGood, exitCode, signal] of [
    ['KidStatus=0\nKidSignal=0', true, 0, undefined],
    ['KidStatus=0', true, 0, undefined],
    ['KidSignal=0', false, undefined, undefined],
    ['', false, undefined, undefined],
    ['KidStatus=1\nKidSignal=0', false, 1, undefined],
    ['KidStatus=0\nKidSignal=9', false, 0, 9],
    ['KidStatus=0\nGetError=NA\nRunError=NA', true, 0, undefined],
    ['KidStatus=0\nGetError=x', false, 0, undefined],
    ['KidStatus=0\nRunError=x', false, 0, undefined],
    ['KidStatus=-1', false, undefined, undefined],
    ['KidStatus=12345678901', false, undefined, undefined],
  ] as const)
    it(`is ${isGood ? 'a good' : 'a bad'} ending: ${JSON.stringify(text)}`, () => {
      const ending = describeEnding(parseRecordFields(text));
      assert.deepEqual([ending.isGood, ending.exitCode, ending.signal], [isGood, exitCode, signal]);
      assert.deepEqual(unpackEnding(packEnding(ending)), ending);
    });

  it('includes the outer job, as the log writes it', () => {
    const outer = (id: string): string | undefined => describeEnding(parseRecordFields(`OuterJid=${id}`)).outerId;
    assert.deepEqual(['job', 'a%b', 'NA', 'a b', ''].map(outer), ['job', 'a%25b', undefined, undefined, undefined]);
    assert.equal(unpackEnding(packEnding(undefined)), undefined);
  });

  it('includes the clock of the client, as far as it must be off', () => {
    const at = 1_085_355_126;
    const skew = (fields: Record<string, number | string>): number | undefined =>
      findClockSkew(
        new Map([
          ['Jid', `server_1_${at}_00001`],
          ...Object.entries(fields).map(([name, value]): [string, string] => [
            name,
            typeof value === 'string' ? value : `2004-05-23 16:32:06 GMT (${at + value}.000000)`,
          ]),
        ]),
      );
    assert.deepEqual([skew({ GetEpoch: 60 }), skew({ GetEpoch: 61 })], [undefined, 61]);
    assert.deepEqual(
      [skew({ GetEpoch: -200, RunEpoch: -60 }), skew({ GetEpoch: -200, RunEpoch: -61 })],
      [undefined, -61],
    );
    assert.equal(skew({ GetEpoch: -200, RunEpoch: 300 }), undefined);
    assert.deepEqual([skew({ GetEpoch: -100 }), skew({ GetEpoch: -200, PutEpoch: -90 })], [-100, -90]);
    assert.deepEqual([skew({ JobEpoch: 90 }), skew({ GetEpoch: 'NA', JobEpoch: 90 }), skew({})], [90, 90, undefined]);
    assert.deepEqual([61, -89, 3600, 7290, 86_400, -90_061, 400 * 86_400].map(describeClockSkew), [
      ...['client 1 min ahead of the server', 'client 1 min behind the server', 'client 1 h 0 min ahead of the server'],
      ...['client 2 h 2 min ahead of the server', 'client 1 day 0 h ahead of the server'],
      ...['client 1 day 1 h behind the server', 'client 1 year 35 days ahead of the server'],
    ]);
  });
});

describe('the name of an upload', () => {
  it('is read by the current format of names', () => {
    const read = (format: string, name: string): string | undefined => {
      const found = compileNames(siteWith({ PutNameFormat: format }))(name);
      return found && `${found.clientId} ${found.command}`;
    };
    const usual = '%cid_%Y%m%d%H%M%S_%pid_%cmd';
    assert.equal(read(usual, 'client1_20040523163206_123_host.sh'), 'client1 host.sh');
    assert.equal(read(usual, 'client1_20040523163206_123_host.sh~2'), 'client1 host.sh');
    assert.equal(read(usual, 'client1_2004052316320_123_host.sh'), undefined);
    assert.equal(read(usual, 'client1_20040523163206_123_a/b'), undefined);
    assert.equal(read('%cid/%jid', 'client1/job'), 'client1 undefined');
    assert.equal(read('%cid.%cid_%cmd', 'a.b_c'), 'a c');
    assert.equal(read('100%%_%cmd', '100%_c'), 'undefined c');
    assert.equal(read('a.b_%cmd', 'aXb_c'), undefined);
  });

  it('can be any name that a PUT may give it', () => {
    const site = siteWith({ PutNameFormat: '%cid/%H%M%S_%pid_%cmd' });
    const line = parseLogLine('2026-11-01 12:00:10 job client1 127.0.0.1 PUT client1 host.sh 1 0 3 200 -- Success');
    const prefixes = [...makeGuesser(site)(line)].map(
      ({ prefix, folder: place, isExact }) => `${place} ${prefix} ${isExact}`,
    );
    assert.deepEqual(
      prefixes,
      ['07', '06', '08'].map((second) => `client1 client1/1200${second}_ false`),
    );
    const [guess] = makeGuesser(site)(line);
    assert.ok(guess);
    const names = [
      'client1/120006_1_host.sh',
      'client1/120007_1_host.sh',
      'client1/120007_12_host.sh~2',
      'client1/120007_x_host.sh',
      'client1/120007_1_host.shx',
      'client2',
    ];
    assert.deepEqual(selectNames(names, guess), names.slice(1, 3));
    assert.deepEqual(selectNames([], guess), []);
    assert.deepEqual(selectNames(names.slice(0, 1), guess), []);
    const servers = siteWith({ PutNameFormat: '%sid_%cid', ServerId: 'a', SiteServers: 'b:/x' });
    const names3 = [...makeGuesser(servers)({ ...line, jobId: 'c_1085355126_00001' })].map(({ prefix }) => prefix);
    assert.deepEqual(names3, ['a_client1', 'b_client1', 'c_client1']);
    const exact = siteWith({ PutNameFormat: '%cid_%jid_%cmd' });
    assert.deepEqual(
      [...makeGuesser(exact)({ ...line, jobId: 'a%25b' })].map(({ prefix, isExact }) => [
        prefix.startsWith('client1_'),
        isExact,
      ]),
      [[true, true]],
    );
    assert.deepEqual([...makeGuesser(siteWith({ PutNameFormat: '%pid/%cmd' }))(line)], []);
  });

  it('yields its client, and otherwise its record does', () => {
    const record = (text: string) => () => parseRecordFields(text);
    const whose = (format: string, name: string, text = ''): string => {
      const { clientId, command, isNamed } = whoseIs(
        compileNames(siteWith({ PutNameFormat: format }))(name),
        record(text),
      );
      return `${clientId} ${command} ${isNamed}`;
    };
    const liar = 'ClientId=liar\nGetRequest=lie.sh';
    assert.equal(whose('%cid_%cmd', 'client1_x.sh', liar), 'client1 x.sh true');
    assert.equal(whose('%cid/%jid', 'client1/job', liar), 'client1 lie.sh false');
    assert.equal(whose('%jid', 'job', liar), 'liar lie.sh false');
    assert.equal(whose('%jid', 'job', 'ClientId=a b\nGetRequest=a/b'), 'undefined undefined false');
  });
});

describe('an upload on disk', () => {
  it('is announced by its .rdy file, and otherwise as old as its newest file', () => {
    const parse = compileNames(siteWith({ PutNameFormat: '%cid_%cmd' }));
    const read = (name: string) => readUpload(folder, name, parse);
    assert.equal(read('client1_x.sh'), undefined);
    const age = (name: string, seconds: number): void => utimesSync(join(folder, name), seconds, seconds);
    for (const [extension, text, seconds] of [
      ['out', 'abc', 50],
      ['err', '', 10],
      ['env', 'KidStatus=0\n', 20],
    ] as const) {
      put(`client1_x.sh.${extension}`, text);
      age(`client1_x.sh.${extension}`, seconds);
    }
    const broken = read('client1_x.sh');
    assert.deepEqual([broken?.at, broken?.jobId, broken?.ending, broken?.bytes], [50_000, undefined, undefined, 15]);
    put('client1_x.sh.lck', 'Jid=a%b\n');
    assert.deepEqual([read('client1_x.sh')?.jobId, read('client1_x.sh')?.has.size], ['a%25b', 4]);
    put('client1_x.sh.rdy', 'Jid=job\n');
    age('client1_x.sh.rdy', 40);
    const whole = read('client1_x.sh');
    assert.deepEqual(
      [whole?.at, whole?.jobId, whole?.ending?.isGood, whole?.clientId],
      [40_000, 'job', true, 'client1'],
    );
    const { stamp } = whole ?? {};
    put('client1_x.sh.out', 'changed');
    assert.equal(read('client1_x.sh')?.stamp, stamp);
    put('client1_x.sh.rdy', 'Jid=other\n');
    assert.notEqual(read('client1_x.sh')?.stamp, stamp);
    put('client1_x.sh.env', `KidStatus=0\n${'x'.repeat(1024 * 1024)}`);
    assert.equal(read('client1_x.sh')?.ending?.isGood, false, 'longer than any run record');
    put('client1_x.sh.env', `KidStatus=0\n${'x'.repeat(1024 * 1024 - 12)}`);
    assert.equal(read('client1_x.sh')?.ending?.isGood, true);
  });

  it('has a job id when its .rdy file is one line, and a bit for each of its files', () => {
    assert.deepEqual(['Jid=a\n', 'Jid=a\r\n', 'Jid=a', 'Jid=a\nx', 'Jid=\n', ''].map(parseJobId), [
      'a',
      'a',
      ...Array(4).fill(undefined),
    ]);
    for (let bits = 0; bits < 32; bits++) assert.equal(packFiles(unpackFiles(bits)), bits);
    assert.deepEqual([...unpackFiles(8)], ['rdy']);
  });

  it('is read from its first byte to its last, through no link', async () => {
    const site = siteWith();
    for (const size of [0, 1, 65_535, 65_536, 65_537, 200_000]) {
      const bytes = Buffer.alloc(size, 'abc');
      put('u.out', bytes);
      const { out, err } = findStreams(site, { name: 'u', has: new Set(['out']) });
      assert.deepEqual([out?.bytes, err], [size, undefined]);
      const parts: Buffer[] = [];
      for await (const piece of out?.read() ?? []) parts.push(Buffer.from(piece));
      assert.ok(Buffer.concat(parts).equals(bytes), String(size));
    }
    symlinkSync('u.out', join(folder, 'u.err'));
    assert.equal(findStreams(site, { name: 'u', has: new Set() }).err, undefined);
    assert.equal(readHead(join(folder, 'u.err')), undefined);
    assert.equal(readHead(join(folder, 'u.out'))?.length, 65_536);
    assert.deepEqual(
      [70_000, 300_000].map((most) => readHeadAndSize(join(folder, 'u.out'), most)?.text.length),
      [70_001, 200_000],
    );
    assert.equal(readHeadAndSize(join(folder, 'u.out'), 70_000)?.size, 200_000);
  });

  it('is in the listing of its directory, complete or not', () => {
    for (const name of ['b.out', 'b.rdy', 'a.rdy', 'c.out', 'c.err', 'd.lck', '.rdy', 'x.txt', 'noext', 'e.f.out'])
      put(name);
    mkdirSync(join(folder, 'sub'));
    put('sub/s.rdy');
    symlinkSync('a.rdy', join(folder, 'l.rdy'));
    const lister = makeLister(folder);
    const { complete, incomplete, folders } = lister.list('.');
    assert.deepEqual([complete(), incomplete().names, folders], [['a', 'b'], ['c', 'd', 'e.f'], ['sub']]);
    assert.deepEqual([...(incomplete().groups.get('c')?.has ?? [])].sort(), ['err', 'out']);
    assert.deepEqual(lister.list('sub').complete(), ['sub/s']);
    assert.deepEqual(lister.list('none').complete(), []);
    put('sub/t.rdy');
    assert.deepEqual(lister.list('sub').complete(), ['sub/s']);
    lister.forget();
    assert.deepEqual(lister.list('sub').complete(), ['sub/s', 'sub/t']);
    const { groups, foreignFiles } = lister.listGroups('.');
    assert.deepEqual([groups.get('b'), groups.get('c'), groups.size, foreignFiles], [9, 3, 5, 4]);
    assert.throws(() => lister.list('\0'));
  });
});

describe('the servers of a site', () => {
  it('are the one of its settings first, and the others that they name', () => {
    const site = siteWith({ ServerId: 'east', SiteServers: 'east:/x,west:/logs/west,north:/logs/west' });
    assert.deepEqual(
      site.servers.map(({ serverId, logfilesDirectory }) => `${serverId} ${logfilesDirectory}`),
      [`east ${folder}`, ...['west /logs/west', 'north /logs/west']],
    );
    assert.deepEqual(logFolders(site), [folder, '/logs/west']);
    assert.deepEqual(
      siteWith().servers.map(({ enableCustody }) => enableCustody),
      [true],
    );
  });
});

describe('a query of the text index', () => {
  it('has every run of three characters, without operators', () => {
    assert.equal(formatMatch(['abcd', 'x']), '"abc" AND "bcd"');
    assert.equal(formatMatch(['a"b']), '"a""b"');
    assert.equal(formatMatch(['a\0\u{1f600}']), '"a\ufffd\u{1f600}"');
    assert.equal(formatMatch(['ab', '']), undefined);
    assert.equal(formatMatch(['abc', 'abc']), '"abc"');
    const many = Array.from({ length: 100 }, (_, at) => String.fromCharCode(0x4e00 + at)).join('');
    assert.equal(formatMatch([many])?.split(' AND ').length, 48);
  });
});

describe('the text index', () => {
  it('costs about the same with every new upload, even when many have come one by one', () => {
    const path = join(folder, 'store');
    const database = openDatabase(path, false);
    database.exec(`PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; ${TABLES}`);
    const add = database.prepare(
      "INSERT INTO uploads (name, place, folder, unit, facts, has, stamp, bytes) VALUES (?, '', '', ?, '', ?, '', 0)",
    );
    const sizeOfWal = (): number => statSync(`${path}-wal`).size;
    const written: number[] = [];
    for (let count = 0; count < 40; count++) {
      const name = `upload${count}`;
      // Nearly every run of three characters is a new one.
      put(`${name}.out`, Array.from({ length: 30_000 }, () => String.fromCharCode(randomInt(0x4e00, 0x9fff))).join(''));
      add.run(name, name, packFiles(new Set(['out', 'rdy'])));
      const before = sizeOfWal();
      indexTexts(database, folder, undefined, () => {});
      written.push(sizeOfWal() - before);
    }
    database.close();
    // Merging all of a level at once would write fourteen times as much.
    const typical = quantile(written, 0.5);
    assert.ok(typical > 200_000 && Math.max(...written) < 8 * typical, written.join(' '));
  });
});

describe('the requests and uploads of one job', () => {
  const T0 = Date.parse('2026-11-01T12:00:00Z');
  const at = (text: string): number => Date.parse(`${text.slice(0, 19).replace(' ', 'T')}Z`);
  const line = (method: string, seconds: number, more: Partial<LogLine> = {}, log = 0): Located => {
    const time = new Date(T0 + seconds * 1000).toISOString().replace('T', ' ').slice(0, 19);
    const own = { jobId: 'job', remoteUser: 'c', remoteAddress: 'a', clientId: 'c', fileName: 'x.sh' };
    const counts = { bytesReceived: 1, bytesSent: 1, seconds: 0, status: 200, message: 'OK' };
    const text = formatLogLine({ time, method, ...own, ...counts, ...more });
    return { line: parseLogLine(text), text, at: at(text), log };
  };
  const upload = (name: string, seconds: number, more: Partial<Upload> = {}): Upload => {
    const has = new Set(['out', 'err', 'env', 'rdy'] as const);
    const ending = { isGood: true, exitCode: 0, signal: undefined, clockSkew: undefined };
    const own = { jobId: 'job', clientId: 'c', command: 'x.sh', isNamed: true, ending };
    return { name, place: LOCKER, has, at: T0 + seconds * 1000, ...own, ...more };
  };
  const broken = (name: string, seconds: number, more: Partial<Upload> = {}): Upload =>
    upload(name, seconds, { has: new Set(['out']), ending: undefined, ...more });
  /** `state at requests uploads` for every job; the same in whatever order they arrive. */
  const join = (
    lines: Located[],
    uploads: Upload[] = [],
    guess: Parameters<typeof joinUnit>[2] = () => [],
  ): string[] => {
    const tell = (): string[] =>
      joinUnit(lines, uploads, guess)
        .map(({ job, lines: own, uploads: ups }) => {
          const names = ups.map(({ name }) => name).sort();
          return [job.state, (job.at.getTime() - T0) / 1000, own.length, job.attempts.length, ...names].join(' ');
        })
        .sort();
    const found = tell();
    lines.reverse();
    uploads.reverse();
    assert.deepEqual(tell(), found, 'it depends on the order');
    return found;
  };

  it('have a state that follows from the answers and the files', () => {
    const refused = { status: 404, message: 'no' };
    assert.deepEqual(join([line('GET', 0)]), ['got 0 1 0']);
    assert.deepEqual(join([line('GET', 0, refused)]), ['refused 0 1 0']);
    assert.deepEqual(join([line('GET', 0), line('PUT', 5)], [upload('u', 5)]), ['done 5 2 0 u']);
    assert.deepEqual(join([line('GET', 0), line('PUT', 5)]), ['missing 5 2 0']);
    assert.deepEqual(join([line('PUT', 5)], [upload('u', 5, { place: takenPlace('job') })]), ['done 5 1 0 u']);
    assert.deepEqual(join([line('PUT', 5)], [upload('u', 5, { place: '2026-11-01' })]), ['done 5 1 0 u']);
    assert.deepEqual(join([line('PUT', 5, { status: 453 })]), ['refused 5 1 0']);
    assert.deepEqual(join([line('PUT', 5, { status: 251 })]), ['done 5 1 0']);
    assert.deepEqual(join([], [upload('u', 5)]), ['orphan 5 0 0 u']);
    assert.deepEqual(join([], [upload('u', 5, { place: takenPlace('job') })]), []);
    assert.deepEqual(join([], [broken('u', 5)]), ['incomplete 5 0 0 u']);
    const bad = { isGood: false, exitCode: 1, signal: undefined, clockSkew: undefined };
    assert.deepEqual(join([line('PUT', 5)], [upload('u', 5, { ending: bad })]), ['failed 5 1 0 u']);
    assert.deepEqual(join([line('PUT', 5)], [upload('u', 5, { ending: undefined })]), ['failed 5 1 0 u']);
  });

  it('count the last one that succeeded, and all others as attempts', () => {
    const refused = { status: 453, message: 'no' };
    assert.deepEqual(
      join([line('GET', 0), line('PUT', 3, refused), line('PUT', 5), line('PUT', 9, refused)], [upload('u', 5)]),
      ['done 5 4 2 u'],
    );
    assert.deepEqual(join([line('PUT', 3, refused), line('PUT', 5, refused)]), ['refused 5 2 1']);
    const [found] = joinUnit([line('GET', 5), line('PUT', 5, refused), line('GET', 9)], [], () => []);
    assert.equal((found?.job.seenAt?.getTime() ?? 0) - T0, 9000);
  });

  it('are two jobs when they come a day or more after one that succeeded', () => {
    const day = 86_400;
    assert.deepEqual(join([line('PUT', 0), line('PUT', day)], [upload('u', 0)]), ['done 86400 2 1 u']);
    assert.deepEqual(join([line('PUT', 0), line('PUT', day + 1)], [upload('u', 0), upload('v', day + 1)]), [
      'done 0 1 0 u',
      'done 86401 1 0 v',
    ]);
    assert.deepEqual(join([line('PUT', 0, { status: 453 }), line('PUT', day + 1)], [upload('u', day + 1)]), [
      'done 86401 2 1 u',
    ]);
    assert.deepEqual(join([line('PUT', 0), line('PUT', day), line('PUT', day + 9)], [upload('u', 0)]), [
      'done 86409 3 2 u',
    ]);
    // A client that was offline delivers a job that it ran days ago.
    assert.deepEqual(join([line('GET', 0), line('PUT', day + 1)], [upload('u', day + 1)]), ['done 86401 2 0 u']);
  });

  it('belong to each client and command, and to a hook that made another name', () => {
    const other = { clientId: 'd' };
    assert.deepEqual(join([line('PUT', 0), line('PUT', 1, other)], [upload('u', 0), upload('v', 1, other)]), [
      'done 0 1 0 u',
      'done 1 1 0 v',
    ]);
    const gpg = { fileName: 'x.sh.gpg' };
    assert.deepEqual(join([line('GET', 0, gpg), line('PUT', 1)], [upload('u', 1)]), ['done 1 2 0 u']);
    assert.deepEqual(join([line('GET', 0, { fileName: 'x.shgpg' }), line('PUT', 1)], [upload('u', 1)]), [
      'done 1 1 0 u',
      'got 0 1 0',
    ]);
    assert.deepEqual(join([line('GET', 0, { fileName: 'x.sh.a.b' }), line('PUT', 1)], [upload('u', 1)]), [
      'done 1 2 0 u',
    ]);
  });

  it('are joined by the accepted requests where the name of an upload does not decide', () => {
    const unnamed = { isNamed: false, clientId: undefined, command: undefined };
    assert.deepEqual(join([line('PUT', 0)], [upload('u', 0, unnamed)]), ['done 0 1 0 u']);
    assert.deepEqual(join([line('PUT', 0, { status: 453 })], [upload('u', 0, unnamed)]), [
      'orphan 0 0 0 u',
      'refused 0 1 0',
    ]);
    assert.deepEqual(join([line('PUT', 0), line('PUT', 1, { clientId: 'd' })], [upload('u', 0, unnamed)]), [
      'missing 0 1 0',
      'missing 1 1 0',
      'orphan 0 0 0 u',
    ]);
  });

  it('are matched by client, command and second without a job id', () => {
    const none = { jobId: undefined };
    const na = { jobId: 'NA' };
    const pair = (seconds: number, status = 200) =>
      join([line('PUT', 10, { ...none, seconds: 3, status })], [upload('u', seconds, na)]);
    for (const seconds of [6, 7, 10, 11]) assert.deepEqual(pair(seconds), ['done 10 1 0 u'], String(seconds));
    for (const seconds of [5, 12])
      assert.deepEqual(pair(seconds), ['done 10 1 0', `orphan ${seconds} 0 0 u`], String(seconds));
    assert.deepEqual(pair(10, 453), ['orphan 10 0 0 u', 'refused 10 1 0']);
    assert.deepEqual(join([line('PUT', 10, none), line('PUT', 11, none)], [upload('u', 10, na), upload('v', 11, na)]), [
      'done 10 1 0 u',
      'done 11 1 0 v',
    ]);
    assert.equal(unitOfLine(line('PUT', 0, none)), unitOfUpload(upload('u', 0, na)));
    assert.notEqual(unitOfUpload(upload('u', 0, na)), unitOfUpload(upload('u', 0, { ...na, clientId: 'd' })));
    assert.notEqual(
      unitOfUpload(upload('u', 0, { jobId: undefined })),
      unitOfUpload(upload('v', 0, { jobId: undefined })),
    );
  });

  it('include the remains of a PUT that broke off', () => {
    const breaks = { status: 456, message: 'no' };
    const guess = () => [{ folder: '.', prefix: 'u', fits: (name: string) => name === 'u', isExact: true, key: 'u' }];
    const alien = { jobId: undefined, clientId: undefined, command: undefined };
    assert.deepEqual(join([line('PUT', 0, breaks)], [broken('u', 0, alien)], guess), ['incomplete 0 1 0 u']);
    assert.deepEqual(join([line('PUT', 0, { ...breaks, status: 453 })], [broken('u', 0, alien)], guess), [
      'incomplete 0 0 0 u',
      'refused 0 1 0',
    ]);
    assert.deepEqual(join([line('PUT', 0, breaks)], [broken('v', 0)], guess), ['incomplete 0 1 0 v']);
    assert.deepEqual(join([line('PUT', 0, breaks), line('PUT', 9)], [broken('u', 0), upload('w', 9)], guess), [
      'done 9 2 1 u w',
    ]);
  });

  it('name what was kept beside another, once', () => {
    const packed = { place: '2026-11-01' };
    const uploads = [
      upload('u', 0),
      upload('u~2', 1),
      upload('u~2', 1, packed),
      upload('u~3', 2, { place: takenPlace('job') }),
    ];
    const [found] = joinUnit([line('PUT', 0)], uploads, () => []);
    assert.deepEqual(found?.job.differing, ['u~2']);
    assert.deepEqual(
      found?.job.uploads.map(({ name }) => name),
      ['u', 'u~2'],
    );
    assert.equal(found?.job.packed, undefined);
    const [gone] = joinUnit(
      [line('PUT', 0)],
      [upload('u', 0, packed), upload('v', 1, { place: '2026-11-02' })],
      () => [],
    );
    assert.deepEqual(gone?.job.packed, { pack: '2026-11-02', name: 'v' });
  });
});

describe('the fields of a job', () => {
  it('have the time that ECMAScript writes, whatever was asked for before', () => {
    const field = FIELDS.find(({ name }) => name === 'at');
    const instants = [
      0,
      -1,
      -86_400_001,
      86_399_999,
      86_400_000,
      8.64e15,
      -8.64e15,
      Date.UTC(2026, 1, 28, 23, 59, 59, 999),
    ];
    let state = 1;
    for (let count = 0; count < 300; count++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      instants.push((state % 3 === 0 ? state * 1000 : Date.UTC(2026, 9, 25)) + (state % 90_000_000));
    }
    const timeOf = (at: number) => field?.value({ at: new Date(at) } as Job, {} as Site);
    for (const at of instants) assert.equal(timeOf(at), new Date(at).toISOString());
    assert.equal(timeOf(Number.NaN), undefined);
  });
});

describe('a file that is only followed', () => {
  it('continues from the end of its last complete line, however long the rest is', async () => {
    const file = join(root, 'grows');
    const database = openWindowStore();
    const read = async (holds: readonly string[] | undefined): Promise<string[]> => {
      const kind: FileKind<string> = {
        kind: 'custody',
        list: () => [file],
        isLive: () => true,
        maxLineBytes: 1 << 20,
        holds,
        parse: (text) => text,
      };
      const found: string[] = [];
      for await (const { lines } of readNewLines(database, kind, () => assert.fail('it is there')))
        found.push(...lines);
      return found;
    };
    try {
      const half = 'b'.repeat(200_000);
      writeFileSync(file, `a\n${half}`);
      assert.deepEqual(await read([]), []);
      appendFileSync(file, 'b\nc\nd');
      assert.deepEqual(await read(undefined), [`${half}b`, 'c']);
      appendFileSync(file, '\ne\nf');
      assert.deepEqual(await read([]), []);
      appendFileSync(file, '\n');
      assert.deepEqual(await read(undefined), ['f']);
    } finally {
      database.close();
    }
  });
});
