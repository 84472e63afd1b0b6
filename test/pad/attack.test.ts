// A PaD file in a directory to which another user may write, such as /var/tmp: what is planted
// there is never followed, never run and never destroyed unasked; and however a delivery ends, the
// payload is removed.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { until } from '../support/client-job.ts';
import { findShells, makeBusyboxFarm, openWorkshop, run, type Workshop, withPath } from '../support/pad-workshop.ts';
import { many } from '../support/thorough.ts';
import { findWebUser } from '../support/tree.ts';

const SHELLS = findShells();
const PAYLOAD = 'the payload\n';

let shop: Workshop;
let pads: Record<'file' | 'folder', string>;
/** Where a payload goes. */
let target: string;
/**
 * The tools, not the shell, place the payload: the system's and, if available, those of busybox.
 */
let systems: { name: string; words: readonly string[]; env: NodeJS.ProcessEnv }[];
let victim: { file: string; folder: string };

before(() => {
  shop = openWorkshop();
  chmodSync(shop.path, 0o755);
  const source = shop.folder('source');
  writeFileSync(join(source, 'data'), PAYLOAD);
  victim = { file: shop.add('victim', 'untouched'), folder: shop.folder('victims') };
  pads = {
    file: shop.make('file.pad', [join(source, 'data')]),
    folder: shop.make('folder.pad', [source]),
  };
  systems = [{ name: 'the system', words: ['sh'], env: process.env }];
  const busybox = makeBusyboxFarm(shop);
  if (busybox) systems.push({ name: 'busybox', words: [join(busybox, 'sh')], env: withPath(busybox) });
});
after(() => shop.remove());

beforeEach(() => {
  rmSync(join(shop.path, 'here'), { recursive: true, force: true });
  // The sticky bit is part of what makes such a directory usable.
  chmodSync(shop.folder('here'), 0o1777);
  target = join(shop.path, 'here', 'box');
});

/** Puts the PaD file where the attacker is. */
function place(kind: keyof typeof pads): string {
  const path = join(shop.path, 'here', 'box.pad');
  writeFileSync(path, readFileSync(pads[kind]));
  return path;
}

function assertVictimsUntouched(): void {
  assert.equal(readFileSync(victim.file, 'utf8'), 'untouched');
  assert.equal(statSync(victim.file).mode & 0o777, 0o644);
  assert.deepEqual(readdirSync(victim.folder), []);
}

/** What the command sees of the payload. */
const LOOK = { file: 'cat "$1"', folder: 'cat "$1/data"; ls -A "$1"' };
const SEEN = { file: PAYLOAD, folder: `${PAYLOAD}data\n` };

const PLANTS: [what: string, plant: (path: string) => void][] = [
  ['a link to a file', (path) => symlinkSync(victim.file, path)],
  ['a link to a folder', (path) => symlinkSync(victim.folder, path)],
  ['a link to nothing', (path) => symlinkSync(join(victim.folder, 'made'), path)],
  ['a file', (path) => writeFileSync(path, 'planted', { mode: 0o666 })],
  ['a fifo', (path) => execFileSync('mkfifo', [path])],
  ['a folder', (path) => mkdirSync(path)],
  ['a folder with a file', (path) => mkdirSync(path) ?? writeFileSync(join(path, 'data'), 'planted')],
];

/** A planted object in comparable form: links by their targets, files by their contents. */
function describePlant(path: string): unknown {
  const stats = lstatSync(path);
  if (stats.isSymbolicLink()) return readlinkSync(path);
  if (stats.isDirectory()) return readdirSync(path);
  return stats.isFile() ? readFileSync(path, 'utf8') : stats.mode;
}

