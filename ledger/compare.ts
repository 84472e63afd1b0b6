// Compares two streams of uploads with `diff -u`.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { Failure } from '../cli/failure.ts';
import type { StoredStream } from './streams.ts';

/** Receives text that consists of whole lines. */
export type WriteText = (text: string) => void | Promise<void>;

/**
 * Writes the output of `diff -u`. Returns false when the streams are the same. Throws Failure
 * `failed` when diff fails or exceeds `limitMs`; an error thrown by `write` stops it too.
 */
export async function compareStreams(
  streams: readonly [StoredStream, StoredStream],
  labels: [string, string],
  write: WriteText,
  limitMs?: number,
): Promise<boolean> {
  const from = await openAsFile(streams[0]);
  try {
    const to = await openAsFile(streams[1]);
    try {
      return await runDiff([from, to], labels, write, limitMs);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

/**
 * Opens a stream as a file: the file of the locker, or for an archive a copy that is unlinked as
 * soon as it is filled, so that a kill leaves nothing behind.
 */
export async function openAsFile(stream: StoredStream): Promise<number> {
  if (stream.open) return stream.open();
  const folder = mkdtempSync(join(tmpdir(), 'webjob-diff-'));
  let fd: number | undefined;
  try {
    fd = openSync(join(folder, 'stream'), 'wx+', 0o600);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  try {
    // Positioned writes leave the descriptor's offset at the beginning.
    let at = 0;
    for await (const piece of stream.read())
      for (let done = 0; done < piece.length; ) {
        const count = writeSync(fd, piece, done, piece.length - done, at);
        done += count;
        at += count;
      }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

async function runDiff(
  [from, to]: [number, number],
  labels: [string, string],
  write: WriteText,
  limitMs?: number,
): Promise<boolean> {
  const args = ['-u', '-L', labels[0], '-L', labels[1], '--', '/dev/fd/3', '/dev/fd/4'];
  const child = spawn('diff', args, { stdio: ['ignore', 'pipe', 'pipe', from, to], timeout: limitMs });
  try {
    const closed = once(child, 'close');
    const passed = passLines(child.stdout, write).catch((error) => {
      child.kill();
      throw error;
    });
    const [, problem, [code, signal]] = await Promise.all([passed, readAll(child.stderr), closed]);
    if (signal !== null) throw new Failure('failed', 'diff took too long');
    if (code !== 0 && code !== 1)
      throw new Failure('failed', `diff failed: ${problem.trim() || `exit status ${code}`}`);
    return code === 1;
  } catch (error) {
    const { code, syscall = '' } = error as NodeJS.ErrnoException;
    if (!syscall.startsWith('spawn')) throw error;
    throw new Failure('failed', `diff cannot be started: ${code}`, undefined, { cause: error });
  }
}

/** The maximum length of a line; longer lines are written in pieces. */
const MAX_LINE_LENGTH = 1024 * 1024;

/** Passes whole lines on, many at a time, without holding all of the output. */
async function passLines(stream: AsyncIterable<Buffer> | null, write: WriteText): Promise<void> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  for await (const piece of stream ?? []) {
    rest += decoder.write(piece);
    const end = rest.length > MAX_LINE_LENGTH ? rest.length : rest.lastIndexOf('\n') + 1;
    if (end > 0) await write(rest.slice(0, end));
    rest = rest.slice(end);
  }
  rest += decoder.end();
  if (rest !== '') await write(rest);
}

async function readAll(stream: AsyncIterable<Buffer> | null): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream ?? []) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}
