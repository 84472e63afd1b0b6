// The program at its place in TempDirectory, where other runs of the same program put theirs and take them away.
import {
  chmodSync,
  closeSync,
  fstatSync,
  linkSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { Failure } from './failure.ts';

const CHUNK_BYTES = 64 * 1024;

/**
 * Held open while its job lasts: another run may replace or remove it, and the number of a file that is gone for good may become that of the
 * other run's program.
 */
export class PlacedProgram {
  readonly path: string;
  readonly #fetched: string;
  readonly #overwrite: boolean;
  #fd: number;

  /**
   * Makes a fetched program executable and gives it its name, which appears with the whole program behind it; a link or file that waits there
   * is replaced, never followed, or with OverwriteExecutable=N refused. Throws Failure `run`.
   */
  constructor(fetched: string, path: string, overwrite: boolean) {
    this.path = path;
    this.#fetched = fetched;
    this.#overwrite = overwrite;
    chmodSync(fetched, 0o700);
    this.#fd = openSync(fetched, 'r');
    move(fetched, path, overwrite);
  }

  /** Puts it there again when a run that ended in the wrong moment has taken it away; false when there is nothing to do or it cannot be done. */
  restore(): boolean {
    if (lstatSync(this.path, { throwIfNoEntry: false }) !== undefined) return false;
    const gone = this.#fd;
    try {
      copy(gone, this.#fetched);
      this.#fd = openSync(this.#fetched, 'r');
      move(this.#fetched, this.path, this.#overwrite);
      return true;
    } catch {
      return false;
    } finally {
      if (this.#fd !== gone) closeSync(gone);
    }
  }

  /** Removes it, if it is still the one that was placed there. */
  remove(): void {
    const { ino, dev } = fstatSync(this.#fd);
    const found = lstatSync(this.path, { throwIfNoEntry: false });
    // Windows removes no file that is open.
    if (process.platform === 'win32') closeSync(this.#fd);
    if (found?.ino === ino && found.dev === dev) rmSync(this.path, { force: true });
  }
}

function move(fetched: string, path: string, overwrite: boolean): void {
  try {
    if (overwrite) {
      renameSync(fetched, path);
    } else {
      linkSync(fetched, path);
      unlinkSync(fetched);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const hint = code === 'EEXIST' ? 'remove it, or set OverwriteExecutable=Y' : undefined;
    throw new Failure('run', `${path} cannot be written: ${code}`, hint);
  }
}

function copy(from: number, path: string): void {
  const to = openSync(path, 'wx', 0o700);
  try {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    for (let at = 0, count = 1; count > 0; at += count) {
      count = readSync(from, buffer, 0, buffer.length, at);
      for (let written = 0; written < count; ) written += writeSync(to, buffer, written, count - written);
    }
  } finally {
    closeSync(to);
  }
}
