// Clients by their ids, globs and groups, and the streams of uploads, as all commands read them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import type { Group } from 'webjob-locker';
import { readSite } from '../../admin/site/site.ts';
import { Failure } from '../../cli/failure.ts';
import { clientsOfGroup, expandClients, makeClientFilter, readGroups } from '../../ledger/groups.ts';
import { findJobStreams, findStreams, openStreams } from '../../ledger/streams.ts';
import { configure, makeSite } from '../../scripts/site.ts';

const own = makeSite();
configure(own, { UseGMT: 'Y' });
const site = readSite(own.propertiesFile);
const groups = join(own.base, 'config', 'nph-webjob', 'groups');
before(() => {
  mkdirSync(join(groups, '..'), { recursive: true });
  writeFileSync(groups, 'web = web-1, web-2\nall = web db-*\n');
});
after(() => own.remove());

const failsWith =
  (kind: string, message: RegExp, hint?: RegExp) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof Failure);
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    if (hint) assert.match(error.hints.join('\n'), hint);
    return true;
  };

describe('clients', () => {
  it('are named by ids, globs and groups, also several', () => {
    const rows: [text: string, clients: (string | undefined)[], exact: string | undefined][] = [
      ['web-1', ['web-1'], 'web-1'],
      ['web', ['web-1', 'web-2'], undefined],
      ['all', ['web-1', 'web-2', 'db-1'], undefined],
      ['all,x', ['web-1', 'web-2', 'db-1', 'x'], undefined],
      ['web-1,db-1', ['web-1', 'db-1'], undefined],
      ['?', ['x', undefined], undefined],
      ['-', [undefined], undefined],
      ['x,-', ['x', undefined], undefined],
      ['*', ['web-1', 'web-2', 'web', 'db-1', 'x', undefined], undefined],
    ];
    for (const [text, clients, exact] of rows) {
      const filter = makeClientFilter(site, text);
      const found = ['web-1', 'web-2', 'web', 'db-1', 'x', undefined].filter((client) => filter.includes(client));
      assert.deepEqual([found, filter.exact], [clients, exact], text);
      // The answer is the same when it is known already.
      assert.deepEqual(
        found.filter((client) => filter.includes(client)),
        clients,
        text,
      );
    }
    assert.deepEqual(expandClients(site, 'all,x'), ['web-1', 'web-2', 'db-*', 'x']);
    // The groups of a site elsewhere are not known here.
    const remote = { ...site, remote: {} as never };
    assert.deepEqual(expandClients(remote, 'web'), ['web']);
    assert.equal(makeClientFilter(remote, 'web').includes('web-1'), false);
  });

  it('of a group are its members, unless a glob is among them', () => {
    assert.deepEqual(clientsOfGroup(site.settings, 'web'), ['web-1', 'web-2']);
    assert.equal(clientsOfGroup(site.settings, 'web-1'), undefined);
    assert.throws(
      () => clientsOfGroup(site.settings, 'all'),
      failsWith('usage', /^the group all contains the glob db-\*, and client ids are required$/),
    );
  });

  it('are not known where the groups cannot be read, which is said with the path', () => {
    const elsewhere = readSite(own.propertiesFile);
    writeFileSync(groups, 'web: a\n');
    assert.throws(
      () => makeClientFilter(elsewhere, 'web'),
      failsWith('failed', /groups cannot be read: line 1: it must be/, /^each line is: name = member member$/),
    );
    rmSync(groups);
    mkdirSync(groups);
    assert.throws(
      () => readGroups(elsewhere.settings),
      failsWith('failed', /nph-webjob\/groups cannot be read: EISDIR$/),
    );
    rmSync(groups, { recursive: true });
    assert.equal(readGroups(elsewhere.settings).size, 0);
  });
});

describe('the streams of an upload', () => {
  const group = { name: 'u', has: new Set(['rdy']) } as unknown as Group;
  // A FIFO would stop the next test.
  afterEach(() => rmSync(join(own.incoming, 'u.out'), { recursive: true, force: true }));
  const read = async (stream: { read(): AsyncIterable<Buffer> } | undefined): Promise<string> => {
    const pieces: Buffer[] = [];
    for await (const piece of stream?.read() ?? []) pieces.push(Buffer.from(piece));
    return Buffer.concat(pieces).toString();
  };

  it('are read although they grow or shrink meanwhile, and leave no descriptor open', async () => {
    const path = join(own.incoming, 'u.out');
    const count = (): number => readdirSync('/proc/self/fd').length;
    const before = count();
    for (const [was, is] of [
      ['abc', 'abcdef'.repeat(50_000)],
      ['abcdef'.repeat(50_000), 'abc'],
      ['abc', ''],
    ] as const) {
      writeFileSync(path, was);
      const { out } = findStreams(site, group);
      writeFileSync(path, is);
      assert.equal(out?.bytes, was.length);
      assert.equal(await read(out), is);
    }
    writeFileSync(path, 'x'.repeat(200_000));
    for await (const piece of findStreams(site, group).out?.read() ?? []) if (piece.length > 0) break;
    assert.equal(count(), before);
  });

  it('are no links, FIFOs or directories that came in their place', async () => {
    const path = join(own.incoming, 'u.out');
    writeFileSync(path, 'x');
    const { out } = findStreams(site, group);
    const before = readdirSync('/proc/self/fd').length;
    rmSync(path);
    symlinkSync(own.propertiesFile, path);
    await assert.rejects(read(out), { code: 'ELOOP' });
    rmSync(path);
    if (!spawnSync('mkfifo', [path]).error) {
      await assert.rejects(read(out), failsWith('failed', /incoming\/u\.out is not a regular file$/));
      rmSync(path);
    }
    mkdirSync(path);
    await assert.rejects(read(out), failsWith('failed', /incoming\/u\.out is not a regular file$/));
    rmSync(path, { recursive: true });
    assert.equal(readdirSync('/proc/self/fd').length, before);
  });

  it('in an archive that cannot be read are an error of this archive alone', async () => {
    const packed = { group: undefined, packed: { pack: '2026-10-01', name: 'a' } } as never;
    writeFileSync(join(own.incoming, 'u.out'), 'x');
    const streamsOf = await openStreams(site, [packed, { group, packed: undefined } as never]);
    assert.throws(() => streamsOf(packed), Failure);
    assert.equal(await read(streamsOf({ group } as never).out), 'x');
    await assert.rejects(findJobStreams(site, packed), Failure);
    assert.deepEqual(await findJobStreams(site, {} as never), {});
  });
});
