// The parts of evidence/: reading a file, judging an upload, names, checkpoints, and how the reader
// of custody records handles each event.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { formatRecord, RECORD_FIELDS, type RecordField } from 'webjob-protocol';
import { appendCustody, custodyPath, formatCustody, segmentPath } from '../../cgi/locker/index.ts';
import { parseBagList } from '../../evidence/bag.ts';
import { compareCheckpoints, digestStart } from '../../evidence/checkpoint.ts';
import { type KeepEvent, readEvents, recordEvent } from '../../evidence/events.ts';
import { Evidence } from '../../evidence/evidence.ts';
import { KeyedDigest } from '../../evidence/keyed-digest.ts';
import { isInShare, NameTable, NO_NAMES } from '../../evidence/names.ts';
import { describeFile, digestFile, readFile, statFile } from '../../evidence/reading.ts';
import { CustodyRecords, type Deposit } from '../../evidence/records.ts';
import { seekRecord } from '../../evidence/seek.ts';
import { checkUpload, findDiffering, findRights, readRunRecord, touchedAt } from '../../evidence/upload.ts';
import { formatOldCheckpoint } from '../support/old-checkpoint.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-evidence-'));
after(() => rmSync(root, { recursive: true }));
let folder: string;
let made = 0;
beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
});

const digest = (bytes: string | Buffer, algorithm = 'sha256'): string =>
  createHash(algorithm).update(bytes).digest('hex');
const openFiles = (): number => readdirSync('/proc/self/fd').length;
const MIB = 1024 * 1024;

describe('a file that is read', () => {
  it('is hashed to its last byte, whatever its size', () => {
    const before = openFiles();
    for (const size of [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB]) {
      const bytes = Buffer.alloc(size, 'abc');
      const path = join(folder, 'file');
      writeFileSync(path, bytes);
      const found = readFile(path, { algorithms: ['sha256', 'md5'], maxTextBytes: 100 });
      assert.deepEqual(
        [found?.size, found?.digests.get('sha256'), found?.digests.get('md5'), found?.text === bytes.toString()],
        [size, digest(bytes), digest(bytes, 'md5'), size <= 100],
        String(size),
      );
      assert.deepEqual(digestFile(path), { bytes: size, sha256: digest(bytes) });
      assert.equal(statFile(path)?.size, size);
    }
    assert.equal(openFiles(), before);
  });

  it('yields its text up to a length, to the byte', () => {
    const path = join(folder, 'file');
    writeFileSync(path, 'x'.repeat(100));
    assert.deepEqual(
      [99, 100, 101].map((maxTextBytes) => readFile(path, { maxTextBytes })?.text.length),
      [1, 100, 100],
    );
  });

  it('is not a link, a directory or a FIFO', () => {
    const before = openFiles();
    writeFileSync(join(folder, 'file'), 'x');
    symlinkSync('file', join(folder, 'link'));
    mkdirSync(join(folder, 'folder'));
    spawnSync('mkfifo', [join(folder, 'fifo')]);
    for (const name of ['link', 'folder', 'fifo', 'none']) {
      assert.equal(readFile(join(folder, name), { algorithms: ['sha256'] }), undefined, name);
      assert.equal(statFile(join(folder, name)), undefined, name);
    }
    assert.throws(() => digestFile(join(folder, 'link')), { code: 'ELOOP' });
    for (const name of ['link', 'folder', 'fifo', 'none']) assert.equal(describeFile(join(folder, name)), undefined);
    assert.throws(() => describeFile(join(folder, 'file', 'below')), { code: 'ENOTDIR' });
    assert.equal(openFiles(), before);
  });
});

