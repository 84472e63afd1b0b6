// How a program's output comes to webjob: through a real pipe. What Node gives a child is a pair of sockets,
// which a program on Linux cannot open again by the name of /dev/stdout (ENXIO); and a file would be emptied by
// the program's own `> /dev/stdout`. Node makes no pipe, but a FIFO that is unlinked while it is open is one.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { warn } from './failure.ts';
import { openGarbage } from './garbage.ts';

/** Takes what a program writes, in order; it is done with a piece when it returns. */
export type Sink = (piece: Buffer) => void;

/** One end for the program, the other for us. */
export interface Tap {
  /** What the program gets as its descriptor, in the words of child_process. */
  readonly stdio: number | 'pipe';
  /** Begins to read: the program has its end, or there is none. Called once, also after a start that failed. */
  attach(stream: Readable | null): void;
  /** Takes what is in the pipe at this moment and closes it, whoever still holds the other end. */
  drain(): Promise<void>;
}

const CHUNK_BYTES = 64 * 1024;

/** More than a pipe holds: what comes behind it was written by a process that outlives the program. */
const MOST_BYTES_LEFT = 16 * 1024 * 1024;

const SILENCE_MS = 100;
const LAST_WORDS_MS = 2_000;

/** Two pipes for stdout and stderr. `folder` is private to us, for where nothing else takes a FIFO. */
export function openTaps(sinks: readonly [Sink, Sink], folder: string): readonly [Tap, Tap] {
  const fifos = makeFifos(folder);
  const [out, err] = sinks;
  if (fifos) return [new FifoTap(fifos[0], out), new FifoTap(fifos[1], err)];
  if (process.platform === 'linux') warn('mkfifo fails: a program that opens /dev/stdout or /dev/stderr gets ENXIO');
  return [new SocketTap(out), new SocketTap(err)];
}

interface Fifo {
  reader: number;
  writer: number;
}

/**
 * A FIFO for each stream, open at both ends and without a name. In memory where there is a file system for that:
 * on NFS a file that is open leaves another one in its folder. Undefined where none can be made.
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
    // Without an environment: to set up a locale costs as much as to make two FIFOs.
    const { error } = spawnSync(command, ['-m', '600', ...paths], { stdio: ['inherit', 'inherit', 'ignore'], env: {} });
    if ((error as NodeJS.ErrnoException | undefined)?.code !== 'ENOENT') return;
  }
}

/** The reader first, which waits for nobody; then the writer finds one. Each goes into `opened`. */
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
  /** One buffer for everything, also in `drain`: gigabytes pass through it. */
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
      ...{ fd: this.#reader, readable: true, writable: false },
      onread: { buffer: this.#buffer, callback },
    });
    this.#socket.on('error', () => {});
  }

  async drain(): Promise<void> {
    // Where every writer has closed its end, the socket has found out and closed ours.
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

/** Windows, and systems without mkfifo. */
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

  /** A socket does not say that it holds nothing: silence must do. */
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
