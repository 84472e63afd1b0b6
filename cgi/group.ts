// Group commit for concurrent uploads in a persistent worker: steps of several uploads run at the
// same time, so that they wait for the disk together. Every fsync runs in a thread of its own, and
// the kernel merges those that overlap; records of one file share one write and one fsync, and
// names in one directory share one fsync. The actions of each upload, and their order, are defined
// by its steps alone (docs/architecture.md, "Concurrent uploads").
import { fstatSync, fsync } from 'node:fs';
import type { appendCustodyOf, OpenFolder, RecordStep, runAlone, Step, Steps, SyncStep, TurnStep } from 'webjob-locker';

/** The functions of the core that the group uses. */
export interface GroupCore {
  appendCustodyOf: typeof appendCustodyOf;
  runAlone: typeof runAlone;
}

/** Drives work concurrently. */
export interface Group {
  /** Starts the work as soon as there is room. Settles with its result. */
  run<Result>(steps: Steps<Result>): Promise<Result>;
}

/**
 * The maximum number of concurrent uploads; further ones wait. Each holds up to thirty descriptors
 * while it is compared.
 */
const MOST_AT_ONCE = 32;
/** The maximum number of records, about 700 bytes each, in one write to the custody record. */
const MOST_RECORDS = 64;

type Done = (error?: unknown) => void;

interface Work {
  /** Resumes the work after a step, with the step's error if it failed. */
  goOn: Done;
  begin(): void;
  keys: readonly string[];
}

/** Creates an idle group. */
export function createGroup(core: GroupCore): Group {
  const records = createRecords(core);
  const syncs = createSyncs();
  const turns = createTurns();
  const waiting: Work[] = [];
  let running = 0;

  const startNext = (): void => {
    const work = running < MOST_AT_ONCE ? waiting.shift() : undefined;
    if (!work) return;
    running += 1;
    work.begin();
  };
  const makeStep = (work: Work, step: Step, runToEnd: () => void): void => {
    if (step.kind === 'sync') syncs.add(step, work.goOn);
    else if (step.kind === 'record') records.add(step, work.goOn);
    else turns.take(work, step, step.blocks ? runToEnd : work.goOn);
  };
  return {
    run: <Result>(steps: Steps<Result>) =>
      new Promise<Result>((resolve, reject) => {
        const work: Work = {
          keys: [],
          begin: () => advance(() => steps.next()),
          goOn: (error) => advance(() => (error === undefined ? steps.next() : steps.throw(error))),
        };
        const end = (settle: () => void): void => {
          running -= 1;
          // Settled before other work continues, so that the finished request is answered first.
          settle();
          turns.leave(work);
          if (waiting.length > 0) setImmediate(startNext);
        };
        const advance = (take: () => IteratorResult<Step, Result>): void => {
          let next: IteratorResult<Step, Result>;
          try {
            next = take();
          } catch (error) {
            end(() => reject(error));
            return;
          }
          const { done, value } = next;
          if (done) end(() => resolve(value));
          else makeStep(work, value, runToEnd);
        };
        const runToEnd = (): void => advance(() => ({ done: true, value: core.runAlone(steps) }));
        waiting.push(work);
        startNext();
      }),
  };
}

/** Grants each key to one piece of work at a time, in the order of the requests. */
function createTurns() {
  const taken = new Set<string>();
  let waiting: { work: Work; step: TurnStep; go: () => void }[] = [];
  const look = (): void => {
    // Keys that earlier work waits for are not granted to later work, even when they are free.
    const wanted = new Set<string>();
    const ready: typeof waiting = [];
    waiting = waiting.filter((one) => {
      const isReady = one.step.keys.every((key) => !taken.has(key) && !wanted.has(key));
      for (const key of one.step.keys) (isReady ? taken : wanted).add(key);
      if (isReady) ready.push(one);
      return !isReady;
    });
    for (const { work, step, go } of ready) {
      work.keys = step.keys;
      go();
    }
  };
  return {
    take: (work: Work, step: TurnStep, go: Done): void => {
      waiting.push({ work, step, go: () => go() });
      look();
    },
    leave: (work: Work): void => {
      if (work.keys.length === 0) return;
      for (const key of work.keys) taken.delete(key);
      work.keys = [];
      look();
    },
  };
}