describe('the check of an upload', () => {
  const owners = new Set([process.getuid?.() ?? 0]);
  const TEXTS = { out: 'out', err: 'error' };
  const record = (more: Partial<Record<RecordField, string>> = {}): string => {
    const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, 'NA']));
    return formatRecord({ fields: { ...fields, Jid: 'job', ...more } as Record<RecordField, string>, extra: [] });
  };
  const put = (files: Record<string, string>): void => {
    for (const [extension, text] of Object.entries(files)) {
      writeFileSync(join(folder, `u.${extension}`), text);
      chmodSync(join(folder, `u.${extension}`), 0o644);
    }
  };
  const whole = (env = record()): Record<string, string> => ({ ...TEXTS, env, rdy: 'Jid=job\n' });
  const depositOf = ({ out = '', err = '', env = '' }: Record<string, string>): Deposit => ({
    name: 'u',
    time: new Date(),
    jobId: 'job',
    receivedAt: undefined,
    fault: undefined,
    clientId: undefined,
    fileName: undefined,
    bytes: { out: out.length, err: err.length, env: env.length },
    sha256: { out: digest(out), err: digest(err), env: digest(env) },
  });
  const check = (deposit?: Deposit, contents = true): string[] => {
    const { findings, streams } = checkUpload(folder, 'u', { deposit, owners }, { contents });
    return [
      ...findings.map(({ kind, place }) => `${kind} ${place}`),
      (['out', 'err', 'env'] as const).map((stream) => streams[stream].state).join(' '),
    ];
  };

  it('reports it as received if the custody record does, and as unread if nobody read it', () => {
    put(whole());
    const deposit = depositOf(whole());
    assert.deepEqual(check(deposit), ['received received received']);
    assert.deepEqual(check(deposit, false), ['unread unread unread']);
    assert.deepEqual(check(), ['unproven unproven unproven']);
  });

  for (const stream of ['out', 'err', 'env'] as const)
    it(`reports a change when its .${stream} has another size, other bytes, or is gone`, () => {
      const deposit = depositOf(whole());
      const text = whole()[stream] ?? '';
      const states = (state: string): string =>
        ['out', 'err', 'env'].map((name) => (name === stream ? state : 'received')).join(' ');
      put({ ...whole(), [stream]: `${text}x` });
      assert.deepEqual(check(deposit), [`size-changed u.${stream}`, states('changed')]);
      put({ ...whole(), [stream]: text.replace(/.$/s, 'X') });
      assert.equal(check(deposit)[0], `digest-changed u.${stream}`);
      assert.equal(check(deposit).at(-1), states('changed'));
      rmSync(join(folder, `u.${stream}`));
      assert.deepEqual(check(deposit), [`stream-missing u.${stream}`, states('missing')]);
    });

  for (const stream of ['out', 'err', 'env'] as const)
    it(`reports an unreadable .${stream}`, () => {
      put(whole());
      for (const path of [folder, dirname(folder)]) chmodSync(path, 0o755);
      chmodSync(join(folder, `u.${stream}`), 0);
      const deposit = depositOf(whole());
      const isRoot = process.getuid?.() === 0;
      if (isRoot) process.seteuid?.(65_534);
      try {
        const states = ['out', 'err', 'env'].map((name) => (name === stream ? 'unreadable' : 'received')).join(' ');
        assert.deepEqual(check(deposit), [`unreadable u.${stream}`, states]);
      } finally {
        if (isRoot) process.seteuid?.(0);
      }
    });

  for (const hashType of ['MD5', 'SHA1', 'SHA256', 'SHA512', 'sha1'])
    it(`compares it with its run record, by ${hashType}`, () => {
      const algorithm = hashType.toLowerCase();
      const [StdOutHash, StdErrHash] = [digest(TEXTS.out, algorithm).toUpperCase(), digest(TEXTS.err, algorithm)];
      const env = record({ HashType: hashType, StdOutHash, StdErrHash });
      put(whole(env));
      assert.deepEqual(check(), ['claimed claimed unproven']);
      assert.deepEqual(check(depositOf(whole(env))), ['received received received']);
      put({ ...whole(env), err: 'eRror' });
      assert.deepEqual(check(), ['hash-wrong u.err', 'claimed contradicted unproven']);
      const wrong = whole(record({ HashType: hashType, StdOutHash: StdErrHash, StdErrHash }));
      put(wrong);
      assert.deepEqual(check(depositOf(wrong)), ['hash-wrong u.out', 'contradicted received received']);
    });

  it('ignores an invalid hash in the run record', () => {
    put(whole(record({ HashType: 'CRC32', StdOutHash: 'x', StdErrHash: 'y' })));
    assert.deepEqual(check(), ['unproven unproven unproven']);
    put(whole(record({ HashType: 'MD5', StdOutHash: 'NA', StdErrHash: digest(TEXTS.err, 'md5') })));
    assert.deepEqual(check(), ['unproven claimed unproven']);
  });

  it('compares its job with its .rdy file', () => {
    const wrong = 'ready-wrong u.rdy';
    const found = (rdy: string, env: string, isDeposited: boolean): boolean => {
      put({ ...whole(env), rdy });
      return check(isDeposited ? depositOf(whole(env)) : undefined).includes(wrong);
    };
    assert.deepEqual(
      [found('Jid=job\n', record({ Jid: 'other' }), true), found('Jid=other\n', record(), true)],
      [false, true],
    );
    assert.deepEqual([found('Jid=job\r\n', record(), true), found('Jid=job\r\n', record(), false)], [true, false]);
    assert.deepEqual(
      [found('Jid=other\n', record(), false), found('Jid=other\n', record({ Jid: 'NA' }), false)],
      [true, false],
    );
    assert.deepEqual([found('none', '', false), found(`Jid=${'x'.repeat(600)}\n`, '', false)], [true, true]);
  });

  it('does not announce it while a writer is at work, or after it broke off', () => {
    put({ ...TEXTS, lck: 'Jid=job\n' });
    const report = checkUpload(folder, 'u', { deposit: undefined, owners }, { contents: true });
    assert.deepEqual([report.inProgress, report.isAnnounced, report.findings], [true, false, []]);
    rmSync(join(folder, 'u.lck'));
    assert.deepEqual(check(), ['incomplete u', 'unread unread missing']);
    put({ lck: 'Jid=job\n' });
    for (const name of readdirSync(folder)) utimesSync(join(folder, name), 1000, 1000);
    assert.deepEqual(check(), ['lock-abandoned u.lck', 'incomplete u', 'unread unread missing']);
  });

  it('requires that only its owner may write it', { skip: process.getuid?.() !== 0 && 'owners need root' }, () => {
    put(whole());
    for (const mode of [0o664, 0o646, 0o644 | 0o4000]) {
      chmodSync(join(folder, 'u.out'), mode);
      const kinds = findRights(statSync(join(folder, 'u.out')), owners).map(([kind]) => kind);
      assert.deepEqual(kinds, mode & 0o022 ? ['mode'] : [], mode.toString(8));
    }
    chmodSync(join(folder, 'u.out'), 0o644);
    chownSync(join(folder, 'u.rdy'), 12_345, 0);
    assert.equal(check()[0], 'owner u.rdy');
  });

  it('shows the content of its record, and the number of a name that differs', () => {
    for (const [text, size, problem] of [
      ['', 0, 'it is empty'],
      ['', MIB + 1, `it has ${MIB + 1} bytes, more than any run record`],
    ] as const)
      assert.equal(readRunRecord(text, size).recordProblem, problem);
    const found = readRunRecord(record(), MIB);
    assert.deepEqual([found.record?.fields.Jid, found.recordProblem], ['job', undefined]);
    assert.deepEqual(
      ['u', 'u~2', 'u~1', 'u~02', 'u~2x', 'folder/u~9999', 'folder/~2', '~2'].map((name) => findDiffering(name)?.kind),
      [undefined, 'differing', undefined, undefined, undefined, 'differing', undefined, undefined],
    );
    const stats = { mtimeMs: 5, ctimeMs: 9 };
    assert.equal(touchedAt({ out: stats, rdy: { mtimeMs: 12, ctimeMs: 3 } } as never), 12);
    assert.equal(touchedAt({ out: stats } as never), 9);
  });
});

