// One upload on its way into the locker. The process may be killed between any two lines, and the disk may be full at any
// of them: a `.rdy` file never stands beside streams that are not complete and on disk (docs/protocol.md, section 5).
import { closeSync, fstatSync, lstatSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { makeFolder, openNew, syncFile, syncFolder, writeAll } from './durable.ts';
import { failureOf, LockerFailure } from './failure.ts';
import { formatReady, type GroupPaths, groupPaths, STREAMS, type StreamName, successorPath } from './layout.ts';
import { isHeld, type Lock, releaseLock, takeLock } from './lock.ts';

/** What is to be stored, and where. */
export interface DepositPlan {
  /** Absolute path of the group without an extension; folders that are missing are made. */
  base: string;
  jobId: string;
  /** Bytes of each stream. */
  lengths: Readonly<Record<StreamName, number>>;
  /** Replace a group of that name; it stays whole until its successor is complete. */
  overwrite: boolean;
}

/** Where the bytes come from: fills the start of `buffer`, returns how many; 0 is the end, early or not. */
export interface ByteSource {
  read(buffer: Uint8Array): number;
}

interface Deposit {
  plan: DepositPlan;
  paths: GroupPaths;
  folder: string;
  lock: Lock;
  /** A group of that name stands already: the new streams lie beside it until they are complete. */
  replaces: boolean;
  /** Streams to remove when the disk is full: those created so far, until the group that they replace is given up for them. */
  created: string[];
}

/** What must stay free on the file system for the web server, its logs and the small files of a group. */
const RESERVE_BYTES = 1024 * 1024;
const RESERVE_INODES = 8;
const CHUNK_BYTES = 256 * 1024;

/**
 * Stores one upload: takes the name, receives the three streams, puts them on disk, and announces them with `.rdy`. When it
 * returns, everything is on disk. `beforeReady` runs on the complete files before they are announced; what it throws passes
 * through. Throws LockerFailure:
 * - `exists`: nothing was touched;
 * - `short`, `failed`: what arrived stays under its name, without `.rdy`;
 * - `full`: nothing of this upload is left, so that the room it took is free again. Only when a group that it replaces has lost its
 *   `.rdy` already, the streams of both stay.
 */
export function storeUpload(plan: DepositPlan, source: ByteSource, beforeReady?: (paths: GroupPaths) => void): void {
  const deposit = openDeposit(plan);
  try {
    receiveStreams(deposit, source);
    placeStreams(deposit);
    beforeReady?.(deposit.paths);
    announce(deposit);
  } catch (error) {
    const failure = failureOf(error);
    if (failure.kind === 'full') removeStreams(deposit);
    throw failure;
  } finally {
    releaseLock(deposit.lock);
  }
}

function openDeposit(plan: DepositPlan): Deposit {
  const paths = groupPaths(plan.base);
  const folder = dirname(plan.base);
  try {
    makeFolder(folder);
    const lock = takeLock(paths, formatReady(plan.jobId));
    try {
      const replaces = [paths.out, paths.err, paths.env, paths.rdy].some(isTaken);
      if (replaces && !plan.overwrite) throw new LockerFailure('exists', 'a file of this name exists');
      checkRoom(folder, plan.lengths);
      return { plan, paths, folder, lock, replaces, created: [] };
    } catch (error) {
      releaseLock(lock);
      throw error;
    }
  } catch (error) {
    throw failureOf(error);
  }
}

/** Refuses an upload that cannot fit before its first byte is stored. */
function checkRoom(folder: string, lengths: DepositPlan['lengths']): void {
  const disk = statfsSync(folder);
  const needed = lengths.out + lengths.err + lengths.env + RESERVE_BYTES;
  if (disk.bavail * disk.bsize < needed) throw new LockerFailure('full', 'not enough room');
  // File systems that make inodes as they go report none at all.
  if (disk.files > 0 && disk.ffree < RESERVE_INODES) throw new LockerFailure('full', 'no inodes left');
}

function receiveStreams(deposit: Deposit, source: ByteSource): void {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  const opened: number[] = [];
  try {
    for (const name of STREAMS) {
      const path = streamPath(deposit, name);
      if (deposit.replaces) rmSync(path, { force: true });
      const fd = openNew(path);
      opened.push(fd);
      deposit.created.push(path);
      copyExactly(source, fd, deposit.plan.lengths[name], buffer);
    }
    // All together at the end: a journal writes the new files of all of them in one go, where each by itself would have to wait for it.
    for (const fd of [deposit.lock.fd, ...opened]) syncFile(fd);
  } finally {
    closeAll(opened);
  }
}

/** All of them, also when one cannot be closed well. */
function closeAll([fd, ...others]: number[]): void {
  if (fd === undefined) return;
  try {
    closeSync(fd);
  } finally {
    closeAll(others);
  }
}

function copyExactly(source: ByteSource, fd: number, length: number, buffer: Buffer): void {
  for (let left = length; left > 0; ) {
    const count = source.read(left < buffer.length ? buffer.subarray(0, left) : buffer);
    if (count === 0) throw new LockerFailure('short', 'the body ended early');
    writeAll(fd, buffer.subarray(0, count));
    left -= count;
  }
}

/** Gives the complete streams their names. A group that is replaced loses its `.rdy`, on disk, before its streams. */
function placeStreams(deposit: Deposit): void {
  const { paths, folder } = deposit;
  if (deposit.replaces) {
    rmSync(paths.rdy, { force: true });
    deposit.created = [];
    syncFolder(folder);
    for (const name of STREAMS) renameSync(streamPath(deposit, name), paths[name]);
  }
  syncFolder(folder);
}

/** Turns the lock into the `.rdy` file: both hold the same line, so one rename ends the one and makes the other. */
function announce(deposit: Deposit): void {
  const { lock, paths, folder } = deposit;
  // An original server that comes for this name empties the lock before it sees that the name is taken.
  if (fstatSync(lock.fd).size === 0) {
    writeSync(lock.fd, formatReady(deposit.plan.jobId), 0);
    syncFile(lock.fd);
  }
  if (!isHeld(lock)) throw new LockerFailure('failed', 'the lock was taken away');
  renameSync(lock.path, paths.rdy);
  try {
    syncFolder(folder);
  } catch (error) {
    // The client is told that it failed, so the group must not look as if it had not.
    rmSync(paths.rdy, { force: true });
    throw error;
  }
}

function streamPath(deposit: Deposit, name: StreamName): string {
  return deposit.replaces ? successorPath(deposit.paths[name]) : deposit.paths[name];
}

function removeStreams(deposit: Deposit): void {
  for (const path of deposit.created) rmSync(path, { force: true });
}

/** A link that leads nowhere also takes the name. */
function isTaken(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