/** Runs each fsync in a thread; all work that waits for the same directory shares one fsync. */
function createSyncs() {
  const folders = new Map<string, Rounds<OpenFolder>>();
  const addFolder = (folder: OpenFolder, done: Done): void => {
    const key = identify(folder);
    let rounds = folders.get(key);
    if (!rounds) {
      rounds = createRounds(syncFolders, Number.POSITIVE_INFINITY, () => folders.delete(key));
      folders.set(key, rounds);
    }
    rounds.add(folder, done);
  };
  return {
    /** Calls `done` when every fsync has ended, because the descriptors are in use until then. */
    add: (step: SyncStep, done: Done): void => {
      let left = step.files.length + step.folders.length;
      let failure: unknown;
      const one: Done = (error) => {
        failure ??= error;
        left -= 1;
        if (left === 0) done(failure);
      };
      for (const fd of step.files) fsync(fd, (error) => one(error ?? undefined));
      for (const folder of step.folders) {
        try {
          addFolder(folder, one);
        } catch (error) {
          one(error);
        }
      }
    },
  };
}

/** Identifies a directory by its inode, because its path may lead to another directory by now. */
function identify({ fd }: OpenFolder): string {
  const { dev, ino } = fstatSync(fd);
  return `${dev} ${ino}`;
}

/**
 * Syncs the descriptor that was opened first, because only that one reports all errors since the
 * first change.
 */
function syncFolders(all: readonly OpenFolder[], settle: (errors: readonly unknown[]) => void): void {
  const first = all.reduce((one, other) => (other.openedAs < one.openedAs ? other : one));
  fsync(first.fd, (error) => {
    // A file system without fsync for directories does not need it.
    const failure = error && error.code !== 'EINVAL' ? error : undefined;
    settle(all.map(() => failure));
  });
}

/** Runs one write at a time for each file of records. */
function createRecords(core: GroupCore) {
  const files = new Map<string, Rounds<RecordStep>>();
  return {
    add: (step: RecordStep, done: Done): void => {
      const key = `${step.segmentLimit} ${step.path}`;
      let rounds = files.get(key);
      if (!rounds) {
        rounds = createRounds(
          (all, settle) => appendRecords(core, all, settle),
          MOST_RECORDS,
          () => files.delete(key),
        );
        files.set(key, rounds);
      }
      rounds.add(step, done);
    },
  };
}

/** Appends records. On a full disk, only the records that do not fit fail. */
function appendRecords(
  core: GroupCore,
  all: readonly RecordStep[],
  settle: (errors: readonly unknown[]) => void,
): void {
  const [first] = all;
  if (!first) return;
  const { path, segmentLimit } = first;
  const facts = all.map((step) => step.facts);
  const steps = core.appendCustodyOf(path, facts, { mayCreate: true, segmentLimit });
  const advance = (error?: unknown): void => {
    let next: IteratorResult<SyncStep, readonly unknown[]>;
    try {
      next = error === undefined ? steps.next() : steps.throw(error);
    } catch (failure) {
      settle(all.map(() => failure));
      return;
    }
    if (next.done) settle(next.value);
    else fsync(next.value.files[0] as number, (failure) => advance(failure ?? undefined));
  };
  advance();
}

/** Work that is done in rounds, each for several requesters together. */
interface Rounds<Item> {
  add(item: Item, done: Done): void;
}

/**
 * Makes rounds, each of up to `most` items; calls `end` when no items are left. The next round
 * waits until the event loop has processed all results of the last one, so that the work they
 * resume can add items.
 */
function createRounds<Item>(
  make: (items: readonly Item[], settle: (errors: readonly unknown[]) => void) => void,
  most: number,
  end: () => void,
): Rounds<Item> {
  const waiting: { item: Item; done: Done }[] = [];
  const begin = (): void => {
    const round = waiting.splice(0, most);
    if (round.length === 0) {
      end();
      return;
    }
    make(
      round.map(({ item }) => item),
      (errors) => {
        for (const [index, { done }] of round.entries()) done(errors[index]);
        setImmediate(begin);
      },
    );
  };
  setImmediate(begin);
  return { add: (item, done) => waiting.push({ item, done }) };
}
