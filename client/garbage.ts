// Limits the memory of a client that transfers gigabytes. node:http allocates a new buffer for
// every piece of an answer, and V8 lets buffers pile up to several hundred megabytes before it
// collects them, too much on someone else's machine.
const COLLECT_AFTER_BYTES = 16 * 1024 * 1024;

/** Returns a function to be called with the size of every piece that is no longer needed. */
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