for (const kind of ['file', 'folder'] as const) {
  describe(`a planted entry under the name of a ${kind} payload`, () => {
    for (const [what, plant] of PLANTS) {
      it(`is refused and stays unchanged: ${what}`, () => {
        const pad = place(kind);
        plant(target);
        const before = describePlant(target);
        for (const { name, words, env } of systems) {
          const { code, stdout, stderr } = run([...words, pad, 'sh', '-c', LOOK[kind], 'sh', target], { env });
          assert.deepEqual([code, stdout], [125, ''], name);
          assert.match(stderr, /^box\.pad: error: .*\/box already exists\nbox\.pad: hint: .*--overwrite/);
          assert.deepEqual(describePlant(target), before, name);
        }
        assert.deepEqual(shop.left('here'), ['box', 'box.pad']);
        assertVictimsUntouched();
      });

      it(`is replaced with --overwrite, never followed: ${what}`, () => {
        const pad = place(kind);
        for (const { name, words, env } of systems) {
          plant(target);
          const look = ['sh', '-c', LOOK[kind], 'sh', target];
          const { code, stdout } = run([...words, pad, '--overwrite', ...look], { env });
          const isKept = kind === 'file' && what.startsWith('a folder');
          // A file never replaces a directory with its contents.
          assert.deepEqual([code, stdout], isKept ? [125, ''] : [0, SEEN[kind]], name);
          assert.deepEqual(shop.left('here'), isKept ? ['box', 'box.pad'] : ['box.pad']);
          rmSync(target, { recursive: true, force: true });
        }
        assertVictimsUntouched();
      });
    }
  });
}

describe('a link that is planted at the last moment', () => {
  const moments: [kind: 'file' | 'folder', tool: string, options: string[], code: number][] = [
    ['file', 'ln', [], 125],
    ['file', 'mv', ['--overwrite'], 0],
    ['folder', 'mkdir', [], 125],
    ['folder', 'mkdir', ['--overwrite'], 125],
  ];
  for (const [kind, tool, options, expected] of moments) {
    for (const [what, plant] of ['file', 'folder'].map((name) => [name, `ln -s '${name}' "$TARGET"`] as const)) {
      it(`is not followed by a ${kind} payload: to a ${what}, before ${[tool, ...options].join(' with ')}`, () => {
        const pad = place(kind);
        const folder = shop.folder('late');
        // The link is not planted by the call that makes the private directory.
        const script = `PATH=/usr/bin:/bin\ncase $* in *.pad.[0-9]*[0-9]) ;; *) ${plant} ;; esac\nexec ${tool} "$@"\n`;
        writeFileSync(join(folder, tool), `#!/bin/sh\n${script}`, { mode: 0o755 });
        symlinkSync(what === 'file' ? victim.file : victim.folder, join(shop.path, 'here', what));
        const env = { ...process.env, PATH: `${folder}:${process.env.PATH}`, TARGET: target };
        const { code, stdout } = run(['sh', pad, ...options, 'sh', '-c', LOOK[kind], 'sh', target], { env });
        assert.deepEqual([code, stdout], [expected, expected === 0 ? SEEN[kind] : '']);
        assertVictimsUntouched();
        rmSync(folder, { recursive: true });
      });
    }
  }
});

describe('the directory that a script unpacks into', () => {
  it('gets another name when an attacker was there first', () => {
    const pad = place('file');
    // The pid is that of the shell, which exec keeps.
    const plants = ['ln -s "$1" "$2.pad.$$"', 'ln -s "$1" "$2.pad.$$.1"', 'mkdir "$2.pad.$$.2"'].join('; ');
    const script = `${plants}; exec sh "$3" cat "$4"`;
    const words = ['sh', '-c', script, 'sh', victim.folder, `${shop.path}/here/`, pad, target];
    assert.deepEqual(run(words), { code: 0, signal: null, stdout: PAYLOAD, stderr: '' });
    assertVictimsUntouched();
  });

  it('is closed to others', () => {
    const pad = place('folder');
    const script = 'ls -ld "$1" | cut -c1-10; umask';
    for (const { words } of SHELLS) {
      assert.equal(run([...words, pad, 'sh', '-c', script, 'sh', target]).stdout, `drwx------\n${umask()}\n`);
    }
  });
});

const umask = (): string => run(['sh', '-c', 'umask']).stdout.trim();

