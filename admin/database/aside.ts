// Reads a whole locker in a thread of its own, while the first one puts what was read into the index: on two processors that takes half the
// time. The thread is this very program, started again; never more than a few blocks are on their way.
import { on } from 'node:events';
import { walkLocker } from 'webjob-locker';
import { Failure } from '../failure.ts';
import { type FreshGroup, formatFiles, makeReader, stampGroup } from './reading.ts';

/** Groups that travel together, and how much text at most. */
const BLOCK_GROUPS = 200;
const BLOCK_CHARACTERS = 2_000_000;
const MAX_BLOCKS = 4;

interface Order {
  locker: string;
  maxTextBytes: number;
  /** How many blocks are on their way. */
  onTheWay: Int32Array<SharedArrayBuffer>;
}

/** Every group of a locker, in the order of walkLocker. Throws the errors of system calls. */
export async function* readAside(locker: string, maxTextBytes: number): AsyncGenerator<FreshGroup[]> {
  const { Worker } = process.getBuiltinModule('node:worker_threads');
  const onTheWay = new Int32Array(new SharedArrayBuffer(4));
  const workerData: Order = { locker, maxTextBytes, onTheWay };
  const worker = new Worker(process.argv[1] ?? '', { workerData, resourceLimits: { maxYoungGenerationSizeMb: 4 } });
  try {
    for await (const [block] of on(worker, 'message', { close: ['exit'] })) {
      if (block === null) return;
      yield block as FreshGroup[];
      Atomics.sub(onTheWay, 0, 1);
      Atomics.notify(onTheWay, 0);
    }
    throw new Failure('failed', `${locker}: the thread that reads it has ended early`);
  } finally {
    await worker.terminate();
  }
}

/** What the thread does. */
export function serveReader(): void {
  const { parentPort, workerData } = process.getBuiltinModule('node:worker_threads');
  const { locker, maxTextBytes, onTheWay } = workerData as Order;
  const read = makeReader(locker, maxTextBytes);
  let block: FreshGroup[] = [];
  let characters = 0;
  const send = (): void => {
    Atomics.add(onTheWay, 0, 1);
    parentPort?.postMessage(block);
    [block, characters] = [[], 0];
    for (let count = Atomics.load(onTheWay, 0); count >= MAX_BLOCKS; count = Atomics.load(onTheWay, 0))
      Atomics.wait(onTheWay, 0, count);
  };
  for (const { group } of walkLocker(locker)) {
    if (!group) continue;
    const fresh = { name: group.name, files: formatFiles(group.has), ...stampGroup(locker, group), ...read(group) };
    block.push(fresh);
    characters += fresh.body.length;
    if (block.length >= BLOCK_GROUPS || characters >= BLOCK_CHARACTERS) send();
  }
  send();
  parentPort?.postMessage(null);
}
