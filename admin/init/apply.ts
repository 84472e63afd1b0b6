// Carries the plan out, one step at a time and each whole: whoever is interrupted runs init again, and what is done is kept.
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { makeFolder, syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { createFile, errorCode, removeUnfinished, syncTree } from '../../cli/files.ts';
import type { Step } from './compare.ts';
import type { Wish } from './plan.ts';

export type Makers = Record<NonNullable<Wish['maker']>, (folder: string) => void>;

/** Folders in which everything is taken for what it looks like, and the one outside of them that gets the old versions. */
export interface Served {
  /** What httpd serves, and where man and shells look. */
  directories: readonly string[];
  replacedDirectory: string;
}

/** Makes what is missing and, with --force, what differs; says each as it is done. Throws Failure `failed`. */
export function applySteps(
  steps: readonly Step[],
  makers: Makers,
  served: Served,
  done: (step: Step, backup?: string) => void,
): void {
  for (const step of steps) {
    try {
      // A killed run had come as far as this.
      if (step.state === 'keep') removeUnfinished(step.place);
      else done(step, applyStep(step, makers, served));
    } catch (error) {
      if (error instanceof Failure) throw error;
      throw new Failure('failed', `${step.place} cannot be made: ${errorCode(error)}`, 'fix that, and run init again');
    }
  }
}

/** Returns where what was there is now. */
function applyStep(step: Step, makers: Makers, served: Served): string | undefined {
  const { place, kind, mode, ownership, why, state } = step;
  if (state === 'differs' && !why.includes('kind') && !why.includes('content')) {
    setAccess(step, place);
    return undefined;
  }
  const backup = state === 'differs' ? putAside(place, served) : undefined;
  makeFolder(dirname(place));
  // What differs was put aside: a file that is still there is as the package installed it.
  if (step.packaged !== undefined) rmSync(place, { force: true });
  if (kind === 'folder') makeOwned(step);
  else if (kind === 'link') {
    symlinkSync(step.target ?? '', place);
    syncFolder(dirname(place));
  } else if (step.maker === undefined) {
    removeUnfinished(place);
    createFile(place, step.content ?? step.first ?? '', { mode, owner: ownership });
  }
  // Two files come from one call; the second step finds its file there.
  else makers[step.maker](dirname(place));
  return backup;
}

/** A folder that appears with its owner and mode: with others, the next run would find that it differs. */
function makeOwned(step: Step): void {
  const unfinished = join(dirname(step.place), `.${basename(step.place)}.new`);
  if (existsSync(unfinished)) rmdirSync(unfinished);
  mkdirSync(unfinished, 0o700);
  setAccess(step, unfinished);
  renameSync(unfinished, step.place);
  syncFolder(dirname(step.place));
}

/** Its owner before its mode, for a change of owner may take bits of the mode away. */
function setAccess({ ownership, mode }: Step, place: string): void {
  if (ownership) chownSync(place, ownership.uid, ownership.gid);
  chmodSync(place, mode);
}

/**
 * Returns where it is then. An old version of the script would still run beside the new one, and zsh would load an old
 * completion, so nothing is put aside in such folders.
 */
function putAside(place: string, { directories, replacedDirectory }: Served): string {
  const isServed = directories.some((directory) => place === directory || place.startsWith(`${directory}/`));
  const folder = isServed ? replacedDirectory : dirname(place);
  if (isServed && !existsSync(folder)) {
    makeFolder(dirname(folder));
    mkdirSync(folder, { mode: 0o700 });
  }
  const backup = join(folder, `${basename(place)}.${new Date().toISOString().replace(/[-:]|\..*/g, '')}.bak`);
  moveAway(place, backup);
  syncFolder(folder);
  return backup;
}

/** Also from one file system to another. */
function moveAway(place: string, backup: string): void {
  try {
    renameSync(place, backup);
  } catch (error) {
    if (errorCode(error) !== 'EXDEV') throw error;
    cpSync(place, backup, { recursive: true, verbatimSymlinks: true, errorOnExist: true, preserveTimestamps: true });
    syncTree(dirname(backup));
    rmSync(place, { recursive: true });
  }
}
