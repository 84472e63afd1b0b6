// Removes uploads from the locker so that a kill at any moment loses nothing else: first the
// custody record is written and synced, with the digest of every file; then, under the locks that
// uploads take, the `.rdy` of each upload is removed, and its streams once that is on disk. Files
// that a kill leaves are still named by the record, from which finishRemovals() continues.
import { lstatSync } from 'node:fs';
import { dirname } from 'node:path';
import { EXTENSIONS, type Extension, reach, reachFolder } from 'webjob-locker';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { markOf, removeFile } from '../../cli/files.ts';
import { describeFile, type FileFacts } from '../../evidence/reading.ts';
import { openUploadLocks } from './upload-locks.ts';

export type GroupFacts = Partial<Record<Extension, FileFacts>>;

/** An upload, its contents, and stamps that show whether it is unchanged. */
export interface Described {
  name: string;
  files: GroupFacts;
  /** Inode, size and time of each file; an upload that was replaced has others. */
  marks: Partial<Record<Extension, string>>;
}

/** Reads every file of an upload except its lock. */
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

/**
 * Removes uploads that a custody record already names. Returns those that stay, because a process
 * writes them or they have changed.
 */
export function removeDescribed(locker: string, groups: readonly Described[]): string[] {
  const stay: string[] = [];
  for (const left = [...groups]; left.length > 0; ) removeSome(locker, left, stay);
  return stay;
}

/**
 * Removes as many from `left` as there is space to lock at once. Throws Failure `failed` when
 * there is no space to lock even one.
 */
function removeSome(locker: string, left: Described[], stay: string[]): void {
  const locks = openUploadLocks(locker);
  const going: Described[] = [];
  try {
    for (let group = left[0]; group; group = left[0]) {
      const isTaken = locks.take(group.name);
      if (isTaken === 'full') {
        if (going.length > 0) break;
        throw new Failure('failed', `${locker}: no space for the lock of an upload`);
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

/** A directory with the name of a file must not be removed. */
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

/** A file or directory that was moved meanwhile must not prevent the removal of the others. */
function tolerate(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!['EISDIR', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/**
 * Continues an interrupted removal: the rest of an upload without `.rdy` is removed when each file
 * matches the record. Otherwise returns false and changes nothing.
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
