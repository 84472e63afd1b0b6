// A file system on which a file that is open cannot vanish, as on NFS, ntfs-3g and Windows: libfuse renames it to
// `.fuse_hidden…`, and its folder stays until it is closed.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Why no such file system can be mounted here; undefined when one can. For node:test's `skip`. */
export const NO_UNION = findObstacle();

export interface Union {
  /** Where it is mounted. */
  path: string;
  /** What lies below it on the machine's own file system, hidden files and all. */
  leftBelow(): string[];
  /** Unmounts it and removes what was below. */
  remove(): void;
}

/** Mounts a unionfs-fuse over a new folder. Throws Error. */
export function mountUnion(): Union {
  const root = mkdtempSync(join(tmpdir(), 'webjob-union-'));
  const [below, path] = [join(root, 'below'), join(root, 'mounted')];
  mkdirSync(below, { mode: 0o755 });
  mkdirSync(path);
  run('unionfs', `${below}=RW`, path);
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
  const { status, error, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 20_000 });
  if (error ?? status !== 0) throw error ?? new Error(`${program}: ${stderr.trim()}`);
}

function findObstacle(): string | undefined {
  if (!existsSync('/dev/fuse')) return 'no /dev/fuse';
  try {
    mountUnion().remove();
    return undefined;
  } catch (error) {
    return `unionfs-fuse cannot be mounted: ${(error as Error).message}`;
  }
}
