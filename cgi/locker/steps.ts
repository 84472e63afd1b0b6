// Work that must reach the disk, written in the order in which it happens. It is a generator that yields wherever it would
// wait for the disk or for its turn; a driver makes the step and resumes it, or throws the step's error into it. Alone, the
// steps follow one another in one synchronous call. Many can be driven side by side, and their waiting is shared.
import type { ChainedFacts } from 'webjob-protocol';
import { syncFile, syncOpened } from './durable.ts';

/** An open directory, for the names in it. */
export interface OpenFolder {
  fd: number;
  /** Grows with every folder that is opened: what was opened earlier has seen the changes of all that came later. */
  openedAs: number;
}

/** Put these on disk, in any order: the descriptors that wrote the files, and folders opened before their names were made. */
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
  /** From so many bytes on a segment is sealed. */
  segmentLimit: number;
}

/** Go on when nobody else is at work on any of these keys. */
export interface TurnStep {
  kind: 'turn';
  keys: readonly string[];
  /** It is to be driven alone to its end, since it blocks the process for long. */
  blocks: boolean;
}

/** What work waits for. */
export type Step = SyncStep | RecordStep | TurnStep;

/** Work, and what it comes to. */
export type Steps<Result, Kind extends Step = Step> = Generator<Kind, Result, void>;

/** Drives work to its end at once, one step after the other. Throws what the work throws. */
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

/** Throws the error of the first that fails. */
export function syncAlone({ files, folders }: SyncStep): void {
  for (const fd of files) syncFile(fd);
  for (const { fd } of folders) syncOpened(fd);
}

/** The step that puts these on disk. */
export function syncStep(files: readonly number[], folders: readonly OpenFolder[] = []): SyncStep {
  return { kind: 'sync', files, folders };
}
