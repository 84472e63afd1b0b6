// The format of archives, through the functions that write and read it: files that change while
// they are read, archives and manifests that were changed, and the order of archives.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Appender } from '../../archive/appender.ts';
import {
  type Appended,
  appendEnd,
  appendGroup,
  ChangedFile,
  checkGroup,
  checkGroups,
  readGroup,
} from '../../archive/archive.ts';
import { PACKED_EXTENSIONS, type PackedGroup, readManifest } from '../../archive/manifest.ts';
import { listPacks, nextPack, packAt, readEnd } from '../../archive/packs.ts';

/** More than is compressed at once, so that a file is read piece by piece. */
const LARGE = 3 << 20;
const TEXTS = { env: 'Version=webjob\n', err: '', out: 'This is stdout.\n', rdy: 'Jid=job\n' };

const root = mkdtempSync(join(tmpdir(), 'webjob-archive-'));
after(() => rmSync(root, { recursive: true }));
let folder: string;
let archive: number;
let members: Appender;
let made = 0;
const pathOf = (extension: string): string => join(folder, `upload.${extension}`);
const archivePath = (): string => join(folder, 'archive.tar.gz');
const openFiles = (): number => readdirSync('/proc/self/fd').length;

beforeEach(() => {
  folder = join(root, String(made++));
  mkdirSync(folder);
  for (const [extension, text] of Object.entries(TEXTS)) writeFileSync(pathOf(extension), text);
  archive = openSync(archivePath(), 'w+');
  members = new Appender(archive);
});
afterEach(() => closeSync(archive));

const append = (): Promise<Appended> => appendGroup(members, folder, 'upload');
const group = ({ length, files }: Appended, offset = 0): PackedGroup => {
  const facts = { jobId: 'job', at: '2026-10-01T00:00:00.000Z', clientId: 'client1', command: 'x.sh', clients: [] };
  return { name: 'upload', ...facts, offset, length, files };
};

describe('a packed upload', () => {
  for (const [what, out] of [
    ['small', Buffer.from(TEXTS.out)],
    ['large', randomBytes(LARGE)],
    ['large and empty of anything but zeros', Buffer.alloc(LARGE)],
  ] as const)
    it(`is read back unchanged: ${what}`, async () => {
      writeFileSync(pathOf('out'), out);
      const times = { env: 1000.5, err: 2000.25, out: 3000.125, rdy: 4000.75 };
      for (const extension of PACKED_EXTENSIONS) utimesSync(pathOf(extension), 0, times[extension]);
      const first = await append();
      const second = await append();
      assert.equal(members.position, first.length + second.length);
      appendEnd(members);
      members.flush();
      assert.equal(readFileSync(archivePath()).length, members.position);
      for (const packed of [group(first), group(second, first.length)]) {
        for await (const { extension, file, chunks } of readGroup(archivePath(), packed)) {
          const parts: Buffer[] = [];
          for await (const chunk of chunks) parts.push(Buffer.from(chunk));
          assert.ok(Buffer.concat(parts).equals(readFileSync(pathOf(extension))), extension);
          assert.equal(file.mtime, times[extension] * 1000);
        }
        await checkGroup(archivePath(), packed);
      }
      assert.equal(first.record, TEXTS.env);
      // Whole seconds in the past, as every tar has them.
      const [member] = [gunzipSync(readFileSync(archivePath()).subarray(0, first.length))];
      assert.equal(Number.parseInt(member.toString('latin1', 136, 147), 8), 1000);
      const { stdout } = spawnSync('tar', ['tzf', archivePath()], { encoding: 'utf8' });
      assert.deepEqual(stdout.split('\n').slice(0, 4), ['upload.env', 'upload.err', 'upload.out', 'upload.rdy']);
    });

  it('can be read by tar, with files before 1970 dated to its first second', async () => {
    const past = new Date(-86_400_500);
    utimesSync(pathOf('out'), past, past);
    const packed = group(await append());
    appendEnd(members);
    members.flush();
    await checkGroup(archivePath(), packed);
    const { status, stdout } = spawnSync('tar', ['tzvf', archivePath(), '--utc', '--full-time'], { encoding: 'utf8' });
    assert.equal(status, 0);
    assert.match(stdout, / 1970-01-01 00:00:00 upload\.out\n/);
  });

  it('is refused when one of its files shrinks meanwhile', { timeout: 60_000 }, async () => {
    writeFileSync(pathOf('out'), randomBytes(LARGE));
    const before = openFiles();
    const packing = append();
    truncateSync(pathOf('out'), 100);
    await assert.rejects(packing, ChangedFile);
    assert.equal(openFiles(), before);
  });

  for (const [what, change] of [
    ['becomes longer', () => appendFileSync(pathOf('out'), 'more')],
    ['is another one of the same bytes and time', () => exchange()],
    ['is gone', () => rmSync(pathOf('out'))],
  ] as const)
    it(`is refused when one of its files ${what} meanwhile`, async () => {
      writeFileSync(pathOf('out'), randomBytes(LARGE));
      utimesSync(pathOf('out'), 1000, 1000);
      const packing = append();
      change();
      await assert.rejects(packing, ChangedFile);
    });

  function exchange(): void {
    copyFileSync(pathOf('out'), pathOf('other'));
    utimesSync(pathOf('other'), 1000, 1000);
    renameSync(pathOf('other'), pathOf('out'));
  }

  it('is refused with a link or a FIFO in place of a file, without blocking', async () => {
    const before = openFiles();
    renameSync(pathOf('rdy'), pathOf('other'));
    symlinkSync(pathOf('other'), pathOf('rdy'));
    await assert.rejects(append(), { code: 'ELOOP' });
    rmSync(pathOf('rdy'));
    spawnSync('mkfifo', [pathOf('rdy')]);
    await assert.rejects(append(), ChangedFile);
    rmSync(pathOf('rdy'));
    await assert.rejects(append(), { code: 'ENOENT' });
    assert.equal(openFiles(), before);
  });
});

