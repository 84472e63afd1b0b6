// The custody record: a file of JSON lines to which every deposit adds one, each bound to all that stands before it by a SHA-256
// (docs/protocol.md, section 8). Nobody locks it, so nobody can leave a lock behind: a writer looks how long the file is, binds its record
// to the bytes so far, and appends it with one write. What others appended meanwhile is bound by whoever comes next.
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { escapeAscii } from 'webjob-protocol';
import { digestRange, newHash } from './digest.ts';
import { syncFile, syncFolder } from './durable.ts';
import { LockerFailure } from './failure.ts';

/** What a record tells; `event` says what happened, the rest is the writer's. What is undefined is left out. */
export interface CustodyFacts {
  event: string;
  [name: string]: unknown;
}

/** A line of the file. */
export interface CustodyRecord {
  /** The bytes of the file, first and behind the last, that `prev` is the SHA-256 of. */
  covers: [from: number, to: number];
  prev: string;
  /** SHA-256 of the line up to the comma before this field. */
  sum: string;
  /** The line from its brace on: what a torn line left in front of it is no part of it. */
  text: string;
}

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
/** The longest line, with its newline: whoever reads a custody record need not hold more of it. */
export const MAX_RECORD_BYTES = 1024 * 1024;
const TAIL_BYTES = 4096;

/** The custody record of one server: every server that shares a folder of logs has its own. */
export function custodyPath(logfilesDirectory: string, serverId: string): string {
  return join(logfilesDirectory, `nph-webjob-custody.${serverId}.jsonl`);
}

/** Whose custody record a file in LogfilesDirectory is, by its name; undefined for any other file. */
export function custodyOwner(file: string): string | undefined {
  return /^nph-webjob-custody\.([A-Za-z0-9_.-]{1,64})\.jsonl$/.exec(file)?.[1];
}

/** The line of a record, without its newline. */
export function formatCustody(covers: CustodyRecord['covers'], prev: string, facts: CustodyFacts): string {
  const line = escapeAscii(JSON.stringify({ covers, prev, ...facts })).slice(0, -1);
  return `${line},"sum":"${newHash().update(line).digest('hex')}"}`;
}

/** The record in a line; undefined when there is none, as in a line that was never finished. Does not compute the sum. */
export function parseCustody(line: string): CustodyRecord | undefined {
  // No text in a record holds this: there the quote has a backslash before it.
  const text = line.slice(line.lastIndexOf('{"covers":['));
  const pattern = /^\{"covers":\[(\d{1,15}),(\d{1,15})\],"prev":"([0-9a-f]{64})",.*,"sum":"([0-9a-f]{64})"\}$/;
  const [, from, to, prev, sum] = pattern.exec(text) ?? [];
  return prev && sum ? { covers: [Number(from), Number(to)], prev, sum, text } : undefined;
}

/**
 * Appends a record and puts it on disk. The file must be there unless it may be created. Throws LockerFailure `full` when only a part of
 * it fitted, and the error of a system call: nothing is then vouched for, and the next record begins a new line.
 */
export function appendCustody(path: string, facts: CustodyFacts, mayCreate = false): void {
  const fd = openCustody(path, mayCreate);
  try {
    const { size } = fstatSync(fd);
    const last = readLast(fd, size);
    const from = Math.min(last.coversTo, size);
    const line = formatCustody([from, size], digestRange(fd, from, size), facts);
    const bytes = Buffer.from(`${last.isTorn ? '\n' : ''}${line}\n`);
    if (bytes.length > MAX_RECORD_BYTES) throw new RangeError('a custody record is over its limit');
    // One write, so that it lands in one piece; a second one could land behind the record of another.
    if (writeSync(fd, bytes) < bytes.length) throw new LockerFailure('full', 'the custody record was cut short');
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
}

function openCustody(path: string, mayCreate: boolean): number {
  const flags = O_RDWR | O_APPEND | O_NOFOLLOW;
  try {
    return openSync(path, flags);
  } catch (error) {
    if (!mayCreate || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const fd = openSync(path, flags | O_CREAT, 0o644);
  syncFolder(dirname(path));
  return fd;
}

/** Where the bytes end that the last record before `size` covers, and whether somebody left his line unfinished. */
function readLast(fd: number, size: number): { coversTo: number; isTorn: boolean } {
  for (let length = TAIL_BYTES; ; length *= 8) {
    const tail = Buffer.alloc(Math.min(length, size));
    readSync(fd, tail, 0, tail.length, size - tail.length);
    const lines = tail.toString('latin1').split('\n');
    const isTorn = lines.pop() !== '';
    const last = lines.map(parseCustody).findLast((record) => record !== undefined);
    if (last || length >= size) return { coversTo: last?.covers[1] ?? 0, isTorn };
  }
}