describe('the digest list of an evidence package', () => {
  it('names each path once, in whole lines', () => {
    const line = (path: string): string => `${'0'.repeat(64)}  ${path}\n`;
    assert.equal(parseBagList(line('data/a') + line('data/b'))?.size, 2);
    for (const text of [line('data/a') + line('data/a'), line('data/a').trimEnd(), `${line('data/a')}\n`, ''])
      assert.equal(parseBagList(text), undefined, JSON.stringify(text));
  });
});

describe('a table of names', () => {
  it('finds each of thousands of names, and reports which were met', () => {
    const table = new NameTable();
    const names = Array.from({ length: 5000 }, (_, index) => `name_${index}`);
    for (const [index, name] of names.entries()) {
      const row = table.add(name);
      [table.file[row], table.at[row], table.time[row], table.gone[row]] = [1, index, index + 1, index + 2];
      assert.equal(table.add(name), row);
    }
    assert.equal(table.size, 5000);
    for (const [index, name] of names.entries()) {
      const row = table.find(name);
      assert.deepEqual(
        [table.file[row], table.at[row], table.time[row], table.gone[row]],
        [1, index, index + 1, index + 2],
      );
      const isIt = table.matcher(row);
      assert.ok(isIt(name) && !isIt(`${name}0`));
      if (index % 2 === 0) table.markSeen(name);
    }
    table.markSeen('none');
    assert.equal(table.find('none'), -1);
    assert.deepEqual([[...table.rows()].length, [...table.unseen()].length], [5000, 2500]);
    for (const row of table.unseen()) assert.equal((table.at[row] ?? 0) % 2, 1);
  });

  it('is divided so that each name is in one part', () => {
    const counts = [0, 0, 0];
    for (let number = 0; number < 3000; number++) {
      const shares = [0, 1, 2].filter((index) => isInShare(`name_${number}`, { index, count: 3 }));
      assert.equal(shares.length, 1);
      counts[shares[0] ?? 0] = (counts[shares[0] ?? 0] ?? 0) + 1;
    }
    assert.ok(
      counts.every((count) => count > 800),
      String(counts),
    );
    assert.ok(isInShare('any', { index: 0, count: 1 }));
    assert.ok(!isInShare('any', NO_NAMES));
  });
});

