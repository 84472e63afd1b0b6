// Keeps a client that moves gigabytes small. node:http hands out every piece of an answer in a buffer of its own, and V8 lets those pile up
// to some hundred megabytes before it looks for them: on the machine of somebody else that is not ours to take.
const COLLECT_AFTER_BYTES = 16 * 1024 * 1024;

/** Returns what is told of every piece, by its bytes, once it is done with. */
export function openGarbage(): (bytes: number) => void {
  let waiting = 0;
  let collect: ((options: { type: 'minor' }) => void) | undefined;
  return (bytes) => {
    waiting += bytes;
    if (waiting < COLLECT_AFTER_BYTES) return;
    waiting = 0;
    collect ??= findCollector();
    collect({ type: 'minor' });
  };
}

function findCollector(): (options: { type: 'minor' }) => void {
  process.getBuiltinModule('node:v8').setFlagsFromString('--expose-gc');
  return process.getBuiltinModule('node:vm').runInNewContext('gc');
}
