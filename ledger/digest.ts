// What tells outputs apart: the SHA-256 of a stream, of all of it or of the lines that count.
import { createHash, type Hash } from 'node:crypto';
import type { StoredStream } from './streams.ts';

/** A longer line is judged by its beginning. */
const MAX_LINE_BYTES = 65_536;
const NEWLINE = 10;

/** SHA-256 of a stream without the lines that match one of `ignored`, in lower-case hex. Never holds more than a line's beginning. */
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
  /** The line that has begun, while it is not judged. */
  #begun: Buffer = Buffer.alloc(0);
  /** What was found of the line that goes on, when it is long. */
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

  /** The line is over. */
  end(): void {
    if (this.#begun.length > 0) this.#judge();
    this.#counts = undefined;
  }

  #add(part: Buffer): void {
    if (this.#counts === undefined) {
      // A copy: who reads may use his buffer again.
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
