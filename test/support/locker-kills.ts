// Uploads that are killed: the body is sent in pieces, and SIGKILL comes at a chosen moment of the
// process's life.
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { groupPaths } from '../../cgi/locker/index.ts';
import type { Site } from '../../scripts/site.ts';
import { spawnBare } from './bare.ts';
import { bareOptions, baseOf, parsePut, statusOf, type Upload } from './locker-upload.ts';

const TIME_LIMIT_MS = 60_000;

/**
 * When to kill: this many milliseconds after the start (0), or after this many pieces of the body
 * were sent.
 */
export interface KillMoment {
  afterPiece: number;
  milliseconds: number;
}

/** How a body arrives. */
export interface Feeding {
  pieces: number;
  /** The delay between two pieces. */
  pauseMilliseconds: number;
}

export interface Life {
  /** The status of the answer; undefined without one. */
  status: number | undefined;
  killed: boolean;
  stderr: string;
  /**
   * The duration in milliseconds until the name is taken, and from the last byte of the body to the
   * end.
   */
  start: number;
  tail: number;
}

/**
 * Sends an upload piece by piece and kills the process at the given moment, or not at all. The body
 * starts when the script has taken its name, so that a moment counted from a piece is during the
 * work and not during the start of the process.
 */
export async function uploadInPieces(
  site: Site,
  upload: Upload,
  { pieces, pauseMilliseconds }: Feeding,
  moment: KillMoment | undefined,
): Promise<Life> {
  const request = parsePut(upload);
  const started = performance.now();
  const child = spawnBare(request, bareOptions(site));
  const life = watch(child);
  if (moment?.afterPiece === 0) scheduleKill(child, moment.milliseconds);
  const { lck, rdy } = groupPaths(baseOf(site, upload.name));
  while (!hasEnded(child) && !existsSync(lck)) {
    if (existsSync(rdy)) {
      child.kill('SIGKILL');
      await life;
      throw new Error(`${upload.name}: announced before its body was sent`);
    }
    await sleep(1);
  }
  const named = performance.now();
  const size = Math.ceil(request.body.length / pieces);
  for (let piece = 1; piece <= pieces && !hasEnded(child); piece += 1) {
    await hand(child, request.body.subarray((piece - 1) * size, piece * size));
    if (moment?.afterPiece === piece) scheduleKill(child, moment.milliseconds);
    if (piece < pieces) await sleep(pauseMilliseconds);
  }
  const handedOver = performance.now();
  child.stdin?.end();
  const { ended, ...rest } = await life;
  return { ...rest, start: named - started, tail: ended - handedOver };
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Not awaited by the sender, because a kill may come while a write waits for its reader. */
function scheduleKill(child: ChildProcess, milliseconds: number): void {
  sleep(milliseconds).then(() => child.kill('SIGKILL'));
}

/** Sends one piece and waits until the pipe has taken it, or the reader is gone. */
function hand(child: ChildProcess, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.stdin?.write(bytes, () => resolve());
  });
}

function watch(child: ChildProcess): Promise<Omit<Life, 'start' | 'tail'> & { ended: number }> {
  const out: Buffer[] = [];
  let stderr = '';
  child.stdout?.on('data', (chunk) => out.push(chunk));
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`the script did not end within ${TIME_LIMIT_MS / 1000} s`));
    }, TIME_LIMIT_MS);
    child.on('error', reject);
    child.on('close', (_, signal) => {
      clearTimeout(timer);
      resolve({ status: statusOf(Buffer.concat(out)), killed: signal === 'SIGKILL', stderr, ended: performance.now() });
    });
  });
}

/** Numbers between 0 and 1 determined by a seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Calls `work` for every item, with limited concurrency. */
export async function inParallel<Item>(
  items: readonly Item[],
  width: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}
