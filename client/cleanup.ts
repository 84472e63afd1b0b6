// What has to be put away however a job ends: at its end, or by a signal outside RUN. While a program runs, the signal is its own: it ends,
// and its end is reported.

const SIGNALS = [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const;

/** Begins to listen for signals. `add` says what to do at the end, `run` does it once, the last first, and stops listening. */
export function openCleanup(): { add(step: () => unknown): void; run(): void } {
  const steps: (() => unknown)[] = [];
  const run = (): void => {
    for (const [signal] of SIGNALS) process.off(signal, end);
    for (let step = steps.pop(); step; step = steps.pop()) attempt(step);
  };
  const end = (signal: NodeJS.Signals): void => {
    if (process.listenerCount(signal) > 1) return;
    run();
    process.exit(128 + (SIGNALS.find(([name]) => name === signal)?.[1] ?? 0));
  };
  for (const [signal] of SIGNALS) process.on(signal, end);
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
