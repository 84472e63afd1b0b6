// Counts how much of a server a client uses, in files in a directory for each client: a slot for
// each running request, and a record of the uploads of each day. No process waits for another, and
// a killed one leaves nothing that others could misread.
//
//   slot-<ServerId>-<n>       a symbolic link to `<pid>-<start>`, which appears together with its
//                             content, and takes a name only when it is free
//   day-<yyyymmdd>-<ServerId> lines of equal length, each appended by one write (O_APPEND)
//
// Every server has files of its own, because a process id means nothing on another machine and
// O_APPEND orders the writers of one machine only.
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { LockerFailure } from './failure.ts';
import { removeDeadLock } from './lock.ts';
import { isAlive, startOf } from './processes.ts';

/** A slot, held until it is released. */
export interface Slot {
  /** Frees the slot. Never throws, because it is called on every exit path. */
  release(): void;
}

let holder: string | undefined;

/**
 * Takes one of the first `limit` slots of a client on a server; undefined when living processes
 * hold all of them. Creates the client's directory, but not its parent. Throws the errors of system
 * calls.
 */
export function takeSlot(folder: string, serverId: string, limit: number): Slot | undefined {
  holder ??= `${process.pid}-${startOf(process.pid)}`;
  for (let number = 0; number < limit; number += 1) {
    const path = `${folder}/slot-${serverId}-${number}`;
    if (tryLink(holder, path) || takeFromDead(holder, path)) return { release: () => remove(path) };
  }
  return undefined;
}

function tryLink(target: string, path: string): boolean {
  return inFolder(path, () => {
    try {
      symlinkSync(target, path);
      return true;
    } catch (error) {
      if (codeOf(error) === 'EEXIST') return false;
      throw error;
    }
  });
}

function takeFromDead(target: string, path: string): boolean {
  if (!isDeadSlot(path)) return false;
  removeDeadLock(path, isDeadSlot);
  return tryLink(target, path);
}

/** Whether the process that took a slot is alive. Only the machine of that process can tell. */
export function holdsSlot(path: string): boolean {
  return !isDeadSlot(path);
}

/**
 * Whether the process that took the slot has ended, or the slot no longer exists. A link of another
 * form also counts as dead, because no process can be asked about it.
 */
function isDeadSlot(path: string): boolean {
  try {
    const [, pid, start] = /^(\d{1,10})-(\d{1,20})$/.exec(readlinkSync(path)) ?? [];
    return pid !== undefined && (!isAlive(Number(pid)) || startOf(Number(pid)) !== start);
  } catch (error) {
    return codeOf(error) === 'ENOENT';
  }
}

