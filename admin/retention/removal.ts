// Takes groups out of the locker so that a kill at any moment loses nothing else: the custody record first, on disk, with the digest of
// every file; then, under the locks that uploads take, the `.rdy` of each group, and the streams when that is on disk. What a kill
// leaves, the record still names: finishRemovals goes on from there.
import { lstatSync } from 'node:fs';
import { dirname } from 'node:path';
import { EXTENSIONS, type Extension, reach, reachFolder } from 'webjob-locker';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { markOf, removeFile } from '../../cli/files.ts';
import { describeFile, type FileFacts } from '../../evidence/reading.ts';
import { openUploadLocks } from './upload-locks.ts';

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
    const found = extension === 'lck' ? undefined : describeFile(reach(locker, `${name}.${extension}`));
    if (!found) continue;
    const { mark, ...facts } = found;
    described.marks[extension] = mark;
    described.files[extension] = facts;
  }
  return described;
}

/** Removes groups that a custody record names already. Returns those that stay because somebody writes them or they are others by now. */
export function removeDescribed(locker: string, groups: readonly Described[]): string[] {
  const stay: string[] = [];
  for (const left = [...groups]; left.length > 0; ) removeSome(locker, left, stay);
  return stay;
}

/** Takes off `left` as many as the disk has room to lock at once. Throws Failure `failed` when that is none. */
function removeSome(locker: string, left: Described[], stay: string[]): void {
  const locks = openUploadLocks(locker);
  const going: Described[] = [];
  try {
    for (let group = left[0]; group; group = left[0]) {
      const isTaken = locks.take(group.name);
      if (isTaken === 'full') {
        if (going.length > 0) break;
        throw new Failure('failed', `${locker}: no room for the lock of an upload`);
      }
      left.shift();
      if (isTaken && isSame(locker, group)) going.push(group);
      else stay.push(group.name);
    }
    removeFiles(locker, going, ['rdy']);
    removeFiles(locker, going, ['out', 'err', 'env']);
  } finally {
    locks.release();
  }
}

/** A folder that has the name of a file is nothing that may be removed. */
function isSame(locker: string, { name, marks }: Described): boolean {
  return EXTENSIONS.every((extension) => {
    if (extension === 'lck') return true;
    const path = reach(locker, `${name}.${extension}`);
    const mark = markOf(path);
    if (mark !== marks[extension]) return false;
    return mark !== undefined || lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true;
  });
}

function removeFiles(locker: string, groups: readonly Described[], extensions: readonly Extension[]): void {
  const folders = new Set<string>();
  for (const { name } of groups) {
    for (const extension of extensions) tolerate(() => removeFile(reach(locker, `${name}.${extension}`)));
    folders.add(dirname(name));
  }
  for (const folder of folders) tolerate(() => syncFolder(reachFolder(locker, folder)));
}

/** A file or folder that somebody has put elsewhere meanwhile must not keep us from the others. */
function tolerate(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!['EISDIR', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
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
