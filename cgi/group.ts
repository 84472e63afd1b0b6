// Uploads side by side in a persistent worker: the steps of several are made at the same time, so that the disk is waited for
// once where each alone would wait for itself. Every fsync runs in a thread of its own, and the kernel joins those that come
// together; records of one file share one write and one fsync, and names in one folder one fsync. What each upload does, and
// in which order, is said by its steps alone (docs/architecture.md, "Uploads that come together").
import { fstatSync, fsync } from 'node:fs';
import type { appendCustodyOf, OpenFolder, RecordStep, runAlone, Step, Steps, SyncStep, TurnStep } from 'webjob-locker';

/** What the group uses of the core. */
export interface GroupCore {
  appendCustodyOf: typeof appendCustodyOf;
  runAlone: typeof runAlone;
}

/** Drives work side by side. */
export interface Group {
  /** Begins the work at once, when there is room. Settles with what it comes to. */
  run<Result>(steps: Steps<Result>): Promise<Result>;
}

/** Each upload holds some descriptors, up to thirty while it is compared. More wait for these to end. */
const MOST_AT_ONCE = 32;
/** What one write of the custody record holds at most, in records of some 700 bytes. */
const MOST_RECORDS = 64;

type Done = (error?: unknown) => void;

interface Work {
  /** Goes on to its next step, or with the error of the last one. */
  goOn: Done;
  begin(): void;
  keys: readonly string[];
}

/** Starts with nothing to do. */
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
          // Before others go on: it is answered first.
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

/** Gives keys to one work at a time, to each key's in the order in which they came. */
function createTurns() {
  const taken = new Set<string>();
  let waiting: { work: Work; step: TurnStep; go: () => void }[] = [];
  const look = (): void => {
    // What one waits for nobody behind it may have, though it be free.
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

/** Each fsync in a thread, and of the folders that wait one for all. */
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
    /** Ends when all have: a descriptor is in use until then. */
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

/** Not by its path: another folder may have that by now. */
function identify({ fd }: OpenFolder): string {
  const { dev, ino } = fstatSync(fd);
  return `${dev} ${ino}`;
}

/** On the descriptor that was opened first: an error since the first change of any of them shows there. */
function syncFolders(all: readonly OpenFolder[], settle: (errors: readonly unknown[]) => void): void {
  const first = all.reduce((one, other) => (other.openedAs < one.openedAs ? other : one));
  fsync(first.fd, (error) => {
    // A file system that knows no such thing needs none.
    const failure = error && error.code !== 'EINVAL' ? error : undefined;
    settle(all.map(() => failure));
  });
}

/** Of each file of records one write at a time. */
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

/** What does not fit on a disk that is full fails alone. */
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

/** What is done for several at once, one round after the other. */
interface Rounds<Item> {
  add(item: Item, done: Done): void;
}

/** A round takes all that came until the loop has heard of everything that has ended. */
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