/** Does the work; if the directory of `path` is missing, creates it and does the work again. */
function inFolder<Result>(path: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  try {
    mkdirSync(path.slice(0, path.lastIndexOf('/')), 0o755);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  }
  return work();
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // The file system no longer answers, or another process has removed the slot.
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** The counts of uploads. */
export interface Use {
  bytes: number;
  uploads: number;
}

/** The count of an upload, made before it is stored. */
export interface Reservation {
  /** Subtracts the bytes that were not stored. Throws the errors of system calls. */
  giveBack(unused: Use): void;
  close(): void;
}

/**
 * Counts an upload of `bytes` bytes for a client and a day (`20261130`) before it is stored.
 * Returns the limit that it would exceed; 0 means no limit. Of concurrent uploads, each counts
 * those whose lines precede its own, so that never too little is counted. Removes the records of
 * days before `oldest`. Throws LockerFailure `full`, and the errors of system calls.
 */
export function reserve(
  folder: string,
  { day, oldest, serverId }: { day: string; oldest: string; serverId: string },
  bytes: number,
  limits: Use,
): Reservation | keyof Use {
  const path = `${folder}/day-${day}-${serverId}`;
  const fd = inFolder(path, () => openSync(path, 'a+', 0o644));
  try {
    const before = readView(fd);
    const problem = findExceeded(add(before.sum, sumOthers(folder, day, serverId, oldest)), bytes, limits);
    if (problem) return closed(fd, problem);
    append(fd, before, { bytes, uploads: 1 });
    // Lines that were appended after the record was read and before our line count first. Of two
    // servers, the one that reads later sees both lines.
    const ahead = sumAhead(fd, before);
    const late = findExceeded(add(ahead, sumOthers(folder, day, serverId, oldest)), bytes, limits);
    if (!late) return { giveBack: (unused) => giveBack(fd, unused), close: () => closeSync(fd) };
    giveBack(fd, { bytes, uploads: 1 });
    return closed(fd, late);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function closed(fd: number, problem: keyof Use): keyof Use {
  closeSync(fd);
  return problem;
}

function giveBack(fd: number, { bytes, uploads }: Use): void {
  if (bytes > 0 || uploads > 0) append(fd, readView(fd), { bytes: -bytes, uploads: -uploads });
}

function findExceeded(sum: Use, bytes: number, limits: Use): keyof Use | undefined {
  if (limits.uploads > 0 && sum.uploads + 1 > limits.uploads) return 'uploads';
  return limits.bytes > 0 && sum.bytes + bytes > limits.bytes ? 'bytes' : undefined;
}

function add(one: Use, other: Use): Use {
  return { bytes: one.bytes + other.bytes, uploads: one.uploads + other.uploads };
}

/** The counts of the other servers of the locker on that day. */
function sumOthers(folder: string, day: string, serverId: string, oldest: string): Use {
  let sum: Use = { bytes: 0, uploads: 0 };
  for (const name of readdirSync(folder)) {
    const [, of, server] = /^day-(\d{8})-(.*)$/.exec(name) ?? [];
    if (of === undefined) continue;
    if (of < oldest) remove(`${folder}/${name}`);
    else if (of === day && server !== serverId) sum = add(sum, readSum(`${folder}/${name}`));
  }
  return sum;
}

function readSum(path: string): Use {
  const fd = openSync(path, 'r');
  try {
    return readUse(fd);
  } finally {
    closeSync(fd);
  }
}

/** The sums of an open record of a day. Throws the errors of system calls. */
export function readUse(fd: number): Use {
  return readView(fd).sum;
}

// A line contains what it adds and the sums of everything before `covered`. A reader therefore
// needs the last line and the lines after the offset that it covers, as many as there were writers
// at that moment. `covered` is after a newline: a line that was not complete is not covered.
const LINE = /([+-]\d{16}) ([+-]\d) (\d{12}) (\d{17}) (\d{9}) (\d{10})$/;
const LINE_BYTES = 72;
const TAIL_BYTES = 4096;

interface Line {
  /** The offset of the line. */
  at: number;
  added: Use;
  covered: number;
  sum: Use;
  pid: number;
}

/** A reader's view of the record of a day. */
interface View {
  sum: Use;
  /** The offset after the last complete line. */
  end: number;
}

function readView(fd: number): View {
  const { size } = fstatSync(fd);
  let from = Math.max(0, size - TAIL_BYTES);
  let { lines, end } = readLines(fd, from, size);
  const covered = lines.at(-1)?.covered ?? 0;
  if (covered < from) {
    from = covered;
    ({ lines, end } = readLines(fd, from, size));
  }
  const last = lines.at(-1);
  let sum = last?.sum ?? { bytes: 0, uploads: 0 };
  for (const line of lines) if (last && line.at >= last.covered) sum = add(sum, line.added);
  return { sum, end };
}

/** The counts before our own line, which was appended when the record looked like `before`. */
function sumAhead(fd: number, before: View): Use {
  let { sum } = before;
  for (const line of readLines(fd, before.end, fstatSync(fd).size).lines) {
    if (line.pid === process.pid && line.covered === before.end) return sum;
    sum = add(sum, line.added);
  }
  throw new LockerFailure('failed', 'an appended line is missing');
}

/**
 * The lines that end in a range of the file. The part of a line that a full disk truncated is at
 * the beginning of the next line.
 */
function readLines(fd: number, from: number, size: number): { lines: Line[]; end: number } {
  const buffer = Buffer.alloc(size - from);
  const text = buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, from));
  const lines: Line[] = [];
  let start = 0;
  for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
    const found = LINE.exec(text.slice(start, end));
    if (found) {
      const [bytes = 0, uploads = 0, covered = 0, sumBytes = 0, sumUploads = 0, pid = 0] = found.slice(1).map(Number);
      const sum = { bytes: sumBytes, uploads: sumUploads };
      lines.push({ at: from + end - LINE_BYTES, added: { bytes, uploads }, covered, sum, pid });
    }
    start = end + 1;
  }
  return { lines, end: from + start };
}

function append(fd: number, { sum, end }: View, added: Use): void {
  const signed = (value: number, digits: number): string => (value < 0 ? '-' : '+') + pad(Math.abs(value), digits);
  const fields = [
    signed(added.bytes, 16),
    signed(added.uploads, 1),
    pad(end, 12),
    pad(sum.bytes, 17),
    pad(sum.uploads, 9),
  ];
  const line = Buffer.from(`${[...fields, pad(process.pid, 10)].join(' ')}\n`);
  // The rest is not written later, because it could land after another process's line.
  if (writeSync(fd, line) < line.length) throw new LockerFailure('full', 'write was truncated');
}

function pad(value: number, digits: number): string {
  return String(value).padStart(digits, '0');
}
