// What every program does with its standard streams, and with an error that nobody had a word for.

/** The exit code of a bug: EX_SOFTWARE of sysexits.h. */
export const BUG = 70;

/** Writes a line to stderr. One that is closed, or on a full disk, ends no job: nobody is there to be told. */
export function say(line: string): void {
  try {
    if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {});
    process.stderr.write(`${line}\n`);
  } catch {
    // Node 20 throws for a file what it emits for a pipe.
  }
}

/**
 * Writes to stdout and waits until that took it, so that a slow reader costs no memory. A reader that has seen enough, as `head` has, ends
 * the program with 0. Throws the error of the system call, such as ENOSPC.
 */
export async function print(piece: string | Uint8Array): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => {});
      process.stdout.write(piece, (error) => (error ? reject(error) : resolve()));
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(0);
    throw error;
  }
}

/** Says what ended the program: a line, and with WEBJOB_DEBUG in the environment where. Returns the exit code of a bug. */
export function reportBug(name: string, error: unknown): number {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const [line = ''] = message.replace(/[^\x20-\x7e\n]/g, '?').split('\n');
  say(`${name}: error: internal error: ${line}`);
  if (process.env.WEBJOB_DEBUG) say(stack ?? message);
  else say(`${name}: hint: this is a bug; with WEBJOB_DEBUG=1 in the environment ${name} says where: please report it`);
  return BUG;
}

/** Gives an error that nothing catches, and an end before any exit code is known, the exit code of a bug. */
export function catchBugs(name: string): void {
  process.exitCode = BUG;
  process.on('uncaughtException', (error) => process.exit(reportBug(name, error)));
}
