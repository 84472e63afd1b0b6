// A small disk for a test: a tmpfs, where this machine allows mounting one.
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noteMount } from '../../scripts/test-leftovers.ts';
import { findWebUser } from './tree.ts';

/**
 * Mounts a tmpfs on a directory, which then belongs to the web user. Throws when this is not
 * allowed.
 */
export function mountTmpfs(path: string, limits: string): void {
  const user = findWebUser();
  const owner = user ? `,uid=${user.uid},gid=${user.gid}` : '';
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `mode=755,${limits}${owner}`, 'tmpfs', path], {
    encoding: 'utf8',
  });
  if (mounted.status !== 0) throw new Error((mounted.error?.message ?? mounted.stderr).trim());
  noteMount(path);
}

/** Unmounts it; a process that has ended may keep it busy for a moment. */
export function unmountTmpfs(path: string): void {
  const deadline = Date.now() + 10_000;
  let unmounted = spawnSync('umount', [path], { encoding: 'utf8' });
  while (unmounted.status !== 0 && Date.now() < deadline) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    unmounted = spawnSync('umount', [path], { encoding: 'utf8' });
  }
  if (unmounted.status !== 0) throw new Error(unmounted.stderr);
}

/** Why no tmpfs can be mounted here; undefined when one can. */
export function findMountObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const folder = mkdtempSync(join(tmpdir(), 'webjob-mount-'));
  try {
    mountTmpfs(folder, 'size=64k');
    unmountTmpfs(folder);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    rmdirSync(folder);
  }
}

/** Writes a file until the disk is full. */
export function fillBytes(path: string): void {
  const fd = openSync(path, 'a');
  try {
    for (let size = 256 * 1024; size >= 1; ) {
      try {
        writeSync(fd, Buffer.alloc(size));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        size = Math.floor(size / 2);
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** Creates empty files in a new directory until only this many inodes are left. */
export function fillInodes(folder: string, left: number): void {
  mkdirSync(folder);
  let made = 0;
  try {
    for (;;) {
      writeFileSync(join(folder, String(made)), '');
      made += 1;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
  for (let count = 1; count <= left; count += 1) rmSync(join(folder, String(made - count)));
}
