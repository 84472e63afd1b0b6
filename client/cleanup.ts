// What has to be put away however a job ends: at its end, or by a signal outside RUN. While a program runs, the signal is its own: it ends,
// and its end is reported.

const SIGNALS = [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const;

/** What is done at the end; it is told of the signal that brought it. */
export type CleanupStep = (signal?: NodeJS.Signals) => unknown;

/** Begins to listen for signals. `add` says what to do at the end, `run` does it once, the last first, and stops listening. */
export function openCleanup(): { add(step: CleanupStep): void; run(signal?: NodeJS.Signals): void } {
  const steps: CleanupStep[] = [];
  const run = (signal?: NodeJS.Signals): void => {
    for (const [name] of SIGNALS) process.off(name, end);
    for (let step = steps.pop(); step; step = steps.pop()) attempt(() => step?.(signal));
  };
  // A bug ends us without passing by.
  process.once('exit', () => run());
  const end = (signal: NodeJS.Signals): void => {
    if (process.listenerCount(signal) > 1) return;
    run(signal);
    process.exit(128 + (SIGNALS.find(([name]) => name === signal)?.[1] ?? 0));
  };
  for (const [signal] of SIGNALS) process.on(signal, end);
  // A file over a limit (ulimit -f) is to fail with EFBIG, not to end us.
  if (process.platform !== 'win32') process.on('SIGXFSZ', () => {});
  return { add: (step) => steps.push(step), run };
}

/** One thing that cannot be put away must not leave the others lying. */
function attempt(step: () => unknown): void {
  try {
    step();
  } catch {
    // Whoever made it impossible knows.
  }
}
