// A PaD file in a folder where somebody else may write, as /var/tmp is: what is planted there is never followed, never run and never destroyed
// unasked; and whatever ends a delivery, the payload goes.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
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
import { until } from './client-job.ts';
import { findShells, makeBusyboxFarm, openWorkshop, run, type Workshop, withPath } from './pad-workshop.ts';
import { findWebUser } from './tree.ts';

const SHELLS = findShells();
const PAYLOAD = 'the payload\n';

let shop: Workshop;
let pads: Record<'file' | 'folder', string>;
/** Where a payload goes. */
let target: string;
/** What places the payload are the tools, not the shell: the system's and, where there is one, those of busybox. */
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
  // The sticky bit is part of what makes such a folder usable.
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

/** What a plant is, so that it can be compared: links by where they lead, files by what they hold. */
function describePlant(path: string): unknown {
  const stats = lstatSync(path);
  if (stats.isSymbolicLink()) return readlinkSync(path);
  if (stats.isDirectory()) return readdirSync(path);
  return stats.isFile() ? readFileSync(path, 'utf8') : stats.mode;
}

for (const kind of ['file', 'folder'] as const) {
  describe(`what waits under the name of a payload that is a ${kind}`, () => {
    for (const [what, plant] of PLANTS) {
      it(`${what}: is refused and stays as it was`, () => {
        const pad = place(kind);
        plant(target);
        const before = describePlant(target);
        for (const { name, words, env } of systems) {
          const { code, stdout, stderr } = run([...words, pad, 'sh', '-c', LOOK[kind], 'sh', target], { env });
          assert.deepEqual([code, stdout], [125, ''], name);
          assert.match(stderr, /^box\.pad: error: .*\/box is there already\nbox\.pad: hint: .*--overwrite/);
          assert.deepEqual(describePlant(target), before, name);
        }
        assert.deepEqual(shop.left('here'), ['box', 'box.pad']);
        assertVictimsUntouched();
      });

      it(`${what}: with --overwrite it is replaced, never followed`, () => {
        const pad = place(kind);
        for (const { name, words, env } of systems) {
          plant(target);
          const look = ['sh', '-c', LOOK[kind], 'sh', target];
          const { code, stdout } = run([...words, pad, '--overwrite', ...look], { env });
          const isKept = kind === 'file' && what.startsWith('a folder');
          // A file never takes the place of a folder with all that is in it.
          assert.deepEqual([code, stdout], isKept ? [125, ''] : [0, SEEN[kind]], name);
          assert.deepEqual(shop.left('here'), isKept ? ['box', 'box.pad'] : ['box.pad']);
          rmSync(target, { recursive: true, force: true });
        }
        assertVictimsUntouched();
      });
    }
  });
}

describe('the folder it unpacks into', () => {
  it('is taken under another name when somebody was there first', () => {
    const pad = place('file');
    // The pid is that of the shell, which exec keeps.
    const plants = ['ln -s "$1" "$2.pad.$$"', 'ln -s "$1" "$2.pad.$$.1"', 'mkdir "$2.pad.$$.2"'].join('; ');
    const script = `${plants}; exec sh "$3" cat "$4"`;
    const words = ['sh', '-c', script, 'sh', victim.folder, `${shop.path}/here/`, pad, target];
    assert.deepEqual(run(words), { code: 0, signal: null, stdout: PAYLOAD, stderr: '' });
    assertVictimsUntouched();
  });

  it('lets nobody else in', () => {
    const pad = place('folder');
    const script = 'ls -ld "$1" | cut -c1-10; umask';
    for (const { words } of SHELLS) {
      assert.equal(run([...words, pad, 'sh', '-c', script, 'sh', target]).stdout, `drwx------\n${umask()}\n`);
    }
  });
});

const umask = (): string => run(['sh', '-c', 'umask']).stdout.trim();

