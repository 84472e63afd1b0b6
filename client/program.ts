// The program in TempDirectory, where concurrent runs of the same program place and remove it too.
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
/** The NAME_MAX of all file systems that a client or server is likely to use. */
const LONGEST_NAME = 255;
/**
 * The longest suffix that a server appends to the name of a program: that of a stream that will
 * replace another one.
 */
const LONGEST_ENDING = '.out.new';
const MOST_REMOVALS = 5;

/**
 * Checks the name of a program. Throws Failure `usage` for a name under which a program could be
 * fetched and run, but its output not be stored.
 */
export function checkProgramName(settings: ClientSettings, program: string): void {
  const endings = [settings.getHookEnable ? settings.getHookSuffix : '', settings.put ? LONGEST_ENDING : ''];
  const most = LONGEST_NAME - Math.max(...endings.map(({ length }) => length));
  if (program.length <= most) return;
  const why = settings.put ? 'its output could not be stored under it' : 'no file could have it';
  throw new Failure('usage', `the program's name must be 1 to ${most} bytes (got ${program.length}): ${why}`);
}

/**
 * A program that stays open during its job. Another run may replace or remove the file, and if it
 * were closed, its inode number could be reused for the program of that run.
 */
export class PlacedProgram {
  readonly #isAlone: boolean;
  readonly #public: string;
  readonly #fetched: string;
  readonly #overwrite: boolean;
  #path: string;
  #fd: number;

  /**
   * Makes a fetched program executable and renames it to its final name, where it appears complete.
   * An existing link or file is replaced, never followed; with OverwriteExecutable=N it is an
   * error. If the name is a directory or belongs to another user, it is left alone and the program
   * runs in the private directory into which it was fetched. Throws Failure `run`.
   *
   * With `isAlone`, the program always stays in the private directory. This is the default on
   * Windows, where a running program can be neither replaced nor removed, cmd.exe rereads a batch
   * file for every line, and a program loads libraries from its own directory.
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

  /** The path of the program. */
  get path(): string {
    return this.#path;
  }

  /** An open descriptor of the program. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * The arguments with which the program is started. A path `TempDirectory/%payload...` in an
   * argument means a file beside the program (docs/protocol.md, section 7), even if the program is
   * not in TempDirectory.
   */
  argumentsOf(args: readonly string[]): string[] {
    if (this.#path === this.#public) return [...args];
    const token = '/%payload';
    return args.map((arg) => arg.replaceAll(dirname(this.#public) + token, dirname(this.#path) + token));
  }

  /**
   * Restores the program after another run that ended at the wrong moment removed it. False when it
   * still exists or cannot be restored.
   */
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

  /** Removes the program if the file is still the one that this job placed. */
  remove(): void {
    if (this.#isAlone) {
      this.#removeAlone();
      return;
    }
    const { ino, dev } = fstatSync(this.#fd);
    const found = lstatSync(this.#path, { throwIfNoEntry: false });
    if (found?.ino === ino && found.dev === dev) rmSync(this.#path, { force: true });
  }

  /** Leaves the program in TempDirectory. */
  leave(): void {
    if (!this.#isAlone) return;
    closeSync(this.#fd);
    try {
      this.#rename();
    } catch (error) {
      warn(`${this.#public} cannot be written (${codeOf(error)}): the program does not stay there`);
    }
  }

  /**
   * Removes the private directory, with retries: virus scanners and processes that the program
   * started may keep the program open for a while.
   */
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

  /**
   * Moves the program from its private directory into TempDirectory. Throws the error of the system
   * call.
   */
  #rename(): void {
    if (this.#overwrite) {
      renameSync(this.#fetched, this.#public);
    } else {
      linkSync(this.#fetched, this.#public);
      unlinkSync(this.#fetched);
    }
  }

  /** Moves the program; returns its new path. */
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
