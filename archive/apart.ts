// Reads a large upload of an archive in a separate thread while the main thread waits: zlib expands
// data piece by piece only asynchronously, and verdicts are computed synchronously.
import { Worker } from 'node:worker_threads';
import { Failure } from '../cli/failure.ts';

/** A range of a file with gzip members, which expand to pieces of these sizes. */
export interface Pieces {
  file: string;
  offset: number;
  length: number;
  sizes: readonly number[];
  /** The index of the piece whose content is wanted, and the maximum number of bytes of it. */
  kept: number;
  keptBytes: number;
}

/** The digests of all pieces, and the content of one. */
export interface Digests {
  /** SHA-256 of each piece, in lower-case hex. */
  sha256: string[];
  kept: Buffer;
}

type Answer = { sha256: string[]; kept: string } | { code: string | undefined; message: string };
type Task = Pieces & { shared: SharedArrayBuffer };

/** The numbers before an answer: its length, and a counter of progress. */
const WORDS = 2;
const WORD_BYTES = Int32Array.BYTES_PER_ELEMENT;
/** Space for digests and a message, besides the content in base64. */
const ROOM_BYTES = 64 * 1024;
/** A disk that delivers nothing for this long is considered broken. */
const PATIENCE_MS = 60_000;

/**
 * Digests pieces. Throws the error of a system call with its code, and Failure `failed` for a
 * thread without progress.
 */
export function digestPieces(pieces: Pieces): Digests {
  const shared = new SharedArrayBuffer(WORDS * WORD_BYTES + ROOM_BYTES + 2 * pieces.keptBytes);
  const [state, bytes] = [new Int32Array(shared, 0, WORDS), new Uint8Array(shared, WORDS * WORD_BYTES)];
  const thread = new Worker(`(${digestApart.toString()})()`, {
    eval: true,
    workerData: { ...pieces, shared } satisfies Task,
  });
  thread.unref();
  for (let seen = -1; Atomics.load(state, 0) === 0; seen = Atomics.load(state, 1)) {
    const isQuiet = Atomics.wait(state, 0, 0, PATIENCE_MS) === 'timed-out' && Atomics.load(state, 1) === seen;
    if (isQuiet) throw new Failure('failed', `${pieces.file} cannot be read: no data arrives`);
  }
  const answer: Answer = JSON.parse(Buffer.from(bytes.slice(0, Atomics.load(state, 0))).toString());
  if ('message' in answer) throw Object.assign(new Error(answer.message), answer.code && { code: answer.code });
  return { sha256: answer.sha256, kept: Buffer.from(answer.kept, 'base64') };
}

/**
 * The code of the thread. The thread gets only the text of this function, which therefore may use
 * nothing of this file but types.
 */
async function digestApart(): Promise<void> {
  const { workerData } = process.getBuiltinModule('node:worker_threads');
  const { createReadStream } = process.getBuiltinModule('node:fs');
  const { createHash } = process.getBuiltinModule('node:crypto');
  const { createGunzip } = process.getBuiltinModule('node:zlib');
  const { file, offset, length, sizes, kept, keptBytes, shared } = workerData as Task;
  const state = new Int32Array(shared, 0, 2);
  const tell = (answer: Answer): void => {
    const bytes = Buffer.from(JSON.stringify(answer));
    new Uint8Array(shared, state.byteLength).set(bytes);
    Atomics.store(state, 0, bytes.length);
    Atomics.notify(state, 0);
  };
  try {
    const source = createReadStream(file, { start: offset, end: offset + length - 1 });
    const gunzip = createGunzip();
    source.on('error', (error) => gunzip.destroy(error));
    const sha256: string[] = [];
    const parts: Buffer[] = [];
    let [hash, left, room] = [createHash('sha256'), sizes[0] ?? 0, keptBytes];
    const endPieces = (): void => {
      while (left === 0 && sha256.length < sizes.length) {
        sha256.push(hash.digest('hex'));
        [hash, left] = [createHash('sha256'), sizes[sha256.length] ?? 0];
      }
    };
    for await (const chunk of source.pipe(gunzip) as AsyncIterable<Buffer>) {
      Atomics.add(state, 1, 1);
      endPieces();
      for (let at = 0; at < chunk.length && sha256.length < sizes.length; endPieces()) {
        const piece = chunk.subarray(at, at + left);
        hash.update(piece);
        if (sha256.length === kept && room > 0) parts.push(piece.subarray(0, room));
        if (sha256.length === kept) room -= Math.min(room, piece.length);
        [at, left] = [at + piece.length, left - piece.length];
      }
    }
    endPieces();
    if (sha256.length < sizes.length) throw new Error('it ends early');
    tell({ sha256, kept: Buffer.concat(parts).toString('base64') });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    tell({ code, message });
  }
}