describe('somebody who plants all the time', () => {
  const user = process.getuid?.() === 0 ? findWebUser() : undefined;
  let planter: ChildProcess | undefined;
  after(() => planter?.kill('SIGKILL'));

  for (const kind of ['file', 'folder'] as const) {
    it(`gains nothing: ${kind}`, { skip: !user && 'only root can be two users' }, async () => {
      const pad = place(kind);
      const program = shop.add('planter.ts', readFileSync(join(import.meta.dirname, 'pad-planter.ts')));
      planter = spawn(process.execPath, [program, target, victim.file, victim.folder], {
        stdio: ['ignore', 'pipe', 'inherit'],
        ...(user && { uid: user.uid, gid: user.gid }),
      });
      await once(planter.stdout ?? planter, 'data');
      const codes = new Set<number | null>();
      for (let round = 0; round < 30 || (round < 1000 && codes.size < 2); round++) {
        const options = round % 2 === 0 ? ['--overwrite'] : [];
        const { words, env } = systems[(round >> 1) % systems.length] ?? { words: ['sh'], env: process.env };
        const { code, stdout } = run([...words, pad, ...options, 'sh', '-c', LOOK[kind], 'sh', target], { env });
        codes.add(code);
        assert.ok(code === 0 ? stdout === SEEN[kind] : stdout === '', `${code}: ${stdout}`);
        assertVictimsUntouched();
      }
      planter.kill('SIGKILL');
      await once(planter, 'exit');
      assert.deepEqual([...codes].sort(), [0, 125], 'each came first at least once');
      const strays = shop.left('here').filter((name) => !/^box(\.pad|\.next|\.other)?$/.test(name));
      assert.deepEqual(strays, []);
    });
  }
});

describe('a signal to the group while the command runs', () => {
  for (const shell of SHELLS) {
    it(`removes the payload: ${shell.name}`, async () => {
      for (const [signal, number] of [
        ['SIGTERM', 15],
        ['SIGINT', 2],
        ['SIGHUP', 1],
      ] as const) {
        const pad = place('folder');
        const [program, ...words] = shell.words;
        const mark = join(shop.path, 'here', 'mark');
        const command = ['sh', '-c', `echo > '${mark}'; exec sleep 300`];
        const child = spawn(program, [...words, pad, ...command], { detached: true, stdio: 'ignore' });
        await until(() => existsSync(mark), `${signal}: the command runs`);
        assert.deepEqual(shop.left('here'), ['box', 'box.pad', 'mark']);
        process.kill(-(child.pid ?? Number.NaN), signal);
        const [code] = await once(child, 'exit');
        assert.equal(code, 128 + number, signal);
        assert.deepEqual(shop.left('here'), ['box.pad', 'mark']);
        rmSync(mark);
      }
    });

    it(`leaves the status to a command that has an answer of its own: ${shell.name}`, async () => {
      const pad = place('file');
      const [program, ...words] = shell.words;
      const mark = join(shop.path, 'here', 'mark');
      const script = `trap 'exit 5' TERM; echo > '${mark}'; while :; do sleep 0.05; done`;
      const child = spawn(program, [...words, pad, 'sh', '-c', script], { detached: true, stdio: 'ignore' });
      await until(() => existsSync(mark), 'the command runs');
      process.kill(-(child.pid ?? Number.NaN), 'SIGTERM');
      assert.deepEqual(await once(child, 'exit'), [5, null]);
      assert.deepEqual(shop.left('here'), ['box.pad', 'mark']);
    });

    it(`while it unpacks: nothing is run, nothing stays: ${shell.name}`, async () => {
      const pad = place('file');
      const [program, ...words] = shell.words;
      const mark = join(shop.path, 'here', 'mark');
      // A decoder that never ends.
      const tools = shop.folder('slow');
      const slow = `#!/bin/sh\nread line; [ "$line" = YWJjCg== ] && exec echo abc; echo > '${mark}'; exec sleep 300\n`;
      writeFileSync(join(tools, 'base64'), slow, { mode: 0o755 });
      const env = { ...process.env, PATH: `${tools}:${process.env.PATH}` };
      const child = spawn(program, [...words, pad, 'touch', `${mark}.ran`], { detached: true, stdio: 'ignore', env });
      await until(() => existsSync(mark), 'it unpacks');
      process.kill(-(child.pid ?? Number.NaN), 'SIGTERM');
      assert.deepEqual(await once(child, 'exit'), [143, null]);
      assert.deepEqual(shop.left('here'), ['box.pad', 'mark']);
    });
  }
});
