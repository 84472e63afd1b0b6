// Obstacles that the web user may put in the way of webjobctl's locks, and features that a file
// system may lack: nothing stops prune, pack or unpack for good, or for any upload but the one
// concerned.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { openLocks } from '../../cli/lockfile.ts';
import { collect } from '../support/bare.ts';
import { WEBJOBCTL } from '../support/keep-site.ts';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { plantPast } from '../support/past-site.ts';

const AT = new Date(Date.now() - 40 * 86_400_000);
const DAY = AT.toISOString().slice(0, 10);
const PRUNE = ['prune', '--older-than', '30d', '--yes'];
const PACK = ['pack', '--older-than', '30d'];

const IN_THE_WAY = {
  directory: (path: string): unknown => mkdirSync(path),
  fifo: (path: string): unknown => spawnSync('mkfifo', [path]),
  link: (path: string): unknown => symlinkSync('/nowhere', path),
};

const SOCKET = 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])';

describe('the locks of webjobctl', () => {
  let its: LockerSite;
  const plant = (...names: string[]): unknown =>
    plantPast(
      its.site,
      'UTC',
      names.map((name) => ({ at: AT, name })),
    );
  const left = (): string[] => readdirSync(its.site.incoming).sort();
  const at = (file: string): string => join(its.site.incoming, file);
  const run = async (...args: string[]): Promise<number | null> => (await its.webjobctl(...args)).exitCode;
  beforeEach(() => {
    its = makeLockerSite({ UseGMT: 'Y' });
  });
  afterEach(() => its.close());

  it('are not stopped by a directory, FIFO or link in the locker', async () => {
    for (const [kind, make] of Object.entries(IN_THE_WAY)) {
      for (const name of ['.webjobctl.lock', 'keep.lck', '.lck', 'one.out.unpack']) make(at(name));
      plant('one', 'two');
      assert.equal(await run(...PACK), 0, kind);
      assert.equal(await run('unpack', DAY), kind === 'directory' ? 1 : 0, kind);
      assert.equal(left().includes('two.rdy'), true);
      rmSync(at('one.out.unpack'), { recursive: true, force: true });
      if (kind === 'directory') assert.equal(await run('unpack', DAY), 0);
      assert.equal(await run(...PRUNE), 0, kind);
      assert.deepEqual(left(), ['.lck', '.webjobctl.lock', 'keep.lck'], kind);
      for (const name of left()) rmSync(at(name), { recursive: true });
    }
  });

  it('limit the effect of an entry under the name of a lock or a file to its upload', async () => {
    for (const kind of ['directory', 'fifo'] as const)
      for (const command of [PRUNE, PACK]) {
        const make = IN_THE_WAY[kind];
        plant('one', 'two', 'three');
        make(at('one.lck'));
        // The file was not read, and must not be removed.
        renameSync(at('two.err'), at('kept'));
        make(at('two.err'));
        assert.equal(await run(...command), 1);
        assert.deepEqual(
          left().filter((name) => /^three|rdy$/.test(name)),
          // A FIFO is removed with its upload, and does not block.
          kind === 'fifo' && command === PRUNE ? ['one.rdy'] : ['one.rdy', 'two.rdy'],
        );
        for (const name of left()) rmSync(at(name), { recursive: true });
      }
  });

  it('let commands that read uploads skip entries that only have the names of files', async () => {
    const others = { ...IN_THE_WAY, socket: (path: string): unknown => spawnSync('python3', ['-c', SOCKET, path]) };
    const extensions = ['out', 'err', 'env', 'rdy', 'lck'];
    for (const [kind, make] of Object.entries(others)) {
      plant('whole', ...extensions);
      for (const extension of extensions) {
        rmSync(at(`${extension}.${extension}`), { force: true });
        make(at(`${extension}.${extension}`));
      }
      for (const args of [['jobs'], ['search', 'kept'], ['verify'], PACK]) {
        const { exitCode, stderr } = await its.webjobctl(...args);
        assert.ok([0, 1].includes(exitCode ?? -1), `${kind}: ${args[0]}: ${stderr}`);
      }
      assert.deepEqual(
        left().filter((name) => name.startsWith('whole.')),
        [],
        kind,
      );
      for (const name of left()) rmSync(at(name), { recursive: true });
    }
  });

  it('stop every command that would change the site they protect', async () => {
    plant('one');
    const folder = join(its.site.base, 'config', 'nph-webjob');
    mkdirSync(folder, { recursive: true });
    const job = ['--client', 'client1'];
    for (const [thing, commands] of [
      ['keep', [PRUNE, PACK, ['unpack', DAY], ['custody', 'adopt', '--reason', 'x']]],
      ['keep', [['evidence', ...job, '--out', join(its.site.root, 'package')]]],
      [
        'holds',
        [
          ['hold', 'add', ...job, '--reason', 'x'],
          ['hold', 'remove', ...job, '--reason', 'x'],
        ],
      ],
      ['index', [['index']]],
      ['assignments', [['assign', 'cancel', '1', '--reason', 'x']]],
    ] as const) {
      const other = openLocks(join(folder, 'other'));
      assert.ok(other.take(join(folder, `${thing}.lck`)));
      for (const command of commands) {
        const { exitCode, stderr } = await its.webjobctl(...command);
        assert.deepEqual([exitCode, /on this site \(.*?(\w+)\.lck\)/.exec(stderr)?.[1]], [4, thing], stderr);
      }
      other.release();
    }
    assert.deepEqual(left().length, 4);
  });

  it('end with their holder, even when it was killed before it wrote its id', async () => {
    plant('one', 'two', 'three');
    writeFileSync(at('one.lck'), `webjobctl 999999999 ${hostname()} 1\n`);
    writeFileSync(at('two.lck'), '', { mode: 0o444 });
    assert.equal(await run(...PRUNE), 0);
    assert.deepEqual(left(), []);
  });

  it('need no hard link for each upload: GlusterFS has 46 for a file', { skip: NO_STRACE }, async () => {
    const names = Array.from({ length: 120 }, (_, number) => `upload${number}`);
    plant(...names);
    const words = inject(join(its.site.root, 'trace'), '?link,?linkat:error=ENOSPC:when=3+', []);
    const [program = '', ...rest] = [...words, process.execPath, WEBJOBCTL, '--config', its.site.propertiesFile];
    const { exitCode, stderr } = await collect(
      spawn(program, [...rest, ...PRUNE], { stdio: ['ignore', 'pipe', 'pipe'] }),
      120,
    );
    assert.deepEqual([exitCode, left()], [0, []], stderr);
  });
});
