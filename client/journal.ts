// JournalFile: one line for each delivery and its answer, chained to all earlier lines, to prove
// that a server acknowledged an upload that it later dropped (docs/protocol.md, section 9).
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, fsyncSync, openSync, readSync, type Stats, writeSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type ChainedFacts, NOT_APPLICABLE, nextChained, parseRecord } from 'webjob-protocol';
import { type Captured, hashCaptured } from './captured.ts';
import { codeOf, warn } from './failure.ts';
import { printable } from './status.ts';
import type { Streams, UploadFacts } from './upload.ts';

/** The delivery of a job to a server, including its retries. */
export interface Delivery {
  facts: UploadFacts;
  url: URL;
  startedAt: Date;
  tries: number;
  /** The last answer whose header arrived. */
  answer: { status: number; reason: string } | undefined;
  /** Why the job was not delivered. */
  error: string | undefined;
}

/**
 * Appends the line of a delivery to a journal; the line is on disk when this returns. A failure is
 * only a warning, because the job itself is not affected.
 */
export function writeJournal(journalFile: string, delivery: Delivery, streams: Streams): void {
  const path = resolve(journalFile);
  try {
    append(path, factsOf(delivery, streams));
  } catch (error) {
    warn(`JournalFile: ${path} has no line of this delivery: ${codeOf(error)}`);
  }
}

function factsOf({ facts, url, startedAt, tries, answer, error }: Delivery, streams: Streams): ChainedFacts {
  const { out, err, env } = streams;
  return {
    time: new Date(),
    event: 'put',
    pid: process.pid,
    jobId: facts.jobId ?? NOT_APPLICABLE,
    clientId: facts.clientId,
    fileName: facts.fileName,
    runType: facts.runType,
    epochs: epochsOf(env),
    bytes: { out: out.length, err: err.length, env: env.length },
    sha256: { out: sha256Of(out), err: sha256Of(err), env: newHash().update(env).digest('hex') },
    url: url.origin + url.pathname,
    startedAt,
    tries,
    status: answer?.status,
    reason: answer && printable(answer.reason),
    isAcknowledged: error === undefined,
    error: error && printable(error),
  };
}

function newHash() {
  return createHash('sha256');
}

function sha256Of(captured: Captured): string {
  return hashCaptured('SHA256', captured);
}

/** Reads the times from a run record; undefined for a malformed record. */
function epochsOf(env: Buffer): Record<'job' | 'get' | 'run' | 'put', string> | undefined {
  try {
    const { JobEpoch: job, GetEpoch: get, RunEpoch: run, PutEpoch: put } = parseRecord(env.toString()).fields;
    return { job, get, run, put };
  } catch {
    return undefined;
  }
}

const { O_APPEND, O_CREAT, O_NOFOLLOW = 0, O_NONBLOCK = 0, O_RDWR } = constants;

function append(path: string, facts: ChainedFacts): void {
  // Does not follow a symbolic link, and does not block on a FIFO.
  const fd = openSync(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  try {
    const found = fstatSync(fd);
    checkOwn(found);
    if (found.size === 0) syncFolder(dirname(path));
    const read = (buffer: Uint8Array, offset: number): number => readSync(fd, buffer, 0, buffer.length, offset);
    const bytes = nextChained({ size: found.size, read }, facts, newHash);
    if (writeSync(fd, bytes) < bytes.length) throw new Error('the disk is full');
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Refuses to write to another user's file or to a file with several links. */
function checkOwn(found: Stats): void {
  if (!found.isFile() || found.nlink !== 1) throw new Error('it is not a file, or has several links');
  if (process.platform === 'win32') return;
  if (found.uid !== process.geteuid?.()) throw new Error('it belongs to another user');
  if ((found.mode & 0o022) !== 0) throw new Error('others can write to it');
}

/**
 * Syncs the directory of a new file, so that its name is on disk. A file system that does not
 * support this (EINVAL) does not need it, and Windows cannot open directories.
 */
function syncFolder(path: string): void {
  if (process.platform === 'win32') return;
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  } finally {
    closeSync(fd);
  }
}