describe('an attacker who plants files all the time', () => {
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;

  /** Attacks while `use` runs. */
  async function planting(use: () => void): Promise<void> {
    const program = shop.add('planter.ts', readFileSync(join(import.meta.dirname, '..', 'support', 'pad-planter.ts')));
    const planter = spawn(process.execPath, [program, target, victim.file, victim.folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
      ...(user && { uid: user.uid, gid: user.gid }),
    });
    try {
      await once(planter.stdout, 'data');
      use();
    } finally {
      planter.kill('SIGKILL');
      await once(planter, 'exit');
    }
  }

  for (const kind of ['file', 'folder'] as const) {
    it(`gains nothing: ${kind}`, { skip: !user && 'only root can be two users' }, async () => {
      const pad = place(kind);
      const codes = new Set<number | null>();
      await planting(() => {
        for (let round = 0; round < many(20, 8) || (round < 1000 && codes.size < 2); round++) {
          const options = round % 2 === 0 ? ['--overwrite'] : [];
          const { words, env } = systems[(round >> 1) % systems.length] ?? { words: ['sh'], env: process.env };
          const { code, stdout } = run([...words, pad, ...options, 'sh', '-c', LOOK[kind], 'sh', target], { env });
          codes.add(code);
          assert.ok(code === 0 ? stdout === SEEN[kind] : stdout === '', `${code}: ${stdout}`);
          assertVictimsUntouched();
        }
      });
      assert.deepEqual([...codes].sort(), [0, 125], 'each came first at least once');
      const strays = shop.left('here').filter((name) => !/^box(\.pad|\.next|\.other)?$/.test(name));
      assert.deepEqual(strays, []);
    });
  }
});

describe('a signal to the process group', () => {
  const mark = (): string => join(shop.path, 'here', 'mark');

  /**
   * Starts a PaD file, sends its group a signal as soon as a mark exists, and returns how the file
   * ended.
   */
  async function interrupt(words: readonly string[], signal: NodeJS.Signals, env = process.env): Promise<unknown[]> {
    const [program = '', ...args] = words;
    const child = spawn(program, args, { detached: true, stdio: 'ignore', env });
    const group = -(child.pid ?? Number.NaN);
    const ended = once(child, 'exit', { signal: AbortSignal.timeout(60_000) });
    try {
      await until(() => existsSync(mark()), 'the mark is set');
      process.kill(group, signal);
      return await ended;
    } finally {
      if (child.exitCode === null && child.signalCode === null) process.kill(group, 'SIGKILL');
      rmSync(mark(), { force: true });
    }
  }

  for (const shell of SHELLS) {
    it(`removes the payload while the command runs: ${shell.name}`, async () => {
      const pad = place('folder');
      const script = `[ -f "$1"/data ] && echo > '${mark()}'; exec sleep 300`;
      for (const [signal, number] of [
        ['SIGTERM', 15],
        ['SIGINT', 2],
        ['SIGHUP', 1],
      ] as const) {
        const words = [...shell.words, pad, 'sh', '-c', script, 'sh', target];
        assert.deepEqual(await interrupt(words, signal), [128 + number, null], signal);
        assert.deepEqual(shop.left('here'), ['box.pad']);
      }
    });

    it(`leaves the status to a command that handles it: ${shell.name}`, async () => {
      const script = `trap 'exit 5' TERM; echo > '${mark()}'; while :; do sleep 0.05; done`;
      const words = [...shell.words, place('file'), 'sh', '-c', script];
      assert.deepEqual(await interrupt(words, 'SIGTERM'), [5, null]);
      assert.deepEqual(shop.left('here'), ['box.pad']);
    });

    it(`runs nothing and leaves nothing while the script unpacks: ${shell.name}`, async () => {
      const ran = `${shop.path}/ran`;
      const env = { ...process.env, PATH: `${slowTools()}:${process.env.PATH}` };
      assert.deepEqual(await interrupt([...shell.words, place('file'), 'touch', ran], 'SIGTERM', env), [143, null]);
      assert.deepEqual([shop.left('here'), existsSync(ran)], [['box.pad'], false]);
    });
  }

  /** A decoder that knows the sample and never finishes anything else. */
  function slowTools(): string {
    const folder = shop.folder('slow');
    const script = `read line; [ "$line" = YWJjCg== ] && exec echo abc; echo > '${mark()}'; exec sleep 300`;
    writeFileSync(join(folder, 'base64'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return folder;
  }

  it('is not lost between two steps either', async () => {
    const pad = place('file');
    // mkdir has ended when the signal comes, and only the script itself receives the signal.
    const folder = shop.folder('telling');
    const script = `PATH=/usr/bin:/bin; mkdir "$@" && kill -TERM $PPID`;
    writeFileSync(join(folder, 'mkdir'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
    for (const { name, words } of SHELLS) {
      const ran = `${shop.path}/ran`;
      assert.equal(run([...words, pad, 'touch', ran], { env }).code, 143, name);
      assert.deepEqual([shop.left('here'), existsSync(ran)], [['box.pad'], false], name);
    }
  });
});
