// The pages of a report on their way into its folder. One that would say what it said in the last report is linked from there.
import { linkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestPage, type Frame, formatPage, type Page, readMark } from './page.ts';

export class Pages {
  readonly #folder: string;
  readonly #old: string | undefined;
  readonly #frame: Frame;
  /** Called after every page. */
  readonly #advance: () => void;
  written = 0;
  kept = 0;

  /** `old` is the folder of the last report; undefined: every page is made. */
  constructor(folder: string, old: string | undefined, frame: Frame, advance: () => void) {
    this.#folder = folder;
    this.#old = old;
    this.#frame = frame;
    this.#advance = advance;
  }

  get count(): number {
    return this.written + this.kept;
  }

  /** The digest of what a page is made from. */
  digest(...facts: string[]): string {
    return digestPage(this.#frame, ...facts);
  }

  /** Takes a page over when it was made from the same; returns the word that it was given then. */
  keep(path: string, digest: string): string | undefined {
    if (this.#old === undefined) return undefined;
    const from = join(this.#old, path);
    try {
      const [before, word] = readMark(from)?.split(' ') ?? [];
      if (before !== digest || word === undefined) return undefined;
      linkSync(from, join(this.#folder, path));
      this.kept++;
      this.#advance();
      return word;
    } catch (error) {
      // There is none yet, another run has just replaced the report, or the file system links nothing.
      if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
      return undefined;
    }
  }

  /** Writes a page, with the digest of what it is made from, and a word for the next report. */
  write(path: string, page: Page, digest: string, word: string): void {
    const place = join(this.#folder, path);
    // What is there may be linked from the last report.
    rmSync(place, { force: true });
    writeFileSync(place, formatPage(page, this.#frame, `${digest} ${word}`), { mode: 0o644, flag: 'wx' });
    this.written++;
    this.#advance();
  }

  /** A page that is made anyway: written only when it says something else than before. */
  put(path: string, page: Page): void {
    const digest = this.digest(page.title, page.content.text);
    if (this.keep(path, digest) === undefined) this.write(path, page, digest, 'list');
  }
}
