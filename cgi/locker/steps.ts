// Work that must reach the disk, written in the order in which it happens. It is a generator that
// yields wherever it would wait for the disk or for its turn. A driver does the step and resumes
// the generator, or throws the step's error into it. The steps of a single generator follow each
// other in one synchronous call; many generators can be driven concurrently and share their waits.
import type { ChainedFacts } from 'webjob-protocol';
import { syncFile, syncOpened } from './durable.ts';

/** An open directory, to sync the names in it. */
export interface OpenFolder {
  fd: number;
  /**
   * Increases with every directory that is opened. A descriptor that was opened earlier reports
   * errors of all later changes.
   */
  openedAs: number;
}

/**
 * Put these on disk, in any order: the descriptors that wrote the files, and directories opened
 * before their names were made.
 */
export interface SyncStep {
  kind: 'sync';
  files: readonly number[];
  folders: readonly OpenFolder[];
}

/** Append a record to a chained file, and put it on disk. */
export interface RecordStep {
  kind: 'record';
  path: string;
  facts: ChainedFacts;
  /** The size in bytes from which a segment is sealed. */
  segmentLimit: number;
}

/** Continue when no other work uses any of these keys. */
export interface TurnStep {
  kind: 'turn';
  keys: readonly string[];
  /** Drive this work alone to its end, because it blocks the process for long. */
  blocks: boolean;
}

/** A step that work waits for. */
export type Step = SyncStep | RecordStep | TurnStep;

/** Work, and its result. */
export type Steps<Result, Kind extends Step = Step> = Generator<Kind, Result, void>;

/** Drives work to its end, one step after the other. Throws the error of the work. */
export function drive<Result, Kind extends Step>(steps: Steps<Result, Kind>, make: (step: Kind) => void): Result {
  let next = steps.next();
  while (!next.done) {
    try {
      make(next.value);
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next();
  }
  return next.value;
}

/** Syncs files and directories. Throws the error of the first that fails. */
export function syncAlone({ files, folders }: SyncStep): void {
  for (const fd of files) syncFile(fd);
  for (const { fd } of folders) syncOpened(fd);
}

/** The step that puts these on disk. */
export function syncStep(files: readonly number[], folders: readonly OpenFolder[] = []): SyncStep {
  return { kind: 'sync', files, folders };
}