describe('an upload that could not be packed', () => {
  for (const [what, size] of [
    ['small', 2000],
    ['large', LARGE],
  ] as const)
    it(`leaves the archive unchanged: ${what}`, async () => {
      const first = await append();
      writeFileSync(pathOf('out'), randomBytes(size));
      const packing = append();
      appendFileSync(pathOf('out'), 'more');
      await assert.rejects(packing, ChangedFile);
      assert.equal(members.position, first.length);
      writeFileSync(pathOf('out'), 'after');
      const last = await append();
      members.flush();
      await checkGroups(archivePath(), [group(first), group(last, first.length)]);
    });
});

describe('uploads that are verified together', () => {
  const sizes = [2000, 3000, 1000, 300_000, 300_000, 10, LARGE, 10, 0];
  let groups: PackedGroup[];
  beforeEach(async () => {
    groups = [];
    for (const size of sizes) {
      writeFileSync(pathOf('out'), randomBytes(size));
      const offset = members.position;
      groups.push(group(await append(), offset));
    }
    members.flush();
  });
  const check = (...change: [index: number, more: Partial<PackedGroup>][]): Promise<void> =>
    checkGroups(
      archivePath(),
      groups.map((one, at) => ({ ...one, ...change.find(([index]) => index === at)?.[1] })),
    );

  it('are intact, with or without gaps between them', async () => {
    const before = openFiles();
    await check();
    await checkGroups(archivePath(), [...groups].reverse());
    await checkGroups(
      archivePath(),
      groups.filter((_, index) => index !== 2),
    );
    await checkGroups(archivePath(), []);
    assert.equal(openFiles(), before);
  });

  it('are damaged where one of them is, whichever it is', async () => {
    for (const [index, { offset, length }] of groups.entries()) {
      const bytes = readFileSync(archivePath());
      bytes.writeUInt8(bytes.readUInt8(offset + length - 8) ^ 1, offset + length - 8);
      writeFileSync(archivePath(), bytes);
      await assert.rejects(check(), /archive\.tar\.gz: /, String(index));
      bytes.writeUInt8(bytes.readUInt8(offset + length - 8) ^ 1, offset + length - 8);
      writeFileSync(archivePath(), bytes);
    }
  });

  it('do not match the archive when one digest, name or place differs', async () => {
    const [first, second, third] = groups;
    assert.ok(first && second && third);
    const { out } = second.files;
    const files = { ...second.files, out: { ...out, sha256: 'a'.repeat(64) } };
    await assert.rejects(check([1, { files }]), /upload\.out is not what was archived/);
    await assert.rejects(check([1, { name: 'other' }]), /other\.env is not there/);
    const time = { ...second.files, out: { ...out, mtime: out.mtime + 1000 } };
    await assert.rejects(check([1, { files: time }]), /upload\.out is not there/);
    // The same bytes, but one of them counts as part of the neighbouring file.
    const shifted: typeof check = (...change) => assert.rejects(check(...change), /archive\.tar\.gz: damaged/);
    await shifted([1, { length: second.length - 1 }], [2, { offset: third.offset - 1, length: third.length + 1 }]);
    await shifted([0, { length: first.length + 1 }], [1, { offset: second.offset + 1, length: second.length - 1 }]);
  });
});

