// Writes the pages of a report to its directory. A page that would not change is linked from the
// last report.
import { linkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestPage, type Frame, formatPage, type Page, readMark } from './page.ts';

export class Pages {
  readonly #folder: string;
  readonly #old: string | undefined;
  readonly #frame: Frame;
  /** Called for every page. */
  readonly #advance: () => void;
  written = 0;
  kept = 0;

  /** `old` is the directory of the last report; undefined to make every page. */
  constructor(folder: string, old: string | undefined, frame: Frame, advance: () => void) {
    this.#folder = folder;
    this.#old = old;
    this.#frame = frame;
    this.#advance = advance;
  }

  get count(): number {
    return this.written + this.kept;
  }

  /** The digest of a page's sources. */
  digest(...facts: string[]): string {
    return digestPage(this.#frame, ...facts);
  }

  /** Keeps a page that was made from the same facts; returns the word that was stored with it. */
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
      // The old page does not exist, another run has just replaced the report, or the file system
      // has no hard links.
      if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
      return undefined;
    }
  }

  /**
   * Writes a page. The digest of its sources and `word` are written into it, for the next report to
   * read.
   */
  write(path: string, page: Page, digest: string, word: string): void {
    const place = join(this.#folder, path);
    // An existing file may be linked from the last report.
    rmSync(place, { force: true });
    writeFileSync(place, formatPage(page, this.#frame, `${digest} ${word}`), { mode: 0o644, flag: 'wx' });
    this.written++;
    this.#advance();
  }

  /** Writes a page that was made anyway, if it has changed. */
  put(path: string, page: Page): void {
    const digest = this.digest(page.title, page.content.text);
    if (this.keep(path, digest) === undefined) this.write(path, page, digest, 'list');
  }
}
