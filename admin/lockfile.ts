// One writer at a time for files that have no lock of their own: the user file and the CA. A lock whose process is gone counts for nothing.
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { Failure } from './failure.ts';
import { errorCode } from './files.ts';

const WAIT_MS = 20_000;

/** Runs `work` under PATH.lock, which it waits for. Throws Failure `failed` when another process holds it for 20 seconds. */
export function withLock<Type>(path: string, work: () => Type): Type {
  const lock = `${path}.lock`;
  takeLock(lock);
  try {
    return work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function takeLock(lock: string): void {
  const own = `${lock}.${process.pid}`;
  writeFileSync(own, `${process.pid}\n`);
  try {
    for (const deadline = Date.now() + WAIT_MS; !tryLock(lock, own); ) {
      const holder = readHolder(lock);
      if (holder !== undefined && !isAlive(holder)) takeAway(lock, holder);
      else if (Date.now() > deadline) throw new Failure('failed', `${lock} is held by process ${holder}`);
      else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  } finally {
    rmSync(own, { force: true });
  }
}

/** A link is there whole or not at all: nobody reads a lock without its pid. */
function tryLock(lock: string, own: string): boolean {
  try {
    linkSync(own, lock);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Undefined when it is gone by now. */
function readHolder(lock: string): number | undefined {
  try {
    return Number(readFileSync(lock, 'utf8'));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}

/** Aside first: between the look and now it may have become another's, who gets it back. */
function takeAway(lock: string, holder: number): void {
  const aside = `${lock}.stale.${process.pid}`;
  try {
    renameSync(lock, aside);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return;
    throw error;
  }
  if (readHolder(aside) === holder) rmSync(aside);
  else renameSync(aside, lock);
}