describe('a checkpoint of an earlier version', () => {
  const pair = generateKeyPairSync('ed25519');
  const file = 'nph-webjob-custody.server_1.jsonl';

  it('shows whether the entries of that time are still there', () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    const path = join(folder, file);
    const lines = join(folder, 'checkpoints');
    writeFileSync(path, 'one\ntwo\n');
    const checkpoint = { file, ...digestStart(path, 4), size: 4, time: '2026-11-01T00:00:00.000Z' };
    const line = formatOldCheckpoint(checkpoint, pair.privateKey);
    const find = (text: string, ...folders: string[]): string[] => {
      writeFileSync(lines, text);
      return [...compareCheckpoints(lines, { key: pair.publicKey }, folders)].map(({ kind }) => kind);
    };
    assert.deepEqual(find(`${line}\n`, folder), []);
    appendFileSync(path, 'more\n');
    assert.deepEqual(find(`${line}\n\n${line}\n`, folder), []);
    assert.deepEqual(find(line, other), ['checkpoint-truncated']);
    assert.deepEqual(find(line, other, folder, other), []);
    truncateSync(path, 4);
    assert.deepEqual(find(line, folder), []);
    truncateSync(path, 3);
    assert.deepEqual(find(line, folder), ['checkpoint-truncated']);
    writeFileSync(path, 'onE\ntwo\n');
    assert.deepEqual(find(line, folder, folder), ['checkpoint-changed']);
    writeFileSync(path, 'one\n');
    for (const wrong of [
      line.replace('"size":4', '"size":3'),
      formatOldCheckpoint(checkpoint, generateKeyPairSync('ed25519').privateKey),
      line.slice(0, -1),
      `${line} `,
      line.replace('nph-webjob-custody.', '../nph-webjob-custody.'),
    ])
      assert.deepEqual(find(`${line}\n${wrong}\n`, folder), ['checkpoint-invalid'], wrong);
    assert.throws(() => find('\n\n', folder), /contains no checkpoint/);
    assert.deepEqual(digestStart(join(folder, 'none'), 5), { size: 0, head: '' });
    assert.deepEqual(digestStart(path, 2), { size: 4, head: digest('on') });
  });
});

