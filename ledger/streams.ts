// Reads the streams of an upload, in the locker or in an archive, one at a time and piece by piece.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { type Group, reach, STREAMS, type StreamName, statGroupFile } from 'webjob-locker';
import type { PackedGroup } from '../archive/manifest.ts';
import { type Pack, packAt, readGroups, readPackedFile } from '../archive/packs.ts';
import { Failure } from '../cli/failure.ts';
import { parseRecordFields } from './ending.ts';
import { MAX_HEAD_BYTES } from './head.ts';
import type { Job } from './job.ts';
import type { Site } from './site.ts';

export interface StoredStream {
  bytes: number;
  /**
   * Opens the stream when it is a file of its own; the caller closes it. Undefined in an archive.
   */
  open: (() => number) | undefined;
  read(): AsyncIterable<Buffer>;
}

/** The streams of an upload that exist. */
export type Stored = Partial<Record<StreamName, StoredStream>>;

export function findStreams(site: Site, group: Group): Stored {
  const locker = site.settings.incomingDirectory;
  const stored: Stored = {};
  for (const name of STREAMS) {
    const found = statGroupFile(locker, group.name, name);
    const open = (): number => openStream(locker, `${group.name}.${name}`);
    if (found) stored[name] = { bytes: found.size, open, read: () => readFile(open, found.size) };
  }
  return stored;
}

const PIECE_BYTES = 64 * 1024;

/**
 * Opens a stream without following a link and without blocking on a FIFO. Throws the error of a
 * system call, and Failure `failed` for anything but a regular file.
 */
function openStream(locker: string, file: string): number {
  const fd = openSync(reach(locker, file), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Failure('failed', `${locker}/${file} is not a regular file`);
}

/** Reads a file without a Node stream, whose overhead exceeds the time to read most files. */
async function* readFile(open: () => number, bytes: number): AsyncGenerator<Buffer> {
  const fd = open();
  try {
    for (const length = Math.min(bytes + 1, PIECE_BYTES); ; ) {
      const piece = Buffer.allocUnsafe(length);
      const count = readSync(fd, piece, 0, length, null);
      if (count > 0) yield piece.subarray(0, count);
      // A file that shrinks meanwhile yields fewer bytes.
      if (count < length) return;
    }
  } finally {
    closeSync(fd);
  }
}

export function packedStreams(pack: Pack, group: PackedGroup): Stored {
  const entries = STREAMS.map((name): [StreamName, StoredStream] => [
    name,
    { bytes: group.files[name].bytes, open: undefined, read: () => readPackedFile(pack, group, name) },
  ]);
  return Object.fromEntries(entries);
}

type Placed = Pick<Job, 'group' | 'packed'>;

/**
 * The streams of a job's upload, wherever it is; empty when there is none. Throws Failure for an
 * archive that cannot be read.
 */
export async function findJobStreams(site: Site, job: Placed): Promise<Stored> {
  return (await openStreams(site, [job]))(job);
}

/**
 * Opens the streams of many jobs; the manifest of each archive is read once, as far as necessary.
 */
export async function openStreams(site: Site, jobs: readonly Placed[]): Promise<(job: Placed) => Stored> {
  const wanted = new Map<string, Set<string>>();
  for (const { group, packed } of jobs)
    if (!group && packed) wanted.set(packed.pack, (wanted.get(packed.pack) ?? new Set()).add(packed.name));
  const found = new Map<string, Map<string, Stored>>();
  const failures = new Map<string, unknown>();
  for (const [name, names] of wanted) {
    const pack = packAt(site.settings, name);
    const groups = new Map<string, Stored>();
    found.set(name, groups);
    try {
      for (const group of readGroups(pack)) {
        if (names.has(group.name)) groups.set(group.name, packedStreams(pack, group));
        if (groups.size === names.size) break;
      }
    } catch (error) {
      failures.set(name, error);
    }
  }
  return ({ group, packed }) => {
    if (group) return findStreams(site, group);
    if (!packed) return {};
    const stored = found.get(packed.pack)?.get(packed.name);
    if (!stored && failures.has(packed.pack)) throw failures.get(packed.pack);
    return stored ?? {};
  };
}

/**
 * The fields in the run record of an archived upload. Only as much is read as of any other run
 * record.
 */
export async function readPackedRecord(stored: Stored): Promise<Map<string, string>> {
  let text = '';
  for await (const piece of stored.env?.read() ?? []) {
    text += piece.toString('latin1');
    if (text.length >= MAX_HEAD_BYTES) break;
  }
  return parseRecordFields(text.slice(0, MAX_HEAD_BYTES));
}
