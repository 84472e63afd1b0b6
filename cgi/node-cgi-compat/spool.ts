// Buffers the body of a request between an asynchronous peer and a synchronous handler: in memory
// while it is small, otherwise in a file without a name, so that nothing of it stays however the
// process ends.
import { closeSync, constants, openSync, readSync, statfsSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Body } from './body.ts';
import { writeAll } from './descriptors.ts';

/** A body of more bytes goes to a file. */
const MEMORY_BODY_BYTES = 64 * 1024;

/**
 * The number of bytes written at a time, because a web server sends a body in pieces of some
 * kilobytes.
 */
const WRITE_BYTES = 256 * 1024;
/** The bytes that must stay free on the file system besides the body. */
const RESERVE_BYTES = 1024 * 1024;
const FIRST_BYTES = 4096;
/** Linux has this flag on every architecture that Node supports, but Node does not name it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** Receives a body piece by piece and then supplies it. */
export class Spool implements Body {
  readonly #length: number;
  readonly #folder: () => string | undefined;
  /** The body, or the part of it that is not yet in the file. */
  #memory = Buffer.alloc(0);
  #fd: number | undefined;
  /** The number of bytes that are kept, and how many of them are in the file. */
  #size = 0;
  #written = 0;
  #at = 0;
  /** Whether the rest of the body is discarded, because no reader wants it or there is no room. */
  #isShut = false;
  #failure: Error | undefined;

  /**
   * Keeps at most `length` bytes. `folder` is called when memory is not enough and returns the
   * directory for the file. Undefined means that nobody wants the body: the rest is discarded, and
   * a reader sees it end early.
   */
  constructor(length: number | undefined, folder: () => string | undefined) {
    this.#length = length ?? Number.POSITIVE_INFINITY;
    this.#folder = folder;
  }

  /**
   * Appends a piece of the body. Never throws: the reader gets the errors, as if it read a file
   * itself.
   */
  append(piece: Buffer): void {
    const bytes = piece.subarray(0, Math.min(piece.length, this.#length - this.#size));
    if (this.#isShut || bytes.length === 0) return;
    try {
      if (this.#fd === undefined && this.#size + bytes.length > MEMORY_BODY_BYTES) this.#moveToFile();
      if (this.#isShut) return;
      if (this.#fd !== undefined && this.#size - this.#written + bytes.length > WRITE_BYTES) this.#flush();
      this.#remember(bytes);
      this.#size += bytes.length;
    } catch (error) {
      this.#isShut = true;
      this.#failure = error as Error;
    }
  }

  read(buffer: Uint8Array): number {
    if (this.#failure) throw this.#failure;
    const wanted = Math.min(buffer.length, this.#size - this.#at);
    if (wanted === 0) return 0;
    if (this.#fd !== undefined) this.#flush();
    if (this.#fd === undefined) buffer.set(this.#memory.subarray(this.#at, this.#at + wanted));
    const count = this.#fd === undefined ? wanted : readSync(this.#fd, buffer, 0, wanted, this.#at);
    this.#at += count;
    return count;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#isShut = true;
    this.#size = 0;
    this.#written = 0;
    this.#at = 0;
  }

  #flush(): void {
    if (this.#fd !== undefined) writeAll(this.#fd, this.#memory.subarray(0, this.#size - this.#written));
    this.#written = this.#size;
  }

  /**
   * Keeps bytes in memory. The buffer doubles, so that a peer that sends single bytes costs no more
   * than any other.
   */
  #remember(bytes: Buffer): void {
    const used = this.#size - this.#written;
    if (used + bytes.length > this.#memory.length) {
      const larger = Buffer.allocUnsafe(Math.max(FIRST_BYTES, 2 * this.#memory.length, used + bytes.length));
      this.#memory.copy(larger, 0, 0, used);
      this.#memory = larger;
    }
    bytes.copy(this.#memory, used);
  }

  #moveToFile(): void {
    const folder = this.#folder();
    if (folder === undefined) {
      this.#isShut = true;
      return;
    }
    const { bavail, bsize } = statfsSync(folder);
    if (Number.isFinite(this.#length) && bavail * bsize < this.#length + RESERVE_BYTES)
      throw Object.assign(new Error('no space for the body'), { code: 'ENOSPC', syscall: 'statfs' });
    this.#fd = openNameless(folder);
  }
}

/**
 * Opens a new private file for writing and reading. Where files without a name are not supported,
 * it is unlinked right away.
 */
function openNameless(folder: string): number {
  if (process.platform === 'linux') {
    try {
      return openSync(folder, constants.O_RDWR | O_TMPFILE, 0o600);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOTSUP' && code !== 'EISDIR' && code !== 'EINVAL') throw error;
    }
  }
  const path = join(folder, `.body-${process.pid}-${process.hrtime.bigint()}`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  return fd;
}