describe('the content of custody records', () => {
  const at = (seconds: number): string => new Date(1_700_000_000_000 + seconds * 1000).toISOString();
  const say = (serverId: string, seconds: number, facts: { event: string; [name: string]: unknown }): void =>
    appendCustody(custodyPath(folder, serverId), { time: at(seconds), ...facts }, { mayCreate: true });
  const deposit = (name: string, seconds: number, more: Record<string, unknown> = {}, serverId = 'server_1'): void => {
    const sizes = { bytes: { out: 1, err: 2, env: 3 }, sha256: { out: 'a', err: 'b', env: 'c' } };
    say(serverId, seconds, { event: 'deposit', name, jobId: `job_${seconds}`, ...sizes, ...more });
  };
  const pack = (archive: string) => {
    return { pack: '2026-11-01', count: 1, archiveBytes: 1, archiveSha256: archive, manifestSha256: 'm' };
  };
  const read = <Type>(look: (records: CustodyRecords) => Type, only?: readonly string[]): Type => {
    const before = openFiles();
    const records = new CustodyRecords([folder], { only });
    try {
      records.refresh();
      return look(records);
    } finally {
      records.close();
      assert.equal(openFiles(), before);
    }
  };
  /** A search for a name and a walk of the record give the same result. */
  const ask = <Type>(name: string, look: (records: CustodyRecords) => Type): Type => {
    const found = read(look);
    assert.deepEqual(read(look, [name]), found);
    return found;
  };
  const jobOf = (name: string): string | undefined => ask(name, (records) => records.find(name)?.jobId);
  const isExpected = (name: string): boolean => ask(name, (records) => records.isExpected(name));
  const packs = (name: string): string[] => ask(name, (records) => records.packs().map((found) => found.name));

  it('shows the last deposit of a name: by place in one record, by time in several', () => {
    deposit('u', 20);
    deposit('u', 10);
    assert.equal(jobOf('u'), 'job_10');
    deposit('u', 15, {}, 'server_2');
    assert.equal(jobOf('u'), 'job_15');
    deposit('u', 5, {}, 'server_0');
    assert.equal(jobOf('u'), 'job_15');
    const before = read((records) =>
      [10, 14, 15, 25].map((limit) => records.before(new Set(['u']), Date.parse(at(limit))).get('u')?.jobId),
    );
    assert.deepEqual(before, ['job_10', 'job_10', 'job_15', 'job_20']);
  });

  /** Lines with records of other uploads, over a range of seconds. */
  const fill = (from: number, to: number, serverId = 'server_1'): void => {
    const lines = Array.from({ length: to - from }, (_, index) => {
      // The time is at the end of the line, so that the second half of a split line has a time too.
      const facts = JSON.stringify({ event: 'deposit', name: 'x'.repeat(800), time: at(from + index) });
      return `{"covers":[0,1],"prev":"",${facts.slice(1)}\n`;
    });
    appendFileSync(custodyPath(folder, serverId), lines.join(''));
  };

  it('is found from a time on, at a line that begins there', () => {
    deposit('u', 0);
    fill(1, 3000);
    const path = custodyPath(folder, 'server_1');
    const text = readFileSync(path, 'latin1');
    const fd = openSync(path, 'r');
    for (const second of [-1, 0, 1, 700, 1500, 2998, 2999, 5000]) {
      const from = seekRecord(fd, Date.parse(at(second)));
      const times = (part: string): string[] => [...part.matchAll(/"time":"([^"]+)"/g)].map(([, time = '']) => time);
      assert.ok(from === 0 || text[from - 1] === '\n', String(second));
      assert.ok(
        times(text.slice(0, from)).every((time) => time < at(second)),
        String(second),
      );
      const older = times(text.slice(from)).filter((time) => time < at(second)).length;
      assert.ok(older < 1000, `${older} records older than second ${second} would be read`);
    }
    closeSync(fd);
  });

  it('includes a job that began after its own record, or whose upload was removed', () => {
    deposit('late', 10);
    fill(1000, 20_000);
    deposit('u', 20_000);
    deposit('pruned', 20_001);
    say('webjobctl', 1, { event: 'prune', rule: 'r', names: ['pruned'] });
    fill(1000, 20_000, 'webjobctl');
    for (const name of ['late', 'u']) writeFileSync(join(folder, `${name}.rdy`), '');
    const site = { incomingDirectory: folder, servers: [{ logfilesDirectory: folder }] };
    const since = Date.parse(at(20_000));
    const look = (name: string, jobId: string): [string | undefined, string[]] => {
      const evidence = new Evidence(site, { only: { names: [name], jobId, since } });
      try {
        return [evidence.records.find(name)?.jobId, [...evidence.missing()].map((found) => found.name)];
      } finally {
        evidence.close();
      }
    };
    assert.deepEqual(look('u', 'job_20000'), ['job_20000', []]);
    assert.deepEqual(look('late', 'job_10'), ['job_10', []]);
    // The clock of webjobctl was behind: its record counts as older, and so the upload is missing,
    // but the record was read.
    const evidence = new Evidence(site, { only: { names: ['pruned'], jobId: 'job_20001', since } });
    assert.ok(evidence.records.count >= 2);
    evidence.close();
  });

  it('is not searched before a time while what is asked for is there and recorded', () => {
    deposit('u', 1000);
    fill(10_000, 20_000);
    deposit('gone', 20_000, { jobId: 'job_1000' });
    writeFileSync(join(folder, 'u.rdy'), '');
    const site = { incomingDirectory: folder, servers: [{ logfilesDirectory: folder }] };
    const look = (until: number | undefined, name = 'u'): string[] => {
      const only = { names: [name], jobId: 'job_1000', since: Date.parse(at(1000)), until };
      const evidence = new Evidence(site, { only });
      try {
        assert.equal(evidence.records.find('u')?.jobId, 'job_1000');
        return [...evidence.missing()].map((found) => found.name);
      } finally {
        evidence.close();
      }
    };
    assert.deepEqual(look(undefined), ['gone']);
    assert.deepEqual(look(Date.parse(at(2000))), []);
    // What is missing may have been recorded later.
    assert.deepEqual(look(Date.parse(at(2000)), 'gone'), ['gone']);
  });

  it('shows what webjobctl removed, and what came back', () => {
    deposit('u', 10);
    assert.ok(isExpected('u') && !isExpected('none'));
    say('webjobctl', 20, { event: 'prune', names: ['u'], groups: [] });
    assert.ok(!isExpected('u'));
    deposit('u', 20);
    assert.ok(!isExpected('u'));
    deposit('u', 21);
    assert.ok(isExpected('u'));
    say('webjobctl', 30, { event: 'pack', names: ['u'], ...pack('x') });
    assert.deepEqual([isExpected('u'), packs('u')], [false, ['2026-11-01']]);
    say('webjobctl', 40, { event: 'unpack', ...pack('x') });
    assert.deepEqual([isExpected('u'), packs('u')], [true, []]);
    for (const event of ['pack', 'unpack']) say('webjobctl', 45, { event, names: ['u'], ...pack('z') });
    assert.ok(isExpected('u'), 'both within a millisecond');
    say('webjobctl', 50, { event: 'pack', names: ['u'], ...pack('y') });
    say('webjobctl', 60, { event: 'prune-pack', rule: 'r', ...pack('y') });
    assert.deepEqual([isExpected('u'), packs('u')], [false, []]);
    say('webjobctl', 70, {
      event: 'adopt',
      reason: 'r',
      uploads: [{ name: 'u', jobId: 'a', bytes: { out: 1, err: 1, env: 1 }, sha256: { out: 'a', err: 'b', env: 'c' } }],
    });
    assert.deepEqual([isExpected('u'), jobOf('u')], [true, 'a']);
  });

  it('is the same when it is read again, whatever was unpacked meanwhile', () => {
    deposit('u', 10);
    say('webjobctl', 15, { event: 'hold', kind: 'job', id: 'x', reason: 'r' });
    const records = new CustodyRecords([folder], { only: ['u'] });
    const isThere = (): boolean => {
      records.refresh();
      return records.isExpected('u');
    };
    try {
      assert.equal(isThere(), true);
      say('webjobctl', 20, { event: 'pack', names: ['u'], ...pack('x') });
      assert.equal(isThere(), false);
      say('webjobctl', 30, { event: 'unpack', ...pack('other') });
      assert.equal(isThere(), false);
      say('webjobctl', 40, { event: 'unpack', ...pack('x') });
      assert.equal(isThere(), true);
    } finally {
      records.close();
    }
  });

  it('contains no event that only another writer may write, or that names no upload', () => {
    deposit('u', 10);
    say('server_1', 20, { event: 'prune', names: ['u'] });
    assert.ok(isExpected('u'));
    for (const name of ['../u', '/u', 'a//b', 'a/../b', '', 'a\0b', 7]) deposit(name as string, 30);
    assert.equal(
      read((records) => [...records.unseen()].length),
      1,
    );
    assert.deepEqual(
      read((records) => records.findFaults().map(({ kind }) => kind)),
      ['custody-foreign'],
    );
  });

  it('shows since when a server records, and when uploads came', () => {
    say('server_1', 0, { event: 'genesis' });
    assert.deepEqual(
      read((records) => [records.hasBegun, records.rootless()]),
      [false, []],
    );
    deposit('u', 20, { receivedAt: at(15) });
    deposit('v', 30);
    read((records) => {
      assert.deepEqual(
        [records.hasBegun, records.covers(Date.parse(at(15))), records.covers(Date.parse(at(15)) - 1)],
        [true, true, false],
      );
      const since = (seconds: number): string[] =>
        [...records.since(Date.parse(at(seconds)))].map(({ name }) => name).sort();
      assert.deepEqual([since(20), since(20.001), since(31)], [['u', 'v'], ['v'], []]);
      records.markSeen('u');
      assert.deepEqual(
        [...records.unseen()].map(({ name }) => name),
        ['v'],
      );
    });
    deposit('w', 1, {}, 'server_2');
    assert.deepEqual(
      read((records) => records.rootless().map(({ file }) => file)),
      ['nph-webjob-custody.server_2.jsonl'],
    );
  });

  it('is linked from segment to segment byte for byte', () => {
    const path = custodyPath(folder, 'server_1');
    const facts = (name: string) => ({ event: 'deposit', time: at(1), name });
    for (let count = 0; count < 12; count++)
      appendCustody(path, facts(`u${count}`), { mayCreate: true, segmentLimit: 600 });
    const second = segmentPath(path, 2);
    const kinds = (): string[] =>
      read((records) => records.findFaults().map(({ kind, place }) => `${kind} ${place.split('/').at(-1)}`));
    assert.deepEqual(kinds(), []);
    const [line = ''] = readFileSync(second, 'latin1').split('\n');
    // Otherwise they would name the segments after them, which are gone.
    for (const name of readdirSync(join(second, '..'))) if (name > '000002.jsonl') rmSync(join(second, '..', name));
    const { follows, ...others } = JSON.parse(line) as {
      follows: { file: string; covers: [number, number]; prev: string };
    };
    const [from, to] = follows.covers;
    const first = readFileSync(path);
    const bound = (more: Partial<typeof follows>, event = 'segment'): string[] => {
      const { covers: _covers, prev: _prev, sum: _sum, ...told } = others as Record<string, unknown>;
      const forged = formatCustody([0, 0], digest(''), { ...told, event, follows: { ...follows, ...more } });
      writeFileSync(second, `${forged}\n`, 'latin1');
      return kinds()
        .filter((kind) => kind === 'custody-broken 000002.jsonl')
        .slice(0, 1);
    };
    const digestOf = (start: number, end: number): string => digest(first.subarray(start, end));
    const broken = ['custody-broken 000002.jsonl'];
    assert.deepEqual(bound({}), []);
    for (const wrong of [
      { file: 'nph-webjob-custody.server_2.jsonl' },
      { prev: 'f'.repeat(64) },
      { covers: [from, to - 1], prev: digestOf(from, to - 1) },
      { covers: [from + 1, to], prev: digestOf(from + 1, to) },
      { covers: [from, to + 100], prev: digestOf(from, to) },
      { covers: [0, to], prev: digestOf(0, to) },
      { covers: [to, from], prev: digest('') },
      { covers: [-1, to], prev: digestOf(0, to) },
      { covers: [from] },
      { covers: 'all' },
    ])
      assert.deepEqual(bound(wrong as Partial<typeof follows>), broken, JSON.stringify(wrong));
    assert.deepEqual(bound({}, 'deposit'), broken);
    rmSync(second);
    assert.ok(kinds().includes('custody-missing 000002.jsonl'));
  });

  it('names what was replaced, and accepts no invalid name', () => {
    for (const name of [7, undefined, ['u'], null]) say('server_1', 1, { event: 'replaced', name, jobId: 'j' });
    say('server_1', 2, { event: 'replaced', name: 'u', jobId: 7 });
    assert.deepEqual(
      read((records) => [...records.replaced()].map(({ name, jobId }) => [name, jobId])),
      [['u', undefined]],
    );
  });

  it('is kept in one file by root where others could replace the directory', {
    skip: process.getuid?.() !== 0 && 'not root',
  }, () => {
    const logs = { logfilesDirectory: folder, custodySegmentLimit: 1 };
    for (const mode of [0o777, 0o755]) {
      chmodSync(folder, mode);
      for (const id of ['a', 'b', 'c']) recordEvent(logs, { event: 'hold', kind: 'job', id, reason: 'r' });
      assert.equal(existsSync(join(folder, 'nph-webjob-custody.webjobctl.d')), mode === 0o755);
    }
  });

  it('counts only complete events of webjobctl', () => {
    const logs = { logfilesDirectory: folder, custodySegmentLimit: 1e6 };
    const names = (event: KeepEvent['event']): number => [...readEvents(logs, event)].length;
    assert.equal(names('prune'), 0);
    assert.deepEqual([...readEvents({ logfilesDirectory: join(folder, 'none') }, 'prune')], []);
    recordEvent(logs, { event: 'prune', rule: 'r', names: ['u'], groups: [{ name: 'u', jobId: 'j', files: {} }] });
    recordEvent(logs, { event: 'hold', kind: 'job', id: 'j', reason: 'r' });
    assert.deepEqual([names('prune'), names('hold'), names('release')], [1, 1, 0]);
    say('server_1', 1, { event: 'prune', names: [], groups: [] });
    for (const bad of [
      { names: 'u', groups: [] },
      { names: [7], groups: [] },
      { names: [] },
      { groups: [{ name: 'u' }] },
      { groups: [], pack: 7 },
    ])
      say('webjobctl', 1, { event: 'prune', ...bad });
    assert.equal(names('prune'), 1);
    const path = custodyPath(folder, 'webjobctl');
    const text = readFileSync(path, 'latin1');
    writeFileSync(path, text.replace('"rule":"r"', '"rule":"x"'), 'latin1');
    assert.equal(names('prune'), 0);
  });
});

