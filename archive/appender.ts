// Writes a file from its beginning to its end, small pieces many at a time: a system call for each of them would take longer than what is
// written.
import { writeSync } from 'node:fs';

const BUFFER_BYTES = 256 * 1024;

/** What was added is in the file after `flush`, which is the caller's to call, as is closing the descriptor. */
export class Appender {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #filled = 0;
  #written = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Where the next byte will be. */
  get position(): number {
    return this.#written + this.#filled;
  }

  /** Copies the bytes, or writes them. Throws ENOSPC, EDQUOT, EIO. */
  add(bytes: Buffer): void {
    if (bytes.length > BUFFER_BYTES - this.#filled) this.flush();
    if (bytes.length > BUFFER_BYTES) this.#write(bytes);
    else this.#filled += bytes.copy(this.#buffer, this.#filled);
  }

  flush(): void {
    this.#write(this.#buffer.subarray(0, this.#filled));
    this.#filled = 0;
  }

  /** What is behind a position will be overwritten; what is not, must be cut off by the caller. */
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
