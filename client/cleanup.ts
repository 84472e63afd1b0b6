// Cleans up at the end of a job, however the job ends: normally, or by a signal outside RUN. While
// a program runs, signals are passed on to the program, whose end is then reported.

const SIGNALS = [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const;

/** A step of the cleanup. Its argument is the signal that caused the cleanup, if any. */
export type CleanupStep = (signal?: NodeJS.Signals) => unknown;

/**
 * Starts listening for signals. `add` registers a step; `run` runs every step once, last registered
 * first, and stops listening.
 */
export function openCleanup(): { add(step: CleanupStep): void; run(signal?: NodeJS.Signals): void } {
  const steps: CleanupStep[] = [];
  const run = (signal?: NodeJS.Signals): void => {
    for (const [name] of SIGNALS) process.off(name, end);
    for (let step = steps.pop(); step; step = steps.pop()) attempt(() => step?.(signal));
  };
  // An uncaught error ends the process without a call to run().
  process.once('exit', () => run());
  const end = (signal: NodeJS.Signals): void => {
    if (process.listenerCount(signal) > 1) return;
    run(signal);
    process.exit(128 + (SIGNALS.find(([name]) => name === signal)?.[1] ?? 0));
  };
  for (const [signal] of SIGNALS) process.on(signal, end);
  // A write over a file size limit (ulimit -f) must fail with EFBIG instead of ending the process.
  if (process.platform !== 'win32') process.on('SIGXFSZ', () => {});
  return { add: (step) => steps.push(step), run };
}

/** Runs a step; a step that fails must not prevent the others. */
function attempt(step: () => unknown): void {
  try {
    step();
  } catch {
    // The job itself has ended, so the error of a step is ignored.
  }
}