describe('a keyed digest', () => {
  it('is that of the authors of HalfSipHash', () => {
    // vectors.h of https://github.com/veorq/SipHash, by the number of bytes.
    const vectors = [
      '218d1f59b9b83cc8',
      'be552412f8387315',
      '064f39ef7c50eb57',
      'ce0f1a45f7060679',
      'd5e78a175be52ea1',
    ];
    vectors[8] = 'edfee820bce4858c';
    vectors[19] = 'f910e48020ab363c';
    const digest = new KeyedDigest(Buffer.from([0, 1, 2, 3, 4, 5, 6, 7]));
    vectors.forEach((vector, length) => {
      const text = String.fromCharCode(...Array.from({ length: length + 1 }, (_, code) => code));
      assert.equal(digest.take(text, length), true);
      const bytes = Buffer.alloc(8);
      bytes.writeUInt32LE(digest.low, 0);
      bytes.writeUInt32LE(digest.high, 4);
      assert.equal(bytes.toString('hex'), vector, `${length} bytes`);
    });
  });

  it('is refused for text that is not ASCII', () => {
    const digest = new KeyedDigest(Buffer.alloc(8));
    for (const text of ['caf\u00e9', 'caf\u00e9s', '\ufffdxxx']) assert.equal(digest.take(text, text.length), false);
    assert.equal(digest.take('caf\u00e9', 3), true);
  });
});
