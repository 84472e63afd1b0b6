// Files that only grow and that rotation renames, compresses and removes: logs and custody records.
// Each is identified by its beginning and by the end of the part that was read, so that only new
// lines are read, each of them once, even after the file was renamed.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { makeCutter } from './lines.ts';
import { trimLine } from './log.ts';
import { expand, expandHead, findPacker, type Packer } from './packed-log.ts';
import type { Database } from './sqlite.ts';

export interface FileKind<Line> {
  /** `keeping` is the custody record of webjobctl. */
  kind: 'log' | 'custody' | 'keeping';
  /** Lists the paths of the files. */
  list(): string[];
  /** Whether a process may be appending to the file, so that it may end in half a line. */
  isLive(path: string): boolean;
  /** Parses a line; undefined for a malformed one. */
  parse(text: string, file: number): Line | undefined;
  /**
   * Only lines that contain one of these texts are wanted; undefined for all. With an empty list,
   * existing lines are not read.
   */
  holds?: readonly string[] | undefined;
  maxLineBytes: number;
}

/** New lines of one file. */
export interface NewLines<Line> {
  lines: Line[];
}

/** The stored facts about a file that was read before. */
interface Known {
  id: number;
  folder: string;
  name: string;
  inode: string;
  size: number;
  mtime: string;
  /** The number of uncompressed bytes that were read. */
  offset: number;
  head: Uint8Array;
  tail: Uint8Array;
  /** The number of malformed lines, and the first of them. */
  broken: number;
  sample: string;
}

interface Present {
  path: string;
  fd: number;
  inode: string;
  size: number;
  mtime: string;
  packer: Packer | undefined;
}

const HEAD_BYTES = 1024;
const TAIL_BYTES = 256;
const BLOCK_BYTES = 64 * 1024;
const SAMPLE_LENGTH = 80;

/**
 * Yields new lines block by block. After each block the position is written to the store, in the
 * caller's transaction. Finally `forget` is called with the files that no longer exist, whose lines
 * no longer count. Throws the errors of system calls.
 */
export async function* readNewLines<Line>(
  database: Database,
  { list, isLive, parse, kind, maxLineBytes, holds }: FileKind<Line>,
  forget: (file: number) => void,
): AsyncGenerator<NewLines<Line>> {
  const known = database.prepare('SELECT * FROM files WHERE kind = ?').all(kind) as unknown as Known[];
  const claims = claimFiles(known, list());
  let gone = known.filter((file) => !claims.some((claim) => claim.known === file));
  if (gone.length > 0) {
    // A file that was renamed during the listing may be missing under both names.
    const again = claimFiles(
      gone,
      list().filter((path) => !claims.some((claim) => claim.present.path === path)),
    );
    gone = gone.filter((file) => !again.some((claim) => claim.known === file));
    for (const { present } of again) closeSync(present.fd);
  }
  const save = makeSaver(database, kind);
  try {
    for (const { present, known: file = newFile(database) } of claims) {
      if (file.inode === present.inode && file.size === present.size && file.mtime === present.mtime) continue;
      for await (const lines of readRest(present, file, isLive(present.path), (text) => parse(text, file.id), {
        maxLineBytes,
        holds,
      })) {
        save(file, present, false);
        yield { lines };
      }
      save(file, present, true);
    }
  } finally {
    for (const { present } of claims) closeSync(present.fd);
  }
  for (const { id } of gone) {
    forget(id);
    database.prepare('DELETE FROM files WHERE id = ?').run(id);
  }
}

/** The number of malformed lines by file, with the first of each. */
export function listBroken(database: Database): { name: string; broken: number; sample: string }[] {
  const rows = database
    .prepare('SELECT name, broken, sample FROM files WHERE kind = ? AND broken > 0 ORDER BY id')
    .all('log');
  return rows as unknown as { name: string; broken: number; sample: string }[];
}

interface Claim {
  present: Present;
  /** The stored facts about the file; undefined when it was never read. */
  known: Known | undefined;
}

/** Matches files with the stored facts about them. The caller closes them. */
function claimFiles(known: readonly Known[], paths: readonly string[]): Claim[] {
  const claims: Claim[] = [];
  const isFree = (file: Known): boolean => !claims.some((claim) => claim.known === file);
  const rest: Present[] = [];
  const inodes = new Set<string>();
  for (const path of paths) {
    const present = openFile(path);
    if (!present) continue;
    if (inodes.size === inodes.add(`${dirname(path)} ${present.inode}`).size) {
      closeSync(present.fd);
      continue;
    }
    const same = known.find((file) => file.inode === present.inode && file.folder === dirname(path) && isFree(file));
    if (same && continues(present, same)) claims.push({ present, known: same });
    else rest.push(present);
  }
  for (const present of rest) {
    const isSame = (file: Known): boolean => file.folder === dirname(present.path) && continues(present, file);
    const found = known.find((file) => isFree(file) && isSame(file));
    // A copy that logrotate made before truncating the log has no new lines.
    const isCopy = !found && claims.some((claim) => claim.known && isSame(claim.known));
    if (isCopy) closeSync(present.fd);
    else claims.push({ present, known: found });
  }
  return claims;
}

