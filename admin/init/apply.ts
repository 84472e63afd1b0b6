// Carries out the plan, one complete step at a time: after an interruption, another run continues,
// and completed steps are kept.
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

/**
 * Directories in which every file has an effect, and a directory outside of them for old versions.
 */
export interface Served {
  /** Directories that httpd serves, and those that man and shells search. */
  directories: readonly string[];
  replacedDirectory: string;
}

/**
 * Creates missing files and, with --force, replaces those that differ; reports each step. Throws
 * Failure `failed`.
 */
export function applySteps(
  steps: readonly Step[],
  makers: Makers,
  served: Served,
  done: (step: Step, backup?: string) => void,
): void {
  for (const step of steps) {
    try {
      // A killed run may have left an unfinished file.
      if (step.state === 'keep') removeUnfinished(step.place);
      else done(step, applyStep(step, makers, served));
    } catch (error) {
      if (error instanceof Failure) throw error;
      throw new Failure(
        'failed',
        `${step.place} cannot be made: ${errorCode(error)}`,
        'correct that, and run init again',
      );
    }
  }
}

/** Carries out a step; returns the path to which an existing file was moved. */
function applyStep(step: Step, makers: Makers, served: Served): string | undefined {
  const { place, kind, mode, ownership, why, state } = step;
  if (state === 'differs' && !why.includes('kind') && !why.includes('content')) {
    setAccess(step, place);
    return undefined;
  }
  const backup = state === 'differs' ? putAside(place, served) : undefined;
  makeFolder(dirname(place));
  // A file that differs was moved away, so one that still exists is as the package installed it.
  if (step.packaged !== undefined) rmSync(place, { force: true });
  if (kind === 'folder') makeOwned(step);
  else if (kind === 'link') {
    symlinkSync(step.target ?? '', place);
    syncFolder(dirname(place));
  } else if (step.maker === undefined) {
    removeUnfinished(place);
    createFile(place, step.content ?? step.first ?? '', { mode, owner: ownership });
  }
  // One call makes both files; the second step finds its file present.
  else makers[step.maker](dirname(place));
  return backup;
}

/**
 * Makes a directory that has the right owner and mode from the beginning; otherwise the next run
 * would report that it differs.
 */
function makeOwned(step: Step): void {
  const unfinished = join(dirname(step.place), `.${basename(step.place)}.new`);
  if (existsSync(unfinished)) rmdirSync(unfinished);
  mkdirSync(unfinished, 0o700);
  setAccess(step, unfinished);
  renameSync(unfinished, step.place);
  syncFolder(dirname(step.place));
}

/** Sets the owner before the mode, because changing the owner may clear bits of the mode. */
function setAccess({ ownership, mode }: Step, place: string): void {
  if (ownership) chownSync(place, ownership.uid, ownership.gid);
  chmodSync(place, mode);
}

/**
 * Moves a file away; returns its new path. In the served directories, an old script would still run
 * beside the new one, and zsh would load an old completion, so nothing is kept there.
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

/** Moves a file, even to another file system. */
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
