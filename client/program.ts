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
import { dirname } from 'node:path';
import { codeOf, Failure, warn } from './failure.ts';
import type { ClientSettings } from './settings.ts';

const CHUNK_BYTES = 64 * 1024;
/** NAME_MAX of every file system that is likely here or on a server. */
const LONGEST_NAME = 255;
/** The longest ending that a server puts behind the name of a program: of a stream that is to replace another. */
const LONGEST_ENDING = '.out.new';
const MOST_REMOVALS = 5;

/** Throws Failure `usage` for a program that could be fetched and run, but not kept or stored under its name. */
export function checkProgramName(settings: ClientSettings, program: string): void {
  const endings = [settings.getHookEnable ? settings.getHookSuffix : '', settings.put ? LONGEST_ENDING : ''];
  const most = LONGEST_NAME - Math.max(...endings.map(({ length }) => length));
  if (program.length <= most) return;
  const why = settings.put ? 'its output could not be stored under it' : 'no file could have it';
  throw new Failure('usage', `the program's name must be 1 to ${most} bytes (got ${program.length}): ${why}`);
}

/**
 * Held open while its job lasts: another run may replace or remove it, and the number of a file that is gone for good may become that of the
 * other run's program.
 */
export class PlacedProgram {
  readonly #isAlone: boolean;
  readonly #public: string;
  readonly #fetched: string;
  readonly #overwrite: boolean;
  #path: string;
  #fd: number;

  /**
   * Makes a fetched program executable and gives it its name, which appears with the whole program behind it; a link or file that waits there
   * is replaced, never followed, or with OverwriteExecutable=N refused. A name that is not ours to take, for it is a folder or another user's,
   * stays as it is: the program then runs in the private folder that it was fetched into. Throws Failure `run`.
   *
   * `isAlone` keeps it where it was fetched in any case, as on Windows: a program that runs can be neither replaced nor removed there, cmd.exe
   * reads a batch file again for every line, and a program loads libraries from the folder it is in.
   */
  constructor(fetched: string, path: string, overwrite: boolean, isAlone = process.platform === 'win32') {
    this.#isAlone = isAlone;
    this.#public = path;
    this.#fetched = fetched;
    this.#overwrite = overwrite;
    if (isAlone && !overwrite && lstatSync(path, { throwIfNoEntry: false })) throw this.#occupied();
    chmodSync(fetched, 0o700);
    this.#fd = openSync(fetched, 'r');
    this.#path = isAlone ? fetched : this.#move();
  }

  /** Where it is. */
  get path(): string {
    return this.#path;
  }

  /** An open descriptor of it. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * The arguments it is started with. `TempDirectory/%payload` in them is beside the program (docs/protocol.md, section 7): so it is also when
   * the program is not in TempDirectory itself.
   */
  argumentsOf(args: readonly string[]): string[] {
    if (this.#path === this.#public) return [...args];
    const token = '/%payload';
    return args.map((arg) => arg.replaceAll(dirname(this.#public) + token, dirname(this.#path) + token));
  }

  /** Puts it there again when a run that ended in the wrong moment has taken it away; false when there is nothing to do or it cannot be done. */
  restore(): boolean {
    if (this.#isAlone) return false;
    if (lstatSync(this.#path, { throwIfNoEntry: false }) !== undefined) return false;
    const gone = this.#fd;
    try {
      copy(gone, this.#fetched);
      this.#fd = openSync(this.#fetched, 'r');
      this.#path = this.#move();
      return true;
    } catch {
      return false;
    } finally {
      if (this.#fd !== gone) closeSync(gone);
    }
  }

  /** Removes it, if it is still the one that was placed there. */
  remove(): void {
    if (this.#isAlone) {
      this.#removeAlone();
      return;
    }
    const { ino, dev } = fstatSync(this.#fd);
    const found = lstatSync(this.#path, { throwIfNoEntry: false });
    if (found?.ino === ino && found.dev === dev) rmSync(this.#path, { force: true });
  }

  /** Leaves it in TempDirectory. */
  leave(): void {
    if (!this.#isAlone) return;
    closeSync(this.#fd);
    try {
      this.#rename();
    } catch (error) {
      warn(`${this.#public} cannot be written (${codeOf(error)}): the program does not stay there`);
    }
  }

  /** Scanners and whatever the program started may hold it for a moment, or for longer. */
  #removeAlone(): void {
    closeSync(this.#fd);
    try {
      rmSync(this.#path, { recursive: true, force: true, maxRetries: MOST_REMOVALS });
    } catch (error) {
      warn(`${this.#path} cannot be removed (${codeOf(error)}): another process has it open`);
    }
  }

  #occupied(): Failure {
    return new Failure('run', `${this.#public} cannot be written: EEXIST`, 'remove it, or set OverwriteExecutable=Y');
  }

  /** From where it was fetched into TempDirectory. Throws the error of the system call. */
  #rename(): void {
    if (this.#overwrite) {
      renameSync(this.#fetched, this.#public);
    } else {
      linkSync(this.#fetched, this.#public);
      unlinkSync(this.#fetched);
    }
  }

  /** Returns where it is then. */
  #move(): string {
    try {
      this.#rename();
      return this.#public;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST' && !this.#overwrite) throw this.#occupied();
      warn(`${this.#public} cannot be written (${code}): the program runs in ${dirname(this.#fetched)}`);
      return this.#fetched;
    }
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
