// The standard streams of every program, of which any may be closed, slow, or on a full disk.

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
