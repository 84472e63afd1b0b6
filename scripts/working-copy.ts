// A copy of the project in a temporary directory that may be broken deliberately; scripts/faults.ts
// makes one for every job.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import type { TestEnvironment } from './test-environment.ts';

/** Not copied: these are linked, built again or not needed. */
const LEFT_OUT = new Set(['node_modules', 'dist', '.git', '.cache']);

/** How a program ended. */
export interface Ended {
  exitCode: number | null;
  /** Whether the program exceeded its time limit and was killed. */
  isHung: boolean;
  /** The program's stdout. */
  output: string;
  seconds: number;
}

export interface WorkingCopy {
  path: string;
  /** Runs a Node program in the copy, with temporary files of its own. */
  run(args: readonly string[], limitSeconds: number): Promise<Ended>;
  /** Kills the programs that run in the copy, and removes it. */
  remove(): void;
}

/**
 * Copies the project at `root`; packages in node_modules are linked, those of the project itself to
 * their copies.
 */
export function makeWorkingCopy(root: string, environment: TestEnvironment): WorkingCopy {
  // Short, because the path of a socket is limited to 108 bytes.
  const place = mkdtempSync(join(tmpdir(), 'faults-'));
  const [path, temporary] = [join(place, 'p'), join(place, 't')];
  // The web user of a test must be able to enter.
  chmodSync(place, 0o755);
  cpSync(root, path, { recursive: true, verbatimSymlinks: true, filter: (source) => !isLeftOut(root, source) });
  for (const name of ['.cache', 'node_modules']) if (existsSync(join(root, name))) linkEntries(root, path, name);
  // For tests that read the last commit.
  if (existsSync(join(root, '.git'))) symlinkSync(join(root, '.git'), join(path, '.git'));
  const running = new Set<ChildProcess>();
  return {
    path,
    async run(args, limitSeconds) {
      mkdirSync(temporary);
      chmodSync(temporary, 0o1777);
      try {
        return await runNode(args, { cwd: path, temporary, limitSeconds, running, environment });
      } finally {
        removeFolder(temporary);
      }
    },
    remove() {
      for (const child of running) killGroup(child);
      removeFolder(place);
    },
  };
}

/** Removes a directory, including mounts and immutable files that killed tests left in it. */
function removeFolder(path: string): void {
  for (const point of findMounts(path)) spawnSync('umount', ['--lazy', point], { stdio: 'ignore' });
  try {
    rmSync(path, { recursive: true, force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    spawnSync('chattr', ['-R', '-f', '-i', '-a', path], { stdio: 'ignore' });
    rmSync(path, { recursive: true, force: true });
  }
}

/** Mount points below a directory, innermost first; empty without /proc. */
function findMounts(folder: string): string[] {
  if (!existsSync('/proc/self/mounts')) return [];
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((point) => point.startsWith(`${folder}/`))
    .reverse();
}

function isLeftOut(root: string, source: string): boolean {
  return LEFT_OUT.has(relative(root, source));
}

/**
 * Makes a directory of links. The project's own packages are links already, which must lead into
 * the copy.
 */
function linkEntries(root: string, copy: string, folder: string): void {
  mkdirSync(join(copy, folder));
  for (const name of readdirSync(join(root, folder))) {
    const source = join(root, folder, name);
    const target = lstatSync(source).isSymbolicLink() ? readlinkSync(source) : source;
    symlinkSync(target, join(copy, folder, name));
  }
}

interface Run {
  cwd: string;
  temporary: string;
  limitSeconds: number;
  running: Set<ChildProcess>;
  environment: TestEnvironment;
}

function runNode(args: readonly string[], given: Run): Promise<Ended> {
  const { cwd, temporary, limitSeconds, running, environment } = given;
  const startedAt = performance.now();
  const child = spawn(environment.node, args, {
    cwd,
    env: { ...environment.variables, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'ignore'],
    // A process group of its own, so that its children end with it.
    detached: true,
  });
  running.add(child);
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  let isHung = false;
  const timer = setTimeout(() => {
    isHung = true;
    killGroup(child);
  }, limitSeconds * 1000);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (exitCode) => {
      clearTimeout(timer);
      running.delete(child);
      // A background process would keep the pipe of stdout open.
      killGroup(child);
      const seconds = (performance.now() - startedAt) / 1000;
      setImmediate(() => resolve({ exitCode, isHung, output: Buffer.concat(chunks).toString(), seconds }));
    });
  });
}

function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // The directory is empty.
  }
}