describe('an archive that is written piece by piece', () => {
  it('contains every byte once, and nothing of what was taken back', () => {
    const pieces = [10, 200_000, 100_000, 700_000, 0, 5, 262_144, 1, 262_145, 3].map((size) => randomBytes(size));
    for (const piece of pieces) members.add(piece);
    const end = members.position;
    assert.equal(end, Buffer.concat(pieces).length);
    members.add(randomBytes(1000));
    members.goBack(end);
    members.add(Buffer.from('end'));
    members.flush();
    assert.equal(members.position, end + 3);
    assert.ok(
      readFileSync(archivePath())
        .subarray(0, end + 3)
        .equals(Buffer.concat([...pieces, Buffer.from('end')])),
    );
  });
});

describe('an archive that differs from its manifest', () => {
  for (const [what, bytes] of [
    ['small', 2000],
    ['large', LARGE],
  ] as const)
    it(`is a failure, and yields no bytes of another upload: ${what}`, { timeout: 60_000 }, async () => {
      writeFileSync(pathOf('out'), randomBytes(bytes));
      const packed = group(await append());
      members.flush();
      const check = (more: Partial<PackedGroup>) => checkGroup(archivePath(), { ...packed, ...more });
      const before = openFiles();
      await assert.rejects(check({ name: 'other' }), /other\.env is not there/);
      await assert.rejects(check({ length: packed.length - 20 }), /archive\.tar\.gz: damaged/);
      await assert.rejects(check({ offset: 1 }), /archive\.tar\.gz: damaged, Z_/);
      const { out } = packed.files;
      for (const file of [
        { ...out, bytes: out.bytes + 1 },
        { ...out, bytes: out.bytes + 5000 },
        { ...out, mtime: out.mtime + 1000 },
      ])
        await assert.rejects(check({ files: { ...packed.files, out: file } }), /archive\.tar\.gz: damaged/);
      const wrong = { ...out, sha256: 'a'.repeat(64) };
      await assert.rejects(check({ files: { ...packed.files, out: wrong } }), /upload\.out is not what was archived/);
      truncateSync(archivePath(), packed.length - 100);
      await assert.rejects(check({}), /archive\.tar\.gz: damaged/);
      await assert.rejects(checkGroup(join(folder, 'none'), packed), /none: ENOENT/);
      assert.equal(openFiles(), before);
    });
});

