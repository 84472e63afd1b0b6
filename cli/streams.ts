// The standard streams of every program, any of which may be closed, slow, or on a full disk.

/** Writes a line to stderr. Errors are ignored, because they cannot be reported. */
export function say(line: string): void {
  try {
    if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {});
    process.stderr.write(`${line}\n`);
  } catch {
    // For files, Node 20 throws errors that it emits for pipes.
  }
}

/**
 * Writes to stdout and waits until it is taken, so that a slow reader costs no memory. When the
 * reader has left, as `head` does, the program exits with 0. Throws the error of the system call,
 * such as ENOSPC.
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
