// Takes groups out of the locker so that a kill at any moment loses nothing else: the custody record first, on disk, with the digest of
// every file; then, under the locks that uploads take, the `.rdy` of each group, and the streams when that is on disk. What a kill
// leaves, the record still names: finishRemovals goes on from there.
import { lstatSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EXTENSIONS, type Extension } from 'webjob-locker';
import { syncFolder } from 'webjob-locker/durable';
import { markOf, removeFile } from '../../cli/files.ts';
import { openLocks } from '../../cli/lockfile.ts';
import { digestFile, type FileFacts } from '../../evidence/reading.ts';
import { lockSource } from '../site/turn.ts';

export type GroupFacts = Partial<Record<Extension, FileFacts>>;

/** A group, what is in it, and what tells that it is still the same. */
export interface Described {
  name: string;
  files: GroupFacts;
  /** Inode, size and time of each file; a group that was replaced has others. */
  marks: Partial<Record<Extension, string>>;
}

/** Reads every file of a group but its lock. */
export async function describeGroup(locker: string, name: string): Promise<Described> {
  const described: Described = { name, files: {}, marks: {} };
  for (const extension of EXTENSIONS) {
    const path = join(locker, `${name}.${extension}`);
    const mark = extension === 'lck' ? undefined : markOf(path);
    if (mark === undefined) continue;
    described.marks[extension] = mark;
    described.files[extension] = digestFile(path);
  }
  return described;
}

/** Removes groups that a custody record names already. Returns those that stay because somebody writes them or they are others by now. */
export function removeDescribed(locker: string, groups: readonly Described[]): string[] {
  const locks = openLocks(lockSource(locker));
  const stay: string[] = [];
  const going: Described[] = [];
  try {
    for (const group of groups) {
      if (locks.take(join(locker, `${group.name}.lck`)) && isSame(locker, group)) going.push(group);
      else stay.push(group.name);
    }
    removeFiles(locker, going, ['rdy']);
    removeFiles(locker, going, ['out', 'err', 'env']);
  } finally {
    locks.release();
  }
  return stay;
}

/** A folder that has the name of a file is nothing that may be removed. */
function isSame(locker: string, { name, marks }: Described): boolean {
  return EXTENSIONS.every((extension) => {
    if (extension === 'lck') return true;
    const path = join(locker, `${name}.${extension}`);
    const mark = markOf(path);
    if (mark !== marks[extension]) return false;
    return mark !== undefined || lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true;
  });
}

function removeFiles(locker: string, groups: readonly Described[], extensions: readonly Extension[]): void {
  const folders = new Set<string>();
  for (const { name } of groups) {
    const base = join(locker, name);
    for (const extension of extensions) removeFile(`${base}.${extension}`);
    folders.add(dirname(base));
  }
  for (const folder of folders) syncFolder(folder);
}

/**
 * Goes on with a removal that was cut off: what is left of a group without `.rdy` goes when each file is what the record says. Returns
 * false when it is something else, and nothing was touched.
 */
export async function finishRemoval(locker: string, name: string, recorded: GroupFacts): Promise<boolean> {
  const left = await describeGroup(locker, name);
  const isCovered = Object.entries(left.files).every(([extension, { bytes, sha256 }]) => {
    const was = recorded[extension as Extension];
    return was?.bytes === bytes && was.sha256 === sha256;
  });
  if (left.files.rdy || !isCovered) return false;
  return removeDescribed(locker, [left]).length === 0;
}
