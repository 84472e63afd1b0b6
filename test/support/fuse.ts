// A file system that cannot remove open files, like NFS, ntfs-3g and Windows: libfuse renames them
// to `.fuse_hidden…`, and the directory stays until they are closed.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noteMount } from '../../scripts/test-leftovers.ts';

/** Why no such file system can be mounted here; undefined when one can. For node:test's `skip`. */
export const NO_UNION = findObstacle(mountUnion, 'unionfs-fuse');

export interface Union {
  /** The mount point. */
  path: string;
  /** The underlying files on the machine's own file system, including hidden ones. */
  leftBelow(): string[];
  /** Unmounts it and removes the underlying files. */
  remove(): void;
}

/** Why no fuse-overlayfs can be mounted here. */
export const NO_OVERLAY = findObstacle(mountOverlay, 'fuse-overlayfs');

/** Mounts a unionfs-fuse on a new directory. Throws Error. */
export function mountUnion(): Union {
  return mount((below, path) => ['unionfs', `${below}=RW`, path]);
}

/** Mounts a fuse-overlayfs, which allows names of 251 bytes, on a new directory. Throws Error. */
export function mountOverlay(): Union {
  return mount((below, path, root) => {
    const folders = { lowerdir: join(root, 'lower'), upperdir: below, workdir: join(root, 'work') };
    for (const name of ['lower', 'work']) mkdirSync(join(root, name));
    const options = Object.entries(folders).map(([name, folder]) => `${name}=${folder}`);
    return ['fuse-overlayfs', '-o', options.join(','), path];
  });
}

function mount(command: (below: string, path: string, root: string) => [program: string, ...args: string[]]): Union {
  const root = mkdtempSync(join(tmpdir(), 'webjob-union-'));
  chmodSync(root, 0o755);
  const [below, path] = [join(root, 'below'), join(root, 'mounted')];
  mkdirSync(below, { mode: 0o755 });
  mkdirSync(path);
  run(...command(below, path, root));
  noteMount(path);
  return {
    path,
    leftBelow: () => readdirSync(below, { recursive: true }).map(String).sort(),
    remove: () => {
      if (process.getuid?.() === 0) run('umount', path);
      else run('fusermount', '-u', path);
      rmSync(root, { recursive: true });
    },
  };
}

function run(program: string, ...args: string[]): void {
  const { status, error, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });
  if (error ?? status !== 0) throw error ?? new Error(`${program}: ${stderr.trim()}`);
}

function findObstacle(mount: () => Union, name: string): string | undefined {
  if (!existsSync('/dev/fuse')) return 'no /dev/fuse';
  try {
    mount().remove();
    return undefined;
  } catch (error) {
    return `${name} cannot be mounted: ${(error as Error).message}`;
  }
}