function openFile(path: string): Present | undefined {
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO or device must not block the program.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const stats = fstatSync(fd, { bigint: true });
  if (!stats.isFile()) {
    closeSync(fd);
    return undefined;
  }
  const facts = { inode: `${stats.dev}:${stats.ino}`, size: Number(stats.size), mtime: String(stats.mtimeNs) };
  return { path, fd, ...facts, packer: findPacker(path) };
}

/**
 * Whether a file is the stored one: its beginning, and the end of the part that was read, are the
 * same.
 */
function continues(present: Present, file: Known): boolean {
  const { inode, size, mtime } = present;
  if (file.inode === inode && file.size === size && file.mtime === mtime) return true;
  if (file.head.length === 0) return false;
  if (present.packer) return Buffer.compare(readHeadOf(present, file.head.length), file.head) === 0;
  if (size < file.offset) return false;
  if (Buffer.compare(readAt(present.fd, 0, file.head.length), file.head) !== 0) return false;
  return Buffer.compare(readAt(present.fd, file.offset - file.tail.length, file.tail.length), file.tail) === 0;
}

function readHeadOf(present: Present, length: number): Buffer {
  if (!present.packer) return readAt(present.fd, 0, length);
  return expandHead(present.fd, present.packer).subarray(0, length);
}

function readAt(fd: number, at: number, length: number): Buffer {
  const buffer = Buffer.alloc(length);
  return buffer.subarray(0, readSync(fd, buffer, 0, length, Math.max(0, at)));
}

function newFile(database: Database): Known {
  const last = database.prepare('SELECT max(id) AS id FROM files').get()?.id as number | null;
  const nothing = { offset: 0, head: new Uint8Array(), tail: new Uint8Array(), broken: 0, sample: '' };
  return { id: (last ?? 0) + 1, folder: '', name: '', inode: '', size: -1, mtime: '', ...nothing };
}

function makeSaver(database: Database, kind: string): (file: Known, present: Present, isDone: boolean) => void {
  const write = database.prepare(`INSERT OR REPLACE INTO files
    (id, kind, folder, name, inode, size, mtime, offset, head, tail, broken, sample) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`);
  return (file, present, isDone) => {
    // Until the file is read to its end, only its beginning identifies it.
    Object.assign(file, { folder: dirname(present.path), name: basename(present.path), inode: present.inode });
    Object.assign(file, isDone ? { size: present.size, mtime: present.mtime } : { size: -1, mtime: '' });
    if (file.offset > 0) {
      if (file.head.length < HEAD_BYTES) file.head = readHeadOf(present, Math.min(HEAD_BYTES, file.offset));
      if (!present.packer) file.tail = readAt(present.fd, file.offset - TAIL_BYTES, Math.min(TAIL_BYTES, file.offset));
      else file.tail = new Uint8Array();
    }
    const { id, folder, name, inode, size, mtime, offset, head, tail, broken, sample } = file;
    // A file without a line cannot be identified yet.
    if (offset > 0) write.run(id, kind, folder, name, inode, size, mtime, offset, head, tail, broken, sample);
  };
}

/** Reads the lines after `file.offset`, which advances with every block. */
async function* readRest<Line>(
  present: Present,
  file: Known,
  isLive: boolean,
  parse: (text: string) => Line | undefined,
  { maxLineBytes, holds }: Pick<FileKind<Line>, 'maxLineBytes' | 'holds'>,
): AsyncGenerator<Line[]> {
  const parseCounted = (text: string): Line | undefined => {
    const line = parse(text);
    // Two writers that both end a torn line leave an empty line.
    if (line === undefined && trimLine(text) !== '' && file.broken++ === 0)
      file.sample = text.length > SAMPLE_LENGTH ? `${text.slice(0, SAMPLE_LENGTH)}...` : text;
    return line;
  };
  const cutter = makeCutter(parseCounted, maxLineBytes, holds);
  const start = file.offset;
  if (holds?.length === 0 && !present.packer) {
    file.offset = findLineEnd(present, start);
    yield [];
    return;
  }
  let at = start;
  for await (const block of present.packer ? skip(expand(present), start) : readPlain(present, start)) {
    const lines = cutter.cut(block);
    const end = block.lastIndexOf(10);
    if (end >= 0) file.offset = at + end + 1;
    at += block.length;
    yield lines;
  }
  if (isLive || at === file.offset) return;
  file.offset = at;
  yield cutter.end();
}

/** The offset after the last complete line; a line begins at `start`. */
function findLineEnd({ fd, size }: Present, start: number): number {
  for (let to = size; to > start; ) {
    const from = Math.max(start, to - BLOCK_BYTES);
    const end = readAt(fd, from, to - from).lastIndexOf(10);
    if (end >= 0) return from + end + 1;
    to = from;
  }
  return start;
}

/** Yields block after block in the same buffer. */
function* readPlain({ fd, size }: Present, start: number): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(BLOCK_BYTES, size - start)));
  for (let at = start; at < size; ) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, size - at), at);
    if (count === 0) return;
    yield buffer.subarray(0, count);
    at += count;
  }
}

async function* skip(blocks: AsyncIterable<Buffer>, count: number): AsyncGenerator<Buffer> {
  let left = count;
  for await (const block of blocks) {
    const part = Math.min(left, block.length);
    left -= part;
    if (part < block.length) yield block.subarray(part);
  }
}
