// Writes the output of a program to a file, which is then sent to the server. The hash and the
// length in the run record describe the bytes in the file, even if the disk took fewer than the
// program wrote.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { codeOf } from './failure.ts';

export interface Captured {
  fd: number;
  length: number;
}

/** Captures an open file at its current length. */
export function takeLength(fd: number): Captured {
  return { fd, length: fstatSync(fd).size };
}

const CHUNK_BYTES = 64 * 1024;

/**
 * Yields the captured bytes piece by piece in one reused buffer, so that gigabytes need no more
 * memory than one piece. A piece must not be used after the next one was requested. Throws Error
 * when the file has become shorter.
 */
export function* readCaptured({ fd, length }: Captured): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, length));
  for (let at = 0; at < length; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, length - at), at);
    if (count === 0) throw new Error('the output became shorter while it was read');
    at += count;
    yield buffer.subarray(0, count);
  }
}

/** The digest of captured bytes in lower-case hex. */
export function hashCaptured(type: string, captured: Captured): string {
  const hash = createHash(type.toLowerCase());
  for (const piece of readCaptured(captured)) hash.update(piece);
  return hash.digest('hex');
}

/**
 * A file that is written through one descriptor and read through another, which stays valid after
 * the file is unlinked.
 */
interface OpenFile {
  writer: number;
  reader: number;
}

/** A second file with the bytes captured so far. */
interface Copy {
  /** Continues the capture in the copy. */
  use(): void;
  /** Discards the copy. */
  close(): void;
}

/** Creates the file. Throws the error of the system call. */
function openFile(path: string): OpenFile {
  const writer = openSync(path, 'wx', 0o600);
  try {
    return { writer, reader: openSync(path, 'r') };
  } catch (error) {
    closeSync(writer);
    throw error;
  }
}

interface CaptureOptions {
  /** The value of HashType. */
  hashType: string;
  /** Whether to compute the SHA-256 too. */
  isSigned: boolean;
  /**
   * Called when a write fails. Returns true when the capture has moved to another file, where it
   * continues.
   */
  onFailure: (code: string) => boolean;
}

/**
 * The capture of one stream of a program in a file. When the file accepts no more data, the rest is
 * counted and discarded.
 */
export class Capture {
  readonly stream: 'stdout' | 'stderr';
  readonly #hashType: string;
  /** Whether the SHA-256 is computed too. */
  readonly #isSigned: boolean;
  /**
   * Called when a write fails. Returns true when the capture has moved to another file, where it
   * continues.
   */
  readonly #onFailure: (code: string) => boolean;
  #hash: Hash;
  #sha256: Hash | undefined;
  #file: OpenFile;
  #written = 0;
  #kept = 0;
  /** The error that ended the capture. */
  #failure: string | undefined;
  #digest: string | undefined;
  #sha256Digest: string | undefined;

  /** Creates the file at `path`. Throws the error of the system call. */
  constructor(stream: 'stdout' | 'stderr', path: string, { hashType, isSigned, onFailure }: CaptureOptions) {
    this.stream = stream;
    this.#hashType = hashType.toLowerCase();
    this.#isSigned = isSigned;
    this.#hash = createHash(this.#hashType);
    if (isSigned && this.#hashType !== 'sha256') this.#sha256 = createHash('sha256');
    this.#onFailure = onFailure;
    this.#file = openFile(path);
  }

  /** Writes a piece of the program's output. */
  take(piece: Buffer): void {
    this.#written += piece.length;
    for (let at = 0; at < piece.length && this.#failure === undefined; ) at += this.#write(piece.subarray(at));
  }

  /** Writes a piece; returns the number of bytes that were written. */
  #write(piece: Buffer): number {
    try {
      const count = writeSync(this.#file.writer, piece);
      const written = count === piece.length ? piece : piece.subarray(0, count);
      this.#hash.update(written);
      this.#sha256?.update(written);
      this.#kept += count;
      return count;
    } catch (error) {
      const code = codeOf(error);
      if (!this.#onFailure(code)) this.#failure = code;
      return 0;
    }
  }

  /**
   * Copies the captured bytes to `path`; nothing changes until `use()`. Throws the error of the
   * system call.
   */
  copyTo(path: string): Copy {
    const copy = openFile(path);
    try {
      for (const piece of readCaptured(this.captured)) writeAll(copy.writer, piece);
    } catch (error) {
      closeFile(copy);
      throw error;
    }
    return {
      use: () => {
        this.close();
        this.#file = copy;
      },
      close: () => closeFile(copy),
    };
  }

  /**
   * Ends the capture; with `durably`, syncs the file to disk. After a failed sync or close, only
   * the bytes that the file still contains count as captured.
   */
  finish(durably: boolean): void {
    const fd = this.#file.writer;
    this.#file.writer = -1;
    this.#digest ??= this.#hash.digest('hex');
    this.#sha256Digest ??= this.#isSigned ? (this.#sha256?.digest('hex') ?? this.#digest) : undefined;
    if (fd < 0) return;
    for (const step of [() => durably && fsyncSync(fd), () => closeSync(fd)]) {
      try {
        step();
      } catch (error) {
        this.#failure ??= `${codeOf(error)} in ${(error as NodeJS.ErrnoException).syscall}`;
        this.#takeWhatIsThere();
      }
    }
  }

  /**
   * Measures and hashes the file again, because after a failed sync only the file itself shows how
   * much it contains.
   */
  #takeWhatIsThere(): void {
    this.#kept = Math.min(this.#kept, fstatSync(this.#file.reader).size);
    this.#digest = hashCaptured(this.#hashType, this.captured);
    if (this.#isSigned) this.#sha256Digest = hashCaptured('SHA256', this.captured);
  }

  get captured(): Captured {
    return { fd: this.#file.reader, length: this.#kept };
  }

  /** The digest of the finished file in lower-case hex, by HashType. */
  get digest(): string {
    return this.#digest ?? '';
  }

  /** The size and SHA-256 of the finished file; the SHA-256 is empty unless it was requested. */
  get facts(): { bytes: number; sha256: string } {
    return { bytes: this.#kept, sha256: this.#sha256Digest ?? '' };
  }

  /** The text for RunError when the stream is incomplete; otherwise undefined. */
  get trouble(): string | undefined {
    if (this.#failure === undefined) return undefined;
    return `printed ${this.#written} bytes to ${this.stream}, of which ${this.#kept} were kept: ${this.#failure}`;
  }

  /** Reopens the finished file at its new path for reading. Throws the error of the system call. */
  reopen(path: string): void {
    this.#file = { writer: -1, reader: openSync(path, 'r') };
  }

  /**
   * Reads from now on from another complete file, which has replaced this one. Throws the error of
   * the system call.
   */
  becomes(path: string): void {
    this.close();
    this.reopen(path);
    this.#kept = fstatSync(this.#file.reader).size;
  }

  /** Closes the file, because some file systems cannot remove an open one. */
  close(): void {
    closeFile(this.#file);
    this.#file = { writer: -1, reader: -1 };
  }
}

/** Writes all bytes. Throws the error of the system call. */
export function writeAll(fd: number, piece: Buffer): void {
  for (let at = 0; at < piece.length; ) at += writeSync(fd, piece, at);
}

function closeFile({ writer, reader }: OpenFile): void {
  for (const fd of [writer, reader]) {
    try {
      if (fd >= 0) closeSync(fd);
    } catch {
      // The descriptor is closed even then, and the contents are already copied or delivered.
    }
  }
}
