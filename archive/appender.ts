// Writes a file sequentially and buffers small pieces, because a system call for each would take
// longer than the writing itself.
import { writeSync } from 'node:fs';

const BUFFER_BYTES = 256 * 1024;

/**
 * The bytes that were added are in the file only after flush(). The caller must call it, and close
 * the descriptor.
 */
export class Appender {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #filled = 0;
  #written = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The offset of the next byte. */
  get position(): number {
    return this.#written + this.#filled;
  }

  /** Buffers or writes the bytes. Throws ENOSPC, EDQUOT, EIO. */
  add(bytes: Buffer): void {
    if (bytes.length > BUFFER_BYTES - this.#filled) this.flush();
    if (bytes.length > BUFFER_BYTES) this.#write(bytes);
    else this.#filled += bytes.copy(this.#buffer, this.#filled);
  }

  flush(): void {
    this.#write(this.#buffer.subarray(0, this.#filled));
    this.#filled = 0;
  }

  /** Continues at an earlier position. The caller truncates the bytes that are not overwritten. */
  goBack(position: number): void {
    this.flush();
    this.#written = position;
  }

  #write(bytes: Buffer): void {
    for (let done = 0; done < bytes.length; ) {
      const count = writeSync(this.#fd, bytes, done, bytes.length - done, this.#written);
      done += count;
      this.#written += count;
    }
  }
}