describe('an archive manifest', () => {
  const sha256 = 'a'.repeat(64);
  const head = { format: 1, day: '2026-10-01', archive: '2026-10-01.tar.gz' };
  const file = { bytes: 1, sha256, mtime: 1 };
  const files = { env: file, err: file, out: file, rdy: file };
  const one = group({
    length: 10,
    files,
    record: '',
    marks: { env: '', err: '', out: '', rdy: '' },
    readers: { mode: 0, gid: 0 },
  });
  const end = { groups: 1, archiveBytes: 10, archiveSha256: sha256 };

  async function read(...lines: unknown[]): Promise<string[]> {
    const path = join(folder, 'manifest');
    writeFileSync(path, lines.map((line) => (typeof line === 'string' ? line : `${JSON.stringify(line)}\n`)).join(''));
    const names: string[] = [];
    for (const { name } of readManifest(path)) names.push(name);
    assert.deepEqual(readEnd(path), end);
    return names;
  }

  it('is read to its end', async () => {
    const ending = { isGood: false, exitCode: 3, signal: 9, clockSkew: -70, outerId: 'job' };
    assert.deepEqual(await read(head, one, end), ['upload']);
    assert.deepEqual(await read(head, { ...one, name: 'a/b..c/.d', ending }, end), ['a/b..c/.d']);
  });

  it('is closed when its reader has seen enough, and after a damaged line', async () => {
    await read(head, one, end);
    const before = openFiles();
    for (const { name } of readManifest(join(folder, 'manifest'))) {
      assert.equal(name, 'upload');
      break;
    }
    assert.equal(openFiles(), before);
    await assert.rejects(read(head, one, 'damaged\n'), /line 2/);
    assert.equal(openFiles(), before);
  });

  for (const [what, lines] of [
    ['has no end', [head, one]],
    ['is of another format', [{ ...head, format: 2 }, one, end]],
    ['counts one upload too many', [head, one, { ...end, groups: 2 }]],
    ['counts one too few', [head, one, one, end]],
    ['says nothing of its archive', [head, one, { ...end, archiveBytes: -1 }]],
    ['has a digest that is none', [head, one, { ...end, archiveSha256: 'A'.repeat(64) }]],
    ['is not JSON', [head, '{"name":\n', end]],
    ['has a line that is not an object', [head, 'null\n', end]],
  ] as const)
    it(`is refused when it ${what}`, async () => {
      await assert.rejects(read(...lines), { kind: 'failed' });
    });

  for (const [what, more] of [
    ['a name out of the locker', { name: '../upload' }],
    ['a name with a dot for a folder', { name: 'a/./upload' }],
    ['a name with an empty part', { name: '/upload' }],
    ['a name with a NUL', { name: 'a\0b' }],
    ['no name', { name: 7 }],
    ['no job id', { jobId: undefined }],
    ['a time that is none', { at: 'yesterday' }],
    ['a negative offset', { offset: -1 }],
    ['a length that is not a whole number', { length: 1.5 }],
    ['an end beyond all numbers', { offset: Number.MAX_SAFE_INTEGER, length: 2 }],
    ['clients that are no list', { clients: 'client1' }],
    ['a file less', { files: { ...files, err: undefined } }],
    ['a digest that is none', { files: { ...files, rdy: { ...file, sha256: 'a'.repeat(63) } } }],
    ['a size that is none', { files: { ...files, rdy: { ...file, bytes: -1 } } }],
    ['a time of a file that is none', { files: { ...files, env: { ...file, mtime: null } } }],
    ['an ending that says nothing', { ending: {} }],
    ['an exit code that is none', { ending: { isGood: true, exitCode: -1 } }],
    ['a signal that is none', { ending: { isGood: true, signal: 'KILL' } }],
    ['a skew that is none', { ending: { isGood: true, clockSkew: 0.5 } }],
    ['an outer job that is none', { ending: { isGood: true, outerId: 7 } }],
  ] as const)
    it(`is refused with an upload that has ${what}`, async () => {
      await assert.rejects(read(head, { ...one, ...more }, end), /line 2: not an upload of a manifest/);
    });
});

describe('the archives of a site', () => {
  it('are in the order of their days and numbers, and a new one never reuses a name', () => {
    const base = { baseDirectory: folder };
    writeFileSync(join(folder, 'packed'), 'in the way');
    assert.throws(() => listPacks(base), /packed: ENOTDIR$/);
    rmSync(join(folder, 'packed'));
    assert.deepEqual([listPacks(base), nextPack(base, '2026-10-01').name], [[], '2026-10-01']);
    mkdirSync(join(folder, 'packed'));
    const names = ['2026-09-30.2', '2026-10-01', '2026-10-01.2', '2026-10-01.10', '2026-10-02'];
    for (const name of [...names].sort().reverse()) writeFileSync(packAt(base, name).manifest, '');
    for (const other of ['2026-10-01.0', '2026-10-01.jsonl', 'x2026-10-01', '2026-10-01.02'])
      writeFileSync(packAt(base, other).manifest, '');
    assert.deepEqual(
      listPacks(base).map(({ name }) => name),
      names,
    );
    writeFileSync(packAt(base, '2026-10-01.3').archive, '');
    assert.equal(nextPack(base, '2026-10-01').name, '2026-10-01.4');
    assert.equal(nextPack(base, '2026-10-03').day, '2026-10-03');
  });
});
