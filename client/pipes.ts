// Passes a program's output to webjob through real pipes. Node gives a child a pair of sockets,
// which a program on Linux cannot reopen as /dev/stdout (ENXIO), and a file would be truncated by
// the program's own `> /dev/stdout`. Node cannot create pipes, but a FIFO that is unlinked while it
// is open is one.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { warn } from './failure.ts';
import { openGarbage } from './garbage.ts';

/**
 * Receives the output of a program in order. The buffer of `piece` may be reused after the call.
 */
export type Sink = (piece: Buffer) => void;

/** A pipe with one end for the program and the other for webjob. */
export interface Tap {
  /** The program's descriptor, as the stdio option of child_process takes it. */
  readonly stdio: number | 'pipe';
  /** Begins to read, after the program has started or has failed to start. Called once. */
  attach(stream: Readable | null): void;
  /**
   * Reads the current contents of the pipe and closes it, even if another process still holds the
   * write end.
   */
  drain(): Promise<void>;
}

const CHUNK_BYTES = 64 * 1024;

/** More than a pipe holds: any further bytes come from a process that outlives the program. */
const MOST_BYTES_LEFT = 16 * 1024 * 1024;

const SILENCE_MS = 100;
const LAST_WORDS_MS = 2_000;

/**
 * Opens two pipes for stdout and stderr. `folder` is a private directory, used if /dev/shm does not
 * support FIFOs.
 */
export function openTaps(sinks: readonly [Sink, Sink], folder: string): readonly [Tap, Tap] {
  const fifos = makeFifos(folder);
  const [out, err] = sinks;
  if (fifos) return [new FifoTap(fifos[0], out), new FifoTap(fifos[1], err)];
  if (process.platform === 'linux') warn('mkfifo failed: a program that opens /dev/stdout or /dev/stderr gets ENXIO');
  return [new SocketTap(out), new SocketTap(err)];
}

interface Fifo {
  reader: number;
  writer: number;
}

/**
 * Makes a FIFO for each stream, open at both ends and unlinked; undefined where FIFOs cannot be
 * made. Prefers memory, because NFS keeps a hidden file in the directory for each unlinked open
 * file.
 */
function makeFifos(folder: string): readonly [Fifo, Fifo] | undefined {
  if (process.platform === 'win32') return undefined;
  for (const place of ['/dev/shm', folder, tmpdir()]) {
    const fifos = tryMakeFifos(place);
    if (fifos) return fifos;
  }
  return undefined;
}

function tryMakeFifos(place: string): readonly [Fifo, Fifo] | undefined {
  let folder: string | undefined;
  const opened: number[] = [];
  try {
    folder = mkdtempSync(join(place, 'webjob-pipe-'));
    const [out, err] = [join(folder, 'out'), join(folder, 'err')];
    runMkfifo(out, err);
    return [openFifo(out, opened), openFifo(err, opened)];
  } catch {
    for (const fd of opened) closeSync(fd);
    return undefined;
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}

function runMkfifo(...paths: string[]): void {
  for (const command of ['/usr/bin/mkfifo', '/bin/mkfifo', 'mkfifo']) {
    // Without an environment, because setting up a locale costs as much as making two FIFOs.
    const { error } = spawnSync(command, ['-m', '600', ...paths], { stdio: ['inherit', 'inherit', 'ignore'], env: {} });
    if ((error as NodeJS.ErrnoException | undefined)?.code !== 'ENOENT') return;
  }
}

/**
 * Opens the reader first, without blocking, so that opening the writer does not block either. Adds
 * both descriptors to `opened`.
 */
function openFifo(path: string, opened: number[]): Fifo {
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  opened.push(reader);
  const writer = openSync(path, constants.O_WRONLY);
  opened.push(writer);
  return { reader, writer };
}

class FifoTap implements Tap {
  readonly stdio: number;
  readonly #reader: number;
  readonly #sink: Sink;
  /** One buffer for everything, including drain(), because gigabytes pass through it. */
  readonly #buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  #socket: Socket | undefined;

  constructor({ reader, writer }: Fifo, sink: Sink) {
    this.stdio = writer;
    this.#reader = reader;
    this.#sink = sink;
  }

  attach(): void {
    closeSync(this.stdio);
    const callback = (count: number): boolean => {
      this.#sink(this.#buffer.subarray(0, count));
      return true;
    };
    this.#socket = new Socket({
      fd: this.#reader,
      readable: true,
      writable: false,
      onread: { buffer: this.#buffer, callback },
    });
    this.#socket.on('error', () => {});
  }

  async drain(): Promise<void> {
    // When all writers have closed the pipe, the socket has already read everything and closed our
    // end.
    if (!this.#socket?.destroyed) this.#takeRest();
    this.#socket?.destroy();
  }

  #takeRest(): void {
    try {
      for (let left = MOST_BYTES_LEFT; left > 0; ) {
        const count = readSync(this.#reader, this.#buffer);
        if (count === 0) return;
        this.#sink(this.#buffer.subarray(0, count));
        left -= count;
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

/** A tap for Windows, and for systems without mkfifo. */
class SocketTap implements Tap {
  readonly stdio = 'pipe';
  readonly #sink: Sink;
  readonly #discard = openGarbage();
  #stream: Readable | null = null;
  #isOver: Promise<void> = Promise.resolve();
  #takenAt = 0;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  attach(stream: Readable | null): void {
    if (stream === null) return;
    this.#stream = stream;
    stream.on('data', (piece: Buffer) => {
      this.#takenAt = performance.now();
      this.#sink(piece);
      this.#discard(piece.length);
    });
    stream.on('error', () => {});
    this.#isOver = new Promise((resolve) => stream.once('close', () => resolve()));
  }

  /**
   * Waits for the last output. A socket does not show whether it is empty, so silence counts as the
   * end.
   */
  async drain(): Promise<void> {
    const end = performance.now() + LAST_WORDS_MS;
    this.#takenAt = performance.now();
    let isOver = false;
    const over = this.#isOver.then(() => {
      isOver = true;
    });
    while (!isOver && performance.now() < end && performance.now() - this.#takenAt < SILENCE_MS)
      await Promise.race([over, sleep(SILENCE_MS / 4)]);
    this.#stream?.destroy();
  }
}
