// Digests that tell outputs apart: the SHA-256 of a whole stream, or of the lines that matter.
import { createHash, type Hash } from 'node:crypto';
import type { StoredStream } from './streams.ts';

/** The maximum length of a line; longer ones are matched by their beginnings only. */
const MAX_LINE_BYTES = 65_536;
const NEWLINE = 10;

/**
 * SHA-256 in lower-case hex of a stream without the lines that match one of `ignored`. Holds at
 * most the beginning of one line in memory.
 */
export async function digestStream(stream: StoredStream, ignored: readonly RegExp[] = []): Promise<string> {
  const hash = createHash('sha256');
  if (ignored.length === 0) for await (const piece of stream.read()) hash.update(piece);
  else {
    const lines = new Lines(hash, ignored);
    for await (const piece of stream.read()) lines.take(piece);
    lines.end();
  }
  return hash.digest('hex');
}

class Lines {
  readonly #hash: Hash;
  readonly #ignored: readonly RegExp[];
  /** The beginning of a line that was not matched yet. */
  #begun: Buffer = Buffer.alloc(0);
  /** Whether a long line counts; undefined until its beginning was matched. */
  #counts: boolean | undefined;

  constructor(hash: Hash, ignored: readonly RegExp[]) {
    this.#hash = hash;
    this.#ignored = ignored;
  }

  take(piece: Buffer): void {
    for (let from = 0; from < piece.length; ) {
      const newline = piece.indexOf(NEWLINE, from);
      const end = newline < 0 ? piece.length : newline + 1;
      this.#add(piece.subarray(from, end));
      if (newline >= 0) this.end();
      from = end;
    }
  }

  /** Finishes the current line. */
  end(): void {
    if (this.#begun.length > 0) this.#judge();
    this.#counts = undefined;
  }

  #add(part: Buffer): void {
    if (this.#counts === undefined) {
      // A copy, because the reader reuses its buffer.
      this.#begun = Buffer.concat([this.#begun, part]);
      if (this.#begun.length > MAX_LINE_BYTES) this.#judge();
    } else if (this.#counts) this.#hash.update(part);
  }

  #judge(): void {
    const text = this.#begun.toString('utf8', 0, Math.min(this.#begun.length, MAX_LINE_BYTES)).replace(/\r?\n$/, '');
    this.#counts = !this.#ignored.some((pattern) => pattern.test(text));
    if (this.#counts) this.#hash.update(this.#begun);
    this.#begun = Buffer.alloc(0);
  }
}
